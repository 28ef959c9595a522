"""`tlstunnel bench ciphers` and `tlstunnel bench relay`: what TLS costs on this machine."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlstunnel.errors import StartupError, UsageError, words_of

if TYPE_CHECKING:
    from tlstunnel.config.model import Config, Service

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Benchmark cipher suites, keys, groups and the relay here."
)

_Quick = Annotated[bool, typer.Option("--quick", help="Under 20 seconds, with more doubt.")]
_JSON = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write everything as JSON.", show_default=False)
]
_Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png|.svg", help="Also draw a figure (needs matplotlib).", show_default=False),
]


@app.command()
def ciphers(
    *,
    quick: _Quick = False,
    words: Annotated[
        str, typer.Option("--filter", metavar="WORDS", help="Only rows in which all of these words occur.")
    ] = "",
    json_file: _JSON = None,
    plot_file: _Plot = None,
) -> None:
    """Which suite, key and group to choose on this machine: handshakes and data, measured in memory.

    Takes about two minutes. The recommendation and its reasons are at the end.
    """
    from tlstunnel.tools.bench import advice, cases, machine, plot, report
    from tlstunnel.tools.bench import ciphers as bench

    _check_outputs(json_file, plot_file)
    chosen = cases.chosen_by(words)
    if not chosen:
        raise UsageError(
            "--filter", f'"{words}" is in no row; write words such as "1.3 resumed", "p-256" or "bulk gcm"'
        )
    facts = machine.look()
    with _progress() as progress:
        results = bench.run(chosen, bench.QUICK if quick else bench.THOROUGH, progress)
    found = advice.advise(results, has_aes=machine.has_aes(facts))
    print("\n".join(report.as_text(results, found, facts)))
    if json_file is not None:
        _write_json(json_file, report.as_json(results, found, facts, quick=quick, words=words))
    if plot_file is not None:
        plot.draw(plot_file, results, facts)


@app.command()
def relay(
    *,
    cert: Annotated[
        Path | None, typer.Option("--cert", metavar="PEM", help="This certificate, not one made for it.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="PEM", help="Its private key.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Certificate and suites of this configuration.")
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", metavar="NAME", help="Which of its services, if there are several.")
    ] = None,
    workers: Annotated[str, typer.Option("--workers", metavar="N|auto", help="Worker processes.")] = "1",
    min_version: Annotated[str | None, typer.Option("--min-version", metavar="1.2|1.3", help="Lowest version.")] = None,
    max_version: Annotated[
        str | None, typer.Option("--max-version", metavar="1.2|1.3", help="Highest version.")
    ] = None,
    ciphersuites: Annotated[
        str | None, typer.Option("--ciphersuites", metavar="LIST", help="TLS 1.3 suites, colon-separated.")
    ] = None,
    ciphers: Annotated[
        str | None, typer.Option("--ciphers", metavar="LIST", help="TLS 1.2 ciphers, as OpenSSL lists them.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option("--groups", metavar="LIST", help="Key-exchange groups, colon-separated.")
    ] = None,
    quick: _Quick = False,
    json_file: _JSON = None,
    plot_file: _Plot = None,
) -> None:
    """What the whole tunnel costs on this machine: throughput, handshakes, latency, and CPU time of each.

    Runs a real daemon with a backend and clients of its own, on loopback. What is measured is the suite and group that
    the service prefers. Client certificates, access rules and limits are left out.
    """
    from tlstunnel.daemon.system.limits import usable_cores
    from tlstunnel.tools.bench import machine, relay_report
    from tlstunnel.tools.bench import relay as bench
    from tlstunnel.tools.bench.folder import temporary

    _check_outputs(json_file, plot_file)
    given = {
        "cert": [str(cert)] if cert else [], "key": [str(key)] if key else [], "workers": workers,
        "min_version": min_version, "max_version": max_version, "ciphersuites": ciphersuites, "ciphers": ciphers,
        "groups": groups,
    }  # fmt: skip
    with temporary() as folder:
        subject, measured = _subject(config, service, given, folder)
        count = measured.process.workers or usable_cores()
        command = _command(measured, folder)
        facts = machine.look()
        effort = bench.QUICK if quick else bench.THOROUGH
        kind = _look(measured.services[0], "" if config is None else f"{config}: services.{measured.services[0].name}.")
        with _progress() as progress:
            outcome = bench.run(command, measured.services[0].tls, effort, workers=count, progress=progress)
    print("\n".join(relay_report.as_text(outcome, facts, subject=subject, key=kind)))
    if json_file is not None:
        _write_json(json_file, relay_report.as_json(outcome, facts, quick=quick, subject=subject, key=kind))
    if plot_file is not None:
        relay_report.draw(plot_file, outcome, facts, subject=subject)


def _subject(config: Path | None, name: str | None, given: Mapping[str, Any], folder: Path) -> tuple[str, Config]:
    """What is measured, in words, and a configuration with its certificate and TLS settings and nothing else."""
    from tlstunnel.cli.options import read
    from tlstunnel.config.model import Mode

    if config is None:
        if name is not None:
            raise UsageError("--service", "names a service of a configuration; add --config FILE")
        given = {**given, "listen": ["127.0.0.1:0"], "target": ["127.0.0.1:1"]}
        words = "a certificate of yours"
        if not given["cert"]:
            words = "a certificate made for this"
            given |= _made_certificate(folder)
        return words, _bare(read(Mode.SERVER, given).services[0], read(Mode.SERVER, given))
    others = sorted(option for option, value in given.items() if value and option != "workers")
    if others:
        option = "--" + others[0].replace("_", "-")
        raise UsageError(option, "is the configuration's to say; leave it out, or leave --config out")
    service = _service_of(config, name)
    asked = read(Mode.SERVER, {"listen": ["127.0.0.1:0"], "target": ["127.0.0.1:1"], "workers": given["workers"],
                               **_made_certificate(folder)})  # fmt: skip
    return f"service {service.name}", _bare(service, asked)


def _made_certificate(folder: Path) -> dict[str, list[str]]:
    from tlstunnel.tools.pki import authority, issue

    made = issue.server(authority.create(folder / "ca"), ["localhost"], folder)
    return {"cert": [str(made.certificate)], "key": [str(made.key)]}


def _service_of(path: Path, name: str | None) -> Service:
    from tlstunnel.config.load import load_file
    from tlstunnel.config.model import Mode

    servers = {each.name: each for each in load_file(path).services if each.mode is Mode.SERVER}
    names = ", ".join(servers)
    if not servers:
        raise UsageError("--config", f"{path} has no service in server mode; only those have a certificate to measure")
    if name is None:
        if len(servers) > 1:
            raise UsageError("--config", f"{path} has several services in server mode; add --service, one of: {names}")
        return next(iter(servers.values()))
    if name not in servers:
        raise UsageError("--service", f'"{name}" is no service of {path} in server mode; write one of: {names}')
    return servers[name]


def _bare(service: Service, asked: Config) -> Config:
    """A service's certificate and TLS settings, on a port of its own, without rules and limits."""
    from tlstunnel.address import TCPAddress
    from tlstunnel.config.model import Admin, Log, Mode
    from tlstunnel.config.model import Config as NewConfig
    from tlstunnel.config.model import Service as NewService

    loopback = TCPAddress("127.0.0.1", 0)
    bare = NewService(
        name=service.name, mode=Mode.SERVER, listen=(loopback,), targets=(TCPAddress("127.0.0.1", 1),),
        certificate=service.certificate, tls=service.tls,
    )  # fmt: skip
    return NewConfig(services=(bare,), process=asked.process, admin=Admin(listen=loopback), log=Log(level="warning"))


