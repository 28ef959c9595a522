"""How long something is still good for, or for how long it has not been: one reading for every command.

When an end is near depends on the length of the life: two days are all of a revocation list that is made daily, and
nothing of a CA. So each threshold is a share of the life, and for long lives no more than some days.

Whole units, rounded down: what is said to be left is never more than there is. So a certificate made a moment ago for
90 days has 89 days left, in `cert show` as in `status`, in a warning as in a weakness that `probe` finds.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

SOON = timedelta(days=21)
"""Renewal tools act when a third of a life is left, 30 days for most, so this late they have not."""
SOON_SHARE = 4
NOW = timedelta(days=2)
"""The last working day before a weekend."""
NOW_SHARE = 12

_UNITS = ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"))


class Urgency(enum.StrEnum):
    """How near the end of something is."""

    NONE = "none"
    SOON = "soon"
    """Somebody should look at it within a day: it should have been renewed by now."""
    NOW = "now"
    """Somebody should look at it at once."""
    PAST = "past"


def urgency(begin: datetime, end: datetime, now: datetime) -> Urgency:
    """How urgent it is to renew what is good from `begin` until `end`."""
    left, life = end - now, end - begin
    if left < timedelta():
        return Urgency.PAST
    if left < min(NOW, life / NOW_SHARE):
        return Urgency.NOW
    return Urgency.SOON if left < min(SOON, life / SOON_SHARE) else Urgency.NONE


def days_left(end: datetime, now: datetime) -> int:
    """Whole days until `end`; negative, at least -1, once that is past."""
    return (end - now) // timedelta(days=1)


def span(length: timedelta) -> str:
    """`89 days`, `1 day`, `7 hours`: a length of time in its largest unit."""
    for unit, word in _UNITS:
        if (count := length // unit) > 0:
            return f"{count:,} {word}{'s' if count > 1 else ''}"
    return "less than a minute"


def left(end: datetime, now: datetime) -> str:
    """`89 days left`, or `expired 7 hours ago`."""
    return f"{span(end - now)} left" if end >= now else f"expired {span(now - end)} ago"
