"""The admin endpoint cuts off who stalls, drips, idles or is one too many: on a clock that jumps."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
import trio
import trio.testing

from tlstunnel.observe.admin import http as admin_http
from tlstunnel.observe.admin.http import Request, Response, serve, text_response

# Deadlines, on a clock that jumps.


async def one_line(request: Request, stream: trio.SocketStream) -> Response:
    return text_response(200, "x" * 100)


def converse(client_steps: Any, rate: float = 100.0) -> None:
    """Runs a client against the server inside one trio loop, where a second takes a hundredth of one."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))], one_line)
            await client_steps(port)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(rate=rate))


async def read_all(stream: trio.SocketStream) -> bytes:
    answer = b""
    while part := await stream.receive_some(65536):
        answer += part
    return answer


@pytest.mark.parametrize("beginning", [b"", b"GET /livez HT"])
def test_a_client_that_stalls_is_cut_off(beginning: bytes) -> None:
    async def steps(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            if beginning:
                await stream.send_all(beginning)
            started = trio.current_time()
            answer = await read_all(stream)
            assert trio.current_time() - started >= admin_http.REQUEST_S - 1
            assert answer.startswith(b"HTTP/1.1 408 ") if beginning else answer == b""

    converse(steps)


def test_a_client_that_drips_bytes_does_not_live_longer() -> None:
    async def steps(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            started = trio.current_time()
            with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):  # noqa: PT012
                while trio.current_time() < started + 10 * admin_http.REQUEST_S:
                    await stream.send_all(b"G")
                    await trio.sleep(0.5)
                raise AssertionError("still there")

    converse(steps)


def test_an_idle_connection_is_closed_after_its_time() -> None:
    async def steps(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            started = trio.current_time()
            answer = await read_all(stream)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert trio.current_time() - started >= admin_http.IDLE_S - 1

    converse(steps, rate=20.0)  # the request has its own limit, which a busy machine must not reach


def test_more_connections_than_allowed_are_closed_and_the_others_served() -> None:
    async def steps(port: int) -> None:
        async with contextlib.AsyncExitStack() as opened:

            async def connect() -> trio.SocketStream:
                return await opened.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))

            # One after the other is enough: a connection is counted when it is accepted, before it says anything.
            streams = [await connect() for _ in range(admin_http.MAX_CONNECTIONS)]
            extra = await connect()
            with contextlib.suppress(trio.BrokenResourceError):
                assert await extra.receive_some(1) == b""
            await streams[-1].send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await streams[-1].receive_some(65536)).startswith(b"HTTP/1.1 200")

    converse(steps, rate=1.0)  # nobody's time to speak runs out while the others connect


def test_the_connection_that_was_idle_longest_makes_room_for_a_new_one() -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def steps(port: int) -> None:
        async with contextlib.AsyncExitStack() as opened:

            async def ask_and_stay() -> trio.SocketStream:
                stream = await opened.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
                await stream.send_all(request)
                assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200")
                return stream

            streams = [await ask_and_stay() for _ in range(admin_http.MAX_CONNECTIONS)]
            for number in range(3):
                await ask_and_stay()
                assert await streams[number].receive_some(1) == b""
            await streams[3].send_all(request)
            assert (await streams[3].receive_some(65536)).startswith(b"HTTP/1.1 200")

    converse(steps, rate=1.0)  # nobody is to be idle for too long


@pytest.mark.parametrize(
    ("announced", "status"),
    [
        (b"Content-Length: 5\r\nExpect: 100-continue", 413),
        (b"Content-Length: 5", 413),
        (b"Transfer-Encoding: chunked\r\nExpect: 100-continue", 413),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
    ],
)
def test_a_request_that_announces_a_body_is_answered_before_it_comes(announced: bytes, status: int) -> None:
    async def steps(port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + announced + b"\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += await stream.receive_some(65536)
            assert answer.startswith(b"HTTP/1.1 %d " % status)
            assert b"connection: close" in answer.lower()
            await stream.send_eof()
            await read_all(stream)

    converse(steps)
