"""TLS sessions in memory, both ends in this process: what a handshake and a chunk cost each side.

The ends are `_openssl.Engine`s, the ones that the relay uses, and what one wants to send is copied into the other's
receive area. So the numbers contain what a tunnel pays for TLS and nothing of sockets. CPU time is this thread's own
(CLOCK_THREAD_CPUTIME_ID), read between the steps of the two sides; a reading costs 0.2 µs.

The client verifies the server's certificate, which a CA of the same type of key has issued, and its name: that is what
clients do. The wire counts TLS records, tickets included, without TCP and IP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import thread_time
from typing import Any

from tlstunnel._openssl import Engine, Scratch, TLSError
from tlstunnel.config.model import CertificateFiles, TLSSettings
from tlstunnel.errors import TunnelError
from tlstunnel.tls.context import Context, ContextError, client_context, server_context
from tlstunnel.tools.bench.cases import BASE_GROUP, Bulk, Group, Handshake, Key, Suite
from tlstunnel.tools.bench.refusals import UnsupportedError, check_group, groups, refused, unknown
from tlstunnel.tools.pki import authority, issue
from tlstunnel.x509.material import CABundle, Credential, MaterialError, load_ca, load_credential
from tlstunnel.x509.passphrase import PassphraseSource

_BATCH = 256 * 1024
"""Bytes between two readings of the clock: at 1 KiB it would otherwise measure the clock."""
_HOST = "localhost"


@dataclass(slots=True)
class Shaken:
    """What a handshake cost: CPU seconds and bytes sent, by each side."""

    server_s: float
    client_s: float
    server_bytes: int
    client_bytes: int


class Lab:
    """Contexts and areas for all rows; certificates are made in a folder when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._identities: dict[Key, tuple[Credential, CABundle] | str] = {}
        self._contexts: dict[tuple[str, Suite, Key, Group], tuple[Context, Context]] = {}
        self.server_area, self.client_area = Scratch(), Scratch()

    def identity(self, key: Key) -> tuple[Credential, CABundle]:
        """A certificate with this type of key, and the CA that vouches for it.

        Raises:
            UnsupportedError: the library makes no such keys, or no certificates of them.
        """
        if key not in self._identities:
            self._identities[key] = self._make_identity(key)
        found = self._identities[key]
        if isinstance(found, str):
            raise UnsupportedError(found)
        return found

    def _make_identity(self, key: Key) -> tuple[Credential, CABundle] | str:
        folder = self._folder / str(key.kind)
        try:
            ca = authority.create(folder / "ca", kind=key.kind)
            made = issue.server(ca, [_HOST], folder, kind=key.kind)
            files = CertificateFiles(certificate=made.certificate, key=made.key)
            return load_credential(files, PassphraseSource({})), load_ca(made.ca)
        except (TunnelError, MaterialError):
            return f"this library makes no {key.name} keys"

    def contexts(self, version: str, suite: Suite, key: Key, group: Group) -> tuple[Context, Context]:
        """The server's and the client's context.

        Raises:
            UnsupportedError: the library knows no such suite or group, or does not take the key.
        """
        wanted = (version, suite, key, group)
        if wanted not in self._contexts:
            credential, ca = self.identity(key)
            settings = TLSSettings(
                min_version=version,
                max_version=version,
                ciphersuites=suite.name if suite.version == "1.3" else "",
                ciphers=suite.name if suite.version == "1.2" else "",
                groups=groups(version, key, group),
            )
            try:
                made = server_context(settings, [credential]), client_context(settings, ca)
            except ContextError as exc:
                raise UnsupportedError(unknown(exc.key, suite, key, group)) from exc
            self._contexts[wanted] = made
        return self._contexts[wanted]

    def shaker(self, case: Handshake) -> Callable[[], Shaken]:
        """What makes one handshake of this row when called.

        Raises:
            UnsupportedError: the two ends, set up for nothing else, do not agree.
        """
        if case.version == "1.2" and case.key.is_post_quantum:
            raise UnsupportedError("TLS 1.2 has no such signatures")
        if case.version == "1.2" and case.group.is_post_quantum:
            raise UnsupportedError("TLS 1.2 has no such key exchange")
        server, client = self.contexts(case.version, case.suite, case.key, case.group)
        session = None
        with self.pair(server, client) as (server_end, client_end, _):
            check_group(server_end, case)
            if case.is_resumed:
                session = client_end.session()

        def shake() -> Shaken:
            with self.pair(server, client, session) as (_, client_end, shaken):
                if client_end.is_resumed() != case.is_resumed:
                    raise UnsupportedError("the session was not resumed" if case.is_resumed else "it was resumed")
                return shaken

        shake()
        return shake

    @contextlib.contextmanager
    def pair(self, server: Context, client: Context, session: Any = None) -> Iterator[tuple[Engine, Engine, Shaken]]:
        """Two ends that have shaken hands, and what that cost. Making and freeing a session is part of its cost.

        Raises:
            UnsupportedError: they could not.
        """
        shaken = Shaken(0.0, 0.0, 0, 0)
        begun = thread_time()
        client_end = Engine(client.raw, self.client_area, is_server=False)
        client_end.expect(_HOST, is_ip=False, send_name=_HOST)
        if session is not None:
            client_end.resume(session)
        middle = thread_time()
        server_end = Engine(server.raw, self.server_area, is_server=True)
        ended = thread_time()
        shaken.client_s, shaken.server_s = middle - begun, ended - middle
        try:
            try:
                self._shake(server_end, client_end, shaken)
            except TLSError as exc:
                raise UnsupportedError(refused(exc)) from exc
            yield server_end, client_end, shaken
        finally:
            # A session that was not closed properly must not be resumed, and OpenSSL sees to that.
            begun = thread_time()
            client_end.close()
            client_end.free()
            middle = thread_time()
            server_end.close()
            server_end.free()
            shaken.client_s += middle - begun
            shaken.server_s += thread_time() - middle

    def _shake(self, server_end: Engine, client_end: Engine, shaken: Shaken) -> None:
        to_server, to_client = Wire(self.server_area), Wire(self.client_area)
        is_client_done = is_server_done = False
        received = 0
        while not (is_client_done and is_server_done):
            begun = thread_time()
            if not is_client_done:
                is_client_done = client_end.handshake(received)
            client_end.flush(to_server.take)
            middle = thread_time()
            sent = to_server.empty()
            if not is_server_done:
                is_server_done = server_end.handshake(sent)
            server_end.flush(to_client.take)
            ended = thread_time()
            shaken.client_s += middle - begun
            shaken.server_s += ended - middle
            shaken.client_bytes += sent
            shaken.server_bytes += (received := to_client.empty())
            if not (sent or received or (is_client_done and is_server_done)):
                raise UnsupportedError("the handshake does not end")
        # Session tickets come after a handshake of TLS 1.3.
        begun = thread_time()
        if received:
            client_end.decrypt(received)
        shaken.client_s += thread_time() - begun

    def encrypter(self, case: Bulk) -> Callable[[int], tuple[float, int]]:
        """What encrypts at least so many bytes when called: the CPU seconds that took, and the bytes.

        Raises:
            UnsupportedError: see `contexts`.
        """
        send = self.joined(case)[0].send
        size, nowhere = case.size, _nowhere

        def encrypt(total: int) -> tuple[float, int]:
            count = -(-total // size)
            begun = thread_time()
            for _ in range(count):
                send(size, nowhere)
            return thread_time() - begun, count * size

        return encrypt

    def decrypter(self, case: Bulk) -> Callable[[int], tuple[float, int]]:
        """What decrypts at least so many bytes, that were encrypted in writes of the row's size.

        Raises:
            UnsupportedError: see `contexts`.
        """
        server_end, client_end = self.joined(case)
        wire = Wire(self.client_area)
        size = case.size
        writes = max(1, _BATCH // size)

        def decrypt(total: int) -> tuple[float, int]:
            spent, done = 0.0, 0
            while done < total:
                for _ in range(writes):
                    server_end.send(size, wire.take)
                received = wire.empty()
                begun = thread_time()
                count = client_end.decrypt(received)
                spent += thread_time() - begun
                if count != writes * size:
                    raise UnsupportedError(f"{count} of {writes * size} bytes came out")
                done += count
            return spent, done

        return decrypt

    def joined(self, case: Bulk) -> tuple[Engine, Engine]:
        """A server's and a client's end that have shaken hands, and stay as long as the process does.

        Raises:
            UnsupportedError: see `contexts`.
        """
        server, client = self.contexts(case.suite.version, case.suite, case.key, BASE_GROUP)
        ends = (
            Engine(server.raw, self.server_area, is_server=True),
            Engine(client.raw, self.client_area, is_server=False),
        )
        try:
            ends[1].expect(_HOST, is_ip=False, send_name=_HOST)
            self._shake(*ends, Shaken(0.0, 0.0, 0, 0))
        except TLSError as exc:
            for end in ends:
                end.free()
            raise UnsupportedError(refused(exc)) from exc
        return ends


class Wire:
    """From one end's output to the other's receive area."""

    def __init__(self, area: Scratch) -> None:
        self._wire = area.wire
        self.size = 0

    def take(self, data: Any, _flags: int = 0) -> int:
        """What a socket's `send` does, without a socket."""
        end = self.size + len(data)
        self._wire[self.size : end] = data
        self.size = end
        return len(data)

    def empty(self) -> int:
        """How much lies there; it is the receiver's now."""
        size, self.size = self.size, 0
        return size


def _nowhere(data: Any, _flags: int) -> int:
    return len(data)
