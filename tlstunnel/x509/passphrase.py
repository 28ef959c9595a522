"""What may be wrong with a passphrase that opens nothing."""

from __future__ import annotations


def oddity(line: bytes) -> str:
    """What an editor may have put into a passphrase that its owner does not see, for the end of a name."""
    if line.startswith(b"\xef\xbb\xbf"):
        return " (which begins with a byte order mark)"
    if line != line.strip():
        return f" (which {'ends' if line != line.rstrip() else 'begins'} with a blank)"
    return ""
