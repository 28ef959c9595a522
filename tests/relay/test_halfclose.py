"""The half-close table: what it allows and what it refuses."""

from __future__ import annotations

import itertools

import pytest

from tlstunnel.relay.halfclose import OVER, TRANSITIONS, Direction, Event, after


def test_a_direction_ends_by_eof_and_then_by_having_told_its_sink():
    assert after(Direction.FLOWING, Event.EOF) is Direction.ENDING
    assert after(Direction.ENDING, Event.FLUSHED) is Direction.CLOSED


def test_a_direction_that_is_cut_is_broken_once_its_sink_has_what_was_genuine():
    assert after(Direction.FLOWING, Event.CUT) is Direction.BREAKING
    assert after(Direction.BREAKING, Event.FLUSHED) is Direction.BROKEN


@pytest.mark.parametrize("state", [Direction.FLOWING, Direction.ENDING, Direction.BREAKING], ids=str)
def test_what_a_sink_that_is_gone_has_not_taken_is_lost(state):
    assert after(state, Event.GONE) is Direction.LOST


@pytest.mark.parametrize("pair", [*itertools.product(Direction, Event)], ids=str)
def test_what_is_not_in_the_table_is_an_error_of_ours(pair):
    if pair in TRANSITIONS:
        return
    with pytest.raises(KeyError):
        after(*pair)


def test_a_state_is_over_where_nothing_can_happen_any_more():
    assert set(Direction) - {state for state, _ in TRANSITIONS} == OVER
