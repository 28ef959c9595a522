"""Where the passphrase of a private key comes from: a file, the environment, or the person at the terminal.

A passphrase is never an argument: those are visible to every user of the machine.

The first source that exists is the one that counts: a wrong passphrase in the file is an error to repair, not a
reason to look further. What was typed is remembered, because a reload reads the key again when nobody is there to type.

In a daemon no passphrase is ever in the memory of a process that goes on: the variable is taken out of the environment
before anything else happens (`cli.entry`), what it held and what was typed lies in anonymous files, and keys are opened
in processes of their own (`x509.apart`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tlstunnel.x509.apart import apart
from tlstunnel.x509.pem import MaterialError, SourceFile, read_file, shown

VARIABLE = "TLSTUNNEL_KEY_PASSPHRASE"
HELD_VARIABLE = "TLSTUNNEL_KEY_PASSPHRASE_FD"
"""Names the descriptor of the anonymous file that holds what the variable held; `cli.entry` sets it."""
ATTEMPTS = 3
"""How often a person may try."""

_MAX_BYTES = 64 << 10

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Passphrase:
    """One attempt, or what a new key is encrypted with; and where it came from, for the message if it is wrong."""

    value: bytes = field(repr=False)
    origin: str = "the passphrase"
    is_typed: bool = False

    @classmethod
    def in_file(cls, file: SourceFile) -> Passphrase:
        """The first line of a file without its line end; blanks belong to it.

        Raises:
            MaterialError: the first line is empty.
        """
        line = file.data.split(b"\n", 1)[0].removesuffix(b"\r")
        if not line:
            raise file.error("has an empty first line; the passphrase belongs there")
        return cls(line, f"the passphrase in {file.where}{_oddity(line)}")


@dataclass(slots=True)
class PassphraseSource:
    """Offers passphrases for a key, in the order file, environment, prompt.

    `prompt` is given a question and returns what was typed; `None` means nobody can be asked. `file` is for keys that
    have no passphrase file of their own.
    """

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    prompt: Callable[[str], str] | None = field(default=None, repr=False)
    is_daemon: bool = False
    """Whether keys are opened apart, because this process goes on and forks others."""
    file: SourceFile | None = None
    variable: str = VARIABLE
    given_with: str = f"key_passphrase_file (--key-passphrase-file), in {VARIABLE}"
    """What a person can do who is told that a passphrase is missing."""
    _held: int | None = None
    _typed: dict[Path, int] = field(default_factory=dict, repr=False)
    """Descriptors of anonymous files, by key."""

    @classmethod
    def of_this_process(cls, *, is_daemon: bool = False) -> PassphraseSource:
        """The environment, and a prompt when stdin is a terminal."""
        source = cls(os.environ, _ask if sys.stdin is not None and sys.stdin.isatty() else None, is_daemon)
        held = os.environ.pop(HELD_VARIABLE, None)
        if held is not None:
            source._held = int(held)
            os.set_inheritable(source._held, False)
        return source

    def open_apart(self, key: Path, file: Path | None, work: Callable[[], _Found]) -> _Found:
        """Call `work`, which reads `key`: in a process of its own if a passphrase may come into it.

        Raises:
            MaterialError: what `work` raised.
        """
        sources = (file, self._held, self.environ.get(VARIABLE), self._typed.get(key), self.prompt)
        if not self.is_daemon or all(source is None for source in sources):
            return work()
        if key not in self._typed and self.prompt is not None:
            self._typed[key] = os.memfd_create("typed", os.MFD_CLOEXEC)
        return apart(work, may_ask=self.prompt is not None)

    def close_in_child(self) -> None:
        """In a process just forked: what there is of passphrases is not its business."""
        for fd in (self._held, *self._typed.values()):
            if fd is not None:
                os.close(fd)
        self._held = None
        self._typed = {}

    def attempts(self, key: Path, file: SourceFile | None) -> Iterator[Passphrase]:
        """Passphrases to try on the key in `key`; ends when there is no further one.

        Args:
            key: The file that is encrypted.
            file: The passphrase file, already read, if one is configured.

        Raises:
            MaterialError: there is no source at all, or the person gave up.
        """
        if (named := file or self.file) is not None:
            yield Passphrase.in_file(named)
        elif self.variable in self.environ:
            yield Passphrase(os.fsencode(self.environ[self.variable]), f"the passphrase in {self.variable}")
        elif self._held is not None:
            yield Passphrase(_content(self._held), f"the passphrase in {VARIABLE}")
        elif key in self._typed and (typed := _content(self._typed[key])):
            yield Passphrase(typed, "the passphrase typed at the start")
        elif self.prompt is not None:
            for attempt in range(ATTEMPTS):
                again = "that was wrong; " if attempt else ""
                yield Passphrase(
                    _typed(self.prompt, f"{again}passphrase of {shown(key)}: ", key), "the passphrase typed", True
                )
        else:
            raise MaterialError(
                shown(key), f"is encrypted; give its passphrase with {self.given_with}, or at a terminal"
            )

    def remember(self, key: Path, passphrase: Passphrase) -> None:
        """Keep what was typed, for the next reload."""
        if passphrase.is_typed:
            if key not in self._typed:
                self._typed[key] = os.memfd_create("typed", os.MFD_CLOEXEC)
            os.pwrite(self._typed[key], passphrase.value, 0)

    def __getstate__(self) -> object:
        raise TypeError("passphrases stay in the process that read them")


def read_passphrase_file(path: Path) -> SourceFile:
    """The file `key_passphrase_file` names, whole, since its content is watched for changes too."""
    found = read_file(path, _MAX_BYTES, may_be_empty=True)
    if not found.data.strip():
        raise MaterialError(shown(path), "is empty; write the passphrase into its first line")
    return found


def _content(fd: int) -> bytes:
    return os.pread(fd, _MAX_BYTES, 0)


def _typed(prompt: Callable[[str], str], question: str, key: Path) -> bytes:
    try:
        return prompt(question).encode("utf-8", "surrogateescape")
    except EOFError:
        raise MaterialError(shown(key), "is encrypted, and no passphrase was typed") from None


def _ask(question: str) -> str:
    from getpass import getpass  # noqa: PLC0415  termios only where somebody is asked

    return getpass(question)


def _oddity(line: bytes) -> str:
    """What an editor may have put into a passphrase that its owner does not see, for the end of a name."""
    if line.startswith(b"\xef\xbb\xbf"):
        return " (which begins with a byte order mark)"
    if line != line.strip():
        return f" (which {'ends' if line != line.rstrip() else 'begins'} with a blank)"
    return ""
