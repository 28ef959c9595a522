"""A unix socket to listen on: its file has the right permissions, and the process that made it removes it.

Nothing spreads the connections of a unix socket over several descriptors: its worker slots share one. A file may be
left from a daemon that died. To find out, the daemon connects to it, and removes it only if it is a socket that
refuses the connection. Between the two another daemon could start on the same path, so the file's inode is compared
before the removal; two daemons that start on one path in the same instant are not told apart.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass

from tlstunnel.daemon.listen.bind_errors import ListenRefused, explain_unix, in_use, peer_of_unix

UNIX_MODE = 0o660
"""Owner and group may connect to a unix socket. Unlike a loopback port a file can be kept from other users, and behind
a listener in client mode is our certificate. An operator who wants another mode says so, or uses a socket unit."""


@dataclass(frozen=True, slots=True)
class UnixFile:
    """A unix socket file that this process made: this process alone removes it, and only this file."""

    path: str
    device: int
    inode: int
    made_by: int

    def unlink(self) -> None:
        """Remove the file, if it is still ours and we are the process that made it (not a fork of it)."""
        if os.getpid() != self.made_by:
            return
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if _identity(self.path) == (self.device, self.inode):
                os.unlink(self.path)

    def set_mode(self, mode: int) -> None:
        """Change the file's permissions, if it is still ours."""
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) != (self.device, self.inode):
                return
            try:
                os.chmod(self.path, mode)
            except PermissionError:
                # The file is the workers' user's, and we may change only our own: take it, change it, give it back.
                os.chown(self.path, os.geteuid(), -1)
                os.chmod(self.path, mode)
                os.chown(self.path, found.st_uid, -1)


def bind_unix(path: str, *, mode: int, owner: tuple[int, int] | None, backlog: int) -> tuple[socket.socket, UnixFile]:
    """Listen on a unix socket whose file has the given mode, and the owner (uid, gid) if there is one to give.

    Raises:
        ListenRefused: something lives there, is no socket, or the directory does not let us.
    """
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The umask makes the file right from its first instant; nothing else runs in this process meanwhile.
    umask = os.umask(0o777 & ~mode)
    made: UnixFile | None = None
    try:
        sock.bind(path)
        made = UnixFile(path, *_identity(path), os.getpid())
        if owner is not None:
            os.chown(path, *owner)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        if made is not None:
            made.unlink()
        raise ListenRefused(explain_unix(path, exc)) from exc
    finally:
        os.umask(umask)
    return sock, made


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _clear_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except OSError:
        return  # there is nothing, or we may not see it: bind says which
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenRefused("the path exists and is not a socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):  # what stops the removal stops bind, too, which says it better
                if _identity(path) == (found.st_dev, found.st_ino):
                    os.unlink(path)
            return
        except FileNotFoundError:
            return
        except PermissionError as exc:
            raise ListenRefused("a socket of another user is there; remove it or choose another path") from exc
        except OSError:
            pass  # EAGAIN: its queue is full; EPROTOTYPE: it takes datagrams. Either way it lives.
        raise ListenRefused(in_use(peer_of_unix(probe), "path"))
