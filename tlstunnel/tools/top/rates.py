"""From totals to rates: what changed between two looks at a running tunnel."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

_BARS = "▁▂▃▄▅▆▇█"
HISTORY = 120


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of one service, or of all."""

    open: int = 0
    ended: int = 0
    handshakes: int = 0
    failed: int = 0
    forward: int = 0
    reverse: int = 0

    @classmethod
    def of(cls, service: dict[str, Any]) -> Totals:
        """From a service of the status document."""
        connections, handshakes, moved = service["connections"], service["handshakes"], service["bytes"]
        return cls(
            connections["active"],
            connections["ended"],
            handshakes["succeeded"],
            handshakes["failed"],
            moved["forward"],
            moved["reverse"],
        )

    def plus(self, other: Totals) -> Totals:
        """Both together."""
        return Totals(
            self.open + other.open,
            self.ended + other.ended,
            self.handshakes + other.handshakes,
            self.failed + other.failed,
            self.forward + other.forward,
            self.reverse + other.reverse,
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second; `open` is a number."""

    open: int
    new: float
    handshakes: float
    failed: float
    forward: float
    reverse: float


def rates_between(before: Totals, after: Totals, seconds: float) -> Rates:
    """The rates in an interval. A total that fell belongs to a restarted tunnel: its rate is 0."""

    def rate(old: int, new: int) -> float:
        return max(0, new - old) / seconds if seconds > 0 else 0.0

    return Rates(
        open=after.open,
        new=rate(before.ended + before.open, after.ended + after.open),
        handshakes=rate(before.handshakes, after.handshakes),
        failed=rate(before.failed, after.failed),
        forward=rate(before.forward, after.forward),
        reverse=rate(before.reverse, after.reverse),
    )


@dataclass(frozen=True, slots=True)
class Talker:
    """An open connection and how fast it moves bytes."""

    about: dict[str, Any]
    rate: float
    total: int


@dataclass(slots=True)
class Watch:
    """What was seen so far, and what follows from it."""

    history: deque[Rates] = field(default_factory=lambda: deque(maxlen=HISTORY))
    services: dict[str, Rates] = field(default_factory=dict)
    talkers: list[Talker] = field(default_factory=list)
    trouble: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    """By service and reason: how often in all, and per second."""
    _totals: dict[str, Totals] = field(default_factory=dict)
    _moved: dict[str, int] = field(default_factory=dict)
    _troubles: dict[tuple[str, str], int] = field(default_factory=dict)
    _at: float | None = None

    def look(self, status: dict[str, Any], connections: list[dict[str, Any]], now: float) -> None:
        """Take in one status document and one list of connections.

        Args:
            status: of `/status`.
            connections: of `/connections?sort=bytes`.
            now: seconds on a monotonic clock.
        """
        seconds = now - self._at if self._at is not None else 0.0
        totals = {each["name"]: Totals.of(each) for each in status["services"]}
        self.services = {
            name: rates_between(self._totals.get(name, after), after, seconds) for name, after in totals.items()
        }
        if self._at is not None:
            self.history.append(rates_between(_sum(self._totals), _sum(totals), seconds))
        moved = {each["id"]: each["bytes_forward"] + each["bytes_reverse"] for each in connections}
        self.talkers = [
            Talker(each, _rate(moved[each["id"]], self._moved.get(each["id"]), seconds), moved[each["id"]])
            for each in connections
        ]
        troubles = {
            (each["name"], reason): count for each in status["services"] for reason, count in each["trouble"].items()
        }
        self.trouble = {
            key: (count, _rate(count, self._troubles.get(key, 0), seconds)) for key, count in troubles.items()
        }
        self._totals, self._moved, self._troubles, self._at = totals, moved, troubles, now

    @property
    def current(self) -> Rates:
        """All services now."""
        return self.history[-1] if self.history else rates_between(Totals(), _sum(self._totals), 0.0)


def sparkline(values: list[float], width: int) -> str:
    """The last values as bars, the highest as a full one; blanks before the first."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    bars = "".join(_BARS[min(7, int(value / top * 7.999))] if top > 0 else _BARS[0] for value in shown)
    return bars.rjust(width)


def _sum(totals: dict[str, Totals]) -> Totals:
    together = Totals()
    for each in totals.values():
        together = together.plus(each)
    return together


def _rate(now: int, before: int | None, seconds: float) -> float:
    return max(0, now - before) / seconds if before is not None and seconds > 0 else 0.0
