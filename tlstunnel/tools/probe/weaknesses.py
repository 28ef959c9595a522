"""From findings to weaknesses: pure judgement, no I/O. Every weakness has a remedy that an operator can carry out.

The measure is what browsers and current guidance (RFC 9325, Mozilla's "intermediate", NIST SP 800-57) hold against a
server; each rule below names its document. A suite's own flaws are in `flaws_of`, whose words the table of suites
shows too.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from tlstunnel import lifetime
from tlstunnel.tools.probe.findings import Chain, Findings, Severity, Weakness
from tlstunnel.tools.probe.groups import group
from tlstunnel.tools.probe.hello import SSL_2_0, SSL_3_0, TLS_1_0, TLS_1_1
from tlstunnel.tools.probe.suites import Suite
from tlstunnel.tools.tls13.names import TLS_1_2, TLS_1_3

_CIPHERS = "leave only ECDHE with AES-GCM or ChaCha20-Poly1305"
# Flaw: severity, name of the weakness, what is wrong; the worst first.
_SUITE_FLAWS = {
    "no encryption": (Severity.CRITICAL, "cipher-null", "suites without encryption"),
    "anonymous": (Severity.CRITICAL, "cipher-anonymous", "suites without a certificate, open to anybody between"),
    "export": (Severity.CRITICAL, "cipher-export", "export suites, broken in hours (FREAK, Logjam)"),
    "DES": (Severity.CRITICAL, "cipher-des", "suites with DES, whose key can be searched"),
    "RC4": (Severity.HIGH, "cipher-rc4", "suites with RC4 (RFC 7465 prohibits it)"),
    "64-bit blocks": (Severity.MEDIUM, "cipher-64-bit-blocks", "suites with 64-bit blocks (Sweet32)"),
    "static key": (Severity.MEDIUM, "no-forward-secrecy", "suites without forward secrecy"),
    "MD5": (Severity.MEDIUM, "cipher-md5", "suites with MD5"),
    "CBC": (Severity.LOW, "cipher-cbc", "suites in CBC mode (Lucky 13)"),
    "short tag": (Severity.LOW, "cipher-short-tag", "suites with tags of 64 bits (CCM_8)"),
}
_OLD_VERSIONS = {
    SSL_2_0: (Severity.CRITICAL, "ssl2", "RFC 6176 prohibits it and DROWN breaks it"),
    SSL_3_0: (Severity.HIGH, "ssl3", "RFC 7568 prohibits it and POODLE breaks it"),
    TLS_1_0: (Severity.MEDIUM, "tls1.0", "RFC 8996 retired it and no browser speaks it"),
    TLS_1_1: (Severity.MEDIUM, "tls1.1", "RFC 8996 retired it and no browser speaks it"),
}


def flaws_of(suite: Suite) -> list[str]:
    """What is wrong with a suite, in words, the worst first."""
    found = {
        "no encryption": suite.bits == 0,
        "anonymous": suite.is_anonymous,
        "export": suite.is_export,
        "DES": suite.cipher.startswith("DES") and not suite.is_export,
        "RC4": suite.cipher.startswith("RC4"),
        "64-bit blocks": suite.cipher.startswith(("3DES", "DES", "IDEA", "RC2")),
        "static key": not suite.is_forward_secret,
        "MD5": suite.cipher.endswith("MD5"),
        "CBC": suite.is_cbc,
        "short tag": "CCM_8" in suite.cipher,
    }
    return [word for word, holds in found.items() if holds]


def judge(found: Findings, now: datetime.datetime) -> list[Weakness]:
    """Every weakness, the worst first."""
    all_of_them = [*_versions(found), *_suites(found), *_exchanges(found), *_handshake(found)]
    for chain in found.chains:
        all_of_them += _chain(chain, found, now)
    unique = {(each.id, each.what): each for each in all_of_them}
    return sorted(unique.values(), key=lambda each: -each.severity)


def _versions(found: Findings) -> Iterator[Weakness]:
    for number, (severity, name, why) in _OLD_VERSIONS.items():
        version = found.version(number)
        if version is not None and version.offered:
            yield _weak(name, severity, f"speaks {version.name}: {why}", "set the lowest version to TLS 1.2")
    offered = {each.id for each in found.versions if each.offered}
    unknown = {each.id for each in found.versions if each.offered is None}
    if not offered & {TLS_1_2, TLS_1_3} and not unknown & {TLS_1_2, TLS_1_3}:
        yield _weak("no-tls1.2", Severity.HIGH, "speaks neither TLS 1.2 nor TLS 1.3", "replace the server's software")
    elif TLS_1_3 not in offered | unknown:
        yield _weak("no-tls1.3", Severity.LOW, "does not speak TLS 1.3", "turn TLS 1.3 on; it is faster and private")


def _suites(found: Findings) -> Iterator[Weakness]:
    for word, (severity, name, what) in _SUITE_FLAWS.items():
        guilty = {each.version: sum(word in suite.flaws for suite in each.suites) for each in found.ciphers}
        where = ", ".join(f"{version} ({count})" for version, count in guilty.items() if count)
        if where:
            yield _weak(name, severity, f"{what}: {where}", _CIPHERS)
    yielding = [
        each.version
        for each in found.ciphers
        if each.order == "client" and any(set(suite.flaws) - {"CBC", "short tag"} for suite in each.suites)
    ]
    if yielding:
        what = f"lets clients choose, and not all suites are good: {', '.join(yielding)}"
        yield _weak("cipher-order", Severity.LOW, what, "remove the weak suites, or turn the server's order on")


def _exchanges(found: Findings) -> Iterator[Weakness]:
    exchanges = [suite.key_exchange or "" for each in found.ciphers for suite in each.suites]
    sizes = [int(each.removeprefix("DH ")) for each in exchanges if each.startswith("DH ")]
    if sizes and min(sizes) < 2048:
        severity = Severity.HIGH if min(sizes) <= 1024 else Severity.MEDIUM
        what = f"a Diffie-Hellman prime of {min(sizes)} bits (Logjam)"
        yield _weak("dh-weak", severity, what, "use one of 2048 bits or more, or leave DHE out")
    weak = {each.name for listed in found.groups for each in listed.groups if group(each.id).is_weak}
    if weak:
        yield _weak("group-weak", Severity.HIGH, f"weak curves: {', '.join(sorted(weak))}", "use X25519, P-256, P-384")
    asked = [listed for listed in found.groups if listed.version == "TLS 1.3"]
    if asked and not any(each.post_quantum for listed in asked for each in listed.groups):
        what = "no post-quantum key exchange, so recordings wait for quantum computers"
        yield _weak(
            "no-post-quantum", Severity.LOW, what, "turn X25519MLKEM768 on (OpenSSL 3.5 has it, and tlstunnel server)"
        )
    elif not asked and found.groups:
        what = "no post-quantum key exchange, which needs TLS 1.3"
        yield _weak("no-post-quantum", Severity.LOW, what, "turn TLS 1.3 and X25519MLKEM768 on")


def _handshake(found: Findings) -> Iterator[Weakness]:
    features = found.features
    if features.compression:
        what = f"compresses ({', '.join(features.compression)}), which tells secrets by length (CRIME)"
        yield _weak("compression", Severity.HIGH, what, "turn TLS compression off")
    if features.secure_renegotiation is False:
        what = "no secure renegotiation (RFC 5746), so data can be put before the client's"
        yield _weak("renegotiation", Severity.MEDIUM, what, "update the server's TLS library")
    if features.extended_master_secret is False:
        what = "no extended master secret (RFC 7627), which ties a session to its handshake"
        yield _weak("no-extended-master-secret", Severity.LOW, what, "update the server's TLS library, or use TLS 1.3")
    old = [each for each in found.versions if each.offered and each.id in (SSL_3_0, TLS_1_0, TLS_1_1)]
    if features.fallback_scsv is False and old:
        what = "does not notice that a client was talked down to an old version (RFC 7507)"
        yield _weak("no-fallback-scsv", Severity.LOW, what, "turn the old versions off, or update the TLS library")
    if features.sha1_signatures:
        what = "signs key exchanges with SHA-1 for clients that ask for it (RFC 9155)"
        yield _weak("sha1-signature", Severity.MEDIUM, what, "take SHA-1 out of the signature algorithms")
    if found.resumption.early_data:
        what = "takes 0-RTT data, which an attacker can send again (RFC 8446 section 8)"
        yield _weak("early-data", Severity.LOW, what, "turn early data off unless the service withstands repetition")


def _chain(chain: Chain, found: Findings, now: datetime.datetime) -> Iterator[Weakness]:
    if not chain.certificates:
        yield _weak("chain-invalid", Severity.HIGH, f"a certificate {chain.problems[0]}", "replace it")
        return
    leaf, *above = chain.certificates
    yield from _dates(leaf, "the certificate", now)
    for each in above:
        yield from _dates(each, f'the CA "{each["subject"]}"', now)
    if chain.names_match is False:
        names = ", ".join(leaf["names"])
        what = f'the certificate is not for "{found.target.name}" but for {names or "no name at all"}'
        yield _weak("name-mismatch", Severity.HIGH, what, "have it issued for that name, or give the right --name")
    if not chain.trusted:
        what = "the chain does not lead to a CA that is trusted here"
        remedy = "send the intermediates along, use a trusted CA, or give the right one with --ca"
        yield _weak("untrusted", Severity.HIGH, what, remedy)
    explained = (
        "expired on",
        "is not valid before",
        "not for ",
        "ends at ",
        "the issuer ",
        "the signature is not",
        "a key that is refused",
    )
    for problem in chain.problems:
        if not any(words in problem for words in explained):
            yield _weak("chain-invalid", Severity.HIGH, problem, "have the chain issued again")
    for each in chain.certificates:
        yield from _certificate(each)
    yield from _staple(chain, now)


def _dates(facts: dict[str, Any], who: str, now: datetime.datetime) -> Iterator[Weakness]:
    begin, end = _moment(facts["not_before"]), _moment(facts["not_after"])
    if now > end:
        yield _weak("expired", Severity.HIGH, f"{who} expired on {end:%Y-%m-%d}", "renew it")
    elif lifetime.urgency(begin, end, now) is not lifetime.Urgency.NONE:
        yield _weak("expires-soon", Severity.MEDIUM, f"{who} expires in {lifetime.span(end - now)}", "renew it")
    if now < begin:
        what = f"{who} is not valid before {begin:%Y-%m-%d %H:%M} UTC"
        yield _weak("not-yet-valid", Severity.HIGH, what, "check the clock here and where it was made")


def _certificate(facts: dict[str, Any]) -> Iterator[Weakness]:
    who = f'certificate "{facts["subject"]}"'
    for remark in facts["remarks"]:
        what, _, remedy = remark.partition("; ")
        if "broken hash" in remark:
            yield _weak("sha1-certificate", Severity.HIGH, f"{who}: {what}", remedy)
        elif remark.startswith("its key: "):
            yield _weak("key-weak", Severity.HIGH, f"{who}: {what}", remedy)
        elif "alternative names" in remark:
            yield _weak("no-alternative-names", Severity.MEDIUM, f"{who}: {what}", "issue it with its names")


def _staple(chain: Chain, now: datetime.datetime) -> Iterator[Weakness]:
    staple = chain.staple
    if staple is None:
        if chain.wants_staple:
            what = "the certificate demands a stapled OCSP response and none comes (RFC 7633)"
            yield _weak("staple-missing", Severity.HIGH, what, "turn OCSP stapling on")
        elif chain.certificates[0]["ocsp_urls"]:
            what = "no stapled OCSP response, though the certificate names a responder"
            yield _weak("staple-missing", Severity.INFO, what, "turn OCSP stapling on")
        return
    if staple["status"] == "revoked":
        yield _weak("revoked", Severity.CRITICAL, "the stapled response says: revoked", "replace the certificate")
    elif staple["status"] != "good":
        yield _weak("staple-bad", Severity.MEDIUM, f"the stapled response says: {staple['status']}", "fetch a new one")
    elif staple["is_for"] is False:
        yield _weak("staple-bad", Severity.MEDIUM, "the stapled response is for another certificate", "fetch a new one")
    elif staple["next_update"] is not None and _moment(staple["next_update"]) < now:
        yield _weak("staple-bad", Severity.MEDIUM, "the stapled response is out of date", "fetch a new one")


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)


def _weak(name: str, severity: Severity, what: str, remedy: str) -> Weakness:
    return Weakness(id=name, severity=severity, what=what, remedy=remedy)
