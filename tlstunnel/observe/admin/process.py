"""The admin process. The supervisor forks it, it drops to the workers' user, and then `run_admin` is its life."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from collections.abc import Sequence

import trio

from tlstunnel.clock import PatientClock
from tlstunnel.observe.admin.http import serve
from tlstunnel.observe.admin.routes import AdminSources, Routes

_PARENT_CHECK_S = 1.0
_BACKLOG = 64
_LOG_ENDING_S = 1.0
"""How long it waits for the log's reader at its end: it logs nothing but errors of ours, and has little time to end."""
# A terminal sends SIGINT to the whole process group, and the endpoint shall answer while the others drain.
_NOT_OURS = (signal.SIGINT, signal.SIGHUP)


def run_admin(sources: AdminSources, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
    """Serve the admin endpoint until SIGTERM, or until the supervisor is gone. SIGINT and SIGHUP are the supervisor's.

    After SIGTERM nothing more is accepted, and requests under way are answered: another process has the endpoint now.

    Args:
        sources: what there is to show.
        sockets: bound; owned by the supervisor, which closes and unlinks them.
        tls: from `tls_context`; None for plain HTTP.
    """
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    sources.log.begin_in_child()
    trio.run(_run, sources, sockets, tls, clock=PatientClock())
    sources.log.finish(_LOG_ENDING_S)


async def _run(sources: AdminSources, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
    listeners = []
    for each in sockets:
        each.listen(_BACKLOG)
        each.setblocking(False)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(each)))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as signals:
        async with trio.open_nursery() as nursery:
            leaving = trio.Event()
            nursery.start_soon(_tick, sources, nursery.cancel_scope)
            nursery.start_soon(_serve, listeners, sources, tls, leaving, nursery.cancel_scope)
            async for number in signals:
                if number == signal.SIGTERM:
                    leaving.set()
                elif number == signal.SIGUSR1:
                    sources.log.reopen()


async def _serve(
    listeners: Sequence[trio.SocketListener],
    sources: AdminSources,
    tls: ssl.SSLContext | None,
    leaving: trio.Event,
    everything: trio.CancelScope,
) -> None:
    await serve(listeners, Routes(sources), tls=tls, leaving=leaving)
    everything.cancel()


async def _tick(sources: AdminSources, everything: trio.CancelScope) -> None:
    while os.getppid() == sources.supervisor_pid:
        sources.log.tick()
        sources.state.beat()
        await trio.sleep(_PARENT_CHECK_S)
    everything.cancel()
