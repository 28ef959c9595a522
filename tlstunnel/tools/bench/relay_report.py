"""The results of `bench relay`: a table for people, JSON for programs, a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tlstunnel.tools.bench import plot
from tlstunnel.tools.bench.machine import Machine
from tlstunnel.tools.bench.relay import PERCENTILES, Limit, Outcome, Work
from tlstunnel.tools.bench.report import WIDTH, machine_lines, spread_json

_SHOWN = (*PERCENTILES, "max")


def as_json(outcome: Outcome, machine: Machine, *, quick: bool, subject: str, key: str) -> dict[str, Any]:
    """Everything, in the schema of docs/reference/bench.md."""
    return {
        "benchmark": "relay",
        "schema": 1,
        "machine": machine,
        "quick": quick,
        "subject": subject,
        "workers": outcome.workers,
        "load_processes": outcome.clients,
        "negotiated": outcome.negotiated | {"key": key},
        "results": [_work_json(work) for work in outcome.works],
    }


def _work_json(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = {"name": work.name, "title": work.title}
    if not work.unit:
        found |= {"latency_us": {name: spread_json(work.spread(name)) for name in PERCENTILES}}
        found["latency_us"]["max"] = round(max(sample.us["max"] for sample in work.samples), 6)
        if work.name == "trips":
            found["cpu_us"] = spread_json(work.spread("cost_s"), 1e6)
        return found
    is_bulk = work.unit == "GiB/s"
    rate, cost = ("gib_per_s", "cpu_s_per_gib") if is_bulk else ("per_second", "cpu_us")
    return found | {
        rate: spread_json(work.spread("rate")),
        cost: spread_json(work.spread("cost_s"), 1.0 if is_bulk else 1e6),
        "tunnel_busy": round(work.spread("tunnel_share").median, 3),
        "load_busy": round(work.spread("load_share").median, 3),
        "limited_by": work.limit.value,
    }


def as_text(outcome: Outcome, machine: Machine, *, subject: str, key: str) -> Iterator[str]:
    """The lines of the report."""
    yield from machine_lines(machine)
    yield ""
    agreed = outcome.negotiated
    workers = "1 worker" if outcome.workers == 1 else f"{outcome.workers} workers"
    yield from textwrap.wrap(
        f"{subject}: {agreed['version']}, {agreed['suite']}, {agreed['group'] or 'no key exchange'}, {key}; "
        f"{workers}, metrics on, load from {outcome.clients} process{'es' if outcome.clients > 1 else ''}",
        WIDTH,
        break_on_hyphens=False,
    )
    rounds = len(outcome.works[0].samples)
    yield from ("", f"The median of {rounds} rounds; ± is half the distance of the quartiles of the CPU time.", "")
    yield f"{'':<20}{'rate':>14}{'CPU of tlstunnel':>19}{'±%':>6}{'tunnel':>9}{'load':>6} busy"
    for work in outcome.works:
        if work.unit:
            yield _work_line(work)
    yield ""
    yield f"{'µs':<36}" + "".join(f"{_percentile(name):>8}" for name in _SHOWN)
    for work in outcome.works:
        if not work.unit:
            shown = [work.spread(name).median for name in PERCENTILES]
            shown.append(max(sample.us["max"] for sample in work.samples))
            yield f"{work.title:<36}" + "".join(f"{value:>8.0f}" for value in shown)
    yield ""
    yield from textwrap.wrap(_meaning(outcome), WIDTH)


def _percentile(name: str) -> str:
    return name if name == "max" else f"p{PERCENTILES[name] * 100:g}"


def _work_line(work: Work) -> str:
    rate, cost = work.spread("rate").median, work.spread("cost_s")
    is_bulk = work.unit == "GiB/s"
    shown = f"{rate:.2f} GiB/s" if is_bulk else f"{rate:.0f} /s"
    each = f"{cost.median:.3f} s/GiB" if is_bulk else f"{cost.median * 1e6:.0f} µs each"
    mark = {Limit.TUNNEL: "", Limit.LOAD: " !", Limit.MACHINE: " ~"}[work.limit]
    busy = f"{work.spread('tunnel_share').median:>9.0%}{work.spread('load_share').median:>6.0%}{mark}"
    return f"{work.title:<20}{shown:>14}{each:>19}{cost.percent:>6.1f}{busy}"


def _meaning(outcome: Outcome) -> str:
    works = {work.name: work for work in outcome.works}
    full, down = works["full"].spread("cost_s").median, works["download"].spread("cost_s").median
    text = (
        f"A core that does nothing else can so make {1 / full:,.0f} full handshakes or carry {1 / down:.1f} GiB of "
        "download a second. "
    )
    by_load, by_machine = (
        ", ".join(work.title for work in outcome.works if work.unit and work.limit is limit)
        for limit in (Limit.LOAD, Limit.MACHINE)
    )
    if by_load:
        text += f"! The load was the bottleneck of: {by_load}; the rate is what it could ask for. "
    if by_machine:
        text += (
            f"~ Neither tunnel nor load was near its limit in: {by_machine}; the cores were too few for all processes, "
            "or had other work. "
        )
    if by_load or by_machine:
        return text + "The CPU times hold all the same."
    return text + "tlstunnel, not the load, was the bottleneck throughout."


def draw(path: Path, outcome: Outcome, machine: Machine, *, subject: str) -> None:
    """Write the figure: what a GiB and a handshake cost, and how long an exchange takes.

    Raises:
        StartupError: the file cannot be written, or matplotlib is not installed.
    """
    pyplot = plot.load()
    figure, (bulk, shakes, trips) = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    works = {work.name: work for work in outcome.works}
    _bars(bulk, [works["download"], works["upload"]], 1.0, "CPU seconds for each GiB")
    _bars(shakes, [works["full"], works["resumed"]], 1e6, "CPU µs for each handshake")
    for name, color in (("trips", plot.SERVER), ("beside", plot.CLIENT)):
        measured = [works[name].spread(which) for which in PERCENTILES]
        values = [each.median for each in measured]
        doubt = [[each.median - each.low for each in measured], [each.high - each.median for each in measured]]
        trips.errorbar(range(len(values)), values, yerr=doubt, marker="o", color=color, label=works[name].title)
    trips.set_xticks(range(len(PERCENTILES)), [_percentile(name) for name in PERCENTILES])
    trips.set_yscale("log")
    trips.set_title("µs of an exchange", fontsize=10, loc="left")
    trips.legend(fontsize=8, frameon=False)
    for ax in (bulk, shakes, trips):
        ax.grid(axis="y", linewidth=0.4, alpha=0.6)
        ax.set_axisbelow(True)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    figure.suptitle(f"{subject}; {machine['cpu']}, {machine['openssl']}", fontsize=11)
    plot.save(pyplot, figure, path)


def _bars(ax: Any, works: list[Work], unit: float, title: str) -> None:
    measured = [work.spread("cost_s") for work in works]
    doubt = [
        [(each.median - each.low) * unit for each in measured],
        [(each.high - each.median) * unit for each in measured],
    ]
    values = [each.median * unit for each in measured]
    drawn = ax.bar([work.title for work in works], values, width=0.55, color=[plot.SERVER, plot.WIRE], yerr=doubt)
    ax.bar_label(drawn, labels=[f"{value:.3g}" for value in values], padding=3, fontsize=8)
    ax.margins(y=0.15)
    ax.set_title(title, fontsize=10, loc="left")
