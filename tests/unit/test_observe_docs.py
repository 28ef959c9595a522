"""The reference pages name what exists, and everything that exists."""

from __future__ import annotations

import ast
import json
import os
import re
import time
from pathlib import Path

import tlstunnel
from tests.support import manual
from tests.support.admin_rig import begin, config, one_connection
from tests.unit.test_log_lines import WHEN, record
from tests.unit.test_observe_observer import ListLog
from tlstunnel.observe.admin.routes import PATHS
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.lines import JSONLines
from tlstunnel.observe.listing import describe
from tlstunnel.observe.log import BURST, INTERVAL_S
from tlstunnel.observe.metrics import FAMILIES
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.series import PAUSE_REASONS, series_for
from tlstunnel.observe.sinks import MAX_PENDING
from tlstunnel.observe.state import CertificateState, ReloadState, ServiceState, TunnelState, WorkerState
from tlstunnel.observe.status import status_document
from tlstunnel.outcome import CloseReason

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def rows(text: str) -> list[list[str]]:
    """The rows of all tables, without heads."""
    found = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [row for row in found if row[0].startswith("`")]


def section(text: str, title: str) -> str:
    return re.split(r"\n## ", text.split(f"## {title}\n", 1)[1])[0]


def words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_every_metric_and_every_reason_is_documented_as_it_is_and_no_other_is() -> None:
    """UPDATE_GOLDEN=1 writes the tables anew, after a metric or a reason was added."""
    text = manual.metrics_page()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (REFERENCE / "metrics.md").write_text(text)
    assert page("metrics.md") == text


def test_every_metric_stands_in_one_table() -> None:
    documented = [row[0].strip("`") for row in rows(page("metrics.md").split("## Reasons and results")[0])]
    assert sorted(documented) == sorted(family.sample_name for family in FAMILIES)


def test_reasons_of_pauses_are_documented() -> None:
    for reason in PAUSE_REASONS:
        assert f"`{reason}`" in page("metrics.md")


def test_every_key_of_a_record_is_documented_in_its_order() -> None:
    documented = [row[0].strip("`") for row in rows(section(page("log.md"), "One record per connection"))]
    line = JSONLines().connection("info", WHEN, record(CloseReason.FINISHED))
    assert documented == list(json.loads(line))


def events_in(path: Path) -> set[str]:
    """The events of the calls of `Log.message`, `Log.occasional` and a line's `message`: a word after the level."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if is_call and node.func.attr in ("message", "occasional"):  # type: ignore[attr-defined]
            for argument in node.args[1:3]:  # type: ignore[attr-defined]
                value = getattr(argument, "value", None)
                if isinstance(value, str) and re.fullmatch("[a-z_]+", value):
                    found.add(value)
    return found


def test_every_event_is_documented_and_no_other_is() -> None:
    documented = {row[0].strip("`") for row in rows(section(page("log.md"), "Other events"))}
    package = Path(tlstunnel.__file__).parent
    assert documented == set().union(*(events_in(path) for path in package.rglob("*.py")))


def test_numbers_in_the_page_are_those_of_the_code() -> None:
    assert f"first {BURST} in {INTERVAL_S:.0f} seconds" in page("log.md")
    assert f"{MAX_PENDING // 1024} KiB" in page("log.md")


def test_every_path_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows(page("admin.md").split("## /status")[0])]
    assert documented == list(PATHS)


def test_every_key_of_the_status_is_documented() -> None:
    series = series_for(config())
    counters = Counters(series.layout, rows=2)
    one_connection(Observer(series, counters.row(1), ListLog()), 0, CloseReason.NOT_TLS)
    state = TunnelState(
        version="1",
        supervisor_pid=1,
        started_at=0.0,
        services=(ServiceState(name="orders", mode="server", listeners=(), targets=("127.0.0.1:8080",)),),
        workers=(WorkerState(pid=1, row=1, generation=1, started_at=0.0),),
        certificates=(
            CertificateState(service="orders", file="f", subject="s", not_before=0.0, not_after=1.0, loaded_at=0.0),
        ),
        last_reload=ReloadState(at=0.0, ok=True),
    )
    document = status_document(counters, series, state)
    text = section(page("admin.md"), "/status")
    top, service = text.split("A service:")
    assert [row[0].strip("`") for row in rows(top)] == list(document)
    assert [word for row in rows(service) for word in words(row[0])] == list(document["services"][0])
    by_key = {word: row[1] for row in rows(service) for word in words(row[0])}
    for key in ("connections", "handshakes", "bytes"):
        assert [word for word in words(by_key[key]) if word != "null"] == list(document["services"][0][key])
    assert words(by_key["targets"]) == list(document["services"][0]["targets"][0])
    meaning = {row[0].strip("`"): words(row[1]) for row in rows(top)}
    assert meaning["workers"] == list(document["workers"][0])
    assert [word for word in meaning["certificates"] if word not in ("ca", "crl", "certificate")] == sorted(
        document["certificates"][0], key=meaning["certificates"].index
    )
    assert meaning["last_reload"][:3] == list(document["last_reload"])
    assert meaning["reloads"] == list(document["reloads"])


def test_every_key_of_a_listed_connection_is_documented() -> None:
    series = series_for(config())
    observer = Observer(series, Counters(series.layout, rows=1).row(0), ListLog())
    shown = describe(begin(observer, 0, 1), time.monotonic())
    table = {row[0].strip("`"): words(row[1]) for row in rows(section(page("admin.md"), "/connections"))}
    assert table["connections"] == ["id", *[word for word in table["connections"][1:] if word != "row"], "row"]
    assert set(table["connections"]) - {"row"} == {*shown, "worker"}
    assert list(table) == ["open", "unanswered", "next", "connections"]
