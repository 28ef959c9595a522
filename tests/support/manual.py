"""The tables of the reference pages, made from the table of keys and the table of metrics.

The texts around them, and what a key of the file means, are written in the pages. A test compares; `UPDATE_GOLDEN=1`
writes what has changed, and leaves the meaning of a new key to be written by hand.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tlstunnel.access.policy import Rule
from tlstunnel.cli import options
from tlstunnel.config import effective
from tlstunnel.config.keys import KEYS, PANELS, SECTIONS, Key, Place, keys_in, options_of
from tlstunnel.config.model import ClientAuth, Config, Mode, Service
from tlstunnel.config.source import render
from tlstunnel.observe.lines import LEVEL_OF
from tlstunnel.observe.metrics import FAMILIES
from tlstunnel.outcome import CloseReason, Stage

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
TABLE = re.compile(r"^(\| (?:key|field) \|.*\n\|[-|]+\|\n)((?:\|.*\n)*)", re.MULTILINE)
ROW = re.compile(r"\| `(\w+)`.* \| ((?:[^|]|\\\|)*) \|\n")
METRICS = re.compile(r"^(\| metric \|.*\n\|[-|]+\|\n)((?:\|.*\n)*)", re.MULTILINE)
SUBJECTS = ("(connection|bytes)", "(handshake|access)", "(backend|target)", "(certificate|ocsp|config)", "")
"""How the names begin of the metrics that each table of metrics.md has, in the order of the page."""
EVERY = Place.SERVER | Place.CLIENT | Place.PASSTHROUGH


def configuration_page() -> str:
    """docs/reference/configuration.md with its tables as they should be."""
    server, client = _defaults(Mode.SERVER), _defaults(Mode.CLIENT)
    required = {"listen": "required", "target": "required"}
    tables = iter(
        [
            *(
                _rows(keys_in(place), effective.keys_of_section(Config(services=()), s))
                for s, place in SECTIONS.items()
            ),
            _rows([key for key in KEYS if EVERY in key.places], server, required),
            _rows([key for key in keys_in(Place.SERVER) if EVERY not in key.places], server),
            _rows([key for key in keys_in(Place.CLIENT) if EVERY not in key.places], client),
            {field.name: "" for field in dataclasses.fields(Rule) if field.init},
            _rows(keys_in(Place.SNI), {}),
            _rows(keys_in(Place.TARGET_TLS), client),
        ]
    )
    page = TABLE.sub(lambda table: table[1] + _with_meanings(next(tables), table[2]), _text("configuration.md"))
    assert next(tables, None) is None, "a table of the page is missing"
    return page


def options_page() -> str:
    """docs/reference/options.md: what stands above its first table, and the tables."""
    parts = [_text("options.md").partition("## ")[0].rstrip("\n") + "\n"]
    defaults = {mode: options.defaults(mode) for mode in (Mode.SERVER, Mode.CLIENT)}
    by_mode = {mode: options_of(mode) for mode in defaults}
    for panel in PANELS:
        rows = ["| option | command | key | default | meaning |", "|---|---|---|---|---|"]
        for key in KEYS:
            modes = [mode for mode in defaults if key in by_mode[mode]]
            if key.panel != panel:
                continue
            metavar = f" {key.kind.metavar}" if key.kind.metavar else ""
            default = defaults[modes[0]].get((key.section, key.name))
            shown = "" if default in (None, "", False, []) else f"`{options.listed(default)}`"
            name = key.name if key.section == "service" else f"{key.section}.{key.name}"
            commands = "both" if len(modes) > 1 else modes[0].value
            often = " Repeatable." if key.kind.is_many else ""
            cells = (f"`{key.option}{metavar}`", commands, f"`{name}`", shown, key.help + often)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append(f"## {panel}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """docs/reference/metrics.md with its tables as they should be."""
    rows: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
    for family in FAMILIES:
        subject = next(subject for subject in SUBJECTS if re.match(subject, family.series))
        labels = ", ".join(f"`{label}`" for label in family.labels)
        values = ", ".join(f"`{key}`" for key in family.keys if isinstance(key, str) and not family.remark)
        meaning = f"{family.help[:-1]}: {values}." if values else f"{family.help} {family.remark}".rstrip()
        rows[subject].append(
            f"| `{family.sample_name}` | {family.kind} | {labels}{' ' if labels else ''}| {meaning} |\n"
        )
    tables = iter(sorted(table) for table in rows.values())
    text, _, _ = _text("metrics.md").partition("| reason | stage |")
    reasons = [
        f"| `{reason.label}` | {reason.stage.value} | {reason.fault.value} | {LEVEL_OF[reason]} | {reason.text} |\n"
        for stage in Stage
        for reason in CloseReason
        if reason.stage is stage
    ]
    head = "| reason | stage | fault | level | meaning |\n|---|---|---|---|---|\n"
    return METRICS.sub(lambda table: table[1] + "".join(next(tables)), text) + head + "".join(reasons)


def without_meaning() -> list[str]:
    """Rows of the page of which nobody has written yet what they mean."""
    rows = [row for table in TABLE.finditer(_text("configuration.md")) for row in table[2].splitlines(keepends=True)]
    return [row for row in rows if not (found := ROW.fullmatch(row)) or not found[2].strip()]


def _text(name: str) -> str:
    return (REFERENCE / name).read_text()


def _defaults(mode: Mode) -> Mapping[str, object]:
    auth = ClientAuth.OPTIONAL if mode is Mode.SERVER else ClientAuth.NONE
    keys = effective.keys_of_service(
        Service(name="", mode=mode, listen=(), targets=(), client_auth=auth, target_tls=None)
    )
    return keys | {"client_auth": "none"}


def _rows(
    keys: Iterable[Key], defaults: Mapping[str, object], remarks: Mapping[str, str] | None = None
) -> dict[str, str]:
    """How a key is written and its default, by key."""
    rows = {}
    for key in keys:
        default = defaults.get(key.name)
        shown = "" if default is None or default == "" else f"`{render(default)}`"
        words = key.kind.words + (f" (since {key.since})" if key.since else "")
        rows[key.name] = f" {words} | {(remarks or {}).get(key.name, shown)} |"
    return rows


def _with_meanings(rows: Mapping[str, str], written: str) -> str:
    meanings = dict(found.groups() for row in written.splitlines(keepends=True) if (found := ROW.fullmatch(row)))
    return "".join(f"| `{name}` |{cells} {meanings.get(name, '')} |\n" for name, cells in rows.items())
