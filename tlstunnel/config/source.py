"""Where a configuration was written: a file or the command line. Decides how a message names a place.

One loader reads both, so that `idle_timeout = "5"` and `--idle-timeout 5` meet the same code and the same words; only
the way to name the place and to spell the remedy differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tlstunnel.errors import ConfigError, Problem, printable

Steps = tuple[str | int, ...]
"""A key path: the names of tables and keys, and positions in arrays."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MAX_BITS = 1024  # Python writes a number of very many digits in hexadecimal alone
_SHOWN = 80  # characters of a value that a message repeats
_ESCAPES = {'"': '\\"', "\\": "\\\\"}


def quote(text: str) -> str:
    """A TOML basic string."""
    return '"' + "".join(_ESCAPES.get(char) or (char if char.isprintable() else _escape(char)) for char in text) + '"'


def _escape(char: str) -> str:
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def render(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(render(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{render_key(key)} = {render(item)}" for key, item in value.items()) + " }"
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return hex(value)
    return str(value)


def render_key(key: str) -> str:
    """A key as TOML writes it: bare where that is allowed."""
    return key if _BARE_KEY.fullmatch(key) else quote(key)


def show(value: object) -> str:
    """A value for a message: as TOML, cut where it gets long."""
    text = render(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def render_path(steps: Steps) -> str:
    """`services.web.listen[1]`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f"{'.' if text else ''}{render_key(step)}"
    return text


@dataclass(frozen=True, slots=True)
class FileSource:
    """A TOML file, named in messages as the operator named it."""

    name: str
    base: Path
    """The folder that relative paths start from."""
    is_text: bool = False
    """Whether numbers arrive as text."""

    def where(self, steps: Steps) -> str:
        """Name the place of a key."""
        return f"{self.name}: {render_path(steps)}" if steps else self.name

    def spell(self, steps: Steps, value: object = None) -> str:
        """Say how to write this key here, with a value if one is given."""
        key = render_path(steps[-1:])
        return key if value is None else f"{key} = {render(value)}"


@dataclass(frozen=True, slots=True)
class OptionSource:
    """The command line. `options` says which option stands for which key path."""

    options: Mapping[Steps, str]
    base: Path
    is_text: bool = True

    def where(self, steps: Steps) -> str:
        return next((self.options[steps[:n]] for n in range(len(steps), 0, -1) if steps[:n] in self.options), "")

    def spell(self, steps: Steps, value: object = None) -> str:
        option = self.where(steps) or "--" + str(steps[-1]).replace("_", "-")
        return option if value is None or value is True else f"{option} {value}"


Source = FileSource | OptionSource


class FilesError(ConfigError):
    """Nothing is wrong but files that are missing or cannot be read: the machine's fault, exit code 1."""

    exit_code = 1


class Report:
    """Collects every problem of one configuration, to raise them together in the order they stand in the file."""

    def __init__(self, source: Source, document: Mapping[str, object]) -> None:
        self.source = source
        self._document = document
        self._found: list[tuple[Steps, Problem, bool]] = []

    def add(self, steps: Steps, what: str, *, machine: bool = False) -> None:
        """Note a problem. `machine` says that the text is right and the machine (a file, its rights) is not."""
        problem = Problem(printable(self.source.where(steps)), printable(what))
        self._found.append((steps, problem, machine))

    def touches(self, steps: Steps) -> bool:
        """Whether a problem was noted with this key or anything below it."""
        return any(found[: len(steps)] == steps for found, _, _ in self._found)

    def error(self) -> ConfigError | None:
        """All problems, as `FilesError` when every one of them is the machine's; None when there is none."""
        if not self._found:
            return None
        order = {steps: position for position, steps in enumerate(_walk(self._document))}
        self._found.sort(key=lambda found: _position(found[0], order))
        kind = FilesError if all(machine for _, _, machine in self._found) else ConfigError
        return kind(problem for _, problem, _ in self._found)


def _walk(value: object, steps: Steps = ()) -> Iterable[Steps]:
    yield steps
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(item, (*steps, key))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _walk(item, (*steps, position))


def _position(steps: Steps, order: Mapping[Steps, int]) -> int:
    """Where a key stands; a key that is missing stands at the head of its table."""
    return next(order[steps[:n]] for n in range(len(steps), -1, -1) if steps[:n] in order)
