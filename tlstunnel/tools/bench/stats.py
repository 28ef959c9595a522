"""Medians between their quartiles, and the comparison of two things that were measured in the same rounds."""

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

    @property
    def percent(self) -> float:
        """Half the distance of the quartiles, in percent of the median: how far to trust it."""
        return 50 * (self.high - self.low) / self.median if self.median else 0.0

    def inverse(self, unit: float = 1.0) -> Spread:
        """`unit` divided by it: a rate out of a cost."""
        return Spread(unit / self.median, unit / self.high, unit / self.low, self.rounds)


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """One over the other, round by round.

    What else the machine did in a round hits both alike, so this is steadier than the ratio of two medians. Rounds at
    the end that only one of them has are left out.
    """
    return spread([mine / theirs for mine, theirs in zip(one, other, strict=False)])


def is_tied(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the rounds do not tell which costs more: in a quarter of them or more it was the other way round."""
    compared = ratio(one, other)
    return compared.low <= 1 <= compared.high


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the ascending values lies."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
