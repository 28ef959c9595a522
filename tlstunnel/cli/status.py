"""`tlstunnel status`: what a running tunnel says of itself, and whether all is well as an exit code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import typer

from tlstunnel.errors import UsageError

app = typer.Typer(add_completion=False)

DEFAULT_ADMIN = "127.0.0.1:9464"
ADMIN_OPTION = typer.Option(
    DEFAULT_ADMIN,
    "--admin",
    envvar="TLSTUNNEL_ADMIN",
    metavar="ADDR",
    help="The tunnel's admin endpoint: HOST:PORT or unix:/path.",
)
CA_OPTION = typer.Option(None, "--ca", metavar="PEM", help="The endpoint is served over TLS: the CAs to verify it by.")
CERT_OPTION = typer.Option(None, "--cert", metavar="PEM", help="Our certificate, where the endpoint asks for one.")
KEY_OPTION = typer.Option(None, "--key", metavar="PEM", help="Its key, unless the certificate's file holds it.")
WARN_OPTION = typer.Option(
    None,
    "--warn-days",
    min=0,
    metavar="DAYS",
    help="Certificates that expire sooner are a problem (default: 21 days, or a quarter of the life if less).",
    show_default=False,
)


@app.command()
def status(
    admin: str = ADMIN_OPTION,
    warn_days: float | None = WARN_OPTION,
    as_json: bool = typer.Option(False, "--json", help="Print the endpoint's document instead of tables."),
    ca: Path | None = CA_OPTION,
    cert: Path | None = CERT_OPTION,
    key: Path | None = KEY_OPTION,
) -> None:
    """The state of a running tunnel.

    Exit code 0: it accepts connections, no certificate is about to expire, and what is on disk is in use. 1: one of the
    first two is not so, or nobody answers. 2: the last reload failed.
    """
    from tlstunnel.tools.top.client import AdminClient, cleaned, client_context, understood

    if warn_days is not None and math.isnan(warn_days):
        raise UsageError("--warn-days", "this is no number; write a number of days")

    client = AdminClient(parse_admin(admin), client_context(ca, cert, key))
    document = client.document("/status")
    client.close()
    document = document if as_json else cleaned(document)
    with understood(client):
        problems, stale = problems_of(document, warn_days), stale_configuration(document)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        with understood(client):
            _print_tables(document, [*problems, *stale], warn_days)
    if problems or stale:
        raise typer.Exit(1 if problems else 2)


def parse_admin(text: str) -> Any:
    """The endpoint's address.

    Raises:
        UsageError: it is not an address to connect to.
    """
    from tlstunnel.address import AddressError, parse_target
    from tlstunnel.errors import UsageError

    try:
        return parse_target(text, Path.cwd())
    except AddressError as exc:
        raise UsageError("--admin", str(exc)) from exc


def problems_of(document: dict[str, Any], warn_days: float | None) -> list[str]:
    """Everything that makes the exit code 1, one line each.

    Args:
        warn_days: certificates that expire sooner are a problem; None: those that are due by the length of their life.
    """
    from tlstunnel.observe.words import time_left

    found = []
    if not document["ready"]:
        found.append(f"tlstunnel is {document['phase']} and accepts no connections")
    for each in document["certificates"]:
        if _is_due(document, each, warn_days):
            subject = f"{each['service']}: {each['file']}: {each['role']} of {each['subject']}"
            found.append(f"{subject}: {time_left(document, each)}")
    return found


def stale_configuration(document: dict[str, Any]) -> list[str]:
    """That the last reload failed, which makes the exit code 2 where nothing else is wrong; at most one line."""
    last = document["last_reload"]
    if last is None or last["ok"]:
        return []
    return ["what runs is not what is on disk, since the last reload failed; mend what it says above, and reload again"]


def _is_due(document: dict[str, Any], certificate: dict[str, Any], warn_days: float | None) -> bool:
    from tlstunnel.lifetime import Urgency
    from tlstunnel.observe.words import urgency

    if warn_days is not None:
        return bool(certificate["days_left"] < warn_days)
    return urgency(document, certificate) is not Urgency.NONE


def _print_tables(document: dict[str, Any], problems: list[str], warn_days: float | None) -> None:
    from rich.console import Console
    from rich.text import Text

    from tlstunnel.errors import printable
    from tlstunnel.observe.words import duration

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=140)
    mood = "green" if document["ready"] else "red"
    head = Text.assemble(
        "tlstunnel ",
        document["version"],
        " ",
        (document["phase"], mood),
        f", up {duration(document['uptime_s'])}, from {printable(document['source'])}",
    )
    console.print(head)
    console.print(_services(document))
    if document["certificates"]:
        console.print(_certificates(document, warn_days))
    open_now = ", ".join(f"{each['pid']} ({each['connections']} open{_mood(each)})" for each in document["workers"])
    restarts = document["worker_restarts"]
    console.print(Text(f"workers: {open_now or 'none'}" + (f"; restarted {restarts} times" if restarts else "")))
    last = document["last_reload"]
    if last is not None:
        result = "succeeded" if last["ok"] else "failed"
        console.print(Text(f"last reload {result} at {last['at']}", "" if last["ok"] else "red"))
        for error in last["errors"]:
            console.print(Text(f"  {printable(error)}"), soft_wrap=True)
    for problem in problems:
        console.print(Text(f"problem: {printable(problem)}", "bold red"), soft_wrap=True)


def _mood(worker: dict[str, Any]) -> str:
    # A daemon that was started before an upgrade does not say whether its workers answer.
    if not worker.get("answers", True):
        return ", does not answer"
    return ", draining" if worker["draining"] else ""


def _services(document: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tlstunnel.observe.words import amount

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("service\nmode", "listens on", "target"):
        table.add_column(name, overflow="fold")
    for name in ("open\nlimit", "handshakes\nfailed", "forward\nreverse"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in document["services"]:
        targets = Text("\n").join(
            Text(target["address"], "red" if target["resting_workers"] else "") for target in each["targets"]
        )
        limit = each["connections"]["limit"]
        table.add_row(
            Text(f"{each['name']}\n{each['mode']}"),
            Text("\n".join(each["listeners"])),
            targets,
            f"{each['connections']['active']:,}\n" + (f"{limit:,}" if limit else "none"),
            Text.assemble(
                f"{each['handshakes']['succeeded']:,}\n",
                (f"{each['handshakes']['failed']:,}", "yellow" if each["handshakes"]["failed"] else ""),
            ),
            f"{amount(each['bytes']['forward'])}\n{amount(each['bytes']['reverse'])}",
        )
    return table


def _certificates(document: dict[str, Any], warn_days: float | None) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tlstunnel.errors import printable
    from tlstunnel.observe.words import days_cell

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("service", "role", "subject", "file"):
        table.add_column(name, overflow="fold")
    table.add_column("days left", justify="right")
    for each in sorted(document["certificates"], key=lambda each: str(each["not_after"])):
        mood = "red" if each["days_left"] < 0 else "yellow" if _is_due(document, each, warn_days) else ""
        table.add_row(
            Text(each["service"]),
            each["role"],
            Text(printable(each["subject"])),
            Text(printable(each["file"])),
            Text(days_cell(document, each), mood),
        )
    return table
