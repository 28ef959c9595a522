"""What `tlstunnel top` draws: one screen from what was seen so far. No input, no clock, no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tlstunnel.observe.lines import printable
from tlstunnel.observe.rates import Rates, Talker, Watch, sparkline
from tlstunnel.observe.words import amount, days_cell, duration

SORTS = ("rate", "total", "age")
_FIXED_LINES = 9
"""Lines that are there whatever happens: head, three of sparklines, four titles, keys."""


@dataclass(slots=True)
class Wishes:
    """What the keys have set."""

    sort: str = "rate"
    service: str | None = None
    text: str = ""
    is_typing: bool = False
    is_paused: bool = False
    shows_help: bool = False


HELP = """\
q        quit
s        sort talkers by rate, total or age
f        show one service after the other, then all
/        type a text that client, name or identity must hold
         Enter keeps it, Escape drops it
p space  pause
?        this help
"""


def screen(
    status: dict[str, Any], watch: Watch, wishes: Wishes, *, width: int, height: int, address: str, note: str = ""
) -> Group:
    """The whole screen.

    Args:
        status: the last status document.
        watch: rates and talkers.
        wishes: what the keys have set.
        width: columns of the terminal.
        height: its lines.
        address: the endpoint.
        note: what is wrong with the connection to it; empty if nothing.
    """
    parts: list[Any] = [_head(status, address, note, width), _sparklines(watch, width)]
    if wishes.shows_help:
        parts.append(Text("\n" + HELP))
        return Group(*parts)
    room = max(4, height - _FIXED_LINES)
    services = _services(watch, wishes, room // 3)
    trouble = _trouble(watch, wishes, room // 4)
    certificates = _certificates(status, wishes, max(1, room // 5))
    used = services.row_count + trouble.row_count + certificates.row_count
    parts += [services, _talkers(watch, wishes, max(1, room - used), width), trouble, certificates, _keys(wishes)]
    return Group(*parts)


def plain_line(status: dict[str, Any], watch: Watch, clock: str) -> str:
    """One look as one line, for output that is not a terminal."""
    now = watch.current
    return (
        f"{clock} {status['phase']} open={now.open} new/s={now.new:.1f} handshakes/s={now.handshakes:.1f}"
        f" failed/s={now.failed:.1f} forward={amount(now.forward)}/s reverse={amount(now.reverse)}/s"
    )


def talkers_to_show(watch: Watch, wishes: Wishes) -> list[Talker]:
    """The talkers that the wishes let through, in the order they ask for."""
    needle = wishes.text.lower()
    found = [
        talker
        for talker in watch.talkers
        if wishes.service in (None, talker.about["service"]) and needle in _searched(talker.about)
    ]
    if wishes.sort == "age":
        return sorted(found, key=lambda talker: float(talker.about["age_s"]), reverse=True)
    if wishes.sort == "total":
        return sorted(found, key=lambda talker: talker.total, reverse=True)
    return sorted(found, key=lambda talker: (talker.rate, talker.total), reverse=True)


def _searched(about: dict[str, Any]) -> str:
    names = ("client", "real_client", "server_name", "identity", "target", "service")
    return " ".join(str(about[name] or "") for name in names).lower()


def _head(status: dict[str, Any], address: str, note: str, width: int) -> Text:
    mood = "bold green" if status["ready"] else "bold red"
    head = Text.assemble(
        ("tlstunnel ", "bold"),
        (status["phase"], mood),
        f"  {status['version']}  up {duration(status['uptime_s'])}  {address}  {len(status['workers'])} workers",
    )
    if status["worker_restarts"]:
        head.append(f"  {status['worker_restarts']} restarts", "red")
    if note:
        head = Text.assemble(("tlstunnel ", "bold"), (printable(note), "bold red"))
    head.truncate(width, overflow="ellipsis")
    return head


def _sparklines(watch: Watch, width: int) -> Table:
    now = watch.current
    table = Table.grid(padding=(0, 1))
    bars = max(10, (width - 2 * 24 - 3) // 2)
    rows = (
        (("open", f"{now.open:,}", [float(each.open) for each in watch.history], "cyan"),
         ("failed", f"{now.failed:,.1f}/s", [each.failed for each in watch.history], "red")),
        (("new", f"{now.new:,.1f}/s", [each.new for each in watch.history], "cyan"),
         ("forward", f"{amount(now.forward)}/s", [each.forward for each in watch.history], "magenta")),
        (("handshakes", f"{now.handshakes:,.1f}/s", [each.handshakes for each in watch.history], "green"),
         ("reverse", f"{amount(now.reverse)}/s", [each.reverse for each in watch.history], "magenta")),
    )  # fmt: skip
    for _ in range(2):
        table.add_column(width=10, no_wrap=True)
        table.add_column(width=12, justify="right", no_wrap=True)
        table.add_column(width=bars, no_wrap=True)
    for pair in rows:
        cells: list[Text] = []
        for name, value, values, colour in pair:
            cells += [Text(name, "dim"), Text(value), Text(sparkline(values, bars), colour)]
        table.add_row(*cells)
    return table


def _table(*columns: str) -> Table:
    """A table without lines. A column name that begins with # is over numbers; one that ends in ~ takes the rest."""
    table = Table(box=None, pad_edge=False, expand=True, header_style="reverse")
    for name in columns:
        if name.startswith("#"):
            table.add_column(name[1:], justify="right", no_wrap=True)
        elif name.endswith("~"):
            table.add_column(name[:-1], no_wrap=True, overflow="ellipsis", ratio=1)
        else:
            table.add_column(name, no_wrap=True)
    return table


