"""What keeps a question from being answered. Each is one line without the address, which the asker knows."""

from __future__ import annotations

from tlstunnel.errors import TunnelError


class Trouble(TunnelError):
    """Base of the ways in which a connection gives no answer."""


class Unreachable(Trouble):
    """No connection came about."""


class Silent(Trouble):
    """The server stopped answering, or never began. `received` counts the bytes it had sent."""

    def __init__(self, text: str, received: int) -> None:
        super().__init__(text)
        self.received = received


class HungUp(Trouble):
    """The server closed or reset the connection."""


class NotTLS(Trouble):
    """What the server sends is no TLS."""


class BrokenTLS(NotTLS):
    """What the server sends looks like TLS and breaks its rules."""


class OutOfTime(Trouble):
    """The time for the whole probe is used up."""


def shown(data: bytes) -> str:
    """The first line a stranger sent, unable to steer a terminal."""
    line = data.split(b"\r\n")[0].split(b"\n")[0][:40]
    return '"' + "".join(chr(each) if 32 <= each < 127 else f"\\x{each:02x}" for each in line) + '"'
