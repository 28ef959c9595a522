"""A passphrase: from a file or the environment, never shown."""

from __future__ import annotations

import os
from pathlib import Path

from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import files

MAX_BYTES = 1024
"""OpenSSL's tools read passphrases into a buffer of this size (PEM_BUFSIZE), so longer ones would not travel."""


class Passphrase:
    """Holds a passphrase so that no repr, log or traceback shows it."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str | bytes, *, where: str = "passphrase") -> None:
        """
        Raises:
            UsageError: it is empty or too long.
        """
        data = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
        if not data:
            raise UsageError(where, "the passphrase is empty; give one of at least one character")
        if len(data) > MAX_BYTES:
            raise UsageError(where, f"the passphrase is longer than {MAX_BYTES} bytes; give a shorter one")
        self._secret = data

    def __repr__(self) -> str:
        return "Passphrase(...)"

    def reveal(self) -> bytes:
        """The passphrase itself, for the library that encrypts with it."""
        return self._secret


def from_file(path: Path) -> Passphrase:
    """The first line of a file, without its line ending.

    Raises:
        MaterialError: a file cannot be read.
        UsageError: the line is empty or too long.
    """
    line = files.read(path, limit=64 << 10).split(b"\n", 1)[0].removesuffix(b"\r")
    return Passphrase(line, where=str(path))


def from_environment(variable: str) -> Passphrase:
    """The value of an environment variable.

    Raises:
        UsageError: it is not set or empty.
    """
    value = os.environb.get(os.fsencode(variable))
    if value is None:
        raise UsageError("environment", f'"{variable}" is not set; put the passphrase in it')
    return Passphrase(value, where=f"environment {variable}")
