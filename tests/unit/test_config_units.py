"""Durations, sizes and rates: what is read, what is refused, and that formatting is the inverse of parsing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlstunnel.config.model import Rate
from tlstunnel.config.units import UnitError, format_duration, format_rate, parse_duration, parse_rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("10 s", 10.0),
        ("never", math.inf),
        ("3650d", 315360000.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "10", "-1s", "10S", "1h30m", "10sec", "Never", "3651d", "1e3s", "٣s", "0s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="; "):
        parse_duration(text)


def test_zero_is_read_only_where_it_makes_sense() -> None:
    assert parse_duration("0s", zero=True) == 0.0
    with pytest.raises(UnitError, match='write "never"'):
        parse_duration("0ms")


def test_a_bare_number_is_told_which_unit_it_may_mean() -> None:
    with pytest.raises(UnitError) as caught:
        parse_duration("5")
    assert str(caught.value) == '"5" has no unit; write "5s" or "500ms"'


@given(st.integers(min_value=1, max_value=3650 * 86_400_000))
def test_a_formatted_duration_is_read_back_as_the_same(milliseconds: int) -> None:
    seconds = parse_duration(f"{milliseconds}ms")
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(math.inf, "never"), (3600.0, "1h"), (90.0, "90s"), (0.25, "250ms"), (0.0, "0s"), (86400.0, "1d")],
)
def test_a_duration_is_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s", Rate(count=20.0, per_s=1.0, burst=20.0)),
        ("100/m", Rate(count=100.0, per_s=60.0, burst=100.0)),
        ("1/h", Rate(count=1.0, per_s=3600.0, burst=1.0)),
        (" 20 / s  burst 50 ", Rate(count=20.0, per_s=1.0, burst=50.0)),
        ("unlimited", None),
    ],
)
def test_a_rate_is_read_with_its_burst(text: str, rate: Rate | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "20", "20/", "/s", "0/s", "-1/s", "1.5/s", "20/d", "20/S", "20/s burst", "20/s burst 0", "x", "٣/s"],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="; "):
        parse_rate(text)


@given(
    st.integers(min_value=1, max_value=10**9 - 1), st.sampled_from("smh"), st.integers(min_value=0, max_value=10**9 - 1)
)
def test_a_formatted_rate_is_read_back_as_the_same(count: int, unit: str, burst: int) -> None:
    rate = parse_rate(f"{count}/{unit}" + (f" burst {burst}" if burst else ""))
    assert rate is not None
    assert parse_rate(format_rate(rate)) == rate
