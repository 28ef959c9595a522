"""Carries our client's bytes to a real server and back, and says in one line what kept it from going well."""

from __future__ import annotations

import contextlib
import socket
import time

from tlstunnel.address import Target, UnixAddress
from tlstunnel.errors import words_of
from tlstunnel.tools.probe.route import Address, connect, look_up, silence
from tlstunnel.tools.probe.trouble import Unreachable
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.events import Closed, HandshakeComplete
from tlstunnel.tools.tls13.failure import PeerAlert, Violation
from tlstunnel.tools.tls13.names import AlertDescription
from tlstunnel.tools.tls13.narrate import TaggedNote
from tlstunnel.tools.tls13.notes import Role

_CHUNK = 1 << 14
_FAREWELL_S = 2.0
"""How long to wait for tickets and close_notify after our own; some servers just stay open."""
_MAX_HANDSHAKE_BYTES = 1 << 20
_RECORD_BEGINNINGS = (b"\x14\x03", b"\x15\x03", b"\x16\x03", b"\x17\x03")


def talk(
    address: Target, config: ClientConfig, connect_s: float | None, handshake_s: float | None
) -> tuple[list[TaggedNote], Client, str | None]:
    """Handshake, then close_notify; tickets that come meanwhile are taken.

    Returns:
        The client's notes, the client, and what went wrong: one line without the address, or None.
    """
    notes: list[TaggedNote] = []
    client = Client(config, witness=lambda note: notes.append((Role.CLIENT, note)))
    try:
        connection = _connect(address, connect_s)
    except TimeoutError:
        return notes, client, f"no answer within {connect_s:g}s; check host and port"
    except Unreachable as exc:
        return notes, client, str(exc)
    except OSError as exc:
        return notes, client, f"{_reason(exc)}; check host and port"
    with connection:
        client.start()
        failure = _Conversation(client, connection).run(handshake_s)
    return notes, client, failure


def _connect(address: Target, timeout_s: float | None) -> socket.socket:
    """A connection within `timeout_s`, the look-up of the name and every address of it together.

    Raises:
        TimeoutError: time was over.
        Unreachable: the name has no address, or none in time.
        OSError: the last address refused.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    addresses: list[Address]
    if isinstance(address, UnixAddress):
        addresses = [(socket.AF_UNIX, address.path)]
    else:
        addresses = look_up(address, timeout_s)
    problem: OSError = TimeoutError()
    for family, where in addresses:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline))
            connect(connection, where)
        except OSError as exc:
            connection.close()
            problem = exc
        else:
            return connection
    raise problem


class _Conversation:
    def __init__(self, client: Client, connection: socket.socket) -> None:
        self._client = client
        self._connection = connection
        self._received = 0
        self._first = b""
        self._is_complete = False

    def run(self, handshake_s: float | None) -> str | None:
        """What went wrong, or None."""
        deadline = None if handshake_s is None else time.monotonic() + handshake_s
        try:
            while not self._is_complete:
                self._set_timeout(deadline)
                problem = self._step()
                if problem is not None:
                    return problem
        except TimeoutError:
            if not self._received:
                return silence(handshake_s or 0.0)
            return f"the handshake was not complete within {handshake_s:g}s; the server stopped answering"
        except OSError as exc:
            return f"{_reason(exc)} during the handshake; check that this port speaks TLS"
        return self._say_goodbye()

    def _say_goodbye(self) -> str | None:
        """A refusal may still come: a client's certificate is judged after the client is done (section 4.4.2.4)."""
        self._client.close()
        deadline = time.monotonic() + _FAREWELL_S
        with contextlib.suppress(OSError):
            self._flush()
            while True:
                self._set_timeout(deadline)
                data = self._connection.recv(_CHUNK)
                self._received += len(data)
                if not data or self._received > 2 * _MAX_HANDSHAKE_BYTES:
                    return None
                try:
                    if Closed() in self._client.receive(data):
                        return None
                except (PeerAlert, Violation) as exc:
                    self._flush()
                    return _sentence(exc)
        return None

    def _step(self) -> str | None:
        self._flush()
        data = self._connection.recv(_CHUNK)
        if not data:
            when = "in the middle of the handshake" if self._received else "without an answer to our ClientHello"
            return f"the server closed the connection {when}; it may speak no TLS 1.3, or need another server name"
        self._received += len(data)
        self._first = (self._first + data)[:64]
        if self._received > _MAX_HANDSHAKE_BYTES:
            return f"the server sent over {_MAX_HANDSHAKE_BYTES >> 20} MiB without finishing the handshake; gave up"
        try:
            events = self._client.receive(data)
        except (PeerAlert, Violation) as exc:
            with contextlib.suppress(OSError):
                self._flush()
            if not self._first.startswith(_RECORD_BEGINNINGS):
                return f"speaks no TLS: it begins with {_shown(self._first)}; give a port that does"
            return _sentence(exc)
        self._flush()
        self._is_complete = HandshakeComplete() in events
        return None

    def _flush(self) -> None:
        self._connection.sendall(self._client.data_to_send())

    def _set_timeout(self, deadline: float | None) -> None:
        self._connection.settimeout(_left(deadline))


def _left(deadline: float | None) -> float | None:
    """Seconds until then; None without a deadline. Raises TimeoutError if there are none."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _sentence(exc: PeerAlert | Violation) -> str:
    if exc.alert == AlertDescription.PROTOCOL_VERSION:
        return "offers no TLS 1.3; tlstunnel probe shows what it does offer"
    hints = {
        AlertDescription.HANDSHAKE_FAILURE: "; it may share no group, suite or signature with us",
        AlertDescription.CERTIFICATE_REQUIRED: "; give --cert and --key",
        AlertDescription.UNRECOGNIZED_NAME: "; give the right --server-name",
    }
    known = hints.get(AlertDescription(exc.alert), "") if exc.alert in list(AlertDescription) else ""
    return f"{exc}{known}"


def _shown(data: bytes) -> str:
    """The first line a stranger sent, unable to steer a terminal."""
    line = data.split(b"\r\n")[0].split(b"\n")[0][:40]
    text = "".join(chr(each) if 32 <= each < 127 else f"\\x{each:02x}" for each in line)
    return f'"{text}"'


def _reason(exc: OSError) -> str:
    return words_of(exc)
