"""What both ends of a TLS 1.3 connection share: records in and out, the transcript, alerts, key updates, data.

Sans-I/O: `receive` takes the bytes that came and returns events, `data_to_send` gives the bytes to put on the wire,
and no method waits, reads a clock or touches a socket. A subclass is a table from state to the messages that may
come in it and what is done with them; a message that the table does not name is unexpected_message, which is most
of what keeps a state machine honest. The states are those of RFC 8446 appendix A.

Life of a received message: records are opened with the read keys, their handshake content is joined and cut into
messages, each is looked up in the table, decoded, added to the transcript, and handled. Life of a sent one: encoded,
added to the transcript, collected into a flight, cut into records and sealed with the write keys. Changing the write
keys closes the flight; changing the read keys is refused while half a message is waiting (section 5.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tlstunnel.tools.tls13.channel import Channel
from tlstunnel.tools.tls13.events import ApplicationData, Closed, Event, PeerKeysUpdated, State
from tlstunnel.tools.tls13.failure import HandshakeFailure, PeerAlert, Violation
from tlstunnel.tools.tls13.keyexchange import Entropy
from tlstunnel.tools.tls13.messages import Finished, KeyUpdate, Message, decode_message
from tlstunnel.tools.tls13.names import (
    AlertDescription,
    CipherSuite,
    ContentType,
    HandshakeType,
    alert_name,
    message_name,
)
from tlstunnel.tools.tls13.notes import DataNote, KeysNote, MessageNote, Role, Witness
from tlstunnel.tools.tls13.protection import TrafficKeys
from tlstunnel.tools.tls13.schedule import KeySchedule, Transcript
from tlstunnel.tools.tls13.tamper import Tamper
from tlstunnel.tools.tls13.wire import Record

MAX_MESSAGE = 1 << 18  # A chain of certificates is a few KiB; more than this is an attack on memory.
MAX_IGNORED = 32  # Records without meaning; honest peers send one, and a flood of them must not keep us busy.
_WARNING, _FATAL = 1, 2

Handler = Callable[[Any, bytes], None]
_T = TypeVar("_T")


class Connection:
    """One end of a connection. Use `Client` or `Server`."""

    role: Role

    def __init__(self, entropy: Entropy, witness: Witness, tamper: Tamper) -> None:
        self.state = State.START
        self.suite: CipherSuite | None = None
        self.failure: HandshakeFailure | None = None
        self._entropy = entropy
        self._witness = witness
        self._tamper = tamper
        self._transcript = Transcript()
        self._schedule: KeySchedule | None = None
        self._channel = Channel(self.role, witness, tamper)
        self._partial = bytearray()
        self._flight = bytearray()
        self._events: list[Event] = []
        self._ignored = 0
        self._table: Mapping[State, Mapping[HandshakeType, Handler]] = {}

    # What a user calls.

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the wire and say what came of them.

        Raises:
            Violation: the peer broke a rule; `data_to_send` now holds the alert that tells it so.
            PeerAlert: the peer refused.
        """
        if self.failure is not None:
            raise self.failure
        try:
            for record in self._channel.feed(data):
                if self.state is State.CLOSED:
                    break
                self._on_record(record)
            self._end_flight()
        except Violation as exc:
            self.failure = exc
            self._alert(exc.alert)
            raise
        except PeerAlert as exc:
            self.failure = exc
            raise
        events, self._events = self._events, []
        return events

    def data_to_send(self) -> bytes:
        """The bytes to put on the wire now; they are handed out once."""
        return self._channel.take_outgoing()

    def send(self, data: bytes) -> None:
        """Queue application data. Only after `HandshakeComplete`."""
        self._expect_connected()
        self._channel.emit(ContentType.APPLICATION_DATA, data)
        self._witness(DataNote(self.role, "application data", data, "application"))

    def update_keys(self, *, request_peer: bool = False) -> None:
        """Move to the next traffic secret for sending, and ask the peer to do the same (section 4.6.3)."""
        self._expect_connected()
        self._send(KeyUpdate(request_peer))
        self._end_flight()
        self._channel.write_keys = self._next_keys(known(self._channel.write_keys), self.role)

    def close(self) -> None:
        """Queue close_notify: this end will send no more (section 6.1)."""
        self._alert(AlertDescription.CLOSE_NOTIFY)

    def send_alert(self, alert: int) -> None:
        """Queue a fatal alert of the caller's choice."""
        self._alert(alert)

    def send_raw(self, content_type: int, content: bytes) -> None:
        """Queue content of any type under the current keys, rules or not; for hostile peers."""
        self._channel.emit(content_type, content)

    def _expect_connected(self) -> None:
        if self.state is not State.CONNECTED:
            raise RuntimeError("the handshake is not complete")

    # Records and messages that come in.

    def _on_record(self, record: Record) -> None:
        content_type, content = record.content_type, record.fragment
        if content_type == ContentType.CHANGE_CIPHER_SPEC:
            self._on_change_cipher_spec(record)
            return
        if content_type == ContentType.APPLICATION_DATA or self._channel.read_keys is None:
            opened = self._channel.open(record)
            if opened is None:
                return
            content_type, content = opened
        elif content_type != ContentType.ALERT or self.state is State.CONNECTED:
            # An end that fails before it has keys can only send its alert in plaintext; nothing else may be.
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a record came unprotected after the keys changed")
        if self._partial and content_type != ContentType.HANDSHAKE:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a handshake message is cut by another record type")
        if content_type == ContentType.HANDSHAKE:
            self._on_handshake(content)
        elif content_type == ContentType.ALERT:
            self._on_alert(content)
        elif content_type == ContentType.APPLICATION_DATA and self._channel.read_keys is not None:
            self._on_data(content)
        else:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a record of that type may not come here")

    def _on_change_cipher_spec(self, record: Record) -> None:
        # Middleboxes expect this record of TLS 1.2; it means nothing and is dropped (section 5, appendix D.4).
        may_come = not self._transcript.is_empty and self.state is not State.CONNECTED
        if record.fragment != b"\1" or not may_come:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a change_cipher_spec record may not come here")
        self._ignore()
        self._channel.tell(record)

    def _on_handshake(self, content: bytes) -> None:
        if not content:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a handshake record is empty")
        self._partial += content
        while len(self._partial) >= 4:
            end = 4 + int.from_bytes(self._partial[1:4])
            if end > MAX_MESSAGE:
                raise Violation(AlertDescription.ILLEGAL_PARAMETER, f"a message of {end} bytes is longer than any")
            if len(self._partial) < end:
                return
            raw = bytes(self._partial[:end])
            del self._partial[:end]
            self._on_message(raw)

    def _on_message(self, raw: bytes) -> None:
        handler = self._table.get(self.state, {}).get(raw[0])  # type: ignore[call-overload]
        if handler is None:
            raise Violation(
                AlertDescription.UNEXPECTED_MESSAGE, f"{message_name(raw[0])} may not come in state {self.state.name}"
            )
        message = decode_message(raw)
        self._before_absorbing(message)
        before = self._hash() if self.suite is not None else b""
        self._absorb(self.role.other, message, raw, self._channel.read_epoch)
        handler(message, before)

    def _before_absorbing(self, message: Message) -> None:
        """What an end must know about a message before it enters the transcript."""

    def _on_alert(self, content: bytes) -> None:
        if len(content) != 2:
            raise Violation(AlertDescription.DECODE_ERROR, "an alert is not two bytes long")
        alert = content[1]
        self._witness(DataNote(self.role.other, f"alert {alert_name(alert)}", content, self._channel.read_epoch))
        if alert == AlertDescription.CLOSE_NOTIFY and self.state is State.CONNECTED:
            self.state = State.CLOSED
            self._events.append(Closed())
        elif alert != AlertDescription.USER_CANCELED:
            raise PeerAlert(alert)
        else:
            self._ignore()

    def _ignore(self) -> None:
        self._ignored += 1
        if self._ignored > MAX_IGNORED:
            text = "more records that mean nothing than any peer needs"
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, text)

    def _on_data(self, content: bytes) -> None:
        if self.state is not State.CONNECTED:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "application data came before Finished")
        self._witness(DataNote(self.role.other, "application data", content, self._channel.read_epoch))
        self._events.append(ApplicationData(content))

    def _on_key_update(self, message: KeyUpdate, before: bytes) -> None:
        self._read_with(self._next_keys(known(self._channel.read_keys), self.role.other))
        self._events.append(PeerKeysUpdated())
        if message.update_requested:
            self.update_keys()

    # Messages and records that go out.

    def _send(self, message: Message) -> None:
        """Add a handshake message to the flight and to the transcript."""
        self._send_raw_messages(self._tamper.messages(message.encode()), message)

    def _send_raw_messages(self, raws: list[bytes], original: Message | None) -> None:
        for raw in raws:
            message = original if original is not None and raw == original.encode() else _decode_if_possible(raw)
            self._absorb(self.role, message, raw, self._channel.write_epoch)
            self._flight += raw

    def _end_flight(self) -> None:
        self._send_raw_messages(self._tamper.end_flight(), None)
        if self._flight:
            flight = bytes(self._flight)
            self._flight.clear()
            self._channel.emit(ContentType.HANDSHAKE, flight)

    def _send_change_cipher_spec(self) -> None:
        self._end_flight()
        self._channel.emit(ContentType.CHANGE_CIPHER_SPEC, b"\1")

    def _alert(self, alert: int) -> None:
        self._flight.clear()
        level = _WARNING if alert == AlertDescription.CLOSE_NOTIFY else _FATAL
        content = bytes([level, alert])
        self._channel.emit(ContentType.ALERT, content)
        self._witness(DataNote(self.role, f"alert {alert_name(alert)}", content, self._channel.write_epoch))

    # Transcript, keys, Finished.

    def _absorb(self, sender: Role, message: Message, raw: bytes, epoch: str | None) -> None:
        """Add a message to the transcript, unless it comes after the handshake."""
        hashed = None
        if self.state is not State.CONNECTED:
            name = message_name(raw[0])
            # Both ends send a Finished, so the RFC says whose it means.
            is_finished = raw[0] == HandshakeType.FINISHED
            self._transcript.add(f"{sender.value} {name}" if is_finished else name, raw)
            hashed = self._hash() if self.suite is not None else None
        self._witness(MessageNote(sender, message, raw, hashed, epoch))

    def _hash(self) -> bytes:
        return self._transcript.hash(known(self.suite).hash)

    def _derive_keys(self, owner: Role, name: str, label: str, epoch: str) -> TrafficKeys:
        """A traffic secret over the transcript so far, and the keys made from it."""
        secret = self._derive(name, label)
        return self._keys(owner, known(self.suite), secret, name, epoch)

    def _derive(self, name: str, label: str) -> bytes:
        """A secret over the transcript so far."""
        return known(self._schedule).derive(name, label, self._hash(), self._transcript.span)

    def _keys(self, owner: Role, suite: CipherSuite, secret: bytes, name: str, epoch: str) -> TrafficKeys:
        keys = TrafficKeys(suite, secret, name, epoch)
        self._witness(KeysNote(owner, epoch, name, keys.key, keys.iv))
        return keys

    def _next_keys(self, keys: TrafficKeys, owner: Role) -> TrafficKeys:
        name, secret = known(self._schedule).next_traffic_secret(keys.name, keys.secret)
        return self._keys(owner, keys.suite, secret, name, keys.epoch)

    def _read_with(self, keys: TrafficKeys) -> None:
        self._expect_boundary()
        self._channel.read_keys = keys

    def _expect_boundary(self) -> None:
        """Section 5.1: no message, and no part of one, follows in the record after which the keys change."""
        if self._partial:
            raise Violation(AlertDescription.UNEXPECTED_MESSAGE, "a message spans a change of keys")

    def _write_with(self, keys: TrafficKeys) -> None:
        self._end_flight()
        self._channel.write_keys = keys


def known(value: _T | None) -> _T:
    """A value that the state says there is; that there is none would be an error of this package."""
    if value is None:
        raise RuntimeError("a step of the handshake ran before what it needs")
    return value


def _decode_if_possible(raw: bytes) -> Message:
    """What a tampered message still means; a story shows garbage as a Finished of that content."""
    try:
        return decode_message(raw)
    except (Violation, IndexError):
        return Finished(raw)
