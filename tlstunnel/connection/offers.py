"""What a client offers, and what we have, where the two have nothing in common; asked only when a handshake failed."""

from __future__ import annotations

from dataclasses import dataclass

from tlstunnel.config.model import TLSSettings
from tlstunnel.outcome import CloseReason
from tlstunnel.tls import ciphers, codepoints
from tlstunnel.tls.clienthello import ClientHello
from tlstunnel.tls.context import DEFAULT_CIPHERS, DEFAULT_GROUPS, DEFAULT_SUITES
from tlstunnel.tls.remedies import ONLY_WEAK_SIGNATURES


@dataclass(frozen=True, slots=True)
class Ours:
    """What a service has to offer."""

    settings: TLSSettings
    key_types: tuple[str, ...]

    @property
    def groups(self) -> list[str]:
        """Key-exchange groups, without the signs that OpenSSL's lists may hold."""
        return [name.strip("*?") for name in (self.settings.groups or DEFAULT_GROUPS).replace("/", ":").split(":")]

    def suites(self, versions: tuple[str, ...]) -> list[str]:
        """Suites of these versions that suit our keys."""
        settings, found = self.settings, []
        if "1.3" in versions and settings.max_version == "1.3":
            found += (settings.ciphersuites or DEFAULT_SUITES).split(":")
        if "1.2" in versions and settings.min_version == "1.2":
            names = ciphers.expanded(settings.ciphers or DEFAULT_CIPHERS)
            found += [name for name in names if ciphers.is_usable(name, self.key_types)]
        return found


def compare(reason: CloseReason, hello: ClientHello, ours: Ours) -> tuple[CloseReason, str]:
    """The reason, and both sides of it by name.

    Of TLS 1.2 OpenSSL says that no suite is shared also where what a suite needs is not: a group, or a signature.

    Raises:
        HelloError: a list in the ClientHello is malformed.
    """
    if reason is CloseReason.NO_SHARED_CIPHER:
        theirs = codepoints.suites(hello.cipher_suites, ciphers.known_suites())
        have = ours.suites(hello.version_names)
        if set(theirs).isdisjoint(have):
            versions = codepoints.some(list(hello.version_names), codepoints.MAX_SUITES)
            told, has = (codepoints.some(names, codepoints.MAX_SUITES) for names in (theirs, have))
            return (
                reason,
                f"client offers TLS {versions} with {told}; we have {has}",
            )
        reason = CloseReason.NO_SHARED_SIGNATURE if _shares_a_group(hello, ours) else CloseReason.NO_SHARED_GROUP
    if reason is CloseReason.NO_SHARED_GROUP:
        theirs = codepoints.groups(hello.groups)
        return reason, f"client offers {codepoints.some(theirs)}; we have {codepoints.some(ours.groups)}"
    algorithms = hello.signature_algorithms
    keys = f"we have a key of {', '.join(dict.fromkeys(ours.key_types))}"
    if codepoints.are_weak_signatures(algorithms):
        named = codepoints.some(codepoints.signatures(algorithms)) if algorithms else "SHA-1, as it names nothing"
        return reason, f"{ONLY_WEAK_SIGNATURES}: {named}"
    return reason, f"client verifies {codepoints.some(codepoints.signatures(algorithms))}; {keys}"


def _shares_a_group(hello: ClientHello, ours: Ours) -> bool:
    theirs = codepoints.groups(hello.groups)
    return any(codepoints.same_group(one, other) for one in theirs for other in ours.groups)
