"""Files of keys and certificates: written whole or not at all.

Theory of operation. What we write is read by daemons that reload on change, and we may be killed at any instruction, so
a file appears under its name only when all of its bytes are on the disk: write to a temporary name in the same folder,
fsync, then link (fails if the name is taken) or rename (replaces), then fsync the folder. The mode is set before the
first byte, not after: a key is never readable by others, not even for a moment.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tlstunnel.errors import StartupError, TunnelError, UsageError, words_of
from tlstunnel.x509.pem import MAX_CREDENTIAL_BYTES, read_file

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600
DIRECTORY_MODE = 0o755
_TOKEN_BYTES = 6


def read(path: Path, *, limit: int = MAX_CREDENTIAL_BYTES) -> bytes:
    """All bytes of a file, as a tunnel reads it; `-` is standard input.

    Raises:
        MaterialError: it cannot be read, is empty, or has more than `limit` bytes.
    """
    if str(path) != "-":
        return read_file(path, limit).data
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise UsageError("-", f"is larger than {limit >> 20} MiB; give certificates or keys")
    return data


def unwritable(path: Path, exc: OSError) -> TunnelError:
    """The error for a file that could not be written."""
    if exc.errno == errno.EEXIST:
        return UsageError(str(path), "exists already; choose another name, or --force to replace it")
    hint = {
        errno.ENOENT: "no such directory; make it first",
        errno.EACCES: "permission denied; choose a directory you may write to",
        errno.EPERM: "permission denied; choose a directory you may write to",
        errno.EROFS: "the file system is read-only; choose another directory",
        errno.ENOSPC: "no space left on the device; free some",
        errno.ENOTDIR: "a part of the path is not a directory; check the path",
        errno.EISDIR: "this is a directory; name a file in it",
        errno.ENAMETOOLONG: "the file name is too long; choose a shorter one",
    }.get(exc.errno or 0, words_of(exc))
    return StartupError(f"{path}: {hint}")


def make_directory(path: Path) -> None:
    """Make a directory and those above it, of mode 0755 whatever the umask; one that exists is left as it is.

    Raises:
        StartupError: it cannot be made.
        UsageError: there is a file of that name.
    """
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.exists():
                _make_one(folder)
        if not path.is_dir():
            raise UsageError(str(path), "this is a file; name a directory")
    except OSError as exc:
        raise unwritable(path, exc) from exc


@contextlib.contextmanager
def delivering(*paths: Path) -> Iterator[None]:
    """Make the folder of files that are written in this block; if not all of them are, none is left, and no new folder.

    A file that was there before stays, as it was or as it is then.

    Raises:
        StartupError: the folder cannot be made.
        UsageError: there is a file of that name.
    """
    folder = paths[0].parent
    new = [path for path in paths if not os.path.lexists(path)]
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        make_directory(folder)
        yield
    except BaseException:
        for path in new:
            with contextlib.suppress(OSError):
                path.unlink()
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


def _make_one(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):  # somebody was faster
        folder.mkdir(mode=0o700)  # not open to anybody before its mode is what it shall be
        folder.chmod(DIRECTORY_MODE)


def refuse_existing(*paths: Path, force: bool) -> None:
    """Fail before any work is done if a file would be overwritten.

    Raises:
        UsageError: one of the paths exists and `force` is false, or one is a directory.
        StartupError: its folder cannot be looked into.
    """
    for path in paths:
        try:
            is_directory = path.is_dir()
        except OSError as exc:
            raise unwritable(path, exc) from exc
        if is_directory:
            raise UsageError(str(path), "this is a directory; name a file in it")
        if not force and os.path.lexists(path):
            raise UsageError(str(path), "exists already; choose another name, or --force to replace it")


def write(path: Path, data: bytes, *, secret: bool, replace: bool) -> None:
    """Write a file so that it is seen whole or not at all, also after a crash.

    Args:
        secret: Readable by the owner only (0600), whatever the umask.
        replace: Whether a file of that name is replaced; a symbolic link is followed, so that a link
            `current.pem -> 2026.pem` survives.

    Raises:
        UsageError: the file exists and `replace` is false.
        StartupError: it cannot be written.
    """
    if replace and path.is_symlink():
        path = Path(os.path.realpath(path))
    start = f".{path.name[:100]}."
    temporary = path.with_name(f"{start}{secrets.token_hex(_TOKEN_BYTES)}.tmp")
    try:
        _remove_abandoned(path.parent, start)
        try:
            with _begin(temporary) as file:
                if not secret:
                    os.fchmod(file.fileno(), PUBLIC_MODE)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_directory(path.parent)
    except OSError as exc:
        raise unwritable(path, exc) from exc


def _begin(temporary: Path) -> BinaryIO:
    """A new file, locked for as long as it is open: whoever can lock it knows that it was left behind."""
    while True:
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, SECRET_MODE))  # noqa: SIM115
        with contextlib.suppress(OSError):  # a file system without locks, where then nobody removes anything
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # somebody was faster, and took it for left behind


def _remove_abandoned(folder: Path, start: str) -> None:
    """Remove what a `write` of the same file has left that was killed. One that is under way holds its lock."""
    for entry in os.scandir(folder):
        if re.fullmatch(re.escape(start) + f"[0-9a-f]{{{2 * _TOKEN_BYTES}}}\\.tmp", entry.name):
            with contextlib.suppress(OSError), open(entry.path, "rb", opener=_open_no_link) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


def _open_no_link(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def remove_stale(folder: Path) -> None:
    """Remove what an interrupted `write` left in a folder, which nobody else is writing to."""
    for stale in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, made if it is missing and never removed.

    Waits for whoever holds it. The kernel lets go of the lock when its holder dies, so a crash leaves nothing to
    clean up; flock(2) is per open file, so two threads of one process exclude each other as well.

    Raises:
        StartupError: the lock file cannot be opened or locked.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET_MODE)
    except OSError as exc:
        raise unwritable(path, exc) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as exc:
            raise unwritable(path, exc) from exc
        yield
    finally:
        os.close(descriptor)
