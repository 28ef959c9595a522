"""A cursor over one TOML table that knows its key path.

Theory of operation. The loader asks a `Table` for one key after the other. Each question notes the key as known, so
the reader needs no schema: when the table is finished, keys that nobody asked for are unknown, and the nearest known
one is what the operator meant. A wrong value is noted in the report and answered with the default, so one pass finds
every problem; nothing built from such an answer ever leaves the loader, because the report raises before.
"""

from __future__ import annotations

import difflib
import enum
import errno
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tlstunnel.config.source import Report, Steps, render_path, show
from tlstunnel.config.units import UnitError, no_unit, parse_duration

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

UNLIMITED = "unlimited"
_CREDENTIAL = "cred:"
_FEW_KEYS = 8  # as many known keys as an error about an unknown one lists
# What other programs call it; these are too far apart for the nearest-name search.
_SYNONYMS = {
    "accept": "listen",
    "backend": "target",
    "bind": "listen",
    "ca_file": "ca",
    "cafile": "client_ca",
    "cert": "certificate",
    "connect": "target",
    "curves": "groups",
    "forward": "target",
    "upstream": "target",
    "passphrase": "key_passphrase_file",
    "private_key": "key",
    "timeout": "idle_timeout",
    "verify_client": "client_auth",
}
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (int, "a number"),
    (float, "a number"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


def kind_of(value: object) -> str:
    """What a message calls a value of this type."""
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "a date or time")


def one_of(words: tuple[str, ...]) -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'"{word}"' for word in words]
    return " or ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else quoted[0]


class _FileTroubleError(ValueError):
    """The text is right, the file it names cannot be read."""


