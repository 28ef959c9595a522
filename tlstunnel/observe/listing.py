"""Lists of open connections: the admin process requests, each worker replies from its own memory.

One pair of connected seqpacket sockets per worker slot, made by the supervisor before it forks and kept open by it, so
that a replacement goes on answering where a dead worker stopped. One request is one packet, one reply is one packet:

    request   {"number": 7, "after": 0, "limit": 100, "service": null, "sort": "id"}
    reply     {"number": 7, "open": 2310, "more": true, "connections": [{...}, ...]}

A reply holds at most `MAX_LIMIT` connections and `MAX_REPLY` bytes. Making one costs a worker about 0.3 microseconds
for each connection it has open, so a list over ten thousand delays its relay by a few milliseconds; a worker that
cannot send a reply without waiting drops it, and the admin process gives up at its deadline.
"""

from __future__ import annotations

import heapq
import json
import socket
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tlstunnel.observe.record import ConnectionRecord

DEFAULT_LIMIT = 100
MAX_LIMIT = 200
MAX_REPLY = 60_000
MAX_REQUEST = 4096
SORTS = ("id", "bytes", "age")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingRequest:
    """Which open connections are wanted."""

    number: int = 0
    """Repeated in the reply, so that an answer that came too late is recognised."""
    after: int = 0
    """Only ids above this one: the place where the previous page ended. For sort "id"."""
    limit: int = DEFAULT_LIMIT
    service: str | None = None
    sort: str = "id"
    """"id" in the order of ids; "bytes" most bytes first; "age" oldest first."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """The admin's end and the worker's end, both non-blocking."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setblocking(False)
    return ends


def answer(end: socket.socket, connections: Iterable[ConnectionRecord]) -> None:
    """Answer the requests that are waiting on a worker's end. Called when it is readable; never waits.

    Args:
        end: the worker's end of its channel.
        connections: `Observer.open.values()`.
    """
    records = None
    while True:
        try:
            packet = end.recv(MAX_REQUEST)
        except (BlockingIOError, ConnectionError):
            return
        if not packet:
            return
        records = list(connections) if records is None else records
        request = ListingRequest(**json.loads(packet))
        try:
            end.send(reply_to(request, records))
        except (BlockingIOError, ConnectionError):
            return


def reply_to(request: ListingRequest, records: Iterable[ConnectionRecord]) -> bytes:
    """The reply to a request, made from the open connections."""
    chosen = [record for record in records if request.service in (None, record.service)]
    found = len(chosen)
    limit = min(request.limit, MAX_LIMIT)
    if request.sort == "bytes":
        chosen = heapq.nlargest(limit + 1, chosen, key=lambda record: sum(_bytes(record)))
    elif request.sort == "age":
        chosen = heapq.nsmallest(limit + 1, chosen, key=lambda record: record.opened_at)
    else:
        chosen = heapq.nsmallest(limit + 1, (r for r in chosen if r.id > request.after), key=lambda record: record.id)
    now = time.monotonic()
    rows, size = [], 0
    for record in chosen[:limit]:
        row = json.dumps(describe(record, now), separators=(",", ":"))
        size += len(row) + 1
        if size > MAX_REPLY:
            break
        rows.append(row)
    more = "true" if len(rows) < len(chosen) else "false"
    return f'{{"number":{request.number},"open":{found},"more":{more},"connections":[{",".join(rows)}]}}'.encode()


def describe(record: ConnectionRecord, now: float) -> dict[str, Any]:
    """An open connection as JSON shows it; the keys are those of the log."""
    forward, reverse = _bytes(record)
    return {
        "id": f"{record.id:016x}",
        "service": record.service,
        "client": record.client,
        "real_client": _short(record.real_client),
        "target": record.target,
        "server_name": _short(record.server_name),
        "version": record.version,
        "cipher": record.cipher,
        "group": record.group,
        "resumed": record.resumed,
        "alpn": _short(record.alpn),
        "identity": _short(record.identity),
        "rule": _short(record.rule),
        "bytes_forward": forward,
        "bytes_reverse": reverse,
        "age_s": round(now - record.opened_at, 3),
    }


def _bytes(record: ConnectionRecord) -> tuple[int, int]:
    return (record.bytes_forward, record.bytes_reverse) if record.live_bytes is None else record.live_bytes()


def _short(text: str | None) -> str | None:
    return text if text is None else text[:256]
