"""The certificates a TLS server sends, whatever they are worth: no more connections than it takes to see them.

Nothing is verified here, since the point is to look at a chain that may be expired, incomplete or for another name.
"""

from __future__ import annotations

from collections.abc import Callable

from tlstunnel.address import Target, TCPAddress
from tlstunnel.errors import StartupError
from tlstunnel.tools.probe.ask import Asker, refusal, sni_of
from tlstunnel.tools.probe.handshake import Plan, handshake
from tlstunnel.tools.probe.hello import SSL_3_0, TLS_1_0, TLS_1_1
from tlstunnel.tools.probe.legacy import Contexts
from tlstunnel.tools.probe.legacy import handshake as legacy_handshake
from tlstunnel.tools.probe.route import Limits, Route
from tlstunnel.tools.probe.trouble import BrokenTLS, Trouble
from tlstunnel.tools.tls13.names import TLS_1_2

LIMITS = Limits(connect_s=5.0, answer_s=10.0, total_s=15.0)


def fetch_chain(target: Target, *, server_name: str | None = None, limits: Limits = LIMITS) -> tuple[bytes, ...]:
    """The certificates the server sends, in DER, its own first: those of TLS 1.3, else those of an older version.

    Args:
        server_name: Asked for (SNI) instead of the target's host.

    Raises:
        StartupError: the server cannot be reached, stays silent, speaks no TLS, or sends no certificate.
    """
    route = Route(target, limits)
    name = sni_of(server_name or (target.host if isinstance(target, TCPAddress) else ""))
    asker = Asker(route, name)
    try:
        route.resolve()
        for ways in (_modern, _plain, _library, _oldest):
            chain = _try(ways, asker)
            if chain:
                return chain
    except Trouble as exc:
        raise StartupError(f"{target}: {exc}") from exc
    raise StartupError(f"{target}: {refusal(asker.last)}")


def _try(way: Callable[[Asker], tuple[bytes, ...]], asker: Asker) -> tuple[bytes, ...]:
    try:
        return way(asker)
    except BrokenTLS:
        if way is not _modern:
            raise
        return ()  # a server of an older version breaks the rules of TLS 1.3 by its first word


def _modern(asker: Asker) -> tuple[bytes, ...]:
    return handshake(asker.route, Plan(server_name=asker.server_name)).chain


def _plain(asker: Asker) -> tuple[bytes, ...]:
    return asker.ask(asker.offer(TLS_1_2, TLS_1_1, TLS_1_0)).chain


def _library(asker: Asker) -> tuple[bytes, ...]:
    """TLS 1.3 with groups that only the library knows."""
    return legacy_handshake(asker.route, Contexts().any_version, asker.server_name).chain


def _oldest(asker: Asker) -> tuple[bytes, ...]:
    return asker.ask(asker.offer(SSL_3_0)).chain
