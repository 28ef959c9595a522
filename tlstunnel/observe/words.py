"""Numbers as people read them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tlstunnel import lifetime


def duration(seconds: float) -> str:
    """The two largest units of a duration: `3d 4h`."""
    found: list[str] = []
    rest = int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or found or unit == "s":
            found.append(f"{count}{unit}")
    return " ".join(found[:2])


def amount(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def time_left(document: dict[str, Any], certificate: dict[str, Any]) -> str:
    """How long one of a status document's certificates was good for when the document was made."""
    return lifetime.left(datetime.fromisoformat(certificate["not_after"]), _made(document))


def urgency(document: dict[str, Any], certificate: dict[str, Any]) -> lifetime.Urgency:
    """How near its end was when the document was made."""
    begin, end = (datetime.fromisoformat(certificate[name]) for name in ("not_before", "not_after"))
    return lifetime.urgency(begin, end, _made(document))


def days_cell(document: dict[str, Any], certificate: dict[str, Any]) -> str:
    """The same for a column of days: their number, and words where that says nothing."""
    days = certificate["days_left"]
    return f"{days:,}" if days > 0 else time_left(document, certificate)


def _made(document: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(document["started_at"]) + timedelta(seconds=document["uptime_s"])
