"""Listening sockets that systemd opened for us (sd_listen_fds(3)).

systemd starts us with them as descriptors 3 and up and says so in three variables: `LISTEN_PID` (who is meant),
`LISTEN_FDS` (how many) and `LISTEN_FDNAMES` (their names, colon-separated, from FileDescriptorName=; several may have
the same). Here they become sockets by name. The variables are removed, so that nothing we start takes our descriptors
for its own, and the descriptors are closed on exec for the same reason. The sockets belong to systemd: nobody here
unlinks their paths, and closing ours does not stop systemd from listening.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field

from tlstunnel.errors import StartupError, words_of

_FIRST = 3  # SD_LISTEN_FDS_START
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


@dataclass(frozen=True, slots=True)
class Inherited:
    """The sockets passed in, by name. Empty when we were not started by socket activation."""

    sockets: Mapping[str, tuple[socket.socket, ...]] = field(default_factory=dict)

    def describe(self) -> str:
        """The names passed in, for messages: `"web", "admin"`."""
        return ", ".join(f'"{name}"' for name in self.sockets)


def take_inherited(environ: MutableMapping[str, str] = os.environ, *, first: int = _FIRST) -> Inherited:
    """Take over what systemd passed to this process and remove the variables that said so.

    Args:
        environ: where the variables are read and removed.
        first: the lowest descriptor passed.

    Raises:
        StartupError: a descriptor is no listening stream socket, or the variables contradict each other.
    """
    pid, count, names = (environ.pop(name, None) for name in _VARIABLES[:3])
    environ.pop(_VARIABLES[3], None)
    if pid is None or count is None:
        return Inherited()
    if not (pid.isdecimal() and count.isdecimal()):
        raise StartupError(
            f'socket activation: LISTEN_PID="{pid}" and LISTEN_FDS="{count}" are not both numbers; '
            "leave these variables to systemd"
        )
    if int(pid) != os.getpid():
        return Inherited()  # meant for another process, whose child we are
    listed = names.split(":") if names else ["unknown"] * int(count)  # as sd_listen_fds_with_names(3) calls them
    if len(listed) != int(count):
        raise StartupError(
            f'socket activation: LISTEN_FDNAMES="{names}" has {len(listed)} names for {count} descriptors; '
            "leave these variables to systemd"
        )
    taken: dict[str, tuple[socket.socket, ...]] = {}
    problems = []
    for fd, name in enumerate(listed, start=first):
        try:
            taken[name] = (*taken.get(name, ()), _adopt(fd))
        except (OSError, ValueError) as exc:
            problems.append(f'socket activation: descriptor {fd} ("{name}"): {_explain(exc)}')
    if problems:
        for sockets in taken.values():
            for sock in sockets:
                sock.close()
        raise StartupError("\n".join(problems))
    return Inherited(taken)


def _adopt(fd: int) -> socket.socket:
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or sock.type != socket.SOCK_STREAM:
            raise ValueError("not a TCP or unix stream socket; use ListenStream= in the socket unit")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("not listening; use Accept=no in the socket unit")
        sock.setblocking(False)
    except (OSError, ValueError):
        sock.detach()  # left as it was found: it is not ours to close
        raise
    return sock


def _explain(exc: OSError | ValueError) -> str:
    if isinstance(exc, OSError):
        return f"{words_of(exc)}; pass listening sockets only, with ListenStream="
    return str(exc)
