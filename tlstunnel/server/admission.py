"""Whom a service lets in before any TLS work: networks, rates, and how many at once from one address.

Everything here is a look-up or a subtraction: refusing must stay cheaper than being flooded. An IPv6 client is counted
by its /64, the smallest network anybody is given. The tables hold at most MAX_ADDRESSES addresses; the one that was
quiet longest makes room, which at worst forgives it. Each worker counts for itself and grants its share, since the
kernel spreads the connections of one address over the workers.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence

from tlstunnel.config.model import Network, Rate, Service
from tlstunnel.outcome import CloseReason

MAX_ADDRESSES = 65_536

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Bucket:
    """A token bucket: `burst` at once, then `count` per `per_s` seconds."""

    __slots__ = ("_filled_at", "tokens")

    def __init__(self, rate: Rate, share: float, now: float) -> None:
        self.tokens = _room(rate, share)
        self._filled_at = now

    def take(self, rate: Rate, share: float, now: float) -> bool:
        """Take a token if there is one; `share` is our part of the rate."""
        refilled = self.tokens + (now - self._filled_at) * rate.count * share / rate.per_s
        self._filled_at = now
        self.tokens = min(_room(rate, share), refilled)
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


def _room(rate: Rate, share: float) -> float:
    """How many tokens our part of the rate can hold; a bucket for less than one would never let anybody in."""
    return max(1.0, rate.burst * share)


class Admission:
    """Decides for one service in one worker.

    Args:
        slots: how many workers share the service's limits.
    """

    def __init__(self, service: Service, slots: int) -> None:
        self._allow, self._deny = service.allow_from, service.deny_from
        self._connection_rate, self._handshake_rate = service.connection_rate_per_ip, service.handshake_rate
        self._share = 1.0 / slots
        limit = service.max_connections_per_ip
        self._per_ip = None if limit is None else -(-limit // slots)
        self._open: dict[str, int] = {}
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._handshakes: Bucket | None = None
        self.has_rules = bool(self._allow or self._deny or self._connection_rate or self._handshake_rate or limit)

    def admit(self, host: str, now: float) -> tuple[CloseReason | None, str | None]:
        """Why a client at this address is refused, or None; and the key under which it is counted until `leave`."""
        address = _parse(host)
        if address is None:
            return None, None  # a unix socket: its permissions are its admission
        if not _is_admitted(address, self._allow, self._deny):
            return CloseReason.REJECT_NETWORK, None
        key = _key(address)
        if self._per_ip is not None and self._open.get(key, 0) >= self._per_ip:
            return CloseReason.REJECT_PER_IP, None
        if self._connection_rate is not None and not self._has_token(key, self._connection_rate, now):
            return CloseReason.REJECT_CONNECTION_RATE, None
        if self._handshake_rate is not None:
            if self._handshakes is None:
                self._handshakes = Bucket(self._handshake_rate, self._share, now)
            if not self._handshakes.take(self._handshake_rate, self._share, now):
                return CloseReason.REJECT_HANDSHAKE_RATE, None
        if self._per_ip is None:
            return None, None
        self._open[key] = self._open.get(key, 0) + 1
        return None, key

    def leave(self, key: str) -> None:
        """A connection that `admit` counted has ended."""
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]

    def _has_token(self, key: str, rate: Rate, now: float) -> bool:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = Bucket(rate, self._share, now)
            if len(self._buckets) >= MAX_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets[key] = bucket
        return bucket.take(rate, self._share, now)


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


def _key(address: _Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return f"{int(address) >> 64:x}::/64"
