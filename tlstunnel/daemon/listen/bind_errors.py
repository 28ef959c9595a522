"""Why an address cannot be listened on, who is in the way, and what would be right: the texts an operator reads."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

from tlstunnel.errors import words_of

_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))
_OURSELVES = " by another listen address of this configuration"


class ListenRefused(Exception):
    """Why an address cannot be listened on and what would be right; the caller says whose address it is."""


def reason(exc: OSError) -> str:
    return words_of(exc)


def explain_port(port: int, exc: OSError) -> str:
    text: dict[int, Callable[[], str]] = {
        errno.EADDRINUSE: lambda: in_use(port_holder(port), "port"),
        errno.EADDRNOTAVAIL: lambda: "not an address of this machine; write one that is, or :PORT for all of them",
        errno.EAFNOSUPPORT: lambda: "this machine has no IPv6; write an IPv4 address",
        errno.EACCES: lambda: _explain_permission(port),
        errno.EMFILE: lambda: "out of file descriptors; raise LimitNOFILE= or ulimit -n",
        errno.EINVAL: lambda: "not an address to listen on; a link-local one needs its interface: [fe80::1%eth0]:PORT",
    }
    return text.get(exc.errno or 0, lambda: f"{reason(exc)}; write an address of this machine")()


def in_use(holder: str, what: str) -> str:
    """`in use by nginx (pid 812); stop it or choose another port`, whatever is known of the holder."""
    return f"in use{holder}; {'' if holder == _OURSELVES else 'stop it or '}choose another {what}"


def _explain_permission(port: int) -> str:
    lowest = _first_unprivileged_port()
    if 0 < port < lowest:
        return (
            f"permission denied; ports below {lowest} need CAP_NET_BIND_SERVICE (AmbientCapabilities= in the unit), "
            f'root with --user, or a socket unit and "systemd:NAME"; or choose a port from {lowest} on'
        )
    return "permission denied by a security policy (SELinux, AppArmor, RestrictAddressFamilies= or SocketBindDeny=)"


def _first_unprivileged_port() -> int:
    with contextlib.suppress(OSError, ValueError), open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as setting:
        return int(setting.read())
    return 1024


def explain_unix(path: str, exc: OSError) -> str:
    directory = os.path.dirname(path) or "."
    text = {
        errno.ENOENT: f'the directory "{directory}" does not exist; create it, or name it in RuntimeDirectory=',
        errno.ENOTDIR: f'"{directory}" is not a directory',
        errno.EACCES: f'not permitted to create it in "{directory}"; choose a directory that this user may write to',
        errno.EROFS: f'"{directory}" is read-only here; use a directory below /run (RuntimeDirectory= in the unit)',
        errno.EADDRINUSE: "the path exists and could not be removed; remove it or choose another path",
        errno.EPERM: "not permitted to give it to the configured user; start as root or leave user out",
    }
    return text.get(exc.errno or 0, f"{reason(exc)}; choose another path")


def port_holder(port: int) -> str:
    """Who listens on a port, as far as this user may see (` by nginx (pid 812)`), or nothing."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    return next((_describe(pid) for pid in _holders(inodes)), "") if inodes else ""


def peer_of_unix(connected: socket.socket) -> str:
    """The same for the process that listens at the other end of a unix socket (SO_PEERCRED, unix(7))."""
    form = struct.Struct("iII")
    try:
        pid, _, _ = form.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size))
    except OSError:
        return ""
    return _describe(pid) if pid > 0 else ""


def _describe(pid: int) -> str:
    if pid == os.getpid():
        return _OURSELVES
    try:
        with open(f"/proc/{pid}/comm") as comm:
            return f" by {comm.read().strip()} (pid {pid})"
    except OSError:
        return f" by pid {pid}"


def _listening_inodes(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                for line in lines:
                    fields = line.split()
                    # sl local_address rem_address st queues timers retransmits uid timeout inode
                    if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                        yield fields[9]
        except OSError:
            continue


def _holders(inodes: set[str]) -> Iterator[int]:
    try:
        pids = sorted((int(name) for name in os.listdir("/proc") if name.isdigit()), key=lambda pid: pid != os.getpid())
    except OSError:
        return
    for pid in pids:
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    yield pid
        except OSError:
            continue
