"""Giving up privileges for good, in each forked worker.

Theory of operation. Started as root with a `user`, the supervisor stays root: it binds low ports and reads keys again
at a reload. Everything that talks to the network runs in processes forked from it, and the first thing such a process
does is `drop`. The order is forced: groups first (only root may set them), then the group, then the user. Setting all
three user ids from 0 to something else makes the kernel clear the permitted, effective and ambient capability sets
(capabilities(7)); no_new_privs then keeps execve from handing any back through a set-user-ID file. Changing the user id
also makes the process undumpable, so another process of that user can neither trace it nor read its memory (prctl(2)).

None of it is believed before it is checked: the ids are read back, becoming root again is tried and must fail, and the
capability sets must be empty. A worker that is not what it should be does not start.

What somebody who takes over a worker has then: the worker's memory, that is the keys and tickets it serves with and the
connections of its slot; its listening sockets and its channel to the supervisor; and the files that the user may read.
Not: the key files (unless readable by that user), other workers' memory, the supervisor, low ports, root.

Started without root there is nothing to become; `shed` then drops the capabilities that a unit granted for binding
(AmbientCapabilities=), which only the supervisor needs.

A supervisor that stays root needs little of what root may do; `narrow` leaves it that: user and group changes for its
workers, signals to them, low ports, keys of any owner, and giving a unix socket's file to the workers' user. It
may no longer write to other users' files and directories, load modules, mount, trace or configure the network.
"""

from __future__ import annotations

import ctypes
import grp
import importlib
import os
import pwd
from dataclasses import dataclass

from tlstunnel.errors import StartupError, words_of

_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522  # 64 bits per set, as two 32-bit halves (capget(2))
# Bit numbers of capabilities(7).
_CAP_CHOWN, _CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_NET_BIND_SERVICE = 0, 2, 5, 6, 7, 10
SUPERVISOR_KEEPS = frozenset(
    {_CAP_CHOWN, _CAP_DAC_READ_SEARCH, _CAP_KILL, _CAP_SETGID, _CAP_SETUID, _CAP_NET_BIND_SERVICE}
)
_SETS = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is to be."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All groups, the primary one among them."""


def resolve_identity(user: str | None, group: str | None) -> Identity | None:
    """Look up the configured names (or numbers); None when there is nothing to become.

    Raises:
        StartupError: as `look_up`, or we may not become somebody else.
    """
    identity = look_up(user, group)
    if identity is not None and os.geteuid() != 0:
        if identity.uid == os.getuid() and identity.gid in (os.getgid(), *os.getgroups()):
            return None
        raise StartupError(f'process.user: only root can become "{user}"; start as root or leave user and group out')
    return identity


def look_up(user: str | None, group: str | None) -> Identity | None:
    """Who the configured names (or numbers) are, whether or not we may become them; None when none is configured.

    Without `group` it is the user's own primary group and memberships; with it, that group alone, because who names a
    group means to narrow what can be reached.

    Raises:
        StartupError: a name is unknown here, or root is asked for.
    """
    if user is None:
        if group is None:
            return None
        raise StartupError("process.group: a group alone leaves the workers root; write process.user too")
    entry = _user(user)
    gid = entry.pw_gid if group is None else _group(group)
    if entry.pw_uid == 0:
        raise StartupError('process.user: "root" gives up nothing; write the name of a user without privileges')
    if gid == 0:
        raise StartupError("process.group: the workers would be in root's group; write a group without privileges")
    groups = (gid,) if group is not None else tuple(sorted({*os.getgrouplist(entry.pw_name, gid)}))
    return Identity(entry.pw_name, entry.pw_uid, gid, groups)


# What Python imports by itself when it is first needed: the codec of host names, and that of files in /proc.
_IMPORTED_LATER = ("encodings.idna", "encodings.ascii")


