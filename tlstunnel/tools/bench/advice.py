"""What to choose, and why: security first, then what it costs here.

Nothing is recommended because it is fast. Every choice is made among what is sound (no known attack, 128 bits or more)
and what clients at large can use; only then does the measurement decide, and where its rounds do not tell two choices
apart, the default stays: advice that changes with the noise is none. What was not measured is not spoken of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlstunnel.tls.context import DEFAULT_SUITES
from tlstunnel.tools.bench.cases import BASE_GROUP, BASE_KEY, BASE_SUITE, Bulk, Handshake, Key, Suite, suite_12
from tlstunnel.tools.bench.ciphers import Result
from tlstunnel.tools.bench.stats import Spread, is_tied, ratio

_SOUND = {
    "TLS_AES_128_GCM_SHA256": "AES-128-GCM",
    "TLS_AES_256_GCM_SHA384": "AES-256-GCM",
    "TLS_CHACHA20_POLY1305_SHA256": "ChaCha20-Poly1305",
}
"""CCM is sound as well, but slow everywhere and known to few clients."""
_RECORD = 16 * 1024


@dataclass(frozen=True, slots=True)
class Advice:
    """One choice."""

    what: str
    """The configuration key it is about, or a word."""
    choice: str
    reason: str


def advise(results: Sequence[Result], *, has_aes: bool) -> list[Advice]:
    """Every choice that these results allow."""
    measured = [result for result in results if not result.unsupported and result.rounds]
    handshakes = {result.case: result for result in measured if isinstance(result.case, Handshake)}
    bulk = {result.case: result for result in measured if isinstance(result.case, Bulk)}
    found = (
        _key(handshakes),
        _groups(handshakes),
        _suites(bulk, handshakes, has_aes=has_aes),
        _version(handshakes),
        _resumption(handshakes),
    )
    return [advice for advice in found if advice is not None]


_Handshakes = dict[Handshake, Result]
_BASE = {"version": "1.3", "suite": BASE_SUITE, "key": BASE_KEY, "group": BASE_GROUP, "is_resumed": False}


def _varying(handshakes: _Handshakes, name: str) -> dict[Any, Result]:
    """The rows that differ from the base in this alone, by it."""
    fixed = [(other, value) for other, value in _BASE.items() if other != name]
    return {
        getattr(case, name): row
        for case, row in handshakes.items()
        if all(getattr(case, other) == value for other, value in fixed)
    }


def _key(handshakes: _Handshakes) -> Advice | None:
    rows: dict[Key, Result] = _varying(handshakes, "key")
    usable = [key for key in rows if key.is_widely_usable and key.bits >= 128]
    if len(usable) < 2:
        return None
    best = min(usable, key=lambda key: rows[key].spread("server").median)
    worth = "it is the cheapest for the server"
    if best != BASE_KEY and BASE_KEY in usable and is_tied(*_server(rows[BASE_KEY], rows[best])):
        best, worth = BASE_KEY, "none is cheaper for the server that the rounds could tell"
    parts = [f"of those with 128 bits of strength or more that clients at large take and public CAs sign, {worth}"]
    for key, row in rows.items():
        if key.name in ("RSA 2048", "ECDSA P-384") and key != best:
            weak = ", and with its 112 bits is for old clients only" if key.bits < 128 else ""
            parts.append(f"{key.name} costs {times(ratio(*_server(row, rows[best])))}{weak}")
    if any(key.name == "Ed25519" for key in rows):
        parts.append("Ed25519 is for networks whose clients you know: browsers and public CAs do not take it")
    if any(key.is_post_quantum for key in rows):
        parts.append("ML-DSA can wait: what is signed today is checked today, before there are quantum computers")
    return Advice("key", best.name, "; ".join(parts))


def _groups(handshakes: _Handshakes) -> Advice | None:
    rows = {group.name: row for group, row in _varying(handshakes, "group").items()}
    classical, hybrid = rows.get("X25519"), rows.get("X25519MLKEM768")
    if hybrid is None:
        if classical is None or len(rows) < 2:
            return None
        best = min(rows, key=lambda name: rows[name].spread("server").median)
        reason = "this library has no post-quantum group, or none was measured"
        is_cheaper = best != "X25519" and not is_tied(*_server(rows[best], classical))
        cheapest = f"; {best} is cheaper here" if is_cheaper else ""
        return Advice("groups", "X25519:P-256:P-384", reason + cheapest)
    reason = (
        "what is recorded today can be read once quantum computers can break X25519; the hybrid holds as long as "
        "either of its halves does"
    )
    if classical is not None:
        micros = 1e6 * (hybrid.spread("server").median - classical.spread("server").median)
        sent = hybrid.server_bytes + hybrid.client_bytes - classical.server_bytes - classical.client_bytes
        is_told = micros >= 1 and not is_tied(*_server(hybrid, classical))
        cost = f"{micros:.0f} µs" if is_told else "no"
        reason += f"; here it costs {cost} more CPU and {sent:,} more bytes on the wire in each full handshake"
    return Advice("groups", "X25519MLKEM768:X25519:P-256:P-384", f"{reason}; X25519 is for clients without it")


def _server(*rows: Result) -> list[list[float]]:
    """What each costs the server, by round."""
    return [row.samples["server"] for row in rows]


def _cost(row: Result) -> list[float]:
    """Of a byte that comes and one that goes, by round."""
    return [sum(pair) for pair in zip(row.samples["encrypt"], row.samples["decrypt"], strict=True)]


def _suites(bulk: dict[Bulk, Result], handshakes: _Handshakes, *, has_aes: bool) -> Advice | None:
    rows: dict[Suite, Result] = {
        case.suite: row for case, row in bulk.items() if case.suite.name in _SOUND and case.size == _RECORD
    }
    if len(rows) < 2:
        return None
    shaken: dict[Suite, Result] = _varying(handshakes, "suite")
    costs = {suite: _cost(row) for suite, row in rows.items()}
    order = _by_cost(costs)
    first = order[0]
    is_told = not any(is_tied(costs[suite], costs[first]) for suite in order[1:])
    worth = (
        "is the cheapest per byte here" if is_told else "costs no more per byte than another that the rounds could tell"
    )
    parts = [f"none of them has a known attack, and {_SOUND[first.name]} {worth}"]
    if not has_aes:
        parts[0] += "; this processor has no instructions for AES"
    for suite in order[1:]:
        more = times(ratio(costs[suite], costs[first]))
        text = f"{_SOUND[suite.name]} costs {more}"
        if suite.name == "TLS_AES_256_GCM_SHA384" and {suite, first} <= shaken.keys():
            other = times(ratio(*_server(shaken[suite], shaken[first])))
            text += f" per byte and {other} per handshake (SHA-384)"
        parts.append(text)
    if first.bits == 128:
        parts.append(
            "128 bits are out of reach of any search, also of a quantum computer's in practice; put AES-256 first "
            "where a rule such as CNSA 2.0 asks for 256"
        )
    return Advice("ciphersuites", ":".join(suite.name for suite in order), "; ".join(parts))


def _by_cost(costs: dict[Suite, list[float]]) -> list[Suite]:
    """In the order of the defaults, but that each goes before those next to it which cost more beyond doubt."""
    order: list[Suite] = []
    for suite in sorted(costs, key=lambda suite: DEFAULT_SUITES.index(suite.name)):
        place = len(order)
        while place and ratio(costs[suite], costs[order[place - 1]]).high < 1:
            place -= 1
        order.insert(place, suite)
    return order


def _version(handshakes: _Handshakes) -> Advice | None:
    new = _varying(handshakes, "version").get("1.3")
    old = handshakes.get(Handshake("suite", "1.2", suite_12(BASE_KEY), BASE_KEY, BASE_GROUP))
    if new is None or old is None:
        return None
    cost = times(ratio(*_server(new, old)))
    return Advice(
        "min_version",
        "1.3",
        "where all clients have it: it hides the certificate from who listens, has no weak choices, and needs one "
        f"round trip less; a full handshake costs the server {cost} as one of TLS 1.2; where some clients do not have "
        "it, 1.2 with the default ciphers",
    )


def _resumption(handshakes: _Handshakes) -> Advice | None:
    rows = _varying(handshakes, "is_resumed")
    if len(rows) < 2:
        return None
    server, client = (
        times(ratio(rows[True].samples[side], rows[False].samples[side])) for side in ("server", "client")
    )
    return Advice(
        "resumption",
        "on, without any setting",
        f"a resumed handshake of TLS 1.3 costs the server {server} as a full one and the client {client}, and its key "
        "exchange is as fresh",
    )


def times(compared: Spread) -> str:
    """A ratio in words: `1.21 times as much`, or `as much` where the rounds do not agree on which is more."""
    if compared.low <= 1 <= compared.high:
        return "as much"
    return f"{compared.median:.2f} times as much"
