"""The counting rules: every connection once in connections_total, and once in the counter of the stage it ended in."""

from __future__ import annotations

import pytest

from tests.support.admin_rig import begin, config, one_connection
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.record import ConnectionRecord, Identifiers
from tlstunnel.observe.series import series_for
from tlstunnel.outcome import CloseReason, Stage


class ListLog:
    def __init__(self) -> None:
        self.records: list[ConnectionRecord] = []
        self.refused: list[tuple[str, str, CloseReason]] = []

    def connection(self, record: ConnectionRecord) -> None:
        self.records.append(record)

    def is_enabled(self, level: str) -> bool:
        return level != "debug"

    def rejected(self, service: str, client: str, reason: CloseReason) -> None:
        self.refused.append((service, client, reason))


@pytest.fixture
def log() -> ListLog:
    return ListLog()


@pytest.fixture
def observer(log: ListLog) -> Observer:
    series = series_for(config())
    return Observer(series, Counters(series.layout, rows=2).row(1), log)


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.name)
def test_each_end_is_counted_once_and_once_for_its_stage(reason: CloseReason, observer: Observer, log: ListLog) -> None:
    one_connection(observer, 1, reason)
    service = observer._services[1]
    counters = observer.row.counters
    assert {each: counters[counter] for each, counter in service.results.items() if counters[counter]} == {reason: 1}
    tables = {
        Stage.ADMIT: service.rejected,
        Stage.HANDSHAKE: service.handshake_failures,
        Stage.DIAL: service.connect_failures,
    }
    for stage, table in tables.items():
        counted = {each: counters[counter] for each, counter in table.items() if counters[counter]}
        assert counted == ({reason: 1} if stage is reason.stage else {})
    assert counters[service.active] == 0
    assert sum(counters[service.duration.first + index] for index in range(len(service.duration.bounds) + 1)) == 1
    assert [record.reason for record in log.records] == [reason]
    assert counters[observer._services[0].results[reason]] == 0


def test_an_open_connection_is_active_and_listed_until_it_is_closed(observer: Observer) -> None:
    record = begin(observer, 0, 1000)
    active = observer._services[0].active
    assert (observer.row.counters[active], list(observer.open.values())) == (1, [record])
    record.reason = CloseReason.FINISHED
    observer.closed(record)
    assert (observer.row.counters[active], observer.open) == (0, {})
    assert record.total_s >= 0


def test_a_connection_closed_twice_is_counted_and_logged_once(observer: Observer, log: ListLog) -> None:
    record = begin(observer, 0, 1000)
    record.reason = CloseReason.CLIENT_RESET
    observer.closed(record)
    record.reason = CloseReason.FINISHED
    observer.closed(record)
    results = observer._services[0].results
    assert [observer.row.counters[results[each]] for each in (CloseReason.CLIENT_RESET, CloseReason.FINISHED)] == [1, 0]
    assert observer.row.counters[observer._services[0].active] == 0
    assert len(log.records) == 1


def test_a_record_without_a_reason_is_our_error(observer: Observer, log: ListLog) -> None:
    observer.closed(begin(observer, 0, 1000))
    assert log.records[0].reason is CloseReason.INTERNAL_ERROR


def test_a_refused_connection_is_counted_without_ever_being_active(observer: Observer, log: ListLog) -> None:
    observer.rejected(0, "192.0.2.7:1", CloseReason.REJECT_PER_IP)
    service = observer._services[0]
    assert observer.row.counters[service.results[CloseReason.REJECT_PER_IP]] == 1
    assert observer.row.counters[service.rejected[CloseReason.REJECT_PER_IP]] == 1
    assert observer.row.counters[service.active] == 0
    assert log.refused == [("orders", "192.0.2.7:1", CloseReason.REJECT_PER_IP)]


def test_handshakes_and_dials_fill_their_histograms(observer: Observer) -> None:
    record = begin(observer, 0, 1000)
    observer.handshake_done(record)
    observer.dialed(record)
    service = observer._services[0]
    key = ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768", False)
    assert observer.row.counters[service.handshakes[key]] == 1
    assert observer.row.floats[service.handshake_duration.sum] == pytest.approx(0.0021)
    assert observer.row.floats[service.connect_duration.sum] == pytest.approx(0.0003)


@pytest.mark.parametrize(("openssl", "known"), [("secp256r1", "P-256"), ("x25519", "X25519"), ("P-384", "P-384")])
def test_groups_are_counted_and_logged_by_the_names_people_know(openssl: str, known: str, observer: Observer) -> None:
    record = begin(observer, 0, 1000)
    record.group = openssl
    observer.handshake_done(record)
    assert record.group == known
    assert (
        observer.row.counters[observer._services[0].handshakes["TLSv1.3", "TLS_AES_128_GCM_SHA256", known, False]] == 1
    )


def test_failed_attempts_resting_targets_and_pauses_are_counted(observer: Observer) -> None:
    service = observer._services[0]
    counters = observer.row.counters
    observer.dial_failed(0, CloseReason.BACKEND_REFUSED)
    assert counters[service.connect_failures[CloseReason.BACKEND_REFUSED]] == 1
    assert counters[service.results[CloseReason.BACKEND_REFUSED]] == 0
    observer.target_rests(0, "127.0.0.1:8081", True)
    observer.target_rests(0, "127.0.0.1:9999", True)
    assert counters[service.targets_resting["127.0.0.1:8081"]] == 1
    observer.target_rests(0, "127.0.0.1:8081", False)
    assert counters[service.targets_resting["127.0.0.1:8081"]] == 0
    observer.accept_paused("descriptors")
    assert counters[observer.process.accept_pauses["descriptors"]] == 1


def test_ids_of_one_worker_sort_by_age_and_differ_from_anothers() -> None:
    one, other = Identifiers(1), Identifiers(2)
    ids = [one.next(), one.next(), other.next(), other.next()]
    assert ids == sorted(set(ids))
    assert all(0 < each < 1 << 64 for each in ids)
