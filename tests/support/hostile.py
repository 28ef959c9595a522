"""Drives our own TLS 1.3 ends over sockets, honest or hostile, and tells what the other end did.

Against a listening tunnel (or anybody else's server), in a test:

    from tests.support import hostile
    from tests.support.tampering import Alter, Drop, flip
    verdict = hostile.attack(("127.0.0.1", port), Alter(HandshakeType.FINISHED, flip(-1)))
    assert verdict.alert == "decrypt_error"

Against a client (a tunnel in client mode dials `trap.port`):

    with hostile.trap(Drop(HandshakeType.CERTIFICATE_VERIFY)) as trap:
        ...make the client connect...
        assert trap.verdict().alert == "unexpected_message"

`Verdict.alert` is the alert the other end sent, by name, or None; `ending` is "alert", "close_notify", "eof" or
"reset"; `completed` says whether the handshake was complete from our side; `data` is the application data that came.
`config=` takes a ClientConfig or ServerConfig, `send=` the data to send after the handshake (`attack` closes its
side once `expect` bytes have come back), `after=` a function that gets the connection after the handshake and may do
worse, `chunk=` cuts what is sent into pieces of so many bytes, each its own send.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import certificates
from tests.support.tampering import Act, Hostile
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.connection import Connection
from tlstunnel.tools.tls13.events import ApplicationData, Closed, Event, HandshakeComplete
from tlstunnel.tools.tls13.failure import PeerAlert, Violation
from tlstunnel.tools.tls13.names import NamedGroup, alert_name
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ServerConfig
from tlstunnel.tools.tls13.signature import Credential

PATIENCE_S = 30  # Only a hang reaches it.
After = Callable[[Connection], None]


@dataclass
class Verdict:
    """What the other end did."""

    alert: str | None = None
    ending: str = ""
    completed: bool = False
    data: bytes = b""
    violation: Violation | None = None
    events: list[Event] = field(default_factory=list)


class Wire:
    """A connection of ours on a socket."""

    def __init__(self, connection: Connection, sock: socket.socket, chunk: int | None = None) -> None:
        self.connection = connection
        self.sock = sock
        self.verdict = Verdict()
        self._chunk = chunk
        sock.settimeout(PATIENCE_S)

    def flush(self) -> None:
        """Send what is queued. A peer that is gone already is not an error: its alert is still to be read."""
        data = self.connection.data_to_send()
        size = self._chunk or len(data) or 1
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(data), size):
                self.sock.sendall(data[start : start + size])

    def pump(self) -> list[Event]:
        """Send, wait for bytes, take them in. Sets `verdict.ending` when there will be no more."""
        self.flush()
        try:
            received = self.sock.recv(1 << 16)
        except ConnectionError:
            self.verdict.ending = "reset"
            return []
        if not received:
            self.verdict.ending = "eof"
            return []
        try:
            events = self.connection.receive(received)
        except PeerAlert as exc:
            self.verdict.ending, self.verdict.alert = "alert", alert_name(exc.alert)
            return []
        except Violation as exc:
            self.verdict.ending, self.verdict.violation = "violation", exc
            self.flush()
            return []
        self.flush()
        for event in events:
            self.verdict.events.append(event)
            if isinstance(event, ApplicationData):
                self.verdict.data += event.data
            elif isinstance(event, HandshakeComplete):
                self.verdict.completed = True
            elif isinstance(event, Closed):
                self.verdict.ending = "close_notify"
        return events

    def pump_until(self, is_done: Callable[[], bool]) -> Verdict:
        """Go on until `is_done`, or until the other end is done with us."""
        while not self.verdict.ending and not is_done():
            self.pump()
        return self.verdict

    def handshake(self) -> Verdict:
        """Until the handshake is complete or refused."""
        return self.pump_until(lambda: self.verdict.completed)


def client_config() -> ClientConfig:
    """An honest client that trusts anybody, without post-quantum groups to stay cheap."""
    return ClientConfig(server_name="localhost", groups=(NamedGroup.X25519, NamedGroup.SECP256R1))


def credential(pair: certificates.Pair) -> Credential:
    """The credential in the files of `tests.support.certificates`."""
    chain = (pair.leaf, *pair.chain)
    return Credential(tuple(each.public_bytes(Encoding.DER) for each in chain), pair.private_key)


def server_config() -> ServerConfig:
    """An honest server for localhost."""
    return ServerConfig(credentials=(credential(certificates.server("localhost", "127.0.0.1")),))


def attack(
    address: tuple[str, int],
    *acts: Act,
    config: ClientConfig | None = None,
    send: bytes = b"ping\n",
    expect: int | None = None,
    after: After | None = None,
    chunk: int | None = None,
    fragment_size: int = 1 << 14,
) -> Verdict:
    """Connect as a client that commits `acts`, and see what happens until the server is done with us."""
    tamper = Hostile(*acts, fragment_size=fragment_size)
    client = Client(config or client_config(), tamper=tamper)
    with socket.create_connection(address, timeout=PATIENCE_S) as sock:
        wire = Wire(client, sock, chunk)
        client.start()
        if not wire.handshake().completed:
            return wire.verdict
        if after is not None:
            after(client)
        elif send:
            client.send(send)
        expected = len(send) if expect is None else expect
        wire.pump_until(lambda: after is None and len(wire.verdict.data) >= expected)
        if not wire.verdict.ending:
            client.close()
            wire.flush()
            wire.pump_until(lambda: False)
    return wire.verdict


class Trap:
    """A listening server that serves one client; see `trap`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._verdicts: queue.Queue[Verdict] = queue.Queue()

    def verdict(self) -> Verdict:
        """What the client did; waits until it is done."""
        return self._verdicts.get(timeout=PATIENCE_S)

    def _serve(self, server: Server, chunk: int | None, after: After | None) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            with sock:
                wire = Wire(server, sock, chunk)
                if wire.handshake().completed and after is not None:
                    after(server)
                echoed = 0
                while not wire.verdict.ending:
                    if after is None and len(wire.verdict.data) > echoed:
                        server.send(wire.verdict.data[echoed:])
                        echoed = len(wire.verdict.data)
                    wire.pump()
                wire.flush()
            self._verdicts.put(wire.verdict)


@contextlib.contextmanager
def trap(
    *acts: Act,
    config: ServerConfig | None = None,
    after: After | None = None,
    chunk: int | None = None,
    fragment_size: int = 1 << 14,
) -> Iterator[Trap]:
    """Listen as a server that commits `acts` on the first client, and else sends back what it receives."""
    tamper = Hostile(*acts, fragment_size=fragment_size)
    server = Server(config or server_config(), tamper=tamper)
    listening = Trap()
    thread = threading.Thread(target=listening._serve, args=(server, chunk, after))
    thread.start()
    try:
        yield listening
    finally:
        with contextlib.suppress(OSError):
            listening._listener.shutdown(socket.SHUT_RDWR)
        listening._listener.close()
        thread.join(PATIENCE_S)
