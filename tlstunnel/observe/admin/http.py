"""A small HTTP/1.1 server: GET and HEAD, bounded in every direction.

h11 parses and writes the protocol; this module gives it bytes and deadlines. What a client can cost us is bounded:

    connections        `MAX_CONNECTIONS`; for one more, the one that has been idle longest is closed, else the new one
    request head       `MAX_HEAD` bytes, complete within `REQUEST_S` of its first byte
    request body       none is taken; a request that announces one is answered before it is sent
    idle keep-alive    `IDLE_S`
    a response         taken by the client within `SEND_S`

After an error the connection ends. Input that was not read would turn our close into a reset and destroy the answer
(RFC 9112 section 9.6), so the write side is shut first and input is drained for up to `LINGER_S`.
"""

from __future__ import annotations

import email.utils
import gzip
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import trio

MAX_CONNECTIONS = 64
MAX_HEAD = 16 * 1024
REQUEST_S = 10.0
IDLE_S = 75.0
SEND_S = 10.0
LINGER_S = 1.0
_CHUNK = 16 * 1024
_GZIP_FROM = 1024
_GZIP_LEVEL = 4  # two thirds of the time of level 6 for a page of metrics, at nearly the same size

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read whole."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case; of repeated ones the values are joined by commas."""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@dataclass(slots=True, eq=False)
class _Client:
    """One connection to the endpoint."""

    stream: Stream
    transport: trio.SocketStream
    """The same stream, or what lies under its TLS."""
    protocol: h11.Connection = field(
        default_factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    )
    idle: trio.CancelScope | None = None
    """While it is between two requests: what ends it there."""
    idle_since: float = 0.0
    """When the last request was answered, on trio's clock."""


Handler = Callable[[Request, trio.SocketStream], Awaitable[Response]]


