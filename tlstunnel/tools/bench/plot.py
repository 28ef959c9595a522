"""The results as a figure. Needs matplotlib, which comes with the extra `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlstunnel.errors import StartupError, UsageError, words_of
from tlstunnel.tools.bench.cases import Bulk, Handshake
from tlstunnel.tools.bench.ciphers import Result
from tlstunnel.tools.bench.machine import Machine
from tlstunnel.tools.bench.report import label_of, on_axis, ranked

ENDINGS = (".png", ".svg")
SERVER, CLIENT, WIRE = "#1f6f8b", "#e2a44b", "#9b5d73"
_DPI = 150


def check(path: Path) -> None:
    """Refuse before all the measuring what could not be drawn after it.

    Raises:
        UsageError: the file's ending names no format.
        StartupError: matplotlib is not installed, or the folder is not there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError("--plot", f'"{path}" ends with no known format; write FILE.png or FILE.svg')
    if not path.absolute().parent.is_dir():
        raise StartupError(f"--plot: {path.absolute().parent} is no folder; make it first")
    load()


def load() -> Any:
    """pyplot, drawing into files only.

    Raises:
        StartupError: it is not installed.
    """
    try:
        import matplotlib  # noqa: PLC0415
    except ImportError:
        raise StartupError(
            '--plot: matplotlib is not installed; install the extra "plots": pip install "tlstunnel[plots]"'
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    return pyplot


def draw(path: Path, results: Sequence[Result], machine: Machine) -> None:
    """Write the figure: what a handshake costs by key and by group, its bytes, and data by suite.

    Raises:
        StartupError: the file cannot be written.
    """
    pyplot = load()
    panels: list[tuple[int, Any]] = []
    for axis, title in (("key", "by type of key"), ("group", "by group")):
        rows = [row for row, _ in ranked(_full(results, axis), ("server",)) if not row.unsupported]
        if rows:
            panels.append((len(rows), lambda ax, rows=rows, axis=axis, title=title: _handshakes(ax, rows, axis, title)))
            panels.append((len(rows), lambda ax, rows=rows, axis=axis: _wire(ax, rows, axis)))
    bulk = [row for row in results if isinstance(row.case, Bulk) and not row.unsupported]
    sizes = [size for size in (1024, 256 * 1024) if any(row.case.size == size for row in bulk)]  # type: ignore[union-attr]
    for size in sizes:
        rows = [row for row, _ in ranked([row for row in bulk if row.case.size == size], ("encrypt", "decrypt"))]  # type: ignore[union-attr]
        panels.append((len(rows), lambda ax, rows=rows, size=size: _data(ax, rows, size)))
    if not panels:
        raise StartupError("--plot: nothing that could be drawn was measured; choose other words for --filter")
    lines = [panels[at : at + 2] for at in range(0, len(panels), 2)]
    heights = [1.6 + 0.3 * max(count for count, _ in line) for line in lines]
    figure, grid = pyplot.subplots(
        len(lines), 2, figsize=(12, sum(heights) + 0.6), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for row, line in zip(grid, lines, strict=True):
        for ax, (_, fill) in zip(row, line, strict=False):
            fill(ax)
        for ax in row[len(line) :]:
            ax.axis("off")
    figure.suptitle(
        f"Full handshakes of TLS 1.3 and data: CPU time of one core. {machine['cpu']}, {machine['openssl']}",
        fontsize=11,
    )
    save(pyplot, figure, path)


def save(pyplot: Any, figure: Any, path: Path) -> None:
    """Write a figure and forget it.

    Raises:
        StartupError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=_DPI)
    except OSError as exc:
        raise StartupError(f"--plot: {path}: cannot be written ({words_of(exc)})") from exc
    finally:
        pyplot.close(figure)


def _full(results: Sequence[Result], axis: str) -> list[Result]:
    """The full handshakes of TLS 1.3 on an axis."""
    return [
        row
        for row in on_axis(results, axis)
        if isinstance(row.case, Handshake) and row.case.version == "1.3" and not row.case.is_resumed
    ]


def _handshakes(ax: Any, rows: Sequence[Result], axis: str, title: str) -> None:
    for what, offset, color in (("server", -0.2, SERVER), ("client", 0.2, CLIENT)):
        measured = [row.spread(what) for row in rows]
        ax.barh(
            [place + offset for place in range(len(rows))],
            [each.median * 1e6 for each in measured],
            height=0.4,
            color=color,
            label=what,
            xerr=[
                [(each.median - each.low) * 1e6 for each in measured],
                [(each.high - each.median) * 1e6 for each in measured],
            ],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
    _finish(ax, rows, axis, f"Handshakes {title}", "µs of CPU time; the line spans the quartiles")


def _wire(ax: Any, rows: Sequence[Result], axis: str) -> None:
    places = range(len(rows))
    sent = [row.server_bytes for row in rows]
    ax.barh(places, sent, height=0.6, color=SERVER, label="server")
    ax.barh(places, [row.client_bytes for row in rows], left=sent, height=0.6, color=CLIENT, label="client")
    _finish(ax, rows, axis, "the same on the wire", "bytes of TLS, session tickets included")


def _data(ax: Any, rows: Sequence[Result], size: int) -> None:
    for what, offset, color in (("encrypt", -0.2, SERVER), ("decrypt", 0.2, WIRE)):
        rates = [row.spread(what).inverse() for row in rows]
        ax.barh(
            [place + offset for place in range(len(rows))],
            [rate.median for rate in rates],
            height=0.4,
            color=color,
            label=what,
            xerr=[[rate.median - rate.low for rate in rates], [rate.high - rate.median for rate in rates]],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
    title = f"Writes of {size // 1024} KiB"
    _finish(ax, rows, "suite", title, "GiB for each second of CPU time")


def _finish(ax: Any, rows: Sequence[Result], axis: str, title: str, unit: str) -> None:
    labels = [row.case.suite.name if isinstance(row.case, Bulk) else label_of(row, axis) for row in rows]
    ax.set_yticks(range(len(rows)), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_xlabel(unit, fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(axis="x", linewidth=0.4, alpha=0.6)
    ax.set_axisbelow(True)
    ax.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
