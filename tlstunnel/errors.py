"""The errors an operator sees, each with the exit code of the contract.

Every message has the same order: where, what is wrong with the value given, what would be right. It is one line,
in lower case, without a full stop. No message ever holds a key, a passphrase, a ticket or a whole certificate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class TunnelError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what the operator wrote.

    `where` is a file and key path (`tunnel.toml: services.web.idle_timeout`) or an option (`--idle-timeout`);
    `what` says what is wrong with the value and what would be right.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class ConfigError(TunnelError):
    """The configuration or the command line is wrong: exit code 2. Carries every problem found, in file order."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class StartupError(TunnelError):
    """The machine says no (port in use, file unreadable, name unknown): exit code 1."""


class UsageError(ConfigError):
    """One wrong word on the command line: exit code 2."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__((Problem(where, what),))
        self.args = where, what  # what it is made of again where it was pickled


def words_of(error: OSError) -> str:
    """What the system says of an error, as a part of one of our lines: in lower case."""
    return (error.strerror or str(error) or type(error).__name__).lower()


def printable(text: str) -> str:
    """The text with every character that does not print written as an escape, so that it steers no terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
