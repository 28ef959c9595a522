"""Ports for programs that cannot choose one themselves."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

_CHANCE = random.Random()
_LOWEST = 10_000


def free_port() -> int:
    """A port nobody listens on, from below those that the kernel gives to whoever asks for port 0: no client and no
    server of another test is given it by chance."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _CHANCE.randrange(_LOWEST, end)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
