"""From what OpenSSL says of a failed handshake to our own close reasons. Pure tables."""

from __future__ import annotations

from collections.abc import Iterable

from tlstunnel.outcome import CloseReason

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

_VERDICT_WORDS = {
    2: "an issuer in the chain is not known",
    9: "not valid yet",
    10: "expired",
    12: "the CRL has expired",
    18: "self-signed",
    19: "its chain ends in a self-signed certificate that is not trusted",
    20: "its issuer is not among the trusted CAs",
    21: "its issuer is not among the trusted CAs",
    23: "revoked",
    26: "not for this purpose",
    62: "issued for another name",
    64: "issued for another address",
    66: "its key is too small",
    68: "its CA's signature algorithm is too weak",
}


def classify(reasons: Iterable[str], verify_code: int) -> tuple[CloseReason, str]:
    """The close reason of a handshake that failed, and the detail for people.

    Args:
        reasons: OpenSSL's reason strings, the first cause first.
        verify_code: OpenSSL's verdict on the peer's certificate; 0 when it has no objection.
    """
    texts = [reason.lower() for reason in reasons]
    if "certificate verify failed" in texts and verify_code:
        reason = _BY_VERDICT.get(verify_code, CloseReason.BAD_CERTIFICATE)
        words = _VERDICT_WORDS.get(verify_code, f"OpenSSL's verdict {verify_code}")
        return reason, f"peer's certificate: {words}"
    for text in texts:
        alert = alert_name(text)
        if alert is not None:
            return CloseReason.PEER_ALERT, f"peer sent the alert {alert}"
        if text in _BY_REASON:
            return _BY_REASON[text], text
    return CloseReason.PROTOCOL_ERROR, ", ".join(texts) or "no reason given"


def alert_name(reason: str) -> str | None:
    """`tlsv1 alert unknown ca` is the alert `unknown_ca` (RFC 8446 section 6); `None` when it is no alert."""
    words = reason.split()
    if "alert" not in words[:3]:
        return None
    name = "_".join(words[words.index("alert") + 1 :])
    return name or None
