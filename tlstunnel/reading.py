"""Files that somebody else names, read whole, within a bound of size and a bound of time.

Theory of operation. The name in a configuration or on a command line may lead to anything: a directory, a device
without an end, a disk image, a named pipe that nobody writes to. open(2) waits for ever for the writer of a pipe, and
read(2) fills the memory from a device. So a file is opened without waiting, looked at, and read as far as a bound.

Pipes are good for what should not lie on a disk: `--key <(pass show key)`. What is in a pipe is there once and can be
gone the next moment, so it is read to its end, within a time limit, and kept for whoever asks for the same pipe again:
two services may name it. `forget_pipes` ends that. After it such a pipe is refused, since it would give nothing.

Why a file cannot be read is said here and nowhere else, so that every command says the same of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tlstunnel.errors import printable, words_of

PIPE_PATIENCE_S = 10.0
"""How long the writer of a pipe may take from our opening it to its end; a third of the units' WatchdogSec=."""

_CHUNK = 1 << 20
_RIGHT = "name a file"
_DIRECTORY = "is a directory; name a file in it"

_pipes: dict[tuple[int, int], int | None] = {}
"""Descriptors of anonymous files that hold what pipes have given, by device and inode; None for one whose content was
forgotten. It is moved there by the kernel: a passphrase among it is nowhere in our memory, and a process that we fork
to use it finds it there."""


class UnfitFileError(Exception):
    """A file that cannot be read: the message says why, and what would be right; the path is left to the caller.

    `is_machine` says that the name may be right, and the machine or somebody else has not done their part.
    """

    def __init__(self, what: str, *, is_machine: bool = False) -> None:
        self.is_machine = is_machine
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file held at one moment, and its mode (as in `st_mode`)."""

    data: bytes = field(repr=False)
    mode: int


def read_whole(path: Path, limit: int) -> Content:
    """Read a file or a pipe of at most `limit` bytes.

    Raises:
        UnfitFileError: it cannot be opened or read, is no file and no pipe, is larger, or is a pipe whose writer does
            not come to an end.
    """
    with _opened(path) as fd:
        found = os.fstat(fd)
        data = _from_pipe(fd, found, limit) if stat.S_ISFIFO(found.st_mode) else _from_file(fd, found.st_mode, limit)
    if len(data) > limit:
        raise UnfitFileError(_too_large(limit))
    return Content(data, found.st_mode)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    with _saying_why(path):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            yield fd
        finally:
            os.close(fd)


@contextlib.contextmanager
def _saying_why(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UnfitFileError(_refusal(exc, path), is_machine=exc.errno != errno.ENXIO) from exc
    except ValueError as exc:
        raise UnfitFileError("is not a path; it has a NUL character in it") from exc


def _refusal(exc: OSError, path: Path) -> str:
    if exc.errno == errno.ENXIO:
        return f"is a socket, or a device that is not there; {_RIGHT}"
    if isinstance(exc, FileNotFoundError):
        if path.is_symlink():
            return "is a symbolic link to a file that does not exist; link it to another"
        folder = path.parent
        nor = "" if folder.exists() else f", nor does {printable(str(folder))}"
        return f"does not exist{nor}; check the path"
    if isinstance(exc, PermissionError):
        return f"permission denied for user {_user()}; let its group read it (chgrp, chmod 640)"
    return f"cannot be read: {words_of(exc)}; check the path"


def _user() -> str:
    import pwd  # noqa: PLC0415  only here, when something is wrong

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _too_large(limit: int) -> str:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return f"is larger than {size}; this cannot be the file that was meant"


def show_whole(path: Path, limit: int, show: Callable[[memoryview], None]) -> None:
    """Give `show` what a file of at most `limit` bytes holds, and keep nothing of it in memory.

    Raises:
        UnfitFileError: as `read_whole`.
    """
    with _opened(path) as fd:
        found = os.fstat(fd)
        _require_regular(found.st_mode)
        data = bytearray(min(found.st_size, limit) + 1)
        try:
            size = 0
            while size < len(data) and (more := os.readv(fd, [memoryview(data)[size:]])):
                size += more
            if size == len(data):
                raise UnfitFileError("grows while it is read" if size <= limit else _too_large(limit))
            show(memoryview(data)[:size])
        finally:
            data[:] = bytes(len(data))


def is_pipe(path: Path) -> bool:
    """Whether the path leads to a pipe. It is not opened, since a writer would take that for a reader."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def require_readable(path: Path) -> None:
    """Refuse what `read_whole` would refuse before it reads.

    Raises:
        UnfitFileError: it cannot be opened, or is no file and no pipe.
    """
    if not is_pipe(path):
        with _opened(path) as fd:  # the only honest test of permissions
            _require_regular(os.fstat(fd).st_mode)
    elif not os.access(path, os.R_OK):  # opened and closed again, it would be lost to its writer
        raise UnfitFileError(_refusal(PermissionError(), path), is_machine=True)


