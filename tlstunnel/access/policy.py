"""Access rules: pure values and one pure decision.

A policy is asked about every connection, resumed sessions included, after OpenSSL has verified the certificate. A
`deny` rule that matches refuses; else an `allow` rule that matches admits, or `allow_any` does; else the connection is
refused. No certificate is a case of its own, `anonymous`.

A certificate may hold several names where a rule's author thought of one. So the two lists differ in what "matches"
means where it matters. A rule that denies matches when any of the names is the one. A rule that allows matches a common
name only if it is the certificate's only one, and a SPIFFE ID only if it is the only URI (which the X.509-SVID standard
demands in section 2): whoever could add a second name to a request gains nothing by it. Organizational units, DNS
names, other URIs and addresses are lists by nature; one of them is enough in either case. All names are read as they
are where they allow, and in every spelling (`likeness`) where they deny.

Each pattern is parsed once, when its rule is made. Patterns are exact unless said otherwise, because one that matches
more than its author thought lets strangers in.
"""

from __future__ import annotations

import base64
import binascii
import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from tlstunnel.access import likeness

if TYPE_CHECKING:  # reading a policy needs no certificates, and `cryptography` takes its time to load
    from tlstunnel.access.peer import Identity

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_EMAIL = re.compile(r"([!-?A-~]+)@([^@]+)")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")

# SPIFFE-ID standard, sections 2.1 to 2.3: 255 bytes of trust domain, 2048 in all, no empty or relative segments, no
# port, no user, no query, no percent-encoding, and nothing in upper case outside the path.
_SPIFFE = re.compile(r"spiffe://(?=[^/]{1,255}(?:/|\Z))[a-z0-9._-]+(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._-]+)*")
_MAX_SPIFFE = 2048


class RuleError(ValueError):
    """A rule that cannot be meant. `field` is the key at fault, empty for the rule as a whole."""

    def __init__(self, field: str, problem: str) -> None:
        self.field, self.problem = field, problem
        super().__init__(field, problem)

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


