"""What the machine allows: file descriptors for connections, and cores for workers.

A connection costs two descriptors (client and backend) in the worker that has it. So a worker's limit bounds its
connections, and a `max_connections` beyond what all workers together can hold would be a promise that fails at the
worst time, in the rush it was written for. It is refused at start instead.
"""

from __future__ import annotations

import math
import os
import resource
from dataclasses import dataclass
from pathlib import Path

from tlstunnel.config.model import MAX_WORKERS, Config
from tlstunnel.connection.ledger import PER_CONNECTION
from tlstunnel.errors import StartupError

OVERHEAD = 64
"""Descriptors of a worker that are neither listeners nor connections: standard streams, channel, epolls, trio's own,
the DNS lookups and the second attempts of happy eyeballs under way. Counted: about 15 at rest."""
MANY = 5_000
"""Connections: who expects more than that knows of descriptors, and has set max_connections."""
_OF_SUPERVISOR = 24
"""Descriptors of the supervisor that are nobody's in particular. Counted: 13 at rest."""
_CHANNELS = 6
"""For each worker: its channel, both ends of the one for the admin process; and the same while a reload replaces it."""
_NR_OPEN = Path("/proc/sys/fs/nr_open")


@dataclass(frozen=True, slots=True)
class DescriptorBudget:
    """How the descriptors of one worker are divided."""

    limit: int
    """RLIMIT_NOFILE of each process."""
    listeners: int
    """Listening sockets in a worker."""
    workers: int
    max_connections: int | None
    """What the configuration promises over all workers; None where nothing bounds it."""

    @property
    def connections_per_worker(self) -> int:
        overhead = min(OVERHEAD, self.limit // 2)  # where there are very few, fewer are kept back
        return max(0, (self.limit - overhead - self.listeners) // PER_CONNECTION)

    @property
    def connections(self) -> int:
        """How many connections all workers together can hold."""
        return self.connections_per_worker * self.workers

    @property
    def needed(self) -> int:
        """The limit each worker needs for its share of `max_connections`."""
        share = math.ceil((self.max_connections or 0) / self.workers)
        used = share * PER_CONNECTION + self.listeners
        return used + min(OVERHEAD, used)

    def notice(self) -> str | None:
        """One line for an operator whom the machine gives room for few connections; None where that will not matter:
        there is room for many, or for as many as the configuration allows."""
        if self.max_connections is not None or self.connections >= MANY:
            return None
        whom = "the worker" if self.workers == 1 else f"each of the {self.workers} workers"
        return (
            f"at most {self.connections} connections can be open at once: each takes {PER_CONNECTION} file "
            f"descriptors, and {whom} may have {self.limit}; a higher LimitNOFILE= in the unit (or ulimit -n) makes "
            "room for more"
        )


def raise_descriptor_limit() -> int:
    """Raise this process's RLIMIT_NOFILE to its hard limit, and return the limit that holds from now on.

    A sandbox may refuse; the soft limit then stays, and the budget is computed with it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _nr_open() if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft
    return wanted


def descriptor_budget(config: Config, *, limit: int, listeners: int, workers: int) -> DescriptorBudget:
    """Divide a worker's descriptors, and refuse a configuration that promises more connections than fit.

    Args:
        limit: what `raise_descriptor_limit` returned.
        listeners: listening sockets a worker holds.

    Raises:
        StartupError: naming each `max_connections` that cannot fit and what to raise.
    """
    problems = []
    promises = [("process.max_connections", config.process.max_connections)]
    promises += [(f"services.{service.name}.max_connections", service.max_connections) for service in config.services]
    for where, promise in promises:
        budget = DescriptorBudget(limit, listeners, workers, promise)
        if promise is not None and budget.needed > limit:
            problems.append(_refusal(f"{config.source}: {where}", budget))
    if problems:
        raise StartupError("\n".join(problems))
    if DescriptorBudget(limit, listeners, workers, None).connections_per_worker == 0:
        least = 2 * (listeners + PER_CONNECTION)
        raise StartupError(
            f"{limit} file descriptors leave room for no connection; raise LimitNOFILE= in the unit (or ulimit -n) to "
            f"{least} at least, two more for each connection"
        )
    of_supervisor = _OF_SUPERVISOR + workers * (listeners + _CHANNELS)
    if of_supervisor > limit:
        raise StartupError(
            f"{workers_text(workers)} need {of_supervisor} file descriptors in the supervisor, and the limit is "
            f"{limit}; raise LimitNOFILE= in the unit (or ulimit -n) to {of_supervisor}, or set process.workers lower"
        )
    budget = DescriptorBudget(limit, listeners, workers, _allowed(config))
    if budget.max_connections is not None and budget.needed > limit:
        raise StartupError(_refusal(f"{config.source}: max_connections of all services", budget))
    return budget


def workers_text(number: int) -> str:
    """`2 workers`."""
    return f"{number} worker{'s' if number > 1 else ''}"


def usable_cores(*, proc: Path = Path("/proc/self")) -> int:
    """How many cores this process may keep busy: its CPU affinity, or less where a cgroup quota allows less; at most
    MAX_WORKERS.

    A quota of one and a half cores counts as two: one worker could not use it up.
    """
    cores = min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    quota = cpu_quota(proc=proc)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(*, proc: Path = Path("/proc/self")) -> float | None:
    """Cores that the tightest CPU quota on the way up this process's cgroups allows; None without any.

    Reads `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` with `cpu.cfs_period_us` (v1). Inside a container the mount shows
    the container's own group as its root, or the path leads nowhere; whatever can be read counts.
    """
    try:
        groups = (proc / "cgroup").read_text().splitlines()
        mounts = (proc / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        is_v2 = controllers == ""
        if is_v2 or "cpu" in controllers.split(","):
            for mount, root in _cgroup_mounts(mounts, is_v2=is_v2):
                quotas += _quotas_upwards(mount, root, path, is_v2=is_v2)
    return min(quotas, default=None)


def _allowed(config: Config) -> int | None:
    of_services = [service.max_connections for service in config.services]
    total = None if None in of_services else sum(limit for limit in of_services if limit is not None)
    limits = [limit for limit in (config.process.max_connections, total) if limit is not None]
    return min(limits, default=None)


def _refusal(where: str, budget: DescriptorBudget) -> str:
    return (
        f"{where}: {budget.max_connections} connections need {budget.needed} descriptors in each of "
        f"{workers_text(budget.workers)}, and the limit is {budget.limit}; "
        f"raise LimitNOFILE= in the unit (or ulimit -n) to {budget.needed}, or allow at most {budget.connections}"
    )


def _nr_open() -> int:
    try:
        return int(_NR_OPEN.read_text())
    except (OSError, ValueError):
        return 1 << 20  # the kernel's own default


def _cgroup_mounts(mountinfo: list[str], *, is_v2: bool) -> list[tuple[Path, str]]:
    """Mount point and root of the hierarchy that holds the CPU controller (proc_pid_mountinfo(5))."""
    found = []
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split()
        controls_cpu = kind == "cgroup" and "cpu" in rest[-1].split(",")
        if (is_v2 and kind == "cgroup2") or (not is_v2 and controls_cpu):
            found.append((Path(fields[4]), fields[3]))
    return found


def _quotas_upwards(mount: Path, root: str, path: str, *, is_v2: bool) -> list[float]:
    # A mount shows the hierarchy from its root on; a path outside that root belongs to a group we cannot see.
    shown = path.removeprefix(root.rstrip("/")) if path.startswith(root) else "/"
    group = mount / shown.strip("/")
    quotas = []
    while True:
        quota = _quota_v2(group) if is_v2 else _quota_v1(group)
        if quota is not None:
            quotas.append(quota)
        if group == mount or mount not in group.parents:
            return quotas
        group = group.parent


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError, ZeroDivisionError):
        return None