def require_file(path: Path) -> None:
    """Refuse what a library that opens files by their names could wait for: pipes and devices.

    Raises:
        UnfitFileError: there is nothing of that name, or it is no regular file.
    """
    with _saying_why(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnfitFileError(_DIRECTORY if stat.S_ISDIR(mode) else "is not a regular file; name one")


def hold_pipe(path: Path, limit: int) -> None:
    """Take what a pipe gives without looking at it, for a process that is forked to use it; a file is left alone.

    Raises:
        UnfitFileError: as `read_whole`.
    """
    if is_pipe(path):
        with _opened(path) as fd:
            _content_of_pipe(fd, os.fstat(fd), limit)


def forget_pipes() -> None:
    """Keep nothing of what pipes have given: there may be keys and passphrases among it."""
    for content in _pipes.values():
        if content is not None:
            os.close(content)
    _pipes.update(dict.fromkeys(_pipes))


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnfitFileError(_DIRECTORY)
    if not stat.S_ISREG(mode):
        raise UnfitFileError(f"is a device; {_RIGHT}")


def _from_file(fd: int, mode: int, limit: int) -> bytes:
    _require_regular(mode)
    chunks, left = [], limit + 1
    while left > 0 and (chunk := os.read(fd, min(left, _CHUNK))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def _from_pipe(fd: int, found: os.stat_result, limit: int) -> bytes:
    return os.pread(_content_of_pipe(fd, found, limit), limit + 1, 0)


def _content_of_pipe(fd: int, found: os.stat_result, limit: int) -> int:
    known = _pipes.get((found.st_dev, found.st_ino), -1)
    if known is None:
        what = f"is a pipe, and was read to its end at the start; {_RIGHT}, or restart tlstunnel"
        raise UnfitFileError(what, is_machine=True)
    if known < 0:
        known = os.memfd_create("pipe", os.MFD_CLOEXEC)
        try:
            _drain(fd, known, limit)
        except BaseException:
            os.close(known)
            raise
        if os.fstat(known).st_size:
            _pipes[found.st_dev, found.st_ino] = known
    return known


def _drain(fd: int, into: int, limit: int) -> None:
    """Move everything up to the end of the last writer, and not much more than the limit.

    A pipe reads as ended while it has no writer: after all have gone, but also before one has come (pipe(7)).
    """
    size = 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + PIPE_PATIENCE_S
    had_writer = False
    while size <= limit:
        try:
            moved = os.splice(fd, into, min(limit + 1 - size, _CHUNK), flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            had_writer = True
        else:
            if moved:
                size += moved
                had_writer = True
                continue
            if had_writer:
                break
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        had_writer |= bool(ready)
        if not ready and time.monotonic() >= deadline:
            what = "whose writer does not come to an end" if had_writer else "that nobody writes to"
            what = f"is a pipe {what} within {PIPE_PATIENCE_S:.0f} s; start its writer first, or {_RIGHT}"
            raise UnfitFileError(what, is_machine=True)
