"""`python -m benchmarks.peers`: the comparison with one command. See `benchmarks.peers` for how it measures."""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers import debian13, profile, report
from benchmarks.peers.compare import Options, RowResult, run_row, stage
from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.programs import Peer, known, tlstunnel
from benchmarks.peers.workloads import ROWS

_SUITES = {"256": "TLS_AES_256_GCM_SHA384", "128": "TLS_AES_128_GCM_SHA256", "chacha": "TLS_CHACHA20_POLY1305_SHA256"}


def _parser() -> argparse.ArgumentParser:
    rows = ", ".join(row.name for row in ROWS)
    names = ", ".join(known(Path()))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, help="rounds of every row (default 9; 3 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the size, 3 rounds, 5 seconds of idling")
    parser.add_argument("--scale", type=float, help="size of every workload against a full run (default 1)")
    parser.add_argument("--only", metavar="ROW,ROW", help=f"rows to measure: {rows}")
    parser.add_argument("--peers", metavar="NAME,NAME", help=f"peers to compare with (default all): {names}")
    parser.add_argument(
        "--subject",
        default="ours",
        metavar="NAME",
        help="who is compared with the others (default ours); a peer's name compares that one, "
        "and naming it in --peers as well compares it with itself, which shows the noise",
    )
    parser.add_argument(
        "--ours",
        default="",
        metavar="CMD",
        help="how ours is called (default this Python's tlstunnel); after a ` -- `, more options of `tlstunnel server`",
    )
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=CMD",
        help="another tlstunnel as a peer, such as another checkout; CMD as for --ours; repeatable",
    )
    parser.add_argument("--suite", default="256", choices=sorted(_SUITES), help="TLS 1.3 suite (default 256)")
    parser.add_argument(
        "--group", default="X25519", help="key exchange (default X25519; X25519MLKEM768 leaves Debian 12's peers out)"
    )
    parser.add_argument("--idle-seconds", type=float, help="how long the row idle-bulk waits (default 60)")
    parser.add_argument("--no-pin", action="store_true", help="do not pin proxies and load to CPUs of their own")
    parser.add_argument(
        "--trixie",
        type=Path,
        metavar="DIR",
        default=debian13.default_root(),
        help="the chroot of the Debian 13 peers, made when missing (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured")
    parser.add_argument("--profile", metavar="ROW", help="run the subject alone on one row under perf(1) instead")
    return parser  # fmt: skip


def _choose(arguments: argparse.Namespace) -> tuple[dict[str, Peer], dict[str, str]]:
    """The proxies that run here with their versions, the subject first; says on stderr which do not."""
    peers = known(arguments.trixie)
    peers["ours"] = tlstunnel("ours", arguments.ours)
    also = []
    for given in arguments.also:
        name, equals, command = given.partition("=")
        if not equals:
            raise BenchmarkError(f'--also: "{given}" has no name; write NAME=CMD')
        peers[name] = tlstunnel(name, command)
        also.append(name)
    names = [word for word in arguments.peers.split(",") if word] if arguments.peers is not None else \
        [name for name in known(Path()) if name != arguments.subject]  # fmt: skip
    chosen: dict[str, Peer] = {}
    versions: dict[str, str] = {}
    for name in [arguments.subject, *also, *names]:
        if name not in peers:
            raise BenchmarkError(f'--peers: "{name}" is unknown; known are {", ".join(peers)}')
        label = name if name not in chosen else f"{name}-again"
        try:
            versions[label] = peers[name].version()
            chosen[label] = peers[name]
        except BenchmarkError as exc:
            if name == arguments.subject:
                raise
            print(f"left out: {exc}", file=sys.stderr)
    return chosen, versions


def _options(arguments: argparse.Namespace) -> Options:
    quick = arguments.quick
    return Options(
        rounds=arguments.rounds or (3 if quick else 9),
        scale=arguments.scale or (0.2 if quick else 1.0),
        suite=_SUITES[arguments.suite],
        group=arguments.group,
        idle_seconds=arguments.idle_seconds if arguments.idle_seconds is not None else (5.0 if quick else 60.0),
        pin=not arguments.no_pin,
        root=arguments.trixie,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison; 0 when it ran, whatever it found; 1 when the subject failed, 2 for a wrong option."""
    arguments = _parser().parse_args(argv)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        wanted = arguments.profile or arguments.only
        names = wanted.split(",") if wanted else [row.name for row in ROWS]
        unknown = set(names) - {row.name for row in ROWS}
        if unknown:
            raise BenchmarkError(f"--only: {', '.join(sorted(unknown))} unknown; known are "
                                 + ", ".join(row.name for row in ROWS))  # fmt: skip
        rows = [row for row in ROWS if row.name in names]
        options = _options(arguments)
        peers, versions = _choose(arguments)
        facts = report.machine()
        results: list[RowResult] = []
        with stage(options) as on:
            if arguments.profile:
                profile.profile(rows[0], peers[arguments.subject], on)
                return 0
            for row in rows:
                results.append(run_row(row, peers, on))
            facts |= {"load after": report.machine()["load"], "generator": on.library}
    except BenchmarkError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    found = report.as_json(results, arguments.subject, versions, options, facts)
    print("\n".join(report.as_text(found)))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(arguments.subject in result.failures for result in results))


if __name__ == "__main__":
    sys.exit(main())
