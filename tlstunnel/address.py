"""Addresses as the contract writes them: `HOST:PORT`, `:PORT`, `[V6]:PORT`, `unix:/path`, `systemd:NAME`."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

MAX_NAME = 253
"""Characters of a host name without its final dot: 255 bytes on the wire (RFC 1035 section 3.1)."""
MAX_LABEL = 63
"""Characters between two dots of it (RFC 1035 section 2.3.4)."""
_MAX_SHOWN = 80
_UNIX = "unix:"
_LABEL = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[Xx][0-9A-Fa-f]*", re.ASCII)
_ZONE = re.compile(r"[!-$&-.0-9;-~]{1,15}", re.ASCII)  # IFNAMSIZ is 16 with the NUL; netdevice(7)
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PATH = re.compile(r"[/?#]")  # what ends the authority of a URL (RFC 3986 section 3.2)
_URL_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_DESCRIPTOR_NAME = re.compile(r"[!-9;-~]{1,255}")
MAX_UNIX_PATH = 107  # sun_path holds 108 bytes with its NUL (unix(7))


class AddressError(ValueError):
    """The text is not an address; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class TCPAddress:
    """A host and a port. `host` is an IPv4 or IPv6 literal, a name, or empty for all interfaces (dual-stack)."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address, so that nothing has to be resolved."""
        return _ip(self.host) is not None

    @property
    def is_loopback(self) -> bool:
        """Whether traffic stays on this machine: a loopback literal, or the name localhost (RFC 6761 section 6.3)."""
        address = _ip(self.host)
        if address is not None:
            return address.is_loopback
        name = self.host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket's path."""

    path: str
    is_loopback = True
    is_literal = True

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """Listening sockets that systemd passes in, by their FileDescriptorName (sd_listen_fds_with_names(3))."""

    name: str
    is_loopback = False

    def __str__(self) -> str:
        return f"systemd:{self.name}"


Target = TCPAddress | UnixAddress
Listen = TCPAddress | UnixAddress | SystemdAddress


def leads_to(target: Target, listen: Listen) -> bool:
    """Whether a connection to `target` would arrive at `listen`, as far as their texts tell. Which addresses this
    machine has is not asked, so behind `:PORT` only loopback targets are found."""
    if isinstance(target, UnixAddress) or not isinstance(listen, TCPAddress):
        return str(target) == str(listen)
    if target.port != listen.port:
        return False
    mine, theirs = _ip(target.host), _ip(listen.host)
    if mine is not None and mine.is_unspecified:
        mine = ipaddress.ip_address("127.0.0.1" if mine.version == 4 else "::1")  # so does connect(2)
    if not listen.host:
        return target.is_loopback or (mine is not None and mine.is_loopback)
    if theirs is not None and mine is None:
        return target.is_loopback and (theirs.is_loopback or theirs.is_unspecified)
    if theirs is not None and mine is not None:
        return mine == theirs or (theirs.is_unspecified and mine.is_loopback and mine.version == theirs.version)
    if mine is not None:
        return listen.is_loopback and mine.is_loopback
    return target.host.lower().removesuffix(".") == listen.host.lower().removesuffix(".")


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def name_problem(name: str) -> str:
    """Why this is no host name: `is not a host name`, or what exactly is wrong; empty if it is one.

    What passes here passes every resolver and DNS itself: letters, digits, `-` and `_` in labels of 1 to 63 of them,
    253 in all, and at most one final dot. A name whose last label is a number would be read as an IPv4 address, in one
    of the odd forms that inet_aton(3) knows, by some and not by others (RFC 3696 section 2), so it is none.
    """
    if not name.isascii():
        return "is not ASCII; write the name in its xn-- form"
    labels = name.removesuffix(".").split(".")
    longest = max(labels, key=len)
    if len(longest) > MAX_LABEL and _LABEL.fullmatch(longest):
        return f"has a label of {len(longest)} characters, and DNS allows {MAX_LABEL}"
    if len(name.removesuffix(".")) > MAX_NAME and all(map(_LABEL.fullmatch, labels)):
        return f"has {len(name)} characters, and DNS allows {MAX_NAME}"
    is_name = all(_LABEL.fullmatch(label) and label.strip("-") == label for label in labels)
    return "" if is_name and not _NUMBER.fullmatch(labels[-1]) else "is not a host name"


def is_zone(text: str) -> bool:
    """Whether this can name a network interface: by name, as Linux allows it, or by its number."""
    if text.isdigit():
        return _ZONE.fullmatch(text) is not None and 0 < int(text) < 1 << 32
    return _ZONE.fullmatch(text) is not None and text not in (".", "..")


