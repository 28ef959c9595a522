"""Names of targets, resolved anew for every connection, but not more than once in CACHE_S.

A look-up takes a thread and perhaps a question on the network; connections that come in a rush share one. What it said
is forgotten so soon that a change of address is followed at once, and there is nothing to flush. A failure is
remembered as long: a name server that does not answer is not asked a thousand times a second either.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import trio

CACHE_S = 1.0

_Key = tuple[Any, ...]
_Answer = list[Any] | OSError


class Names(trio.abc.HostnameResolver):
    """A resolver for `trio.socket.set_custom_hostname_resolver`. What it is asked comes from the configuration, so
    what it remembers is bounded by that.

    Args:
        look_up: the system's own.
    """

    def __init__(self, look_up: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._look_up = look_up
        self._known: dict[_Key, tuple[float, _Answer]] = {}
        self._locks: dict[_Key, trio.Lock] = {}

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """As `socket.getaddrinfo`.

        **Cancellation**: leaves at once; the look-up's thread ends by itself, and the next who asks begins another.

        Raises:
            OSError: the name does not resolve.
        """
        key = (host, port, family, type, proto, flags)
        async with self._locks.setdefault(key, trio.Lock()):  # the first asks, the others find its answer
            until, answer = self._known.get(key, (0.0, []))
            if trio.current_time() >= until:
                answer = await self._ask(key)
                self._known[key] = trio.current_time() + CACHE_S, answer
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        """As `socket.getnameinfo`; nobody here needs it."""
        return await trio.to_thread.run_sync(socket.getnameinfo, sockaddr, flags, abandon_on_cancel=True)

    async def _ask(self, key: _Key) -> _Answer:
        try:
            return await trio.to_thread.run_sync(self._look_up, *key, abandon_on_cancel=True)
        except OSError as exc:
            return exc
