"""One TLS session of our own, for the commands that talk to a server themselves: connect, and the demo's round trip.

The same dialing, engine and ends as the relay, driven by two trio tasks instead of the reactor: there is one session,
and its other side is standard input and output, which may be files, pipes or a terminal.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from tlstunnel._openssl import CHUNK, Engine, Scratch, TLSError
from tlstunnel.address import Target, TCPAddress
from tlstunnel.clock import PatientClock
from tlstunnel.config.model import Service
from tlstunnel.connection.dial import Dialer, dial_error
from tlstunnel.connection.refusal import RefusedError
from tlstunnel.connection.verdict import mismatch
from tlstunnel.errors import TunnelError, words_of
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.ends import TLSEnd
from tlstunnel.tls import remedies
from tlstunnel.tls.reasons import classify
from tlstunnel.tls.store import ServiceContexts


class SessionError(TunnelError):
    """The session could not be made, or broke: exit code 1, one line."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on."""

    version: str
    cipher: str
    group: str
    alpn: str
    is_resumed: bool

    def __str__(self) -> str:
        alpn = f", ALPN {self.alpn}" if self.alpn else ""
        resumed = ", resumed" if self.is_resumed else ""
        return f"{self.version}, {self.cipher}, {self.group or 'no key exchange'}{alpn}{resumed}"


class Session:
    """A TLS session with a server; `open_session` makes it."""

    def __init__(self, end: TLSEnd, scratch: Scratch, target: Target) -> None:
        self._end, self._scratch, self._target = end, scratch, target
        engine = end.engine
        self.negotiated = Negotiated(
            engine.version(), engine.cipher(), engine.group(), engine.alpn(), engine.is_resumed()
        )

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            SessionError: the server is gone.
        """
        try:
            for start in range(0, len(data), CHUNK):
                chunk = data[start : start + CHUNK]
                self._scratch.plain[: len(chunk)] = chunk
                self._end.send(len(chunk))
                await self._flushed()
        except (OSError, TLSError) as exc:
            raise SessionError(_broken(self._target, exc)) from None

    async def send_eof(self) -> None:
        """Half-close: nothing more will be sent, the server may go on."""
        try:
            self._end.shut()
            await self._flushed()
        except OSError:
            return  # the server has left already, so it needs no telling

    async def receive(self) -> bytes:
        """What has come; empty at the end.

        Raises:
            SessionError: the session broke.
        """
        end = self._end
        try:
            while not end.at_eof:
                size = end.buffered() or end.receive(CHUNK)
                if size:
                    return bytes(self._scratch.plain[:size])
                if end.at_eof:
                    break
                await trio.lowlevel.wait_readable(end.sock)
        except OSError as exc:
            raise SessionError(_broken(self._target, exc)) from None
        if end.failure is not None:
            raise SessionError(_broken(self._target, end.failure))
        return b""

    @property
    def is_truncated(self) -> bool:
        """Whether the connection ended without close_notify, so that something may be missing."""
        return self._end.is_truncated

    def close(self) -> None:
        """Say goodbye, as far as that needs no waiting, and release everything."""
        if not self._end.is_shut and not self._end.has_pending:
            with contextlib.suppress(OSError):
                self._end.shut()
        self._end.close()

    async def _flushed(self) -> None:
        while self._end.has_pending:
            await trio.lowlevel.wait_writable(self._end.sock)
            self._end.flush()


async def open_session(service: Service, contexts: ServiceContexts) -> Session:
    """Dial the service's target, shake hands, verify.

    Args:
        service: in client mode; its first target is dialed.

    Raises:
        SessionError: with one line that says where it failed and why.
    """
    target = service.targets[0]
    target_tls, context = service.target_tls, contexts.target
    assert target_tls is not None and context is not None  # noqa: S101, PT018 - a service in client mode has both
    sock = await _dial(Dialer(target, keepalive=service.keepalive), service.timeouts.connect_s)
    scratch = Scratch()
    engine = Engine(context.raw, scratch, is_server=False)
    end = TLSEnd(sock, scratch, _wait_ourselves, engine, is_server=False)
    name = target_tls.server_name or (target.host if isinstance(target, TCPAddress) else "localhost")
    is_ip = TCPAddress(name, 1).is_literal
    engine.expect(name, is_ip=is_ip, send_name=None if is_ip else name.rstrip("."))
    try:
        with trio.fail_after(service.timeouts.handshake_s):
            end.begin()
            while not ((size := end.take()) and end.handshake(size)):
                await trio.lowlevel.wait_readable(sock)
    except trio.TooSlowError:
        end.close()
        limit = f"{service.timeouts.handshake_s:g}s"
        raise SessionError(_failed(target, CloseReason.HANDSHAKE_TIMEOUT, limit=limit)) from None
    except EOFError:
        end.close()
        raise SessionError(_failed(target, CloseReason.HANDSHAKE_EOF)) from None
    except TLSError as exc:
        shown = end.engine.shown_certificate()
        end.close()
        reason, detail = classify(exc.reasons, exc.verify_code, remedies.OPTIONS)
        if reason is CloseReason.NAME_MISMATCH:
            detail = mismatch(shown, name)
        raise SessionError(_failed(target, reason, detail)) from None
    except OSError as exc:
        end.close()
        words = "" if isinstance(exc, ConnectionError) else words_of(exc)
        raise SessionError(_failed(target, CloseReason.HANDSHAKE_RESET, words)) from None
    return Session(end, scratch, target)


async def _dial(dialer: Dialer, timeout_s: float) -> socket.SocketType:
    try:
        begun = dialer.begin()
        if begun is None:
            try:
                return await dialer.slowly(timeout_s)()
            except OSError as exc:
                raise dial_error(dialer.target, exc) from None
        sock, is_connected = begun
        try:
            with trio.move_on_after(min(timeout_s, 1e9)):
                while not is_connected:
                    await trio.lowlevel.wait_writable(sock)
                    is_connected = dialer.check(sock)
                return sock
        except RefusedError:
            sock.close()
            raise
        sock.close()
    except RefusedError as exc:
        raise SessionError(
            remedies.joined(exc.refusal.detail, remedies.of_dial(exc.refusal.reason, remedies.OPTIONS))
        ) from None
    remedy = remedies.of_dial(CloseReason.BACKEND_CONNECT_TIMEOUT, remedies.OPTIONS)
    raise SessionError(f"{dialer.target}: not accepted in time; {remedy}")


def _wait_ourselves(_fd: int) -> None:
    """trio waits for room where the reactor would."""


def _failed(target: Target, reason: CloseReason, detail: str = "", *, limit: str = "") -> str:
    """A handshake's failure: where, what, and what would be right. `limit` is its time limit, where that was it."""
    if reason is CloseReason.PEER_ALERT:
        return f"{target}: the server refused with the alert {detail}"
    text = reason.text.replace("handshake_timeout", limit)
    what = f"{text}, {detail}" if detail else text
    return f"{target}: handshake failed: {remedies.joined(what, remedies.of_server(reason, remedies.OPTIONS, detail))}"


