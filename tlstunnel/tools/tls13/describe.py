"""The fields of each handshake message, in words: what a story shows under a message's name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tlstunnel.errors import printable
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.extension_block import Extension
from tlstunnel.tools.tls13.failure import Violation
from tlstunnel.tools.tls13.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    EncryptedExtensions,
    Finished,
    KeyUpdate,
    Message,
    NewSessionTicket,
    ServerHello,
)
from tlstunnel.tools.tls13.names import ExtensionType as Ext
from tlstunnel.tools.tls13.names import (
    extension_name,
    group_name,
    is_grease,
    scheme_name,
    suite_name,
    version_name,
)
from tlstunnel.tools.tls13.story import Field

_PURPOSES: dict[int, str] = {
    Ext.SERVER_NAME: "the name the client wants to reach, so that the server can pick a certificate",
    Ext.SUPPORTED_GROUPS: "groups for the key exchange, most wanted first",
    Ext.SIGNATURE_ALGORITHMS: "signatures that the sender of this message can verify",
    Ext.SUPPORTED_VERSIONS: "the real protocol versions",
    Ext.KEY_SHARE: "public values of the key exchange",
    Ext.PSK_KEY_EXCHANGE_MODES: "how a PSK may be used: psk_dhe_ke is with a fresh key exchange",
    Ext.PRE_SHARED_KEY: "which secret of an earlier connection to start from",
    Ext.COOKIE: "what the server wants to see again, so that it can forget the first ClientHello",
    Ext.ALPN: "application protocols",
    Ext.EARLY_DATA: "0-RTT data",
    Ext.PADDING: "zeros that make the message longer (RFC 7685)",
    Ext.CERTIFICATE_AUTHORITIES: "CAs whose certificates the sender accepts",
}


def describe(message: Message) -> tuple[Field, ...]:
    """The fields of a message. What cannot be understood is shown as bytes; nothing here raises."""
    match message:
        case ClientHello():
            return _client_hello(message)
        case ServerHello():
            return _server_hello(message)
        case EncryptedExtensions():
            return _extensions(message.extensions, in_client_hello=False) or (Field("extensions", "none"),)
        case CertificateRequest():
            context = Field("certificate_request_context", message.context.hex() or "empty")
            return (context, *_extensions(message.extensions, in_client_hello=True))
        case Certificate():
            return _certificate(message)
        case CertificateVerify():
            return (
                Field("algorithm", scheme_name(message.scheme)),
                Field("signature", message.signature.hex(), f"{len(message.signature)} bytes"),
            )
        case Finished():
            return (Field("verify_data", message.verify_data.hex(), "as long as the hash"),)
        case NewSessionTicket():
            return _ticket(message)
        case KeyUpdate():
            value = "update_requested" if message.update_requested else "update_not_requested"
            return (Field("request_update", value),)
    return ()


def _client_hello(message: ClientHello) -> tuple[Field, ...]:
    suites = ", ".join(suite_name(suite) for suite in message.cipher_suites)
    return (
        Field("legacy_version", version_name(message.legacy_version), "fixed; see supported_versions"),
        Field("random", message.random.hex(), "32 fresh random bytes"),
        _session_id("legacy_session_id", message.session_id, "random, to look like TLS 1.2 to middleboxes"),
        Field("cipher_suites", suites, "an AEAD and a hash each, most wanted first"),
        Field("legacy_compression_methods", message.compression_methods.hex(), "null; TLS 1.3 does not compress"),
        *_extensions(message.extensions, in_client_hello=True),
    )


def _server_hello(message: ServerHello) -> tuple[Field, ...]:
    what = 'SHA-256 of "HelloRetryRequest"' if message.is_retry else "32 fresh random bytes"
    return (
        Field("legacy_version", version_name(message.legacy_version), "fixed; see supported_versions"),
        Field("random", message.random.hex(), what),
        _session_id("legacy_session_id_echo", message.session_id, "the client's, sent back"),
        Field("cipher_suite", suite_name(message.cipher_suite), "chosen among the client's"),
        Field("legacy_compression_method", f"{message.compression_method:02x}", "null"),
        *_extensions(message.extensions, in_client_hello=False, in_retry=message.is_retry),
    )


def _session_id(name: str, value: bytes, meaning: str) -> Field:
    return Field(name, value.hex(), meaning) if value else Field(name, "empty")


def _certificate(message: Certificate) -> tuple[Field, ...]:
    found = [Field("certificate_request_context", message.context.hex() or "empty")]
    if not message.entries:
        found.append(Field("certificate_list", "empty", "the sender has no certificate to show"))
    for place, entry in enumerate(message.entries):
        found.append(Field(f"certificate_list[{place}]", f"{len(entry.data)} bytes", "end entity" if not place else ""))
        found += _certificate_fields(entry.data)
        found += _extensions(entry.extensions, in_client_hello=False, depth=1)
    return tuple(found)


def _certificate_fields(data: bytes) -> list[Field]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd certificates; the story shows what can be shown
            return _readable_fields(x509.load_der_x509_certificate(data))
    except PARSE_ERRORS as exc:
        reason = str(exc).partition("\n")[0] if not isinstance(exc, LookupError) else ""
        reason = reason or "malformed"
        return [Field("unreadable", printable(reason), depth=1)]


def _readable_fields(certificate: x509.Certificate) -> list[Field]:
    dates = f"{certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}"
    return [
        Field("subject", printable(certificate.subject.rfc4514_string()) or "empty", depth=1),
        Field("issuer", printable(certificate.issuer.rfc4514_string()) or "empty", depth=1),
        Field("validity", dates, depth=1),
        Field("public key", _key_name(certificate), depth=1),
        *_names(certificate),
        Field("SHA-256 fingerprint", certificate.fingerprint(hashes.SHA256()).hex(), depth=1),
    ]


def _names(certificate: x509.Certificate) -> list[Field]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    shown = ", ".join(str(getattr(name, "value", name)) for name in names)
    return [Field("names", printable(shown), "subjectAltName", depth=1)]


def _key_name(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA, {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA, {key.curve.name}"
    return type(key).__name__.removesuffix("PublicKey")


def _ticket(message: NewSessionTicket) -> tuple[Field, ...]:
    return (
        Field("ticket_lifetime", f"{message.lifetime} s"),
        Field("ticket_age_add", f"{message.age_add:08x}", "added to the ticket's age to make it unlinkable"),
        Field("ticket_nonce", message.nonce.hex() or "empty", "makes each ticket's PSK different"),
        Field("ticket", message.ticket.hex(), "opaque; only the server can read it"),
        *_extensions(message.extensions, in_client_hello=False),
    )


def _extensions(
    extensions: tuple[Extension, ...], *, in_client_hello: bool, in_retry: bool = False, depth: int = 0
) -> tuple[Field, ...]:
    found = []
    for extension in extensions:
        name = f"extension {extension_name(extension.type)}"
        try:
            value = _value(extension, in_client_hello=in_client_hello, in_retry=in_retry)
        except Violation:
            value = f"malformed: {extension.data.hex()}"
        purpose = "means nothing, keeps servers tolerant (RFC 8701)" if is_grease(extension.type) else ""
        is_acknowledgement = not in_client_hello and not extension.data
        purpose = "acknowledged" if is_acknowledgement else _PURPOSES.get(extension.type, purpose)
        found.append(Field(name, value, purpose, depth))
    return tuple(found)


def _value(extension: Extension, *, in_client_hello: bool, in_retry: bool) -> str:
    data = extension.data
    if not data:
        return "empty"
    lists: dict[int, Callable[[], str]] = {
        Ext.SERVER_NAME: lambda: printable(ext.read_server_name(data)),
        Ext.SUPPORTED_GROUPS: lambda: ", ".join(group_name(each) for each in ext.read_numbers(data, "groups")),
        Ext.SIGNATURE_ALGORITHMS: lambda: ", ".join(scheme_name(each) for each in ext.read_numbers(data, "schemes")),
        Ext.ALPN: lambda: printable(", ".join(ext.read_alpn(data))),
        Ext.COOKIE: lambda: ext.read_cookie(data).hex(),
        Ext.PADDING: lambda: f"{len(data)} zeros",
        Ext.CERTIFICATE_AUTHORITIES: lambda: f"{len(ext.read_certificate_authorities(data))} names",
        Ext.EARLY_DATA: lambda: f"max_early_data_size = {int.from_bytes(data)}",
    }
    if in_client_hello:
        lists |= {
            Ext.SUPPORTED_VERSIONS: lambda: ", ".join(version_name(each) for each in ext.read_client_versions(data)),
            Ext.KEY_SHARE: lambda: "; ".join(_share(each) for each in ext.read_client_shares(data)),
            Ext.PSK_KEY_EXCHANGE_MODES: lambda: ", ".join(_mode(each) for each in ext.read_psk_modes(data)),
            Ext.PRE_SHARED_KEY: lambda: _offered_psk(data),
        }
    elif in_retry:
        lists |= {
            Ext.SUPPORTED_VERSIONS: lambda: version_name(ext.read_single(data, "version")),
            Ext.KEY_SHARE: lambda: f"please send a share for {group_name(ext.read_single(data, 'group'))}",
        }
    else:
        lists |= {
            Ext.SUPPORTED_VERSIONS: lambda: version_name(ext.read_single(data, "version")),
            Ext.KEY_SHARE: lambda: _share(ext.read_server_share(data)),
            Ext.PRE_SHARED_KEY: lambda: f"identity {ext.read_single(data, 'identity')} of those offered",
        }
    return lists.get(extension.type, data.hex)()


def _share(share: ext.KeyShare) -> str:
    return f"{group_name(share.group)}, {len(share.key_exchange)} bytes: {share.key_exchange.hex()}"


def _mode(value: int) -> str:
    return {0: "psk_ke", 1: "psk_dhe_ke"}.get(value, f"unknown {value}")


def _offered_psk(data: bytes) -> str:
    offered = ext.read_offered_psk(data)
    parts = []
    for (identity, age), binder in zip(offered.identities, offered.binders, strict=False):
        parts.append(f"ticket {identity.hex()}, obfuscated_ticket_age {age}, binder {binder.hex()}")
    return "; ".join(parts)
