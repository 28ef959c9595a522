"""`tlstunnel run`, `check` and `show`: what is done with a configuration file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tlstunnel.errors import StartupError

if TYPE_CHECKING:
    from tlstunnel.config.model import Config, Service

app = typer.Typer(add_completion=False)

_USUAL = "/etc/tlstunnel/tlstunnel.toml"
_CONFIG = typer.Argument(_USUAL, metavar="[CONFIG]", help="The configuration file (TOML).")


def _named(config: Path) -> Path:
    if str(config) == _USUAL and not os.path.lexists(config):
        raise StartupError(f"{config}: does not exist; write it, or name the file, such as tunnel.toml")
    return config


@app.command()
def run(config: Path = _CONFIG) -> None:
    """Run the services of a configuration file."""
    from tlstunnel.config.load import load_file
    from tlstunnel.daemon.processes.launch import launch

    launch(load_file(_named(config)))


@app.command()
def check(config: Path = _CONFIG) -> None:
    """Check a configuration file and everything it names, and report every problem.

    Exit code 0: nothing is wrong (warnings may be printed). 1: the text is right, but this machine lacks what it names:
    files, accounts, file descriptors. 2: the configuration is wrong.
    """
    from datetime import UTC, datetime

    from tlstunnel.config.files import look_away
    from tlstunnel.config.load import examine
    from tlstunnel.config.source import FilesError, FileSource
    from tlstunnel.errors import ConfigError, Problem
    from tlstunnel.tls.inspection import inspect
    from tlstunnel.x509.passphrase import PassphraseSource

    look_away()
    sound, faulty, error = examine(_named(config))
    visible, hidden = _split_by_sight(sound)
    for name in hidden:
        print(f"{name}: systemd shows its credentials to the daemon alone, which reads them when it reloads")
    parts = [part for part in faulty if not _is_out_of_sight(_alone(sound, part))]
    inspection = inspect(visible, PassphraseSource.of_this_process(), now=datetime.now(UTC), parts=parts)
    for warning in inspection.warnings:
        print(f"warning: {warning}")
    source = FileSource(str(config), config.parent)
    problems = [Problem(source.where(finding.steps), finding.what) for finding in inspection.problems]
    machine = [Problem("", line) for line in _what_this_machine_lacks(sound)]
    if error is not None or problems or machine:
        is_machine = error is None or isinstance(error, FilesError)
        is_machine = is_machine and all(finding.is_machine for finding in inspection.problems)
        raise (FilesError if is_machine else ConfigError)((*(error.problems if error else ()), *problems, *machine))
    print("configuration OK")


def _split_by_sight(config: Config) -> tuple[Config, list[str]]:
    """What can be looked into from here, and what cannot because only the daemon may read its credentials."""
    import dataclasses

    from tlstunnel.config.model import Admin

    parts = {"[admin]": dataclasses.replace(config, services=())}
    for service in config.services:
        parts[service.name] = _alone(config, service)
    hidden = [name for name, part in parts.items() if _is_out_of_sight(part)]
    visible = dataclasses.replace(
        config,
        admin=Admin() if "[admin]" in hidden else config.admin,
        services=tuple(service for service in config.services if service.name not in hidden),
    )
    return visible, hidden


def _alone(config: Config, service: Service) -> Config:
    """The configuration with nothing in it but one service."""
    import dataclasses

    from tlstunnel.config.model import Admin

    return dataclasses.replace(config, admin=Admin(), services=(service,))


def _is_out_of_sight(config: Config) -> bool:
    """Whether it names a file that only the daemon may read."""
    from tlstunnel.config.files import is_hidden
    from tlstunnel.daemon.processes.reload_source import watched_files

    return any(map(is_hidden, watched_files(config)))


def _what_this_machine_lacks(config: Config) -> list[str]:
    """Accounts and descriptors that a start would miss, each as a whole line."""
    from tlstunnel.daemon.system import limits, privileges

    lines = []
    try:
        privileges.look_up(config.process.user, config.process.group)
    except StartupError as exc:
        lines.append(f"{config.source}: {exc}")
    listeners = sum(len(service.listen) for service in config.services)
    workers = config.process.workers or limits.usable_cores()
    try:
        limits.descriptor_budget(config, limit=limits.raise_descriptor_limit(), listeners=listeners, workers=workers)
    except StartupError as exc:
        lines += str(exc).splitlines()
    return lines


@app.command()
def show(config: Path = _CONFIG) -> None:
    """Print the effective configuration: defaults filled in, paths absolute, no secrets. It can be run again."""
    from tlstunnel.config.effective import render_config
    from tlstunnel.config.load import load_file
    from tlstunnel.tls.context import DEFAULT_CIPHERS, DEFAULT_GROUPS, DEFAULT_SUITES

    defaults = {"ciphers": DEFAULT_CIPHERS, "ciphersuites": DEFAULT_SUITES, "groups": DEFAULT_GROUPS}
    print(render_config(load_file(_named(config)), defaults), end="")
