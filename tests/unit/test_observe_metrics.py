"""The metrics page: the contract's names and labels, zeros from the start, exact sums, nothing hidden or invented."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.admin_rig import begin, config, one_connection
from tests.unit.test_observe_observer import ListLog
from tlstunnel.observe import metrics, series
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.families import counter
from tlstunnel.observe.metrics import FAMILIES, TunnelCollector, exposition
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.processes import ProcessUsage, usage
from tlstunnel.observe.series import ProcessSeries, series_for
from tlstunnel.observe.state import CertificateState, StateBlob, TunnelState, WorkerState
from tlstunnel.outcome import CloseReason

Shown = dict[tuple[str, frozenset[tuple[str, str]]], float]

CONTRACT = {
    "tlstunnel_connections_total": {"service", "result"},
    "tlstunnel_connections_active": {"service"},
    "tlstunnel_connection_duration_seconds": {"service"},
    "tlstunnel_bytes_total": {"service", "direction"},
    "tlstunnel_handshakes_total": {"service", "version", "cipher", "group", "resumed"},
    "tlstunnel_handshake_failures_total": {"service", "reason"},
    "tlstunnel_handshake_duration_seconds": {"service"},
    "tlstunnel_backend_connect_duration_seconds": {"service"},
    "tlstunnel_backend_connect_failures_total": {"service", "reason"},
    "tlstunnel_connections_rejected_total": {"service", "reason"},
    "tlstunnel_certificate_not_after_timestamp_seconds": {"service", "file", "subject", "role"},
    "tlstunnel_certificate_loaded_timestamp_seconds": {"service", "file"},
    "tlstunnel_config_reloads_total": {"result"},
    "tlstunnel_config_last_reload_success_timestamp_seconds": set(),
    "tlstunnel_worker_restarts_total": set(),
    "tlstunnel_workers": set(),
    "tlstunnel_draining": set(),
    "tlstunnel_build_info": {"version", "python"},
}
"""Names that dashboards and alerts of other people may already use."""


class World:
    """Counters of two workers, and their page."""

    def __init__(self) -> None:
        self.series = series_for(config())
        self.counters = Counters(self.series.layout, rows=3)
        self.own = self.counters.row(0)
        self.workers = [Observer(self.series, self.counters.row(row), ListLog()) for row in (1, 2)]
        self.blob = StateBlob()
        self.state = TunnelState(
            version="1.0",
            supervisor_pid=1,
            admin_pid=4,
            started_at=1.0,
            workers=tuple(WorkerState(pid=row + 1, row=row, generation=1, started_at=1.0) for row in (1, 2)),
            certificates=tuple(
                CertificateState(
                    service="orders",
                    file="/o.pem",
                    subject='CN="o"\n\\',
                    not_before=begin,
                    not_after=end,
                    loaded_at=1e9,
                )
                for begin, end in ((1.8e9, 2e9), (1.7e9, 1.9e9))
            ),
        )
        self.blob.publish(self.state)

    def page(self, accept: str = "") -> str:
        collector = TunnelCollector(
            self.counters,
            self.series,
            self.blob,
            lambda pid: ProcessUsage(float(pid), 1, 2, 3.0, None if pid == 1 else 5, 6),
        )
        return exposition(collector, accept)[0].decode()

    def shown(self) -> Shown:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in parse_text(self.page())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.shown()[name, frozenset(labels.items())]


@pytest.fixture
def world() -> World:
    return World()


def test_every_series_of_the_contract_exists_from_the_start_with_its_labels(world: World) -> None:
    seen: dict[str, set[str]] = {}
    for name, labels in world.shown():
        seen.setdefault(name, set()).update(key for key, _ in labels)
    for name, labels in CONTRACT.items():
        found = seen[name] if name in seen else {label for label in seen[name + "_bucket"] if label != "le"}
        assert found == labels, name


def test_known_series_start_at_zero(world: World) -> None:
    shown = world.shown()
    for reason in CloseReason:
        assert shown["tlstunnel_connections_total", frozenset({("service", "mail"), ("result", reason.label)})] == 0
    for direction in ("forward", "reverse"):
        assert shown["tlstunnel_bytes_total", frozenset({("service", "mail"), ("direction", direction)})] == 0
    handshakes = {key: value for key, value in shown.items() if key[0] == "tlstunnel_handshakes_total"}
    assert set(handshakes.values()) == {0}
    assert len(handshakes) == sum(len(expected) for expected in world.series.expected.values())


def test_totals_are_the_sum_of_all_workers(world: World) -> None:
    for number, observer in enumerate(world.workers):
        for _ in range(3 + number):
            one_connection(observer, 1)
    one_connection(world.workers[0], 1, CloseReason.NOT_TLS)
    begin(world.workers[0], 1, 1)
    value = world.value
    assert value("tlstunnel_connections_total", service="mail", result="finished") == 7
    assert value("tlstunnel_handshake_failures_total", service="mail", reason="not_tls") == 1
    assert value("tlstunnel_connections_active", service="mail") == 1
    assert value("tlstunnel_bytes_total", service="mail", direction="forward") == 700
    assert value("tlstunnel_bytes_total", service="mail", direction="reverse") == 7000
    assert value("tlstunnel_handshake_duration_seconds_count", service="mail") == 7
    assert value("tlstunnel_handshake_duration_seconds_sum", service="mail") == pytest.approx(7 * 0.0021)
    assert value("tlstunnel_connection_duration_seconds_count", service="mail") == 8
    key = {"version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "group": "X25519MLKEM768", "resumed": "false"}
    assert value("tlstunnel_handshakes_total", service="mail", **key) == 7


def test_buckets_are_cumulative_and_end_in_the_count(world: World) -> None:
    for _ in range(5):
        one_connection(world.workers[0])
    bounds = {
        dict(labels)["le"]: value
        for (name, labels), value in world.shown().items()
        if name == "tlstunnel_handshake_duration_seconds_bucket" and dict(labels)["service"] == "orders"
    }
    assert (bounds["0.001"], bounds["0.0025"], bounds["10.0"], bounds["+Inf"]) == (0, 5, 5, 5)


def test_a_handshake_that_the_settings_do_not_foresee_appears_when_it_happens(world: World) -> None:
    record = begin(world.workers[0], 0, 1)
    record.cipher, record.group = "TLS_AES_128_CCM_SHA256", "ffdhe2048"
    world.workers[0].handshake_done(record)
    labels = {"service": "orders", "version": "TLSv1.3", "cipher": "other", "group": "other", "resumed": "false"}
    assert world.value("tlstunnel_handshakes_total", **labels) == 1


def test_no_combination_is_shown_twice(world: World) -> None:
    lines = [line.rpartition(" ")[0] for line in world.page().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_the_first_expiry_of_a_file_and_subject_is_shown_once_and_escaped(world: World) -> None:
    labels = {"service": "orders", "file": "/o.pem", "subject": 'CN="o"\n\\', "role": "certificate"}
    assert world.value("tlstunnel_certificate_not_before_timestamp_seconds", **labels) == 1.7e9
    assert world.value("tlstunnel_certificate_not_after_timestamp_seconds", **labels) == 1.9e9


def test_processes_are_shown_by_role_and_what_cannot_be_read_is_left_out(world: World) -> None:
    assert world.value("process_cpu_seconds_total", role="supervisor", row="0") == 1
    assert world.value("process_cpu_seconds_total", role="worker", row="2") == 3
    assert world.value("process_open_fds", role="admin", row="") == 5
    assert ("process_open_fds", frozenset({("role", "supervisor"), ("row", "0")})) not in world.shown()


def test_a_worker_that_drains_after_a_reload_does_not_make_the_daemon_draining(world: World) -> None:
    world.workers[0].row.counters[world.series.process.draining] = 1
    assert world.value("tlstunnel_draining") == 0
    world.own.counters[world.series.process.draining] = 1
    assert world.value("tlstunnel_draining") == 1


def test_a_removed_service_is_shown_while_it_has_links_and_then_no_more(world: World) -> None:
    record = begin(world.workers[0], 1, 1)
    world.series = series_for(config(("orders",)), world.series)
    assert world.value("tlstunnel_connections_active", service="mail") == 1
    record.reason = CloseReason.FINISHED
    world.workers[0].closed(record)
    assert ("tlstunnel_connections_active", frozenset({("service", "mail")})) not in world.shown()
    assert world.value("tlstunnel_connections_active", service="orders") == 0


def test_limits_are_shown_where_there_are_some(world: World) -> None:
    assert world.value("tlstunnel_connections_limit", service="orders") == 1000
    limited = replace(config(), process=replace(config().process, max_connections=50))
    world.series = series_for(limited, world.series)
    assert world.value("tlstunnel_connections_limit", service="") == 50


def test_openmetrics_has_the_same_series(world: World) -> None:
    one_connection(world.workers[0])
    page = world.page("application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")
    open_series = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_openmetrics(page)
        for sample in family.samples
    }
    assert open_series == world.shown()


def test_before_the_first_state_counters_are_shown_all_the_same(world: World) -> None:
    world.blob = StateBlob()
    assert world.value("tlstunnel_workers") == 0
    assert not any(name.startswith("process_") for name, _ in world.shown())


def test_families_and_the_page_name_the_same_metrics(world: World) -> None:
    shown = {family.name for family in parse_text(world.page())}
    assert shown == {family.name for family in FAMILIES}


def test_a_metric_takes_a_field_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, slots=True)
    class MoreSeries(ProcessSeries):
        surprises: dict[str, int] = counter("surprises{kind}", "Surprises, by kind.", keys=("good", "bad"))

    for module in (series, metrics):
        monkeypatch.setattr(module, "ProcessSeries", MoreSeries)
    world = World()
    process = world.series.process
    assert isinstance(process, MoreSeries)
    world.own.counters[process.surprises["bad"]] += 3
    shown = {kind: world.value("tlstunnel_surprises_total", kind=kind) for kind in ("good", "bad")}
    assert shown == {"good": 0, "bad": 3}


def test_our_own_usage_is_read_from_proc() -> None:
    own = usage(os.getpid())
    assert own is not None
    assert own.cpu_s > 0
    assert 1 << 20 < own.resident_bytes < own.virtual_bytes
    assert own.open_fds is not None
    assert own.open_fds > 2
    # Listing opens one more, which older kernels count too.
    assert len(os.listdir("/proc/self/fd")) - own.open_fds in (0, 1)
    assert own.max_fds == os.sysconf("SC_OPEN_MAX")
    started = Path(f"/proc/{os.getpid()}").stat().st_ctime
    assert abs(own.started_at - started) < 60


def test_a_process_that_is_gone_has_no_usage(tmp_path: Path) -> None:
    assert usage(1, tmp_path) is None


def test_a_process_name_with_parentheses_is_read_past(tmp_path: Path) -> None:
    home = tmp_path / "7"
    home.mkdir()
    fields = [
        "7",
        "(a) R 1 (b)",
        "S",
        *("0" for _ in range(10)),
        "150",
        "50",
        *("0" for _ in range(6)),
        "100",
        "4096",
        "2",
    ]
    (home / "stat").write_text(" ".join(fields) + "\n")
    found = usage(7, tmp_path)
    assert found is not None
    assert (found.cpu_s, found.virtual_bytes) == (200 / os.sysconf("SC_CLK_TCK"), 4096)
    assert (found.open_fds, found.max_fds) == (None, None)


def test_where_the_size_says_nothing_descriptors_are_counted(tmp_path: Path) -> None:
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "stat").write_text("7 (a) " + " ".join(["1"] * 50))
    for number in range(3):
        (tmp_path / "7" / "fd" / str(number)).touch()
    found = usage(7, tmp_path)
    assert found is not None
    assert found.open_fds == 3
