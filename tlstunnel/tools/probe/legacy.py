"""Whole handshakes with the standard library's `ssl`: resumption before TLS 1.3, and groups that `tls13` cannot do.

Nothing is verified, and everything that the OpenSSL beneath still has is allowed: what is found here is judged later.
Contexts are made by `Contexts`, once and in one thread, because asking for old versions raises warnings that can only
be silenced for the whole process.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from tlstunnel.tools.probe.http import HTTP, head_request
from tlstunnel.tools.probe.route import Line, Route
from tlstunnel.tools.probe.trouble import HungUp, Silent

_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_DER = 2  # _ssl.ENCODING_DER
_FAREWELL_S = 1.0
_LEGACY_SERVER_CONNECT = 0x4  # ssl.OP_LEGACY_SERVER_CONNECT, public from Python 3.12 on: servers without RFC 5746


class Contexts:
    """The contexts for a probe: with tickets, without them, for any version, and for HTTP."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.with_tickets = _context(ssl.TLSVersion.TLSv1_2)
            self.with_ids = _context(ssl.TLSVersion.TLSv1_2)
            self.with_ids.options |= ssl.OP_NO_TICKET
            self.any_version = _context(ssl.TLSVersion.MAXIMUM_SUPPORTED)
            self.with_http = _context(ssl.TLSVersion.MAXIMUM_SUPPORTED)
            self.with_http.set_alpn_protocols([HTTP])


@dataclass(slots=True, kw_only=True)
class LegacyHandshake:
    """What came of a handshake. Times are in seconds."""

    is_complete: bool = False
    is_resumed: bool = False
    session: ssl.SSLSession | None = None
    version: int = 0
    chain: tuple[bytes, ...] = ()
    problem: str | None = None
    tcp_s: float | None = None
    starttls_s: float | None = None
    hello_s: float | None = None
    handshake_s: float | None = None
    first_byte_s: float | None = None


def handshake(
    route: Route,
    context: ssl.SSLContext,
    server_name: str,
    session: ssl.SSLSession | None = None,
    *,
    host: str | None = None,
) -> LegacyHandshake:
    """Do a handshake, then close.

    Args:
        host: Time the answer to a request for this host, if HTTP is agreed on.

    Raises:
        Unreachable, OutOfTime: the server is out of reach.
    """
    found = LegacyHandshake()
    with route.open() as line:
        found.tcp_s, found.starttls_s = line.connected_s, line.starttls_s
        pump = _Pump(line, context, server_name, session)
        start = time.monotonic()
        try:
            pump.until_done(pump.tls.do_handshake)
            found.is_complete = True
            found.handshake_s = time.monotonic() - start
            if host is not None and pump.tls.selected_alpn_protocol() == HTTP:
                found.first_byte_s = _time_first_byte(pump, host)
            # A session that ends without a goodbye is forgotten by the server.
            line.shorten(_FAREWELL_S)
            pump.until_done(pump.tls.unwrap)
        except (HungUp, Silent) as exc:
            found.problem = str(exc)
        except ssl.SSLError as exc:
            found.problem = (exc.reason or "refused").lower().replace("_", " ")
        if line.first_byte_at is not None:
            found.hello_s = line.first_byte_at - start
    tls = pump.tls
    found.chain, found.version = _chain_of(tls), _VERSIONS.get(tls.version() or "", 0)
    found.is_resumed = bool(found.is_complete and tls.session_reused)
    found.session = tls.session if found.is_complete else None
    return found


class _Pump:
    """Carries bytes between a session and a connection while the session wants some."""

    def __init__(self, line: Line, context: ssl.SSLContext, server_name: str, session: ssl.SSLSession | None) -> None:
        self._line = line
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name or None, session=session
        )

    def until_done(self, step: Callable[[], object]) -> object:
        """What the step returns, once it has all it wants."""
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._line.receive()
                self._incoming.write(data) if data else self._incoming.write_eof()
            except ssl.SSLError:
                with contextlib.suppress(HungUp, Silent):
                    self._flush()
                raise
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._line.send(self._outgoing.read())


def _time_first_byte(pump: _Pump, host: str) -> float | None:
    start = time.monotonic()
    pump.until_done(lambda: pump.tls.write(head_request(host)))
    return time.monotonic() - start if pump.until_done(lambda: pump.tls.read(1 << 14)) else None


def _context(maximum: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = maximum
    context.options |= _LEGACY_SERVER_CONNECT
    context.set_ciphers("ALL:eNULL:@SECLEVEL=0")
    return context


def _chain_of(tls: ssl.SSLObject) -> tuple[bytes, ...]:
    # The chain is public from Python 3.13 on; before, the same method exists one layer below.
    if sys.version_info >= (3, 13):
        return tuple(tls.get_unverified_chain() or ())
    inner = cast(Any, tls)._sslobj
    return tuple(found.public_bytes(_DER) for found in inner.get_unverified_chain() or ())
