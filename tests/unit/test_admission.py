"""Whom a service lets in: networks first, then how many, then how often; per address, and IPv6 by its /64."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_network
from typing import Any

import pytest

from tlstunnel.address import TCPAddress
from tlstunnel.config.model import Mode, Rate, Service
from tlstunnel.outcome import CloseReason
from tlstunnel.server.admission import MAX_ADDRESSES, Admission, is_in


def admission(slots: int = 1, **settings: Any) -> Admission:
    here = (TCPAddress("127.0.0.1", 1),)
    return Admission(Service(name="x", mode=Mode.SERVER, listen=here, targets=here, **settings), slots)


def networks(*texts: str) -> tuple[Any, ...]:
    return tuple(ip_network(text) for text in texts)


def refused(made: Admission, host: str, now: float = 0.0) -> CloseReason | None:
    return made.admit(host, now)[0]


def test_without_a_rule_there_is_nothing_to_ask() -> None:
    assert not admission().has_rules
    assert admission().admit("192.0.2.1", 0.0) == (None, None)


def test_any_rule_makes_it_ask() -> None:
    rate = Rate(count=1, per_s=1, burst=1)
    for settings in (
        {"allow_from": networks("::/0")},
        {"deny_from": networks("::/0")},
        {"max_connections_per_ip": 1},
        {"connection_rate_per_ip": rate},
        {"handshake_rate": rate},
    ):
        assert admission(**settings).has_rules


@pytest.mark.parametrize(
    ("host", "is_admitted"),
    [
        ("192.0.2.1", True),
        ("192.0.2.66", False),
        ("198.51.100.1", False),
        ("::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.66", False),
        ("2001:db8::1", True),
        ("2001:db8:0:1::1", False),
        ("fe80::1%lo", True),
    ],
)
def test_networks_that_deny_win_over_those_that_allow(host: str, is_admitted: bool) -> None:
    made = admission(
        allow_from=networks("192.0.2.0/24", "2001:db8::/32", "fe80::/64"),
        deny_from=networks("192.0.2.64/26", "2001:db8:0:1::/64"),
    )
    assert refused(made, host) is (None if is_admitted else CloseReason.REJECT_NETWORK)


def test_deny_alone_admits_everybody_else() -> None:
    made = admission(deny_from=networks("192.0.2.0/24"))
    assert refused(made, "192.0.2.1") is CloseReason.REJECT_NETWORK
    assert refused(made, "198.51.100.1") is None


def test_a_unix_socket_has_no_address_to_ask_about() -> None:
    made = admission(allow_from=networks("192.0.2.0/24"), max_connections_per_ip=1)
    assert made.admit("", 0.0) == (None, None)
    assert made.admit("", 0.0) == (None, None)


def test_an_address_has_its_limit_and_gets_a_place_back_when_it_leaves() -> None:
    made = admission(max_connections_per_ip=2)
    keys = [made.admit("192.0.2.1", 0.0) for _ in range(2)]
    assert keys == [(None, "192.0.2.1")] * 2
    assert made.admit("192.0.2.1", 0.0) == (CloseReason.REJECT_PER_IP, None)
    assert refused(made, "192.0.2.2") is None
    made.leave("192.0.2.1")
    assert refused(made, "192.0.2.1") is None
    for _ in range(2):
        made.leave("192.0.2.1")
    made.leave("192.0.2.2")
    assert made._open == {}  # nobody is remembered who is not here


def test_ipv6_clients_are_counted_by_their_64_and_mapped_ones_as_ipv4() -> None:
    made = admission(max_connections_per_ip=1)
    assert made.admit("2001:db8:1:2:3::4", 0.0) == (None, "20010db800010002::/64")
    assert refused(made, "2001:db8:1:2:ffff::1") is CloseReason.REJECT_PER_IP
    assert refused(made, "2001:db8:1:3::1") is None
    assert refused(made, "192.0.2.1") is None
    assert refused(made, "::ffff:192.0.2.1") is CloseReason.REJECT_PER_IP


def test_a_rate_lets_a_burst_through_and_then_one_at_a_time() -> None:
    made = admission(connection_rate_per_ip=Rate(count=10, per_s=1, burst=3))
    said = [refused(made, "192.0.2.1", 100.0) for _ in range(4)]
    assert said == [None] * 3 + [CloseReason.REJECT_CONNECTION_RATE]
    assert refused(made, "192.0.2.1", 100.09) is CloseReason.REJECT_CONNECTION_RATE
    assert refused(made, "192.0.2.1", 100.2) is None
    assert refused(made, "192.0.2.2", 100.2) is None
    # A long rest fills it to the burst, not beyond.
    said = [refused(made, "192.0.2.1", 9999.0) for _ in range(4)]
    assert said == [None] * 3 + [CloseReason.REJECT_CONNECTION_RATE]


def test_handshakes_have_a_rate_over_all_addresses() -> None:
    made = admission(handshake_rate=Rate(count=2, per_s=1, burst=2))
    said = [refused(made, f"192.0.2.{number}", 5.0) for number in range(3)]
    assert said == [None, None, CloseReason.REJECT_HANDSHAKE_RATE]
    assert refused(made, "192.0.2.9", 5.6) is None


def test_who_is_refused_is_not_counted_as_open() -> None:
    made = admission(max_connections_per_ip=5, handshake_rate=Rate(count=1, per_s=60, burst=1))
    assert made.admit("192.0.2.1", 0.0) == (None, "192.0.2.1")
    assert made.admit("192.0.2.1", 0.0) == (CloseReason.REJECT_HANDSHAKE_RATE, None)
    assert made._open == {"192.0.2.1": 1}


def test_workers_share_limits_and_rates() -> None:
    """The kernel spreads an address's connections over the workers; together they let in what one would."""
    made = admission(4, max_connections_per_ip=8, connection_rate_per_ip=Rate(count=400, per_s=1, burst=40))
    said = [refused(made, "192.0.2.1") for _ in range(3)]
    assert said == [None, None, CloseReason.REJECT_PER_IP]
    made = admission(4, connection_rate_per_ip=Rate(count=400, per_s=1, burst=40))
    assert [refused(made, "192.0.2.1") for _ in range(11)].count(None) == 10
    assert [refused(made, "192.0.2.1", 0.1) for _ in range(41)].count(None) == 10
    # A share below one would let nobody in.
    made = admission(4, max_connections_per_ip=1, handshake_rate=Rate(count=1, per_s=1, burst=1))
    assert refused(made, "192.0.2.1") is None


def test_a_flood_of_addresses_is_remembered_within_bounds_and_forgets_the_quietest() -> None:
    made = admission(connection_rate_per_ip=Rate(count=1, per_s=60, burst=1))
    assert refused(made, "10.255.255.255") is None
    assert refused(made, "10.255.255.254") is None
    tracemalloc.start()
    for number in range(MAX_ADDRESSES - 1):
        refused(made, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number == 1000:
            assert refused(made, "10.255.255.254") is CloseReason.REJECT_CONNECTION_RATE  # and so is not the quietest
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made._buckets) == MAX_ADDRESSES
    assert size < 24 << 20
    assert refused(made, "10.255.255.255") is None  # forgotten, and so forgiven
    assert refused(made, "10.255.255.254") is CloseReason.REJECT_CONNECTION_RATE


def test_membership_in_networks() -> None:
    assert is_in("127.0.0.1", networks("127.0.0.0/8"))
    assert is_in("::ffff:127.0.0.1", networks("127.0.0.0/8"))
    assert not is_in("::1", networks("127.0.0.0/8"))
    assert not is_in("", networks("0.0.0.0/0"))
