"""The descriptor budget and the usable cores: promises that cannot be kept are refused with what to raise."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.model import MAX_WORKERS, Config, Mode, Process, Service
from tlstunnel.daemon.processes.rows import MAX_ROWS
from tlstunnel.daemon.system.limits import (
    OVERHEAD,
    DescriptorBudget,
    cpu_quota,
    descriptor_budget,
    raise_descriptor_limit,
    usable_cores,
)
from tlstunnel.errors import StartupError


def config(*limits: int | None, overall: int | None = None) -> Config:
    """Services s0, s1, ... with these max_connections."""
    services = tuple(
        Service(
            name=f"s{number}",
            mode=Mode.CLIENT,
            listen=(parse_listen("127.0.0.1:0"),),
            targets=(parse_target("localhost:1"),),
            max_connections=limit,
        )
        for number, limit in enumerate(limits)
    )
    return Config(services=services, process=Process(max_connections=overall), source="tunnel.toml")


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_a_budget_says_how_many_connections_fit() -> None:
    budget = descriptor_budget(config(None), limit=1024, listeners=10, workers=2)
    assert budget.connections_per_worker == (1024 - OVERHEAD - 10) // 2
    assert budget.connections == 2 * budget.connections_per_worker


def test_little_room_is_told_with_its_reason_and_what_gives_more() -> None:
    assert descriptor_budget(config(None), limit=1024, listeners=10, workers=2).notice() == (
        "at most 950 connections can be open at once: each takes 2 file descriptors, and each of the 2 workers may "
        "have 1024; a higher LimitNOFILE= in the unit (or ulimit -n) makes room for more"
    )
    one = descriptor_budget(config(None), limit=1024, listeners=10, workers=1).notice()
    assert one is not None
    assert "and the worker may have 1024;" in one


def test_room_that_suffices_is_not_spoken_of() -> None:
    assert descriptor_budget(config(None), limit=262_144, listeners=1, workers=1).notice() is None
    assert descriptor_budget(config(50), limit=1024, listeners=1, workers=1).notice() is None, "as many as are allowed"
    assert descriptor_budget(config(None, overall=50), limit=1024, listeners=1, workers=1).notice() is None


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("limit", [100, 1024, 20001])
def test_exactly_what_fits_is_allowed_and_one_more_is_refused(workers: int, limit: int) -> None:
    room = DescriptorBudget(limit, 3, workers, None).connections
    assert descriptor_budget(config(room), limit=limit, listeners=3, workers=workers).max_connections == room
    with pytest.raises(StartupError):
        descriptor_budget(config(room + 1), limit=limit, listeners=3, workers=workers)


def test_the_limit_that_is_asked_for_is_enough() -> None:
    needed = DescriptorBudget(256, 5, 3, 10_000).needed
    assert descriptor_budget(config(10_000), limit=needed, listeners=5, workers=3).connections >= 10_000


def test_each_promise_that_cannot_be_kept_is_named_with_what_to_raise() -> None:
    with pytest.raises(StartupError) as caught:
        descriptor_budget(config(10, 5000, None, 6000, overall=9000), limit=1024, listeners=8, workers=2)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "process.max_connections", "services.s1.max_connections", "services.s3.max_connections",
    ]  # fmt: skip
    assert lines[1] == (
        "tunnel.toml: services.s1.max_connections: 5000 connections need 5072 descriptors in each of 2 workers, and "
        "the limit is 1024; raise LimitNOFILE= in the unit (or ulimit -n) to 5072, or allow at most 952"
    )


@pytest.mark.parametrize(
    ("limits", "overall", "allowed"),
    [
        ((100, 200), None, 300),
        ((100, 200), 250, 250),
        ((100, None), None, None),
        ((100, None), 250, 250),
        ((None,), None, None),
    ],
)
def test_what_is_allowed_in_all_is_the_sum_of_the_services_or_less(
    limits: tuple[int | None, ...], overall: int | None, allowed: int | None
) -> None:
    budget = descriptor_budget(config(*limits, overall=overall), limit=20_000, listeners=1, workers=1)
    assert budget.max_connections == allowed


def test_services_that_fit_alone_but_not_together_are_refused() -> None:
    with pytest.raises(StartupError) as caught:
        descriptor_budget(config(400, 400), limit=1024, listeners=2, workers=1)
    assert str(caught.value).startswith("tunnel.toml: max_connections of all services: 800 connections need 1666")
    assert descriptor_budget(config(400, 400, overall=450), limit=1024, listeners=2, workers=1).max_connections == 450


def test_room_for_no_connection_at_all_is_refused() -> None:
    with pytest.raises(StartupError) as caught:
        descriptor_budget(config(None), limit=82, listeners=40, workers=1)
    assert str(caught.value).startswith("82 file descriptors leave room for no connection; raise LimitNOFILE= ")
    assert "to 84 at least" in str(caught.value)
    assert descriptor_budget(config(None), limit=84, listeners=40, workers=1).connections == 1


def test_workers_that_the_supervisor_has_no_descriptors_for_are_refused() -> None:
    with pytest.raises(StartupError) as caught:
        descriptor_budget(config(None), limit=200, listeners=2, workers=40)
    assert str(caught.value) == (
        "40 workers need 344 file descriptors in the supervisor, and the limit is 200; raise LimitNOFILE= in the unit "
        "(or ulimit -n) to 344, or set process.workers lower"
    )
    assert descriptor_budget(config(None), limit=344, listeners=2, workers=40).workers == 40


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    program = (
        "import resource\n"
        "from tlstunnel.daemon.system.limits import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))\n"
        "print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))\n"
        "print(raise_descriptor_limit())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "512 512 512\n512\n"


def test_a_sandbox_that_refuses_leaves_the_limit_that_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "seccomp")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 512))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 64


def test_no_hard_limit_means_what_the_kernel_allows_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: seen.append(pair))
    wanted = int(Path("/proc/sys/fs/nr_open").read_text())
    assert raise_descriptor_limit() == wanted
    assert seen == [(wanted, resource.RLIM_INFINITY)]


# --- cores ----------------------------------------------------------------------------------------------------------


class Cgroups:
    """A /proc/self and a cgroup tree to read."""

    def __init__(self, root: Path) -> None:
        self.proc, self.mount = root / "proc", root / "cgroup"
        self.proc.mkdir()
        self.mount.mkdir()

    def place(self, membership: str, kind: str, *, root: str = "/", options: str = "rw") -> None:
        (self.proc / "cgroup").write_text(f"5:devices:/x\n{membership}\n")
        (self.proc / "mountinfo").write_text(
            f"24 1 0:22 / /proc rw shared:5 - proc proc rw\n"
            f"30 24 0:26 {root} {self.mount} rw,nosuid shared:9 - {kind} cgroup {options}\n"
        )

    def quota(self, group: str, **files: str) -> None:
        folder = self.mount / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({"a/b": "150000 100000"}, 1.5),
        ({"a/b": "max 100000"}, None),
        ({"a": "50000 100000", "a/b": "max 100000"}, 0.5),
        ({"a": "400000 100000", "a/b": "200000 100000"}, 2.0),
        ({"": "300000 100000"}, 3.0),
        ({"a/b": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_tightest_quota_on_the_way_up_counts(quotas: dict[str, str], cores: float | None, cgroups: Cgroups) -> None:
    cgroups.place("0::/a/b", "cgroup2")
    for group, text in quotas.items():
        cgroups.quota(group, cpu__max=text)
    assert cpu_quota(proc=cgroups.proc) == cores


def test_a_quota_of_version_one_counts(cgroups: Cgroups) -> None:
    cgroups.place("4:cpu,cpuacct:/a", "cgroup", options="rw,cpu,cpuacct")
    cgroups.quota("a", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    assert cpu_quota(proc=cgroups.proc) == 2.5
    cgroups.quota("a", cpu__cfs_quota_us="-1")
    assert cpu_quota(proc=cgroups.proc) is None


def test_another_controllers_hierarchy_is_not_asked(cgroups: Cgroups) -> None:
    cgroups.place("4:cpuset:/a", "cgroup", options="rw,cpuset")
    cgroups.quota("a", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    assert cpu_quota(proc=cgroups.proc) is None


@pytest.mark.parametrize(("root", "path"), [("/docker/x", "/docker/x"), ("/", "/"), ("/docker/x", "/elsewhere")])
def test_in_a_container_the_mount_itself_is_the_group(root: str, path: str, cgroups: Cgroups) -> None:
    cgroups.place(f"0::{path}", "cgroup2", root=root)
    cgroups.quota("", cpu__max="100000 100000")
    assert cpu_quota(proc=cgroups.proc) == 1.0


def test_without_proc_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(proc=tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [
        (8, "250000 100000", 3),
        (2, "800000 100000", 2),
        (8, "10000 100000", 1),
        (8, "max 100000", 8),
        (3, "300000 100000", 3),
    ],
)
def test_usable_cores_are_the_affinity_or_the_quota_rounded_up(
    affinity: int, quota: str, cores: int, cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    cgroups.place("0::/", "cgroup2")
    cgroups.quota("", cpu__max=quota)
    assert usable_cores(proc=cgroups.proc) == cores


def test_the_workers_of_two_configurations_fit_side_by_side() -> None:
    assert 2 * MAX_WORKERS < MAX_ROWS


def test_taskset_is_respected() -> None:
    program = "from tlstunnel.daemon.system.limits import usable_cores; print(usable_cores())"
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {program}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"
