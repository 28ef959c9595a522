"""Who the client is, by the PROXY protocol: heard from a proxy in front, told to the target behind."""

from __future__ import annotations

import socket
from typing import Any

from tlstunnel import proxy_protocol
from tlstunnel.config.model import Mode, ProxyProtocol, Service
from tlstunnel.connection.admission import is_in
from tlstunnel.connection.connection import Connection
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.outcome import CloseReason
from tlstunnel.proxy_protocol import End, Endpoint, Header, SSLInfo, TLVs
from tlstunnel.tls.firstbytes import HANDSHAKE

MAX_COMMON_NAME = 1024
"""Bytes. Names should have 64 characters (RFC 5280 appendix A.1), and a certificate can have 60,000; nginx takes
headers of 4 KiB, HAProxy of 16."""


def check_trust(connection: Connection, service: Service) -> None:
    """Whether this peer may say who its clients are. Unix sockets may: their permissions say so.

    Raises:
        RefusedError: it may not.
    """
    if connection.host and not is_in(connection.host, service.proxy_trusted):
        raise RefusedError(CloseReason.PROXY_HEADER_UNTRUSTED, f"{connection.host} is not in proxy_trusted")


def read_header(data: memoryview) -> Header | None:
    """The header at the start of what has arrived; None while more is needed.

    Raises:
        RefusedError: there is none, or it is malformed.
    """
    try:
        return proxy_protocol.parse(data)
    except proxy_protocol.MissingHeaderError:
        instead = "it began with TLS" if data[0] == HANDSHAKE else ""
        raise RefusedError(CloseReason.PROXY_HEADER_MISSING, instead) from None
    except proxy_protocol.ProxyProtocolError as exc:
        raise RefusedError(CloseReason.PROXY_HEADER_MALFORMED, str(exc)) from None


def header_for(connection: Connection) -> bytes:
    """What to tell the target about this client, as the service wants it; nothing, if it wants nothing."""
    service = connection.runtime.service
    if service.proxy_protocol is ProxyProtocol.NONE:
        return b""
    source = connection.source or _end(connection.family, connection.address)
    destination = connection.destination or _end(connection.family, connection.client.sock.getsockname())
    if not (isinstance(source, Endpoint) and isinstance(destination, Endpoint)):
        # Of unix sockets there is no address to tell that anybody would take: HAProxy refuses that family. What is
        # known of TLS is told all the same, as HAProxy does.
        source = destination = None
    if service.proxy_protocol is ProxyProtocol.V1:
        return proxy_protocol.encode_v1(source, destination)
    tlvs = _tlvs(connection) if service.proxy_tlvs else None
    return proxy_protocol.encode_v2(source, destination, tlvs, crc32c=tlvs is not None)


def _tlvs(connection: Connection) -> TLVs:
    record = connection.record
    ssl, name = None, connection.common_name
    if len(name.encode()) > MAX_COMMON_NAME:
        # A part of it could be somebody else's name.
        record.detail = f"its common name of {len(name)} characters is too long to be handed to the target"
        name = ""
    if connection.runtime.service.mode is Mode.SERVER and connection.runtime.service.starttls is None:
        # With starttls TLS has not begun, and perhaps never will: a target takes passwords from whom this vouches for.
        has_certificate = record.identity is not None
        ssl = SSLInfo(
            has_certificate=has_certificate and not record.resumed,
            has_session_certificate=has_certificate,
            verify=0 if has_certificate else 1,
            version=record.version,
            cn=name or None,
            cipher=record.cipher,
        )
    return TLVs(
        alpn=record.alpn.encode() if record.alpn else None,
        authority=record.server_name,
        unique_id=f"{record.id:016x}".encode(),
        ssl=ssl,
    )


def _end(family: int, address: Any) -> End:
    if family == socket.AF_UNIX:
        return None
    host = str(address[0]).partition("%")[0]
    return Endpoint(host.removeprefix("::ffff:") if "." in host else host, address[1])
