"""A service manager's end of the notification socket: what the daemon told it, in order.

manager = Manager(tmp_path)
with site.run(env=manager.environ):
    manager.until("READY=1")            # the next datagram with this line; those before it are passed over
"""

from __future__ import annotations

import array
import os
import re
import socket
import threading
from pathlib import Path

PATIENCE_S = 60.0
"""Only a hang reaches it."""


class Manager:
    """Listens as systemd does. A watchdog interval, in seconds, is passed on if there is one."""

    def __init__(self, folder: Path, *, watchdog_s: float | None = None, path: str | None = None) -> None:
        address = path or str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.environ = {"NOTIFY_SOCKET": address}
        if watchdog_s is not None:
            self.environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        self.messages: list[str] = []
        self._given = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, line: str) -> str:
        """The next message that has this line."""

        def find() -> int | None:
            places = range(self._given, len(self.messages))
            return next((at for at in places if line in self.messages[at].splitlines()), None)

        with self._changed:
            assert self._changed.wait_for(lambda: find() is not None, PATIENCE_S), f"no {line} in {self.messages}"
            at = find()
            assert at is not None
            self._given = at + 1
            return self.messages[at]

    def match(self, pattern: str) -> re.Match[str]:
        """The first message, of all, in which this is found."""

        def find() -> re.Match[str] | None:
            return next((found for message in self.messages if (found := re.search(pattern, message))), None)

        with self._changed:
            assert self._changed.wait_for(find, PATIENCE_S), f"no {pattern} in {self.messages}"
            found = find()
            assert found is not None
            return found

    def count(self, line: str) -> int:
        """How many messages had this line so far."""
        return sum(line in message.splitlines() for message in list(self.messages))

    def is_silent_for(self, seconds: float, line: str) -> bool:
        """Whether no message with this line comes in that time."""
        before = self.count(line)
        with self._changed:
            return not self._changed.wait_for(lambda: self.count(line) > before, seconds)

    def _read(self) -> None:
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(4096, 256)
            for _, _, content in ancillary:
                for fd in array.array("i", content[: len(content) // 4 * 4]):
                    os.close(fd)
            with self._changed:
                self.messages.append(data.decode())
                self._changed.notify_all()
