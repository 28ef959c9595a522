"""How a conversation goes wrong: we refuse the peer, or the peer refuses us."""

from __future__ import annotations

from tlstunnel.errors import TunnelError
from tlstunnel.tools.tls13.names import AlertDescription, alert_name


class HandshakeFailure(TunnelError):
    """Base of the two ways a TLS 1.3 conversation fails. `alert` is the alert that was sent or received."""

    def __init__(self, alert: int, text: str) -> None:
        self.alert = alert
        self.text = text
        super().__init__(alert, text)


class Violation(HandshakeFailure):
    """The peer broke a rule, so we end the connection with this alert (RFC 8446 section 6.2)."""

    alert: AlertDescription

    def __str__(self) -> str:
        return f"{self.text} (we answered with the alert {alert_name(self.alert)})"


class PeerAlert(HandshakeFailure):
    """The peer ended the connection with a fatal alert."""

    def __init__(self, alert: int) -> None:
        super().__init__(alert, f"the peer refused with the alert {alert_name(alert)}")

    def __str__(self) -> str:
        return self.text
