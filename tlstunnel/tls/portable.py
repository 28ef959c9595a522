"""The portable engine: the same work as `_openssl.Engine`, through pyOpenSSL's public methods alone.

It copies more and allocates for every chunk, so it is used only where the binding is not the one we know, and tested
so that it is there when that day comes. Not available through public methods, and refused where asked for: groups,
choosing an ALPN protocol as a server, and the host's part of verification as OpenSSL does it; the host name is verified
by `cryptography` instead.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from tlstunnel._openssl import (
    MAX_ANSWERS,
    RECORD,
    UNFINISHED_RECORD,
    UNREAD_ANSWERS,
    X509_V_ERR_CERT_REJECTED,
    X509_V_ERR_CRL_HAS_EXPIRED,
    Scratch,
    TLSError,
    probe,
)

X509_V_ERR_HOSTNAME_MISMATCH = 62


def warnings() -> tuple[str, ...]:
    """What to say at start where this engine is used; nothing where it is not."""
    lack = probe()
    if lack is None:
        return ()
    return (f"{lack}: TLS uses public methods of pyOpenSSL only; slower, without the settings groups and alpn",)


class PortableEngine:
    """One TLS session, in memory, on a pyOpenSSL Connection. See `_openssl.Engine` for the meaning of the methods."""

    def __init__(self, context: SSL.Context, scratch: Scratch, *, is_server: bool) -> None:
        self._connection = SSL.Connection(context, None)
        self._scratch = scratch
        self._output = bytearray()
        self.kept = 0
        self._host: str | None = None
        self._judge: Callable[[bytes], bool] | None = None
        self._refused_for = 0
        self._is_server = is_server
        if is_server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
        self.may_answer = True
        self._is_closed = False
        self._unwritten = b""
        self.has_ended = False
        self.failure: TLSError | None = None

    def switch(self, context: SSL.Context) -> None:
        self._connection.set_context(context)

    def expect(
        self, host: str, *, is_ip: bool, send_name: str | None, judge: Callable[[bytes], bool] | None = None
    ) -> None:
        if send_name is not None:
            self._connection.set_tlsext_host_name(send_name.encode("ascii"))
        self._host, self._judge = host, judge
        self._connection.set_app_data(self._verdict)

    def _verdict(self, certificate: Any) -> int:
        """What is against a server's certificate whose chain OpenSSL has verified; 0 for nothing."""
        if self._host is not None and not host_matches(certificate, self._host):
            self._refused_for = X509_V_ERR_HOSTNAME_MISMATCH
        elif self._judge is not None and not self._judge(_to_der(certificate)):
            self._refused_for = X509_V_ERR_CERT_REJECTED
        return self._refused_for

    def handshake(self, received: int) -> bool:
        connection = self._connection
        if received:
            connection.bio_write(bytes(self._scratch.wire[:received]))
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as exc:
            if self._is_end(exc):
                raise EOFError from None
            raise _failure(exc, self._refused_for) from None
        if self._host is not None:
            self._verify_host()
        self.kept = self.output_size()
        return True

    def decrypt(self, received: int) -> int:
        connection, scratch = self._connection, self._scratch
        if received:
            connection.bio_write(bytes(scratch.wire[:received]))
        total = 0
        try:
            while True:
                data = connection.recv(RECORD)
                scratch.plain[total : total + len(data)] = data
                total += len(data)
        except SSL.WantReadError:
            pass
        except SSL.Error as exc:
            self.has_ended = True
            if not self._is_end(exc):
                self.failure = _failure(exc)
        if self._is_closed:
            self._forget_output()
        elif self._output and self.output_size() - len(self._unwritten) > self.kept + MAX_ANSWERS:
            self.has_ended, self.failure = True, TLSError(UNREAD_ANSWERS)
        return total

    def _is_end(self, error: SSL.Error) -> bool:
        if isinstance(error, SSL.ZeroReturnError):
            return True
        has_ended = bool(self._connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        return has_ended and isinstance(error, SSL.SysCallError)

    def _forget_output(self) -> None:
        """Take back what reading has queued for the peer."""
        kept = len(self._output)
        self.output_size()
        del self._output[kept:]

    def is_inside_record(self) -> bool:
        if self.failure is not None:
            return False
        connection = self._connection
        self.output_size()
        connection.bio_write(UNFINISHED_RECORD)
        try:
            connection.recv(RECORD)
        except SSL.WantReadError:
            return False
        except SSL.Error:
            self._forget_output()
        return True

    def send(self, size: int, send: Callable[[Any, int], int]) -> bool:
        self._unwritten = bytes(self._scratch.plain[:size])
        return self.flush(send)

    def flush(self, send: Callable[[Any, int], int]) -> bool:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._connection.send(self._unwritten) :]
        except SSL.WantReadError:
            return False
        except SSL.Error as exc:
            raise _failure(exc) from None
        if self.output_size():
            try:
                sent = send(self._output, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            del self._output[:sent]
            self.kept = len(self._output)
        return not self._output

    def output_size(self) -> int:
        with contextlib.suppress(SSL.WantReadError):
            while True:
                self._output += self._connection.bio_read(65536)
        return len(self._output) + len(self._unwritten)

    def close(self) -> None:
        with contextlib.suppress(SSL.Error):  # a session that failed has nothing more to say
            self._connection.shutdown()
        self.output_size()
        self._is_closed = True

    def slim(self) -> None:
        """Nothing to give back that public methods reach."""

    def free(self) -> None:
        self._output = bytearray()

    def is_tls13(self) -> bool:
        return self.version() == "TLSv1.3"

    def version(self) -> str:
        return self._connection.get_protocol_version_name()

    def cipher(self) -> str:
        return self._connection.get_cipher_name() or ""

    def group(self) -> str:
        return self._connection.get_group_name() or ""

    def is_resumed(self) -> bool:
        """Not to be had through public methods."""
        return False

    def alpn(self) -> str:
        return self._connection.get_alpn_proto_negotiated().decode("ascii", "replace")

    def server_name(self) -> str:
        return (self._connection.get_servername() or b"").decode("ascii", "replace")

    def peer_certificate(self) -> bytes | None:
        certificate = self._connection.get_peer_certificate(as_cryptography=True)
        return None if certificate is None else _to_der(certificate)

    def shown_certificate(self) -> bytes | None:
        chain = self._connection.get_peer_cert_chain(as_cryptography=True)
        return _to_der(chain[0]) if chain else None

    def session(self) -> Any:
        """None to resume: the host name is verified on the server's chain, which a resumed session does not have."""

    def resume(self, session: Any) -> None:
        self._connection.set_session(session)

    def _verify_host(self) -> None:
        """Once more, where memory that is writable and executable is forbidden: nobody was asked in the handshake."""
        chain = self._connection.get_verified_chain(as_cryptography=True)
        verdict = self._verdict(chain[0]) if chain else X509_V_ERR_HOSTNAME_MISMATCH
        if verdict:
            raise TLSError(("certificate verify failed",), verdict)


def ask_sessions(context: SSL.Context, *, forgives_expired_lists: bool) -> None:
    """Client: let the session have its say about a server's certificate, while an alert can still say no.

    pyOpenSSL's callback needs memory that is writable and executable. Where that is forbidden, the session is asked
    when its handshake is over, and an expired list is not forgiven.
    """

    def verify(connection: SSL.Connection, certificate: Any, error: int, depth: int, is_good: int) -> bool:
        if not is_good:
            return forgives_expired_lists and error == X509_V_ERR_CRL_HAS_EXPIRED
        return depth != 0 or connection.get_app_data()(certificate.to_cryptography()) == 0

    try:
        context.set_verify(SSL.VERIFY_PEER, verify)
    except MemoryError:
        context.set_verify(SSL.VERIFY_PEER)


def host_matches(certificate: Any, host: str) -> bool:
    """Whether a verified certificate is for this host: by its alternative names only (RFC 9525 section 6)."""
    import ipaddress  # noqa: PLC0415

    from cryptography import x509  # noqa: PLC0415

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        wanted = host.lower().rstrip(".")
    for name in names.get_values_for_type(x509.DNSName):
        pattern = name.lower().rstrip(".")
        if pattern == wanted:
            return True
        first, _, rest = wanted.partition(".")
        if first and pattern.startswith("*.") and pattern[2:] == rest and "." in rest:
            return True
    return False


def _to_der(certificate: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415

    return certificate.public_bytes(Encoding.DER)  # type: ignore[no-any-return]


def _failure(error: SSL.Error, verdict: int = 0) -> TLSError:
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    if isinstance(error, SSL.SysCallError):
        return TLSError(("unexpected eof while reading",))
    return TLSError(tuple(entry[-1] for entry in entries), verdict)
