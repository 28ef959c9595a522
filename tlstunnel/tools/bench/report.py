"""The results of `bench ciphers` as a table of 80 columns for people, and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tlstunnel.tools.bench.advice import Advice
from tlstunnel.tools.bench.cases import BASE_GROUP, BASE_KEY, BASE_SUITE, BULK_SIZES, Bulk, Handshake, Suite, suite_12
from tlstunnel.tools.bench.ciphers import Result
from tlstunnel.tools.bench.machine import Machine
from tlstunnel.tools.bench.stats import Spread, is_tied

WIDTH = 80
_TITLES = {
    "suite": f"Handshakes by suite ({BASE_GROUP.name}; {BASE_KEY.name}, or RSA 2048 where the name says RSA)",
    "key": f"Full handshakes by type of key ({BASE_SUITE.name}, {BASE_GROUP.name})",
    "group": f"Handshakes by key-exchange group ({BASE_SUITE.name}, {BASE_KEY.name})",
}


# For programs.


def as_json(
    results: Sequence[Result], advice: Sequence[Advice], machine: Machine, *, quick: bool, words: str
) -> dict[str, Any]:
    """Everything, in the schema of docs/reference/bench.md."""
    return {
        "benchmark": "ciphers",
        "schema": 1,
        "machine": machine,
        "quick": quick,
        "filter": words,
        "handshakes": [_handshake_json(each, each.case) for each in results if isinstance(each.case, Handshake)],
        "bulk": [_bulk_json(each, each.case) for each in results if isinstance(each.case, Bulk)],
        "recommendation": [{"what": each.what, "choice": each.choice, "reason": each.reason} for each in advice],
    }


def _handshake_json(result: Result, case: Handshake) -> dict[str, Any]:
    found: dict[str, Any] = {
        "axis": case.axis, "version": case.version, "suite": case.suite.name, "key": case.key.name,
        "group": case.group.name, "resumed": case.is_resumed, "supported": not result.unsupported,
    }  # fmt: skip
    if result.unsupported:
        return found | {"reason": result.unsupported}
    server = result.spread("server")
    return found | {
        "server_us": spread_json(server, 1e6),
        "client_us": spread_json(result.spread("client"), 1e6),
        "per_second": spread_json(server.inverse()),
        "server_bytes": result.server_bytes,
        "client_bytes": result.client_bytes,
    }


def _bulk_json(result: Result, case: Bulk) -> dict[str, Any]:
    found: dict[str, Any] = {
        "version": case.suite.version, "suite": case.suite.name, "aead": case.suite.aead, "size": case.size,
        "supported": not result.unsupported,
    }  # fmt: skip
    if result.unsupported:
        return found | {"reason": result.unsupported}
    return found | {
        "encrypt_gib_per_s": spread_json(result.spread("encrypt").inverse()),
        "decrypt_gib_per_s": spread_json(result.spread("decrypt").inverse()),
    }


def spread_json(measured: Spread, unit: float = 1.0) -> dict[str, float]:
    """A median between its quartiles."""
    return {
        "median": round(measured.median * unit, 6),
        "low": round(measured.low * unit, 6),
        "high": round(measured.high * unit, 6),
        "rounds": measured.rounds,
    }


# For people.


def as_text(results: Sequence[Result], advice: Sequence[Advice], machine: Machine) -> Iterator[str]:
    """The lines of the report."""
    yield from machine_lines(machine)
    yield ""
    yield from textwrap.wrap(
        "CPU time of one core, both ends in memory; the median of the rounds. ± is half the distance of the quartiles, "
        "the larger one of the line. A = stands where the rounds do not tell a line from the cheaper one above it.",
        WIDTH,
    )
    for axis, title in _TITLES.items():
        rows = on_axis(results, axis)
        if rows:
            yield from ("", title)
            yield from _handshake_table(rows, axis)
    rows = [row for row in results if isinstance(row.case, Bulk)]
    if rows:
        yield from ("", "Data: GiB for each second of CPU time, by bytes of a write")
        yield from _bulk_table(rows)
    if advice:
        yield from ("", "Recommendation")
        for each in advice:
            yield from _advice_lines(each)


def on_axis(results: Sequence[Result], axis: str) -> list[Result]:
    """The rows of an axis, and those of others that lie on it as well: each is measured once. None for those alone."""
    fixed = {"key": BASE_KEY, "group": BASE_GROUP}
    fixed.pop(axis, None)
    rows = [row for row in results if isinstance(row.case, Handshake)]
    own = [row for row in rows if row.case.axis == axis]  # type: ignore[union-attr]
    if axis == "suite" or not own:
        return own
    kinds = {(row.case.version, row.case.is_resumed) for row in own}  # type: ignore[union-attr]
    return [
        row
        for row in rows
        if isinstance(row.case, Handshake)
        and (row.case.version, row.case.is_resumed) in kinds
        and row.case.suite in (BASE_SUITE, suite_12(row.case.key))
        and all(getattr(row.case, name) == value for name, value in fixed.items())
    ]


def machine_lines(machine: Machine) -> Iterator[str]:
    """What it was measured on."""
    special = ", ".join(machine["instructions"]) or "no special instructions"
    cores = "1 core" if machine["cpus"] == 1 else f"{machine['cpus']} cores"
    yield from textwrap.wrap(f"{machine['cpu']}, {cores} ({special})", WIDTH)
    yield from textwrap.wrap(
        f"{machine['openssl']} in cryptography {machine['cryptography']}, Python {machine['python']}, "
        f"Linux {machine['kernel']}, load {machine['load']:g}",
        WIDTH,
    )
    if machine["load"] > machine["cpus"]:
        yield from textwrap.wrap(
            f"warning: others had more to do than there are cores (load {machine['load']:g} on {cores}), so these "
            "figures are noise to an unknown part; measure again when the machine is quiet",
            WIDTH,
        )


def _advice_lines(advice: Advice) -> Iterator[str]:
    is_key = advice.what in ("groups", "ciphersuites", "min_version")
    head = f'{advice.what} = "{advice.choice}"' if is_key else f"{advice.what}: {advice.choice}"
    yield ""
    # A list of suites is one word to whoever copies it.
    yield from textwrap.wrap(head, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    yield from textwrap.wrap(f"{advice.reason}.", WIDTH, initial_indent="    ", subsequent_indent="    ")


def _handshake_table(rows: Iterable[Result], axis: str) -> Iterator[str]:
    yield f"  {'':<31}{'server':>15}{'client':>8}{'':>7}{'bytes sent by':>15}"
    yield f"  {'':<31}{'per s':>8}{'µs':>7}{'µs':>8}{'±%':>7}{'server':>8}{'client':>7}"
    blocks: dict[tuple[str, bool], list[Result]] = {}
    for row in rows:
        assert isinstance(row.case, Handshake)  # noqa: S101 - the caller chose them
        blocks.setdefault((row.case.version, row.case.is_resumed), []).append(row)
    for (version, is_resumed), block in sorted(blocks.items(), key=lambda item: (item[0][0] == "1.2", item[0][1])):
        yield f"TLS {version}, {'resumed' if is_resumed else 'full'}"
        for row, is_same in ranked(block, ("server",)):
            label = label_of(row, axis)
            if row.unsupported:
                yield f"  {label:<31}not supported: {row.unsupported}"
                continue
            server, client = row.spread("server"), row.spread("client")
            yield (
                f"{'=' if is_same else ' '} {label:<31}{1 / server.median:>8.0f}{server.median * 1e6:>7.0f}"
                f"{client.median * 1e6:>8.0f}{max(server.percent, client.percent):>7.1f}"
                f"{row.server_bytes:>8}{row.client_bytes:>7}"
            )


def label_of(row: Result, axis: str) -> str:
    """What a row of this axis is called."""
    case = row.case
    assert isinstance(case, Handshake)  # noqa: S101
    name: str = getattr(case, axis).name
    return case.group.name_12 if axis == "group" and case.version == "1.2" and case.group.name_12 else name


def _bulk_table(rows: Sequence[Result]) -> Iterator[str]:
    sizes = [f"{size // 1024} KiB" for size in BULK_SIZES]
    yield f"  {'':<31}{sizes[0]:>13}{sizes[1]:>13}{sizes[2]:>13}"
    yield f"  {'':<31}" + f"{'encr':>7}{'decr':>6}" * len(sizes) + f"{'±%':>6}"
    by_suite: dict[Suite, dict[int, Result]] = {}
    for row in rows:
        assert isinstance(row.case, Bulk)  # noqa: S101
        by_suite.setdefault(row.case.suite, {})[row.case.size] = row
    for version in ("1.3", "1.2"):
        block = {suite: found for suite, found in by_suite.items() if suite.version == version}
        if block:
            yield f"TLS {version}"
        # What a line is ranked by: whole records, or whatever was chosen.
        leaders = [found.get(16 * 1024, next(iter(found.values()))) for found in block.values()]
        for leader, is_same in ranked(leaders, ("encrypt", "decrypt")):
            suite = leader.case.suite
            if leader.unsupported:
                yield f"  {suite.name:<31}not supported: {leader.unsupported}"
            else:
                yield f"{'=' if is_same else ' '} {suite.name:<31}{_bulk_cells(block[suite])}"


def _bulk_cells(found: dict[int, Result]) -> str:
    cells, doubt = "", 0.0
    for size in BULK_SIZES:
        for what, width in (("encrypt", 7), ("decrypt", 6)):
            if size not in found:
                cells += f"{'':>{width}}"
                continue
            measured = found[size].spread(what)
            cells += f"{1 / measured.median:>{width}.2f}"
            doubt = max(doubt, measured.percent)
    return f"{cells}{doubt:>6.1f}"


def ranked(rows: Sequence[Result], whats: Sequence[str]) -> Iterator[tuple[Result, bool]]:
    """The cheapest first, each with whether the rounds do not tell it from the one before; what is unsupported last."""
    costs = {
        id(row): [sum(values) for values in zip(*(row.samples[what] for what in whats), strict=True)]
        for row in rows
        if not row.unsupported
    }
    before: list[float] | None = None
    order = sorted((row for row in rows if not row.unsupported), key=lambda row: _median(costs[id(row)]))
    for row in order:
        cost = costs[id(row)]
        yield row, before is not None and is_tied(cost, before)
        before = cost
    for row in rows:
        if row.unsupported:
            yield row, False


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