class Reason(enum.StrEnum):
    """Why a connection was admitted or refused: a metric's label, so the set is closed."""

    ALLOW_RULE = "allow_rule"
    ALLOW_ANY = "allow_any"
    ANONYMOUS = "anonymous"
    DENY_RULE = "deny_rule"
    NO_RULE = "no_rule"
    NO_CERTIFICATE = "no_certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Matches an identity when every field that is set matches.

    Raises:
        RuleError: a field is no pattern of its kind, or none is set.
    """

    cn: str | None = None
    """Common name, exactly."""
    ou: str | None = None
    """Organizational unit, exactly; one of several is enough."""
    dns: str | None = None
    """DNS name; a first label `*` stands for any one label."""
    uri: str | None = None
    """URI, such as a SPIFFE ID; in its path `*` stands for one segment and `**` for one or more."""
    ip: str | None = None
    """IP address, or a network it is in."""
    email: str | None = None
    """E-mail address, exactly; the domain in any case."""
    spki_pin: str | None = None
    """`sha256:BASE64` of the public key, which stays the same when a certificate is renewed for the same key."""

    _uri: _URIPattern | None = field(default=None, init=False, repr=False, compare=False)
    _network: IPv4Network | IPv6Network | None = field(default=None, init=False, repr=False, compare=False)
    _denied: _Likeness | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self._set_fields():
            raise RuleError("", "the rule names nothing; write cn, ou, dns, uri, ip, email or spki_pin")
        for name, parse in _PARSERS.items():
            value = getattr(self, name)
            if value is None:
                continue
            try:
                parsed = parse(value)
            except ValueError as exc:
                raise RuleError(name, str(exc)) from exc
            # A frozen value may still be completed here: text takes its canonical form, the others are kept beside it.
            object.__setattr__(self, _KEPT_AS.get(name, name), parsed)
        object.__setattr__(self, "_denied", _Likeness.of(self))

    def __str__(self) -> str:
        """Stable and for people: `cn=billing`, `cn=billing ou=finance`; printable, as every pattern is."""
        return " ".join(f"{name}={value}" for name, value in self._set_fields())

    def allows(self, identity: Identity) -> bool:
        """Whether an allow rule matches: no other name beside the one it names could have been meant."""
        if self.cn is not None and len(identity.common_names) != 1:
            return False
        if self._uri is not None:
            if self._uri.is_spiffe and len(identity.uris) != 1:
                return False
            if not any(map(self._uri.allows, identity.uris)):
                return False
        return (
            (self.cn is None or self.cn in identity.common_names)
            and (self.ou is None or self.ou in identity.organizational_units)
            and (self.email is None or self.email in identity.emails)
            and (self.spki_pin is None or self.spki_pin == identity.spki_pin)
            and (self.dns is None or any(_dns_matches(self.dns, name) for name in identity.dns_names))
            and (self._network is None or any(address in self._network for address in identity.ip_addresses))
        )

    def denies(self, identity: Identity) -> bool:
        """Whether a deny rule matches: any name of the kind will do, and need only resemble the one meant."""
        assert self._denied is not None  # noqa: S101 - set when the rule is made
        return self._denied.matches(identity)

    def _set_fields(self) -> list[tuple[str, str]]:
        named = ((name, getattr(self, name)) for name in _PARSERS)
        return [(name, value) for name, value in named if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who may connect: any `allow` rule that matches, unless a `deny` rule matches."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    allow_any: bool = False
    """Whether every verified certificate that no `deny` rule matches is admitted."""
    anonymous: bool = True
    """Whether a client without a certificate is admitted, where the service does not require one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a policy says to one connection."""

    allowed: bool
    rule: str
    """What decided, in text that stays the same as long as the configuration does: `allow cn=billing`, `allow_any`."""
    reason: Reason


def rule(**fields: str) -> Rule:
    """Make a rule of what an operator wrote; the keys are the fields of `Rule`.

    Raises:
        RuleError: a key is unknown, a pattern is none, or there is no key at all.
    """
    for name, value in fields.items():
        if name not in _PARSERS:
            raise RuleError(name, f"unknown key; write one of {', '.join(_PARSERS)}")
        if not isinstance(value, str):
            raise RuleError(name, "is not text; write a string")
    return Rule(**fields)


def decide(policy: Policy, identity: Identity | None) -> Decision:
    """Whether a peer may go on, and which rule says so; `identity` is None for a client without a certificate."""
    if identity is None:
        if policy.anonymous:
            return _ANONYMOUS
        return NO_CERTIFICATE
    for one in policy.deny:
        if one.denies(identity):
            return Decision(allowed=False, rule=f"deny {one}", reason=Reason.DENY_RULE)
    for one in policy.allow:
        if one.allows(identity):
            return Decision(allowed=True, rule=f"allow {one}", reason=Reason.ALLOW_RULE)
    return _ALLOW_ANY if policy.allow_any else _NO_RULE


def refusal(decision: Decision, identity: Identity | None, *, is_server: bool = False) -> str:
    """A refusal for people: who, what decided, what would be right.

    Args:
        is_server: it is a server that was refused, by the rules in `verify`.
    """
    if identity is None:
        return f"it showed no certificate; {_REMEDIES[Reason.NO_CERTIFICATE]}"
    remedy = _VERIFY_REMEDY if is_server else _REMEDIES[decision.reason]
    return f"{identity}: {decision.rule}; {remedy}"


@dataclass(frozen=True, slots=True)
class _Likeness:
    """The names of a rule in the form that all their spellings have in common; see `likeness`."""

    cn: str | None
    ou: str | None
    dns: tuple[str, ...] | None
    uris: tuple[_URIPattern, ...] | None
    has_query: bool
    networks: tuple[IPv4Network | IPv6Network, ...] | None
    email: tuple[str, tuple[str, ...]] | None
    spki_pin: str | None

    @classmethod
    def of(cls, rule: Rule) -> _Likeness:
        uri, has_query = rule.uri, rule.uri is not None and ("?" in rule.uri or "#" in rule.uri)
        return cls(
            cn=None if rule.cn is None else likeness.of_text(rule.cn),
            ou=None if rule.ou is None else likeness.of_text(rule.ou),
            dns=None if rule.dns is None else likeness.of_dns(rule.dns),
            uris=None if uri is None else tuple(map(_split, likeness.of_uri(uri, with_query=has_query))),
            has_query=has_query,
            networks=None if rule._network is None else likeness.of_network(rule._network),
            email=None if rule.email is None else likeness.of_email(rule.email),
            spki_pin=rule.spki_pin,
        )

    def matches(self, identity: Identity) -> bool:
        return (
            (self.cn is None or self.cn in map(likeness.of_text, identity.common_names))
            and (self.ou is None or self.ou in map(likeness.of_text, identity.organizational_units))
            and (self.email is None or self.email in map(likeness.of_email, identity.emails))
            and (self.spki_pin is None or self.spki_pin == identity.spki_pin)
            and (
                self.dns is None
                or any(likeness.dns_meet(self.dns, likeness.of_dns(name)) for name in identity.dns_names)
            )
            and (self.uris is None or any(map(self._resembles, identity.uris)))
            and (self.networks is None or any(map(self._is_inside, identity.ip_addresses)))
        )

    def _resembles(self, uri: str) -> bool:
        forms = likeness.of_uri(uri, with_query=self.has_query)
        return any(pattern.covers(form) for pattern, form in zip(self.uris or (), forms, strict=True))

    def _is_inside(self, address: likeness.Address) -> bool:
        return any(one in network for one in likeness.of_address(address) for network in self.networks or ())


@dataclass(frozen=True, slots=True)
class _URIPattern:
    """A URI to be matched as a whole, or segment by segment where it holds wildcards."""

    prefix: str
    """Compared as it is: everything, or scheme and authority (`spiffe://example.org`) before the segments."""
    before: tuple[str, ...] | None = None
    """Segments from the start of the path, `*` for any; None if the pattern holds no wildcard."""
    after: tuple[str, ...] | None = None
    """Segments up to the end of the path, with one or more between them and `before`; None without `**`."""
    is_spiffe: bool = False

    def allows(self, uri: str) -> bool:
        """Whether a URI is certainly one of those meant: valid if a SPIFFE ID, and nothing odd under a wildcard."""
        return (not self.is_spiffe or _is_spiffe_id(uri)) and self._matches(uri, _is_ordinary)

    def covers(self, uri: str) -> bool:
        """Whether a URI is one of those meant, with anything under a wildcard."""
        return self._matches(uri, _is_anything)

    def _matches(self, uri: str, fits_wildcard: Callable[[str], bool]) -> bool:
        if self.before is None:
            return uri == self.prefix
        if not uri.startswith(self.prefix + "/"):
            return False
        segments = uri[len(self.prefix) + 1 :].split("/")
        if self.after is None:
            return _all_match(self.before, segments, fits_wildcard)
        head, tail = len(self.before), len(segments) - len(self.after)
        return (
            head < tail
            and _all_match(self.before, segments[:head], fits_wildcard)
            and all(map(fits_wildcard, segments[head:tail]))
            and _all_match(self.after, segments[tail:], fits_wildcard)
        )


def _is_spiffe_id(uri: str) -> bool:
    """Whether a URI is a valid SPIFFE ID, of a trust domain or of a workload in one."""
    return len(uri) <= _MAX_SPIFFE and _SPIFFE.fullmatch(uri) is not None


def _parse_uri(text: str) -> _URIPattern:
    """A URI, in whose path a segment `*` stands for any one segment and one segment `**` for one or more."""
    _require_printable(text)
    if not text.isascii() or " " in text:
        raise ValueError(f'"{text}" is not a URI; write it in ASCII, with %XX for everything else')
    is_spiffe = text.lower().startswith("spiffe:")
    if "*" not in text:
        if is_spiffe and not _is_spiffe_id(text):
            raise ValueError(
                f'"{text}" is not a SPIFFE ID; write spiffe://TRUST-DOMAIN/PATH, the trust domain lower case'
            )
        if ":" not in text:
            raise ValueError(f'"{text}" has no scheme; write all of it, such as spiffe://example.org/billing')
        return _split(text, is_spiffe=is_spiffe)

    authority = _AUTHORITY.match(text)
    if authority is None or "*" in authority[0] or "?" in text or "#" in text:
        raise ValueError(f'"{text}": wildcards stand for segments of the path; write them after scheme://NAME/')
    segments = text[authority.end() :].removeprefix("/").split("/")
    if any("*" in segment and segment not in ("*", "**") for segment in segments):
        raise ValueError(f'"{text}": a wildcard is a segment of its own; write "*" for one, "**" for several')
    if segments.count("**") > 1:
        raise ValueError(f'"{text}": "**" may stand in one place; write several rules instead')
    if is_spiffe and not _is_spiffe_id(text.replace("*", "x")):
        raise ValueError(
            f'"{text}" matches no SPIFFE ID; write spiffe://TRUST-DOMAIN/PATH, the trust domain lower case'
        )
    return _split(text, is_spiffe=is_spiffe)


def _split(text: str, *, is_spiffe: bool = False) -> _URIPattern:
    """A pattern that is known to be one, or another spelling of it."""
    authority = _AUTHORITY.match(text) if "*" in text else None
    if authority is None:
        return _URIPattern(text, is_spiffe=is_spiffe)
    segments = text[authority.end() :].removeprefix("/").split("/")
    if "**" not in segments:
        return _URIPattern(authority[0], tuple(segments), is_spiffe=is_spiffe)
    place = segments.index("**")
    return _URIPattern(authority[0], tuple(segments[:place]), tuple(segments[place + 1 :]), is_spiffe)


def _parse_text(value: str) -> str:
    """A common name or organizational unit, compared code point by code point."""
    _require_printable(value)
    if value != value.strip():
        raise ValueError(f'"{value}" begins or ends with a space; write it without')
    if not value.strip("*"):
        raise ValueError(f'"{value}" is no wildcard here, names are compared as they are; write the name itself')
    return value


def _parse_dns(value: str) -> str:
    """A DNS name in lower case, whose first label may be `*` for any one label."""
    name = value.lower()
    if len(name) > 253 or not _DNS.fullmatch(name):
        _require_printable(value)
        raise ValueError(f'"{value}" is not a DNS name; write labels of a-z, 0-9 and "-", the first of them may be "*"')
    return name


def _parse_email(value: str) -> str:
    """An e-mail address, with its domain in lower case."""
    split = _EMAIL.fullmatch(value)
    if split is None or not _DNS.fullmatch(split[2].lower()) or "*" in value:
        _require_printable(value)
        raise ValueError(f'"{value}" is not an e-mail address; write NAME@DOMAIN')
    return f"{split[1]}@{split[2].lower()}"


def _parse_network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An IP address, or a network in CIDR notation."""
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        _require_printable(value)
        try:
            inside = ipaddress.ip_network(value, strict=False)
        except ValueError:
            raise ValueError(f'"{value}" is not an IP address; write 192.0.2.7, 2001:db8::7 or 192.0.2.0/24') from None
        raise ValueError(f'"{value}" has bits set after the prefix; write {inside}') from None


