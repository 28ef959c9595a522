"""A folder with a configuration and its certificates, as an operator keeps them, and the daemon that runs it.

    site = Site(tmp_path, backend.port)
    with site.run() as daemon:
        site.install(certificates.server("localhost", key_type="RSA 2048"))     # replaces web.pem and web.key
        reload(daemon)                                                          # SIGHUP, and wait until it is done
        site.write(idle_timeout='"2h"'); reload(daemon)
        site.metrics()["tlstunnel_workers"]

`Site.write` makes `tunnel.toml`: one service `web` unless more are given; keys are TOML as text. Nothing here waits by
sleeping: a reload is over when the daemon says so, and `until` asks the admin endpoint again and again.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import certificates
from tests.support.tunnel import PATIENCE_S, Tunnel


class Site:
    """The folder."""

    def __init__(self, folder: Path, backend: int, **options: str) -> None:
        self.folder = folder
        self.backend = backend
        self.config = folder / "tunnel.toml"
        self._options = options
        self.install(certificates.server("localhost", "127.0.0.1"))
        self.write()

    def install(self, pair: certificates.Pair, name: str = "web") -> None:
        """Put a certificate and its key in place, each file atomically, key first."""
        self.put(f"{name}.key", pair.key.read_bytes(), 0o600)
        self.put(f"{name}.pem", pair.certificate.read_bytes())

    def put(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        """Replace a file atomically."""
        path = self.folder / name
        fresh = self.folder / f".{name}.new"
        fresh.write_bytes(content)
        fresh.chmod(mode)
        fresh.rename(path)
        return path

    def write(self, services: dict[str, dict[str, str]] | None = None, **options: str) -> None:
        """Write the configuration.

        Args:
            services: keys by service, besides the usual ones; `web` alone when left out.
            options: keys of the service web, or of [process], [log] and [admin] with the section before them, as in
                `process_workers`. They stay until they are given again; an empty text leaves a key out.
        """
        self._options |= options
        sections: dict[str, dict[str, str]] = {
            "process": {"workers": "2", "reload_poll": '"never"'},
            "admin": {"listen": f'"unix:{self.folder}/admin.sock"'},
            "log": {"format": '"json"'},
        }
        web: dict[str, str] = {}
        for key, value in self._options.items():
            section, _, name = key.partition("_")
            sections.get(section, web)[name if section in sections else key] = value
        text = "".join(_table(name, keys) for name, keys in sections.items())
        for name, keys in (services if services is not None else {"web": {}}).items():
            text += _table(f"services.{name}", self._service() | (web if name == "web" else {}) | keys)
        self.put("tunnel.toml", text.encode())

    def _service(self) -> dict[str, str]:
        return {
            "mode": '"server"',
            "listen": '"127.0.0.1:0"',
            "target": f'"127.0.0.1:{self.backend}"',
            "certificate": '"web.pem"',
            "key": '"web.key"',
        }

    @contextmanager
    def run(
        self,
        *,
        env: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
        exit_code: int | None = 0,
        is_clean: bool = True,
    ) -> Iterator[Tunnel]:
        """`tlstunnel run` with it, until the block is left.

        Args:
            prefix: words that start it, as in `setpriv --nnp`.
            exit_code: how it has to end when told to stop at the end of the block; None if it has ended by then.
            is_clean: demand that it never logs an error of its own, such as the death of a worker.
        """
        command = [*prefix, sys.executable, "-m", "tlstunnel", "run", str(self.config)]
        daemon = Tunnel(command, env, clean=is_clean)
        try:
            daemon.wait_ready()
            yield daemon
            if exit_code is not None:
                daemon.stop(exit_code)
        finally:
            daemon.kill()

    # What the daemon shows.

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of a path of the admin endpoint."""
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(PATIENCE_S)
            connection.sock.connect(f"{self.folder}/admin.sock")
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """The document of /status."""
        status, body = self.ask("/status")
        assert status == 200, (status, body)
        found: dict[str, Any] = json.loads(body)
        return found

    def metrics(self) -> dict[str, float]:
        """The metrics: sums over all labels under the name alone, and each series under its full name."""
        found: dict[str, float] = {}
        for line in self.ask("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                name = series.partition("{")[0]
                found[series] = float(value)
                if series != name:
                    found[name] = found.get(name, 0.0) + float(value)
        return found

    def until(self, holds: Callable[[dict[str, float]], Any], what: str) -> dict[str, float]:
        """Ask for metrics until something holds of them; those."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                metrics = self.metrics()
            except (OSError, http.client.HTTPException):
                metrics = {}  # the admin process is being replaced
            if metrics and holds(metrics):
                return metrics
            if time.monotonic() > deadline:
                few = {name: value for name, value in metrics.items() if value and "{" not in name}
                raise AssertionError(f"it does not come to {what}: {few}")

    def rows_by_port(self) -> dict[int, int]:
        """The client's port of each open connection, and the row of its worker, which tells workers apart."""
        found = json.loads(self.ask("/connections?limit=200")[1])["connections"]
        return {int(each["client"].rpartition(":")[2]): each["worker"] for each in found}

    def workers(self) -> list[int]:
        """The pids of the workers that serve, in no order."""
        return [each["pid"] for each in self.status()["workers"] if not each["draining"]]


def reloads(daemon: Tunnel) -> list[str]:
    """What the daemon said about the ends of reloads, good and bad, in order."""
    return [
        message["message"]
        for message in list(daemon.messages)
        if message["event"] == "reload" and re.match(r"reloaded |reload failed", message["message"])
    ]


def reload(daemon: Tunnel) -> str:
    """SIGHUP, and wait until its outcome is said; that, the first line of it."""
    before = len(reloads(daemon))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda: len(reloads(daemon)) > before, "the end of a reload")
    return reloads(daemon)[before]


def kill_and_wait(daemon: Tunnel, pid: int) -> str:
    """SIGKILL one of its workers, and return when the daemon has said so; what it said."""
    before = len(daemon.messages)
    os.kill(pid, signal.SIGKILL)
    said = daemon.until(
        lambda: [m for m in daemon.messages[before:] if m.get("pid") == pid and m["event"] == "worker"],
        f"a word about the death of {pid}",
    )
    return str(said[0]["message"])


def _table(name: str, keys: dict[str, str]) -> str:
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items() if value) + "\n"
