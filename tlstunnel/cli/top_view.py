"""What `tlstunnel top` draws: one screen from what was seen so far. No input, no clock, no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tlstunnel.cli.colours import URGENCY_STYLES
from tlstunnel.errors import printable
from tlstunnel.observe.words import amount, days_cell, duration, urgency
from tlstunnel.tools.top.rates import Rates, Talker, Watch, sparkline

SORTS = ("rate", "total", "age")
_FIXED_LINES = 9
"""Lines that are there whatever happens: head, three of sparklines, four titles, keys."""


@dataclass(slots=True)
class ViewState:
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
    status: dict[str, Any], watch: Watch, view: ViewState, *, width: int, height: int, address: str, note: str = ""
) -> Group:
    """The whole screen.

    Args:
        status: the last status document.
        watch: rates and talkers.
        view: what the keys have set.
        width: columns of the terminal.
        height: its lines.
        address: the endpoint.
        note: what is wrong with the connection to it; empty if nothing.
    """
    parts: list[Any] = [_head(status, address, note, width), _sparklines(watch, width)]
    if view.shows_help:
        parts.append(Text("\n" + HELP))
        return Group(*parts)
    services, talkers = _services(watch, view), talkers_to_show(watch, view)
    trouble, certificates = _trouble(watch, view), _certificates(status, view)
    rooms = _share(max(4, height - _FIXED_LINES), len(services), len(talkers), len(trouble), len(certificates))
    parts += [
        _service_table(services, rooms[0]),
        _talker_table(talkers, rooms[1], _open(watch, view, len(talkers)), width),
        _trouble_table(trouble, rooms[2]),
        _certificate_table(status, certificates, rooms[3]),
        _keys(view),
    ]
    return Group(*parts)


def _share(room: int, services: int, talkers: int, trouble: int, certificates: int) -> tuple[int, int, int, int]:
    """How many lines each table gets of those there are, given how many it could fill.

    Where all cannot be had, talkers get most, since they change most. No line stays blank while a table hides one.
    """
    found = [
        min(services, max(1, room // 3)), 0, min(trouble, max(1, room // 4)), min(certificates, max(1, room // 5))
    ]  # fmt: skip
    left = room - sum(found)
    for place, wanted in ((1, talkers), (0, services), (2, trouble), (3, certificates)):
        more = min(max(left, 0), wanted - found[place])
        found[place] += more
        left -= more
    return found[0], max(found[1], min(talkers, 1)), found[2], found[3]


def _open(watch: Watch, view: ViewState, found: int) -> int:
    """How many talkers there are in truth: not every open connection is listed, and what is not cannot be searched."""
    if view.text:
        return found
    rates = watch.current if view.service is None else watch.services.get(view.service)
    return max(found, rates.open if rates is not None else 0)


def _title(name: str, total: int, room: int) -> str:
    """A table's title, with the number of those it has no line for."""
    return f"{name}, and {total - room:,} more" if total > room else name


def plain_line(status: dict[str, Any], watch: Watch, clock: str) -> str:
    """One look as one line, for output that is not a terminal."""
    now = watch.current
    return (
        f"{clock} {status['phase']} open={now.open} new/s={now.new:.1f} handshakes/s={now.handshakes:.1f}"
        f" failed/s={now.failed:.1f} forward={amount(now.forward)}/s reverse={amount(now.reverse)}/s"
    )


def talkers_to_show(watch: Watch, view: ViewState) -> list[Talker]:
    """The talkers that the view lets through, in the order that it asks for."""
    needle = view.text.lower()
    found = [
        talker
        for talker in watch.talkers
        if view.service in (None, talker.about["service"]) and needle in _searched(talker.about)
    ]
    if view.sort == "age":
        return sorted(found, key=lambda talker: float(talker.about["age_s"]), reverse=True)
    if view.sort == "total":
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


def _services(watch: Watch, view: ViewState) -> list[tuple[str, Rates]]:
    """Those to show, the busiest first."""
    busiest = sorted(watch.services.items(), key=lambda item: item[1].forward + item[1].reverse, reverse=True)
    return [(name, rates) for name, rates in busiest if view.service in (None, name)]


def _service_table(found: list[tuple[str, Rates]], room: int) -> Table:
    title = _title("service", len(found), room)
    table = _table(f"{title}~", "#open", "#new/s", "#handsh/s", "#failed/s", "#forward/s", "#reverse/s")
    for name, rates in found[:room]:
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


def _talker_table(found: list[Talker], room: int, count: int, width: int) -> Table:
    columns = [_title("client", count, room), "service", "identity or name~", "#age", "#total", "#rate"]
    if width >= 110:
        columns.insert(2, "target")
    table = _table(*columns)
    for talker in found[:room]:
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


Trouble = tuple[tuple[str, str], tuple[int, float]]


def _trouble(watch: Watch, view: ViewState) -> list[Trouble]:
    """What to show of it, the most frequent first."""
    worst = sorted(watch.trouble.items(), key=lambda item: (item[1][1], item[1][0]), reverse=True)
    return [(key, found) for key, found in worst if view.service in (None, key[0])]


def _trouble_table(found: list[Trouble], room: int) -> Table:
    table = _table(_title("trouble", len(found), room), "service~", "#per second", "#in all")
    for (service, reason), (count, rate) in found[:room]:
        table.add_row(Text(reason), Text(service), Text(f"{rate:,.1f}", "red" if rate else "dim"), Text(f"{count:,}"))
    return table


def _certificates(status: dict[str, Any], view: ViewState) -> list[dict[str, Any]]:
    """Those to show, what ends first first."""
    soonest = sorted(status["certificates"], key=lambda each: str(each["not_after"]))
    return [each for each in soonest if view.service in (None, each["service"])]


def _certificate_table(status: dict[str, Any], found: list[dict[str, Any]], room: int) -> Table:
    title = _title("certificate", len(found), room)
    table = _table(f"{title}~", "service", "#days left")
    for each in found[:room]:
        mood = URGENCY_STYLES[urgency(status, each)]
        table.add_row(Text(printable(each["subject"])), Text(each["service"]), Text(days_cell(status, each), mood))
    return table


def _keys(view: ViewState) -> Text:
    if view.is_typing:
        return Text.assemble(("/", "bold"), view.text, ("_", "blink"), ("   Enter keeps it, Escape drops it", "dim"))
    keys = Text("q quit  s sort: ", "dim")
    keys.append(view.sort, "bold")
    keys.append("  f service: ", "dim")
    keys.append(view.service or "all", "bold")
    keys.append("  / filter: ", "dim")
    keys.append(view.text or "none", "bold")
    keys.append("  p pause  ? help", "dim")
    if view.is_paused:
        keys.append("  PAUSED", "bold yellow")
    return keys
