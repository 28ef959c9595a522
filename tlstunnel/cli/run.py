"""`tlstunnel run`, `check` and `show`: what is done with a configuration file."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(add_completion=False)

_CONFIG = typer.Argument(metavar="CONFIG", help="The configuration file (TOML).", show_default=False)


@app.command()
def run(config: Path = _CONFIG) -> None:
    """Run the services of a configuration file."""
    from tlstunnel.config.load import load_file
    from tlstunnel.supervisor.launch import launch

    launch(load_file(config))


@app.command()
def check(config: Path = _CONFIG) -> None:
    """Check a configuration file and everything it names, and report every problem.

    Exit code 0: nothing is wrong (warnings may be printed). 1: the text is right, but files it names are missing or
    unreadable here. 2: the configuration is wrong.
    """
    from datetime import UTC, datetime

    from tlstunnel.config.load import examine
    from tlstunnel.config.source import FilesError, FileSource
    from tlstunnel.errors import ConfigError, Problem
    from tlstunnel.tls.inspection import inspect
    from tlstunnel.tls.passphrase import PassphraseSource

    sound, error = examine(config)
    inspection = inspect(sound, PassphraseSource.of_this_process(), now=datetime.now(UTC))
    for warning in inspection.warnings:
        print(f"warning: {warning}")
    source = FileSource(str(config), config.parent)
    problems = [Problem(source.where(finding.steps), finding.what) for finding in inspection.problems]
    if error is not None or problems:
        is_machine = error is None or isinstance(error, FilesError)
        is_machine = is_machine and all(finding.is_machine for finding in inspection.problems)
        raise (FilesError if is_machine else ConfigError)((*(error.problems if error else ()), *problems))
    print("configuration OK")


@app.command()
def show(config: Path = _CONFIG) -> None:
    """Print the effective configuration: defaults filled in, paths absolute, no secrets. It can be run again."""
    from tlstunnel.config.effective import render_config
    from tlstunnel.config.load import load_file
    from tlstunnel.tls.context import DEFAULT_CIPHERS, DEFAULT_GROUPS, DEFAULT_SUITES

    defaults = {"ciphers": DEFAULT_CIPHERS, "ciphersuites": DEFAULT_SUITES, "groups": DEFAULT_GROUPS}
    print(render_config(load_file(config), defaults), end="")
