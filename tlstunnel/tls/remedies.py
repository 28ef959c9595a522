"""What would be right: for every way in which a connection fails to be set up, what its operator can do about it.

A line of the log says where (service, client, target), what is wrong (the reason and its detail), and ends with one of
these. They are written for two readers. Of a server that we connect to speak the daemon's operator, who sets keys, and
the user of a command, who gives options: `KEYS` and `OPTIONS` are the words of each.
"""

from __future__ import annotations

from collections.abc import Mapping

from tlstunnel.outcome import CloseReason, Stage

KEYS = {
    "ca": "ca",
    "certificate": "certificate and key",
    "server_name": "server_name",
    "alpn": "alpn",
    "versions": "min_version and max_version",
    "ciphers": "ciphers, ciphersuites and groups",
    "address": "target",
    "crl": "crl",
    "or_wait": ", or raise connect_timeout",
}
OPTIONS = {
    "ca": "--ca",
    "certificate": "--cert and --key",
    "server_name": "--server-name",
    "alpn": "--alpn",
    "versions": "--min-version and --max-version",
    "ciphers": "--ciphers, --ciphersuites and --groups",
    "address": "the address",
    "crl": "--crl",
    "or_wait": "",  # the commands have no such option
}

OF_CLIENTS: dict[CloseReason, str] = {
    CloseReason.PROXY_HEADER_MISSING: "let the proxy in front send one, or set accept_proxy_protocol = false",
    CloseReason.PROXY_HEADER_MALFORMED: "make the proxy in front send version 1 or 2 of it",
    CloseReason.PROXY_HEADER_UNTRUSTED: "add it there if it is your proxy",
    CloseReason.HANDSHAKE_DRAINED: "it can simply connect again",
    CloseReason.NO_SHARED_VERSION: "update it, or look at min_version and max_version (TLS 1.2 is the lowest)",
    CloseReason.NO_SHARED_CIPHER: "update it, see ciphers and ciphersuites, or add a certificate with an RSA key",
    CloseReason.NO_SHARED_GROUP: "update it, or allow one of its own with groups",
    CloseReason.NO_SHARED_SIGNATURE: "add a certificate with another kind of key, such as RSA beside ECDSA",
    CloseReason.NO_SHARED_ALPN: 'add one of its own to alpn, or set alpn_mismatch = "ignore", alpn_required = false',
    CloseReason.UNRECOGNIZED_NAME: 'list it in an sni entry, or set sni_mismatch = "default"',
    CloseReason.NO_CLIENT_CERTIFICATE: "give it one of a CA in client_ca, or admit it without (client_auth, anonymous)",
    CloseReason.UNKNOWN_CA: "give it one of a CA in client_ca, with its intermediates, or add its CA to client_ca",
    CloseReason.EXPIRED_CERTIFICATE: "give it a renewed one, or correct this machine's clock",
    CloseReason.NOT_YET_VALID: "correct this machine's clock, or that of the CA's machine",
    CloseReason.REVOKED: "give it a new one if it is still welcome",
    CloseReason.CRL_UNUSABLE: "name a current one of each CA with crl",
    CloseReason.WRONG_PURPOSE: "give it one for clients (extended key usage clientAuth)",
    CloseReason.BAD_CERTIFICATE: "give it another one; `tlstunnel cert show` explains what is in this one",
    CloseReason.PROTOCOL_ERROR: "it is a scanner, or broken, or something between changes what it sends",
}
"""Of a client's connection to us. What is missing here says it in its detail or text already."""

