"""The plan of the admin process, and its life.

Theory of operation. The process answers any client that reaches it, so its memory must never have held a service's key.
The first one is forked before the first key is read, and waits; a later one begins anew with an interpreter of its own.
In both cases all it has comes over a socket: a plan, and descriptors. It reads the key of its own endpoint itself, if
there is one, and then drops its privileges.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
from dataclasses import dataclass

from tlstunnel.config.model import Admin
from tlstunnel.config.model import Log as LogSettings
from tlstunnel.daemon.processes.children import end_with_parent
from tlstunnel.daemon.processes.launch import set_name
from tlstunnel.daemon.processes.worker import EXIT_BOOT
from tlstunnel.daemon.system import privileges
from tlstunnel.daemon.system.privileges import Identity
from tlstunnel.errors import TunnelError
from tlstunnel.observe.admin.process import run_admin
from tlstunnel.observe.admin.routes import AdminSources
from tlstunnel.observe.admin.tls import tls_context
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.log import open_log
from tlstunnel.observe.series import Series
from tlstunnel.observe.state import StateBlob

_AT_ONCE = 200
"""Descriptors in a message; the kernel takes 253 (SCM_MAX_FD)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPlan:
    """What an admin process is to show, and where. The descriptors that go with it: counters, state, its listening
    sockets, then its ends of the listing channels."""

    admin: Admin
    log: LogSettings
    series: Series
    rows: int
    sockets: int
    channels: tuple[int, ...]
    """Rows of the counters whose channels these are."""
    identity: Identity | None
    supervisor_pid: int


def send_plan(channel: socket.socket, plan: AdminPlan, fds: list[int]) -> None:
    """Tell an admin process what it is to do.

    Raises:
        OSError: it is gone.
    """
    file = os.memfd_create("plan", os.MFD_CLOEXEC)
    try:
        with os.fdopen(file, "wb", closefd=False) as writer:
            pickle.dump(plan, writer)
        everything = [file, *fds]
        for start in range(0, len(everything), _AT_ONCE):
            some = everything[start : start + _AT_ONCE]
            is_last = start + _AT_ONCE >= len(everything)
            socket.send_fds(channel, [b"." if is_last else b"+"], some, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        os.close(file)


def live(channel: socket.socket) -> int:
    """The life of an admin process, from its plan to its end; the exit status."""
    fds: list[int] = []
    more = b"+"
    while more == b"+":
        more, some, _, _ = socket.recv_fds(channel, 1, _AT_ONCE)
        fds += some
    channel.close()
    if not more:
        return 0  # the supervisor has ended before there was anything to do
    for fd in fds:
        os.set_inheritable(fd, False)
    with os.fdopen(fds[0], "rb") as file:
        file.seek(0)
        plan = pickle.load(file)  # noqa: S301 - from the supervisor
    assert isinstance(plan, AdminPlan)  # noqa: S101
    counters, state, *ends = fds[1:]
    sources = AdminSources(
        counters=Counters(plan.series.layout, plan.rows, counters),
        series=plan.series,
        state=StateBlob(state),
        channels={row: socket.socket(fileno=fd) for row, fd in zip(plan.channels, ends[plan.sockets :], strict=True)},
        log=open_log(plan.log),
        supervisor_pid=plan.supervisor_pid,
    )
    tls = tls_context(plan.admin)
    privileges.prepare(plan.identity)
    privileges.become(plan.identity)
    end_with_parent(plan.supervisor_pid)
    run_admin(sources, [socket.socket(fileno=fd) for fd in ends[: plan.sockets]], tls)
    return 0


def main() -> None:
    """Begin with an interpreter of its own; the first word names the descriptor of the channel."""
    set_name()
    try:
        status = live(socket.socket(fileno=int(sys.argv[1])))
    except TunnelError as exc:
        sys.stderr.write(f"tlstunnel: {exc}\n")
        status = EXIT_BOOT
    sys.exit(status)
