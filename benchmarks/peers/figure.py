"""Draws a report of the comparison: every ratio that has a bar, with its quartiles and the bar.

    python -m benchmarks.peers --json report.json
    python -m benchmarks.peers.figure report.json figure.svg

Needs matplotlib (the extra `plots`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HOLDS, MISSED, BAR = "#1f6f8b", "#e2a44b", "#9b5d73"


def judged(report: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The lines of the figure, in the order of the table: what was compared with whom, and the ratio with its bar."""
    return [
        (f"{row['title']}   / {name}", ratio)
        for row in report["rows"]
        for name, ratio in row["ratios"].items()
        if "bar" in ratio
    ]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Writes the figure. Raises ValueError where nothing was compared with a bar."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "tlstunnel"  # the same report makes the same file
    from matplotlib import pyplot

    lines = judged(report)
    if not lines:
        raise ValueError("nothing in this report was compared with a bar")
    figure, ax = pyplot.subplots(figsize=(10, 1.4 + 0.32 * len(lines)), layout="constrained")
    for at, (_, ratio) in enumerate(lines):
        middle, low, high, bar = ratio["median"], ratio["low"], ratio["high"], ratio["bar"]
        colour = HOLDS if middle <= bar else MISSED
        ax.barh(at, middle, height=0.62, color=colour)
        ax.plot([low, high], [at, at], color="black", linewidth=1.2, solid_capstyle="butt")
        ax.plot([bar, bar], [at - 0.42, at + 0.42], color=BAR, linewidth=2.4)
        ax.annotate(f"{middle:.2f}", (max(high, bar), at), (4, 0), textcoords="offset points", va="center", fontsize=8)
    ax.axvline(1.0, color="grey", linewidth=0.8, linestyle=":")
    ax.set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.set_xlabel(
        f"{report['subject']} / the other: less is cheaper\nthin line: quartiles; upright line: at most; amber: missed"
    )
    options, machine = report["options"], report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    figure.suptitle(
        f"{versions}\n{options['suite']}, {options['group']}; {options['rounds']} rounds; {machine['cpu']}, "
        f"{machine['cpus']} CPUs, Linux {machine['kernel']}, Python {machine['python']}",
        fontsize=8,
        x=0.01,
        ha="left",
    )
    ax.margins(y=0.01)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Draws; 0 when it did, 2 when it could not."""
    words = sys.argv[1:] if argv is None else list(argv)
    if len(words) != 2:
        print("usage: python -m benchmarks.peers.figure REPORT.json FIGURE.svg|.png", file=sys.stderr)
        return 2
    source, target = map(Path, words)
    try:
        draw(json.loads(source.read_text()), target)
    except (OSError, ValueError, KeyError, ImportError) as exc:
        print(f"error: {source}: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
