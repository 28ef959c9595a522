"""What the protocols share: how a conversation runs, how lines are read, what a refusal is.

A conversation is a generator. It yields what is to be sent, or nothing when it waits for more, and is then given what
came; when it returns, the next byte of either side belongs to TLS. It returns how the server greeted, for a client that
has not heard it yet; nothing where the server greets again within TLS, or never does. Bytes that come from it behind
its go-ahead are refused: they came unprotected and would be taken for protected ones later (CVE-2011-0411).
"""

from __future__ import annotations

import re
from collections.abc import Generator

from tlstunnel.errors import TunnelError, printable

Conversation = Generator[bytes, bytes, bytes]
MAX_PLAINTEXT = 1 << 16
"""More than any greeting; a server that talks on is not one of the protocol."""
LITERAL = re.compile(rb"\{(\d{1,9})\+?\}\Z")
"""A string that goes on behind its line, whatever it holds (RFC 5804 section 1.2)."""
_TLS_ALERT = b"\x15"


class StartTLSError(TunnelError):
    """The server does not go on to TLS. The text is one line, and says what the server said."""


class InjectedError(StartTLSError):
    """The server, or somebody on the way, said something where TLS had to begin."""


class Incoming:
    """What came and was not used yet."""

    def __init__(self) -> None:
        self._data = b""
        self._total = 0

    def take(self, count: int) -> Generator[bytes, bytes, bytes]:
        """The next `count` bytes, once they are there."""
        while len(self._data) < count:
            yield from self._more()
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def line(self, *, has_literals: bool) -> Generator[bytes, bytes, bytes]:
        """The next line without its end; where there are literals, with what goes on behind it."""
        line: list[bytes] = []
        while True:
            while b"\n" not in self._data:
                yield from self._more()
            taken, _, self._data = self._data.partition(b"\n")
            line.append(taken.removesuffix(b"\r"))
            size = literal_behind(line[-1]) if has_literals else None
            if size is None:
                return b"".join(line)
            line += [b"\r\n", (yield from self.take(size))]

    def end(self) -> None:
        """Refuse what came behind the go-ahead."""
        if self._data:
            raise InjectedError("the server sent plaintext behind its go-ahead for TLS; someone may have added it")

    def _more(self) -> Generator[bytes, bytes, None]:
        data = yield b""
        self._total += len(data)
        if self._total == len(data) and data[:1] == _TLS_ALERT:
            raise StartTLSError("the server speaks TLS from the first byte; it has not to be asked for it")
        if self._total > MAX_PLAINTEXT:
            raise StartTLSError(f"the server sent over {MAX_PLAINTEXT >> 10} KiB before TLS; give the right protocol")
        self._data += data


def literal_behind(part: bytes | bytearray) -> int | None:
    """The size of the string that goes on behind this part of a line; only what is new of the line may be given."""
    literal = LITERAL.search(part)
    return None if literal is None else int(literal[1])


def heard(lines: list[str]) -> bytes:
    """A greeting, to be said once more; nothing in it steers a terminal."""
    return "".join(f"{printable(line)}\r\n" for line in lines).encode("ascii", "backslashreplace")


def shown(text: str) -> str:
    """What a stranger said, cut short and unable to steer a terminal."""
    return '"' + printable(text[:60]) + '"'
