"""Records in and out of one connection: the keys of each direction, and the buffers (RFC 8446 section 5).

The channel knows content types and keys, not messages. It tells the witness about every record, and lets the tamper
have every record that goes out.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.names import TLS_1_2, AlertDescription, ContentType
from tlstunnel.tools.tls13.notes import RecordNote, Role, Witness
from tlstunnel.tools.tls13.protection import TrafficKeys
from tlstunnel.tools.tls13.tamper import Tamper
from tlstunnel.tools.tls13.wire import Record, RecordBuffer


class Channel:
    """Seals what goes out with `write_keys`, opens what comes in with `read_keys`; None means plaintext."""

    def __init__(self, role: Role, witness: Witness, tamper: Tamper) -> None:
        self.read_keys: TrafficKeys | None = None
        self.write_keys: TrafficKeys | None = None
        self.plain_version = TLS_1_2
        """The legacy version of unprotected records; a first ClientHello says TLS 1.0 (section 5.1)."""
        self.skippable = 0
        """Bytes of rejected 0-RTT records to skip: they are sealed with keys this end never made (section 4.2.10)."""
        self._role = role
        self._witness = witness
        self._tamper = tamper
        self._incoming = RecordBuffer()
        self._outgoing = bytearray()

    @property
    def read_epoch(self) -> str | None:
        """What protects incoming records now, in words; None is nothing."""
        return self.read_keys.epoch if self.read_keys else None

    @property
    def write_epoch(self) -> str | None:
        """What protects outgoing records now, in words; None is nothing."""
        return self.write_keys.epoch if self.write_keys else None

    def feed(self, data: bytes) -> Iterator[Record]:
        """Take bytes and give the records they complete, still sealed.

        Raises:
            Violation: what came is no record of TLS.
        """
        self._incoming.feed(data)
        return self._incoming.records()

    def open(self, record: Record) -> tuple[int, bytes] | None:
        """The true type and the content of a record; None if it is to be skipped.

        Raises:
            Violation: it does not decrypt.
        """
        keys = self.read_keys
        if keys is None:
            if record.content_type == ContentType.APPLICATION_DATA and self._skip(record):
                return None
            self.tell(record)
            return record.content_type, record.fragment
        sequence, nonce = keys.sequence, keys.nonce()
        try:
            content_type, content = keys.open(record)
        except Violation as exc:
            if exc.alert == AlertDescription.BAD_RECORD_MAC and self._skip(record):
                return None
            raise
        self.skippable = 0
        peer = self._role.other
        self._witness(RecordNote(peer, record.encode(), content_type, len(content), keys.epoch, sequence, nonce))
        return content_type, content

    def tell(self, record: Record) -> None:
        """Report an unprotected record that came."""
        self._witness(RecordNote(self._role.other, record.encode(), record.content_type, len(record.fragment)))

    def emit(self, content_type: int, content: bytes) -> None:
        """Put content of one type into records, sealed if there are keys. A change_cipher_spec never is."""
        # An alert must stay in one piece (section 5.1), however small a tamper wants its records.
        size = len(content) if content_type == ContentType.ALERT else self._tamper.fragment_size
        keys = None if content_type == ContentType.CHANGE_CIPHER_SPEC else self.write_keys
        for start in range(0, len(content) or 1, size):
            fragment = content[start : start + size]
            if keys is None:
                record = Record(content_type, self.plain_version, fragment)
                note = RecordNote(self._role, record.encode(), content_type, len(fragment))
            else:
                sequence, nonce = keys.sequence, keys.nonce()
                record = keys.seal(content_type, fragment)
                encoded = record.encode()
                note = RecordNote(self._role, encoded, content_type, len(fragment), keys.epoch, sequence, nonce)
            self._witness(note)
            for encoded in self._tamper.record(record.encode()):
                self._outgoing += encoded

    def take_outgoing(self) -> bytes:
        """The bytes to put on the wire now; they are handed out once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def _skip(self, record: Record) -> bool:
        if len(record.fragment) > self.skippable:
            return False
        self.skippable -= len(record.fragment)
        return True
