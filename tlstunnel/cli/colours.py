"""The colours that several commands share."""

from __future__ import annotations

from tlstunnel.lifetime import Urgency

URGENCY_STYLES = {Urgency.NONE: "", Urgency.SOON: "yellow", Urgency.NOW: "red", Urgency.PAST: "bold red"}
"""For how long a certificate is still good."""
