"""What a connection reports about its own work while it does it, for the one who tells the story.

A connection calls its `Witness` with one note per thing that happens: a message, a record, a secret, a pair of keys,
a signature made, a check passed. Notes hold secrets, which is the point of `tlstunnel explain`; nothing else
listens, and the default witness forgets them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tlstunnel.tools.tls13.messages import Message
from tlstunnel.tools.tls13.names import HandshakeType


class Role(Enum):
    """Which end of the connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Role:
        """The end across the wire."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


@dataclass(frozen=True, slots=True)
class MessageNote:
    """A handshake message entered the transcript. `epoch` names the keys that protect it; None is plaintext."""

    sender: Role
    message: Message
    raw: bytes
    transcript_hash: bytes | None
    epoch: str | None


@dataclass(frozen=True, slots=True)
class RecordNote:
    """A record went over the wire. `inner` and `sequence` say what is inside a protected one, and its number."""

    sender: Role
    encoded: bytes
    content_type: int
    length: int
    epoch: str | None = None
    sequence: int | None = None
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class SecretNote:
    """A step of the key schedule (RFC 8446 section 7.1): `name` came out of `formula` with these inputs."""

    name: str
    formula: str
    inputs: tuple[tuple[str, bytes], ...]
    value: bytes


@dataclass(frozen=True, slots=True)
class KeysNote:
    """Key and IV for one direction (RFC 8446 section 7.3); `owner` is the end that encrypts with them."""

    owner: Role
    epoch: str
    secret_name: str
    key: bytes
    iv: bytes


@dataclass(frozen=True, slots=True)
class SharedSecretNote:
    """The key exchange is done: both ends now hold this (RFC 8446 section 7.4)."""

    group: int
    value: bytes
    parts: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckNote:
    """An end verified something: who, about which message, by which means, with these values.

    A check that fails ends the connection, so it leaves no note; but a chain that is not trusted may be let pass, and
    then `passed` says so.
    """

    by: Role
    about: HandshakeType
    text: str
    values: tuple[tuple[str, bytes], ...] = ()
    passed: bool = True


@dataclass(frozen=True, slots=True)
class DataNote:
    """Application data, or an alert, went through. `text` says what it was."""

    sender: Role
    what: str
    data: bytes
    epoch: str | None


Note = MessageNote | RecordNote | SecretNote | KeysNote | SharedSecretNote | CheckNote | DataNote
Witness = Callable[[Note], None]


def nobody(note: Note) -> None:
    """The witness that looks away."""
