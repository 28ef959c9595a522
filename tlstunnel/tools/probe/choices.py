"""Finding out what a server would take, in its own order: offer everything, strike out what it chose, offer again.

Whose order that is shows when everything it took is offered the other way round: a server with an order of its own
chooses the same again, one that follows the client chooses what now stands first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from tlstunnel.tools.probe.trouble import Trouble

Choose = Callable[[tuple[int, ...]], int | None]
"""Offers these, most wanted first, and says what the server chose, or None if it refused."""


class Order(Enum):
    """Whose preference decides."""

    SERVER = "server"
    CLIENT = "client"


class CutShort(Trouble):
    """The server stopped answering before it had refused; `taken` is what it had taken until then."""

    def __init__(self, taken: Sequence[int], cause: Trouble) -> None:
        super().__init__(f"after {len(taken)} answers: {cause}")
        self.taken = tuple(taken)


def in_turn(candidates: Sequence[int], choose: Choose) -> list[int]:
    """Everything the server takes, in the order it chose.

    Raises:
        CutShort: a question had no answer.
    """
    left = list(candidates)
    taken: list[int] = []
    while left:
        try:
            chosen = choose(tuple(left))
        except Trouble as exc:
            raise CutShort(taken, exc) from exc
        if chosen is None or chosen not in left:
            break
        left.remove(chosen)
        taken.append(chosen)
    return taken


def order_of(taken: Sequence[int], choose: Choose, *, unfit: Callable[[int], bool] = lambda _: False) -> Order | None:
    """Whose order `taken` is; None where there are fewer than two to choose from, or the answer fits
    neither, or there is none.

    Args:
        unfit: Choices that say nothing when they stand first. Servers that otherwise have their own order let clients
            without AES hardware have ChaCha20 when they put it first.
    """
    turned = list(reversed(taken))
    turned.sort(key=unfit)  # keeps the order of those that are alike
    if len(taken) < 2 or turned[0] == taken[0]:
        return None
    try:
        chosen = choose(tuple(turned))
    except Trouble:
        return None
    if chosen == taken[0]:
        return Order.SERVER
    return Order.CLIENT if chosen == turned[0] else None