def prepare(identity: Identity | None) -> None:
    """In the supervisor, before the first fork: import what children would import after they have become somebody
    else, who may not be allowed to read the files of this interpreter (in root's home, for example)."""
    if identity is not None:
        for name in _IMPORTED_LATER:
            importlib.import_module(name)


def become(identity: Identity | None) -> None:
    """What a process that speaks to the network does first: `drop` if there is somebody to become, else `shed`."""
    if identity is not None:
        drop(identity)
    else:
        shed()


def drop(identity: Identity) -> None:
    """Become this identity, irrevocably. For a process just forked from a root supervisor.

    Raises:
        StartupError: a step failed, or a privilege is still there afterwards. The process must then exit.
    """
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as exc:
        reason = words_of(exc)
        raise StartupError(
            f'cannot become "{identity.user}": {reason}; start as root with CAP_SETUID and CAP_SETGID'
        ) from exc
    _forbid_new_privileges()
    _verify(identity)


def shed() -> None:
    """Give up every capability this process still has: for a worker of a supervisor that is not root.

    Raises:
        StartupError: the kernel refused, which it has no reason to.
    """
    _forbid_new_privileges()
    if any(capabilities().values()):
        _keep_capabilities(0)
        _verify_capabilities()


def narrow(keep: frozenset[int] = SUPERVISOR_KEEPS) -> None:
    """Give up every capability but these, of those there are: for a supervisor that stays root.

    Raises:
        StartupError: the kernel refused.
    """
    _forbid_new_privileges()  # before: an exec by uid 0 would otherwise be given everything back
    _keep_capabilities(sum(1 << bit for bit in keep))


def capabilities() -> dict[str, int]:
    """This process's capability sets by their names in proc(5), as bit masks."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status if ":" in line)
    return {name: int(fields[name], 16) for name in _SETS}


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        pass
    try:
        return pwd.getpwuid(int(name))
    except (KeyError, ValueError, OverflowError):
        raise StartupError(
            f'process.user: this machine has no user "{name}"; create it with: useradd --system {name}'
        ) from None


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        pass
    try:
        return grp.getgrgid(int(name)).gr_gid
    except (KeyError, ValueError, OverflowError):
        raise StartupError(
            f'process.group: this machine has no group "{name}"; create it with: groupadd --system {name}'
        ) from None


def _forbid_new_privileges() -> None:
    _call(ctypes.CDLL(None, use_errno=True).prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _keep_capabilities(mask: int) -> None:
    """Set permitted and effective to what they have of the mask; empty the inheritable and the ambient set."""
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    mask &= capabilities()["CapPrm"]
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # effective, permitted, inheritable: the lower halves, then the upper ones
    _call(libc.capset, header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> None:
    # prctl(2) takes unsigned longs; passed as Python's default, int, their upper halves would be left to chance.
    if function(*(ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments)):
        reason = os.strerror(ctypes.get_errno()).lower()
        raise StartupError(f"cannot give up privileges: {function.__name__}: {reason}")


def _verify(identity: Identity) -> None:
    facts = (
        (os.getresuid(), (identity.uid,) * 3, "user ids"),
        (os.getresgid(), (identity.gid,) * 3, "group ids"),
        (set(os.getgroups()), set(identity.groups), "supplementary groups"),
    )
    for seen, wanted, name in facts:
        if seen != wanted:
            raise StartupError(f'became "{identity.user}" only in part: {name} are {seen} instead of {wanted}')
    _verify_capabilities()
    try:
        os.setresuid(-1, 0, -1)
    except PermissionError:
        return
    raise StartupError(f'became "{identity.user}" but could become root again')


def _verify_capabilities() -> None:
    # The inheritable set alone gives nothing: with no_new_privs no file adds to it. It is left out for that reason.
    left = {name: f"{mask:x}" for name, mask in capabilities().items() if mask and name != "CapInh"}
    if left:
        raise StartupError(f"capabilities are left after giving up privileges: {left}")
