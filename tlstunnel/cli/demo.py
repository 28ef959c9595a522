"""`tlstunnel demo`: a CA, certificates, a plaintext service and the tunnel in front of it, running."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tlstunnel.config.model import Config

app = typer.Typer(add_completion=False)

_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@app.command()
def demo(once: bool = typer.Option(False, "--once", help="End after the round trip that it makes itself.")) -> None:
    """Show it working: makes everything it needs in a temporary folder, and prints a curl line to try.

    Ctrl-C ends it, and the folder goes with it.
    """
    with tempfile.TemporaryDirectory(prefix="tlstunnel-demo-") as folder:
        status = _demo(Path(folder), is_once=once)
    sys.exit(status)


def _demo(folder: Path, *, is_once: bool) -> int:
    from tlstunnel.cli.options import read
    from tlstunnel.config.model import Mode
    from tlstunnel.daemon.processes.supervisor import run
    from tlstunnel.tools.pki import authority, issue
    from tlstunnel.tools.session import embedded

    authority.create(folder / "ca", name="tlstunnel demo CA")
    files = issue.server(folder / "ca", ["localhost", "127.0.0.1", "::1"], folder)
    print(f"made a CA and a certificate for localhost in {folder}")
    sock = loopback_socket()
    target = f"127.0.0.1:{sock.getsockname()[1]}"
    embedded.start(embedded.page, sock)
    sock.close()
    print(f"started a plaintext HTTP service on {target}")
    given = {"listen": ["127.0.0.1:0"], "target": [target], "cert": [str(files.certificate)], "key": [str(files.key)]}
    config = read(Mode.SERVER, {**given, "workers": "1"})
    outcome = _Outcome(is_once)

    def on_ready(bound: dict[str, tuple[str, ...]]) -> None:
        port = bound["server"][0].rpartition(":")[2]
        ca = str(folder / "ca" / "ca.pem")
        print("\ntry it:\n")
        print(f"    curl --cacert {shlex.quote(ca)} https://localhost:{port}/\n", flush=True)
        outcome.pid = _fork_round_trip(f"localhost:{port}", ca, is_once=is_once)

    status = run(config, on_ready=on_ready, on_child_end=outcome.note)
    return status or outcome.status


class _Outcome:
    """How the round trip ended."""

    def __init__(self, is_once: bool) -> None:
        self._is_once = is_once
        self.pid = 0
        self.status = 0

    def note(self, pid: int, status: int) -> None:
        if pid == self.pid and (status > 0 or self._is_once):  # Ctrl-C ends it too, which is no failure of the demo
            self.status = status if status >= 0 else 128 - status


def _fork_round_trip(address: str, ca: str, *, is_once: bool) -> int:
    """Make the round trip in a process of its own: the supervisor speaks to no network."""
    supervisor = os.getpid()
    # What comes for the child waits until the supervisor's handlers are gone: they would note it, and nobody look.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = _round_trip(address, ca)
        if not is_once:
            print("\nevery connection is logged below; Ctrl-C ends the demo", flush=True)
    except Exception:  # noqa: BLE001 - an error of ours, which would end here unseen
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        if is_once:
            os.kill(supervisor, signal.SIGTERM)
        os._exit(status)


def _round_trip(address: str, ca: str) -> int:
    from tlstunnel.cli.options import read
    from tlstunnel.config.model import Mode
    from tlstunnel.tls import inventory
    from tlstunnel.tools.session import session
    from tlstunnel.x509.passphrase import PassphraseSource

    config: Config = read(Mode.CLIENT, {"listen": ["127.0.0.1:0"], "target": [address], "ca": ca})
    material = inventory.take(config, PassphraseSource.of_this_process())

    async def main() -> int:
        opened = await session.open_session(config.services[0], material.contexts[0])
        try:
            await opened.send(_REQUEST)
            answer = b""
            while data := await opened.receive():
                answer += data
        finally:
            opened.close()
        line = answer.partition(b"\r\n")[0].decode("ascii", "replace")
        print(f"a round trip of its own: {line}, {len(answer)} bytes, over {opened.negotiated}", flush=True)
        return 0 if line.startswith("HTTP/1.1 200") and not opened.is_truncated else 1

    try:
        return session.run(main)
    except session.SessionError as exc:
        print(f"tlstunnel: the round trip failed: {exc}", file=sys.stderr)
        return 1


def loopback_socket() -> socket.socket:
    """A listening socket on a free port of 127.0.0.1."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.set_inheritable(False)
    return sock
