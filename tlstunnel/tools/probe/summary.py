"""From answers and handshakes to findings: numbers get their names, and what several answers say becomes one fact."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from tlstunnel.tools.probe import certificates, groups, suites
from tlstunnel.tools.probe.answer import Answer
from tlstunnel.tools.probe.choices import Order
from tlstunnel.tools.probe.findings import Ciphers, Findings, GroupFound, Groups, SuiteFound, Timings
from tlstunnel.tools.probe.handshake import Handshake
from tlstunnel.tools.probe.hello import SSL_3_0
from tlstunnel.tools.probe.legacy import LegacyHandshake
from tlstunnel.tools.probe.names import text_of_der
from tlstunnel.tools.probe.weaknesses import flaws_of
from tlstunnel.tools.tls13.extension_block import find
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3, version_name
from tlstunnel.tools.tls13.names import ExtensionType as Ext


def ciphers(version: int, taken: Sequence[int], order: Order | None, answers: Iterable[Answer]) -> Ciphers:
    """The suites of a version. Where the client's order decides, they come in ours: the best first."""
    listed = [number for number in suites.offered_in(version) if number in taken] if order is Order.CLIENT else taken
    exchanges = {each.suite: _exchange(each) for each in list(answers) if each.version == version}
    return Ciphers(
        version=version_name(version),
        order=None if order is None else order.value,
        suites=[_suite(suites.suite(number), exchanges.get(number)) for number in listed],
    )


def _suite(suite: suites.Suite, exchange: str | None) -> SuiteFound:
    return SuiteFound(
        name=suite.name, id=suite.id, bits=suite.bits, key_exchange=exchange, flaws=flaws_of(suite)
    )  # fmt: skip


def _exchange(answer: Answer) -> str | None:
    exchange = answer.key_exchange
    if exchange is None:
        return None
    return groups.group(exchange.group).name if exchange.group is not None else f"DH {exchange.dh_bits}"


def groups_found(numbers: Iterable[int]) -> list[GroupFound]:
    """Groups by their numbers."""
    found = [groups.group(number) for number in numbers]
    return [GroupFound(name=g.name, id=g.id, bits=g.bits, post_quantum=g.is_post_quantum) for g in found]


def of_version(version: int, taken: Sequence[int], order: Order | None) -> Groups:
    """The groups of a version."""
    return Groups(
        version=version_name(version), order=None if order is None else order.value, groups=groups_found(taken)
    )


def time(timings: Timings, modern: Sequence[Handshake], legacy: LegacyHandshake | None) -> None:
    """Take the times of the handshake that was alone on the wire."""
    chosen: Handshake | LegacyHandshake | None = next((each for each in modern if each.is_complete), None) or legacy
    if chosen is None:
        chosen = modern[0] if modern else None
    if chosen is None:
        return
    timings.tcp, timings.starttls = milliseconds(chosen.tcp_s), milliseconds(chosen.starttls_s)
    timings.server_hello = milliseconds(chosen.hello_s)
    timings.handshake = milliseconds(chosen.handshake_s)
    timings.first_byte = milliseconds(chosen.first_byte_s)


def milliseconds(seconds: float | None) -> float | None:
    """Seconds as milliseconds with two decimals."""
    return None if seconds is None else round(seconds * 1000, 2)


def complete(
    found: Findings,
    answers: Sequence[Answer],
    modern: Sequence[Handshake],
    legacy: LegacyHandshake | None,
    anchors: Sequence[Any],
    now: datetime.datetime,
) -> None:
    """Everything that follows from all the answers together."""
    rank = {each.name: at for at, each in enumerate(found.versions)}
    found.ciphers.sort(key=lambda each: rank[each.version])
    found.groups.sort(key=lambda each: rank[each.version])
    found.incomplete.sort()
    _features(found, [each for each in answers if each.version is not None and each.version <= TLS_1_2])
    _client_certificate(found, answers, modern, legacy)
    chains = _chains(answers, modern, legacy)
    for chain, (versions, staple) in chains.items():
        found.chains.append(
            certificates.judge(
                chain, anchors, host=found.target.name, staple=staple, now=now,
                versions=[version_name(each) for each in sorted(versions, reverse=True)],
            )
        )  # fmt: skip


def _features(found: Findings, answers: Sequence[Answer]) -> None:
    extended = [each for each in answers if each.version is not None and each.version > SSL_3_0]
    if extended:
        features = found.features
        features.secure_renegotiation = all(_has(each, Ext.RENEGOTIATION_INFO) for each in extended)
        features.extended_master_secret = all(_has(each, Ext.EXTENDED_MASTER_SECRET) for each in extended)
        with_cbc = [each for each in extended if suites.suite(each.suite or 0).is_cbc]
        if with_cbc:
            features.encrypt_then_mac = all(_has(each, Ext.ENCRYPT_THEN_MAC) for each in with_cbc)


def _has(answer: Answer, kind: int) -> bool:
    return find(answer.extensions, kind) is not None


def _client_certificate(
    found: Findings, answers: Sequence[Answer], modern: Sequence[Handshake], legacy: LegacyHandshake | None
) -> None:
    wanted = found.client_certificate
    # An answer that has a chain was read to its end, so that a request in it would have been seen.
    seen = [each.wish.authorities if each.wish else None for each in answers if each.chain]
    seen += [each.authorities for each in modern if each.chain]
    if not seen:
        return
    lists = [each for each in seen if each is not None]
    wanted.requested = bool(lists)
    if not lists:
        wanted.required = False
        return
    wanted.authorities = [text_of_der(name) for name in dict.fromkeys(name for each in lists for name in each)]
    if any(each.refused_after for each in modern):
        wanted.required = True
    elif any(each.is_complete and not each.is_resumed for each in modern) or (legacy and legacy.is_complete):
        wanted.required = False
    elif legacy is not None and "alert" in (legacy.problem or ""):
        wanted.required = True


Seen = dict[tuple[bytes, ...], tuple[set[int], bytes | None]]


def _chains(answers: Sequence[Answer], modern: Sequence[Handshake], legacy: LegacyHandshake | None) -> Seen:
    """Every chain that was shown, with the versions it was shown in and its staple."""
    found: Seen = {}
    shown = [(TLS_1_3, each.chain, each.staple) for each in modern]
    shown += [(each.version or 0, each.chain, each.staple) for each in answers]
    if legacy is not None and not any(chain for _, chain, _ in shown):
        shown.append((legacy.version, legacy.chain, None))
    for version, chain, staple in shown:
        if chain:
            versions, known = found.get(chain, (set(), None))
            found[chain] = (versions | {version}, known or staple)
    return found
