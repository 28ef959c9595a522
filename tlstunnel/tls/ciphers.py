"""What a list of cipher suites is worth: whether it lets in what does not encrypt, and whether any of it can be used.

What a list means, and which names there are, OpenSSL is asked; a context of `tls.context` has it checked here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from OpenSSL import SSL

from tlstunnel import _openssl
from tlstunnel.config.model import TLSSettings

LOWEST_SECURITY_LEVEL = 2
"""OpenSSL's own: RSA and DH of 2048 bits, ECDSA of 224, SHA-2."""

_BARE_SUITES = ("TLS_SHA256_SHA256", "TLS_SHA384_SHA384")
"""TLS 1.3 with integrity only (RFC 9150)."""
_LEVEL = re.compile(r"@SECLEVEL=([0-9])")
_NEEDS = {"ECDHE-ECDSA-": ("ECDSA", "Ed25519", "Ed448"), "ECDHE-RSA-": ("RSA", "RSASSA-PSS")}
"""Kinds of keys that a server needs for suites whose name begins so."""
_SECRETS = ("PSK-", "SRP-", "DHE-PSK-", "ECDHE-PSK-", "RSA-PSK-")
"""Suites that need a secret both sides know, and there is no setting for one."""
_FOREIGN = ("DHE-DSS-", "GOST")


def unprotected(names: Iterable[str]) -> tuple[str, ...]:
    """The suites that leave data in the clear, or the server unproved."""
    return tuple(name for name in names if _is_unprotected(name))


def _is_unprotected(name: str) -> bool:
    return "NULL" in name or name.startswith(("ADH-", "AECDH-")) or name in _BARE_SUITES


def lowered_level(ciphers: str) -> int | None:
    """The security level that the list sets, if that is lower than OpenSSL's own. The last one counts."""
    levels = [int(level) for level in _LEVEL.findall(ciphers)]
    return levels[-1] if levels and levels[-1] < LOWEST_SECURITY_LEVEL else None


def words_of(ciphers: str) -> tuple[str, ...]:
    """The names in a list that add something, one by one."""
    words = re.split(r"[:, ]+", ciphers)
    return tuple(word for word in words if word and word[0] not in "!-@")


def is_usable(name: str, key_types: Sequence[str] | None) -> bool:
    """Whether a TLS 1.2 suite can ever be agreed on.

    Args:
        key_types: of the server's certificates (`RSA 2048`); None where we are the client, which serves any.
    """
    if name.startswith(_SECRETS) or name.startswith(_FOREIGN) or "-PSK-" in name:
        return False
    if key_types is None:
        return True
    if name.startswith("DHE-"):
        return False  # a server needs parameters for it, and there is no setting for them
    kinds = {each.partition(" ")[0] for each in key_types}
    for start, needed in _NEEDS.items():
        if name.startswith(start):
            return not kinds.isdisjoint(needed)
    return "RSA" in kinds  # the rest exchanges keys by RSA


def settings_warnings(settings: TLSSettings) -> list[str]:
    """What is remarkable about settings that OpenSSL takes; each line begins with its key."""
    found = []
    if settings.ciphers and settings.min_version == "1.3":
        found.append('ciphers has no effect, since it is for TLS 1.2 and min_version is "1.3"; remove it')
    if settings.ciphersuites and settings.max_version == "1.2":
        found.append('ciphersuites has no effect, since it is for TLS 1.3 and max_version is "1.2"; remove it')
    if (level := lowered_level(settings.ciphers)) is not None:
        found.append(
            f"ciphers: @SECLEVEL={level} lets in keys and hashes that can be broken, with TLS 1.3 as well; remove it, "
            f"OpenSSL's own is {LOWEST_SECURITY_LEVEL}"
        )
    for key, text in (("ciphers", settings.ciphers), ("ciphersuites", settings.ciphersuites)):
        unknown = [word for word in words_of(text) if not _knows(key, word)]
        if unknown:
            found.append(
                f"{key}: OpenSSL does not know {', '.join(unknown)}, and leaves that out; remove or correct it"
            )
    return found


def unusable_ciphers(settings: TLSSettings, key_types: Sequence[str] | None) -> str | None:
    """Why nobody will ever agree on one of the TLS 1.2 ciphers that are written; None if somebody may.

    Args:
        key_types: of the certificates that are shown to clients; None where we are the client.
    """
    if not settings.ciphers or settings.min_version == "1.3":
        return None
    names = expanded(settings.ciphers)
    if any(is_usable(name, key_types) for name in names):
        return None
    keys = f"a key of {', '.join(dict.fromkeys(key_types))}" if key_types else "what can be set here"
    return (
        f'nothing in "{settings.ciphers}" can be used with {keys}: ECDHE-ECDSA needs an ECDSA key, ECDHE-RSA one of '
        'RSA, DHE parameters and PSK a secret, which cannot be given; write other ciphers, or min_version = "1.3"'
    )


@functools.cache
def known_suites() -> dict[int, str]:
    """OpenSSL's names of all suites it has."""
    raw = SSL.Context(SSL.TLS_METHOD)
    raw.set_cipher_list(b"ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return _openssl.suite_names(raw)


def _knows(key: str, word: str) -> bool:
    raw = SSL.Context(SSL.TLS_METHOD)
    try:
        if key == "ciphers":
            raw.set_cipher_list(word.encode())
        else:
            raw.set_tls13_ciphersuites(word.encode())
    except SSL.Error:
        return False
    return True


def expanded(text: str) -> list[str]:
    """What OpenSSL makes of a list for TLS 1.2."""
    raw = SSL.Context(SSL.TLS_METHOD)
    raw.set_cipher_list(text.encode())
    return [name for name in SSL.Connection(raw, None).get_cipher_list() if not name.startswith("TLS_")]
