"""A reload is noticed by nobody but the operator: certificates in place, everything else by a new generation."""

from __future__ import annotations

import http.client
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates
from tests.support.load import transfers, visitors
from tests.support.ports import free_port
from tests.support.site import Site, reload

pytestmark = pytest.mark.slow

LEAK_BYTES = 1 << 20
"""What 90 reloads may add to a process. Measured: 50 KiB; contexts that old connections keep alive make 2.3 MiB of it,
and contexts that nobody gives back more."""


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def usage(pids: list[int]) -> list[tuple[int, int]]:
    """Anonymous memory in bytes, and open descriptors, of each."""
    found = []
    for pid in pids:
        memory = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        assert memory
        found.append((int(memory[1]) * 1024, len(os.listdir(f"/proc/{pid}/fd"))))
    return found


def assert_no_growth(site: Site, before: list[tuple[int, int]], pids: list[int]) -> list[tuple[int, int]]:
    """Compare with `before`, if there was one; what is now. A link's last descriptors may go a moment later."""
    after: list[tuple[int, int]] = []

    def is_as_before(_: object) -> bool:
        after[:] = usage(pids)
        return all(now <= then for (_, now), (_, then) in zip(after, before, strict=False))

    site.until(is_as_before, f"as many descriptors as {before}")
    for (memory, _), (memory_then, _) in zip(after, before, strict=False):
        assert memory - memory_then < LEAK_BYTES, f"{before} became {after}"
    return after


def test_100_certificate_reloads_under_load_are_noticed_by_no_connection(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port)
    pairs = [certificates.server("localhost", "127.0.0.1", key_type=kind) for kind in ("ECDSA P-256", "RSA 2048")]
    with site.run() as daemon, visitors(daemon.port) as crowd, transfers(daemon.port):
        crowd.wait_for(10)
        processes = [daemon.process.pid, *site.workers()]
        before: list[tuple[int, int]] = []
        for number in range(1, 101):
            site.install(pairs[number % 2])
            assert reload(daemon).startswith("reloaded certificates")
            crowd.wait_for(2)
            if number in (10, 100):
                crowd.pause()
                site.until(lambda metrics: metrics["tlstunnel_connections_active"] == 2, "the transfers alone")
                before = assert_no_growth(site, before, processes)
                crowd.go_on()
        assert site.metrics()['tlstunnel_config_reloads_total{result="success"}'] == 100
        assert sorted([daemon.process.pid, *site.workers()]) == sorted(processes), "the same processes all along"


def test_100_new_generations_under_load_are_noticed_by_no_connection(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    port, moving = free_port(), (free_port(), free_port())

    def configure(number: int) -> None:
        """Another configuration each time: services come, go, change their name and their address."""
        main = "web" if number % 3 else "shop"
        site.write(
            {
                main: {"listen": f'"127.0.0.1:{port}"', "idle_timeout": f'"{number + 1}h"', "drain_timeout": '"5m"'},
                "mail": {"listen": f'"127.0.0.1:{moving[number % 2]}"'},
                **{f"extra{each}": {} for each in range(number % 4)},
            },
            process_workers=str(1 + number % 3),
        )

    configure(0)
    with site.run() as daemon, visitors(port) as crowd:
        crowd.wait_for(10)
        before: list[tuple[int, int]] = []
        with transfers(port) as long:
            crowd.wait_for(10)
            for number in range(1, 101):
                configure(number)
                assert reload(daemon).endswith(f"generation {number + 1}")
                crowd.wait_for(2)
                if number == 50:
                    lingering = site.metrics()["tlstunnel_draining_generations"]
                    assert lingering >= 1, "the transfers began in an old generation, which shows"
                if number in (10, 100):
                    crowd.pause()
                    site.until(lambda m: m["tlstunnel_draining_generations"] <= 1, "one old generation")
                    before = assert_no_growth(site, before, [daemon.process.pid])
                    crowd.go_on()
            assert not long.flaws
        metrics = site.until(lambda m: m["tlstunnel_draining_generations"] == 0, "no old generation")
        assert metrics['tlstunnel_config_reloads_total{result="success"}'] == 100
        assert metrics["tlstunnel_worker_restarts_total"] == 0
        assert metrics["tlstunnel_workers"] == 1 + 100 % 3
        assert len(daemon.children()) == 1 + 100 % 3 + 1, "the workers and the admin process"


def test_the_admin_endpoint_answers_everybody_through_reloads(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port, process_workers="1")
    answers: Counter[int | str] = Counter()
    is_over, pause = threading.Event(), threading.Event()

    def ask_on_and_on() -> None:
        while not is_over.is_set():
            try:
                answers[site.ask("/livez")[0]] += 1
            except (OSError, http.client.HTTPException) as exc:
                answers[repr(exc)] += 1

    with site.run() as daemon:
        asking = threading.Thread(target=ask_on_and_on, daemon=True)
        asking.start()
        for number in range(2, 22):
            site.write(idle_timeout=f'"{number}h"')
            before = answers.total()
            assert reload(daemon).endswith(f"generation {number}")
            while answers.total() == before:  # somebody was answered meanwhile, or will be now
                pause.wait(0.01)
        is_over.set()
        asking.join(60)
    assert list(answers) == [200], answers
