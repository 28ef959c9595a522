"""Whom a service lets in: networks first, then how many, then how often; per address, and IPv6 by its /64."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from tlstunnel.address import TCPAddress
from tlstunnel.config.model import Mode, Rate, Service
from tlstunnel.connection.admission import Admission, is_in
from tlstunnel.connection.ledger import Ledger
from tlstunnel.observe.counters import Counters, Layout
from tlstunnel.outcome import CloseReason

ROWS = 8


@pytest.fixture
def ledger() -> Ledger:
    counters = Counters(Layout(1), ROWS)
    for row in range(ROWS):
        counters.row(row)
    return Ledger(counters)


def admission(in_: Ledger | None = None, row: int = 1, number: int = 5, **settings: Any) -> Admission:
    here = (TCPAddress("127.0.0.1", 1),)
    if in_ is None:
        counters = Counters(Layout(1), ROWS)
        counters.row(row)
        in_ = Ledger(counters)
    return Admission(Service(name="x", mode=Mode.SERVER, listen=here, targets=here, **settings), in_, number, row)


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
    places = [made.admit("192.0.2.1", 0.0)[1] for _ in range(2)]
    assert places[0] == places[1] is not None
    assert made.admit("192.0.2.1", 0.0) == (CloseReason.REJECT_PER_IP, None)
    assert refused(made, "192.0.2.2") is None
    made.leave(places[0])
    assert refused(made, "192.0.2.1") is None
    assert refused(made, "192.0.2.1") is CloseReason.REJECT_PER_IP


def test_ipv6_clients_are_counted_by_their_64_and_mapped_ones_as_ipv4() -> None:
    made = admission(max_connections_per_ip=1)
    assert refused(made, "2001:db8:1:2:3::4") is None
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
    made = admission(max_connections_per_ip=2, handshake_rate=Rate(count=1, per_s=60, burst=1))
    assert refused(made, "192.0.2.1", 0.0) is None
    for _ in range(5):
        assert refused(made, "192.0.2.1", 0.0) is CloseReason.REJECT_HANDSHAKE_RATE
    assert refused(made, "192.0.2.1", 60.0) is None
    assert refused(made, "192.0.2.1", 120.0) is CloseReason.REJECT_PER_IP


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_all_workers_together_let_in_what_is_written(ledger: Ledger, workers: int) -> None:
    each = [admission(ledger, row, max_connections_per_ip=10) for row in range(1, workers + 1)]
    places = []
    for number in range(10):
        reason, place = each[number % workers].admit("192.0.2.1", 0.0)
        assert reason is None
        places.append((number % workers, place))
    assert {refused(made, "192.0.2.1") for made in each} == {CloseReason.REJECT_PER_IP}
    for worker, place in places:
        each[worker].leave(place)
        assert refused(each[(worker + 1) % workers], "192.0.2.1") is None, "a place is free for whoever asks"
        assert {refused(made, "192.0.2.1") for made in each} == {CloseReason.REJECT_PER_IP}


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_all_workers_together_keep_a_rate(ledger: Ledger, workers: int) -> None:
    burst = Rate(count=10, per_s=1, burst=5)
    for settings in ({"connection_rate_per_ip": burst}, {"handshake_rate": burst}):
        each = [admission(ledger, row, **settings) for row in range(1, workers + 1)]
        said = [refused(each[number % workers], "192.0.2.1", 50.0) for number in range(20)]
        assert said.count(None) == 5
        said = [refused(each[number % workers], "192.0.2.1", 50.3001) for number in range(20)]
        assert said.count(None) == 3


def test_a_worker_that_died_has_nothing_open_any_more(ledger: Ledger) -> None:
    dead, living = (admission(ledger, row, max_connections_per_ip=4) for row in (1, 2))
    assert [refused(made, "192.0.2.1") for made in (dead, dead, dead, living)] == [None] * 4
    assert refused(living, "192.0.2.1") is CloseReason.REJECT_PER_IP
    ledger.clear(1)
    assert [refused(living, "192.0.2.1") for _ in range(4)] == [None] * 3 + [CloseReason.REJECT_PER_IP]


def test_services_count_for_themselves(ledger: Ledger) -> None:
    one, other = (admission(ledger, number=number, max_connections_per_ip=1) for number in (5, 6))
    assert refused(one, "192.0.2.1") is refused(other, "192.0.2.1") is None
    assert refused(one, "192.0.2.1") is refused(other, "192.0.2.1") is CloseReason.REJECT_PER_IP


def test_a_flood_of_addresses_neither_forgives_nor_refuses_others(ledger: Ledger) -> None:
    """Those before it and those within it: 60,000 addresses that used up their rate, and later as many again."""
    made = admission(ledger, connection_rate_per_ip=Rate(count=1, per_s=60, burst=1))
    assert refused(made, "11.0.0.1") is None
    for flood in range(2):
        hosts = [f"10.{flood}.{number >> 8}.{number & 255}" for number in range(60_000)]
        for host in hosts:
            assert refused(made, host, flood * 100.0) is None
        for host in hosts[::1000]:
            assert refused(made, host, flood * 100.0) is CloseReason.REJECT_CONNECTION_RATE
        assert (refused(made, "11.0.0.1", flood * 100.0) is None) is (flood > 0)


def test_membership_in_networks() -> None:
    assert is_in("127.0.0.1", networks("127.0.0.0/8"))
    assert is_in("::ffff:127.0.0.1", networks("127.0.0.0/8"))
    assert not is_in("::1", networks("127.0.0.0/8"))
    assert not is_in("", networks("0.0.0.0/0"))
