"""The page about the JSON names every key, flaw and weakness there is, and none that is not."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tests.unit.test_probe_weaknesses import CASES
from tlstunnel.tools.probe import weaknesses
from tlstunnel.tools.probe.findings import Findings
from tlstunnel.tools.probe.suites import SUITES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/probe.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_key_of_the_json_is_described() -> None:
    table = PAGE.partition("## How")[0]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    assert re.findall(r"`(\w+)`", first_cells) == [
        name for field in dataclasses.fields(Findings) for name in [field.name]
    ]
    for part in ("target", "timings_ms", "alpn", "resumption", "client_certificate", "features"):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{part}`"))
        kind = Findings.__dataclass_fields__[part].type
        inner = getattr(__import__("tlstunnel.tools.probe.findings", fromlist=["x"]), str(kind))
        for field in dataclasses.fields(inner):
            assert f"`{field.name}`" in row, (part, field.name)


def test_every_weakness_is_in_the_table_and_in_a_test() -> None:
    source = Path(weaknesses.__file__).read_text()
    raised = set(re.findall(r'_weak\(\s*"([^"]+)"', source)) | {each[1] for each in weaknesses._SUITE_FLAWS.values()}
    raised |= {each[1] for each in weaknesses._OLD_VERSIONS.values()}
    described = {
        name
        for line in section("Weaknesses").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert described == raised
    assert {name for name, _, _ in CASES} == raised


def test_every_flaw_is_in_the_table() -> None:
    flaws = {flaw for suite in SUITES.values() for flaw in weaknesses.flaws_of(suite)}
    described = {
        name
        for line in section("Flaws of suites").splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    assert described == flaws == set(weaknesses._SUITE_FLAWS)
