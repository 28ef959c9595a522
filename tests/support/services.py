"""A daemon with many small services, one for each case of a test, and openssl(1) as their client.

with services.run(tmp_path, target, {"cn": 'allow = [{ cn = "billing" }]'}, common=COMMON) as daemon:
    said = services.ask(daemon.at("cn"), authority, pair)     # openssl s_client, until the tunnel closes
    said.text, said.alert
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.support import backends, tunnel
from tests.support.interop import require

GREETING = "the backend speaks first"
PATIENCE_S = 60


class Files(Protocol):
    """A certificate and its key."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...


class Services:
    """A running daemon, with the port of each of its services."""

    def __init__(self, daemon: tunnel.Tunnel, config: Path) -> None:
        self.daemon = daemon
        self.config = config

    def at(self, service: str) -> int:
        """The port of a service."""
        return next(listen.port for listen in self.daemon.listens if listen.service == service)

    def record(self) -> dict[str, Any]:
        """The next connection record."""
        return self.daemon.record()


def write(path: Path, target: str | int, cases: Mapping[str, str], common: str, rest: str = "") -> None:
    """A configuration with a service for each case: its own lines after the common ones, tables last."""
    address = f"127.0.0.1:{target}" if isinstance(target, int) else target
    text = f'[process]\nworkers = 1\n[log]\nformat = "json"\n{rest}\n'
    for name, lines in cases.items():
        own = {line.partition("=")[0].strip() for line in lines.partition("[[sni]]")[0].splitlines()}
        defaults = ['mode = "server"', 'listen = "127.0.0.1:0"', f'target = "{address}"', *common.splitlines()]
        kept = [line for line in defaults if line.partition("=")[0].strip() not in own]
        text += "\n".join([f"[services.{name}]", *kept, lines.replace("[[sni]]", f"[[services.{name}.sni]]"), ""])
    path.write_text(text)


@contextmanager
def run(
    folder: Path, target: str | int, cases: Mapping[str, str], common: str = "", rest: str = "", **how: Any
) -> Iterator[Services]:
    """Run it until the block is left."""
    config = folder / "tunnel.toml"
    write(config, target, cases, common, rest)
    with tunnel.run(config, **how) as daemon:
        yield Services(daemon, config)


def greet(sock: Any) -> None:
    """A backend that speaks before it is asked, so that one byte too many would show."""
    sock.sendall(f"{GREETING}\n".encode())
    backends.half_close(sock)
    backends.read_all(sock)


def say(text: str) -> backends.Handler:
    """A backend that says who it is."""

    def handler(sock: Any) -> None:
        sock.sendall(f"{text}\n".encode())
        backends.half_close(sock)
        backends.read_all(sock)

    return handler


@dataclass(frozen=True)
class Said:
    """What `openssl s_client` had to say."""

    text: str
    status: int

    @property
    def alert(self) -> int | None:
        """The number of the fatal alert it got (RFC 8446 section 6)."""
        found = re.findall(r"SSL alert number (\d+)", self.text)
        return int(found[0]) if found else None

    def field(self, pattern: str) -> str | None:
        """The first thing the pattern finds at the beginning of a line."""
        found = re.search(pattern, self.text, re.MULTILINE)
        return found[1] if found else None


def ask(
    port: int, ca: Path, *options: str, pair: Files | None = None, name: str | None = "localhost", waits: bool = True
) -> Said:
    """Connect with `openssl s_client`, and read until the tunnel closes unless told not to wait for that."""
    command = [
        require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(ca),
        *(["-noservername"] if name is None else ["-servername", name]), *(["-ign_eof"] if waits else []),
        *(["-cert", str(pair.certificate), "-key", str(pair.key)] if pair is not None else []), *options,
    ]  # fmt: skip
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        errors="backslashreplace", timeout=PATIENCE_S,
    )  # fmt: skip
    # Names are written as OpenSSL 3.2 and newer have them.
    return Said(re.sub(r"\b([A-Z]{1,2}) = ", r"\1=", done.stdout), done.returncode)
