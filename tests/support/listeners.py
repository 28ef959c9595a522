"""Listening sockets as the supervisor opens them, for small configurations."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.model import Admin, Config, Mode, Service
from tlstunnel.daemon.listen.sockets import Listeners, open_listeners
from tlstunnel.errors import StartupError

Opener = Callable[..., Listeners]


def config(*listen: str, admin: str | None = None, unix_mode: int = 0o660, **services: str) -> Config:
    """Services by name, each with one address; `listen` are the addresses of a service called web."""
    wanted = {**({"web": listen} if listen else {}), **{name: (text,) for name, text in services.items()}}
    return Config(
        services=tuple(
            Service(
                name=name,
                mode=Mode.SERVER,
                listen=tuple(parse_listen(text) for text in texts),
                unix_mode=unix_mode,
                targets=(parse_target("127.0.0.1:1"),),
            )
            for name, texts in wanted.items()
        ),
        admin=Admin(listen=parse_listen(admin) if admin else None),
    )


@contextlib.contextmanager
def opener() -> Iterator[Opener]:
    """`open_listeners`, with everything closed at the end of the block."""
    all_: list[Listeners] = []

    def open_(*args: object, **kwargs: object) -> Listeners:
        all_.append(open_listeners(*args, **kwargs))  # type: ignore[arg-type]
        return all_[-1]

    yield open_
    for listeners in all_:
        listeners.close()


def refusal(*args: object, **kwargs: object) -> str:
    with pytest.raises(StartupError) as caught:
        open_listeners(*args, **kwargs)  # type: ignore[arg-type]
    return str(caught.value)


def port_of(listeners: Listeners, service: str = "web") -> int:
    return int(listeners.services[service][0].bound.rpartition(":")[2])


def accepts(sockets: tuple[socket.socket, ...]) -> int:
    """How many connections wait on these sockets; they are accepted and closed."""
    count = 0
    while ready := select.select(sockets, [], [], 0)[0]:
        for sock in ready:
            sock.accept()[0].close()
            count += 1
    return count


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def program(body: str) -> str:
    """Run a program that may fork, apart from this process and its threads; what it prints."""
    head = "import os, select, socket, sys\nfrom tests.support.listeners import *\n"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", head + textwrap.dedent(body)],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
