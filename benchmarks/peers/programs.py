"""The proxies: how each is configured, started and asked for its version.

Each configuration is the shortest that does the job: one worker, TLS 1.3 with one suite and one group, one listener,
one target, no logging, otherwise what the distribution ships.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import debian13, process
from benchmarks.peers.errors import BenchmarkError

_START_S = 60.0
_LOWEST_PORT, _TRIES = 10_000, 1000
# Two descriptors per connection, and room for the rest: HAProxy refuses to start when this does not fit the limit.
_MAX_CONNECTIONS = 8000


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for every proxy of a run."""

    backend_port: int
    suite: str
    group: str
    work: Path
    """Holds server.pem, server.key and both.pem; made by `certificate`."""
    prefix: tuple[str, ...] = ()
    """Put before every proxy's command line: pins it to its CPU."""


@dataclass(slots=True)
class Running:
    """A proxy that listens."""

    peer: Peer
    process: subprocess.Popen[bytes]
    port: int
    place: Path
    """The directory of its configuration, certificate and log."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        """The end of what it has written so far."""
        return (self.place / "log").read_text(errors="replace").strip()[-1000:]

    def last_line(self) -> str:
        return self.last_words().rpartition("\n")[2]

    def stop(self) -> None:
        process.end(self.process)
        shutil.rmtree(self.place, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy of the comparison, not yet started."""

    name: str
    family: str
    """The word the bars of a row are keyed by."""
    command: Callable[[Setting, Path, int], tuple[list[str], str]]
    """The command line that listens on a port, and the text of `proxy.conf`; both name the files in a directory."""
    version_argv: tuple[str, ...]
    version_pattern: str
    tls: bool = True
    root: Path | None = field(default=None)
    """A chroot it lives in."""
    names_port: bool = False
    """Chooses its own port and says so, as `tlstunnel` does."""

    def version(self) -> str:
        """The version the program gives, or why it does not run here. Raises BenchmarkError."""
        argv = self._inside(self.version_argv)
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except OSError as exc:
            raise BenchmarkError(f"{self.name}: {argv[0]}: {exc.strerror}; install it or leave it out") from exc
        found = re.search(self.version_pattern, done.stdout + done.stderr)
        if found is None:
            raise BenchmarkError(f"{self.name}: does not run here: {(done.stderr or done.stdout).strip()[:200]}")
        return found[1]

    def _inside(self, argv: Sequence[str]) -> list[str]:
        if self.root is not None:
            debian13.ensure(self.root)
            return ["chroot", str(self.root), *argv]
        return list(argv)

    def start(self, setting: Setting, index: int) -> Running:
        """Starts it and waits until it listens. Raises BenchmarkError with its last words when it does not."""
        place = setting.work / f"{self.name}-{index}"
        if self.root is not None:
            # A chroot sees nothing of the work directory: the same files stand inside it for the time of the run.
            place = self.root / "tmp" / f"{setting.work.name}-{place.name}"
        place.mkdir(mode=0o700)
        for name in ("server.pem", "server.key", "both.pem"):
            shutil.copy(setting.work / name, place / name)
        port = 0 if self.names_port else _free_port()
        argv, text = self.command(setting, Path("/") / place.relative_to(self.root) if self.root else place, port)
        (place / "proxy.conf").write_text(text)
        with (place / "log").open("wb") as sink:
            child = subprocess.Popen(
                [*setting.prefix, *self._inside(argv)], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        running = Running(self, child, port, place)
        try:
            self._wait(running, setting)
        except BaseException:
            running.stop()
            raise
        return running

    def _wait(self, running: Running, setting: Setting) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            if running.process.poll() is not None:
                break
            if self.names_port:
                ready = re.search(rf"^ready: .*:(\d+) -> .*:{setting.backend_port}$", running.last_words(), re.M)
                if ready:
                    running.port = int(ready[1])
                    return
            else:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", running.port)) == 0:
                        return
            time.sleep(0.02)
        raise BenchmarkError(f"{self.name}: does not listen: {running.last_line() or 'says nothing'}")


def _free_port() -> int:
    """A port nobody listens on, from below those that the kernel gives to clients: none is given it before the proxy
    listens. Bound without SO_REUSEPORT, so that no leftover can share it with the proxy."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST_PORT, end)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchmarkError(f"no port from {_LOWEST_PORT} to {end} is free")


def _haproxy(setting: Setting, where: Path, port: int, *, tls: bool = True) -> tuple[list[str], str]:
    options = f"ssl crt {where}/both.pem ssl-min-ver TLSv1.3 ciphersuites {setting.suite} curves {setting.group}"
    return ["/usr/sbin/haproxy", "-db", "-f", f"{where}/proxy.conf"], (
        f"global\n  nbthread 1\n  maxconn {_MAX_CONNECTIONS}\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen it\n  bind 127.0.0.1:{port} {options if tls else ''}\n\n"
        f"  server backend 127.0.0.1:{setting.backend_port}\n"
    )


def _haproxy_plain(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
    return _haproxy(setting, where, port, tls=False)


def _nginx(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
    return ["/usr/sbin/nginx", "-c", f"{where}/proxy.conf"], (
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
        f"user root;\ndaemon off;\nworker_processes 1;\npid {where}/pid;\nerror_log stderr warn;\n"
        f"events {{ worker_connections {2 * _MAX_CONNECTIONS}; }}\n"
        f"stream {{ server {{\n  listen 127.0.0.1:{port} ssl;\n  proxy_pass 127.0.0.1:{setting.backend_port};\n"
        f"  proxy_timeout 1h;\n  ssl_certificate {where}/server.pem;\n  ssl_certificate_key {where}/server.key;\n"
        f"  ssl_protocols TLSv1.3;\n  ssl_conf_command Ciphersuites {setting.suite};\n"
        f"  ssl_ecdh_curve {setting.group};\n}} }}\n"
    )


def _hitch(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
    # Hitch refuses to serve as root; what it needs of the files it reads before it changes its user.
    user = 'user = "nobody"\n' if os.geteuid() == 0 else ""
    return ["/usr/sbin/hitch", f"--config={where}/proxy.conf"], (
        f'frontend = "[127.0.0.1]:{port}"\nbackend = "[127.0.0.1]:{setting.backend_port}"\n'
        f'pem-file = "{where}/both.pem"\nworkers = 1\ndaemon = off\ntls-protos = TLSv1.3\n'
        f'ciphersuites = "{setting.suite}"\necdh-curve = "{setting.group}"\nocsp-dir = ""\nquiet = on\n{user}'
    )


def _stunnel(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
    return ["/usr/bin/stunnel", f"{where}/proxy.conf"], (
        "foreground = yes\npid =\ndebug = warning\n"
        f"[it]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{setting.backend_port}\ncert = {where}/server.pem\n"
        f"key = {where}/server.key\nsslVersionMin = TLSv1.3\nciphersuites = {setting.suite}\n"
        f"curves = {setting.group}\nTIMEOUTclose = 0\n"
    )


def tlstunnel(name: str, command: str) -> Peer:
    """Ours, or another checkout of it: `command` is what stands before `server`, further options after a ` -- `."""
    program, _, options = command.partition(" -- ")
    words = shlex.split(program) or [sys.executable, "-m", "tlstunnel"]

    def argv(setting: Setting, where: Path, port: int) -> tuple[list[str], str]:
        fixed = {
            "--listen": f"127.0.0.1:{port}",
            "--target": f"127.0.0.1:{setting.backend_port}",
            "--cert": f"{where}/server.pem",
            "--key": f"{where}/server.key",
            "--workers": "1",
            "--log-level": "warning",
            "--admin": "127.0.0.1:0",
            "--min-version": "1.3",
            "--ciphersuites": setting.suite,
            "--groups": setting.group,
        }
        extra = shlex.split(options)
        chosen = [word for pair in fixed.items() if pair[0] not in extra for word in pair]
        return [*words, "server", *chosen, *extra], ""

    return Peer(name, "ours", argv, (*words, "--version"), r"(\d[\w.+]*)", names_port=True)


def known(root: Path) -> dict[str, Peer]:
    """Every peer by the name `--peers` takes, with Debian 13's in a chroot at `root`."""
    haproxy = (("/usr/sbin/haproxy", "-v"), r"version (\d+\.\d+\.\d+)")
    nginx = (("/usr/sbin/nginx", "-v"), r"nginx/(\d[\d.]*)")
    peers = [
        Peer("haproxy", "haproxy", _haproxy, *haproxy),
        Peer("nginx", "nginx", _nginx, *nginx),
        Peer("haproxy-13", "haproxy-13", _haproxy, *haproxy, root=root),
        Peer("nginx-13", "nginx-13", _nginx, *nginx, root=root),
        Peer("haproxy-plain", "haproxy-plain", _haproxy_plain, *haproxy, tls=False),
        Peer("hitch", "hitch", _hitch, ("/usr/sbin/hitch", "--version"), r"hitch (\d[\d.]*)"),
        Peer("stunnel", "stunnel", _stunnel, ("/usr/bin/stunnel", "-version"), r"stunnel (\d[\d.]*)"),
    ]
    return {peer.name: peer for peer in peers}
