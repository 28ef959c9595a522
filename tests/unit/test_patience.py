"""A clock that does not count the time in which the process was stopped."""

from __future__ import annotations

import math

import pytest

from tlstunnel.daemon.processes.events import Timers
from tlstunnel.patience import AWAY_S, GRACE_S, Patience


def test_time_passes_as_it_does_while_nothing_is_wrong() -> None:
    patience = Patience()
    assert patience.look(10.0) == 10.0
    patience.sleep_until(11.0)
    assert patience.look(11.0 + AWAY_S) == 11.0 + AWAY_S
    patience.sleep_until(math.inf)
    assert patience.look(5000.0) == 5000.0, "who has nothing to wait for sleeps as long as it likes"


@pytest.mark.parametrize("is_asleep", [True, False])
def test_time_away_is_not_counted_and_nothing_is_due_at_once(is_asleep: bool) -> None:
    patience = Patience()
    patience.look(10.0)
    if is_asleep:
        patience.sleep_until(20.0)
        assert patience.look(500.0) == 20.0 - GRACE_S
        assert patience.look(500.0 + GRACE_S) == 20.0
    else:
        assert patience.look(500.0) == 10.0


def test_time_goes_on_where_every_wake_up_is_late_and_never_back() -> None:
    patience = Patience()
    now, seen = 10.0, [patience.look(10.0)]
    for _ in range(100):
        patience.sleep_until(seen[-1] + 0.25)
        now += 3.0
        seen.append(patience.look(now))
    assert seen == sorted(seen)
    assert seen[-1] >= 10.0 + 100 * 0.25 - GRACE_S


def test_an_appointment_that_passed_while_we_were_stopped_is_kept_a_moment_later() -> None:
    now = [100.0]
    timers = Timers(lambda: now[0])
    kept: list[str] = []
    timers.after(5.0, "kill", lambda: kept.append("kill"))
    assert timers.wait_s == 5.0
    now[0] = 900.0
    timers.run()
    assert kept == []
    wait_s = timers.wait_s
    assert wait_s == pytest.approx(GRACE_S)
    now[0] += wait_s
    timers.run()
    assert kept == ["kill"]


def test_an_appointment_that_is_moved_to_never_is_none() -> None:
    timers = Timers(lambda: 100.0)
    timers.after(5.0, "look", lambda: None)
    timers.after(math.inf, "look", lambda: None)
    assert timers.wait_s is None
