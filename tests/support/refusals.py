"""What everybody hears of a connection that is not set up: its client, whoever reads the log, whoever counts.

with refusals.stand(folder, cases, common) as running:      # the same configuration twice: one logs text, one JSON
    page = running.page("denied", title, act)               # act(port) does it, and returns what the client was told

A page is text for a golden file. What differs from run to run (ports, times, ids, fingerprints, folders) is masked. The
metrics are the counters of the service and the reason that stand above zero: each case needs a service of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from tests.support import clients, peers, services, tunnel
from tlstunnel.tools.tls13.names import AlertDescription

GOLDEN = Path(__file__).parent.parent / "golden" / "refusals"
Act = Callable[[int], str]

# Of a record, what is wording or names somebody. The rest are measurements.
KEYS = "level event reason stage fault message detail real_client target server_name identity claimed rule".split()
COUNTERS = (
    "tlstunnel_connections_total",
    "tlstunnel_connections_rejected_total",
    "tlstunnel_handshake_failures_total",
    "tlstunnel_backend_connect_failures_total",
)
_MASKS = [
    (r"\b(127(?:\.\d+){3}|localhost|\[::1\]|nobody\.invalid|224\.0\.0\.1):\d+", r"\1:PORT"),
    (r"\b(\w+_s)=[0-9.]+", r"\1=S"),
    (r" id=[0-9a-f]{16}", ""),
    (r" ja4=\S+", ""),
    (r" client_versions=\S+", ""),
    (r" (cipher|group)=\S*", ""),
    (r" {2,}", "  "),
]


class Stand:
    """Two daemons of one configuration."""

    def __init__(self, text: services.Services, json: services.Services, admin: int, folder: Path) -> None:
        self.text, self.json = text, json
        self._admin = admin
        self._folder = folder

    def page(self, service: str, title: str, act: Act, *, is_rejected: bool = False, reason: str = "") -> str:
        """Do it to both, and collect what is heard.

        Args:
            is_rejected: it is refused before it has a record.
            reason: the record is the first with this one; else the service's first.
        """
        told = [self.masked(act(daemon.at(service))) for daemon in (self.json, self.text)]
        assert told[0] == told[1], f"{service}: the client was told two things: {told}"
        record = self._record(service, reason, is_rejected=is_rejected)
        parts = {
            "told": told[0].splitlines(),
            "text": [self._line(service, reason, is_rejected=is_rejected)],
            "json": [f"{key}: {self.masked(str(record[key]))}" for key in KEYS if record.get(key) is not None],
            "counted": self._counted(service, record["reason"]),
        }
        lines = [f"{title}\n"]
        for name, said in parts.items():
            lines += [f"{name + ':' if not number else '':<9}{each}" for number, each in enumerate(said)]
        return "\n".join([*lines, ""])

    def _record(self, service: str, reason: str, *, is_rejected: bool) -> dict[str, Any]:
        """The JSON record, or the message of a rejection."""
        daemon = self.json.daemon

        def find() -> dict[str, Any] | None:
            among = [m for m in daemon.messages if m["event"] == "rejected"] if is_rejected else daemon.records
            return next((r for r in among if r["service"] == service and reason in ("", r["reason"])), None)

        found: dict[str, Any] = daemon.until(find, f"a record of {service}")
        return found

    def _line(self, service: str, reason: str, *, is_rejected: bool) -> str:
        """The line of text that says the same."""
        daemon = self.text.daemon
        rest = ": client .*" if is_rejected else rf" +[^ ]+ +-> [^ ]+ +{reason or '.*'} .*"
        pattern = re.compile(rf"\S+Z (\w+ +{service}{rest})")

        def find() -> str | None:
            return next((match[1] for match in map(pattern.fullmatch, daemon.lines) if match), None)

        return self.masked(str(daemon.until(find, f"a line of {service}")))

    def _counted(self, service: str, reason: str) -> list[str]:
        """The service's counters above zero, of this reason, without the label that is the same for all of them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        label, wanted = f'service="{service}"', re.compile(f'(result|reason)="{reason}"')
        found = []
        for line in lines:
            name, _, value = line.rpartition(" ")
            if name.startswith(COUNTERS) and label in name and wanted.search(name) and float(value):
                found.append(f"{name.replace(',' + label, '').replace(label + ',', '')} {float(value):.0f}")
        return found

    def masked(self, text: str) -> str:
        """Without what differs from run to run."""
        text = text.replace(str(self._folder), "DIR")
        for pattern, replacement in _MASKS:
            text = re.sub(pattern, replacement, text)
        return text


