"""tlstunnel: modern TLS in front of any TCP service, or behind any TCP client."""

from tlstunnel._version import VERSION as __version__

__all__ = ["__version__"]
