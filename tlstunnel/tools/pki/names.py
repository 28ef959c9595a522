"""The names a certificate is for: from the operator's words to GeneralName (RFC 5280 section 4.2.1.6), and back."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from tlstunnel.address import name_problem
from tlstunnel.errors import UsageError, printable

MAX_COMMON_NAME = 64
"""ub-common-name and ub-organizational-unit-name of RFC 5280 appendix A.1."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(?:/[A-Za-z0-9._-]+)*")
_EMAIL = re.compile(r"[!#-'*+\-./-9=?A-Z^-~]{1,64}@(.+)")


def parse(texts: Iterable[str], *, where: str) -> tuple[x509.GeneralName, ...]:
    """Names in the order given, each once: host names, wildcards, IP addresses, URIs, mail addresses.

    Raises:
        UsageError: a text is none of these, or there is none at all.
    """
    found: dict[x509.GeneralName, None] = {}
    for text in texts:
        found[parse_one(text, where=where)] = None
    if not found:
        raise UsageError(where, "no name given; write host names or IP addresses, separated by commas")
    return tuple(found)


def parse_one(text: str, *, where: str) -> x509.GeneralName:
    """One name; its form says what it is.

    Raises:
        UsageError: it has none of the forms.
    """
    bare = text.strip().removeprefix("[").removesuffix("]") if text.strip().startswith("[") else text.strip()
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if getattr(address, "scope_id", None) is not None:
            raise UsageError(where, f'"{bare}": a certificate knows no interfaces; leave out what follows the %')
        return x509.IPAddress(address)
    if "://" in bare or bare.startswith("urn:"):
        return uri(bare, where=where)
    if "@" in bare:
        return email(bare, where=where)
    return dns(bare, where=where)


def dns(text: str, *, where: str) -> x509.DNSName:
    """A host name, or a wildcard for one more label below at least two.

    Raises:
        UsageError: it is neither.
    """
    name = text.lower().removesuffix(".")
    if "*" in name and (name.count("*") > 1 or not name.startswith("*.") or name.count(".") < 2):
        # One label below a top-level domain is matched by no TLS library (RFC 6125 section 6.4.3 leaves it open).
        raise UsageError(where, f'"{_shown(text)}": a wildcard stands for one whole label; write "*.example.org"')
    problem = name_problem(name.removeprefix("*."))
    if problem == "is not a host name":
        problem = 'is neither a host name nor an IP address; write one like "example.org"'
    if problem:
        raise UsageError(where, f'"{_shown(text)}" {problem}')
    return x509.DNSName(name)


def uri(text: str, *, where: str) -> x509.UniformResourceIdentifier:
    """A URI with its scheme; a SPIFFE ID must have its form (SPIFFE-ID section 2), or no verifier accepts it.

    Raises:
        UsageError: it is no URI.
    """
    if not _URI.fullmatch(text) or len(text) > 2048:
        raise UsageError(where, f'"{_shown(text)}" is not a URI; write one like "spiffe://example.org/billing"')
    if text.lower().startswith("spiffe:"):
        segments = text.split("/")[3:]
        if not _SPIFFE.fullmatch(text) or "." in segments or ".." in segments:
            raise UsageError(where, f'"{_shown(text)}" is not a SPIFFE ID; write "spiffe://trust-domain/path"')
    return x509.UniformResourceIdentifier(text)


def email(text: str, *, where: str) -> x509.RFC822Name:
    """A mail address in ASCII.

    Raises:
        UsageError: it is none.
    """
    match = _EMAIL.fullmatch(text)
    if match is None:
        raise UsageError(where, f'"{_shown(text)}" is not a mail address; write one like "ann@example.org"')
    domain = dns(match[1], where=where)
    return x509.RFC822Name(f"{text.rpartition('@')[0]}@{domain.value}")


def subject(
    common_name: str | None, *, organization: str | None = None, units: Iterable[str] = (), where: str
) -> x509.Name:
    """A subject of organization, organizational units and common name; any of them may be missing.

    Raises:
        UsageError: a part is empty, too long or has control characters.
    """
    attributes = []
    if organization is not None:
        attributes.append(_attribute(NameOID.ORGANIZATION_NAME, organization, where))
    attributes += [_attribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit, where) for unit in units]
    if common_name is not None:
        attributes.append(_attribute(NameOID.COMMON_NAME, common_name, where))
    return x509.Name(attributes)


def _attribute(oid: x509.ObjectIdentifier, text: str, where: str) -> x509.NameAttribute[str]:
    if not text.strip() or not text.isprintable():
        raise UsageError(where, f'"{_shown(text)}" is no name; write one of printable characters')
    if len(text.encode()) > MAX_COMMON_NAME:
        raise UsageError(where, f'"{_shown(text)}" is longer than {MAX_COMMON_NAME} bytes; write a shorter name')
    return x509.NameAttribute(oid, text)


def short(name: x509.GeneralName) -> str:
    """The name as it was written: `example.org`, `127.0.0.1`, `spiffe://...`."""
    if isinstance(name, x509.DirectoryName):
        return text_of(name.value)
    value = getattr(name, "value", name)
    if isinstance(name, x509.OtherName):
        return f"{name.type_id.dotted_string} ({len(name.value)} bytes)"
    if isinstance(value, x509.ObjectIdentifier):
        return value.dotted_string
    return printable(str(value))


def long(name: x509.GeneralName) -> str:
    """The name with its kind, as `openssl x509` writes it: `DNS:example.org`."""
    kinds = {
        x509.DNSName: "DNS",
        x509.IPAddress: "IP",
        x509.UniformResourceIdentifier: "URI",
        x509.RFC822Name: "email",
        x509.DirectoryName: "directory",
        x509.RegisteredID: "OID",
        x509.OtherName: "other",
    }
    return f"{kinds.get(type(name), 'other')}:{short(name)}"


def text_of(name: x509.Name) -> str:
    """A subject or issuer, most specific part first: `CN=billing, OU=payments` (RFC 4514 with spaces)."""
    parts = [part.rfc4514_string() for part in reversed(name.rdns)]
    return printable(", ".join(parts)) or "(empty)"


def common_name(name: x509.Name) -> str | None:
    """The last (most specific) common name, or None."""
    values = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return printable(str(values[-1].value)) if values else None


def file_stem(text: str) -> str:
    """What files are named after this name: `*.example.org` becomes `wildcard.example.org`, `::1` becomes `__1`."""
    stem = text.replace("*.", "wildcard.", 1) if text.startswith("*.") else text
    stem = re.sub(r"[^A-Za-z0-9._@-]", "_", stem)
    stem = "_" + stem[1:] if stem.startswith((".", "-")) else stem
    return stem[:200]


def check_file_stem(stem: str, *, where: str) -> str:
    """A stem given by the operator must stay in its folder.

    Raises:
        UsageError: it is empty, hidden or has a slash.
    """
    if not stem or stem != Path(stem).name or stem.startswith(".") or "\0" in stem or len(stem) > 200:
        raise UsageError(where, f'"{_shown(stem)}" is no file name; write one without slashes, such as "web"')
    return stem


def _shown(text: str) -> str:
    clean = printable(text)
    return clean if len(clean) <= 80 else clean[:77] + "..."
