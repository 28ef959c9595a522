"""Telling systemd how we are: the notification protocol (sd_notify(3)), without a dependency.

Theory of operation. The manager names a datagram socket in `$NOTIFY_SOCKET`; each message is one datagram of
`NAME=VALUE` lines, and the manager believes it by the credentials the kernel attaches to it. Which messages belong in
one datagram matters in one place: RELOADING=1 and MONOTONIC_USEC= together tell the manager which of its reload
requests is being answered (Type=notify-reload), and apart they do not.

Being heard is a service to the operator, not a condition for serving: a message that cannot be sent is remembered in
`problem` for the log, and the daemon goes on. The variables are removed from the environment, so that no child speaks
in our name.
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from collections.abc import MutableMapping

from tlstunnel.errors import words_of

_TIMEOUT_S = 2.0  # a manager whose queue stays full that long is not worth a stalled supervisor
_BARRIER_S = 5.0
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Speaks to the service manager; does nothing where there is none.

    Attributes:
        watchdog_s: seconds after which the manager stops a silent service, or None where it does not watch us. Ping at
            least twice as often.
        problem: why the last message was not delivered, or None.
    """

    def __init__(self, path: str | None = None, *, watchdog_s: float | None = None) -> None:
        """`path` is a unix datagram socket; a leading `@` means the abstract namespace (unix(7))."""
        self.watchdog_s = watchdog_s
        self.problem: str | None = None
        self._address = None
        self._socket: socket.socket | None = None
        if path:
            if path[0] not in "/@":
                # vsock: and whatever comes later: meant for a virtual machine's manager, not for a service.
                self.problem = f'NOTIFY_SOCKET="{path}" is no unix socket'
                return
            self._address = b"\0" + os.fsencode(path[1:]) if path[0] == "@" else os.fsencode(path)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.settimeout(_TIMEOUT_S)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """The notifier this process was started with; the variables are removed."""
        path, interval, pid = (environ.pop(name, None) for name in _VARIABLES)
        watched = interval is not None and interval.isdecimal() and int(interval) > 0
        # WATCHDOG_PID names the one process whose pings count; without it any process with WATCHDOG_USEC is meant.
        watched = watched and (pid is None or pid == str(os.getpid()))
        return cls(path, watchdog_s=int(interval) / 1e6 if watched and interval else None)

    @property
    def is_active(self) -> bool:
        """Whether anyone listens."""
        return self._socket is not None

    def ready(self, status: str = "") -> bool:
        """Start-up, or a reload (also one that failed), is over and we serve."""
        return self.send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> bool:
        """A reload begins; `ready` must follow. The time lets the manager match it with the request it made."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self.send("RELOADING=1", f"MONOTONIC_USEC={now_us}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """The drain begins; there is no way back."""
        return self.send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self.send(*_status(text))

    def watchdog(self) -> bool:
        """We are alive. Only to be sent when every worker said so."""
        return self.send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> bool:
        """Allow this much time from now on for the start, reload or stop under way, beyond the configured limit."""
        return self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def failed(self, status: str, error: int = 0) -> bool:
        """Why we are about to exit with an error, as an errno where there is one."""
        return self.send(*([f"ERRNO={error}"] if error else []), *_status(status))

    def send(self, *lines: str) -> bool:
        """One datagram of these lines. False when nobody listens or it could not be delivered (see `problem`)."""
        return self._send("\n".join(lines).encode(), [])

    def barrier(self, timeout_s: float = _BARRIER_S) -> bool:
        """Wait until the manager has read everything sent before: before exiting, so that the last words count.

        The manager closes the descriptor we send along once it gets there. False when it does not in time.
        """
        if self._socket is None:
            return False
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            sent = self._send(b"BARRIER=1", [theirs])
            os.close(theirs)
            theirs = -1
            waiting = select.poll()
            waiting.register(ours, 0)  # POLLHUP comes unasked, when the last writer is gone
            return sent and bool(waiting.poll(timeout_s * 1000))
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)

    def close(self) -> None:
        """Say no more: in a forked worker, or at the end."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: bytes, descriptors: list[int]) -> bool:
        if self._socket is None or self._address is None or not message:
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            self._socket.sendmsg([message], ancillary, 0, self._address)
        except OSError as exc:
            reason = words_of(exc)
            self.problem = f"service manager cannot be told {message.split(b'=')[0].decode()}: {reason}"
            return False
        self.problem = None
        return True


def _status(text: str) -> list[str]:
    # A line break would end the value and begin another assignment.
    return [f"STATUS={' '.join(text.split())}"] if text else []