def _parse_spki_pin(value: str) -> str:
    """A pin of a public key: `sha256:` and the base64 of the SHA-256 of the SubjectPublicKeyInfo."""
    _require_printable(value)
    algorithm, _, digest = value.partition(":")
    if algorithm != "sha256":
        raise ValueError(f'"{value}" is not a pin; write sha256:BASE64')
    try:
        size = len(base64.b64decode(digest, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != 32:
        hint = "write it in base64, not in hexadecimal" if re.fullmatch("[0-9a-fA-F:]{64,95}", digest) else ""
        raise ValueError(f'"{value}" is not the base64 of 32 bytes; {hint or "write sha256: and 44 characters"}')
    # Trailing bits that decode to nothing would make two spellings of one pin.
    return f"sha256:{base64.b64encode(base64.b64decode(digest)).decode('ascii')}"


def _dns_matches(pattern: str, name: str) -> bool:
    """Whether a certificate's DNS name, in lower case, is one the pattern stands for."""
    if not pattern.startswith("*."):
        return name == pattern
    label, dot, rest = name.partition(".")
    return bool(label) and bool(dot) and rest == pattern[2:]


def _all_match(pattern: tuple[str, ...], segments: list[str], fits_wildcard: Callable[[str], bool]) -> bool:
    return len(pattern) == len(segments) and all(
        fits_wildcard(segment) if wanted == "*" else wanted == segment
        for wanted, segment in zip(pattern, segments, strict=True)
    )


def _is_ordinary(segment: str) -> bool:
    """Whether a wildcard may stand for it: not where the segment would change what the path means."""
    return segment not in ("", ".", "..") and not any(sign in segment for sign in "?#%")


def _is_anything(_: str) -> bool:
    return True


def _require_printable(value: str) -> None:
    if not value:
        raise ValueError("it is empty; leave it out, or write a name")
    if not value.isprintable():
        raise ValueError("it holds a character that does not print; no usable certificate does")


_PARSERS: dict[str, Callable[[str], object]] = {
    "cn": _parse_text,
    "ou": _parse_text,
    "dns": _parse_dns,
    "uri": _parse_uri,
    "ip": _parse_network,
    "email": _parse_email,
    "spki_pin": _parse_spki_pin,
}
_KEPT_AS = {"uri": "_uri", "ip": "_network"}

_ANONYMOUS = Decision(allowed=True, rule="anonymous", reason=Reason.ANONYMOUS)
NO_CERTIFICATE = Decision(allowed=False, rule="no certificate", reason=Reason.NO_CERTIFICATE)
_ALLOW_ANY = Decision(allowed=True, rule="allow_any", reason=Reason.ALLOW_ANY)
_NO_RULE = Decision(allowed=False, rule="no rule matches", reason=Reason.NO_RULE)

_REMEDIES = {
    Reason.DENY_RULE: "take that rule out if it may connect",
    Reason.NO_RULE: "add an allow rule if it may connect",
    Reason.NO_CERTIFICATE: 'give it one, or set anonymous = "allow"',
}
_VERIFY_REMEDY = "add a verify rule if it is the right server"
