"""Dialogues before TLS, written down turn by turn, and the two ways in which the network may cut them.

Dialogue("name", Server, [start(), client(b"EHLO x", to_backend=b"EHLO x"), ...], Verdict.START_TLS)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tlstunnel.connection.starttls.negotiation import Negotiation, Reason, Step, Verdict

WHOLE = 1 << 20


@dataclass(frozen=True)
class Turn:
    """Who says what, and what is sent in answer."""

    who: str
    data: bytes
    to_client: bytes
    to_backend: bytes


def start(to_client: bytes = b"", to_backend: bytes = b"") -> Turn:
    return Turn("start", b"", to_client, to_backend)


def client(data: bytes, to_client: bytes = b"", to_backend: bytes = b"") -> Turn:
    return Turn("client", data, to_client, to_backend)


def backend(data: bytes, to_client: bytes = b"", to_backend: bytes = b"") -> Turn:
    return Turn("backend", data, to_client, to_backend)


def secured(to_client: bytes = b"", to_backend: bytes = b"") -> Turn:
    return Turn("secured", b"", to_client, to_backend)


@dataclass(frozen=True)
class Dialogue:
    """What is said, and how it ends."""

    name: str
    make: Callable[[], Negotiation]
    turns: list[Turn]
    verdict: Verdict
    reason: Reason | None = None
    tls: bytes = b""

    def __str__(self) -> str:
        return self.name


class Run:
    """A negotiation that is fed, and everything that came of it."""

    def __init__(self, negotiation: Negotiation) -> None:
        self.negotiation = negotiation
        self.to_client, self.to_backend, self.tls = b"", b"", b""
        self.steps: list[Step] = []

    @property
    def verdict(self) -> Verdict:
        return self.steps[-1].verdict if self.steps else Verdict.GO_ON

    def step(self, step: Step) -> None:
        self.steps.append(step)
        self.to_client += step.to_client
        self.to_backend += step.to_backend
        self.tls += step.tls

    def feed(self, who: str, data: bytes, size: int = WHOLE) -> None:
        """In pieces. What the client sends behind the first bytes of its TLS is not the negotiation's to see."""
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            if who == "client" and self.tls and self.verdict is Verdict.START_TLS:
                self.tls += piece
            else:
                negotiation = self.negotiation
                self.step((negotiation.from_client if who == "client" else negotiation.from_backend)(piece))

    def take(self, turn: Turn, size: int = WHOLE) -> None:
        if turn.who == "start":
            self.step(self.negotiation.start())
        elif turn.who == "secured":
            self.step(self.negotiation.secured())
        else:
            self.feed(turn.who, turn.data, size)


def check(dialogue: Dialogue, size: int) -> None:
    """Every turn is answered as written down, whatever pieces it comes in."""
    run = Run(dialogue.make())
    for number, turn in enumerate(dialogue.turns):
        run.to_client = run.to_backend = b""
        run.take(turn, size)
        assert (run.to_client, run.to_backend) == (turn.to_client, turn.to_backend), f"turn {number}: {turn}"
        if turn is not dialogue.turns[-1]:
            assert run.verdict is (Verdict.START_TLS if dialogue.turns[number + 1].who == "secured" else run.verdict)
    _check_end(dialogue, run)


def check_pipelined(dialogue: Dialogue) -> None:
    """A client that waits for no answer before TLS gets the same ones."""
    turns = dialogue.turns
    end = next((number for number, turn in enumerate(turns) if turn.who == "secured"), len(turns))
    said = b"".join(turn.data for turn in turns[:end] if turn.who == "client")
    run = Run(dialogue.make())
    for turn in turns[:1]:
        if turn.who == "start":
            run.take(turn)
    run.feed("client", said)
    for turn in turns[:end]:
        if turn.who == "backend":
            run.take(turn)
    for turn in turns[end:]:
        run.take(turn)
    assert run.to_client == b"".join(turn.to_client for turn in turns)
    assert run.to_backend == b"".join(turn.to_backend for turn in turns)
    _check_end(dialogue, run)


def _check_end(dialogue: Dialogue, run: Run) -> None:
    assert run.verdict is dialogue.verdict
    assert run.tls == dialogue.tls
    reasons = [step.reason for step in run.steps if step.reason is not None]
    assert reasons == ([dialogue.reason] if dialogue.reason else [])
    for step in run.steps:
        assert "\n" not in step.detail
        assert bool(step.detail) == (step.reason is not None)
        assert len(step.detail) < 200
