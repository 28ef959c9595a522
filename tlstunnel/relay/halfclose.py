"""How a link closes, as a table.

A link has two directions. Each goes through three states by itself: bytes flow; its source has ended but its sink has
not taken everything yet; the sink was told (close_notify and FIN, or FIN). EOF on one side therefore half-closes the
other, and the reply still flows. The link is finished when both directions are.

    FLOWING --EOF--> ENDING --FLUSHED--> CLOSED

A pair that is not in the table is an error of ours, not a case to be tolerated.
"""

from __future__ import annotations

from enum import Enum


class Direction(Enum):
    """The state of one direction of a link."""

    # There is one object for each member; hashing it by identity spares a call into Python for every look-up.
    __hash__ = object.__hash__

    FLOWING = "flowing"
    ENDING = "ending"
    CLOSED = "closed"


class Event(Enum):
    """What happens to a direction."""

    __hash__ = object.__hash__

    EOF = "eof"
    FLUSHED = "flushed"


class LinkState(Enum):
    """The state of a link, which follows from its two directions."""

    OPEN = "open"
    HALF_CLOSED = "half-closed"
    FINISHED = "finished"


TRANSITIONS = {
    (Direction.FLOWING, Event.EOF): Direction.ENDING,
    (Direction.ENDING, Event.FLUSHED): Direction.CLOSED,
}


def after(state: Direction, event: Event) -> Direction:
    """The state after the event. Raises KeyError for an event that cannot happen in this state."""
    return TRANSITIONS[state, event]


def link_state(forward: Direction, reverse: Direction) -> LinkState:
    """What the two directions amount to."""
    if forward is Direction.CLOSED and reverse is Direction.CLOSED:
        return LinkState.FINISHED
    if forward is Direction.FLOWING and reverse is Direction.FLOWING:
        return LinkState.OPEN
    return LinkState.HALF_CLOSED