def text_response(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A line for people."""
    return Response(status, (text + "\n").encode(), headers=headers)


def json_response(status: int, document: Any) -> Response:
    """A document for machines, indented so that people can read it too."""
    return Response(status, json.dumps(document, indent=2).encode() + b"\n", "application/json")


class _RefusedError(Exception):
    """The request cannot be served, whatever it asks for."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.status)


async def serve(
    listeners: Sequence[trio.SocketListener],
    handler: Handler,
    *,
    tls: ssl.SSLContext | None = None,
    leaving: trio.Event | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, or until told to leave.

    Args:
        listeners: bound and listening.
        handler: answers a request; may raise nothing but `trio.Cancelled`.
        tls: served over TLS with this context; the handshake is part of the first request's time.
        leaving: when it is set, accepting ends, and requests under way have LINGER_S to be answered.
        task_status: reports that accepting has begun.
    """
    clients: set[_Client] = set()

    async def on_connection(transport: trio.SocketStream) -> None:
        if len(clients) >= MAX_CONNECTIONS and not _end_the_most_idle(clients):
            transport.socket.close()
            return
        stream: Stream = transport
        if tls is not None:
            stream = trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        client = _Client(stream, transport)
        clients.add(client)
        try:
            await _converse(client, handler)
            if isinstance(stream, trio.SSLStream):
                with trio.move_on_after(LINGER_S):
                    await stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.LocalProtocolError):
            pass  # The client left, or an answer no longer fits what it asked: nobody is there to be told.
        finally:
            clients.discard(client)
            transport.socket.close()

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as accepting:
            if leaving is not None:
                nursery.start_soon(_on_event, leaving, accepting.cancel)
            await trio.serve_listeners(on_connection, list(listeners), handler_nursery=nursery, task_status=task_status)
        nursery.cancel_scope.deadline = trio.current_time() + LINGER_S
        for client in clients:
            if client.idle is not None:
                client.idle.cancel()


def _end_the_most_idle(clients: set[_Client]) -> bool:
    """Make room for one more. A kept connection is a convenience, which must not keep out who has something to ask."""
    idle = [client for client in clients if client.idle is not None]
    if not idle:
        return False
    longest = min(idle, key=lambda client: client.idle_since)
    clients.discard(longest)  # now, since its task ends only when it runs again
    if longest.idle is not None:
        longest.idle.cancel()
    return True


async def _on_event(event: trio.Event, action: Callable[[], None]) -> None:
    await event.wait()
    action()


async def _converse(client: _Client, handler: Handler) -> None:
    wait_s = REQUEST_S
    while True:
        try:
            request = await _read_request(client, wait_s)
        except _RefusedError as refused:
            await _respond(client, refused.response, is_head=False, wants_gzip=False, last=True)
            await _linger(client)
            return
        if request is None:
            return
        response = await handler(request, client.transport)
        wants_gzip = _accepts_gzip(request.headers.get("accept-encoding", ""))
        if not await _respond(client, response, is_head=request.method == "HEAD", wants_gzip=wants_gzip, last=False):
            return
        if client.protocol.our_state is h11.MUST_CLOSE:
            await _linger(client)
            return
        client.protocol.start_next_cycle()
        wait_s = IDLE_S


async def _read_request(client: _Client, wait_s: float) -> Request | None:
    """The next request; None when the client has finished or stays silent.

    Raises:
        _RefusedError: it cannot be served.
    """
    head: h11.Request | None = None
    has_begun = bool(client.protocol.trailing_data[0])
    with trio.move_on_after(REQUEST_S if has_begun else wait_s) as deadline:
        client.idle, client.idle_since = deadline if wait_s == IDLE_S and not has_begun else None, trio.current_time()
        while True:
            try:
                event = client.protocol.next_event()
            except h11.RemoteProtocolError as exc:
                raise _RefusedError(text_response(exc.error_status_hint, _sentence(str(exc)))) from exc
            if event is h11.NEED_DATA:
                data = await client.stream.receive_some(_CHUNK)
                if data and not has_begun:
                    has_begun, client.idle = True, None
                    deadline.deadline = trio.current_time() + REQUEST_S
                if not data and head is None and not client.protocol.trailing_data[0]:
                    return None
                client.protocol.receive_data(bytes(data))
            elif isinstance(event, h11.Request):
                head = event
                _check_method(head)
                _check_body(head)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head)
            else:
                return None  # ConnectionClosed, or PAUSED after a request we have answered with close.
    if has_begun:
        raise _RefusedError(text_response(408, f"no complete request within {REQUEST_S:.0f} seconds"))
    return None


def _check_method(head: h11.Request) -> None:
    method = head.method.decode("ascii")
    if method not in ("GET", "HEAD"):
        text = f"{method} changes nothing here; use GET or HEAD"
        raise _RefusedError(text_response(405, text, ("Allow", "GET, HEAD")))


def _check_body(head: h11.Request) -> None:
    """Refuse a body by its announcement: who sends `Expect: 100-continue` waits for a word before the body comes
    (RFC 9110 section 10.1.1), and what two announcements mean is a guess that must not be made (RFC 9112 section 6.1).
    """
    announced = {name: value for name, value in head.headers if name in (b"content-length", b"transfer-encoding")}
    if len(announced) > 1:
        raise _RefusedError(text_response(400, "Content-Length and Transfer-Encoding contradict each other"))
    if announced.get(b"content-length", b"").lstrip(b"0") or b"transfer-encoding" in announced:
        raise _RefusedError(text_response(413, "no request here has a body"))


def _request(head: h11.Request) -> Request:
    headers: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    try:
        target = urlsplit(head.target.decode("ascii"))
        query = dict(parse_qsl(target.query, keep_blank_values=True, max_num_fields=20))
    except ValueError as exc:
        raise _RefusedError(text_response(400, "the request's target cannot be understood")) from exc
    return Request(head.method.decode("ascii"), unquote(target.path), query, headers)


async def _respond(client: _Client, response: Response, *, is_head: bool, wants_gzip: bool, last: bool) -> bool:
    """Send a response. Returns whether the client took it in time."""
    if client.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return False
    body, encoding = response.body, None
    if len(body) >= _GZIP_FROM and wants_gzip:
        body, encoding = gzip.compress(body, _GZIP_LEVEL, mtime=0), "gzip"
    headers = [
        ("Date", email.utils.formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept, Accept-Encoding"),
        ("X-Content-Type-Options", "nosniff"),
        *response.headers,
    ]
    if encoding:
        headers.append(("Content-Encoding", encoding))
    if last:
        headers.append(("Connection", "close"))
    head = h11.Response(status_code=response.status, headers=headers, reason=_REASONS.get(response.status, b""))
    data = client.protocol.send(head) or b""
    if not is_head:
        data += client.protocol.send(h11.Data(data=body)) or b""
    data += client.protocol.send(h11.EndOfMessage()) or b""
    with trio.move_on_after(SEND_S) as deadline:
        await client.stream.send_all(data)
    return not deadline.cancelled_caught


async def _linger(client: _Client) -> None:
    with trio.move_on_after(LINGER_S):
        await client.transport.send_eof()
        while await client.transport.receive_some(_CHUNK):
            pass


def _accepts_gzip(header: str) -> bool:
    for part in header.split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() == "gzip":
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _sentence(text: str) -> str:
    """An error text of h11 without anything the client sent in it beyond printable ASCII, and not too long."""
    return "".join(each for each in text if " " <= each <= "~")[:200]