OF_SERVERS: dict[CloseReason, str] = {
    CloseReason.NOT_TLS: "correct {address}, or speak to it without TLS",
    CloseReason.HANDSHAKE_EOF: "look at the server's log, and whether it speaks TLS there",
    CloseReason.HANDSHAKE_RESET: "look at the server's log, and whether it speaks TLS there",
    CloseReason.HANDSHAKE_TIMEOUT: "look whether the server speaks TLS there, and whether it is overloaded",
    CloseReason.HANDSHAKE_DRAINED: "the client can simply connect again",
    CloseReason.NO_SHARED_VERSION: "update the server, or look at {versions} (TLS 1.2 is the lowest)",
    CloseReason.NO_SHARED_CIPHER: "update the server, or allow one of its own with {ciphers}",
    CloseReason.NO_SHARED_GROUP: "update the server, or allow one of its own with {ciphers}",
    CloseReason.NO_SHARED_SIGNATURE: "give the server a certificate with another kind of key",
    CloseReason.NO_SHARED_ALPN: "name one of the server's with {alpn}",
    CloseReason.UNKNOWN_CA: "name the CA that issued the server's with {ca}, if it is the right server",
    CloseReason.EXPIRED_CERTIFICATE: "renew the server's, or correct this machine's clock",
    CloseReason.NOT_YET_VALID: "correct this machine's clock, or that of the CA's machine",
    CloseReason.REVOKED: "replace the server's",
    CloseReason.CRL_UNUSABLE: "name a current one of each CA with {crl}",
    CloseReason.WRONG_PURPOSE: "replace the server's by one for servers (extended key usage serverAuth)",
    CloseReason.BAD_CERTIFICATE: "replace the server's; `tlstunnel probe` explains what is in it",
    CloseReason.NAME_MISMATCH: "correct {address}, or give a name that is in it with {server_name}",
    CloseReason.PROTOCOL_ERROR: "the server is broken, or something between changes what it sends",
}
"""Of our connection to a server."""

OF_DIALS: dict[CloseReason, str] = {
    CloseReason.BACKEND_REFUSED: "start what should listen there, or correct {address}",
    CloseReason.BACKEND_UNRESOLVABLE: "correct {address}, or how this machine resolves names",
    CloseReason.BACKEND_UNREACHABLE: "correct {address}, or the interfaces and routes of this machine",
    CloseReason.BACKEND_CONNECT_TIMEOUT: "look whether it is overloaded or a firewall drops it{or_wait}",
    CloseReason.BACKEND_NO_SOCKET: "start what should listen there, or correct {address}",
    CloseReason.BACKEND_PERMISSION: "let the user that tlstunnel runs as connect to it (file modes, firewall, SELinux, "
    "IPAddressDeny=)",
    CloseReason.BACKEND_NO_DESCRIPTORS: "raise LimitNOFILE (fs.file-max for a whole system), or lower max_connections",
    CloseReason.BACKEND_NO_PORT: "use more targets or source addresses, widen net.ipv4.ip_local_port_range, or use a "
    "unix socket",
    CloseReason.BACKEND_NO_MEMORY: "give this machine or the unit more memory, or lower max_connections",
    CloseReason.BACKEND_NO_SOURCE: "write an address of this machine",
}
"""Of targets that were not reached."""

NAMELESS = "it has no host name or address as subject alternative name"
ONLY_WEAK_SIGNATURES = "client verifies MD5 and SHA-1 alone"
_BY_DETAIL = {
    NAMELESS: "have it issued anew with one (RFC 9525 does not count the common name)",
    ONLY_WEAK_SIGNATURES: "update it; no kind of key can help",
}
"""By the beginning of a detail, where the reason's own remedy would be of no use."""
RENEGOTIATION_OF_SERVERS = (
    "it wanted to renegotiate, which tlstunnel does not do; let it ask for a certificate at once instead of for some "
    "paths only, or switch it to TLS 1.3"
)
RENEGOTIATION_OF_CLIENTS = (
    "it wanted to renegotiate, which tlstunnel does not do; switch that off, or let it use TLS 1.3"
)
"""Of an alert after the handshake in TLS 1.2 (RFC 9325 section 3.5)."""

_BROKEN_ALERTS = (
    "unexpected_message bad_record_mac record_overflow illegal_parameter decode_error decrypt_error missing_extension "
    "unsupported_extension unknown_psk_identity inappropriate_fallback"
).split()
"""For a peer that finds the protocol broken (RFC 8446 section 6.2, RFC 7507)."""

