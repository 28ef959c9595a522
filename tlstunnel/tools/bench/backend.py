"""The plaintext service behind the tunnel of `bench relay`, in a process of its own.

A connection says in its first byte what it wants:

    E                      everything that follows is sent back
    D and a number N       N bytes, then the end
    U and a number N       N bytes follow; one byte says that they have come

Numbers are eight bytes, big-endian. What is uploaded is counted and thrown away inside the kernel (MSG_TRUNC), what is
downloaded comes from one buffer that stays in the cache, so this side is never the busy one.

It prints its port and ends when its standard input does: it cannot outlive whoever started it.
"""

from __future__ import annotations

import select
import socket
import sys

COMMAND = 9
_CHUNK = 256 * 1024
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class _Served:
    """One connection."""

    __slots__ = ("_echo", "_head", "_left", "_what", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._what = b""
        self._head = b""
        self._left = 0
        self._echo = b""

    def go_on(self, area: memoryview) -> bool:
        """Do what can be done now; whether there is more to come."""
        try:
            if not self._what and not self._begin():
                return False
            if self._what == b"D":
                while self._left:
                    self._left -= self.sock.send(area[: min(self._left, _CHUNK)])
                return False
            if self._what == b"U":
                while self._left:
                    taken = self.sock.recv_into(area, min(self._left, _CHUNK), socket.MSG_TRUNC)
                    self._left -= taken
                    if not taken:
                        return False
                self.sock.send(b"U")
                return False
            while True:
                if self._echo:
                    self._echo = self._echo[self.sock.send(self._echo) :]
                elif not (data := self.sock.recv(_CHUNK)):
                    return False
                else:
                    self._echo = data
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def _begin(self) -> bool:
        """Read the command; False when the connection ended before it was there."""
        while True:
            data = self.sock.recv(COMMAND - len(self._head) if self._head else 1)
            if not data:
                return False
            self._head += data
            if self._head == b"E" or len(self._head) == COMMAND:
                self._what, self._left = self._head[:1], int.from_bytes(self._head[1:], "big")
                return True


def main() -> None:
    """Serve until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - the whole point
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    area = memoryview(bytearray(_CHUNK))
    served: dict[int, _Served] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                _accept(listener, poll, served)
            elif fd in served and not served[fd].go_on(area):
                served.pop(fd).sock.close()


def _accept(listener: socket.socket, poll: select.epoll, served: dict[int, _Served]) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        served[sock.fileno()] = _Served(sock)
        poll.register(sock.fileno(), _EDGES)


if __name__ == "__main__":
    main()
