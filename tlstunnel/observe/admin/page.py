"""The page for a browser: the status document as HTML, without scripts; it reloads itself every few seconds."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from tlstunnel.lifetime import Urgency
from tlstunnel.observe.words import amount, duration, time_left, urgency

REFRESH_S = 5
_MOODS = {Urgency.NONE: "", Urgency.SOON: "soon", Urgency.NOW: "bad", Urgency.PAST: "bad"}
_STYLE = """
:root { color-scheme: light dark; --quiet: #6b7280; --line: #8884; --good: #15803d; --bad: #dc2626; --soon: #b45309 }
@media (prefers-color-scheme: dark) { :root { --quiet: #9ca3af; --good: #4ade80; --bad: #f87171; --soon: #fbbf24 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
p { margin: .2rem 0 } .quiet { color: var(--quiet) } .good { color: var(--good) } .bad { color: var(--bad) }
.soon { color: var(--soon) } .wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th { font-weight: 600; text-align: left; color: var(--quiet) }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
""".strip()


def page(status: dict[str, Any]) -> str:
    """The page of a status document. Everything from outside is escaped."""
    mood = "good" if status["ready"] else "bad"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="refresh" content="{REFRESH_S}">',
        f"<title>tlstunnel: {escape(status['phase'])}</title><style>{_STYLE}</style></head><body>",
        f'<h1>tlstunnel <span class="{mood}">{escape(status["phase"])}</span></h1>',
        f'<p class="quiet">{escape(status["version"])}, up {duration(status["uptime_s"])}, '
        f"from {escape(status['source'])}</p>",
        *_services(status["services"]),
        *_certificates(status),
        *_workers(status),
        *_reload(status),
        '<p class="quiet"><a href="/metrics">metrics</a> · <a href="/status">status as JSON</a> · '
        '<a href="/connections?sort=bytes">open connections</a></p>',
        "</body></html>",
    ]
    return "\n".join(parts)


def _services(services: Iterable[dict[str, Any]]) -> list[str]:
    rows = []
    for each in services:
        targets = "<br>".join(
            escape(target["address"])
            + (f' <span class="bad">rested by {target["resting_workers"]}</span>' if target["resting_workers"] else "")
            for target in each["targets"]
        )
        trouble = ", ".join(f"{escape(reason)} {count}" for reason, count in each["trouble"].items())
        limit = each["connections"]["limit"]
        rows.append(
            [
                f"<strong>{escape(each['name'])}</strong><br><span class=quiet>{escape(each['mode'])}</span>",
                "<br>".join(escape(listener) for listener in each["listeners"]),
                targets,
                f"{each['connections']['active']:,}" + (f" of {limit:,}" if limit else ""),
                f"{each['handshakes']['succeeded']:,}",
                f"{amount(each['bytes']['forward'])}<br>{amount(each['bytes']['reverse'])}",
                trouble or '<span class="quiet">none</span>',
            ]
        )
    heads = ("service", "listens on", "target", "#open", "#handshakes", "#bytes to and from it", "trouble")
    return _table("Services", heads, rows)


def _certificates(status: dict[str, Any]) -> list[str]:
    rows = []
    for each in sorted(status["certificates"], key=lambda each: str(each["not_after"])):
        mood = _MOODS[urgency(status, each)]
        rows.append(
            [
                escape(each["service"]),
                escape(each["role"]),
                f"{escape(each['subject'])}<br><span class=quiet>{escape(each['file'])}</span>",
                escape(each["not_after"][:10]),
                f'<span class="{mood}">{time_left(status, each)}</span>',
            ]
        )
    return _table("Certificates", ("service", "role", "subject and file", "#until", "#left"), rows)


def _mood(worker: dict[str, Any]) -> str:
    if not worker["answers"]:
        return ' <span class="bad">(does not answer)</span>'
    return " (draining)" if worker["draining"] else ""


def _workers(status: dict[str, Any]) -> list[str]:
    rows = [
        [
            str(each["pid"]),
            f"{each['generation']}" + _mood(each),
            f"{each['connections']:,}",
            "" if each["cpu_s"] is None else f"{each['cpu_s']:,.1f} s",
            "" if each["resident_bytes"] is None else amount(each["resident_bytes"]),
        ]
        for each in status["workers"]
    ]
    restarts = status["worker_restarts"]
    title = "Workers" + (f', <span class="bad">{restarts} restarted</span>' if restarts else "")
    return _table(title, ("pid", "generation", "#open", "#CPU", "#memory"), rows)


def _reload(status: dict[str, Any]) -> list[str]:
    last = status["last_reload"]
    if last is None:
        return []
    result = '<span class="good">succeeded</span>' if last["ok"] else '<span class="bad">failed</span>'
    errors = "".join(f"<li>{escape(error)}</li>" for error in last["errors"])
    return [f"<h2>Last reload {result}</h2>", f'<p class="quiet">{escape(last["at"])}</p>', f"<ul>{errors}</ul>"]


def _table(title: str, heads: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """A table; a head that begins with # is over numbers."""
    kinds = [' class="n"' if head.startswith("#") else "" for head in heads]
    head = "".join(f"<th{kind}>{name.lstrip('#')}</th>" for kind, name in zip(kinds, heads, strict=True))
    lines = [
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    ]
    return [f'<h2>{title}</h2><div class="wide"><table><tr>{head}</tr>', *lines, "</table></div>"]
