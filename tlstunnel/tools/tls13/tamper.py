"""Where a test can lay hands on what a connection sends; the default hands everything on untouched.

A `Connection` asks its `Tamper` about every handshake message before it enters the transcript, and about every
record before it goes out. What comes back is what is sent, and what the transcript then covers, so a changed
conversation stays consistent from the change on. `tests.support.tampering` has those with bad intentions.
"""

from __future__ import annotations

from tlstunnel.tools.tls13.wire import MAX_PLAINTEXT


class Tamper:
    """The honest one."""

    fragment_size = MAX_PLAINTEXT
    """The most bytes of content to put into one record."""

    def messages(self, raw: bytes) -> list[bytes]:
        """What to send in place of this handshake message, each with its header."""
        return [raw]

    def end_flight(self) -> list[bytes]:
        """Messages held back until now, at the end of a flight."""
        return []

    def record(self, encoded: bytes) -> list[bytes]:
        """What to put on the wire in place of this record, header included."""
        return [encoded]
