"""How a link closes, as a table.

A link has two directions, each with a state of its own. Its source may end, and then its sink is told so (close_notify
and FIN, or FIN) once it has taken everything: EOF on one side half-closes the other, and the reply still flows. Or its
source may be cut: a reset, an error in its session, a FIN inside a record. Then the sink takes what was genuine, and
only after that learns that the stream was cut. Or its sink may be gone: what comes for it comes for nobody.

    FLOWING --EOF--> ENDING   --FLUSHED--> CLOSED
    FLOWING --CUT--> BREAKING --FLUSHED--> BROKEN
    FLOWING, ENDING, BREAKING --GONE--> LOST

The link is half-closed from the first step on, and over when both directions are. A pair that is not in the table is
an error of ours, not a case to be tolerated.
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
    BREAKING = "breaking"
    BROKEN = "broken"
    LOST = "lost"


class Event(Enum):
    """What happens to a direction."""

    __hash__ = object.__hash__

    EOF = "eof"
    CUT = "cut"
    FLUSHED = "flushed"
    GONE = "gone"


TRANSITIONS = {
    (Direction.FLOWING, Event.EOF): Direction.ENDING,
    (Direction.FLOWING, Event.CUT): Direction.BREAKING,
    (Direction.ENDING, Event.FLUSHED): Direction.CLOSED,
    (Direction.BREAKING, Event.FLUSHED): Direction.BROKEN,
    (Direction.FLOWING, Event.GONE): Direction.LOST,
    (Direction.ENDING, Event.GONE): Direction.LOST,
    (Direction.BREAKING, Event.GONE): Direction.LOST,
}
OVER = frozenset((Direction.CLOSED, Direction.BROKEN, Direction.LOST))


def after(state: Direction, event: Event) -> Direction:
    """The state after the event. Raises KeyError for an event that cannot happen in this state."""
    return TRANSITIONS[state, event]
