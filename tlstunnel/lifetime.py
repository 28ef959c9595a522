"""How long something is still good for, or for how long it has not been: one reading for every command.

Whole units, rounded down: what is said to be left is never more than there is. So a certificate made a moment ago for
90 days has 89 days left, in `cert show` as in `status`, in a warning as in a weakness that `probe` finds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = ((timedelta(days=1), "day"), (timedelta(hours=1), "hour"), (timedelta(minutes=1), "minute"))


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
