"""Queries all workers for their open connections, and makes one list of the answers."""

from __future__ import annotations

import dataclasses
import json
import socket
from typing import Any

import trio

from tlstunnel.observe.listing import MAX_REPLY, ListingRequest

ANSWER_S = 1.0
"""A worker that takes longer is busy or gone; the list then says that its part is missing."""
_MAX_PACKET = MAX_REPLY + 4096


class Channels:
    """The admin's ends of the workers' channels.

    Args:
        ends: by row of the counters.
    """

    def __init__(self, ends: dict[int, socket.socket]) -> None:
        self._ends = {row: trio.socket.from_stdlib_socket(end) for row, end in ends.items()}
        self._turn = {row: trio.Lock() for row in ends}
        self._sent = 0

    async def query(self, request: ListingRequest, rows: tuple[int, ...]) -> dict[str, Any]:
        """The document of `/connections`.

        Args:
            request: what is wanted.
            rows: the workers that live now.
        """
        answers: dict[int, dict[str, Any] | None] = {}

        async def query_one(row: int) -> None:
            answers[row] = await self._query_worker(row, request)

        async with trio.open_nursery() as nursery:
            for row in rows:
                if row in self._ends:
                    nursery.start_soon(query_one, row)
        return _merge(request, answers)

    async def _query_worker(self, row: int, request: ListingRequest) -> dict[str, Any] | None:
        end = self._ends[row]
        with trio.move_on_after(ANSWER_S):
            async with self._turn[row]:
                self._sent += 1
                number = self._sent
                try:
                    await end.send(dataclasses.replace(request, number=number).encode())
                    while packet := await end.recv(_MAX_PACKET):
                        reply: dict[str, Any] = json.loads(packet)
                        if reply["number"] == number:
                            return reply
                        # The late answer to a request that was given up.
                except OSError:
                    return None
        return None


def _merge(request: ListingRequest, answers: dict[int, dict[str, Any] | None]) -> dict[str, Any]:
    found = []
    more = False
    for row, reply in answers.items():
        if reply is not None:
            more = more or reply["more"]
            found += [{**each, "worker": row} for each in reply["connections"]]
    if request.sort == "bytes":
        found.sort(key=lambda each: each["bytes_forward"] + each["bytes_reverse"], reverse=True)
    elif request.sort == "age":
        found.sort(key=lambda each: each["age_s"], reverse=True)
    else:
        found.sort(key=lambda each: each["id"])
    more = more or len(found) > request.limit
    shown = found[: request.limit]
    return {
        "open": sum(reply["open"] for reply in answers.values() if reply is not None),
        "unanswered": sorted(row for row, reply in answers.items() if reply is None),
        "next": shown[-1]["id"] if more and shown and request.sort == "id" else None,
        "connections": shown,
    }
