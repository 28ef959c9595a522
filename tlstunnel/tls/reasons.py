"""From what OpenSSL says of a failed handshake to our own close reasons. Pure tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tlstunnel.outcome import CloseReason
from tlstunnel.tls import remedies

# OpenSSL's reason strings (lower-cased) that name a cause by themselves.
_BY_REASON = {
    "http request": CloseReason.NOT_TLS,
    "https proxy request": CloseReason.NOT_TLS,
    "wrong version number": CloseReason.NOT_TLS,
    "packet length too long": CloseReason.NOT_TLS,
    "record layer failure": CloseReason.PROTOCOL_ERROR,
    "unsupported protocol": CloseReason.NO_SHARED_VERSION,
    "version too low": CloseReason.NO_SHARED_VERSION,
    "no protocols available": CloseReason.NO_SHARED_VERSION,
    "wrong ssl version": CloseReason.NO_SHARED_VERSION,
    "inappropriate fallback": CloseReason.NO_SHARED_VERSION,
    "no shared cipher": CloseReason.NO_SHARED_CIPHER,
    "no ciphers available": CloseReason.NO_SHARED_CIPHER,
    "no suitable key share": CloseReason.NO_SHARED_GROUP,
    "no shared groups": CloseReason.NO_SHARED_GROUP,
    "no suitable groups": CloseReason.NO_SHARED_GROUP,
    "unsupported elliptic curve": CloseReason.NO_SHARED_GROUP,
    "no suitable signature algorithm": CloseReason.NO_SHARED_SIGNATURE,
    "no shared signature algorithms": CloseReason.NO_SHARED_SIGNATURE,
    "no application protocol": CloseReason.NO_SHARED_ALPN,
    "peer did not return a certificate": CloseReason.NO_CLIENT_CERTIFICATE,
    "unexpected eof while reading": CloseReason.HANDSHAKE_EOF,
    "certificate verify failed": CloseReason.BAD_CERTIFICATE,  # from an engine that knows no verdict
    "ee key too small": CloseReason.BAD_CERTIFICATE,
    "ca key too small": CloseReason.BAD_CERTIFICATE,
    "ca md too weak": CloseReason.BAD_CERTIFICATE,
}

# X509_V_ERR_ codes (openssl/x509_vfy.h).
_BY_VERDICT = {
    2: CloseReason.UNKNOWN_CA,  # unable to get issuer certificate
    3: CloseReason.CRL_UNUSABLE,  # unable to get certificate CRL
    8: CloseReason.CRL_UNUSABLE,  # CRL signature failure
    9: CloseReason.NOT_YET_VALID,
    10: CloseReason.EXPIRED_CERTIFICATE,
    11: CloseReason.CRL_UNUSABLE,  # CRL is not yet valid
    12: CloseReason.CRL_UNUSABLE,  # CRL has expired
    18: CloseReason.UNKNOWN_CA,  # self-signed certificate
    19: CloseReason.UNKNOWN_CA,  # self-signed certificate in chain
    20: CloseReason.UNKNOWN_CA,  # unable to get local issuer certificate
    21: CloseReason.UNKNOWN_CA,  # unable to verify the first certificate
    23: CloseReason.REVOKED,
    26: CloseReason.WRONG_PURPOSE,
    27: CloseReason.UNKNOWN_CA,  # certificate not trusted
    33: CloseReason.CRL_UNUSABLE,  # unable to get CRL issuer certificate
    62: CloseReason.NAME_MISMATCH,
    63: CloseReason.NAME_MISMATCH,
    64: CloseReason.NAME_MISMATCH,
}

# What a verdict adds to the text of its reason.
_VERDICT_WORDS = {
    2: "its issuer is not known here",
    3: "there is none of its issuer",
    7: "its signature is wrong",
    8: "the CRL has a wrong signature",
    11: "the CRL is not valid yet",
    12: "the CRL has expired",
    18: "it is self-signed",
    19: "its chain ends in a CA that is not trusted here",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    24: "its issuer is no CA",
    25: "its chain is longer than one of its CAs allows",
    27: "its CA is not trusted for this",
    33: "who issued the CRL is not known here",
    34: "it holds a critical extension that is not known here",
    47: "one of its CAs does not permit its names",
    48: "one of its CAs excludes its names",
    66: "its key is too small",
    67: "the key of one of its CAs is too small",
    68: "the signature of one of its CAs uses too weak a hash",
}

# What OpenSSL's reason strings add.
_REASON_WORDS = {
    "ee key too small": _VERDICT_WORDS[66],
    "ca key too small": _VERDICT_WORDS[67],
    "ca md too weak": _VERDICT_WORDS[68],
    "certificate verify failed": "OpenSSL does not accept it, and the portable engine cannot ask why",
}

_ALERT = re.compile(r"(?:ssl/tls|tls|sslv3|tlsv1|tlsv13)(?: alert)? ([a-z ]+)")
_SPELLED = {"user_cancelled": "user_canceled"}


def classify(
    reasons: Iterable[str], verify_code: int, words: Mapping[str, str] | None = None
) -> tuple[CloseReason, str]:
    """The close reason of a handshake that failed, and the detail for people, which may be empty.

    Args:
        reasons: OpenSSL's reason strings, the first cause first.
        verify_code: OpenSSL's verdict on the peer's certificate; 0 when it has no objection.
        words: where the peer is a server, what our settings are called (`remedies`); None where it is a client.
    """
    texts = [reason.lower() for reason in reasons]
    if "certificate verify failed" in texts and verify_code:
        reason = _BY_VERDICT.get(verify_code, CloseReason.BAD_CERTIFICATE)
        unknown = f"OpenSSL's verdict is {verify_code}" if reason is CloseReason.BAD_CERTIFICATE else ""
        return reason, _VERDICT_WORDS.get(verify_code, unknown)
    for text in texts:
        alert = alert_name(text)
        if alert is not None:
            return CloseReason.PEER_ALERT, f"{alert}: {remedies.of_alert(alert, words)}"
        if text in _BY_REASON:
            return _BY_REASON[text], _REASON_WORDS.get(text, "")
    return CloseReason.PROTOCOL_ERROR, ", ".join(texts) or "no reason given"


def alert_name(reason: str) -> str | None:
    """`tlsv1 alert unknown ca` is the alert `unknown_ca` (RFC 8446 section 6); `None` when it is no alert.

    Of extensions' alerts OpenSSL leaves the word out: `tlsv1 unrecognized name`.
    """
    match = _ALERT.fullmatch(reason)
    name = match[1].replace(" ", "_") if match else ""
    name = _SPELLED.get(name, name)
    is_known = name in remedies.ALERTS_OF_SERVERS or " alert " in reason
    return name if name and is_known else None
