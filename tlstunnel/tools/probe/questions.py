"""The questions that hellos alone answer: versions, suites, groups, protocols, and properties of the handshake.

Each function asks one of them, on as many connections as it takes, and returns what was found; none keeps state.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlstunnel.tools.probe import groups, suites
from tlstunnel.tools.probe.answer import Answer
from tlstunnel.tools.probe.ask import Asker
from tlstunnel.tools.probe.choices import Choose, Order, in_turn, order_of
from tlstunnel.tools.probe.handshake import Plan, handshake
from tlstunnel.tools.probe.hello import COMPRESSIONS, SHA1_SCHEMES
from tlstunnel.tools.probe.trouble import BrokenTLS
from tlstunnel.tools.tls13 import extensions as ext
from tlstunnel.tools.tls13.keyexchange import offer as key_share
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, AlertDescription, NamedGroup

PROTOCOLS = (
    "h2", "http/1.1", "http/1.0", "postgresql", "imap", "pop3", "managesieve", "ftp", "nntp", "irc", "mqtt", "dot",
    "xmpp-client", "xmpp-server", "coap", "ntske/1", "stun.turn", "stun.nat-discovery", "webrtc", "c-webrtc",
    "tds/8.0", "radius/1.1", "sunrpc", "smb", "co", "spdy/3", "grpc-exp",
)  # fmt: skip
"""Protocols to ask for (the IANA registry of ALPN names). `acme-tls/1` is left out: it is answered with a certificate
that is there for a certificate authority alone."""
Choices = tuple[list[int], Order | None]
"""What a server took, in the order in which it chose, and whose order that is."""
COMPRESSION_NAMES = {1: "DEFLATE", 64: "LZS"}


def takes_version(asker: Asker, version: int) -> bool:
    """Whether a server agrees to a version when nothing else is offered."""
    answer = _ask_version(asker, version, with_share=False)
    if version == TLS_1_3 and answer.version != version:
        # Not every server knows that a list of key shares may be empty.
        answer = _ask_version(asker, version, with_share=True)
    return answer.version == version


def _ask_version(asker: Asker, version: int, *, with_share: bool) -> Answer:
    offered = asker.offer(version)
    if with_share:
        group = NamedGroup.X25519
        offered = asker.offer(version, shares=(ext.KeyShare(group, key_share(group).public),))
    try:
        return asker.ask(offered)
    except BrokenTLS:
        # A hello may confuse a server that answers others well; then it does not take this version.
        return Answer()


def suites_of(asker: Asker, version: int) -> Choices:
    """The suites of a version, in the order in which the server chose them, and whose order that is."""

    def choose(offered: tuple[int, ...]) -> int | None:
        answer = asker.ask(asker.offer(version, suites=offered))
        return answer.suite if answer.version == version else None

    taken = in_turn(suites.offered_in(version), choose)
    return taken, order_of(taken, choose, unfit=lambda number: "CHACHA20" in suites.suite(number).name)


def groups_in_tls13(asker: Asker, version: int = TLS_1_3) -> Choices:
    """The groups of TLS 1.3, by the HelloRetryRequests that an empty list of key shares brings."""

    def choose(offered: tuple[int, ...]) -> int | None:
        return asker.ask(asker.offer(version, groups=offered)).group

    return _groups(groups.IN_TLS13, choose)


def groups_before_tls13(asker: Asker, version: int, offered_suites: Sequence[int], key_curve: int | None) -> Choices:
    """The curves of TLS 1.2 and before, by the server's key exchanges.

    A server whose certificate has a key on a curve serves only clients that list that curve (RFC 8422 section 5.1). If
    it has a certificate with an RSA key too, that one is asked for. Otherwise the curve stays in the list, last; a
    server with an order of its own then never gets to the curves that it likes less, whoever asks.
    """
    ephemeral = tuple(number for number in offered_suites if suites.suite(number).uses_curves)
    with_rsa = tuple(number for number in ephemeral if suites.suite(number).key_exchange == "ECDHE_RSA")
    if with_rsa:
        ephemeral, key_curve = with_rsa, None
    if not ephemeral:
        return [], None

    def choose(offered: tuple[int, ...]) -> int | None:
        listed = offered if key_curve is None or key_curve in offered else (*offered, key_curve)
        answer = asker.ask(asker.offer(version, suites=ephemeral, groups=listed))
        return answer.key_exchange.group if answer.key_exchange is not None else None

    candidates = [number for number in groups.CURVES if number != key_curve]
    return _groups([*candidates, key_curve] if key_curve is not None else candidates, choose)


def _groups(candidates: Sequence[int], choose: Choose) -> Choices:
    taken = in_turn(candidates, choose)
    return taken, order_of(taken, choose)


def protocols_of(asker: Asker, version: int) -> tuple[list[str], bool | None]:
    """The application protocols a server agrees to, and whether it sends away clients that know none of them."""
    left = [*dict.fromkeys((*asker.alpn, *PROTOCOLS))]
    taken: list[str] = []
    while left:
        chosen, is_refused = _choose_protocol(asker, version, tuple(left))
        if chosen is None or chosen not in left:
            return taken, is_refused
        left.remove(chosen)
        taken.append(chosen)
    return taken, None


def _choose_protocol(asker: Asker, version: int, offered: tuple[str, ...]) -> tuple[str | None, bool | None]:
    if version == TLS_1_3:
        found = handshake(asker.route, Plan(server_name=asker.server_name, alpn=offered, only_extensions=True))
        is_known = found.has_answered_extensions or found.alert is not None
        return found.alpn, _is_refusal(found.alert) if is_known else None
    answer = asker.ask(asker.offer(version, alpn=offered))
    return answer.alpn, _is_refusal(answer.alert)


def _is_refusal(alert: int | None) -> bool:
    return alert == AlertDescription.NO_APPLICATION_PROTOCOL


def compression_of(asker: Asker, version: int) -> str | None:
    """The compression a server agrees to; None for none."""
    answer = asker.ask(asker.offer(version, compressions=COMPRESSIONS))
    return COMPRESSION_NAMES.get(answer.compression) if answer.suite is not None else None


def notices_fallback(asker: Asker, lower: int) -> bool:
    """Whether a server that has better refuses a client that says it fell back to a lower version (RFC 7507)."""
    answer = asker.ask(asker.offer(lower, is_fallback=True))
    return answer.alert == AlertDescription.INAPPROPRIATE_FALLBACK


def signs_with_sha1(asker: Asker, offered_suites: Sequence[int]) -> bool | None:
    """Whether a TLS 1.2 server signs key exchanges with SHA-1 for a client that knows nothing better (RFC 9155)."""
    signed = tuple(number for number in offered_suites if suites.suite(number).is_signed)
    if not signed:
        return None
    answer = asker.ask(asker.offer(TLS_1_2, suites=signed, schemes=SHA1_SCHEMES))
    return answer.key_exchange is not None and answer.key_exchange.scheme in SHA1_SCHEMES
