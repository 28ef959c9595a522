"""A link between two fake ends, on a clock that the test moves."""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass, field

from tests.fakes.end import FakeEnd
from tests.fakes.reactor import FakeReactor
from tlstunnel._openssl import Scratch
from tlstunnel.outcome import CloseReason
from tlstunnel.relay.link import Limits, Link

LIMITS = Limits(idle_s=100.0, half_close_s=10.0, is_strict=False)


RESET = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


SCRATCH = Scratch()


@dataclass
class Setup:
    """A link between two fake ends."""

    limits: Limits = LIMITS
    client_is_tls: bool = False
    ends_in_s: float = math.inf
    room: float = math.inf
    reactor: FakeReactor = field(default_factory=FakeReactor)
    ended: list[tuple[CloseReason, str, Exception | None]] = field(default_factory=list)
    closed: int = 0

    def __post_init__(self) -> None:
        self.client = FakeEnd(self.reactor, SCRATCH, room=self.room)
        self.client.is_tls = self.client_is_tls
        self.backend = FakeEnd(self.reactor, SCRATCH, room=self.room)
        self.cells = [0, 0, 0]
        self.link = Link(
            self.reactor,
            self.client,
            self.backend,
            self.limits,
            scratch=SCRATCH,
            cells=self.cells,
            forward_cell=1,
            reverse_cell=2,
            ends_at=self.reactor.now + self.ends_in_s,
            on_finished=lambda _link, reason, detail, error: self.ended.append((reason, detail, error)),
            on_closed=self._count_closed,
        )

    def _count_closed(self) -> None:
        self.closed += 1

    def start(self) -> Setup:
        self.link.start()
        return self

    @property
    def reason(self) -> CloseReason | None:
        """Why it ended, if it has; never twice."""
        assert len(self.ended) <= 1, f"reported twice: {self.ended}"
        return self.ended[0][0] if self.ended else None

    def is_released(self) -> bool:
        """Whether the link and its farewells have let go of everything."""
        return (
            not self.reactor.held
            and not self.reactor.handlers
            and self.client.closes == self.backend.closes == 1
            and self.closed == 2
        )