@contextlib.contextmanager
def stand(
    folder: Path, cases: Mapping[str, str], common: str, values: Mapping[str, object], process: str = "", **how: Any
) -> Iterator[Stand]:
    """Run the cases, twice, until the block is left.

    Args:
        cases: lines of a service's configuration, by its name; a table of names begins with `[[sni]]`.
        common: lines of those that do not say their mode, which is server then.
        values: what `$NAME` in all these lines stands for.
        process: more lines for the section of that name.
        how: for `tunnel.run`.
    """
    admin = peers.free_port()
    with contextlib.ExitStack() as stack:
        running = []
        for kind, rest in (("text", ""), ("json", f'[admin]\nlisten = "127.0.0.1:{admin}"\n')):
            head = f'[process]\nworkers = 1\nreload_poll = "never"\n{process}\n{rest}[log]\nformat = "{kind}"\n'
            config = folder / f"{kind}.toml"
            config.write_text(head + configuration(cases, common, values))
            running.append(services.Services(stack.enter_context(tunnel.run(config, **how)), config))
        yield Stand(*running, admin, folder)


def configuration(cases: Mapping[str, str], common: str, values: Mapping[str, object]) -> str:
    """The services of these cases as TOML."""
    text = ""
    for name, lines in cases.items():
        own = {line.partition("=")[0].strip() for line in lines.partition("[[sni]]")[0].splitlines()}
        usual = ['listen = "127.0.0.1:0"', *([] if "mode" in own else ['mode = "server"', *common.splitlines()])]
        kept = [line for line in usual if line.partition("=")[0].strip() not in own]
        text += "\n".join([f"[services.{name}]", *kept, lines.replace("[[sni]]", f"[[services.{name}.sni]]"), ""])
    return Template(text).substitute(values)


def compare(name: str, page: str) -> None:
    """Whether the page is what the golden file says; UPDATE_GOLDEN=1 writes it anew."""
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(page)
    assert page == golden.read_text()


def pages() -> dict[str, str]:
    """All golden files of this kind, by name."""
    found = {path.stem: path.read_text() for path in sorted(GOLDEN.glob("*.txt"))}
    return {name: text for name, text in found.items() if "\ncounted: " in text}


def field(page: str, key: str) -> str:
    """A key of the JSON record of a page; empty where it has none."""
    found = re.search(rf"^(?:json:    |         ){key}: (.*)$", page, re.MULTILINE)
    return found[1] if found else ""


# What clients are told.


def openssl(*options: str, ca: Path, **how: Any) -> Act:
    """`openssl s_client`."""

    def act(port: int) -> str:
        said = services.ask(port, ca, *options, **how)
        if said.alert is not None:
            return f"openssl s_client: alert {AlertDescription(said.alert).name.lower()} ({said.alert})"
        if "unexpected eof while reading" in said.text or "write:errno=0" in said.text:
            return "openssl s_client: closed without a word"
        if re.search(r"errno=104|[Rr]eset by peer", said.text):
            return "openssl s_client: reset"
        if "certificate verify failed" in said.text:
            return "openssl s_client: does not accept our certificate (certificate verify failed)"
        assert "Verify return code" in said.text, said.text
        return "openssl s_client: a handshake, then a proper end (close_notify)"

    return act


def raw(data: bytes = b"", *, source: str = "127.0.0.1", is_done: bool = False, before: int = 0) -> Act:
    """Bytes over TCP.

    Args:
        is_done: a FIN follows them.
        before: how many connections are opened first, and held.
    """

    def act(port: int) -> str:
        with contextlib.ExitStack() as stack:
            for _ in range(before):
                stack.enter_context(clients.raw(port))
            sock = stack.enter_context(clients.raw(port))
            sock.sendall(data)
            if is_done:
                sock.shutdown(1)
            return heard(sock)

    return act


RESET = "bytes over TCP: reset"


def heard(sock: Any) -> str:
    """What comes to a plain socket until the end."""
    data, was_reset = clients.read_to_end(sock)
    if was_reset:
        return RESET
    alert = clients.alert_in(data)
    if alert is not None:
        return f"bytes over TCP: alert {alert} ({AlertDescription[alert.upper()].value})"
    if data.startswith(b"\x16"):
        return "bytes over TCP: a part of a handshake, then the end"
    assert not data, data
    return "bytes over TCP: closed without a word"
