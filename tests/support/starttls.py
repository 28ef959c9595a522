"""A negotiation between real sockets, with the TLS of Python's ssl: to try the dialogues on software of others.

    with starttls.server_mode("imap", backend_port) as port: ...
    with starttls.client_mode("imap", server_port) as port: ...

What it does is what whoever uses a negotiation has to do, and no more: read either side, feed, send, shake hands.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Callable, Iterator

from tests.support import backends, certificates
from tlstunnel.connection.starttls.modes import CLIENT, SERVER
from tlstunnel.connection.starttls.negotiation import Negotiation, Step, Verdict

_CHUNK = 1 << 14


class _Side:
    """A socket, with TLS from some time on."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._session: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    def send(self, data: bytes) -> None:
        if self._session is not None and data:
            self._session.write(data)
            data = self._outgoing.read()
        if data:
            self.sock.sendall(data)

    def receive(self) -> bytes | None:
        """What has come; nothing where it was no data, None at the end."""
        data = self.sock.recv(_CHUNK)
        if self._session is None or not data:
            return data or None
        self._incoming.write(data)
        return self.decrypt()

    def decrypt(self) -> bytes | None:
        """As `receive`, of what is here: a client may say something in one piece with the end of its handshake."""
        said = b""
        assert self._session is not None
        try:
            while piece := self._session.read(_CHUNK):
                said += piece
        except ssl.SSLWantReadError:
            return said
        except ssl.SSLZeroReturnError:
            pass
        return said or None

    def start_tls(self, context: ssl.SSLContext, begun: bytes, name: str | None) -> None:
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=name is None, server_hostname=name)
        self._incoming.write(begun)
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                data = self.sock.recv(_CHUNK)
                if not data:
                    raise ConnectionError("the peer left during the handshake") from None
                self._incoming.write(data)
            except ssl.SSLError:
                self.sock.sendall(self._outgoing.read())
                raise
            else:
                self.sock.sendall(self._outgoing.read())
                return


def _tunnel(make: Callable[[], Negotiation], context: ssl.SSLContext, port: int, steps: list[Step]) -> backends.Handler:
    def serve(sock: socket.socket) -> None:
        negotiation = make()
        with socket.create_connection(("127.0.0.1", port), timeout=backends.PATIENCE_S) as other:
            client, backend = _Side(sock), _Side(other)

            def act(step: Step) -> bool:
                if step.reason is not None or step.verdict is not Verdict.GO_ON:
                    steps.append(step)
                backend.send(step.to_backend)
                client.send(step.to_client)
                if step.verdict is Verdict.START_TLS:
                    side, name = (client, None) if negotiation.tls_with_client else (backend, "localhost")
                    side.start_tls(context, step.tls, name)
                    feed = negotiation.from_client if side is client else negotiation.from_backend
                    goes_on, data = act(negotiation.secured()), side.decrypt()
                    return goes_on and data is not None and act(feed(data))
                return step.verdict is not Verdict.REFUSED

            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_READ, (client, negotiation.from_client))
                selector.register(other, selectors.EVENT_READ, (backend, negotiation.from_backend))
                goes_on = act(negotiation.start())
                while goes_on:
                    for key, _ in selector.select():
                        side, feed = key.data
                        data = side.receive()
                        if data is None or not act(feed(data)):
                            goes_on = False
                            break

    return serve


@contextlib.contextmanager
def server_mode(
    protocol: str, port: int, *, required: bool = True, alpn: str | None = None, steps: list[Step] | None = None
) -> Iterator[int]:
    """A listener that answers for a backend on this port; `steps` gets what was decided."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server("localhost", "127.0.0.1").combined)
    if alpn:
        context.set_alpn_protocols([alpn])
    handler = _tunnel(lambda: SERVER[protocol](required), context, port, [] if steps is None else steps)
    with backends.serve(handler) as listener:
        yield listener.port


@contextlib.contextmanager
def client_mode(protocol: str, port: int, *, steps: list[Step] | None = None) -> Iterator[int]:
    """A listener that asks the server on this port for TLS."""
    context = ssl.create_default_context(cafile=str(certificates.ca().certificate))
    handler = _tunnel(CLIENT[protocol], context, port, [] if steps is None else steps)
    with backends.serve(handler) as listener:
        yield listener.port
