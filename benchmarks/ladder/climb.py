"""Measures a rung: all its steps at once, in turns, in an order that rotates from round to round."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.ladder.rungs import Rung
from benchmarks.ladder.steps import Step
from benchmarks.peers.compare import Stage
from benchmarks.peers.errors import BenchmarkError
from tlstunnel.tools.bench.refusals import UnsupportedError
from tlstunnel.tools.bench.session import Lab

_FRESH_ROUNDS = 3  # a new process for every round costs its start, and memory is not noisy


@dataclass
class Found:
    """What came of a rung; a step is either in `samples`, once per round, or in `failures`."""

    rung: Rung
    samples: dict[str, list[float]]
    failures: dict[str, str] = field(default_factory=dict)


def climb(rung: Rung, on: Stage, lab: Lab) -> Found:
    """Measures a rung. A step that fails is left out of the rest of it, with its reason; the others go on."""
    steps = {step.label: step for step in rung.steps()}
    found = Found(rung, {label: [] for label in steps})
    rounds = on.options.rounds
    is_fresh = any(step.fresh for step in steps.values())
    turns = [1] * min(rounds, _FRESH_ROUNDS) if is_fresh else [rounds]
    for number, count in enumerate(turns):
        try:
            for label, step in steps.items():
                _try(found, label, step, lambda step=step: step.open(on, lab))
            for turn in range(count):
                _progress(f"{rung.name}: round {number + turn + 1} of {len(turns) * count}")
                start = turn % len(steps)
                for label, step in [*steps.items()][start:] + [*steps.items()][:start]:
                    _try(found, label, step, lambda label=label, step=step: found.samples[label].append(step.measure()))
        finally:
            for step in steps.values():
                step.close()
    return found


def _try(found: Found, label: str, step: Step, action: Callable[[], None]) -> None:
    if label in found.failures:
        return
    try:
        action()
    except (BenchmarkError, UnsupportedError) as exc:
        said = step.last_words()
        found.failures[label] = f"{exc}" + (f"; it said: {said}" if said else "")
        found.samples.pop(label, None)


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
