"""Identities as if a certificate had said so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tlstunnel.access.peer import Identity

PIN = "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # of nothing at all


def an_identity(**fields: Any) -> Identity:
    """An identity without any name but those given."""
    given: dict[str, Any] = {
        "common_names": (),
        "organizational_units": (),
        "dns_names": (),
        "uris": (),
        "ip_addresses": (),
        "emails": (),
        "spki_pin": PIN,
        "fingerprint": "ab" * 32,
        "serial": 1,
        "subject": "",
        "issuer": "CN=a CA",
        "not_before": datetime(2026, 1, 1, tzinfo=UTC),
        "not_after": datetime(2027, 1, 1, tzinfo=UTC),
        "is_ca": False,
    }
    return Identity(**given | fields)
