"""What a name could be taken for: the one form that all its spellings have in common.

Rules that deny compare names in this form, since whoever reads a certificate behind us may read it generously: a name
in capitals, with a dot at its end, with `%61` for `a`, an IPv4 address within IPv6. A rule that names somebody keeps
out everybody who could pass for them. Rules that allow never look here: they compare names as they are.

So everything here may find too many things alike, and nothing may find too few.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import unicodedata
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import unquote

_ENCODED = re.compile(r"%([0-9a-f]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._~")  # RFC 3986 section 2.3, in lower case
_DEFAULT_PORTS = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_SHORT = 2048  # a URI up to here is remembered, a SPIFFE ID always
_MAX_NAME, _MAX_LABEL = 253, 63  # longer ones are no host's (RFC 1035 section 2.3.4) and stay as they are

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def of_text(value: str) -> str:
    """A common name or organizational unit: X.520's caseIgnoreMatch, prepared as in RFC 4518 section 2."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", value).casefold())
    return " ".join("".join(char for char in folded if unicodedata.category(char) != "Cf").split())


def of_dns(name: str) -> tuple[str, ...]:
    """The labels of a DNS name, those of `xn--` decoded (RFC 5890); no label for the root's dot at the end, and no
    blanks, which no host's name has and a reader may overlook.
    """
    name = _without_blanks(name).rstrip(".")
    return tuple(map(_of_label, name.split("."))) if len(name) <= _MAX_NAME else (name,)


def dns_meet(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether some host fits both: either may hold wildcards, and that of a certificate may be part of a label."""
    return len(pattern) == len(name) and all(map(_labels_meet, pattern, name))


def of_email(address: str) -> tuple[str, tuple[str, ...]]:
    """The local part, without the quotes that it may stand in (RFC 5321 section 4.1.2), and the domain's labels."""
    local, _, domain = address.rpartition("@")
    return of_text(local.replace('"', "").replace("\\", "")), of_dns(domain)


def of_address(address: Address) -> tuple[Address, ...]:
    """The address, and the IPv4 address that an IPv6 one stands for (RFC 4291 section 2.5.5.2)."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (address,) if mapped is None else (address, mapped)


def of_network(network: Network) -> tuple[Network, ...]:
    """The network, and the IPv4 network that an IPv6 one holds, or is."""
    if not isinstance(network, IPv6Network):
        return (network,)
    if network.supernet_of(_MAPPED):
        return (network, ipaddress.IPv4Network("0.0.0.0/0"))
    mapped = network.network_address.ipv4_mapped
    return (network,) if mapped is None else (network, ipaddress.IPv4Network((mapped, network.prefixlen - 96)))


def of_uri(uri: str, *, with_query: bool) -> tuple[str, str, str]:
    """The forms of a URI, in which it is compared with the same forms of another: as it is but for capitals;
    normalized (RFC 3986 section 6.2); and as the most generous of readers takes it, who decodes everything, overlooks
    empty segments, a slash at the end, blanks around a segment and (unless asked for) a query, and takes `\\` for `/`.

    An encoded `*` stays encoded, since a `*` is a wildcard to those who call this.
    """
    return (_known_forms if len(uri) <= _SHORT else _forms)(uri, with_query)


def _forms(uri: str, with_query: bool) -> tuple[str, str, str]:
    text = uri.strip().lower()
    scheme, mark, rest = text.partition("://")
    if not mark:
        return text, _decoded(text), _all_decoded(text).strip()
    ends = [at for at in map(rest.find, "/?#\\") if at >= 0]
    authority, path = rest[: min(ends, default=len(rest))], rest[min(ends, default=len(rest)) :]
    start = f"{scheme}://{_of_authority(scheme, authority)}"
    path, query = _split_query(path)
    segments = map(str.strip, _all_decoded(path).replace("\\", "/").split("/"))
    generous = "/".join(part for part in _without_dots("/".join(segments)).split("/") if part)
    kept = _all_decoded(query).strip() if with_query else ""
    generous = f"/{generous}" if generous else ""
    return text, f"{start}{_without_dots(_decoded(path))}{_decoded(query)}", f"{start}{generous}{kept}"


_known_forms = functools.lru_cache(maxsize=256)(_forms)  # several rules ask about one peer, and peers come back


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _of_label(label: str) -> str:
    text = unicodedata.normalize("NFKC", label).casefold()
    if text.startswith("xn--") and len(text) <= _MAX_LABEL:
        try:
            text = text[4:].encode("ascii").decode("punycode")
        except ValueError:
            return text
    return unicodedata.normalize("NFKC", text).casefold()


def _labels_meet(one: str, other: str) -> bool:
    if "*" in other:
        one, other = other, one
    if "*" not in one:
        return one == other
    if not other:
        return False  # no wildcard stands for a label that is not there
    head, tail = one.partition("*")[0], one.rpartition("*")[2]
    if "*" not in other:
        return len(other) >= len(head) + len(tail) and other.startswith(head) and other.endswith(tail)
    start, end = other.partition("*")[0], other.rpartition("*")[2]
    return (head.startswith(start) or start.startswith(head)) and (tail.endswith(end) or end.endswith(tail))


def _decoded(text: str) -> str:
    """Text in which only those characters are encoded that would mean something else otherwise."""

    def plain(found: re.Match[str]) -> str:
        char = chr(int(found[1], 16)).lower()
        return char if char in _UNRESERVED else found[0]

    return _ENCODED.sub(plain, text)


def _all_decoded(text: str) -> str:
    return unicodedata.normalize("NFKC", unquote(text.replace("%2a", "%252a"), errors="replace")).casefold()


def _of_authority(scheme: str, authority: str) -> str:
    """The host, and its port unless that says nothing; a SPIFFE ID has none (SPIFFE-ID standard, section 2.1)."""
    host, colon, port = _without_blanks(_all_decoded(authority.rpartition("@")[2])).rpartition(":")
    if not colon or not (port == "" or port.isdigit()):
        host, port = f"{host}{colon}{port}", ""
    if port == _DEFAULT_PORTS.get(scheme) or scheme == "spiffe":
        port = ""
    name = ".".join(of_dns(host))
    return f"{name}:{port}" if port else name


def _split_query(path: str) -> tuple[str, str]:
    ends = [at for at in map(path.find, "?#") if at >= 0]
    at = min(ends, default=len(path))
    return path[:at], path[at:]


def _without_dots(path: str) -> str:
    """A path without the segments `.` and `..` (RFC 3986 section 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            del kept[max(1, len(kept) - 1) :]  # never above the root
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", "..") and len(segments) > 1:
        kept.append("")
    return "/".join(kept)
