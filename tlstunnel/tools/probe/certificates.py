"""The chains a server showed: what they say, whether they verify, what their staple says."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from tlstunnel.errors import TunnelError
from tlstunnel.parse_errors import PARSE_ERRORS
from tlstunnel.tools.pki import chain, describe, readers
from tlstunnel.tools.pki.profile import Use
from tlstunnel.tools.probe.findings import Chain
from tlstunnel.tools.probe.groups import CURVE_OF_KEY
from tlstunnel.x509.certificate import is_ca, is_must_staple, serial
from tlstunnel.x509.checks import is_for


def curve_of(der: bytes) -> int | None:
    """The group that is the curve of a certificate's key; None for keys without a curve.

    Before TLS 1.3 a server with such a key only serves clients that list its curve (RFC 8422 section 5.1). Not to be
    called in several threads at once, since silencing the library's warnings is a matter of the whole process.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key = x509.load_der_x509_certificate(der).public_key()
    except PARSE_ERRORS:
        return None
    return CURVE_OF_KEY.get(key.curve.name) if isinstance(key, ec.EllipticCurvePublicKey) else None


def judge(
    ders: Sequence[bytes],
    anchors: Sequence[x509.Certificate],
    *,
    host: str | None,
    staple: bytes | None,
    versions: Sequence[str],
    now: datetime.datetime,
) -> Chain:
    """What there is to say about a chain, the server's own certificate first."""
    try:
        found = [readers.certificates(der, where=f"certificate {at + 1}")[0] for at, der in enumerate(ders)]
    except TunnelError as exc:
        return Chain(
            versions=list(versions), certificates=[], verifies=False, trusted=False, names_match=None,
            problems=[f"cannot be read: {exc}"], strict=None, staple=None, wants_staple=False,
        )  # fmt: skip
    leaf = found[0]
    verdict = chain.verify(leaf, found[1:], anchors, host=host, use=Use.SERVER, now=now)
    strict = None
    if verdict.verifies and not is_ca(leaf):
        strict = chain.strict_opinion(verdict, describe.use_of(leaf), host)
    return Chain(
        versions=list(versions),
        certificates=[describe.certificate(each, now=now) for each in found],
        verifies=verdict.verifies,
        trusted=verdict.trusted,
        names_match=None if host is None else is_for(leaf, host),
        problems=list(verdict.problems),
        strict=strict,
        staple=None if staple is None else staple_facts(staple, leaf),
        wants_staple=is_must_staple(leaf),
    )


def staple_facts(staple: bytes, leaf: x509.Certificate) -> dict[str, Any]:
    """What an OCSP response says (RFC 6960): `status` is good, revoked, unknown, or why there is none.

    Whether it is signed by the right party is not checked.
    """
    facts: dict[str, Any] = {"status": "damaged", "this_update": None, "next_update": None, "is_for": None}
    try:
        response = ocsp.load_der_ocsp_response(staple)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return facts | {"status": response.response_status.name.lower().replace("_", " ")}
        single = next(iter(response.responses))
        facts["status"] = single.certificate_status.name.lower()
        facts["this_update"] = _time(single.this_update_utc)
        facts["next_update"] = _time(single.next_update_utc)
        facts["is_for"] = single.serial_number == serial(leaf)
    except (*PARSE_ERRORS, StopIteration):
        return facts
    return facts


def _time(when: datetime.datetime | None) -> str | None:
    return None if when is None else when.strftime("%Y-%m-%dT%H:%M:%SZ")
