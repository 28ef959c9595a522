"""Who may connect from where, and from where we connect: networks, addresses and rates, as written."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from tlstunnel.address import Target, TCPAddress, UnixAddress, is_zone, shown
from tlstunnel.config.model import LOOPBACK, Network, ProxyProtocol, Rate
from tlstunnel.config.reader import Table
from tlstunnel.config.units import parse_rate

_MODE = re.compile(r"0?[0-7]{3}")


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


def read_proxy_tlvs(table: Table, sent: ProxyProtocol) -> bool:
    """Whether a header that we send says more than addresses."""
    is_wanted = table.boolean("proxy_tlvs", True)
    if table.has("proxy_tlvs") and sent is not ProxyProtocol.V2 and not table.is_faulty("proxy_protocol"):
        right = table.spell("proxy_protocol", ProxyProtocol.V2.value)
        table.problem("proxy_tlvs", f"has no effect but in a PROXY protocol header of version 2; write {right}")
    return is_wanted


def read_proxy_trusted(table: Table, is_accepted: bool) -> tuple[Network, ...]:
    """Whose PROXY protocol headers are believed."""
    trusted = table.each("proxy_trusted", parse_network, may_be_empty=True)
    if not table.has("proxy_trusted"):
        return LOOPBACK
    if not is_accepted and not table.is_faulty("accept_proxy_protocol"):
        table.problem(
            "proxy_trusted",
            f"has no effect while no PROXY protocol header is asked for; "
            f"write {table.spell('accept_proxy_protocol', True)}",
        )
    return trusted


def parse_unix_mode(text: str) -> int:
    """Permissions as chmod(1) writes them."""
    if not _MODE.fullmatch(text):
        raise ValueError(f'"{text}" is no file mode; write three digits from 0 to 7 behind a 0, as in "0660"')
    mode = int(text, 8)
    if not mode & 0o222:
        raise ValueError(f'"{text}" lets nobody connect, which takes the right to write; write a mode such as "0660"')
    return mode


def read_rate(table: Table, key: str) -> Rate | None:
    """A rate, or None for no limit."""
    return table.one(key, parse_rate, None, right='write a rate such as "20/s", or "unlimited"')


def read_source_address(table: Table) -> str | None:
    """The address that connections to targets come from; whether it fits them is asked later."""
    return table.one("source_address", _source_address, None)


def _source_address(text: str) -> str | None:
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


def check_source_address(table: Table, source: str | None, targets: Iterable[Target]) -> None:
    """A target that cannot be reached from the source address is a mistake in one of the two."""
    all_targets = tuple(targets)
    if source is None or not all_targets:
        return
    if all(isinstance(target, UnixAddress) for target in all_targets):
        table.problem("source_address", "has no effect on unix sockets, and there is no other target; remove it")
        return
    version = ipaddress.ip_address(source).version
    for target in all_targets:
        if isinstance(target, TCPAddress) and target.is_literal:
            other = ipaddress.ip_address(target.host).version
            if other != version:
                table.problem(
                    "source_address",
                    f"{source} is IPv{version} and cannot reach {target}, which is IPv{other}; write an IPv{other} "
                    "address, or another target",
                )
                return
