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
    "inappropriate fallback": CloseReason.PROTOCOL_ERROR,
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

# X509_V_ERR_ codes (openssl/x509_vfy.h of OpenSSL 4). What is missing is a bad certificate.
_BY_VERDICT = {
    2: CloseReason.UNKNOWN_CA,
    3: CloseReason.CRL_UNUSABLE,
    5: CloseReason.CRL_UNUSABLE,
    8: CloseReason.CRL_UNUSABLE,
    9: CloseReason.NOT_YET_VALID,
    10: CloseReason.EXPIRED_CERTIFICATE,
    11: CloseReason.CRL_UNUSABLE,
    12: CloseReason.CRL_UNUSABLE,
    15: CloseReason.CRL_UNUSABLE,
    16: CloseReason.CRL_UNUSABLE,
    18: CloseReason.UNKNOWN_CA,
    19: CloseReason.UNKNOWN_CA,
    20: CloseReason.UNKNOWN_CA,
    21: CloseReason.UNKNOWN_CA,
    23: CloseReason.REVOKED,
    26: CloseReason.WRONG_PURPOSE,
    27: CloseReason.UNKNOWN_CA,
    33: CloseReason.CRL_UNUSABLE,
    35: CloseReason.CRL_UNUSABLE,
    36: CloseReason.CRL_UNUSABLE,
    44: CloseReason.CRL_UNUSABLE,
    54: CloseReason.CRL_UNUSABLE,
    62: CloseReason.NAME_MISMATCH,
    64: CloseReason.NAME_MISMATCH,
}

# What a verdict adds to the text of its reason; nothing where that says it all.
VERDICT_WORDS = {
    1: "OpenSSL does not say why",
    2: "its issuer is not known here",
    3: "there is none of its issuer",
    4: "its signature cannot be decrypted with its issuer's key",
    5: "the CRL's signature cannot be decrypted with its issuer's key",
    6: "its issuer's public key cannot be read",
    7: "its signature is wrong",
    8: "the CRL has a wrong signature",
    9: "",
    10: "",
    11: "the CRL is not valid yet",
    12: "the CRL has expired",
    13: "the date from which it is valid cannot be read",
    14: "the date until which it is valid cannot be read",
    15: "the date of the CRL cannot be read",
    16: "the date of the next CRL cannot be read",
    17: "this machine was out of memory",
    18: "it is self-signed",
    19: "its chain ends in a CA that is not trusted here",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    22: "its chain is too long",
    23: "",
    24: "its issuer has no public key",
    25: "its chain is longer than one of its CAs allows",
    26: "",
    27: "its CA is not trusted for this",
    28: "its CA is marked as not to be trusted for this",
    29: "its issuer has another name than it says",
    30: "its issuer has another key identifier than it says",
    31: "its issuer has another serial number than it says",
    32: "the key usage of its issuer does not permit signing certificates",
    33: "who issued the CRL is not known here",
    34: "it holds a critical extension that is not known here",
    35: "the key usage of its issuer does not permit signing CRLs",
    36: "the CRL holds a critical extension that is not known here",
    37: "it is no CA but has marks of one",
    38: "its chain of proxy certificates is too long",
    39: "its key usage does not permit signatures",
    40: "it is a proxy certificate (RFC 3820), which is not accepted",
    41: "one of its extensions is malformed or contradicts another",
    42: "its certificate policies are malformed",
    43: "its chain has no certificate policy in common",
    44: "the CRL is not about certificates like it",
    45: "one of its extensions uses a feature that is not supported",
    46: "it claims addresses that its issuer does not have (RFC 3779)",
    47: "one of its CAs does not permit its names",
    48: "one of its CAs excludes its names",
    49: "the name constraints of one of its CAs have bounds, which are not supported",
    50: "it was refused here",
    51: "the name constraints of one of its CAs are of a kind that is not supported",
    52: "the name constraints of one of its CAs are malformed",
    53: "one of its names is written in a way that is not supported",
    54: "the CRL's issuer cannot be verified itself",
    55: "its chain goes in a circle",
    56: "its version is not allowed by Suite B",
    57: "its kind of key is not allowed by Suite B",
    58: "its curve is not allowed by Suite B",
    59: "its signature algorithm is not allowed by Suite B",
    60: "its curve is not allowed at this level of Suite B",
    61: "P-384 may not be signed with P-256 under Suite B",
    62: "",
    63: "it is for another e-mail address",
    64: "",
    65: "no DANE record matches it",
    66: "its key is too small",
    67: "the key of one of its CAs is too small",
    68: "the signature of one of its CAs uses too weak a hash",
    69: "OpenSSL was asked in a wrong way; please report it",
    70: "looking for its issuer failed",
    71: "it has no proof of certificate transparency",
    72: "the name of a proxy certificate does not continue its issuer's",
    73: "it needs an OCSP response",
    74: "its OCSP response cannot be verified",
    75: "its OCSP responder does not know it",
    76: "its signature algorithm is not known here",
    77: "its signature algorithm does not fit its issuer's key",
    78: "it names two signature algorithms",
    79: "its issuer is no CA",
    80: "it limits the length of chains but is no CA",
    81: "it limits the length of chains but may not sign certificates",
    82: "its key usage permits signing certificates but it is no CA",
    83: "its issuer has no name",
    84: "it has no subject",
    85: "it does not say which key its issuer has",
    86: "a CA in its chain does not say which key it has",
    87: "its list of subject alternative names is empty",
    88: "it has no subject, and its subject alternative names are not critical",
    89: "the basic constraints of one of its CAs are not critical",
    90: "its authority key identifier is critical",
    91: "its subject key identifier is critical",
    92: "one of its CAs has no key usage",
    93: "it has extensions but is not of version 3",
    94: "its key spells out its curve instead of naming it",
    95: "it is a bare key, and none is trusted here",
    96: "its OCSP response is malformed",
    97: "its OCSP response has a wrong signature",
    98: "its OCSP response is not valid yet",
    99: "its OCSP response has expired",
    100: "there is no OCSP response for it",
    102: "its authority key identifier is empty",
    103: "its authority key identifier names an issuer or a serial number but not both",
}

# What OpenSSL's reason strings add.
_REASON_WORDS = {
    "ee key too small": VERDICT_WORDS[66],
    "ca key too small": VERDICT_WORDS[67],
    "ca md too weak": VERDICT_WORDS[68],
    "certificate verify failed": "OpenSSL does not accept it, and does not say why",
}

_DOWNGRADED_SERVER = (
    "its answer bears the mark of a downgrade (RFC 8446 section 4.1.3): it can do more than the version it chose"
)
_FALLBACK_OF_CLIENT = (
    "it offers an older version than it has, after a failure (RFC 7507), though we have newer ones; look why its first "
    "attempt failed"
)

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
        return reason, VERDICT_WORDS.get(verify_code, f"OpenSSL's verdict is {verify_code}")
    for text in texts:
        alert = alert_name(text)
        if alert is not None:
            return CloseReason.PEER_ALERT, f"{alert}: {remedies.of_alert(alert, words)}"
        if text == "inappropriate fallback":
            return CloseReason.PROTOCOL_ERROR, _FALLBACK_OF_CLIENT if words is None else _DOWNGRADED_SERVER
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
