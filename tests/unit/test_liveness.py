"""Who is taken for hanging: whoever leaves pings unanswered, and nobody because time has passed."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tlstunnel.daemon.processes import liveness
from tlstunnel.daemon.processes.children import QUIET, Child
from tlstunnel.daemon.processes.liveness import HUNG, HUNG_AT_START, Liveness, state_of
from tlstunnel.daemon.processes.messages import Ping


class Rig:
    """A supervisor with these children, whose clock is the test's."""

    def __init__(self, *children: Child) -> None:
        self.killed: list[int] = []
        self.shown = 0
        self.said: list[str] = []
        self.pinged: list[object] = []
        self.due: list[Any] = []
        daemon = SimpleNamespace(
            children={child.pid: child for child in children},
            publish=self._publish,
            log=SimpleNamespace(message=lambda _level, _event, text, **_: self.said.append(text)),
            notifier=SimpleNamespace(is_active=False, watchdog_s=None),
            timers=SimpleNamespace(after=lambda _delay, _name, action: self.due.append(action)),
        )
        workforce = SimpleNamespace(send=lambda order, children: self.pinged.append(order))
        admin = SimpleNamespace(check=lambda hung: None)
        Liveness(cast(Any, daemon), cast(Any, workforce), cast(Any, admin)).begin()

    def _publish(self) -> None:
        self.shown += 1

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.due.pop()()


class Fake(Child):
    """A worker without a process."""

    def kill(self) -> None:
        _killed.append(self.pid)


_killed: list[int] = []


@pytest.fixture(autouse=True)
def nobody_killed() -> None:
    _killed.clear()


def worker(pid: int, *, is_ready: bool = True) -> Fake:
    return Fake(pid, 0, 1, cast(Any, None), cast(Any, None), is_ready=is_ready)


def test_one_that_hangs_is_shown_and_later_killed_and_the_other_goes_on() -> None:
    hangs, answers = worker(10**7), worker(10**7 + 1)
    rig = Rig(hangs, answers)
    for number in range(1, HUNG + 1):
        answers.unanswered = 0
        assert _killed == []
        assert hangs.answers is (number < QUIET)
        rig.tick()
    assert _killed == [hangs.pid]
    assert rig.shown == 1
    assert rig.said == [f"worker {hangs.pid} has not answered for 10 s (gone) and is replaced"]
    assert answers.answers
    assert rig.pinged == [Ping()] * (HUNG + 1)


def test_one_that_has_not_begun_has_more_time() -> None:
    late = worker(10**7, is_ready=False)
    rig = Rig(late)
    rig.tick(HUNG_AT_START - 1)
    assert _killed == []
    assert not late.answers
    rig.tick()
    assert _killed == [late.pid]


def test_what_a_process_does_instead_is_said() -> None:
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    assert state_of(pid) == "stopped by a signal"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert state_of(pid) == "gone"
    assert set(liveness._STATES) == {"T", "t", "D", "R"}
