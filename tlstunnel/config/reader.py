"""A cursor over one TOML table that knows its key path.

Theory of operation. The loader asks a `Table` for one key after the other. Each question notes the key as known, so
the reader needs no schema: when the table is finished, keys that nobody asked for are unknown, and the nearest known
one is what the operator meant. A wrong value is noted in the report and answered with the default, so one pass finds
every problem; nothing is ever started with what was built from such an answer, because the report raises before.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tlstunnel.config.files import FileTroubleError
from tlstunnel.config.source import Report, Steps, render_path, show

T = TypeVar("T")

_FEW_KEYS = 8  # as many known keys as an error about an unknown one lists
# What other programs call it; these are too far apart for the nearest-name search.
_SYNONYMS = {
    "listen": "accept bind",
    "target": "backend connect forward upstream",
    "ca": "ca_file",
    "client_ca": "cafile",
    "certificate": "cert",
    "groups": "curves",
    "key_passphrase_file": "passphrase",
    "key": "private_key",
    "idle_timeout": "timeout",
    "client_auth": "verify_client",
}
_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "a table"}


def kind_of(value: object) -> str:
    """What a message calls a value of this type."""
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "a date or time")


def one_of(words: tuple[str, ...], mark: str = "") -> str:
    """`"a", "b" or "c"`."""
    quoted = [f'{mark}"{word}"{mark}' for word in words]
    return " or ".join((", ".join(quoted[:-1]), quoted[-1])) if len(quoted) > 1 else quoted[0]


class Table:
    """One table of the configuration, read key by key."""

    def __init__(self, report: Report, steps: Steps, values: Mapping[str, object]) -> None:
        self._report, self._steps, self._values = report, steps, values
        self._known: dict[str, None] = {}
        self._missing: dict[str, str] = {}
        self._misspelt: set[str] = set()

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._report.source.base

    @property
    def is_text(self) -> bool:
        """Whether numbers arrive as text."""
        return self._report.source.is_text

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

    def is_doubtful(self, *keys: str) -> bool:
        """Whether what was read for one of these keys is not what is meant: one is faulty, or written misspelt.

        Misspelt keys are known when the table is finished.
        """
        return any(self.is_faulty(key) or key in self._misspelt for key in keys)

    @property
    def is_sound(self) -> bool:
        """Whether no problem was noted with this table so far, or with anything below it."""
        return not self._report.touches(self._steps)

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
            if near:
                self._missing.pop(near, None)
                self._misspelt.add(near)
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
        meant = [ours for ours, others in _SYNONYMS.items() if plain in others.split() and ours in self._known]
        return next(iter(meant or difflib.get_close_matches(plain, self._known, n=1, cutoff=0.6)), None)

    def _suggest(self, near: str | None) -> str:
        if near:
            return f'; did you mean "{near}"?'
        if len(self._known) <= _FEW_KEYS:
            return f"; write {one_of(self.known)}"
        return ", and none here resembles it; remove it"

    def read(self, key: str, parse: Callable[[object, Table], T], default: T) -> T:
        """What `parse` makes of a key's value; the default when the key is not written, or wrong, which is noted."""
        return next(iter(self._parse(key, self._values[key], parse)), default) if self.has(key) else default

    def each(self, key: str, parse: Callable[[object, Table], T], *, may_be_empty: bool = False) -> tuple[T, ...]:
        """What `parse` makes of a value or each value of an array. Empty when the key is not written."""
        if not self.has(key):
            return ()
        value = self._values[key]
        if not isinstance(value, list):
            return self._parse(key, value, parse)
        if not value and not may_be_empty:
            self.problem(key, "the array is empty; write at least one string, or leave the key out")
        return tuple(item for at, each in enumerate(value) for item in self._parse(key, each, parse, at))

    def _parse(self, key: str, value: object, parse: Callable[[object, Table], T], *at: int) -> tuple[T, ...]:
        """The parsed value, or nothing after a problem."""
        try:
            return (parse(value, self),)
        except ValueError as exc:
            self.problem(key, str(exc), *at, machine=isinstance(exc, FileTroubleError))
            return ()

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