def _services(watch: Watch, wishes: Wishes, room: int) -> Table:
    table = _table("service~", "#open", "#new/s", "#handsh/s", "#failed/s", "#forward/s", "#reverse/s")
    busiest = sorted(watch.services.items(), key=lambda item: item[1].forward + item[1].reverse, reverse=True)
    shown = [(name, rates) for name, rates in busiest if wishes.service in (None, name)]
    for name, rates in shown[: max(1, room)]:
        table.add_row(Text(name), *_rate_cells(rates))
    return table


def _rate_cells(rates: Rates) -> tuple[Text, ...]:
    return (
        Text(f"{rates.open:,}"),
        Text(f"{rates.new:,.1f}"),
        Text(f"{rates.handshakes:,.1f}"),
        Text(f"{rates.failed:,.1f}", "red" if rates.failed else ""),
        Text(amount(rates.forward)),
        Text(amount(rates.reverse)),
    )


def _talkers(watch: Watch, wishes: Wishes, room: int, width: int) -> Table:
    columns = ["client", "service", "identity or name~", "#age", "#total", "#rate"]
    if width >= 110:
        columns.insert(2, "target")
    table = _table(*columns)
    for talker in talkers_to_show(watch, wishes)[:room]:
        about = talker.about
        cells = [
            Text(printable(about["real_client"] or about["client"])),
            Text(about["service"]),
            Text(printable(about["identity"] or about["server_name"] or "")),
            Text(duration(about["age_s"])),
            Text(amount(talker.total)),
            Text(f"{amount(talker.rate)}/s"),
        ]
        if width >= 110:
            cells.insert(2, Text(about["target"] or ""))
        table.add_row(*cells)
    return table


def _trouble(watch: Watch, wishes: Wishes, room: int) -> Table:
    table = _table("trouble", "service~", "#per second", "#in all")
    worst = sorted(watch.trouble.items(), key=lambda item: (item[1][1], item[1][0]), reverse=True)
    shown = [(key, found) for key, found in worst if wishes.service in (None, key[0])]
    for (service, reason), (count, rate) in shown[: max(1, room)]:
        table.add_row(Text(reason), Text(service), Text(f"{rate:,.1f}", "red" if rate else "dim"), Text(f"{count:,}"))
    return table


def _certificates(status: dict[str, Any], wishes: Wishes, room: int) -> Table:
    table = _table("certificate~", "service", "#days left")
    soonest = sorted(status["certificates"], key=lambda each: str(each["not_after"]))
    for each in [each for each in soonest if wishes.service in (None, each["service"])][:room]:
        left = each["days_left"]
        mood = "bold red" if left < 3 else "yellow" if left < 30 else ""
        table.add_row(Text(printable(each["subject"])), Text(each["service"]), Text(days_cell(status, each), mood))
    return table


def _keys(wishes: Wishes) -> Text:
    if wishes.is_typing:
        return Text.assemble(("/", "bold"), wishes.text, ("_", "blink"), ("   Enter keeps it, Escape drops it", "dim"))
    keys = Text("q quit  s sort: ", "dim")
    keys.append(wishes.sort, "bold")
    keys.append("  f service: ", "dim")
    keys.append(wishes.service or "all", "bold")
    keys.append("  / filter: ", "dim")
    keys.append(wishes.text or "none", "bold")
    keys.append("  p pause  ? help", "dim")
    if wishes.is_paused:
        keys.append("  PAUSED", "bold yellow")
    return keys