def _broken(target: Target, error: Exception) -> str:
    """The end of a session that had begun. In TLS 1.3 a server judges our certificate only then."""
    if isinstance(error, TLSError):
        reason, detail = classify(error.reasons, error.verify_code, remedies.OPTIONS)
        if reason is CloseReason.PEER_ALERT:
            return _failed(target, reason, detail)
        return f"{target}: the session broke: {error}; look at the server's log"
    words = words_of(error) if isinstance(error, OSError) else error
    return f"{target}: the server went away: {words}; look at its log"


async def converse(session: Session, read_fd: int, write_fd: int) -> None:
    """Standard input to the server, the server to standard output, until the server is done.

    EOF of the input half-closes; what still comes is written out.

    **Cancellation**: leaves at once; a read of the terminal that is under way is abandoned.

    Raises:
        SessionError: the session broke.
    """
    async with trio.open_nursery() as nursery:

        async def upload() -> None:
            while True:
                data = await trio.to_thread.run_sync(os.read, read_fd, 65536, abandon_on_cancel=True)
                if not data:
                    await session.send_eof()
                    return
                await session.send(data)

        nursery.start_soon(upload)
        while data := await session.receive():
            await _write_all(write_fd, data)
        nursery.cancel_scope.cancel()


async def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = await trio.to_thread.run_sync(os.write, fd, view[:65536])
        view = view[written:]


def run(main: Callable[[], Awaitable[int]]) -> int:
    """Run a command's async part; a single error comes out of trio's groups as itself.

    Not with `except*`: before Python 3.11.4 what its block raises is put into a group again.

    Raises:
        SessionError: what `main` raised.
        OSError: what one of our own streams said; what the network says is a SessionError.
    """
    try:
        return trio.run(main, clock=PatientClock())
    except BaseExceptionGroup as group:
        expected, other = group.split((SessionError, OSError))
        if expected is None or other is not None:
            raise
        raise _first(expected.subgroup(SessionError) or expected) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
