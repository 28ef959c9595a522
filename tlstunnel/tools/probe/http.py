"""The one request that a probe makes of the service behind TLS, to time its first byte."""

from __future__ import annotations

HTTP = "http/1.1"
"""The ALPN name of the protocol in which the request may be made."""


def head_request(host: str) -> bytes:
    """A request that asks for no content and for no further ones (RFC 9112)."""
    lines = ("HEAD / HTTP/1.1", f"Host: {host}", "User-Agent: tlstunnel-probe", "Connection: close", "", "")
    return "\r\n".join(lines).encode("ascii", "replace")
