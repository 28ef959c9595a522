"""The report of `cert show` for people: aligned, coloured on a terminal, one fact to a line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from tlstunnel import lifetime
from tlstunnel.cli.colours import URGENCY_STYLES

Facts = dict[str, Any]
_LABEL_WIDTH = 12


def show(report: Facts) -> None:
    """Print a report. The first item in full, those after it (its chain) in short."""
    # Nothing is wrapped: fingerprints and pins are there to be copied.
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    for number, item in enumerate(report["items"]):
        if number:
            console.print()
        _item(console, item, short=number > 0)
    if "chain" in report:
        console.print()
        _chain(console, report["chain"])


def _item(console: Console, item: Facts, *, short: bool) -> None:
    title = item.get("subject") or item.get("issuer") or item["kind"]
    if title == "(empty)" and item["names"]:
        title = item["names"][0]
    kind = "" if title == item["kind"] else f"  ({item['kind']})"
    console.print(Text.assemble((title, "bold"), (kind, "dim")))
    lines = {
        "certificate": _certificate_lines,
        "request": _request_lines,
        "revocation list": _list_lines,
        "private key": _key_lines,
    }[item["kind"]]
    for label, value, style in lines(item, short):
        _line(console, label, value, style)
    for remark in item.get("remarks", ()):
        _line(console, "note", remark, "yellow")


Line = tuple[str, str, str]


def _certificate_lines(item: Facts, short: bool) -> list[Line]:
    use = ", ".join(item["uses"]) or ("any" if not item["ca"] else "")
    if item["ca"]:
        limit = item["path_length"]
        use = "CA" + (f", at most {limit} below it" if limit is not None else "") + (f", {use}" if use else "")
    lines = [
        ("names", ", ".join(item["names"]), ""),
        ("issuer", "itself" if item["self_signed"] else item["issuer"], ""),
        ("valid", *_dates(item["not_before"], item["not_after"])),
        ("key", f"{item['key']}, signed with {item['signature']}", ""),
        ("use", f"{use} ({', '.join(item['key_usage'])})" if item["key_usage"] else use, ""),
        ("permits", ", ".join(item["permitted"]), ""),
        ("excludes", ", ".join(item["excluded"]), ""),
    ]
    if not short:
        lines += [
            ("serial", item["serial"], ""),
            ("CRL", ", ".join(item["crl_urls"]), ""),
            ("OCSP", ", ".join(item["ocsp_urls"]), ""),
            ("SHA-1", item["sha1"], ""),
        ]
    return [*lines, ("SHA-256", item["sha256"], ""), ("pin", item["spki_pin"] or "", "")]


def _request_lines(item: Facts, _short: bool) -> list[Line]:
    return [
        ("names", ", ".join(item["names"]), ""),
        ("use", ", ".join(item["uses"]), ""),
        ("key", item["key"], ""),
        ("signature", item["signature"], "" if item["signature"] == "good" else "red"),
        ("pin", item["spki_pin"], ""),
    ]


def _list_lines(item: Facts, _short: bool) -> list[Line]:
    if item["next_update"] is None:
        valid = f"from {_date(item['this_update'])}, without an end", ""
    else:
        valid = _dates(item["this_update"], item["next_update"])
    lines = [
        ("number", "" if item["number"] is None else str(item["number"]), ""),
        ("valid", *valid),
    ]
    revoked = [("revoked", f"{e['serial']}  {_date(e['date'])}  {e['reason']}", "") for e in item["revoked"]]
    return lines + (revoked or [("revoked", "nothing", "")])


def _key_lines(item: Facts, _short: bool) -> list[Line]:
    return [
        ("key", item["key"], ""),
        ("encrypted", "yes" if item["encrypted"] else "no", ""),
        ("pin", item["spki_pin"], ""),
    ]


def _chain(console: Console, chain: Facts) -> None:
    console.print(Text("chain", style="bold"))
    for number, subject in enumerate(chain["path"]):
        console.print(Text("  " + "  " * number + ("└ " if number else "") + subject))
    store = chain["store"] or "no CAs, this machine has none"
    if chain["verifies"]:
        name = f" for {chain['name']}" if chain["name"] else ""
        _line(console, "verifies", f"yes{name}, against {store}", "green")
    else:
        _line(console, "verifies", f"no, against {store}", "red")
    for problem in chain["problems"]:
        _line(console, "because", problem, "red")
    if chain["strict"]:
        _line(console, "note", f"verifiers as strict as browsers refuse it: {chain['strict']}", "yellow")


def _line(console: Console, label: str, value: str, style: str) -> None:
    if value:
        console.print(Text.assemble(("  " + label.ljust(_LABEL_WIDTH), "dim"), (value, style)))


def _dates(start: str, end: str) -> tuple[str, str]:
    """From when until when, and the colour of it."""
    begins, ends, now = datetime.fromisoformat(start), datetime.fromisoformat(end), datetime.now(UTC)
    style = URGENCY_STYLES[lifetime.urgency(begins, ends, now)] or "green"
    return f"{_date(start)} to {_date(end)} UTC, {lifetime.left(ends, now)}", style


def _date(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")
