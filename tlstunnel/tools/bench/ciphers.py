"""Which suite, key and group to choose here: every row measured again and again, in turns.

How the ranking holds on a noisy machine. What is measured is CPU time, not time. A round measures each row for a few
milliseconds, in a new order every time, so that no row has the quiet seconds for itself; what is reported is the median
of the rounds between its quartiles, and what is compared is compared round by round. There are as many rounds as fit
into the time there is, but at least MIN_ROUNDS.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tlstunnel.tools.bench.cases import Bulk, Case, Handshake
from tlstunnel.tools.bench.folder import temporary
from tlstunnel.tools.bench.refusals import UnsupportedError
from tlstunnel.tools.bench.session import Lab, Shaken
from tlstunnel.tools.bench.stats import Spread, spread

MIN_ROUNDS, MAX_ROUNDS = 3, 25
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Effort:
    """How much time to spend."""

    measuring_s: float
    """For all rounds together; not less than MIN_ROUNDS, however long they take."""
    slice_s: float
    """CPU time of a row in a round."""


THOROUGH = Effort(measuring_s=90.0, slice_s=0.05)
QUICK = Effort(measuring_s=8.0, slice_s=0.008)

Progress = Callable[[float, str], None]
"""Told how much is done (0 to 1), and what comes now."""


@dataclass(slots=True)
class Result:
    """What came of a row: one sample for each round, or the reason why there is none."""

    case: Case
    unsupported: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Handshakes: `server` and `client`, CPU seconds each. Bulk: `encrypt` and `decrypt`, CPU seconds per GiB."""
    server_bytes: int = 0
    client_bytes: int = 0
    """Sent by each side in a handshake, tickets included."""

    def spread(self, what: str) -> Spread:
        """Median and quartiles of one of the samples."""
        return spread(self.samples[what])

    @property
    def rounds(self) -> int:
        """How often it was measured."""
        return min((len(values) for values in self.samples.values()), default=0)


def run(cases: Sequence[Case], effort: Effort, progress: Progress = lambda done, what: None) -> list[Result]:
    """Measure these rows; one result for each, in their order. What the library does not support says so."""
    results = [Result(case) for case in cases]
    with temporary() as folder:
        lab = Lab(folder)
        steps = _prepare(lab, results, effort, progress)
        # A collection in the middle would be paid by whichever row is under way.
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            _measure(steps, effort, progress)
        finally:
            if was_enabled:
                gc.enable()
    return results


_PREPARING = 0.15
"""The share of the whole that the bar gives to making keys and trying every row once."""


def _prepare(
    lab: Lab, results: Sequence[Result], effort: Effort, progress: Progress
) -> list[tuple[Result, Callable[[], None]]]:
    """What measures each row once; finds out what is unsupported, and how often a row fits into its slice."""
    steps = []
    for number, result in enumerate(results):
        progress(_PREPARING * number / len(results), f"trying {result.case.name}")
        try:
            if isinstance(result.case, Bulk):
                steps.append((result, _bulk_step(lab, result, result.case, effort)))
            else:
                steps.append((result, _handshake_step(lab, result, result.case, effort)))
        except UnsupportedError as exc:
            result.unsupported = str(exc)
    return steps


def _measure(steps: list[tuple[Result, Callable[[], None]]], effort: Effort, progress: Progress) -> None:
    order = list(steps)
    shuffle = random.Random(0).shuffle  # noqa: S311 - an order, not a secret
    begun = time.monotonic()
    rounds = 0
    while order and rounds < MAX_ROUNDS:
        passed_s = time.monotonic() - begun
        if rounds >= MIN_ROUNDS and passed_s * (rounds + 1) / rounds > effort.measuring_s:
            break
        shuffle(order)
        for number, (result, step) in enumerate(order):
            # Neither the time nor the least number of rounds is up before both are.
            share = min(
                (time.monotonic() - begun) / max(effort.measuring_s, 1e-9), (rounds + number / len(order)) / MIN_ROUNDS
            )
            progress(_PREPARING + (1 - _PREPARING) * min(share, 1.0), f"round {rounds + 1}: {result.case.name}")
            step()
        rounds += 1


def _handshake_step(lab: Lab, result: Result, case: Handshake, effort: Effort) -> Callable[[], None]:
    shake = lab.shaker(case)
    first = shake()
    result.server_bytes, result.client_bytes = first.server_bytes, first.client_bytes
    count = max(1, round(effort.slice_s / (first.server_s + first.client_s)))
    server, client = result.samples["server"], result.samples["client"] = [], []

    def step() -> None:
        shaken: list[Shaken] = [shake() for _ in range(count)]
        server.append(sum(each.server_s for each in shaken) / count)
        client.append(sum(each.client_s for each in shaken) / count)

    return step


def _bulk_step(lab: Lab, result: Result, case: Bulk, effort: Effort) -> Callable[[], None]:
    works = {"encrypt": lab.encrypter(case), "decrypt": lab.decrypter(case)}
    amounts: dict[str, int] = {}
    for what, work in works.items():
        work(1)  # buffers grow to their size
        spent_s, size = work(256 * 1024)
        amounts[what] = max(256 * 1024, round(size * effort.slice_s / 2 / spent_s))
        result.samples[what] = []

    def step() -> None:
        for what, work in works.items():
            spent_s, size = work(amounts[what])
            result.samples[what].append(spent_s * GIB / size)

    return step
