"""`tlstunnel files`: the examples, rules, dashboard and units that come with an installation."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import typer

import tlstunnel
from tlstunnel.errors import StartupError, UsageError

app = typer.Typer(add_completion=False)
_FOLDERS = ("conf", "systemd")
_PAPERS = ("CHANGELOG.md", "LICENSE")
_MARK = "conf/tlstunnel.toml"
"""A file that every installation has."""


@app.command()
def files(
    name: str = typer.Argument(None, metavar="[NAME]", help="Print this file; without it, list them all."),
    path: bool = typer.Option(False, "--path", help="Print where it is, not what is in it."),
) -> None:
    """Examples, Prometheus rules, a Grafana dashboard, units: what comes with the program.

    To start from one of them:

        tlstunnel files conf/examples/mutual-tls.toml > tunnel.toml
    """
    root = installed()
    names = [str(each.relative_to(root)) for each in _found(root)]
    if name is None:
        print("\n".join(str(root / each) if path else each for each in names))
        return
    if name not in names:
        raise UsageError("NAME", f'"{name}" is none of them; `tlstunnel files` lists them')
    if path:
        print(root / name)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write((root / name).read_bytes())


def installed() -> Path:
    """The folder of this installation in which they are: `share/tlstunnel` of an environment, or a clone.

    Raises:
        StartupError: the installation has none.
    """
    recorded = (str(file.locate()) for file in importlib.metadata.files("tlstunnel") or () if file.match(f"*/{_MARK}"))
    for folder in (
        Path(sys.prefix, "share", "tlstunnel"),
        *(Path(path).resolve().parents[1] for path in recorded),  # below a prefix that pip was told
        Path(tlstunnel.__file__).parents[1],
    ):
        if (folder / _MARK).is_file():
            return folder
    raise StartupError("this installation came without them; install the wheel or the package of tlstunnel again")


def _found(root: Path) -> list[Path]:
    below = [each for folder in _FOLDERS for each in (root / folder).rglob("*") if each.is_file()]
    return sorted([*below, *(root / each for each in _PAPERS if (root / each).is_file())])
