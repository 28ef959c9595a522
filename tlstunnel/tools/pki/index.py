"""The index of a CA: one line for each certificate it issued, in the format of openssl(1).

Six fields separated by tabs: V or R; the end of validity; when and why it was revoked, or nothing; the serial number in
hexadecimal; the file it was kept in; the subject. The format is OpenSSL's (`openssl ca`, `openssl ocsp -index`), so an
OCSP responder and old habits can use the folder. The file is always replaced as a whole, so a reader never sees half a
line.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tlstunnel.errors import UsageError, printable
from tlstunnel.tools.pki import files
from tlstunnel.x509 import certificate as facts
from tlstunnel.x509.pem import read_file

MAX_INDEX_BYTES = 256 << 20
"""About two million certificates."""

REASONS = {
    reason.value: reason
    for reason in x509.ReasonFlags
    if reason not in (x509.ReasonFlags.remove_from_crl, x509.ReasonFlags.certificate_hold)
}
"""Reasons a certificate can be revoked for (RFC 5280 section 5.3.1); holding is not offered, we never un-revoke."""

_SERIAL = re.compile(r"[0-9A-F]{2,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One certificate."""

    serial: int
    not_after: datetime.datetime
    file: str
    subject: str
    revoked_at: datetime.datetime | None = None
    reason: str = "unspecified"

    @property
    def line(self) -> str:
        """The entry as it stands in the file."""
        revoked = ""
        if self.revoked_at is not None:
            revoked = _time_text(self.revoked_at) + ("" if self.reason == "unspecified" else f",{self.reason}")
        status = "V" if self.revoked_at is None else "R"
        fields = (status, _time_text(self.not_after), revoked, serial_text(self.serial), self.file, self.subject)
        return "\t".join(fields) + "\n"


def entry_for(certificate: x509.Certificate) -> Entry:
    """The entry of a certificate that was just issued."""
    serial = facts.serial(certificate)
    return Entry(
        serial=serial,
        not_after=certificate.not_valid_after_utc,
        file=f"issued/{serial_text(serial)}.pem",
        subject=_one_line(certificate.subject),
    )


def serial_text(serial: int) -> str:
    """Upper-case hexadecimal with an even number of digits, as openssl(1) writes serial numbers."""
    text = f"{serial:X}"
    return text if len(text) % 2 == 0 else "0" + text


def parse(data: bytes, *, where: str) -> list[Entry]:
    """All entries, in order.

    Raises:
        UsageError: a line is not an entry, or a serial number is there twice.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise UsageError(where, "not an index: it is not text; restore it from a backup") from exc
    entries: dict[int, Entry] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line:
            continue
        try:
            entry = _parse_line(line)
        except ValueError as exc:
            what = f"line {number}: not an entry ({exc}); correct it or restore the index from a backup"
            raise UsageError(where, what) from exc
        if entry.serial in entries:
            raise UsageError(where, f"line {number}: serial {serial_text(entry.serial)} is there twice; remove one")
        entries[entry.serial] = entry
    return list(entries.values())


def load(path: Path) -> list[Entry]:
    """The entries of a file.

    Raises:
        MaterialError: it cannot be read.
        UsageError: see `parse`.
    """
    return parse(read_file(path, MAX_INDEX_BYTES, may_be_empty=True).data, where=str(path))


def store(path: Path, entries: list[Entry]) -> None:
    """Replace the file.

    Raises:
        StartupError: it cannot be written.
    """
    files.write(path, "".join(entry.line for entry in entries).encode(), secret=False, replace=True)


def revoked(entry: Entry, when: datetime.datetime, reason: str) -> Entry:
    """The entry, revoked."""
    return dataclasses.replace(entry, revoked_at=when, reason=reason)


def _parse_line(line: str) -> Entry:
    fields = line.split("\t")
    if len(fields) != 6:
        raise ValueError(f"{len(fields)} fields instead of 6")
    status, not_after, revocation, serial, file, subject = fields
    if status not in ("V", "R", "E"):  # E is what openssl ca -updatedb makes of V
        raise ValueError("it does not start with V or R")
    if not _SERIAL.fullmatch(serial):
        raise ValueError("the serial number is not hexadecimal")
    if (status == "R") != bool(revocation):
        raise ValueError("revocation and status contradict each other")
    when, _, reason = revocation.partition(",")
    if reason and reason not in REASONS:
        raise ValueError("the reason is unknown")
    return Entry(
        serial=int(serial, 16),
        not_after=_parse_time(not_after),
        file=file,
        subject=subject,
        revoked_at=_parse_time(when) if revocation else None,
        reason=reason or "unspecified",
    )


def _time_text(when: datetime.datetime) -> str:
    # UTCTime until 2049, GeneralizedTime from 2050 on (RFC 5280 section 4.1.2.5).
    utc = when.astimezone(datetime.UTC)
    return utc.strftime("%y%m%d%H%M%SZ") if utc.year < 2050 else utc.strftime("%Y%m%d%H%M%SZ")


def _parse_time(text: str) -> datetime.datetime:
    if not re.fullmatch(r"(?:[0-9]{12}|[0-9]{14})Z", text):
        raise ValueError("a time is not YYMMDDHHMMSSZ")
    if len(text) == 13:
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _one_line(name: x509.Name) -> str:
    # OpenSSL's one-line form; whatever could break the line or the fields is escaped as it does.
    parts = []
    for attribute in name:
        label = attribute.rfc4514_attribute_name
        value = "".join(
            chr(byte) if 0x20 <= byte < 0x7F and byte not in b"\\/" else f"\\x{byte:02X}"
            for byte in str(attribute.value).encode()
        )
        parts.append(f"/{printable(label)}={value}")
    return "".join(parts) or "/"
