"""The ladder climbs, at sizes that cost next to nothing, and every trick can be taken out of the code as it is now."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ladder import report, variants
from benchmarks.ladder.__main__ import main
from benchmarks.ladder.climb import Found
from benchmarks.ladder.rungs import RUNGS, Rung
from benchmarks.ladder.steps import Served
from benchmarks.ladder.variants import VARIANTS
from benchmarks.peers import process
from benchmarks.peers.compare import Options
from tests.support.compiled import require_programs

pytestmark = [pytest.mark.slow, pytest.mark.interop]

TINY = ("--scale", "0.0005", "--rounds", "1", "--no-pin")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def _compiled() -> None:
    require_programs()


def climbed(tmp_path: Path, *names: str) -> dict[str, dict[str, object]]:
    out = tmp_path / "out.json"
    assert main([*TINY, "--only", ",".join(names), "--json", str(out)]) == 0, out.read_text()
    assert process.tree(os.getpid()) == [os.getpid()]
    return {rung["name"]: rung for rung in json.loads(out.read_text())["rungs"]}


# One rung of every kind of work, and between them every layer.
@pytest.mark.usefixtures("_compiled")
@pytest.mark.parametrize("names", [("download", "keys"), ("trips", "groups"), ("full", "tail"), ("idle", "wire-bio")])
def test_every_step_of_a_rung_gives_a_number(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rungs = climbed(tmp_path, *names)
    printed = capsys.readouterr().out
    assert set(rungs) == set(names)
    for rung in RUNGS:
        if rung.name in names:
            labels = [step["label"] for step in rungs[rung.name]["steps"]]  # type: ignore[index, attr-defined]
            assert labels == [step.label for step in rung.steps()]
            assert f"[{rung.name}]" in printed


def test_every_trick_can_be_taken_out_of_the_code_as_it_is_now() -> None:
    program = (
        "import os\nfrom benchmarks.ladder.variants import VARIANTS\n"
        "for name, apply in VARIANTS.items():\n"
        "    if os.fork() == 0:\n        apply()\n        os._exit(0)\n"
        "    assert os.wait()[1] == 0, name\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variant_is_a_step_of_a_rung() -> None:
    used = {step.variant for rung in RUNGS for step in rung.steps() if isinstance(step, Served)}
    assert used == {"", *VARIANTS}


def test_names_of_rungs_and_of_the_steps_of_a_rung_are_unique() -> None:
    assert len({rung.name for rung in RUNGS}) == len(RUNGS)
    for rung in RUNGS:
        labels = [step.label for step in rung.steps()]
        assert len(set(labels)) == len(labels)


def test_a_place_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(LookupError, match=r"report\.as_text: 'no such text' is there 0 times; correct variants\.py"):
        variants._edit(report, "as_text", "no such text", "")


@pytest.mark.usefixtures("_compiled")
def test_a_step_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.ladder.__main__.RUNGS", (_broken(),))
    out = tmp_path / "out.json"
    assert main([*TINY, "--json", str(out)]) == 1
    rung = json.loads(out.read_text())["rungs"][0]
    assert [step["label"] for step in rung["steps"]] == ["+ TLS"]
    assert "invalid choice: 'nothing-like-it'" in rung["failures"]["broken"]
    assert "broken" in capsys.readouterr().out


def _broken() -> Rung:
    steps = (Served("+ TLS", "full", "tls"), Served("broken", "full", "tls", variant="nothing-like-it"))
    return Rung("broken", "one fails", "CPU us", lambda: list(steps))


def test_a_wrong_rung_is_named_with_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "downlaod"]) == 2
    assert "downlaod unknown; known are download, upload" in capsys.readouterr().err


def test_a_trick_shows_only_where_every_quartile_says_so() -> None:
    rung = Rung("x", "x", "us", list, trick="x: y")
    samples = {"with": [1.0, 1.0, 1.0, 1.0], "more": [1.2, 1.3, 1.2, 1.2], "noise": [0.8, 1.3, 1.2, 1.2]}
    steps = report.as_json([Found(rung, samples)], Options(), {})["rungs"][0]["steps"]
    assert [step.get("shows") for step in steps] == [None, True, True]
    samples["noise"] = [0.8, 0.9, 1.2, 1.2]
    steps = report.as_json([Found(rung, samples)], Options(), {})["rungs"][0]["steps"]
    assert [step.get("shows") for step in steps] == [None, True, False]


def test_a_climbing_rung_compares_each_step_with_the_one_above() -> None:
    rung = Rung("x", "x", "us", list, climbs=True)
    found = Found(rung, {"one": [1.0], "two": [2.0], "three": [3.0]}, {"four": "it broke"})
    made = report.as_json([found], Options(), {"cpu": "any"})
    assert [step.get("against") for step in made["rungs"][0]["steps"]] == [None, "one", "two"]
    text = "\n".join(report.as_text(made))
    assert "1.500" in text
    assert "failed: it broke" in text