def shown(text: str) -> str:
    """A text as a message repeats it: no longer than people read."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def parse_listen(text: str, base: Path | None = None) -> Listen:
    """Parse an address to listen on. A name stands for all its addresses; `:PORT` for every interface.

    Args:
        text: what was written.
        base: the folder that the path of a unix socket may be relative to; without one it may not.

    Raises:
        AddressError: the text is no such address.
    """
    if text.startswith("systemd:"):
        name = text.removeprefix("systemd:")
        if not _DESCRIPTOR_NAME.fullmatch(name):
            raise AddressError(f'"{text}" names no descriptor; write systemd:NAME with the FileDescriptorName')
        return SystemdAddress(name)
    return _parse_unix(text, base) if text.startswith(_UNIX) else _parse(text, listening=True)


def parse_target(text: str, base: Path | None = None) -> Target:
    """Parse an address to connect to. It needs a host, and a port other than 0.

    Args:
        text: what was written.
        base: as for `parse_listen`.

    Raises:
        AddressError: the text is no such address.
    """
    if text.startswith("systemd:"):
        raise AddressError(f'"{text}" is an address to listen on; write HOST:PORT or unix:/path')
    return _parse_unix(text, base) if text.startswith(_UNIX) else _parse(text, listening=False)


def _parse(text: str, *, listening: bool) -> TCPAddress:
    form = "HOST:PORT, :PORT, [V6]:PORT or unix:/path" if listening else "HOST:PORT, [V6]:PORT or unix:/path"
    _refuse_url(text, form, listening=listening)
    if any(character.isspace() for character in text):
        what = "a line break" if any(character in "\r\n" for character in text) else "a blank"
        raise AddressError(f'"{text}" has {what} in it; write {form} without')
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:(.*)", text)
    if bracketed:
        host, port_text = bracketed.groups()
        bare, _, zone = host.partition("%")
        address = _ip(bare)
        if not isinstance(address, ipaddress.IPv6Address):
            raise AddressError(f'"{shown(host)}" is not an IPv6 address; write {form}')
        if "%" in host and not is_zone(zone):
            raise AddressError(f'"{shown(host)}" names no interface behind the "%"; write one such as [fe80::1%eth0]')
        if address in _LINK_LOCAL and not zone:
            raise AddressError(f'"{host}" is on each link another machine; name the interface: [{host}%eth0]')
    elif text.startswith("["):
        raise AddressError(f'"{text}" {"has no port" if text.endswith("]") else "is not [V6]:PORT"}; write {form}')
    else:
        host, colon, port_text = text.rpartition(":")
        if text.startswith("/"):
            raise AddressError(f'"{text}" is a path; write "unix:{text}" for the socket there')
        if not colon and text.isdigit() and listening:
            raise AddressError(f'"{text}" has no colon; write ":{text}" for all interfaces or "127.0.0.1:{text}"')
        if not colon and text.isdigit():
            raise AddressError(f'"{text}" has no host; write {form}, such as "127.0.0.1:{text}"')
        if not colon:
            raise AddressError(f'"{text}" has no port; write {form}')
        if ":" in host:
            raise AddressError(f'"{text}" is ambiguous; put an IPv6 address in brackets: [V6]:PORT')
        if "/" in host:
            raise AddressError(f'"{text}" has a "/" in its host; write {form}')
        if not host and not listening:
            raise AddressError(f'"{text}" has no host; write {form}')
        problem = name_problem(host) if host and _ip(host) is None else ""
        if problem == "is not a host name":
            problem = f"is neither an IP address nor a host name; write {form}"
        if problem:
            raise AddressError(f'"{shown(host)}" {problem}')
    return TCPAddress(host, _parse_port(text, port_text, listening=listening))


def _refuse_url(text: str, form: str, *, listening: bool) -> None:
    """A URL is not repeated whole: it may hold a password."""
    scheme, mark, rest = text.partition("://")
    if not mark or not _SCHEME.fullmatch(scheme):
        return
    authority = _PATH.split(rest, maxsplit=1)[0].rpartition("@")[2]
    port = _URL_PORTS.get(scheme.lower())
    candidates = [authority] if port is None else [authority, f"{authority}:{port}"]
    for candidate in candidates:
        try:
            address = _parse(candidate, listening=listening)
        except AddressError:
            continue
        raise AddressError(f'"{scheme}://..." is a URL; write its host and port alone, "{address}"')
    raise AddressError(f'"{scheme}://..." is a URL; write {form}')


def _parse_port(text: str, port_text: str, *, listening: bool) -> int:
    if not (port_text.isascii() and port_text.isdigit()) or len(port_text) > 5 or int(port_text) > 65535:
        raise AddressError(
            f'"{text}": "{port_text}" is not a port; write a number from {0 if listening else 1} to 65535'
        )
    port = int(port_text)
    if port == 0 and not listening:
        raise AddressError(f'"{text}": nothing can be reached on port 0; write a number from 1 to 65535')
    return port


def _parse_unix(text: str, base: Path | None) -> UnixAddress:
    path = text.removeprefix(_UNIX)
    if "\0" in path:
        raise AddressError("a unix socket's path cannot hold a NUL")
    if path.startswith("@"):
        raise AddressError(f'"{text}" would have no file, and so no permissions; write unix:/path/to/socket')
    if not path or (base is None and not path.startswith("/")):
        raise AddressError(f'"{text}" is not an absolute path; write unix:/path/to/socket')
    path = path if base is None else str(base / path)
    if len(os.fsencode(path)) > MAX_UNIX_PATH:
        raise AddressError(f'"{path}" is longer than the {MAX_UNIX_PATH} bytes the kernel allows; write a shorter path')
    return UnixAddress(path)
