"""A process under test: `python -m benchmarks.ladder.subject KIND ...` relays to a backend, as far up as KIND says.

    plain      ends and links on the reactor, no TLS, nothing else
    tls        the same with a TLS server's end towards the client
    trio       the same, the reactor turned by trio through the bridge
    worker     the daemon, with --workers of them

It prints a ready line as the daemon does and runs until it is told to end.
"""

from __future__ import annotations

import argparse
import gc
import math
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ladder.variants import VARIANTS


def _relay_alone(arguments: argparse.Namespace) -> None:
    from tlstunnel.relay.reactor import Reactor

    reactor = Reactor()
    port = _listen(arguments, reactor)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    _say_ready(port, arguments.backend)
    if arguments.kind == "trio":
        import trio

        from tlstunnel.connection.bridge import Bridge

        trio.run(Bridge(reactor, lambda: None).run)
        return
    sweep_at = 0.0
    while True:
        reactor.turn(0.25)
        if time.monotonic() >= sweep_at:
            reactor.sweep()
            sweep_at = time.monotonic() + 0.25


def _listen(arguments: argparse.Namespace, reactor: object) -> int:
    """Accept, shake hands, join: as little as there can be around the relay. Returns the port."""
    from tlstunnel._openssl import Engine, Scratch, TLSError
    from tlstunnel.relay.ends import PlainEnd, TLSEnd
    from tlstunnel.relay.link import Limits, Link
    from tlstunnel.relay.reactor import Reactor

    assert isinstance(reactor, Reactor)
    scratch, cells = Scratch(), [0, 0]
    limits = Limits(idle_s=3600.0, half_close_s=60.0, is_strict=False)
    context = None if arguments.kind == "plain" else _context(arguments)
    target = ("127.0.0.1", arguments.backend)

    class Setup:
        """A connection until it is a link."""

        def __init__(self, sock: socket.SocketType) -> None:
            if context is None:
                self.end = PlainEnd(sock, scratch, reactor.watch_room)
                reactor.watch(self.end.fd, self)
                self.join()
                return
            engine = Engine(context.raw, scratch, is_server=True)
            self.end = TLSEnd(sock, scratch, reactor.watch_room, engine, is_server=True)
            reactor.watch(self.end.fd, self)

        def on_ready(self, fd: int, events: int) -> None:
            end = self.end
            end.note(events)
            try:
                while end.is_readable:
                    size = end.take()
                    if size and end.handshake(size):
                        self.join()
                        return
            except (TLSError, EOFError, OSError):
                reactor.forget(end.fd)
                end.close()

        def on_crash(self, error: Exception) -> None:
            raise error

        def join(self) -> None:
            sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM)
            sock.connect(target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            backend = PlainEnd(sock, scratch, reactor.watch_room)
            reactor.watch(backend.fd, self)
            Link(
                reactor, self.end, backend, limits, scratch=scratch, cells=cells, forward_cell=0, reverse_cell=1,
                ends_at=math.inf, on_finished=lambda *_: None, on_closed=lambda: None,
            ).start()  # fmt: skip

    class Acceptor:
        """Accepts until there is nobody."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener

        def on_ready(self, fd: int, events: int) -> None:
            while True:
                try:
                    fd, _ = self.listener._accept()
                except BlockingIOError:
                    return
                Setup(socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, fd))

        def on_crash(self, error: Exception) -> None:
            raise error

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    listener.setblocking(False)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reactor.watch(listener.fileno(), Acceptor(listener), select.EPOLLIN)
    return listener.getsockname()[1]


def _settings(arguments: argparse.Namespace):
    from tlstunnel.config.model import TLSSettings

    return TLSSettings(min_version="1.3", ciphersuites=arguments.suite, groups=arguments.group)


def _files(arguments: argparse.Namespace):
    from tlstunnel.config.model import CertificateFiles

    return CertificateFiles(certificate=arguments.work / "server.pem", key=arguments.work / "server.key")


def _context(arguments: argparse.Namespace):
    from tlstunnel.tls.context import server_context
    from tlstunnel.x509.material import load_credential
    from tlstunnel.x509.passphrase import PassphraseSource

    credential = load_credential(_files(arguments), PassphraseSource({}))
    return server_context(_settings(arguments), [credential])


def _daemon(arguments: argparse.Namespace) -> int:
    from tlstunnel.address import TCPAddress
    from tlstunnel.config.model import Admin, Config, Log, Mode, Process, Service
    from tlstunnel.daemon.processes.supervisor import run

    loopback = TCPAddress("127.0.0.1", 0)
    service = Service(
        name="server", mode=Mode.SERVER, listen=(loopback,), targets=(TCPAddress("127.0.0.1", arguments.backend),),
        certificate=(_files(arguments),), tls=_settings(arguments),
    )  # fmt: skip
    process, admin, log = Process(workers=arguments.workers), Admin(listen=loopback), Log(level="warning")
    return run(Config(services=(service,), process=process, admin=admin, log=log))


def _say_ready(port: int, backend: int) -> None:
    print(f"ready: {Path(__file__).stem} listening on 127.0.0.1:{port} -> 127.0.0.1:{backend}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until told to end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder.subject")
    parser.add_argument("kind", choices=("plain", "tls", "trio", "worker"))
    parser.add_argument("--backend", type=int, required=True, help="its port on 127.0.0.1")
    parser.add_argument("--work", type=Path, required=True, help="where server.pem and server.key are")
    parser.add_argument("--suite", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--variant", choices=sorted(VARIANTS))
    arguments = parser.parse_args(argv)
    if arguments.variant:
        VARIANTS[arguments.variant]()
    if arguments.kind == "worker":
        return _daemon(arguments)
    _relay_alone(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
