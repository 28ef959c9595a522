"""Values of single keys from their texts: what each may be, and what to write instead.

Every function raises ValueError for a text that it does not take; the message says what would be right.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from pathlib import Path

from tlstunnel.access.policy import Rule, RuleError
from tlstunnel.address import is_zone, name_problem, shown
from tlstunnel.config.model import Keepalive, Network
from tlstunnel.config.units import UnitError, format_duration, no_unit, parse_duration

_MODE = re.compile(r"0?[0-7]{3}")
MAX_ALPN_BYTES = 255  # one length byte each (RFC 7301 section 3.1)


def parse_network(text: str) -> Network:
    """Parse `"192.0.2.0/24"`, `"2001:db8::/32"`, or one address.

    Raises:
        ValueError: the text is no network; the message says what would be right.
    """
    right = 'write one such as "192.0.2.0/24", "2001:db8::/32" or "192.0.2.7"'
    try:
        network = ipaddress.ip_network(text, strict=False)
        exact = ipaddress.ip_interface(text).ip
    except ValueError:
        raise ValueError(f'"{text}" is not a network; {right}') from None
    if exact != network.network_address:
        # Was the network meant or the one address? Who guesses wrong admits or shuts out 2^n strangers.
        raise ValueError(f'"{text}" has bits behind its prefix; write "{network}" for the network or "{exact}" for one')
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        plain = ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
        raise ValueError(f'"{text}" is IPv4 within IPv6, which no client is known by here; write "{plain}"')
    return network


def parse_unix_mode(text: str) -> int:
    """Permissions as chmod(1) writes them."""
    if not _MODE.fullmatch(text):
        raise ValueError(f'"{text}" is no file mode; write three digits from 0 to 7 behind a 0, as in "0660"')
    mode = int(text, 8)
    if not mode & 0o222:
        raise ValueError(f'"{text}" lets nobody connect, which takes the right to write; write a mode such as "0660"')
    return mode


def parse_source_address(text: str) -> str:
    """The address that connections to targets come from; whether it fits them is asked later."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        right = "write an IP address of this machine, without a port or brackets"
        raise ValueError(f'"{text}" is not an IP address; {right}') from None
    zone = address.scope_id if isinstance(address, ipaddress.IPv6Address) else None
    if zone is not None and not is_zone(zone):
        raise ValueError(f'"{shown(text)}" names no interface behind the "%"; write one such as fe80::1%eth0')
    if isinstance(address, ipaddress.IPv6Address) and address.is_link_local and zone is None:
        raise ValueError(f'"{text}" is on each link another address; name the interface: {text}%eth0')
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f'"{text}" is no address to connect from; write one of this machine, or leave the key out')
    return str(address)


def parse_protocol(text: str) -> str:
    """An application protocol (ALPN)."""
    if not text.isascii() or not 0 < len(text) <= MAX_ALPN_BYTES:
        raise ValueError(f'"{text[:40]}" is not 1 to {MAX_ALPN_BYTES} ASCII characters; write one such as "h2"')
    return text


def parse_server_name(text: str) -> str:
    """The host name that a server is asked for and must show."""
    name = check_name(text)
    if name.startswith("*"):
        raise ValueError(f'"{text}" is a pattern; write the one name the server shows')
    return name


def check_name(text: str) -> str:
    """A host name for SNI, or `*.` and a name; lower case, without a final dot."""
    name = text.removesuffix(".")
    if _is_address(name):
        raise ValueError(f'"{text}" is an address, which no client sends as a server name; write a host name')
    problem = name_problem(name.removeprefix("*."))
    if problem == "is not a host name":
        problem += '; write one such as "api.example.org" or "*.example.org"'
    if problem:
        raise ValueError(f'"{shown(text)}" {problem}')
    return name.lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_account(text: str) -> str:
    """The name of a user or group; whether this machine has it is asked later."""
    if not text or text != text.strip():
        raise ValueError(f'"{text}" is not the name of an account; write one such as "tlstunnel"')
    return text


def parse_log_target(text: str, base: Path) -> str:
    """`stderr`, `syslog` or `file:PATH`."""
    if text in ("stderr", "syslog"):
        return text
    if not text.startswith("file:") or text == "file:" or "\0" in text:
        raise ValueError(f'"{text}" is no place to log to; write "stderr", "syslog" or "file:PATH"')
    return f"file:{base / text.removeprefix('file:')}"


def parse_rule(field: str, text: str) -> Rule:
    """A rule of one field. The rule itself says what its fields may hold."""
    try:
        return Rule(**{field: text})
    except RuleError as exc:
        raise ValueError(exc.problem) from exc


_MAX_KEEPALIVE_S = 32767  # MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of the kernel (tcp(7))
_MAX_KEEPALIVE_COUNT = 127


def parse_keepalive(value: object) -> Keepalive | None:
    """Parse `{ idle, interval, count }`, of which each may be left out, or `"never"`.

    Raises:
        ValueError: it is neither, or one of them is out of range.
    """
    if value == "never":
        return None
    if not isinstance(value, Mapping):
        raise ValueError('neither a table nor "never"; write { idle = "1m", interval = "10s", count = 6 }, or "never"')
    for key in value:
        if key not in ("idle", "interval", "count"):
            raise ValueError(f'{shown(str(key))}: unknown key; write "idle", "interval" or "count"')
    default = Keepalive()
    count = value.get("count", default.count)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_KEEPALIVE_COUNT:
        raise ValueError(f"count: not a whole number in its range; write one from 1 to {_MAX_KEEPALIVE_COUNT}")
    return Keepalive(
        idle_s=_keepalive_time("idle", value.get("idle", f"{default.idle_s}s")),
        interval_s=_keepalive_time("interval", value.get("interval", f"{default.interval_s}s")),
        count=count,
    )


def _keepalive_time(name: str, text: object) -> int:
    right = 'write a duration such as "60s", or keepalive = "never" to ask nobody'
    if isinstance(text, int | float) and not isinstance(text, bool):
        raise ValueError(f"{name}: {no_unit(str(text), str(text))}")
    if not isinstance(text, str):
        raise ValueError(f"{name}: not a string; {right}")
    try:
        seconds = parse_duration(text, zero=True)
    except UnitError as exc:
        raise ValueError(f"{name}: {exc}") from None
    if seconds in (0, math.inf):
        raise ValueError(f'{name}: "{text}" is no time to wait; {right}')
    if seconds != int(seconds) or seconds > _MAX_KEEPALIVE_S:
        raise ValueError(f'{name}: "{text}" is nothing that the kernel counts: whole seconds, up to 9 hours; {right}')
    return int(seconds)


def print_keepalive(keepalive: Keepalive | None) -> object:
    """As the file writes it."""
    if keepalive is None:
        return "never"
    times = {"idle": format_duration(keepalive.idle_s), "interval": format_duration(keepalive.interval_s)}
    return {**times, "count": keepalive.count}
