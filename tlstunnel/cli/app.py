"""The `tlstunnel` command: which command lives where, and how an error becomes one line and an exit code.

Commands are imported when they are called, not before: `--help` and `--version` cost little more than importing
typer. So the table below, not the commands' modules, says what `tlstunnel --help` lists.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from tlstunnel._version import VERSION
from tlstunnel.cli import signals
from tlstunnel.cli.usage import UsageErrors, explain, is_request_for_help
from tlstunnel.errors import TunnelError, words_of


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Where a command lives: a module of `tlstunnel.cli` that holds a `typer.Typer` named `app`."""

    module: str
    summary: str
    panel: str


_TUNNEL, _CERTIFICATES, _LOOK = "Tunnel", "Certificates and handshakes", "Look and measure"

COMMANDS = {
    "server": CommandEntry("tunnel", "Accept TLS, forward plaintext to a service.", _TUNNEL),
    "client": CommandEntry("tunnel", "Accept plaintext, forward it over TLS.", _TUNNEL),
    "run": CommandEntry("run", "Run the services of a configuration file.", _TUNNEL),
    "check": CommandEntry("run", "Check a configuration file and report every problem.", _TUNNEL),
    "show": CommandEntry("run", "Print the effective configuration, without secrets.", _TUNNEL),
    "demo": CommandEntry("demo", "A CA, certificates, a service and a tunnel, running.", _TUNNEL),
    "systemd": CommandEntry("systemd", "Write systemd units for this installation.", _TUNNEL),
    "files": CommandEntry("files", "Examples, rules, dashboard and units, to start from.", _TUNNEL),
    "cert": CommandEntry("cert", "Make a CA, issue, sign, inspect and revoke certificates.", _CERTIFICATES),
    "connect": CommandEntry("connect", "A TLS client on standard input and output.", _CERTIFICATES),
    "echo": CommandEntry("echo", "A TLS service that sends back what it receives.", _CERTIFICATES),
    "probe": CommandEntry("probe", "What a TLS server supports, and its weaknesses.", _CERTIFICATES),
    "explain": CommandEntry("explain", "A TLS 1.3 handshake, message by message.", _CERTIFICATES),
    "status": CommandEntry("status", "The state of a running tunnel.", _LOOK),
    "top": CommandEntry("top", "A live view of a running tunnel.", _LOOK),
    "bench": CommandEntry("bench", "Benchmark cipher suites, keys, groups and the relay here.", _LOOK),
}


def _is_installed(entry: CommandEntry) -> bool:
    return os.path.exists(os.path.join(os.path.dirname(__file__), entry.module + ".py")) or os.path.isdir(
        os.path.join(os.path.dirname(__file__), entry.module)
    )


class LazyGroup(TyperGroup):
    """A command group that imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, entry in COMMANDS.items() if _is_installed(entry)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None or not _is_installed(entry):
            return None
        if ctx.resilient_parsing or _lists_commands_only():
            return _placeholder(cmd_name, entry)
        return _load(cmd_name, entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that was written: the real one, so that its options can be completed too."""
        entry = COMMANDS.get(args[0])
        if entry is None or not _is_installed(entry):
            return super().resolve_command(ctx, args)
        return args[0], _load(args[0], entry), args[1:]


def _load(name: str, entry: CommandEntry) -> Any:
    module = importlib.import_module(f"tlstunnel.cli.{entry.module}")
    if name not in signals.DAEMONS:
        signals.release()
    command = typer.main.get_command(module.app)
    inner = getattr(command, "commands", {}).get(name)
    found = inner if inner is not None else command
    for each in (found, *getattr(found, "commands", {}).values()):
        each.help = _filled(each.help or "")
    return found


def _filled(text: str) -> str:
    """A docstring as help: each paragraph one line, which the help breaks where the terminal ends."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else " ".join(each.split()) for each in paragraphs)


def _lists_commands_only() -> bool:
    return len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h")


def _placeholder(name: str, entry: CommandEntry) -> Any:
    """What `--help` and completion need of a command: its name, its summary, its panel."""
    app = typer.Typer(add_completion=False)
    app.command(name, help=entry.summary, rich_help_panel=entry.panel)(lambda: None)
    return typer.main.get_command(app)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # which commands below take over
)


def _print_version(value: bool) -> None:
    if value:
        print(f"tlstunnel {VERSION}")
        raise typer.Exit


@app.callback()
def tlstunnel(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print it."),
) -> None:
    """Modern TLS in front of any TCP service, or behind any TCP client."""


def _leave_without_reader() -> NoReturn:
    """Whoever read our output went away (`tlstunnel show | head`): its business, not an error of ours."""
    _give_up(1)
    sys.exit(0)


def _give_up(stream: int) -> None:
    """Nothing more can be written there, and the interpreter shall not try at its end what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


_NOBODY_ELSE_WRITES = 0o022  # of what a command makes without saying whom it is for, whatever umask it was given
_OF_OUTPUT = (errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _refuse_output(error: OSError) -> NoReturn:
    """Standard output takes nothing: a full disk, a descriptor that is open for reading only."""
    _give_up(1)
    _say(f"tlstunnel: standard output: {words_of(error)}; redirect it elsewhere")
    sys.exit(1)


def _say(text: str) -> None:
    """A line on standard error, for whoever can read it: the exit code says the rest."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _give_up(2)


def main() -> None:
    """Run the command line. Every `TunnelError`, and what typer cannot read, becomes a line on stderr and an exit code.

    Without a command it prints the help and exits with 2: a script that lost its arguments must not look successful.
    A signal that ends it does so with 128 and its number (130 for Ctrl-C), as shells say it, and without a word:
    whoever pressed the key knows.
    """
    os.umask(os.umask(_NOBODY_ELSE_WRITES) | _NOBODY_ELSE_WRITES)
    try:
        status = app(standalone_mode=False, prog_name="tlstunnel")
        sys.stdout.flush()
    except UsageErrors as exc:
        if not is_request_for_help(exc):
            _say(explain(exc, sys.argv))
        sys.exit(2)
    except TunnelError as exc:
        if signals.has_ended():
            sys.exit(signals.status())
        for line in str(exc).splitlines():
            _say(f"tlstunnel: {line}")
        sys.exit(exc.exit_code)
    except (ImportError, AttributeError) as exc:
        from tlstunnel.cli import misfit

        cause = misfit.explain(exc)
        if cause is None:
            raise
        print(f"tlstunnel: {cause}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        _leave_without_reader()
    except OSError as exc:
        if exc.filename is not None or exc.errno not in _OF_OUTPUT:
            raise
        _refuse_output(exc)
    except SystemExit as exc:
        if isinstance(exc.__context__, BrokenPipeError):  # typer and rich have seen it, and would end with 1
            _leave_without_reader()
        raise
    except KeyboardInterrupt:
        sys.exit(signals.status())
    except typer.Abort as exc:  # the input ended where a question was asked
        if isinstance(exc.__cause__, KeyboardInterrupt):
            sys.exit(signals.status())
        _say("tlstunnel: no answer on standard input; give it as an option")
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
