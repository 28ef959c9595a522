"""A reactor without an epoll: the test tells its handlers what is ready, and what time it is."""

from __future__ import annotations

from collections.abc import Callable

from tlstunnel.relay.reactor import Handler, Held, Reactor


class FakeReactor(Reactor):
    """Keeps who watches what; `advance` moves the clock and tells whose deadline has passed."""

    def __init__(self, now: float = 1000.0) -> None:
        super().__init__()
        self.close()
        self.now = now
        self.handlers: dict[int, Handler] = {}
        self.wants_room: set[int] = set()
        self.queued: list[Handler] = []
        self.held: set[Held] = set()
        self.on_first_held: Callable[[], None] | None = None

    def watch(self, fd: int, handler: Handler, events: int = 0) -> None:
        self.handlers[fd] = handler

    def watch_room(self, fd: int) -> None:
        self.wants_room.add(fd)

    def hand_over(self, fd: int, handler: Handler) -> None:
        self.handlers[fd] = handler

    def forget(self, fd: int) -> None:
        self.handlers.pop(fd, None)

    def pause(self, fd: int) -> None:
        del self.handlers[fd]

    def again(self, handler: Handler) -> None:
        if handler not in self.queued:
            self.queued.append(handler)

    def ready(self, fd: int, events: int) -> None:
        """The descriptor had these edges; nobody there is nobody told, as with the real one."""
        if fd in self.handlers:
            self.handlers[fd].on_ready(fd, events)

    def serve_queued(self) -> int:
        """Serve everybody who asked for another turn, once. How many did."""
        queued, self.queued = self.queued, []
        for handler in queued:
            handler.on_ready(-1, 0)
        return len(queued)

    def settle(self, turns: int = 10_000) -> None:
        """Serve until nobody asks for another turn."""
        for _ in range(turns):
            if not self.serve_queued():
                return
        raise AssertionError("somebody asks for another turn for ever")

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        for held in [held for held in self.held if held.deadline <= self.now]:
            held.on_deadline(self.now)
