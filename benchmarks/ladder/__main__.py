"""`python -m benchmarks.ladder`: what each layer costs, and each trick. See `benchmarks.ladder` for how it measures."""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ladder import report
from benchmarks.ladder.climb import Found, climb
from benchmarks.ladder.rungs import RUNGS
from benchmarks.peers.compare import Options, stage
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.report import machine
from tlstunnel.tools.bench.session import Lab

_SUITES = {"128": "TLS_AES_128_GCM_SHA256", "256": "TLS_AES_256_GCM_SHA384", "chacha": "TLS_CHACHA20_POLY1305_SHA256"}


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(rung.name for rung in RUNGS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the size, 3 rounds")
    parser.add_argument("--rounds", type=int, help="rounds of every rung (default 9; 3 with --quick)")
    parser.add_argument("--scale", type=float, help="size of every piece of work against a full run (default 1)")
    parser.add_argument("--only", metavar="RUNG,RUNG", help=f"rungs to measure: {names}")
    parser.add_argument("--suite", default="128", choices=sorted(_SUITES), help="TLS 1.3 suite (default 128)")
    parser.add_argument("--no-pin", action="store_true", help="do not pin proxies and load to CPUs of their own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Climbs the ladder; 0 when it ran, 1 when a step failed, 2 for a wrong option."""
    arguments = _parser().parse_args(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    found: list[Found] = []
    try:
        names = arguments.only.split(",") if arguments.only else [rung.name for rung in RUNGS]
        if unknown := sorted(set(names) - {rung.name for rung in RUNGS}):
            known = ", ".join(rung.name for rung in RUNGS)
            raise BenchmarkError(f"--only: {', '.join(unknown)} unknown; known are {known}")
        quick = arguments.quick
        options = Options(
            rounds=arguments.rounds or (3 if quick else 9),
            scale=arguments.scale or (0.2 if quick else 1.0),
            suite=_SUITES[arguments.suite],
            pin=not arguments.no_pin,
        )
        facts = machine()
        with stage(options) as on, tempfile.TemporaryDirectory(prefix="tlstunnel-bench-") as folder:
            lab = Lab(Path(folder))
            gc.disable()  # a collection would be paid by whichever step is under way
            found += [climb(rung, on, lab) for rung in RUNGS if rung.name in names]
            facts |= {"load after": machine()["load"], "generator": on.library}
    except BenchmarkError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    finally:
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    result = report.as_json(found, options, facts)
    print("\n".join(report.as_text(result)))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(each.failures for each in found))


if __name__ == "__main__":
    sys.exit(main())
