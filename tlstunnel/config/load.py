"""Loading: from a TOML file or from the command line to one `Config`, or to every problem at once."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from tlstunnel.address import Listen, SystemdAddress, TCPAddress, UnixAddress
from tlstunnel.config.keys import SECTIONS, fields_of, keys_in, make, read_keys
from tlstunnel.config.model import COMMAND_LINE, Admin, Config, Log, Mode, Process, Service
from tlstunnel.config.reader import Table
from tlstunnel.config.service import keys_of, read_service
from tlstunnel.config.source import FilesError, FileSource, OptionSource, Report, Source, Steps
from tlstunnel.config.syntax import MAX_DEPTH, depth, explain, has_endless_key, too_deep
from tlstunnel.errors import ConfigError, Problem, printable
from tlstunnel.reading import UnfitFileError, read_whole

T = TypeVar("T")
_SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")  # it is a metric label and stands in log lines
MAX_BYTES = 16 << 20
"""A service takes a few hundred bytes: this is room for tens of thousands."""


def load_file(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigError: with every problem in the file, in file order. Its exit code is 1 instead of 2 where the text is
            right and only files it names are missing or unreadable.
    """
    config, _, error = examine(path)
    if error is not None:
        raise error
    return config


def examine(path: Path) -> tuple[Config, tuple[Service, ...], ConfigError | None]:
    """Read a configuration file as far as it can be read: to look further into what is right beside what is wrong.

    Returns:
        The services without a problem; of those with problems, what can be looked at all the same; and all problems.
        If there are any, nothing must be started with the former.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    raw = _read(path)
    try:
        text = raw.decode("utf-8-sig")
        if has_endless_key(text):
            raise ConfigError([too_deep(str(path))])
        document = tomllib.loads(text)
    except ValueError as exc:  # UnicodeDecodeError and TOMLDecodeError alike
        raise ConfigError([explain(str(path), raw, exc)]) from exc
    except RecursionError:
        raise ConfigError([too_deep(str(path))]) from None
    if depth(document) > MAX_DEPTH:
        raise ConfigError([too_deep(str(path))])
    return _load(FileSource(str(path), path.absolute().parent), document, str(path))


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, MAX_BYTES).data
    except UnfitFileError as exc:
        raise (FilesError if exc.is_machine else ConfigError)([Problem(printable(str(path)), str(exc))]) from exc


def from_options(
    mode: Mode, values: Mapping[tuple[str, str], object], options: Mapping[tuple[str, str], str]
) -> Config:
    """Make the same value from command line options, by the same code.

    Args:
        mode: what the one service does; it also names the service.
        values: what was given, by key path below a section: `("service", "idle_timeout")`, `("admin", "listen")`.
        options: which option stands for which of these paths, given or not; for messages.

    Raises:
        ConfigError: as `load_file`, each problem naming its option.
    """
    name = mode.value
    service: dict[str, object] = {"mode": mode.value}
    document: dict[str, dict[str, object]] = {"services": {name: service}}
    for (section, key), value in values.items():
        table = service if section == "service" else document.setdefault(section, {})
        table[key] = value
    placed: dict[Steps, str] = {}
    for (section, key), option in options.items():
        placed[("services", name, key) if section == "service" else (section, key)] = option
    config, _, error = _load(OptionSource(placed, Path.cwd()), document, COMMAND_LINE)
    if error is not None:
        raise error
    return config


def _load(
    source: Source, document: Mapping[str, object], name: str
) -> tuple[Config, tuple[Service, ...], ConfigError | None]:
    report = Report(source, document)
    root = Table(report, (), document)
    tables = {section: root.table(section) or root.empty(section) for section in SECTIONS}
    config = Config(
        process=_read_section(tables["process"], "process", Process),
        admin=_read_section(tables["admin"], "admin", Admin),
        log=_read_section(tables["log"], "log", Log),
        services=_read_services(root),
        source=name,
    )
    _check_admin(tables["admin"], config.admin)
    for table in tables.values():
        table.finish()
    root.finish(_belonging())
    _check_listens(report, config)
    sound = tuple(service for service in config.services if not report.touches(("services", service.name)))
    faulty = tuple(service for service in config.services if service not in sound)
    admin = config.admin
    if tables["admin"].is_doubtful("certificate", "key"):
        admin = dataclasses.replace(admin, certificate=None, key=None)  # of no use without one another
    return dataclasses.replace(config, services=sound, admin=admin), faulty, report.error()


def _belonging() -> dict[str, str]:
    """What to say about keys that stand above the first table instead of in their own."""
    sections = {key.name: f"[{section}]" for section, place in SECTIONS.items() for key in keys_in(place)}
    own = {key: "[services.NAME]" for mode in Mode for key in keys_of(mode)}
    return {key: f"belongs below {title}; move it there" for key, title in (sections | own).items()}


def _read_section(table: Table, name: str, cls: type[T]) -> T:
    return make(cls, read_keys(table, keys_in(SECTIONS[name]), fields_of(cls())))


def _check_admin(table: Table, admin: Admin) -> None:
    for key in ("key", "client_ca"):
        if table.has(key):
            right = f"write {table.spell('certificate', 'admin.pem')}"
            table.require("certificate", right, because=f"{table.spell(key)} is of no use without one")
    if table.has("certificate"):
        table.require("listen", f"write {table.spell('listen', ':9464')}", because="nothing is served without it")
    # Where a descriptor of systemd's is bound is seen when it is there, at the start.
    written = None if isinstance(admin.listen, SystemdAddress) else admin.listen
    if written is not None and not written.is_loopback and not admin.unsafe_admin:
        _check_exposed_admin(table, written)


def _check_exposed_admin(table: Table, listen: Listen) -> None:
    """Who can be seen by other machines must be told to be, or know who looks."""
    what = f"{listen} would show the state of the tunnel to other machines"
    unsafe = table.spell("unsafe_admin", True)
    if not table.has("certificate"):
        table.problem("listen", f"{what}, in plaintext; write a loopback address or unix:/path, or {unsafe}")
    elif not table.has("client_ca"):
        ca = table.spell("client_ca", "admin-ca.pem")
        table.problem("listen", f"{what}, whoever they are; write {ca} to serve only those it vouches for, or {unsafe}")


def _read_services(root: Table) -> tuple[Service, ...]:
    root.require("services", "write at least one table [services.NAME] with listen and target")
    tables = root.table("services")
    if tables is None:
        return ()
    if not tables.keys:
        tables.problem(None, "there is none; write at least one table [services.NAME] with listen and target")
    services = []
    for name in tables.keys:
        table = tables.table(name)
        if not _SERVICE_NAME.fullmatch(name):
            tables.problem(name, "a service's name is 1 to 63 letters, digits, _, . or -; write such a name")
        elif table is not None:
            services.append(read_service(table, name))
    return tuple(services)


def _check_listens(report: Report, config: Config) -> None:
    """No two listeners on one address: sockets with SO_REUSEPORT would silently share its connections."""
    taken: dict[object, str] = {}
    places: list[tuple[Steps, Listen]] = []
    if config.admin.listen is not None:
        places.append((("admin", "listen"), config.admin.listen))
    places += [
        (("services", service.name, "listen"), listen) for service in config.services for listen in service.listen
    ]
    for steps, listen in places:
        owner = f"[{steps[0]}]" if steps[0] == "admin" else f"service {steps[1]}"
        for socket in _sockets(listen):
            if socket in taken:
                first = "twice" if taken[socket] == owner else f"by {taken[socket]} already"
                report.add(steps, f"{listen} is listened on {first}; write another address or port")
                break
        for socket in _sockets(listen):
            taken.setdefault(socket, owner)


def _sockets(listen: Listen) -> Iterable[object]:
    """What is bound, in comparable form. Port 0 never collides."""
    if isinstance(listen, UnixAddress | SystemdAddress):
        return (str(listen),)
    if listen.port == 0:
        return ()
    return tuple((host, listen.port) for host in _hosts(listen))


def _hosts(listen: TCPAddress) -> tuple[object, ...]:
    if not listen.host:
        return (ipaddress.ip_address("0.0.0.0"), ipaddress.ip_address("::"))
    if not listen.is_literal:
        name = listen.host.lower().rstrip(".")
        loopback = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
        return loopback if name == "localhost" else (name,)
    address = ipaddress.ip_address(listen.host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address,)
