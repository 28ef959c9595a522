"""Medians of per-round ratios, their spread, and the verdict against a bar."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A median between its quartiles."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratios(subject: Sequence[float], peer: Sequence[float]) -> Spread:
    """The subject's value over the peer's, round by round; both were measured in every round."""
    return spread([mine / theirs for mine, theirs in zip(subject, peer, strict=True)])


def verdict(measured: Spread, bar: float) -> str:
    """`holds`, `missed`, or either with `?` where the bar lies between the quartiles and more rounds could turn it."""
    doubt = "?" if measured.low <= bar <= measured.high and measured.low != measured.high else ""
    return ("holds" if measured.median <= bar else "missed") + doubt
