"""Durations and rates as people write them: a number and its unit, never a bare number.

A bare `5` has been read as seconds by one program and as milliseconds by the next, and a bare `0` as "at once" and as
"never"; so the unit is demanded, and "never" is a word.
"""

from __future__ import annotations

import math
import re

from tlstunnel.config.model import Rate

_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)", re.ASCII)
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"([0-9]{1,9})\s*/\s*([A-Za-z]+)(?:\s+burst\s+([0-9]{1,9}))?", re.ASCII)
_PER_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
MAX_DURATION_S = 3650 * SECONDS["d"]  # further away than any clock of ours counts reliably


class UnitError(ValueError):
    """The text is no duration or rate; the message says what would be right."""


def parse_duration(text: str, *, zero: bool = False) -> float:
    """Parse `"500ms"`, `"10s"`, `"5m"`, `"1h"`, `"7d"` or `"never"`.

    Args:
        text: what was written.
        zero: whether a duration of zero makes sense here.

    Returns:
        Seconds; infinite for "never".

    Raises:
        UnitError: the text is no duration.
    """
    if text == "never":
        return math.inf
    number, unit = _split(text, SECONDS, 'write a number and a unit (ms, s, m, h or d), as in "10s", or "never"')
    if not unit:
        raise UnitError(no_unit(f'"{text}"', number))
    seconds = float(number) * SECONDS[unit]
    if seconds > MAX_DURATION_S:
        raise UnitError(f'"{text}" is longer than ten years; write "never" for no limit')
    if seconds == 0 and not zero:
        raise UnitError(f'"{text}" is no time at all; write "never" for no limit, or a duration such as "10s"')
    return seconds


def no_unit(shown: str, number: str) -> str:
    """What is wrong with a bare number where a duration belongs."""
    return f'{shown} has no unit; write "{number}s" or "500ms"'


def parse_rate(text: str) -> Rate | None:
    """Parse `"20/s"`, `"100/m"`, `"1000/h"`, each with `burst N` behind it if wanted, or `"unlimited"`.

    Returns:
        The rate, or None for "unlimited".

    Raises:
        UnitError: the text is no rate.
    """
    if text == "unlimited":
        return None
    right = 'write a number for each second, minute or hour, as in "20/s", "100/m" or "20/s burst 50", or "unlimited"'
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise UnitError(f'"{text}" is not a rate; {right}')
    count, unit, burst = found.groups()
    if unit not in _PER_S:
        raise UnitError(f'"{text}": unit "{unit}" is unknown; {right}')
    if int(count) == 0 or (burst is not None and int(burst) == 0):
        raise UnitError(f'"{text}" would let nothing through; {right}')
    return Rate(count=float(count), per_s=_PER_S[unit], burst=float(burst or count))


def format_rate(rate: Rate) -> str:
    """The text that `parse_rate` reads back as the same rate."""
    unit = next(unit for unit, seconds in _PER_S.items() if seconds == rate.per_s)
    burst = "" if rate.burst == rate.count else f" burst {rate.burst:.0f}"
    return f"{rate.count:.0f}/{unit}{burst}"


def _split(text: str, units: dict[str, float], right: str) -> tuple[str, str]:
    found = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if found is None:
        raise UnitError(f'"{text}" is not understood; {right}')
    number, unit = found.groups()
    if unit and unit not in units:
        raise UnitError(f'"{text}": unit "{unit}" is unknown; {right}')
    return number, unit


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds."""
    if seconds == math.inf:
        return "never"
    for unit in ("d", "h", "m", "s"):
        count = seconds / SECONDS[unit]
        if count == int(count) and count:
            return f"{int(count)}{unit}"
    milliseconds = round(seconds * 1000, 6)
    return f"{milliseconds:f}".rstrip("0").rstrip(".") + "ms" if milliseconds else "0s"
