"""Why a file is not TOML, in words that say what to write."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tlstunnel.config.source import show
from tlstunnel.errors import Problem, printable

_AT = re.compile(r"(.*?) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)
_KEY = re.compile(r"[\w.-]+")
_BARE_KEYS = re.compile(r"[\w.\- \t\[]*")

MAX_DEPTH = 16
"""Tables and arrays within each other; what any key of ours takes is a third of it."""

_SHOWN = 60  # characters of a line that a message repeats


def explain(name: str, raw: bytes, exc: ValueError) -> Problem:
    """One line about a file that cannot be parsed: the line, what is wrong there, what would be right.

    Args:
        name: the file, as the operator named it.
        raw: its content.
        exc: what decoding (UnicodeDecodeError) or parsing (TOMLDecodeError) it raised.
    """
    if isinstance(exc, UnicodeDecodeError):
        line = raw.count(b"\n", 0, exc.start) + 1
        return Problem(f"{name}: line {line}", "is not UTF-8; save the file in that encoding")
    lines = raw.decode("utf-8-sig").splitlines()
    found = _AT.fullmatch(str(exc))
    what, line_text = found.groups() if found else (str(exc), None)
    number = int(line_text) if line_text else max(len(lines), 1)
    text = lines[number - 1] if number <= len(lines) else ""
    return Problem(f"{name}: line {number}", _describe(printable(text.strip()), what))


def too_deep(name: str) -> Problem:
    """What to say of a file whose tables or arrays are nested beyond any sense."""
    return Problem(
        name, f"tables or arrays are nested more than {MAX_DEPTH} deep; no key takes that, correct the brackets"
    )


def has_endless_key(text: str) -> bool:
    """Whether a line begins with more names and dots than any table is deep; to read it takes the parser ages."""
    return any(_dots(line) > MAX_DEPTH for line in text.splitlines())


def _dots(line: str) -> int:
    keys = _BARE_KEYS.match(line)
    return keys[0].count(".") if keys else 0


def depth(document: Mapping[str, object]) -> int:
    """How many tables and arrays stand within each other, as far as `MAX_DEPTH` goes and one more."""
    level: list[object] = [document]
    for reached in range(MAX_DEPTH + 1):
        level = [item for each in level for item in _items(each) if isinstance(item, dict | list)]
        if not level:
            return reached + 1
    return MAX_DEPTH + 1


def _items(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _describe(text: str, what: str) -> str:
    # The parser's own words differ between versions of Python; they are repeated only where ours say less.
    if any(word in what for word in ("overwrite", "twice", "Cannot declare", "Cannot mutate")):
        return f"{text[:_SHOWN]} is there for the second time; write each key and each table once"
    key, equals, rest = text.partition("=")
    key, value = key.strip(), rest.partition("#")[0].strip()
    if _KEY.fullmatch(key) and value[:1] not in ("", *"\"'[{") and value not in ("true", "false"):
        return f"{show(value)} is not a value; write strings in quotes: {key[:_SHOWN]} = {show(value)}"
    if ":" in text and not equals:
        return f"{text[:_SHOWN]} is not TOML; write key = value"
    return f"not TOML ({' '.join(printable(what).split()).lower()}); close every quote, bracket and brace"
