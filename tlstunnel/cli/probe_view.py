"""A probe's findings for people: what to mend first, then everything else, within the terminal's width."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

from tlstunnel import lifetime
from tlstunnel.cli.colours import URGENCY_STYLES
from tlstunnel.tools.probe.findings import Chain, Ciphers, Findings, Severity, SuiteFound

_STYLES = {
    Severity.CRITICAL: "bold red", Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: "cyan",
    Severity.INFO: "dim",
}  # fmt: skip
_LABEL = 14
_BAD = {"no encryption", "anonymous", "export", "DES", "RC4"}
_MIDDLING = {"64-bit blocks", "static key", "MD5"}


def show(found: Findings, console: Console | None = None) -> None:
    """Print it on stdout."""
    _View(console or Console(highlight=False, markup=False, emoji=False), found).show()


class _View:
    def __init__(self, console: Console, found: Findings) -> None:
        self._console = console
        self._found = found

    def show(self) -> None:
        self._target()
        self._weaknesses()
        self._title("protocol")
        self._versions()
        for listed in self._found.groups:
            names = Text(", ").join(
                Text(g.name, "green" if g.post_quantum else "") + (" (post-quantum)" if g.post_quantum else "")
                for g in listed.groups
            )
            self._line(f"groups {listed.version.removeprefix('TLS ')}", names)
        self._rest()
        for number, ciphers in enumerate(self._found.ciphers):
            same = [
                each for each in self._found.ciphers if (each.order, each.suites) == (ciphers.order, ciphers.suites)
            ]
            if same[0] is self._found.ciphers[number]:
                self._ciphers(ciphers, ", ".join(each.version for each in same))
        for chain in self._found.chains:
            self._chain(chain)
        for line in self._found.incomplete:
            self._line("not asked", Text(line, "yellow"))
        self._console.print()
        seconds = self._found.duration_ms / 1000
        self._console.print(Text(f"{self._found.connections} connections, {seconds:.1f} s", "dim"))

    def _target(self) -> None:
        target = self._found.target
        where = target.host if target.port is None else f"{target.host}:{target.port}"
        self._console.print(Text(where, "bold"))
        if target.address and target.address != target.host:
            self._line("address", target.address)
        if target.server_name and target.server_name != target.host:
            self._line("server name", target.server_name)
        if target.starttls:
            self._line("before TLS", f"STARTTLS of {target.starttls}")
        times = self._found.timings_ms
        named = (
            ("lookup", times.lookup), ("TCP", times.tcp), ("STARTTLS", times.starttls),
            ("server hello", times.server_hello), ("handshake", times.handshake), ("first byte", times.first_byte),
        )  # fmt: skip
        self._line("timings", ", ".join(f"{name} {value:.1f} ms" for name, value in named if value is not None))

    def _weaknesses(self) -> None:
        self._title("weaknesses")
        if not self._found.weaknesses:
            self._console.print(Text("  none found", "green"))
            return
        for weakness in self._found.weaknesses:
            label = Text(f"  {weakness.severity.label:10}", _STYLES[weakness.severity])
            self._wrapped(label, Text(weakness.what))
            self._wrapped(Text(" " * 12), Text(weakness.remedy, "dim"))

    def _versions(self) -> None:
        good = {"TLS 1.3", "TLS 1.2"}
        parts = []
        for version in self._found.versions:
            if version.offered:
                parts.append(Text(version.name, "green" if version.name in good else "red"))
        self._line("offered", Text(", ").join(parts))
        refused = [version.name for version in self._found.versions if version.offered is False]
        self._line("refused", ", ".join(refused))

    def _rest(self) -> None:
        found = self._found
        alpn = ", ".join(found.alpn.protocols) or ("none" if found.alpn.refuses_others is not None else "")
        self._line("ALPN", alpn + ("; others are refused" if found.alpn.refuses_others else ""))
        self._line("resumption", ", ".join(_resumption(found)))
        wanted = found.client_certificate
        if wanted.requested:
            how = {True: "required", False: "optional", None: "requested"}[wanted.required]
            self._line("client cert", how + (", of these CAs:" if wanted.authorities else ", of any CA"))
            for name in wanted.authorities:
                self._line("", name)
        elif wanted.requested is False:
            self._line("client cert", "not requested")
        features = found.features
        facts = (
            ("secure renegotiation", features.secure_renegotiation),
            ("extended master secret", features.extended_master_secret),
            ("encrypt-then-MAC", features.encrypt_then_mac),
            ("fallback noticed", features.fallback_scsv),
            ("compression", bool(features.compression) or None),
            ("SHA-1 signatures", features.sha1_signatures or None),
        )
        self._line(
            "before 1.3", ", ".join(name if holds else f"no {name}" for name, holds in facts if holds is not None)
        )

    def _ciphers(self, listed: Ciphers, versions: str) -> None:
        order = {"server": "the server's order", "client": "the client's order decides"}.get(listed.order or "", "")
        self._title(f"cipher suites of {versions}" + (f" ({order})" if order else ""))
        widths = [max(len(each) for each in column) for column in zip(*map(_cells, listed.suites), strict=True)]
        for suite in listed.suites:
            flaws = set(suite.flaws)
            style = "red" if _BAD & flaws else "yellow" if _MIDDLING & flaws else ""
            name, exchange = (f"{cell:{width}}  " for cell, width in zip(_cells(suite), widths, strict=True))
            label = Text.assemble("  ", (name, style), exchange if any(widths[1:]) else "")
            self._wrapped(label, Text(", ".join(suite.flaws), "dim"))

    def _chain(self, chain: Chain) -> None:
        self._title("certificate" + (f" in {', '.join(chain.versions)}" if len(self._found.chains) > 1 else ""))
        for number, each in enumerate(chain.certificates):
            self._line("subject" if number == 0 else "sent along", each["subject"])
            if number == 0:
                self._line("names", ", ".join(each["names"]))
                self._line("issuer", "itself" if each["self_signed"] else each["issuer"])
            begin, end = datetime.fromisoformat(each["not_before"]), datetime.fromisoformat(each["not_after"])
            left, style = (
                lifetime.left(end, now := datetime.now(UTC)),
                URGENCY_STYLES[lifetime.urgency(begin, end, now)],
            )
            self._line("valid", Text(f"{each['not_before'][:10]} to {each['not_after'][:10]}, {left}", style))
            self._line("key", f"{each['key']}, signed with {each['signature']}")
        if chain.certificates:
            self._line("pin", chain.certificates[0]["spki_pin"] or "")
        self._line("staple", _staple(chain))
        store = self._found.store or "no CAs, this machine has none"
        answer = Text("yes", "green") if chain.verifies else Text("no", "red")
        name = f" for {self._found.target.name}" if self._found.target.name else ""
        self._line("verifies", answer + Text(f"{name}, against {store}"))
        for problem in chain.problems:
            self._line("because", Text(problem, "red"))
        if chain.strict:
            self._line("note", Text(f"verifiers as strict as browsers refuse it: {chain.strict}", "yellow"))

    def _title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, "bold"))

    def _line(self, label: str, value: str | Text) -> None:
        if not value:
            return
        self._wrapped(Text(f"  {label}".ljust(_LABEL), "dim"), value if isinstance(value, Text) else Text(value))

    def _wrapped(self, label: Text, value: Text) -> None:
        """A label, and its value in a column of its own behind it."""
        width = max(self._console.width - label.cell_len, 20)
        lines = value.wrap(self._console, width) or [Text()]
        for number, line in enumerate(lines):
            shown = Text.assemble(label if number == 0 else " " * label.cell_len, line)
            shown.rstrip()
            self._console.print(shown, soft_wrap=True)


def _cells(suite: SuiteFound) -> tuple[str, str]:
    return suite.name, suite.key_exchange or ""


def _resumption(found: Findings) -> Iterable[str]:
    resumption = found.resumption
    if resumption.psk:
        yield f"TLS 1.3 ({resumption.tickets} tickets" + (
            f", good for {_span(resumption.lifetime_s)})" if resumption.lifetime_s else ")"
        )
    if resumption.ticket:
        yield "tickets"
    if resumption.session_id:
        yield "session ids"
    ways = (resumption.psk, resumption.ticket, resumption.session_id)
    if not any(ways):
        yield "none" if False in ways else "not found out"
    if resumption.early_data:
        yield f"0-RTT of {resumption.early_data} bytes"


def _span(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _staple(chain: Chain) -> str:
    if chain.staple is None:
        return "none"
    until = chain.staple["next_update"]
    return f"{chain.staple['status']}, until {until[:10]}" if until else str(chain.staple["status"])
