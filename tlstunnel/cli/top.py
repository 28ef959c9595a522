"""`tlstunnel top`: a live view of a running tunnel in the terminal, from its admin endpoint."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tlstunnel.cli.status import ADMIN_OPTION, CA_OPTION, CERT_OPTION, KEY_OPTION, parse_admin
from tlstunnel.errors import UsageError

if TYPE_CHECKING:
    from tlstunnel.cli.top_view import ViewState
    from tlstunnel.tools.top.client import AdminClient
    from tlstunnel.tools.top.rates import Watch

app = typer.Typer(add_completion=False)

TALKERS = 200
_ESCAPE = "\x1b"


@app.command()
def top(
    admin: str = ADMIN_OPTION,
    interval: float = typer.Option(1.0, "--interval", min=0.2, max=60, metavar="SECONDS", help="Between two looks."),
    count: int = typer.Option(0, "--count", min=0, metavar="N", help="End after so many looks; 0: when told to."),
    ca: Path | None = CA_OPTION,
    cert: Path | None = CERT_OPTION,
    key: Path | None = KEY_OPTION,
) -> None:
    """A live view of a running tunnel: rates, services, top talkers, trouble, certificates.

    Keys: q quits, s sorts, f and / filter, p pauses, ? helps. Where standard output is not a terminal, each look is
    one plain line.
    """
    from tlstunnel.tools.top.client import AdminClient, client_context

    if math.isnan(interval):
        raise UsageError("--interval", "this is no number; write seconds, from 0.2 to 60")
    client = AdminClient(parse_admin(admin), client_context(ca, cert, key))
    try:
        with contextlib.suppress(KeyboardInterrupt):
            if sys.stdout.isatty() and sys.stdin.isatty():
                _run_screen(client, interval, count)
            else:
                _run_lines(client, interval, count)
    finally:
        client.close()


def _look(client: AdminClient, watch: Watch) -> dict[str, Any]:
    from tlstunnel.tools.top.client import cleaned, understood

    status: dict[str, Any] = cleaned(client.document("/status"))
    listing = cleaned(client.document(f"/connections?sort=bytes&limit={TALKERS}"))
    with understood(client):
        watch.look(status, listing["connections"], time.monotonic())
    return status


def _run_lines(client: AdminClient, interval: float, count: int) -> None:
    from tlstunnel.cli.top_view import plain_line
    from tlstunnel.tools.top.client import understood
    from tlstunnel.tools.top.rates import Watch

    watch = Watch()
    _look(client, watch)  # Rates need two looks.
    number = 0
    while not count or number < count:
        time.sleep(interval)
        status = _look(client, watch)
        with understood(client):
            line = plain_line(status, watch, time.strftime("%H:%M:%S"))
        print(line, flush=True)
        number += 1


def _run_screen(client: AdminClient, interval: float, count: int) -> None:
    from rich.console import Console
    from rich.live import Live

    from tlstunnel.cli.top_view import ViewState, screen
    from tlstunnel.errors import StartupError
    from tlstunnel.tools.top.rates import Watch

    console = Console(highlight=False)
    watch, view = Watch(), ViewState()
    status = _look(client, watch)
    note, looks, due = "", 0, time.monotonic() + interval
    with _keys_at_once(sys.stdin.fileno()), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(
                screen(
                    status,
                    watch,
                    view,
                    width=console.width,
                    height=console.height,
                    address=str(client.address),
                    note=note,
                ),
                refresh=True,
            )
            if select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
                typed = os.read(sys.stdin.fileno(), 256).decode("utf-8", "ignore")
                if not typed or not obey(typed, view, sorted(watch.services)):
                    return
                continue
            due = time.monotonic() + interval
            if not view.is_paused:
                try:
                    status, note = _look(client, watch), ""
                except StartupError as exc:
                    # A tunnel that is restarted comes back; until then the screen says why it stands still.
                    note = f"no answer, asking again: {(getattr(exc.__cause__, 'strerror', None) or '').lower() or exc}"
            looks += 1
            if count and looks >= count:
                return


def obey(typed: str, view: ViewState, services: list[str]) -> bool:
    """Apply keys to the view. Returns whether to go on.

    Args:
        typed: what the terminal sent at once: a key, or an escape sequence of a special key, which is ignored.
        view: changed in place.
        services: the names that `f` goes through.
    """
    if typed.startswith(_ESCAPE) and len(typed) > 1:
        return True
    for key in typed:
        if view.is_typing:
            _type(key, view)
        elif key in ("q", "\x03", "\x04"):
            return False
        else:
            _press(key, view, services)
    return True


def _type(key: str, view: ViewState) -> None:
    if key in ("\r", "\n"):
        view.is_typing = False
    elif key == _ESCAPE:
        view.is_typing, view.text = False, ""
    elif key in ("\x7f", "\b"):
        view.text = view.text[:-1]
    elif key.isprintable():
        view.text += key


def _press(key: str, view: ViewState, services: list[str]) -> None:
    from tlstunnel.cli.top_view import SORTS

    if key == "s":
        view.sort = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]
    elif key == "f":
        choices: list[str | None] = [None, *services]
        place = choices.index(view.service) if view.service in choices else 0
        view.service = choices[(place + 1) % len(choices)]
    elif key == "/":
        view.is_typing = True
    elif key in ("p", " "):
        view.is_paused = not view.is_paused
    elif key == "?":
        view.shows_help = not view.shows_help
    elif key == _ESCAPE:
        view.shows_help, view.text, view.service = False, "", None


@contextlib.contextmanager
def _keys_at_once(fd: int) -> Iterator[None]:
    """The terminal gives keys as they are pressed, and is put back as it was."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
