"""Small plaintext services that come with tlstunnel: an echo, and the page that `demo` puts behind its tunnel.

Each runs in a process of its own, forked before the supervisor starts, and ends when the supervisor does: it holds the
read end of a pipe whose write end the supervisor keeps until it is gone, however that comes about.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial

import h11
import trio

_ECHO_CHUNK = 256 * 1024
_PAGE = b"Hello through tlstunnel. This page left its service in plaintext and reached you in TLS.\n"
_REQUEST_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGUSR2)


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, to its end."""
    try:
        while data := await stream.receive_some(_ECHO_CHUNK):
            await stream.send_all(data)
        await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return  # the client went away, as clients do


async def page(stream: trio.SocketStream) -> None:
    """Answer one HTTP request."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=8192)
    try:
        with trio.fail_after(_REQUEST_S):
            await _answer(connection, stream)
    except (trio.BrokenResourceError, trio.TooSlowError, h11.RemoteProtocolError):
        return


async def _answer(connection: h11.Connection, stream: trio.SocketStream) -> None:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(4096))
        elif isinstance(event, h11.Request):
            is_head = event.method == b"HEAD"
        elif isinstance(event, h11.EndOfMessage):
            break
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return
    headers = [("content-type", "text/plain"), ("content-length", str(len(_PAGE))), ("connection", "close")]
    data = connection.send(h11.Response(status_code=200, headers=headers, reason=b"OK")) or b""
    if not is_head:
        data += connection.send(h11.Data(data=_PAGE)) or b""
    await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))


def start(service: Callable[[trio.SocketStream], Awaitable[object]], sock: socket.socket) -> tuple[int, int]:
    """Fork a process that serves on a listening socket.

    Returns:
        Its pid, and the descriptor that keeps it alive: when the last copy of that is closed, it ends.
    """
    alive, keep = os.pipe()
    # A KeyboardInterrupt in the middle of fork() would be swallowed by what the interpreter does there: it has to wait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = os.fork()
    if pid:
        os.close(alive)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return pid, keep
    status = 1
    try:
        os.close(keep)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C is the supervisor's to act on
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        trio.run(_serve, service, sock, alive)
        status = 0
    finally:
        os._exit(status)


async def _serve(service: Callable[[trio.SocketStream], Awaitable[object]], sock: socket.socket, alive: int) -> None:
    sock.setblocking(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, service, [listener]))
        await trio.lowlevel.wait_readable(alive)
        nursery.cancel_scope.cancel()
