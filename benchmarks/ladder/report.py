"""The ladder as a table for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.ladder.climb import Found
from benchmarks.peers.compare import Options
from benchmarks.peers.stats import Spread, ratios, spread


def as_json(found: Sequence[Found], options: Options, facts: Mapping[str, str]) -> dict[str, Any]:
    """Everything measured, each sample included.

    `rungs[].steps[]` holds `median`, `low` and `high` (quartiles) and `samples` in the rung's unit, and `ratio` to the
    step it is `against`, taken round by round. A trick `shows` where without it more is spent, beyond the quartiles.
    """
    return {
        "machine": dict(facts),
        "options": {
            "rounds": options.rounds, "scale": options.scale, "suite": options.suite, "group": options.group,
            "pinned": options.pin,
        },
        "rungs": [_rung_json(each) for each in found],
    }  # fmt: skip


def _rung_json(found: Found) -> dict[str, Any]:
    rung = found.rung
    steps: list[dict[str, Any]] = []
    before: tuple[str, list[float]] | None = None
    for label, samples in found.samples.items():
        step: dict[str, Any] = {"label": label, **_spread(spread(samples)), "samples": samples}
        if before is not None and all(value > 0 for value in before[1]):
            ratio = ratios(samples, before[1])
            step |= {"against": before[0], "ratio": _spread(ratio)}
            if rung.trick:
                step["shows"] = ratio.low > 1
        if before is None or rung.climbs:
            before = label, samples
        steps.append(step)
    return {
        "name": rung.name, "title": rung.title, "unit": rung.unit, "climbs": rung.climbs, "trick": rung.trick,
        "steps": steps, "failures": found.failures,
    }  # fmt: skip


def _spread(measured: Spread) -> dict[str, float]:
    return {"median": measured.median, "low": measured.low, "high": measured.high, "rounds": measured.rounds}


def as_text(report: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the table of an `as_json` report."""
    options = report["options"]
    yield "  ".join(f"{key}: {value}" for key, value in report["machine"].items())
    yield (
        f"{options['suite']}, {options['group']}, ECDSA P-256 unless said otherwise; {options['rounds']} rounds at "
        f"scale {options['scale']:g}; "
        + ("proxies pinned to one CPU, load to the others" if options["pinned"] else "nothing pinned")
    )
    for rung in report["rungs"]:
        yield from _rung_text(rung)


def _rung_text(rung: Mapping[str, Any]) -> Iterator[str]:
    against = "/ above" if rung["climbs"] else "/ first"
    yield ""
    yield f"{rung['title']} [{rung['name']}]" + (f"  {rung['trick']}" if rung["trick"] else "")
    yield f"  {'':<30}{rung['unit']:>11} {'quartiles':>17}{against:>10} {'quartiles':>13}"
    for step in rung["steps"]:
        quartiles = f"{step['low']:.4g}-{step['high']:.4g}"
        line = f"  {step['label']:<30}{step['median']:>11.4g} {quartiles:>17}"
        if "ratio" in step:
            ratio = step["ratio"]
            line += f"{ratio['median']:>10.3f} {ratio['low']:>6.3f}-{ratio['high']:<6.3f}"
            line += "" if step.get("shows", True) else " does not show"
        yield line.rstrip()
    for label, reason in rung["failures"].items():
        yield f"  {label:<30}failed: {reason}"
