"""A name is looked up once for a rush of connections, and again soon after."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tlstunnel.connection.resolve import CACHE_S, Names

FOUND = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))]


class System:
    """Stands for the system's resolver: says what it is told to, and counts."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = FOUND

    def __call__(self, *key: Any) -> Any:
        self.asked.append(key)
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


def test_those_who_come_together_share_one_question_and_later_ones_ask_again() -> None:
    system = System()
    names = Names(system)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(names.getaddrinfo, b"db.example", 80)
        assert len(system.asked) == 1
        assert await names.getaddrinfo(b"db.example", 80) == FOUND
        assert len(system.asked) == 1
        await trio.sleep(CACHE_S)
        assert await names.getaddrinfo(b"db.example", 80) == FOUND
        assert len(system.asked) == 2
        assert await names.getaddrinfo(b"db.example", 81) == FOUND
        assert len(system.asked) == 3

    trio.run(main, clock=MockClock(autojump_threshold=0.05))


def test_a_failure_is_remembered_as_long_and_no_longer() -> None:
    system = System()
    names = Names(system)

    async def main() -> None:
        system.answer = socket.gaierror(-2, "Name or service not known")
        for _ in range(3):
            with pytest.raises(socket.gaierror):
                await names.getaddrinfo(b"db.example", 80)
        assert len(system.asked) == 1
        await trio.sleep(CACHE_S)
        system.answer = FOUND
        assert await names.getaddrinfo(b"db.example", 80) == FOUND

    trio.run(main, clock=MockClock(autojump_threshold=0.05))


def test_who_gives_up_does_not_take_the_others_with_him() -> None:
    let_go = threading.Event()

    async def main() -> None:
        begun = trio.Event()

        def look_up(*_: Any) -> Any:
            if not begun.is_set():
                trio.from_thread.run_sync(begun.set)
                let_go.wait()
            return FOUND

        names = Names(look_up)
        scope = trio.CancelScope()

        async def give_up() -> None:
            with scope:
                await names.getaddrinfo(b"db.example", 80)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await begun.wait()
            scope.cancel()
            assert await names.getaddrinfo(b"db.example", 80) == FOUND
        assert scope.cancelled_caught
        let_go.set()

    trio.run(main)


def test_trio_is_given_it_and_uses_it() -> None:
    async def main() -> None:
        system = System()
        trio.socket.set_custom_hostname_resolver(Names(system))
        assert await trio.socket.getaddrinfo("db.example", 80) == FOUND
        assert system.asked[0][0] == b"db.example"
        assert await trio.socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == (
            "127.0.0.1",
            "80",
        )

    trio.run(main)
