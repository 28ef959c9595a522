"""What a ticket stands for: the PSK with which two ends that met before recognise each other (RFC 8446 4.6.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlstunnel.tools.tls13.names import CipherSuite


@dataclass(frozen=True, slots=True)
class Session:
    """A resumable session. The client finds it behind its ticket; the server looks the ticket up.

    `lifetime` is in seconds. The ticket and the PSK are as good as a password and never show in a `repr`.
    """

    ticket: bytes = field(repr=False)
    psk: bytes = field(repr=False)
    suite: CipherSuite
    age_add: int = field(repr=False)
    lifetime: int
    max_early_data: int = 0

    def obfuscated_age(self, age_ms: int) -> int:
        """The age to put into a ClientHello, made unlinkable by the number only the two ends know (4.2.11.1)."""
        return (age_ms + self.age_add) % (1 << 32)
