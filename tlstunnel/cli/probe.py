"""`tlstunnel probe HOST:PORT`: what a server offers, what is weak about it, and what to do."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tlstunnel.cli.hosts import host_name
from tlstunnel.errors import UsageError

if TYPE_CHECKING:
    from tlstunnel.address import Target

app = typer.Typer(add_completion=False)
WEAK = 4
"""The exit code of `--fail-on`: the probe worked, and what it found is not good enough."""


class FailOn(str, Enum):  # noqa: UP042 - typer wants the members to be strings
    """Severities as they are written."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Protocol(str, Enum):  # noqa: UP042 - typer wants the members to be strings
    """Protocols that go on to TLS when asked."""

    SMTP = "smtp"
    LMTP = "lmtp"
    IMAP = "imap"
    POP3 = "pop3"
    SIEVE = "sieve"
    NNTP = "nntp"
    POSTGRES = "postgres"
    LDAP = "ldap"
    MYSQL = "mysql"


@app.command()
def probe(
    address: str = typer.Argument(metavar="HOST:PORT", help="The server.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="One JSON object with everything."),
    fail_on: FailOn | None = typer.Option(
        None, "--fail-on", help="Exit with 4 if a weakness is at least this severe.", show_default=False
    ),
    starttls: Protocol | None = typer.Option(None, "--starttls", help="Ask for TLS first.", show_default=False),
    server_name: str | None = typer.Option(
        None, "--server-name", metavar="NAME", help="Ask for this name (default: HOST)."
    ),
    name: str | None = typer.Option(None, "--name", metavar="NAME", help="What its certificate must be for, instead."),
    alpn: list[str] = typer.Option([], "--alpn", metavar="NAMES", help="Application protocols that every hello names."),
    ca: Path | None = typer.Option(None, "--ca", metavar="PEM|DIR", help="CAs to trust, not the system's."),
    connect_timeout: str = typer.Option(
        "5s", "--connect-timeout", metavar="DURATION", help="For the name and for each connection."
    ),
    handshake_timeout: str = typer.Option(
        "10s", "--handshake-timeout", metavar="DURATION", help="For each conversation."
    ),
    max_time: str = typer.Option("5m", "--max-time", metavar="DURATION", help="For the whole probe."),
    connections: int = typer.Option(4, "--connections", min=1, max=16, help="How many at a time."),
) -> None:
    """Find out what a TLS server offers, what is weak about it, and what to do.

    Versions, cipher suites in its order, groups, ALPN, resumption, client certificates, stapling, its chain. It takes
    some dozens of short connections. The service behind TLS sees one HEAD request, if HTTP/1.1 was agreed on.
    """
    from tlstunnel.cli import probe_view
    from tlstunnel.tools.probe.findings import Severity
    from tlstunnel.tools.probe.route import Limits
    from tlstunnel.tools.probe.survey import Request
    from tlstunnel.tools.probe.survey import probe as run

    limits = Limits(
        connect_s=_duration("--connect-timeout", connect_timeout),
        answer_s=_duration("--handshake-timeout", handshake_timeout),
        total_s=_duration("--max-time", max_time),
    )
    request = Request(
        target=_target(address), server_name=host_name("--server-name", server_name), name=name, alpn=_protocols(alpn),
        starttls=starttls.value if starttls else None, ca=ca, limits=limits, parallel=connections,
    )  # fmt: skip
    with _progress() as progress:
        found = run(request, progress)
    if as_json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        probe_view.show(found)
    worst = found.worst()
    if fail_on is not None and worst is not None and worst >= Severity[fail_on.name]:
        raise typer.Exit(WEAK)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """A line on stderr that says what is being asked, if somebody looks at it."""
    if not sys.stderr.isatty():
        yield lambda _what, _count: None
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("probing") as status:
        yield lambda what, count: status.update(f"probing: {what} ({count} connections)")


def _target(text: str) -> Target:
    from tlstunnel.address import AddressError, parse_target

    try:
        return parse_target(text, Path.cwd())
    except AddressError as exc:
        raise UsageError("HOST:PORT", str(exc)) from exc


def _protocols(texts: list[str]) -> tuple[str, ...]:
    found = tuple(name for text in texts for name in text.split(","))
    for name in found:
        if not name.isascii() or not 0 < len(name) < 256:
            raise UsageError("--alpn", f'"{name}" is no protocol name; write names such as "h2,http/1.1"')
    return found


def _duration(option: str, text: str) -> float:
    from tlstunnel.config.units import UnitError, parse_duration

    try:
        seconds = parse_duration(text)
    except UnitError as exc:
        raise UsageError(option, str(exc)) from exc
    if seconds == math.inf:
        raise UsageError(option, '"never" would let a silent server keep us; write a duration such as "10s"')
    return seconds
