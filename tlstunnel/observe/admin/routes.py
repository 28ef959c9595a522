"""What each path of the admin endpoint answers."""

from __future__ import annotations

import ipaddress
import os
import socket
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from tlstunnel.address import TCPAddress
from tlstunnel.observe.admin.channels import Channels
from tlstunnel.observe.admin.http import Request, Response, json_response, text_response
from tlstunnel.observe.admin.page import page
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.listing import DEFAULT_LIMIT, MAX_LIMIT, SORTS, ListingRequest
from tlstunnel.observe.log import Log
from tlstunnel.observe.metrics import TunnelCollector, exposition
from tlstunnel.observe.series import Series
from tlstunnel.observe.state import StateBlob, TunnelState
from tlstunnel.observe.status import status_document

PATHS = {
    "/": "this page, for a browser",
    "/metrics": "for Prometheus",
    "/livez": "200 while tlstunnel runs",
    "/readyz": "200 while it accepts connections, 503 before, while draining, and while no worker answers",
    "/status": "services, workers, certificates, the last reload: JSON",
    "/connections": "open connections: JSON; ?limit= ?after= ?service= ?sort=id|bytes|age",
}


@dataclass(frozen=True, slots=True)
class AdminSources:
    """What the admin process reads from. Everything here was made by the supervisor before it forked."""

    counters: Counters
    series: Series
    state: StateBlob
    channels: dict[int, socket.socket]
    """The admin's ends of the workers' listing channels, by row of the counters."""
    log: Log
    supervisor_pid: int
    """Our parent; once it is not any more, nothing is alive."""


class Routes:
    """Answers requests. One for the process.

    Args:
        sources: where everything comes from.
    """

    def __init__(self, sources: AdminSources) -> None:
        self._sources = sources
        self._collector = TunnelCollector(sources.counters, sources.series, sources.state)
        self._channels = Channels(sources.channels)
        self._handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
            "/connections": self._connections,
        }

    async def __call__(self, request: Request, stream: trio.SocketStream) -> Response:
        handler = self._handlers.get(request.path)
        if handler is None:
            return text_response(404, f"nothing is here; there are {', '.join(PATHS)}")
        if not is_host_plausible(request.headers.get("host"), stream.socket.getsockname()):
            return text_response(421, "this endpoint is on loopback; ask for it as localhost, 127.0.0.1 or [::1]")
        try:
            return await handler(request)
        except Exception:  # noqa: BLE001 - the one place where our own bugs end; the answer and the log say so
            self._sources.log.message(
                "error",
                "crash",
                "admin: an error of ours, please report this",
                traceback=traceback.format_exc(),
            )
            return text_response(500, "an error of ours; the log has it, please report it")

    async def _metrics(self, request: Request) -> Response:
        body, content_type = exposition(self._collector, request.headers.get("accept", ""))
        return Response(200, body, content_type)

    async def _livez(self, request: Request) -> Response:
        if os.getppid() == self._sources.supervisor_pid:
            return text_response(200, "alive")
        return text_response(503, "the supervisor is gone")

    async def _readyz(self, request: Request) -> Response:
        state = self._sources.state.read()
        if state is not None and state.is_ready:
            return text_response(200, "ready")
        if state is not None and state.phase == "ready":
            return text_response(503, "no worker answers")
        return text_response(503, state.phase if state is not None else "starting")

    async def _status(self, request: Request) -> Response:
        document = self._document()
        return json_response(200, document) if document else text_response(503, "starting")

    async def _page(self, request: Request) -> Response:
        document = self._document()
        if document is None:
            return text_response(503, "starting")
        security = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"
        headers = (("Content-Security-Policy", security), ("Referrer-Policy", "no-referrer"))
        return Response(200, page(document).encode(), "text/html; charset=utf-8", headers)

    async def _connections(self, request: Request) -> Response:
        try:
            wanted = listing_request(request.query)
        except ValueError as exc:
            return text_response(400, str(exc))
        return json_response(200, await self._channels.query(wanted, self._workers()))

    def _workers(self) -> tuple[int, ...]:
        state = self._sources.state.read()
        return tuple(worker.row for worker in state.workers) if state is not None else ()

    def _document(self) -> dict[str, Any] | None:
        state: TunnelState | None = self._sources.state.read()
        return status_document(self._sources.counters, self._sources.series, state) if state is not None else None


def listing_request(query: dict[str, str]) -> ListingRequest:
    """What the query of `/connections` asks for.

    Raises:
        ValueError: it asks for something else; the message says what would be right.
    """
    unknown = sorted(set(query) - {"limit", "after", "service", "sort"})
    if unknown:
        raise ValueError(f"unknown parameter; there are limit, after, service and sort ({len(unknown)} too many)")
    limit = query.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 1 <= int(limit) <= MAX_LIMIT):
        raise ValueError(f"limit is not a number from 1 to {MAX_LIMIT}")
    after = query.get("after", "0")
    try:
        if not 1 <= len(after) <= 16:
            raise ValueError
        after_id = int(after, 16)
    except ValueError as exc:
        raise ValueError('after is not an id; take it from "next" of the previous page') from exc
    sort = query.get("sort", "id")
    if sort not in SORTS:
        raise ValueError(f"sort is none of {', '.join(SORTS)}")
    return ListingRequest(limit=int(limit), after=after_id, service=query.get("service"), sort=sort)


def is_host_plausible(host: str | None, local: Any) -> bool:
    """Whether a request's `Host` may be answered on this socket.

    A page in somebody's browser can make a name of its own point to 127.0.0.1 (DNS rebinding) and read what answers
    there. Its requests carry that name, so on a loopback socket only loopback names are answered.

    Args:
        host: the header; None when there is none (HTTP/1.0).
        local: the socket's own address, as `getsockname` gives it.
    """
    if host is None or not isinstance(local, tuple):
        return True  # A unix socket: no browser reaches it.
    if not ipaddress.ip_address(local[0].partition("%")[0]).is_loopback:
        return True
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return TCPAddress(name, 0).is_loopback
