"""Rules between keys of the network: where connections come from, and the PROXY protocol headers that say so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from tlstunnel.address import Target, TCPAddress, UnixAddress
from tlstunnel.config.model import ProxyProtocol, Service
from tlstunnel.config.reader import Table


def check_proxy_header(table: Table, service: Service) -> None:
    """What is written about headers that are neither sent nor read has no effect."""
    is_sent = service.proxy_protocol is ProxyProtocol.V2
    if table.has("proxy_tlvs") and not is_sent and not table.is_faulty("proxy_protocol"):
        right = table.spell("proxy_protocol", ProxyProtocol.V2.value)
        table.problem("proxy_tlvs", f"has no effect but in a PROXY protocol header of version 2; write {right}")
    is_read = service.accept_proxy_protocol or table.is_faulty("accept_proxy_protocol")
    if table.has("proxy_trusted") and not is_read:
        right = table.spell("accept_proxy_protocol", True)
        table.problem("proxy_trusted", f"has no effect while no PROXY protocol header is asked for; write {right}")


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
