"""Which certificate, rules and target a server name leads to.

Exact names come before wildcards, which stand for one label (RFC 9525 section 6.3); among equals, one whose
certificate is valid now comes before one whose is not. A name nobody claims leads to the service's own route, or to
none where `sni_mismatch` is "reject".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tlstunnel.access.policy import Policy
from tlstunnel.config.model import Service, SNIMismatch, TLSSettings
from tlstunnel.connection.dial import Dialer
from tlstunnel.tls.store import ServerSide, ServiceContexts
from tlstunnel.x509.checks import covers


@dataclass(slots=True, eq=False)
class Route:
    """What applies to the connections of some server names."""

    side: ServerSide | None
    """The contexts; None where nothing is terminated."""
    policy: Policy
    dialers: tuple[Dialer, ...]
    tls: TLSSettings = TLSSettings()

    @property
    def has_alpn(self) -> bool:
        """Whether an application protocol is agreed on."""
        return bool(self.tls.alpn)


class Routes:
    """The routes of one service in one worker."""

    def __init__(self, service: Service, contexts: ServiceContexts, dialers: dict[object, Dialer]) -> None:
        self._rejects = service.sni_mismatch is SNIMismatch.REJECT
        self._contexts = contexts
        self.default = Route(
            contexts.server, service.policy, tuple(dialers[each] for each in service.targets), service.tls
        )
        self._exact: dict[str, list[Route]] = {}
        self._wildcard: dict[str, list[Route]] = {}
        for entry, side in zip(service.sni, contexts.sni, strict=True):
            targets = entry.targets or service.targets
            route = Route(side, entry.policy, tuple(dialers[each] for each in targets), entry.tls)
            for name in entry.names:
                table = self._wildcard if name.startswith("*.") else self._exact
                table.setdefault(name.removeprefix("*.").lower(), []).append(route)
        self.is_needed = bool(service.sni) or self._rejects

    def find(self, name: str | None) -> Route | None:
        """The route of a server name; None when it must be refused."""
        if name is not None:
            found = self._exact.get(name) or self._wildcard.get(name.partition(".")[2])
            if found:
                return found[0] if len(found) == 1 else _valid_first(found)
            if self._rejects and not self._is_own(name):
                return None
        return self.default

    def _is_own(self, name: str) -> bool:
        """Whether the service's own certificate is for this name."""
        side = self._contexts.server
        return side is not None and covers(side.names, name)


def _valid_first(routes: Sequence[Route]) -> Route:
    now = time.time()
    return next((route for route in routes if route.side is None or route.side.is_valid_at(now)), routes[0])
