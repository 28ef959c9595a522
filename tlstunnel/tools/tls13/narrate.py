"""Makes a story from what a connection reported while it ran.

The client's notes are the story: it sends, receives, derives, checks. Where the server runs here too, its checks are
added, and only those: its secrets are the same, which `narrate` verifies instead of telling them twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from tlstunnel.tools.tls13.describe import describe
from tlstunnel.tools.tls13.messages import ClientHello, Message, ServerHello
from tlstunnel.tools.tls13.names import CipherSuite, ContentType, HandshakeType, group_name
from tlstunnel.tools.tls13.notes import (
    CheckNote,
    DataNote,
    KeysNote,
    MessageNote,
    Note,
    RecordNote,
    Role,
    SecretNote,
    SharedSecretNote,
)
from tlstunnel.tools.tls13.phrases import of_message, of_secrets
from tlstunnel.tools.tls13.schedule import digest
from tlstunnel.tools.tls13.story import Check, Derivation, Field, Keys, Step, WireRecord

TaggedNote = tuple[Role, Note]
_CONTENT_NAMES = {each: each.name.lower() for each in ContentType}
_CCS = [
    "A record that means nothing. Middleboxes that know only TLS 1.2 expect it; the receiver throws it away.",
]


class Narrator:
    """Turns notes into steps. `steps` and `records` are the result."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.records: list[WireRecord] = []
        self._hellos = 0
        self._kinds: dict[int, tuple[Role, HandshakeType]] = {}

    def tell(self, notes: Iterable[TaggedNote]) -> None:
        """Go through the notes, both ends' merged in the order in which they were made."""
        tagged = list(notes)
        suite = next((_suite(note) for _, note in tagged if _suite(note) is not None), None)
        secrets: dict[Role, set[tuple[str, bytes]]] = {Role.CLIENT: set(), Role.SERVER: set()}
        for role, note in tagged:
            if isinstance(note, SecretNote):
                secrets[role].add((note.name, note.value))
            if role is Role.CLIENT:
                self._tell(note, suite)
            elif isinstance(note, CheckNote):
                self._check(note)
        if secrets[Role.SERVER] and secrets[Role.CLIENT] != secrets[Role.SERVER]:
            raise RuntimeError("the two ends derived different secrets")
        for step in self.steps:
            if step.kind == "secrets":
                step.title, step.section, step.text = of_secrets([each.name for each in step.derivations])

    def _tell(self, note: Note, suite: CipherSuite | None) -> None:
        match note:
            case MessageNote():
                self._message(note, suite)
            case SecretNote():
                derivation = Derivation(note.name, note.formula, note.inputs, note.value)
                self._secrets(note.name).derivations.append(derivation)
            case SharedSecretNote():
                formula = f"{group_name(note.group)}(own private value, the other end's public value)"
                if note.parts:
                    formula = " || ".join(name for name, _ in note.parts)
                shared = Derivation("(EC)DHE shared secret", formula, note.parts, note.value)
                self._secrets("").derivations.append(shared)
            case KeysNote():
                keys = Keys(note.owner.value, note.epoch, note.secret_name, note.key, note.iv)
                self._secrets("").keys.append(keys)
            case CheckNote():
                self._check(note)
            case RecordNote():
                self._record(note)
            case DataNote():
                self._data(note)

    def _message(self, note: MessageNote, suite: CipherSuite | None) -> None:
        is_second = False
        if isinstance(note.message, ClientHello):
            is_second = self._hellos > 0
            self._hellos += 1
        title, section, text = of_message(note.message, note.sender, is_second_hello=is_second)
        hashed = note.transcript_hash
        if hashed is None and suite is not None and isinstance(note.message, ClientHello) and not is_second:
            # The client could not know the hash before the server chose it; told afterwards, it can be shown.
            hashed = digest(suite.hash, note.raw)
        self._kinds[len(self.steps)] = (note.sender, note.message.type)
        step = self._add("message", title, section, list(text), note.sender, note.epoch)
        step.fields = describe(note.message)
        step.transcript_hash = hashed
        step.bytes = note.raw

    def _secrets(self, name: str) -> Step:
        """The step that collects what is computed now. A new stage of the schedule begins a new step."""
        last = self.steps[-1] if self.steps else None
        begins = name in ("resumption_master_secret", "PSK of the ticket") or name.startswith("derived from Handshake")
        if last is None or last.kind != "secrets" or (begins and last.derivations):
            return self._add("secrets", "", "", [], None, None)
        return last

    def _check(self, note: CheckNote) -> None:
        wanted = (note.by.other, note.about)
        for place in range(len(self.steps) - 1, -1, -1):
            if self._kinds.get(place) == wanted:
                check = Check(note.by.value, note.text, note.values, note.passed)
                self.steps[place].checks.append(check)
                return

    def _record(self, note: RecordNote) -> None:
        outer = note.encoded[0]
        is_protected = note.epoch is not None
        self.records.append(
            WireRecord(
                number=len(self.records) + 1,
                sender=note.sender.value,
                outer_type=_content_name(outer),
                inner_type=_content_name(note.content_type) if is_protected else None,
                length=len(note.encoded),
                epoch=note.epoch,
                sequence=note.sequence,
                nonce=note.nonce if is_protected else None,
                bytes=note.encoded,
            )
        )
        if note.content_type == ContentType.CHANGE_CIPHER_SPEC:
            step = self._add("record", "change_cipher_spec, for middleboxes", "D.4", list(_CCS), note.sender, None)
            step.bytes = note.encoded

    def _data(self, note: DataNote) -> None:
        if note.what.startswith("alert"):
            section, text = "6", [_alert_text(note)]
        else:
            section, text = "5.2", [f"{len(note.data)} bytes of data, in a record of their own."]
        step = self._add("record", note.what, section, text, note.sender, note.epoch)
        record = self.records[-1] if self.records else None
        if record is not None and record.nonce is not None:
            step.fields = _protection(record, note.data)
        step.bytes = note.data

    def _add(
        self, kind: str, title: str, section: str, text: list[str], sender: Role | None, epoch: str | None
    ) -> Step:
        step = Step(len(self.steps) + 1, kind, title, section, text, sender.value if sender else None, epoch)
        self.steps.append(step)
        return step


def _protection(record: WireRecord, data: bytes) -> tuple[Field, ...]:
    """How one record is sealed, with its numbers; the handshake's records are sealed the same way."""
    shown = repr(data[:80])[1:] + ("..." if len(data) > 80 else "")
    return (
        Field("content", shown, "then one byte with the true content type"),
        Field("record number", str(record.sequence), "counted from 0 for each key"),
        Field("nonce", (record.nonce or b"").hex(), "the IV XOR the record number"),
        Field("additional data", record.bytes[:5].hex(), "the record's header"),
        Field("on the wire", record.bytes[5:].hex(), "AEAD-Encrypt(key, nonce, additional data, content)"),
    )


def _alert_text(note: DataNote) -> str:
    if note.what.endswith("close_notify"):
        return f"The {note.sender.value} says that it will send no more, so that nobody can cut the end off unnoticed."
    return f"The {note.sender.value} ends the connection and says why."


def _content_name(value: int) -> str:
    return _CONTENT_NAMES.get(ContentType(value), "") if value in _CONTENT_NAMES else f"unknown {value}"


def _suite(note: Note) -> CipherSuite | None:
    message: Message | None = note.message if isinstance(note, MessageNote) else None
    if isinstance(message, ServerHello) and message.cipher_suite in CipherSuite._value2member_map_:
        return CipherSuite(message.cipher_suite)
    return None