def _command(config: Config, folder: Path) -> Callable[[int], list[str]]:
    """How the daemon is started once the backend's port is known."""
    import dataclasses

    from tlstunnel.address import TCPAddress
    from tlstunnel.config.effective import render_config

    def command(port: int) -> list[str]:
        service = dataclasses.replace(config.services[0], targets=(TCPAddress("127.0.0.1", port),))
        path = folder / "tlstunnel.toml"
        path.write_text(render_config(dataclasses.replace(config, services=(service,))))
        return [sys.executable, "-P", "-m", "tlstunnel", "run", str(path)]

    return command


def _look(service: Service, where: str) -> str:
    """The certificate's type of key: `ECDSA P-256`. What is wrong with it, or with the settings, is said here, before
    anything is started; `where` is put before the key, for options it is empty."""
    from tlstunnel.tls.context import check_settings
    from tlstunnel.x509.material import MaterialError, load_credential
    from tlstunnel.x509.passphrase import PassphraseSource

    for error in check_settings(service.tls):
        raise UsageError(f"{where}{error.key}" if where else "--" + error.key.replace("_", "-"), str(error))
    try:
        source = PassphraseSource.of_this_process()
        return " and ".join(load_credential(files, source).key_type for files in service.certificate)
    except MaterialError as exc:
        raise StartupError(str(exc)) from exc


def _check_outputs(json_file: Path | None, plot_file: Path | None) -> None:
    """Refuse now what would fail after minutes of measuring."""
    from tlstunnel.tools.bench import plot

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise StartupError(f"--json: {json_file.absolute().parent} is no folder; make it first")
    if plot_file is not None:
        plot.check(plot_file)


def _write_json(path: Path, found: Mapping[str, Any]) -> None:
    from tlstunnel._version import VERSION

    found = {"tlstunnel": VERSION, **found}
    try:
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    except OSError as exc:
        raise StartupError(f"--json: {path}: cannot be written ({words_of(exc)})") from exc


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error while that is a terminal; nothing otherwise."""
    if not sys.stderr.isatty():
        yield lambda done, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    what = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
    columns = (BarColumn(bar_width=24), TaskProgressColumn(), TimeElapsedColumn(), what)
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=5, expand=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda done, what: bar.update(task, completed=done, description=what)
