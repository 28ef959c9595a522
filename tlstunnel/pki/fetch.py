"""The certificates a TLS server sends, whatever they are worth.

Nothing is verified here: the point is to look at a chain that may be expired, incomplete or for another name. One
deadline covers resolving, connecting and the handshake, and what a server may send is bounded.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
import warnings
from typing import Any, cast

from tlstunnel.errors import StartupError

TIMEOUT_S = 10.0
MAX_HANDSHAKE_BYTES = 1 << 20
"""Chains are a few KiB; the protocol's own limit for one Certificate message is 16 MiB."""

_CHUNK = 16 << 10


def fetch_chain(host: str, port: int, *, server_name: str | None = None, timeout_s: float = TIMEOUT_S) -> list[bytes]:
    """The certificates the server sends, in DER, its own first.

    Args:
        server_name: Asked for (SNI) instead of `host`.

    Raises:
        StartupError: the server cannot be reached, stays silent, speaks no TLS, or sends no certificate.
    """
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    deadline = time.monotonic() + timeout_s
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = _context().wrap_bio(incoming, outgoing, server_hostname=server_name or host)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            _handshake(session, incoming, outgoing, connection, deadline)
    except ssl.SSLError as exc:
        # A server that insists on a client certificate fails the handshake after it has sent its own.
        chain = _chain_of(session)
        if not chain:
            raise StartupError(f"{where}: no TLS handshake: {_tls_reason(exc)}") from exc
        return chain
    except TimeoutError as exc:
        raise StartupError(f"{where}: no answer within {timeout_s:g}s; check host and port") from exc
    except socket.gaierror as exc:
        raise StartupError(f"{where}: the name has no address; check its spelling") from exc
    except OSError as exc:
        reason = (exc.strerror or str(exc) or "connection lost").lower()
        raise StartupError(f"{where}: {reason}; check host and port") from exc
    chain = _chain_of(session)
    if not chain:
        raise StartupError(f"{where}: the server sent no certificate; it may use pre-shared keys alone")
    return chain


def _handshake(
    session: ssl.SSLObject,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    connection: socket.socket,
    deadline: float,
) -> None:
    received = 0
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            return
        left = deadline - time.monotonic()
        if left <= 0 or received > MAX_HANDSHAKE_BYTES:
            raise TimeoutError
        connection.settimeout(left)
        connection.sendall(outgoing.read())
        data = connection.recv(_CHUNK)
        received += len(data)
        if data:
            incoming.write(data)
        else:
            incoming.write_eof()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old versions are what we may have to look at
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def _chain_of(session: ssl.SSLObject) -> list[bytes]:
    # The chain is public from Python 3.13 on; before, the same method exists one layer below.
    if sys.version_info >= (3, 13):
        return list(session.get_unverified_chain() or ())
    inner = cast(Any, session)._sslobj
    return [found.public_bytes(_DER) for found in inner.get_unverified_chain() or ()]


_DER = 2  # _ssl.ENCODING_DER


def _tls_reason(exc: ssl.SSLError) -> str:
    reason = (exc.reason or "").lower().replace("_", " ")
    if reason in ("wrong version number", "http request", "packet length too long", "record layer failure"):
        return "the server does not speak TLS here; check the port"
    if isinstance(exc, ssl.SSLEOFError) or "unexpected eof" in reason:
        return "the server hung up; check the port, and whether it needs another --server-name"
    return f"{reason or 'the server refused'}; check the port, and whether it needs another --server-name"
