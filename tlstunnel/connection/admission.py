"""Whom a service lets in before any TLS work: networks, rates, and how many at once from one address.

Everything here is a look-up or a subtraction: refusing must stay cheaper than being flooded. An IPv6 client is counted
by its /64, the smallest network anybody is given. Counts and rates are those of all workers together (`ledger`), since
the kernel spreads the connections of one address over them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tlstunnel.config.model import Network, Service
from tlstunnel.connection.ledger import Ledger, key
from tlstunnel.outcome import CloseReason

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_EVERYBODY, _IPV4, _IPV6 = 1, 4, 6
"""Kinds of what is counted."""


class Admission:
    """Decides for one service in one worker.

    Args:
        service: whose rules these are.
        ledger: where all workers count.
        number: the service's in the ledger, the same in every worker and generation.
        row: the worker's own.
    """

    def __init__(self, service: Service, ledger: Ledger, number: int, row: int) -> None:
        self._allow, self._deny = service.allow_from, service.deny_from
        self._connection_rate, self._handshake_rate = service.connection_rate_per_ip, service.handshake_rate
        self._per_ip = service.max_connections_per_ip
        self._ledger, self._number, self._row = ledger, number, row
        self._everybody = key(number, _EVERYBODY, 0)
        self._is_by_address = bool(self._per_ip or self._connection_rate)
        self.is_counting = bool(self._is_by_address or self._handshake_rate)
        """Whether `admit` needs the ledger's lock."""
        self.has_rules = bool(self._allow or self._deny or self.is_counting)

    def admit(self, host: str, now: float) -> tuple[CloseReason | None, int | None]:
        """Why a client at this address is refused, or None; and the place it takes until `leave`, where it takes one.

        Where `is_counting`, this is for whoever holds the ledger's lock.
        """
        address = _parse(host)
        if address is None:
            return None, None  # a unix socket: its permissions are its admission
        if not _is_admitted(address, self._allow, self._deny):
            return CloseReason.REJECT_NETWORK, None
        ledger = self._ledger
        entry = ledger.find(self._key(address), now) if self._is_by_address else None
        if entry is not None:
            if self._per_ip is not None and ledger.count(entry) >= self._per_ip:
                return CloseReason.REJECT_PER_IP, None
            if self._connection_rate is not None and not ledger.may(entry, self._connection_rate, now):
                return CloseReason.REJECT_CONNECTION_RATE, None
        if self._handshake_rate is not None:
            everybody = ledger.find(self._everybody, now)
            if everybody is not None and not ledger.may(everybody, self._handshake_rate, now):
                return CloseReason.REJECT_HANDSHAKE_RATE, None
        if self._per_ip is None or entry is None:
            return None, None
        ledger.note(entry, self._row)
        return None, entry

    def leave(self, place: int) -> None:
        """A connection that `admit` gave a place has ended."""
        self._ledger.forget(place, self._row)

    def _key(self, address: _Address) -> bytes:
        number = int(address)
        if isinstance(address, ipaddress.IPv4Address):
            return key(self._number, _IPV4, number)
        return key(self._number, _IPV6, number >> 64)


def is_in(host: str, networks: Sequence[Network]) -> bool:
    """Whether an address literal lies in one of the networks."""
    address = _parse(host)
    return address is not None and any(address in network for network in networks)


def _is_admitted(address: _Address, allow: Sequence[Network], deny: Sequence[Network]) -> bool:
    if any(address in network for network in deny):
        return False
    return not allow or any(address in network for network in allow)


def _parse(host: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
