"""What limits are counted by: one at a time, whoever dies or stops in the middle of it; and who waits is told."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from tlstunnel.config.model import Rate
from tlstunnel.connection import ledger as ledgers
from tlstunnel.connection.ledger import Ledger, key
from tlstunnel.observe.counters import Counters, Layout

COUNTER = 3
WHO = key(1, 4, 0x7F000001)


@pytest.fixture
def counters() -> Counters:
    made = Counters(Layout(8, gauges=(COUNTER,)), rows=16)
    for row in range(16):
        made.row(row)
    return made


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Run something in a process of its own; its pid. What is left of it ends with the test."""
    children: list[int] = []

    def fork(body: Callable[[], None]) -> int:
        pid = os.fork()
        if not pid:
            try:
                body()
            finally:
                os._exit(0)
        children.append(pid)
        return pid

    yield fork
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def test_one_at_a_time_holds_the_lock(counters: Counters, forked: Callable[[Callable[[], None]], int]) -> None:
    """Eight processes count to one number together, as nobody could without it."""
    ledger = Ledger(counters)
    own = counters.row(0).counters

    def count() -> None:
        for _ in range(2000):
            while not ledger.enter():
                pass
            own[0] += 1
            ledger.leave()

    for pid in [forked(count) for _ in range(8)]:
        os.waitpid(pid, 0)
    assert own[0] == 16_000


def test_the_lock_of_one_that_is_killed_is_free(
    counters: Counters, forked: Callable[[Callable[[], None]], int]
) -> None:
    ledger = Ledger(counters)
    inside, tell = os.pipe()

    def hold() -> None:
        ledger.enter()
        os.write(tell, b"x")
        signal.pause()

    pid = forked(hold)
    os.read(inside, 1)
    os.kill(pid, signal.SIGSTOP)
    assert not ledger.enter(), "one that is stopped has it still, and nobody waits for ever"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert ledger.enter()
    ledger.leave()
    os.close(inside)
    os.close(tell)


def test_whoever_is_killed_at_any_moment_leaves_an_exact_count(
    counters: Counters, forked: Callable[[Callable[[], None]], int]
) -> None:
    """Workers that take and give back as fast as they can are killed in the middle of it, again and again."""
    most, ledger = 7, Ledger(counters)
    high = counters.row(15).counters

    def work(row: int) -> None:
        own = counters.row(row).counters
        held: list[int] = []
        while True:
            while not ledger.enter():
                pass
            entry = ledger.find(WHO, 0.0)
            assert entry is not None
            if max(counters.total(COUNTER), ledger.count(entry)) < most:
                own[COUNTER] += 1
                ledger.note(entry, row)
                held.append(entry)
            if max(counters.total(COUNTER), ledger.count(entry)) > most:
                high[0] = 1
            high[1] += 1
            ledger.leave()
            if len(held) > 2:
                ledger.forget(held.pop(), row)
                own[COUNTER] -= 1

    def wait_for_progress(steps: int) -> None:
        until = high[1] + steps
        while high[1] < until:
            os.sched_yield()

    pids = {row: forked(lambda row=row: work(row)) for row in range(1, 5)}  # type: ignore[misc]
    for number in range(60):
        wait_for_progress(20 + number)
        row = number % 4 + 1
        os.kill(pids[row], signal.SIGKILL)
        os.waitpid(pids[row], 0)
        counters.row(row).clear_gauges()
        ledger.clear(row)
        pids[row] = forked(lambda row=row: work(row))  # type: ignore[misc]
    for row, pid in pids.items():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        counters.row(row).clear_gauges()
        ledger.clear(row)
    assert high[0] == 0, "more than the limit"
    assert counters.total(COUNTER) == 0
    entry = ledger.find(WHO, 0.0)
    assert entry is not None
    assert ledger.count(entry) == 0
    assert ledger.enter()


def test_a_place_that_is_free_is_told_to_everybody_who_watches(counters: Counters) -> None:
    ledger = Ledger(counters)
    watchers = [select.epoll() for _ in range(3)]
    for each in watchers:
        each.register(ledger.told, select.EPOLLIN | select.EPOLLET)
        assert each.poll(0) == []
    for _ in range(3):  # an edge for each time, although nobody reads it
        ledger.ask()
        assert ledger.is_asked
        ledger.tell()
        assert not ledger.is_asked
        for each in watchers:
            assert len(each.poll(0)) == 1
            assert each.poll(0) == []
    for each in watchers:
        each.close()


def test_the_death_of_a_worker_is_told_to_who_waits(counters: Counters) -> None:
    ledger = Ledger(counters)
    with select.epoll() as watcher:
        watcher.register(ledger.told, select.EPOLLIN | select.EPOLLET)
        ledger.clear(1)
        assert watcher.poll(0) == []
        ledger.ask()
        ledger.clear(1)
        assert len(watcher.poll(0)) == 1


def test_a_full_set_makes_room_only_of_what_counts_for_nothing(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "hash", lambda _: 0, raising=False)
    ledger = Ledger(counters)
    hour = Rate(count=1, per_s=3600, burst=1)
    entries = [ledger.find(key(1, 4, number), 0.0) for number in range(ledgers.WAYS)]
    assert sorted(entry for entry in entries if entry is not None) == list(range(ledgers.WAYS))
    for number, entry in enumerate(entries):
        assert entry is not None
        if number % 2:
            ledger.note(entry, 1)
        elif number:
            assert ledger.may(entry, hour, 0.0)
    late = ledger.find(key(1, 4, 1000), 10.0)
    assert late == entries[0], "the one that nobody has open and no rate remembers"
    assert ledger.find(key(1, 4, 1000), 10.0) == late
    ledger.note(late, 1)
    assert ledger.find(key(1, 4, 1001), 10.0) is None
    assert ledger.find(key(1, 4, 1001), 3600.0) == entries[2], "by now its rate has forgiven it"
    assert ledger.find(key(1, 4, 1), 3600.0) == entries[1]