class Table:
    """One table of the configuration, read key by key."""

    def __init__(self, report: Report, steps: Steps, values: Mapping[str, object]) -> None:
        self._report, self._steps, self._values = report, steps, values
        self._known: dict[str, None] = {}

    @property
    def known(self) -> tuple[str, ...]:
        """Every key asked for so far, in that order."""
        return tuple(self._known)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are written, known or not."""
        return tuple(self._values)

    def has(self, key: str) -> bool:
        """Whether the key is written."""
        self._known[key] = None
        return key in self._values

    def length(self, key: str) -> int:
        """How many items are written for a key that takes one or several."""
        value = self._values.get(key, [])
        return len(value) if isinstance(value, list) else 1

    def problem(self, key: str | None, what: str, *at: int, machine: bool = False) -> None:
        """Note what is wrong with a key, or an item of its array, or (None) the table as a whole."""
        steps = self._steps if key is None else (*self._steps, key, *at)
        self._report.add(steps, what, machine=machine)

    def spell(self, key: str, value: object = None) -> str:
        """How the operator writes this key, for the part of a message that says what would be right."""
        return self._report.source.spell((*self._steps, key), value)

    def require(self, key: str, right: str) -> bool:
        """Whether the key is written; its absence is a problem."""
        if self.has(key):
            return True
        self.problem(key, f"missing; {right}")
        return False

    def finish(self, elsewhere: Mapping[str, str] | None = None) -> None:
        """Report every key nobody asked for.

        Args:
            elsewhere: keys known in another situation, with what to say about them.
        """
        for key in self._values:
            if key in self._known:
                continue
            remark = (elsewhere or {}).get(key)
            self.problem(key, remark if remark else f"unknown key; {self._suggest(key)}")

    def _suggest(self, key: str) -> str:
        plain = key.lower().replace("-", "_")
        near = difflib.get_close_matches(plain, self._known, n=1, cutoff=0.6)
        if not near and _SYNONYMS.get(plain) in self._known:
            near = [_SYNONYMS[plain]]
        if near:
            return f'did you mean "{near[0]}"?'
        if len(self._known) <= _FEW_KEYS:
            return f"write {one_of(self.known)}"
        return 'no key here is called so; "tlstunnel show" prints those there are'

    def _string(self, key: str, value: object, *at: int) -> str | None:
        if isinstance(value, str):
            return value
        self.problem(key, f"{show(value)} is {kind_of(value)}; write a string in quotes", *at)
        return None

    def _parse(self, key: str, value: object, parse: Callable[[str], T], *at: int) -> tuple[T, ...]:
        """The parsed value, or nothing after a problem."""
        text = self._string(key, value, *at)
        if text is None:
            return ()
        try:
            return (parse(text),)
        except _FileTroubleError as exc:
            self.problem(key, str(exc), *at, machine=True)
            return ()
        except ValueError as exc:
            self.problem(key, str(exc), *at)
            return ()

    def one(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """A string that `parse` understands; it raises ValueError with a message otherwise."""
        if not self.has(key):
            return default
        return next(iter(self._parse(key, self._values[key], parse)), default)

    def each(self, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """A string or an array of strings, each of which `parse` understands. Empty when the key is not written."""
        if not self.has(key):
            return ()
        value = self._values[key]
        if not isinstance(value, list):
            return self._parse(key, value, parse)
        if not value:
            self.problem(key, "the array is empty; write at least one string, or leave the key out")
        return tuple(item for at, text in enumerate(value) for item in self._parse(key, text, parse, at))

    def string(self, key: str, default: str) -> str:
        """Any string."""
        return self.one(key, str, default)

    def boolean(self, key: str, default: bool) -> bool:
        """`true` or `false`."""
        value = self._values[key] if self.has(key) else default
        if isinstance(value, bool):
            return value
        self.problem(key, f"{show(value)} is {kind_of(value)}; write true or false without quotes")
        return default

    def choice(self, key: str, default: E) -> E:
        """One of the words of an enumeration."""
        words = tuple(member.value for member in type(default))
        return type(default)(self.word(key, words, default.value))

    def word(self, key: str, words: tuple[str, ...], default: str) -> str:
        """One of a few words."""
        value = self._values[key] if self.has(key) else default
        if isinstance(value, str) and value in words:
            return value
        self.problem(key, f"{show(value)} is not one of its values; write {one_of(words)}")
        return default

    def duration(self, key: str, default: float | None, *, zero: bool = False) -> float | None:
        """Seconds, or None for "never"."""
        if not self.has(key):
            return default
        value = self._values[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.problem(key, no_unit(show(value), show(value)))
            return default
        text = self._string(key, value)
        try:
            return default if text is None else parse_duration(text, zero=zero)
        except UnitError as exc:
            self.problem(key, str(exc))
            return default

    def count(self, key: str, default: int | None, *, unset: str = UNLIMITED) -> int | None:
        """A whole number from 1 on, or None for the word `unset`."""
        if not self.has(key):
            return default
        value = self._values[key]
        if value == unset:
            return None
        if self._report.source.is_text and isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:20])
        if isinstance(value, bool) or not isinstance(value, int):
            quotes = " without quotes" if isinstance(value, str) and not self._report.source.is_text else ""
            what = f"{show(value)} is not a whole number"
            self.problem(key, f'{what}; write a number from 1 on{quotes}, or "{unset}"')
            return default
        if not 1 <= value <= 2**31:
            self.problem(key, f'{show(value)} is out of range; write a number from 1 on, or "{unset}"')
            return default
        return value

    def path(self, key: str, default: Path | None = None) -> Path | None:
        """A file that exists and can be read."""
        return next(iter(self.paths(key)), default)

    def paths(self, key: str) -> tuple[Path, ...]:
        """One file or several, each of which exists and can be read."""
        return self.each(key, self._readable)

    def _readable(self, text: str) -> Path:
        path = self._locate(text)
        trouble = _trouble(path)
        if trouble:
            raise _FileTroubleError(f'"{text}": {trouble}')
        return path

    def _locate(self, text: str) -> Path:
        """Relative paths start at the file that names them; `cred:NAME` is what systemd's LoadCredential= brought."""
        if not text:
            raise ValueError("the path is empty; write the path of a file")
        if "\0" in text:
            raise ValueError("a path cannot hold a NUL; write the path of a file")
        if not text.startswith(_CREDENTIAL):
            return self._report.source.base / text
        name = text.removeprefix(_CREDENTIAL)
        if not name or "/" in name or name in (".", ".."):
            raise ValueError(f'"{text}" names no credential; write cred:NAME with the ID given to LoadCredential=')
        # Without systemd there is no folder; the path then says what is missing.
        return Path(os.environ.get("CREDENTIALS_DIRECTORY", "$CREDENTIALS_DIRECTORY")) / name

    def is_boolean(self, key: str) -> bool:
        """Whether `true` or `false` is written."""
        return self.has(key) and isinstance(self._values[key], bool)

    def empty(self, key: str) -> Table:
        """A table below this one in which nothing is written."""
        return Table(self._report, (*self._steps, key), {})

    def table(self, key: str, right: str = "") -> Table | None:
        """A table below this one, or None when it is not written. `right` says what may be written instead of it."""
        if not self.has(key):
            return None
        value = self._values[key]
        if isinstance(value, dict):
            return Table(self._report, (*self._steps, key), value)
        right = right or f"write a table: [{render_path((*self._steps, key))}]"
        self.problem(key, f"{show(value)} is {kind_of(value)}; {right}")
        return None

    def tables(self, key: str, right: str) -> tuple[Table, ...]:
        """An array of tables; one table alone counts as an array of one."""
        if not self.has(key):
            return ()
        value = self._values[key]
        if isinstance(value, dict):
            return (Table(self._report, (*self._steps, key), value),)
        if not isinstance(value, list):
            self.problem(key, f"{show(value)} is {kind_of(value)}; {right}")
            return ()
        found = []
        for at, item in enumerate(value):
            if isinstance(item, dict):
                found.append(Table(self._report, (*self._steps, key, at), item))
            else:
                self.problem(key, f"{show(item)} is {kind_of(item)}; {right}", at)
        return tuple(found)


def _trouble(path: Path) -> str | None:
    """What keeps the file from being read; None if nothing does."""
    if path.parts[:1] == ("$CREDENTIALS_DIRECTORY",):
        return "CREDENTIALS_DIRECTORY is not set; start tlstunnel from a systemd unit with LoadCredential="
    try:
        # Opening is the only honest test of permissions; non-blocking, so that a named pipe does not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return f"there is no file {path}; create it or correct the path"
        return f"{path} cannot be read ({os.strerror(exc.errno or 0).lower()}); give tlstunnel's user the right to"
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return f"{path} is a folder; write the path of a file"
    finally:
        os.close(fd)
    return None
