"""A cursor over one TOML table that knows its key path.

Theory of operation. The loader asks a `Table` for one key after the other. Each question notes the key as known, so
the reader needs no schema: when the table is finished, keys that nobody asked for are unknown, and the nearest known
one is what the operator meant. A wrong value is noted in the report and answered with the default, so one pass finds
every problem; nothing built from such an answer ever leaves the loader, because the report raises before.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tlstunnel.config.files import FileTroubleError, find_file, find_folder
from tlstunnel.config.source import Report, Steps, render_path, show
from tlstunnel.config.units import UnitError, no_unit, parse_duration

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

UNLIMITED = "unlimited"
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


class Table:
    """One table of the configuration, read key by key."""

    def __init__(self, report: Report, steps: Steps, values: Mapping[str, object]) -> None:
        self._report, self._steps, self._values = report, steps, values
        self._known: dict[str, None] = {}
        self._missing: dict[str, str] = {}

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._report.source.base

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

    def is_faulty(self, key: str) -> bool:
        """Whether a problem was noted with this key, so that what follows from its value is not worth saying."""
        return self._report.touches((*self._steps, key))

    def spell(self, key: str, value: object = None) -> str:
        """How the operator writes this key, for the part of a message that says what would be right."""
        return self._report.source.spell((*self._steps, key), value)

    def require(self, key: str, right: str, *, because: str = "") -> None:
        """Note a problem when the key is not written: `because` says why it must be, `right` what to write."""
        if not self.has(key):
            self._missing.setdefault(key, f"missing{because and ', and '}{because}; {right}")

    def forgive_missing(self, *, but: str) -> None:
        """Do not report what was required so far, but for one key."""
        self._missing = {key: what for key, what in self._missing.items() if key == but}

    def finish(self, elsewhere: Mapping[str, str | None] | None = None) -> None:
        """Report every key nobody asked for, and every key that was required and is not there.

        A key that is only misspelt is reported as misspelt, not as missing too.

        Args:
            elsewhere: keys known in another situation, with what to say about them; None for nothing.
        """
        for key in self._values:
            if key in self._known:
                continue
            remark = (elsewhere or {}).get(key, "")
            if remark is None:
                continue
            near = None if remark else self._nearest(key)
            self._missing.pop(near or "", None)
            self.problem(key, remark or f"unknown key{self._suggest(near)}")
        for key, what in self._missing.items():
            self.problem(key, what)

    def nearest_word(self, key: str, words: tuple[str, ...]) -> str | None:
        """Which of a few words is meant by one that is misspelt; None if that is not plain."""
        value = self._values.get(key)
        near = difflib.get_close_matches(value.lower(), words, n=1, cutoff=0.6) if isinstance(value, str) else ()
        return next(iter(near), None)

    def _nearest(self, key: str) -> str | None:
        plain = key.lower().replace("-", "_")
        if _SYNONYMS.get(plain) in self._known:
            return _SYNONYMS[plain]
        return next(iter(difflib.get_close_matches(plain, self._known, n=1, cutoff=0.6)), None)

    def _suggest(self, near: str | None) -> str:
        if near:
            return f'; did you mean "{near}"?'
        if len(self._known) <= _FEW_KEYS:
            return f"; write {one_of(self.known)}"
        return ", and none here resembles it; remove it"

    def _string(self, key: str, value: object, *at: int, right: str = "write a string in quotes") -> str | None:
        if isinstance(value, str):
            return value
        self.problem(key, f"{show(value)} is {kind_of(value)}; {right}", *at)
        return None

    def _parse(
        self, key: str, value: object, parse: Callable[[str], T], *at: int, right: str = "write a string in quotes"
    ) -> tuple[T, ...]:
        """The parsed value, or nothing after a problem."""
        text = self._string(key, value, *at, right=right)
        if text is None:
            return ()
        try:
            return (parse(text),)
        except FileTroubleError as exc:
            self.problem(key, str(exc), *at, machine=True)
            return ()
        except ValueError as exc:
            self.problem(key, str(exc), *at)
            return ()

    def one(self, key: str, parse: Callable[[str], T], default: T, *, right: str = "write a string in quotes") -> T:
        """A string that `parse` understands; it raises ValueError with a message otherwise.

        Args:
            right: what to say about something else than a string.
        """
        if not self.has(key):
            return default
        return next(iter(self._parse(key, self._values[key], parse, right=right)), default)

    def each(self, key: str, parse: Callable[[str], T], *, may_be_empty: bool = False) -> tuple[T, ...]:
        """A string or an array of strings, each of which `parse` understands. Empty when the key is not written."""
        if not self.has(key):
            return ()
        value = self._values[key]
        if not isinstance(value, list):
            return self._parse(key, value, parse)
        if not value and not may_be_empty:
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
        what = "not one of its values" if isinstance(value, str) else kind_of(value)
        self.problem(key, f"{show(value)} is {what}; write {one_of(words)}")
        return default

    def duration(self, key: str, default: float | None, *, zero: bool = False) -> float | None:
        """Seconds, or None for "never"."""
        if not self.has(key):
            return default
        value = self._values[key]
        if isinstance(value, int | float) and not isinstance(value, bool):
            self.problem(key, no_unit(show(value), show(value)))
            return default
        text = self._string(key, value, right='write a duration such as "10s", or "never"')
        try:
            return default if text is None else parse_duration(text, zero=zero)
        except UnitError as exc:
            self.problem(key, str(exc))
            return default

    def count(
        self, key: str, default: int | None, *, unset: str = UNLIMITED, most: tuple[int, str] = (2**31, "")
    ) -> int | None:
        """A whole number from 1 on, or None for the word `unset`. `most` is the largest there may be, and why."""
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
        limit, why = most
        if not 1 <= value <= limit:
            wanted = f"from 1 to {limit}" if why else "from 1 on"
            reason = why if value > limit else ""
            self.problem(key, f'{show(value)} is out of range{reason}; write a number {wanted}, or "{unset}"')
            return default
        return value

    def path(self, key: str, default: Path | None = None) -> Path | None:
        """A file that exists and can be read."""
        return next(iter(self.paths(key)), default)

    def paths(self, key: str) -> tuple[Path, ...]:
        """One file or several, each of which exists and can be read."""
        return self.each(key, lambda text: find_file(text, self.base))

    def file_or_folder(self, key: str) -> Path | None:
        """A file or a folder that exists and can be read."""
        return self.one(key, lambda text: find_file(text, self.base, may_be_folder=True), None)

    def folder(self, key: str) -> Path | None:
        """A folder that exists and can be written to."""
        return self.one(key, lambda text: find_folder(text, self.base), None)

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

    def tables(self, key: str, right: str, *, may_be_empty: bool = True) -> tuple[Table, ...]:
        """An array of tables; one table alone counts as an array of one."""
        if not self.has(key):
            return ()
        value = self._values[key]
        if isinstance(value, dict):
            return (Table(self._report, (*self._steps, key), value),)
        if not isinstance(value, list):
            self.problem(key, f"{show(value)} is {kind_of(value)}; {right}")
            return ()
        if not value and not may_be_empty:
            self.problem(key, f"the array is empty; {right}, or leave the key out")
        found = []
        for at, item in enumerate(value):
            if isinstance(item, dict):
                found.append(Table(self._report, (*self._steps, key, at), item))
            else:
                self.problem(key, f"{show(item)} is {kind_of(item)}; {right}", at)
        return tuple(found)
