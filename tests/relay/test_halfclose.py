"""The half-close table: what it allows, what it refuses, and what two directions amount to."""

from __future__ import annotations

import itertools

import pytest

from tlstunnel.relay.halfclose import TRANSITIONS, Direction, Event, LinkState, after, link_state


def test_a_direction_ends_by_eof_and_then_by_having_told_its_sink():
    assert after(Direction.FLOWING, Event.EOF) is Direction.ENDING
    assert after(Direction.ENDING, Event.FLUSHED) is Direction.CLOSED


@pytest.mark.parametrize("pair", [*itertools.product(Direction, Event)], ids=str)
def test_what_is_not_in_the_table_is_an_error_of_ours(pair):
    if pair in TRANSITIONS:
        return
    with pytest.raises(KeyError):
        after(*pair)


@pytest.mark.parametrize(("forward", "reverse"), [*itertools.product(Direction, Direction)])
def test_a_link_is_open_while_both_flow_and_finished_when_both_are_closed(forward, reverse):
    state = link_state(forward, reverse)
    assert state is link_state(reverse, forward)
    if {forward, reverse} == {Direction.FLOWING}:
        assert state is LinkState.OPEN
    elif {forward, reverse} == {Direction.CLOSED}:
        assert state is LinkState.FINISHED
    else:
        assert state is LinkState.HALF_CLOSED
