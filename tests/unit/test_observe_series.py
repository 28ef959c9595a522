"""The series: bounded labels, a counter for each from the start, and counters that keep their place over a reload."""

from __future__ import annotations

import itertools
from dataclasses import replace

from tests.support.admin_rig import config
from tlstunnel.access.policy import Policy, Reason
from tlstunnel.address import TCPAddress
from tlstunnel.config.model import ClientAuth, Mode, TargetTLS, TLSSettings
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.families import families
from tlstunnel.observe.series import (
    CIPHERS_12,
    DECISIONS,
    NONE,
    OTHER,
    Histogram,
    ProcessSeries,
    ServiceSeries,
    expected_decisions,
    expected_handshakes,
    handshake_key,
    series_for,
)
from tlstunnel.outcome import CloseReason, Stage


def counters_of(table: ServiceSeries | ProcessSeries) -> list[int]:
    """Every counter of a service, or of the process."""
    found: list[int] = []
    for name, _ in families(type(table)):
        value = getattr(table, name)
        if isinstance(value, Histogram):
            found += [*range(value.first, value.first + len(value.bounds) + 1), value.sum]
        else:
            found += value.values() if isinstance(value, dict) else [value]
    return found


def test_every_counter_belongs_to_exactly_one_series() -> None:
    series = series_for(config(("a", "b", "c")))
    found = [counter for table in (series.process, *series.services) for counter in counters_of(table)]
    assert sorted(found) == list(range(series.layout.size))


def test_every_reason_is_a_result_and_belongs_to_the_counter_of_its_stage() -> None:
    series = series_for(config()).services[0]
    tables = {
        Stage.ADMIT: series.rejected,
        Stage.HANDSHAKE: series.handshake_failures,
        Stage.DIAL: series.connect_failures,
    }
    for reason in CloseReason:
        assert reason in series.results
        assert [stage for stage, table in tables.items() if reason in table] == [
            stage for stage in tables if stage is reason.stage
        ]


def test_labels_of_reasons_are_unique_because_they_are_labels_of_one_metric() -> None:
    labels = [reason.label for reason in CloseReason]
    assert len(labels) == len(set(labels))


def test_what_no_list_names_counts_as_other() -> None:
    series = series_for(config()).services[0]
    for version, cipher, group in itertools.product(
        ("TLSv1.2", "TLSv1.3", "SSLv3", None), ("TLS_SM4_GCM_SM3", None), ("brainpoolP256r1tls13", None)
    ):
        counter = series.handshake(version, cipher, group, True)
        assert counter == series.handshakes[handshake_key(version, cipher, group, True)]
    assert handshake_key("SSLv3", "RC4", "x", False) == (OTHER, OTHER, OTHER, False)


def test_a_session_resumed_with_tls_1_2_has_no_group() -> None:
    assert handshake_key("TLSv1.2", CIPHERS_12[0], None, True) == ("TLSv1.2", CIPHERS_12[0], NONE, True)


def test_expected_handshakes_follow_the_settings() -> None:
    service = config().services[0]
    narrow = replace(
        service, tls=TLSSettings(min_version="1.3", ciphersuites="TLS_AES_256_GCM_SHA384", groups="X25519:secp256r1")
    )
    assert {key[:3] for key in expected_handshakes(narrow)} == {
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519"),
        ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "P-256"),
    }
    assert all(key[0] == "TLSv1.2" for key in expected_handshakes(replace(service, tls=TLSSettings(max_version="1.2"))))
    assert expected_handshakes(replace(service, mode=Mode.PASSTHROUGH)) == frozenset()
    for key in expected_handshakes(service):
        assert key in series_for(config()).services[0].handshakes


def test_every_reason_of_a_policy_has_its_series_and_only_where_somebody_is_asked_for_a_certificate() -> None:
    assert set(DECISIONS) == set(Reason)
    service = config().services[0]
    assert expected_decisions(service) == ()
    for auth in (ClientAuth.OPTIONAL, ClientAuth.REQUIRED):
        asking = replace(service, client_auth=auth)
        assert expected_decisions(asking) == DECISIONS
        assert expected_decisions(replace(asking, mode=Mode.PASSTHROUGH)) == ()
    client = replace(service, mode=Mode.CLIENT, target_tls=TargetTLS())
    assert expected_decisions(client) == ()
    with_rules = replace(client, target_tls=TargetTLS(verify=Policy(allow_any=True)))
    assert expected_decisions(with_rules) == ("allow_rule", "no_rule")  # all that `verify` can say


def test_a_reload_keeps_the_counts_of_services_that_stay() -> None:
    before = series_for(config(("a", "b")))
    counters = Counters(before.layout, rows=2)
    own = counters.row(1).counters
    for number, counter in enumerate(counters_of(before.services[1])):
        own[counter] = number
    changed = config(("new", "b"))
    after = series_for(changed, before)
    counters.grow(after.layout)
    assert counters_of(after.services[1]) == counters_of(before.services[1])
    assert [counters.snapshot().total(counter) for counter in counters_of(after.services[1])] == list(
        range(len(counters_of(before.services[1])))
    )
    assert not set(counters_of(after.services[0])) & set(counters_of(before.services[0]))
    assert [series.name for series in after.retired] == ["a"]


def test_a_service_that_comes_back_finds_its_counts() -> None:
    first = series_for(config(("a", "b")))
    third = series_for(config(("a", "b")), series_for(config(("b",)), first))
    assert third.services == first.services
    assert third.layout == first.layout


def test_a_new_target_gets_a_gauge_and_the_old_ones_keep_theirs() -> None:
    plain = config(("a",))
    before = series_for(plain)
    more = replace(plain.services[0], targets=(*plain.services[0].targets, TCPAddress("127.0.0.1", 9)))
    after = series_for(replace(plain, services=(more,)), before)
    resting = after.services[0].targets_resting
    assert before.services[0].targets_resting.items() < resting.items()
    assert resting["127.0.0.1:9"] in after.layout.gauges


def test_a_value_on_a_bound_belongs_to_the_bucket_of_that_bound() -> None:
    counters = Counters(series_for(config()).layout, rows=1)
    row = counters.row(0)
    histogram = Histogram((0.1, 1.0), first=0, sum=3)
    for value in (0.05, 0.1, 0.5, 1.0, 5.0):
        histogram.observe(row.counters, row.floats, value)
    assert row.counters[:3].tolist() == [2, 2, 1]
    assert row.floats[3] == sum((0.05, 0.1, 0.5, 1.0, 5.0))
