"""Kinds of values: how one is read, how `show` prints it, what the manual and the help call it."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlstunnel.access.policy import Rule
from tlstunnel.config.files import find_file
from tlstunnel.config.parsers import parse_rule
from tlstunnel.config.reader import Table, kind_of, one_of
from tlstunnel.config.source import show
from tlstunnel.config.units import format_duration, no_unit, parse_duration

Parse = Callable[[Any, Table], Any]
UNLIMITED = "unlimited"
RULE_FIELDS = tuple(field.name for field in dataclasses.fields(Rule) if field.init)


def written(value: object) -> object:
    """A value as the file writes it; None for a key that is not set."""
    if isinstance(value, tuple):
        return [written(item) for item in value] or None
    return value if value is None or isinstance(value, bool | int | Mapping) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the value of a key may be."""

    words: str
    """What the manual calls it."""
    metavar: str = ""
    """What the help of an option calls it; empty for an option that takes no value."""
    choices: tuple[str, ...] = ()
    """All that there is to choose from; empty where there is more."""
    parse: Parse | None = None
    """Makes the model's value of the file's, or raises ValueError; None where code of its own reads the key."""
    write: Callable[[Any], object] = written
    """Makes the file's value of the model's, or None for a key that is not set."""
    is_many: bool = False
    """Whether there may be an array of values, and an option be repeated."""
    may_be_empty: bool = False
    """Whether that array says something when it is empty."""
    has_commas: bool = False
    """Whether an option takes several items with commas between them as well."""

    def read(self, table: Table, key: str, default: Any) -> Any:
        """The value of a key of the table, or what holds when it is not written."""
        assert self.parse is not None  # noqa: S101 - asked by whoever reads
        if not self.is_many:
            return table.read(key, self.parse, default)
        return table.each(key, self.parse, may_be_empty=self.may_be_empty) if table.has(key) else default or ()

    def print(self, value: Any) -> object:
        """The value as the file writes it."""
        text = self.write(value)
        return [] if text is None and self.may_be_empty else text


def rule_fields(rule: Rule) -> dict[str, str]:
    """An access rule as a table of the file."""
    return {name: text for name in RULE_FIELDS if (text := getattr(rule, name)) is not None}


def _fail(value: object, right: str, what: str = "") -> ValueError:
    return ValueError(f"{show(value)} is {what or kind_of(value)}; {right}")


def text(parse: Callable[..., object], *, right: str = "write a string in quotes", with_base: bool = False) -> Parse:
    """A string; `with_base` says that `parse` wants to know the folder that relative paths start from."""

    def read(value: object, table: Table) -> object:
        if not isinstance(value, str):
            raise _fail(value, right)
        return parse(value, table.base) if with_base else parse(value)

    return read


def word(*words: str, make: Callable[[str], object] = str, write: Callable[[Any], object] = written) -> Kind:
    """One of a few words."""

    def parse(value: object, _: Table) -> object:
        if isinstance(value, str) and value in words:
            return make(value)
        raise _fail(value, f"write {one_of(words)}", "not one of its values" if isinstance(value, str) else "")

    return Kind(words=one_of(words, "`"), metavar="|".join(words), choices=words, parse=parse, write=write)


def choice(words: type[enum.StrEnum]) -> Kind:
    """One of the words of an enumeration."""
    return word(*(member.value for member in words), make=words)


def boolean(value: object, _: Table) -> bool:
    """`true` or `false`."""
    if isinstance(value, bool):
        return value
    raise _fail(value, "write true or false without quotes")


def duration(*, zero: bool = False) -> Kind:
    """Seconds, or "never"; `zero` says whether no time at all makes sense."""
    read = text(functools.partial(parse_duration, zero=zero), right='write a duration such as "10s", or "never"')

    def parse(value: object, table: Table) -> object:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(no_unit(show(value), show(value)))
        return read(value, table)

    return Kind(words="duration", metavar="DURATION", parse=parse, write=format_duration)


def count(unset: str = UNLIMITED, most: int = 2**31, why: str = "") -> Kind:
    """A whole number from 1 on, or None for the word `unset`. `most` is the largest there may be, and why."""

    def parse(value: Any, table: Table) -> int | None:
        if value == unset:
            return None
        if table.is_text and isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value[:20])
        if isinstance(value, bool) or not isinstance(value, int):
            quotes = " without quotes" if isinstance(value, str) and not table.is_text else ""
            raise _fail(value, f'write a number from 1 on{quotes}, or "{unset}"', "not a whole number")
        if not 1 <= value <= most:
            wanted = f"from 1 to {most}" if why else "from 1 on"
            reason = why if value > most else ""
            raise _fail(value, f'write a number {wanted}, or "{unset}"', f"out of range{reason}")
        return value

    metavar = "N" if unset == UNLIMITED else f"N|{unset}"
    return Kind(words=f'number or `"{unset}"`', metavar=metavar, parse=parse, write=lambda value: value or unset)


def file(metavar: str, *, may_be_folder: bool = False) -> Kind:
    """A file that exists and can be read, or a folder where that will do."""
    find = functools.partial(find_file, may_be_folder=may_be_folder)
    return Kind(words="file", metavar=metavar, parse=text(find, with_base=True))


def many(words: str, metavar: str, parse: Parse, **more: Any) -> Kind:
    """One value or an array of them."""
    return Kind(words=f"{words} or array", metavar=metavar, parse=parse, is_many=True, **more)


def files(metavar: str) -> Kind:
    """One file or several, each of which exists and can be read."""
    return many("file", metavar, text(find_file, with_base=True))


def rule_of(field: str, metavar: str) -> Kind:
    """Rules of one field each, as strings."""
    return many("string", metavar, text(functools.partial(parse_rule, field)))
