"""The figure of the comparison shows what the report says, and nothing that was not judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import figure


def report(**ratios: dict[str, float]) -> dict[str, Any]:
    return {
        "subject": "ours",
        "machine": {"cpu": "some", "cpus": "2", "kernel": "6", "python": "3.11"},
        "versions": {"ours": "1", "other": "2"},
        "options": {"suite": "S", "group": "G", "rounds": 3},
        "rows": [{"title": "download", "ratios": ratios}],
    }


GOOD = {"median": 0.59, "low": 0.58, "high": 0.61, "bar": 0.6}
MISSED = {"median": 1.07, "low": 1.02, "high": 1.11, "bar": 1.0}
NOT_JUDGED = {"median": 0.9, "low": 0.8, "high": 1.0}


def test_only_ratios_with_a_bar_are_shown_in_the_order_of_the_table() -> None:
    lines = figure.judged(report(one=GOOD, two=NOT_JUDGED, three=MISSED))
    assert lines == [("download   / one", GOOD), ("download   / three", MISSED)]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_saved_report_becomes_a_figure(ending: str, tmp_path: Path) -> None:
    source, target = tmp_path / "report.json", tmp_path / f"figure.{ending}"
    source.write_text(json.dumps(report(one=GOOD, three=MISSED)))
    assert figure.main([str(source), str(target)]) == 0
    head = target.read_bytes()[:400]
    assert head.startswith(b"\x89PNG") or b"<svg" in head


@pytest.mark.parametrize(
    ("text", "said"), [("{}", "'rows'"), ("no JSON", "Expecting value"), (json.dumps(report(x=NOT_JUDGED)), "a bar")]
)
def test_what_is_no_report_is_named(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "report.json"
    source.write_text(text)
    assert figure.main([str(source), str(tmp_path / "figure.svg")]) == 2
    assert said in capsys.readouterr().err


def test_the_figure_of_the_documents_is_linked_from_the_page_it_shows() -> None:
    docs = Path(__file__).parent.parent.parent / "docs/reference"
    assert "](performance.svg)" in (docs / "performance.md").read_text()
    assert b"<svg" in (docs / "performance.svg").read_bytes()[:400]
