"""The result as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import Options, RowResult
from benchmarks.peers.stats import Spread, ratios, spread, verdict

# A proxy this busy was the bottleneck, whatever the load side did.
_BUSY = 0.9


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "cpu": model,
        "cpus": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": load,
    }


def as_json(
    results: Sequence[RowResult], subject: str, versions: Mapping[str, str], options: Options, facts: Mapping[str, str]
) -> dict[str, Any]:
    """Everything measured, each sample included.

    `rows[].proxies[NAME]` holds `median`, `low` and `high` (quartiles) and `samples` in the row's unit;
    `rows[].ratios[NAME]` the subject's value over NAME's, round by round, with `bar` and `verdict` where there is one.
    """
    return {
        "subject": subject,
        "machine": dict(facts),
        "versions": dict(versions),
        "options": {
            "rounds": options.rounds, "scale": options.scale, "suite": options.suite, "group": options.group,
            "idle_seconds": options.idle_seconds, "pinned": options.pin,
        },
        "rows": [_row_json(result, subject, len(options.cpus()[1])) for result in results],
    }  # fmt: skip


def _row_json(result: RowResult, subject: str, load_cpus: int) -> dict[str, Any]:
    row = result.row
    proxies: dict[str, Any] = {}
    for name, samples in result.samples.items():
        measured = spread([sample.value for sample in samples])
        proxies[name] = {
            **_spread_json(measured),
            "samples": [sample.value for sample in samples],
            "proxy_share": statistics.median(sample.proxy_share for sample in samples),
            "load_share": statistics.median(sample.load_share for sample in samples),
            "details": [dict(sample.detail) for sample in samples],
        }
        proxies[name]["load_limited"] = row.unit.startswith("CPU") and _is_load_limited(
            proxies[name]["proxy_share"], proxies[name]["load_share"] / load_cpus
        )
        if row.bar is not None and name == subject:
            proxies[name] |= {"bar": row.bar, "verdict": verdict(measured, row.bar)}
    found: dict[str, Any] = {}
    if subject in result.samples:
        mine = [sample.value for sample in result.samples[subject]]
        for name, samples in result.samples.items():
            if name != subject and all(sample.value > 0 for sample in samples):
                ratio = ratios(mine, [sample.value for sample in samples])
                bar = row.bars.get(name)
                found[name] = _spread_json(ratio) | (
                    {} if bar is None else {"bar": bar, "verdict": verdict(ratio, bar)}
                )
    return {
        "name": row.name, "title": row.title, "unit": row.unit, "proxies": proxies, "ratios": found,
        "failures": result.failures,
    }  # fmt: skip


def _is_load_limited(proxy_share: float, load_share: float) -> bool:
    """Whether the proxy had to wait for a generator that was itself nearer to its limit than the proxy was."""
    return proxy_share < _BUSY and load_share > proxy_share


def _spread_json(measured: Spread) -> dict[str, float]:
    return {"median": measured.median, "low": measured.low, "high": measured.high, "rounds": measured.rounds}


def as_text(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table of an `as_json` report."""
    options, subject = report["options"], report["subject"]
    yield "  ".join(f"{key}: {value}" for key, value in report["machine"].items())
    yield "  ".join(f"{name} {version}" for name, version in report["versions"].items())
    yield (
        f"{options['suite']}, {options['group']}, ECDSA P-256; {options['rounds']} rounds "
        f"at scale {options['scale']:g}; "
        + ("proxies pinned to one CPU, load to the others" if options["pinned"] else "nothing pinned")
    )
    for row in report["rows"]:
        yield from _row_text(row, subject)
    limited = [f"{row['name']} ({name})" for row in report["rows"] for name, it in row["proxies"].items()
               if it["load_limited"]]  # fmt: skip
    yield ""
    if limited:
        yield "the generator, not the proxy, set the pace of: " + ", ".join(limited)
    else:
        yield "the load side was never the busier one: the proxy set the pace of every row that counts CPU time"


def _row_text(row: Mapping[str, Any], subject: str) -> Iterator[str]:
    yield ""
    yield f"{row['title']} [{row['name']}]"
    yield (
        f"  {'':<15}{row['unit']:>12} {'quartiles':>19}{subject + ' / it':>16} {'quartiles':>13}{'at most':>9}"
        f"  {'':<8}{'proxy':>6} {'load':>6}  busy"
    )
    for name, it in row["proxies"].items():
        ratio = row["ratios"].get(name)
        compared = f"{'':>16} {'':>13}"
        if ratio is not None:
            compared = f"{ratio['median']:>16.3f} {ratio['low']:>6.3f}-{ratio['high']:<6.3f}"
        judged = ratio if ratio is not None and "bar" in ratio else it if "bar" in it else None
        bar, word = (f"{judged['bar']:g}", judged["verdict"]) if judged else ("", "")
        busy = f"{it['proxy_share']:>6.0%} {it['load_share']:>6.0%}" if it["load_share"] else ""
        quartiles = f"{it['low']:.4g}-{it['high']:.4g}"
        line = f"  {name:<15}{it['median']:>12.4g} {quartiles:>19}{compared}{bar:>9}  {word:<8}{busy}"
        yield line + ("  !" if it["load_limited"] else "")
    for name, reason in row["failures"].items():
        yield f"  {name:<15}failed: {reason}"
