"""`tlstunnel systemd`: units for the installation that runs it."""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path

import typer

from tlstunnel.cli.systemd_units import (
    CONFIG_DIRECTORY,
    SYSTEM_DIRECTORY,
    Installation,
    system_units,
    user_units,
)
from tlstunnel.errors import StartupError, UsageError, words_of
from tlstunnel.tools.pki import files

app = typer.Typer(no_args_is_help=True, add_completion=False)
_WHERE = "tlstunnel systemd install"
_HOMES = ("/home", "/root", "/run/user")  # what ProtectHome= hides
_PRIVATE = ("/tmp", "/var/tmp")  # noqa: S108  what PrivateTmp= replaces


@app.callback()
def systemd() -> None:
    """Write systemd units for this installation."""


@app.command()
def install(
    user: bool = typer.Option(False, "--user", help="For your own systemd manager instead of the system's."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print the units instead of writing them."),
    directory: Path = typer.Option(None, "--directory", metavar="DIR", help="Write them there instead."),
    force: bool = typer.Option(False, "--force", help="Overwrite units that are there and differ."),
) -> None:
    """Write the units, with the paths of this installation, and say what to do next."""
    installation = running_installation(in_sandbox=not user)
    units = user_units(installation) if user else system_units(installation)
    target = directory or (_user_directory() if user else Path(SYSTEM_DIRECTORY))
    if dry_run:
        print("\n".join(f"# {target / name}\n{text}" for name, text in units.items()), end="")
        return
    try:
        _write(target, units, force=force)
        if directory is None:
            _make_config_directory(target.parent.parent / "tlstunnel") if user else _make_key_directory()
    except OSError as exc:
        reason = words_of(exc)
        raise StartupError(
            f"{exc.filename or target}: {reason}; run this as root, or with --user for your own manager"
        ) from exc
    for line in _next_steps(installation, user=user, target=target):
        print(line, file=sys.stderr)


def running_installation(*, in_sandbox: bool) -> Installation:
    """How systemd can run the tlstunnel that runs now.

    Args:
        in_sandbox: whether the unit gets a file system of its own, in which homes and /tmp are hidden.

    Raises:
        UsageError: it is where a service cannot reach it.
    """
    script = Path(sys.executable).parent / "tlstunnel"
    package = Path(__file__).resolve().parent.parent
    # The script beside the interpreter is what `pip install` makes; without one the module is run.
    command = (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "tlstunnel")
    if not in_sandbox:
        return Installation(command)
    # All the interpreter reads: the environment, the Python it was made from, and the source of an editable install.
    needed = [Path(sys.prefix), Path(sys.base_prefix), package.parent if _is_apart(package) else package]
    advice = "install it for everybody, in a directory such as /opt/tlstunnel"
    for path in needed:
        if _is_below(path, _PRIVATE):
            raise UsageError(_WHERE, f'"{path}" is in a temporary directory, which services do not see; {advice}')
    if package.is_relative_to(site.getusersitepackages()):
        raise UsageError(_WHERE, f'"{package}" is installed for one user only; {advice}, or use --user')
    below_home: list[str] = []
    for path in sorted(path for path in needed if _is_below(path, _HOMES)):
        if not _is_below(path, below_home):
            below_home.append(str(path))
    return Installation(command, tuple(below_home))


def _is_apart(package: Path) -> bool:
    return not any(package.is_relative_to(where) for where in (*site.getsitepackages(), sys.prefix))


def _is_below(path: Path, tops: tuple[str, ...] | list[str]) -> bool:
    return any(path.is_relative_to(top) for top in tops)


def _user_directory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base, "systemd/user")


def _write(target: Path, units: dict[str, str], *, force: bool) -> None:
    for name, text in units.items():
        path = target / name
        if not force and path.exists() and path.read_text() != text:
            raise StartupError(
                f"{path}: exists and differs; --force overwrites it (changes of your own belong into a drop-in: "
                f"systemctl edit {name})"
            )
    files.make_directory(target)
    for name, text in units.items():
        files.write(target / name, text.encode(), secret=False, replace=True)
        print(target / name)


def _make_config_directory(path: Path) -> None:
    """Make the folder of a user's own configuration."""
    if not path.exists():
        files.make_directory(path)
        print(path)


def _make_key_directory() -> None:
    """Make the directory that LoadCredential= names: without it systemd refuses to start, with an odd message."""
    keys = Path(CONFIG_DIRECTORY, "keys")
    if not keys.exists():
        files.make_directory(keys.parent)
        keys.mkdir(mode=0o700)  # which no umask can widen
        print(keys)


def _next_steps(installation: Installation, *, user: bool, target: Path) -> list[str]:
    config = Path(target.parent.parent, "tlstunnel") if user else Path(CONFIG_DIRECTORY)
    control = "systemctl --user" if user else "systemctl"
    keys = "keys by path" if user else f'keys in {config}/keys, as "cred:keys_NAME"'
    steps = [
        f"write {config}/tlstunnel.toml ({keys})",
        f"{installation.words} check {config}/tlstunnel.toml",
        f"{control} daemon-reload && {control} enable --now tlstunnel.service",
    ]
    notes = ["several daemons: one NAME.toml each, and tlstunnel@NAME.service"]
    if user:
        notes.append("to run while you are logged out: loginctl enable-linger")
    else:
        notes.append('sockets opened by systemd: listen = "systemd:https", and enable tlstunnel.socket as well')
    return ["next:", *(f"  {number}. {step}" for number, step in enumerate(steps, 1)), *notes]
