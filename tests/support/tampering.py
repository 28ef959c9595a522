"""A peer with bad intentions: TLS 1.3 with any message altered, dropped, repeated, reordered, inserted or cut up.

Give a `Hostile` to a `Client` or a `Server` as its tamper. Acts on messages happen before the message enters our own
transcript, so what follows stays consistent: keys and Finished fit what was really sent, and the other end has to
notice the act itself, not a wrong MAC three messages later. Acts on records happen after sealing and break just that.

    Client(config, tamper=Hostile(Drop(HandshakeType.FINISHED)))
    Client(config, tamper=Hostile(Alter(HandshakeType.CLIENT_HELLO, extension(ExtensionType.KEY_SHARE, b""))))
    Client(config, tamper=Hostile(Delay(HandshakeType.CERTIFICATE, until=HandshakeType.CERTIFICATE_VERIFY)))
    Server(config, tamper=Hostile(AlterRecord(1, flip(-1)), fragment_size=1))

Each act happens once, to the first message of its kind or to the record of its number (0 is the first sent). What no
act covers can be sent by hand: `Connection.send_raw`, `send_alert`, `update_keys`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.messages import ClientHello, EncryptedExtensions, ServerHello, decode_message
from tlstunnel.tools.tls13.names import HandshakeType
from tlstunnel.tools.tls13.tamper import Tamper
from tlstunnel.tools.tls13.wire import MAX_PLAINTEXT, vector

Change = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Alter:
    """Send `change(raw)` in place of the message `raw`, which has its four-byte header."""

    kind: HandshakeType
    change: Change


@dataclass(frozen=True, slots=True)
class Drop:
    """Do not send the message."""

    kind: HandshakeType


@dataclass(frozen=True, slots=True)
class Repeat:
    """Send the message `times` times."""

    kind: HandshakeType
    times: int = 2


@dataclass(frozen=True, slots=True)
class Delay:
    """Send the message only after the one of kind `until`, or at the end of the flight if none comes."""

    kind: HandshakeType
    until: HandshakeType


@dataclass(frozen=True, slots=True)
class Insert:
    """Send `raw`, a message with its header or any bytes, before the message."""

    kind: HandshakeType
    raw: bytes


@dataclass(frozen=True, slots=True)
class AlterRecord:
    """Send `change(encoded)` in place of the record with that number."""

    number: int
    change: Change


@dataclass(frozen=True, slots=True)
class DropRecord:
    """Do not send the record with that number."""

    number: int


@dataclass(frozen=True, slots=True)
class RepeatRecord:
    """Send the record with that number twice, as somebody in the middle could."""

    number: int


@dataclass(frozen=True, slots=True)
class DelayRecord:
    """Send the record with that number after the next one."""

    number: int


MessageAct = Alter | Drop | Repeat | Delay | Insert
RecordAct = AlterRecord | DropRecord | RepeatRecord | DelayRecord
Act = MessageAct | RecordAct


class Hostile(Tamper):
    """Does what its acts say, each once, and puts at most `fragment_size` bytes of content into a record."""

    def __init__(self, *acts: Act, fragment_size: int = MAX_PLAINTEXT) -> None:
        self.fragment_size = fragment_size
        self._message_acts = [act for act in acts if isinstance(act, MessageAct)]
        self._record_acts = {act.number: act for act in acts if isinstance(act, RecordAct)}
        self._held: list[tuple[HandshakeType, bytes]] = []
        self._records_sent = 0
        self._held_record = b""

    @property
    def has_acted(self) -> bool:
        """Whether every act on messages has happened; a test that expects a refusal should be sure of it."""
        return not self._message_acts and not self._held

    def messages(self, raw: bytes) -> list[bytes]:
        """What to send in place of this message, and what was held back for it."""
        kind = raw[0]
        sent = self._act(kind, raw)
        released = [held for until, held in self._held if until == kind]
        self._held = [(until, held) for until, held in self._held if until != kind]
        return sent + released

    def end_flight(self) -> list[bytes]:
        """What is still held back."""
        released = [raw for _, raw in self._held]
        self._held.clear()
        return released

    def record(self, encoded: bytes) -> list[bytes]:
        """What to put on the wire in place of this record."""
        act = self._record_acts.get(self._records_sent)
        self._records_sent += 1
        sent = _act_on_record(act, encoded)
        if self._held_record:
            sent.append(self._held_record)
            self._held_record = b""
        if isinstance(act, DelayRecord):
            self._held_record = encoded
        return sent

    def _act(self, kind: int, raw: bytes) -> list[bytes]:
        for act in self._message_acts:
            if act.kind != kind:
                continue
            self._message_acts.remove(act)
            match act:
                case Alter():
                    return [act.change(raw)]
                case Drop():
                    return []
                case Repeat():
                    return [raw] * act.times
                case Insert():
                    return [act.raw, raw]
                case Delay():
                    self._held.append((act.until, raw))
                    return []
        return [raw]


def _act_on_record(act: RecordAct | None, encoded: bytes) -> list[bytes]:
    match act:
        case None:
            return [encoded]
        case AlterRecord():
            return [act.change(encoded)]
        case RepeatRecord():
            return [encoded, encoded]
        case DropRecord() | DelayRecord():
            return []


# Changes to give to Alter and AlterRecord.


def flip(place: int) -> Change:
    """Change one bit of the byte at `place`; negative counts from the end."""

    def change(raw: bytes) -> bytes:
        flipped = bytearray(raw)
        flipped[place] ^= 1
        return bytes(flipped)

    return change


def body(new: bytes) -> Change:
    """Keep the message's type, replace its body, and let the length fit."""
    return lambda raw: raw[:1] + vector(new, 3)


def cut(count: int) -> Change:
    """Take `count` bytes off the body's end, and let the length fit."""
    return lambda raw: raw[:1] + vector(raw[4:-count], 3)


def append(more: bytes) -> Change:
    """Put bytes behind the body, and let the length fit."""
    return lambda raw: raw[:1] + vector(raw[4:] + more, 3)


def claim_length(length: int) -> Change:
    """Say another length than the body has."""
    return lambda raw: raw[:1] + length.to_bytes(3) + raw[4:]


def extension(kind: int, data: bytes | None) -> Change:
    """Replace or add an extension of a hello or of EncryptedExtensions; None removes it."""

    def change(raw: bytes) -> bytes:
        message = decode_message(raw)
        if not isinstance(message, ClientHello | ServerHello | EncryptedExtensions):
            raise TypeError(f"{type(message).__name__} has no extensions that can be changed here")
        kept = tuple(each for each in message.extensions if each.type != kind or data is not None)
        if data is not None:
            is_there = any(each.type == kind for each in kept)
            kept = tuple(Extension(kind, data) if each.type == kind else each for each in kept)
            # A PSK extension must stay last, so what is new goes first.
            kept = kept if is_there else (Extension(kind, data), *kept)
        return replace(message, extensions=kept).encode()

    return change


def field(**values: object) -> Change:
    """Set fields of a message by the names they have in `messages.py`: `field(cipher_suites=(0x1399,))`."""
    return lambda raw: replace(decode_message(raw), **values).encode()  # type: ignore[type-var]