ALERTS_OF_CLIENTS: dict[str, str] = {
    **dict.fromkeys(_BROKEN_ALERTS, "it finds the protocol broken; look at its log, and at what stands between"),
    "handshake_failure": "it has nothing in common with us; update it, or look at ciphers, ciphersuites and groups",
    "bad_certificate": "it does not accept our certificate; look whether that is for the name it asks for",
    "unsupported_certificate": "our certificate is of a kind it does not accept; issue one for servers",
    "certificate_revoked": "our certificate is revoked; replace it",
    "certificate_expired": "our certificate has expired for it; renew that, or correct the client's clock",
    "certificate_unknown": "it does not accept our certificate; look whether it knows the CA and asks for a name in it",
    "unknown_ca": "it does not know the CA of our certificate; give it that CA, or us the intermediates in certificate",
    "access_denied": "it does not want to talk to us; look at its own rules",
    "protocol_version": "it does not speak our version; update it, or look at min_version and max_version",
    "insufficient_security": "it demands more than we offer; look at ciphers, ciphersuites and groups",
    "internal_error": "it had an error of its own; look at its log",
    "user_canceled": "it gave up on its own; nothing is wrong here",
    "unrecognized_name": "it has no use for our name; look at its own settings",
    "bad_certificate_status_response": "our stapled OCSP response does not satisfy it; fetch that anew",
    "certificate_required": "it wants a certificate, which is the server's part; look at its own settings",
    "no_application_protocol": "it has no use for the protocol we chose; look at alpn",
}
"""What a client's alert says about us, and what to do; by the alert's name."""

ALERTS_OF_SERVERS: dict[str, str] = {
    **dict.fromkeys(_BROKEN_ALERTS, "it finds the protocol broken; look at its log, and at what stands between"),
    "handshake_failure": "it denies us, or has nothing in common with us; look at its log, then at {certificate}, "
    "and at {ciphers}",
    "bad_certificate": "it does not accept our certificate; give it another one with {certificate}",
    "unsupported_certificate": "our certificate is of a kind it does not accept; give it one for clients with "
    "{certificate}",
    "certificate_revoked": "our certificate is revoked; give it a new one with {certificate}",
    "certificate_expired": "our certificate has expired; give it a renewed one with {certificate}",
    "certificate_unknown": "it does not accept our certificate; its log says why, and {certificate} can name another",
    "unknown_ca": "it does not trust the CA of our certificate; give it one of a CA it trusts, with its "
    "intermediates, with {certificate}",
    "access_denied": "it denies us; its rules have to admit our certificate, or {certificate} to name another",
    "protocol_version": "it does not speak the versions we offer; update it, or look at {versions}",
    "insufficient_security": "it demands more than we offer; look at {ciphers}",
    "internal_error": "it had an error of its own; look at its log",
    "user_canceled": "it gave up on its own; look at its log",
    "unrecognized_name": "it does not serve the name we ask for; give one of its names with {server_name}",
    "bad_certificate_status_response": "it does not accept our OCSP response; look at its log",
    "certificate_required": "it wants a certificate of ours; give it one with {certificate}",
    "no_application_protocol": "it speaks none of the protocols we offer; name one of its own with {alpn}",
}
"""What a server's alert says about us, and what to do."""


def of_client(reason: CloseReason, detail: str = "") -> str:
    """What to do about a client's connection that ended for this reason; empty where its detail says it."""
    if reason.stage is Stage.DIAL:
        return of_dial(reason)
    return _special(detail) or OF_CLIENTS.get(reason, "")


def of_server(reason: CloseReason, words: Mapping[str, str] = KEYS, detail: str = "") -> str:
    """What to do about a handshake with a server that ended for this reason; empty where its detail says it."""
    return _special(detail) or OF_SERVERS.get(reason, "").format_map(words)


def _special(detail: str) -> str:
    return next((remedy for start, remedy in _BY_DETAIL.items() if detail.startswith(start)), "")


def of_dial(reason: CloseReason, words: Mapping[str, str] = KEYS) -> str:
    """What to do about a target that was not reached for this reason; empty where the client gave up."""
    return OF_DIALS.get(reason, "").format_map(words)


def of_alert(name: str, words: Mapping[str, str] | None = None) -> str:
    """What an alert means and what to do about it.

    Args:
        words: of a server's alert, what our settings are called; None for an alert of a client.
    """
    if words is None:
        return ALERTS_OF_CLIENTS.get(name, "an alert that nobody should send; look at its log")
    return ALERTS_OF_SERVERS.get(name, "an alert that nobody should send; look at its log").format_map(words)


def joined(*parts: str) -> str:
    """What is wrong and what would be right, as one text; empty parts are left out."""
    return "; ".join(filter(None, parts))
