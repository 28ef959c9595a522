"""The supervisor's children: workers and the admin process, from fork to reaped.

A child inherits everything and keeps little. The first thing it does is undo what is the supervisor's: signal handlers,
the sockets of other slots, the channels of other workers, privileges. It never returns into the supervisor's code.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tlstunnel.errors import TunnelError
from tlstunnel.observe.board import Row
from tlstunnel.server.channel import MAX_REPORT, ChannelError, Order, Unframer, order_bytes, parse_report
from tlstunnel.server.worker import EXIT_BOOT

_SEND_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class Child:
    """A worker process. Fields are the supervisor's view of it."""

    pid: int
    slot: int
    generation: int
    row: Row
    channel: socket.socket
    started_at: float = field(default_factory=time.time)
    started: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_draining: bool = False
    cut: int = 0
    """Connections that were cut at the end of its drain."""
    pinged: int = 0
    ponged: int = 0
    ponged_at: float = field(default_factory=time.monotonic)
    failure: str = ""
    """Why it could not begin, in its own words."""
    _unframer: Unframer = field(default_factory=lambda: Unframer(MAX_REPORT))

    def order(self, order: Order) -> bool:
        """Tell the worker something. False when it does not listen: it is dead, or as good as."""
        try:
            self.channel.settimeout(_SEND_TIMEOUT_S)
            self.channel.sendall(order_bytes(order))
        except OSError:
            return False
        return True

    def reports(self) -> list[dict[str, Any]]:
        """What the worker has said; call when its channel is readable. Nonsense counts as silence."""
        try:
            data = self.channel.recv(65536, socket.MSG_DONTWAIT)
            return [parse_report(payload) for payload in self._unframer.feed(data)]
        except (BlockingIOError, ConnectionError):
            return []
        except ChannelError:
            self.kill()
            return []

    def kill(self) -> None:
        """End it at once. Reaping follows."""
        signal_process(self.pid, signal.SIGKILL)


def signal_process(pid: int, number: int) -> None:
    """Send a signal to a child that may have ended already."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def fork(body: Callable[[], int]) -> int:
    """Fork a child that runs `body` and exits with what it returns. The child's pid, in the supervisor.

    An error the operator can mend ends the child with EXIT_BOOT and one line; any other is ours and shows its trace.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # What exists now stays for good. Collecting writes into the head of every object it looks at, which would copy
    # every page that parent and child share; frozen, they stay shared.
    gc.disable()
    gc.collect()
    gc.freeze()
    pid = os.fork()
    if pid:
        return pid
    status = EXIT_BOOT
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        status = body()
    except TunnelError as exc:
        sys.stderr.write(f"tlstunnel: {exc}\n")
    except BaseException:  # noqa: BLE001 - nothing may unwind into the supervisor's code
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
