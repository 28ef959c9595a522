"""The comparison with the peers measures what it says, at sizes that cost next to nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers import certificate, process
from benchmarks.peers.__main__ import main
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.native import Backend, Loadgen
from benchmarks.peers.programs import Running, Setting, known
from benchmarks.peers.report import _is_load_limited
from benchmarks.peers.stats import ratios, spread, verdict
from benchmarks.peers.workloads import ROWS
from tests.support.compiled import require_programs
from tests.support.interop import require

pytestmark = [pytest.mark.slow, pytest.mark.interop]

TINY = ("--scale", "0.0005", "--rounds", "1", "--idle-seconds", "0", "--no-pin")
SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    require_programs()


@pytest.fixture
def backend() -> Iterator[Backend]:
    started = Backend()
    yield started
    started.stop()


@pytest.fixture(params=SUITES)
def haproxy(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> Iterator[tuple[Running, str]]:
    require("haproxy")
    certificate.make(tmp_path)
    running = known(tmp_path)["haproxy"].start(Setting(backend.port, request.param, "X25519", tmp_path), 0)
    yield running, request.param
    running.stop()


@pytest.fixture
def generators() -> Iterator[list[Loadgen]]:
    started: list[Loadgen] = []
    yield started
    for generator in started:
        generator.stop()


# The numbers.


def test_the_ratio_is_the_median_of_what_each_round_says() -> None:
    # A round in which the machine was three times as slow for both sides changes nothing.
    found = ratios([1.0, 3.0, 1.1], [2.0, 6.0, 2.0])
    assert found.median == 0.5
    assert (found.low, found.high) == pytest.approx((0.5, 0.525))


def test_one_round_has_a_median_and_no_spread() -> None:
    assert spread([4.0]).low == spread([4.0]).high == 4.0


@pytest.mark.parametrize(
    ("values", "word"),
    [([0.5, 0.5, 0.6], "holds"), ([0.9, 1.0, 1.1], "holds?"), ([0.9, 1.05, 1.1], "missed?"), ([1.2, 1.3], "missed")],
)
def test_a_verdict_says_when_more_rounds_could_turn_it(values: list[float], word: str) -> None:
    assert verdict(spread(values), 1.0) == word


def test_a_proxy_that_waited_for_a_busier_generator_is_flagged() -> None:
    assert _is_load_limited(0.7, 0.98)
    assert not _is_load_limited(0.97, 0.99)
    assert not _is_load_limited(0.5, 0.3)


def test_cpu_time_counts_children_that_live_and_children_that_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.15: pass\n"
    program = (
        f"import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"if os.fork() == 0:\n    exec({burn!r})\n    print('burnt', flush=True)\nsys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "burnt\n"
        assert len(process.tree(child.pid)) == 2
        assert process.cpu_s(child.pid) > 0.15 + 0.10  # the child that has ended is known in ticks only
        assert process.own_kib(child.pid) > 1000
        cpu = min(os.sched_getaffinity(0))
        process.pin(child.pid, {cpu})
        assert all(os.sched_getaffinity(pid) == {cpu} for pid in process.tree(child.pid))
    finally:
        process.end(child)


# The load.


def test_the_generator_counts_every_byte(backend: Backend, generators: list[Loadgen]) -> None:
    generators.append(generator := Loadgen(backend.port, None, ""))
    assert generator.do("open 3").done == 3
    assert generator.do("download 1000001 0 3").bytes == 3 * 1000001
    assert generator.do("upload 300007 1 2").bytes == 2 * 300007
    answer = generator.do("echo 100 64 0 3")
    assert (answer.done, answer.bytes) == (100, 6400)
    assert 0 < answer.p50_us <= answer.p99_us <= answer.max_us


def test_the_generator_counts_every_byte_through_tls(haproxy: tuple[Running, str], generators: list[Loadgen]) -> None:
    proxy, suite = haproxy
    generators.append(generator := Loadgen(proxy.port, suite, "X25519"))
    assert generator.do("open 3").suite == suite
    assert generator.do("echo 50 64 0 3").bytes == 50 * 64
    assert generator.do("download 1000001 0 3").bytes == 3 * 1000001
    assert generator.do("seal 300007 0 1").failed == 0
    assert generator.do("upload 300007 0 3").bytes == 3 * 300007  # one of them encrypted ahead
    assert generator.do("echo 50 64 0 3").bytes == 50 * 64
    generator.send("download 1125899906842624 0 1")
    generator.send("stop")
    assert generator.answer().cut_short


@pytest.mark.parametrize("client", ["", " libssl"])
def test_full_handshakes_are_full_and_resumed_ones_resumed(
    haproxy: tuple[Running, str], generators: list[Loadgen], client: str
) -> None:
    proxy, suite = haproxy
    generators.append(generator := Loadgen(proxy.port, suite, "X25519"))
    full = generator.do(f"shake 20 4 full{client}")
    assert (full.done, full.resumed, full.bytes) == (20, 0, 20)
    again = generator.do(f"shake 20 4 resume{client}")
    assert (again.done, again.resumed, again.bytes) == (20, 20, 20)


def test_failures_are_errors_and_not_fast_results(backend: Backend, generators: list[Loadgen]) -> None:
    # The backend speaks no TLS: it echoes the ClientHello.
    generators.append(generator := Loadgen(backend.port, SUITES[0], "X25519"))
    for command in ("open 2", "shake 2 1 full", "shake 2 1 full libssl"):
        with pytest.raises(BenchmarkError, match="2 failed, 0 done"):
            generator.do(command)


def test_an_unknown_group_is_named(backend: Backend) -> None:
    with pytest.raises(BenchmarkError, match=r"does not offer .* with no-such-group"):
        Loadgen(backend.port, SUITES[0], "no-such-group")


# The command.


def _rows(path: Path) -> dict[str, dict[str, object]]:
    return {row["name"]: row for row in json.loads(path.read_text())["rows"]}


def test_a_peer_can_be_compared_with_itself_on_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("haproxy")
    require("taskset")
    out = tmp_path / "out.json"
    assert main(["--subject", "haproxy", "--peers", "haproxy,haproxy-plain", *TINY, "--json", str(out)]) == 0
    rows = _rows(out)
    assert list(rows) == [row.name for row in ROWS]
    printed = capsys.readouterr().out
    for name, row in rows.items():
        assert not row["failures"]
        with_plain = {"haproxy-plain"} if name in ("download", "upload") else set()
        assert set(row["proxies"]) == {"haproxy", "haproxy-again"} | with_plain  # type: ignore[call-overload]
        assert f"[{name}]" in printed
    assert process.tree(os.getpid()) == [os.getpid()]


def test_ours_goes_through_every_row(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert main(["--peers", "", *TINY, "--json", str(out)]) == 0, out.read_text()
    for row in _rows(out).values():
        assert set(row["proxies"]) == {"ours"}  # type: ignore[call-overload]


def test_a_proxy_that_does_not_start_is_named_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    broken = f"broken={sys.executable} -m tlstunnel -- --handshake-timeout 5"
    assert main(["--also", broken, "--peers", "", "--only", "download", *TINY, "--json", str(out)]) == 0
    row = _rows(out)["download"]
    assert set(row["proxies"]) == {"ours"}  # type: ignore[call-overload]
    assert "broken: does not listen" in row["failures"]["broken"]  # type: ignore[index]
    assert "failed: broken: does not listen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "word"), [(["--only", "uplaod"], "uplaod"), (["--peers", "apache"], "apache"), (["--also", "x"], '"x"')]
)
def test_a_wrong_word_is_named_with_the_right_ones(
    argv: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert word in capsys.readouterr().err
