"""Why a file is not TOML, in words that say what to write."""

from __future__ import annotations

import re

from tlstunnel.config.source import show
from tlstunnel.errors import Problem

_AT = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_ASSIGNMENT = re.compile(r"\s*([\w.-]+)\s*=\s*(.*?)\s*(?:#.*)?")


def explain(name: str, raw: bytes, exc: ValueError) -> Problem:
    """One line about a file that cannot be parsed: the line, what is wrong there, what would be right."""
    if isinstance(exc, UnicodeDecodeError):
        line = raw.count(b"\n", 0, exc.start) + 1
        return Problem(f"{name}: line {line}", "is not UTF-8; save the file in that encoding")
    lines = raw.decode("utf-8-sig").splitlines()
    found = _AT.fullmatch(str(exc))
    what, line_text, column = found.groups() if found else (str(exc), None, None)
    number = int(line_text) if line_text else max(len(lines), 1)
    text = lines[number - 1] if 0 < number <= len(lines) else ""
    where = f"{name}: line {number}" + (f", column {column}" if column else "")
    return Problem(where, f"{_lower(what)}; {_remedy(text, what)}")


def _lower(what: str) -> str:
    flat = " ".join(what.split())
    return "not TOML: " + flat[:1].lower() + flat[1:]


def _remedy(text: str, what: str) -> str:
    assignment = _ASSIGNMENT.fullmatch(text)
    if "overwrite" in what or "twice" in what or "Cannot declare" in what:
        return "write each key and each table once"
    if assignment:
        key, value = assignment.groups()
        if value and value[0] not in "\"'[{" and value not in ("true", "false"):
            return f"write strings in quotes: {key} = {show(value)}"
    if ":" in text and "=" not in text:
        return "write key = value"
    return "close every quote, bracket and brace, and write one key = value in a line"
