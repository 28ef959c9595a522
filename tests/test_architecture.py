"""The rooms of the package: who may import whom, which libraries and which parts of the machine each may touch.

The table `ROOMS` is the only place that says so; each room's `__init__` says the same in words. Every test names all
offenders at once, with file and line.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tlstunnel"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_RELAY_LINES = 1120


@dataclass(frozen=True)
class Room:
    """What the modules of one room may import. A room may always import itself.

    Args:
        uses: rooms, or single modules of a room, of our own.
        libraries: libraries that only some rooms have, and of the standard library what touches the machine.
    """

    uses: str = ""
    libraries: str = ""

    def may_use(self, name: str) -> bool:
        return any(is_below(name, top) for top in self.uses.split())

    def may_load(self, name: str) -> bool:
        return any(is_below(name, top) for top in self.libraries.split())


VALUES = "errors outcome address lifetime parse_errors reading clock patience"

# From the bottom up. A room stands below those that use it.
ROOMS: dict[str, Room] = {
    # Values: pure.
    "_version": Room(),
    "errors": Room(),
    "lifetime": Room(),
    "parse_errors": Room("", "cryptography"),
    "patience": Room(),
    "outcome": Room(),
    "address": Room("errors", "os pathlib socket"),
    "proxy_protocol": Room("errors", "socket"),
    "clock": Room("patience", "trio"),
    "reading": Room("errors", "os pathlib select stat"),
    "access": Room("errors outcome parse_errors", "cryptography"),
    "config": Room("errors address reading access", "os pathlib stat"),
    # Data: OpenSSL and bytes.
    "_openssl": Room("", "OpenSSL cryptography cryptography.hazmat.bindings ctypes mmap os socket"),
    "relay": Room("_openssl outcome", "fcntl select socket"),
    "x509": Room(
        "errors lifetime parse_errors reading config.model _openssl", "cryptography os pathlib select signal stat"
    ),
    "tls": Room(f"{VALUES} access config.model _openssl x509", "cryptography OpenSSL os pathlib socket stat"),
    # Control: one connection, and what is shown of all.
    "observe": Room(f"{VALUES} _version config.model", "mmap os pathlib select signal socket stat"),
    "observe.metrics": Room(f"{VALUES} _version config.model observe", "prometheus_client"),
    "observe.admin": Room(
        f"{VALUES} _version config.model observe x509.trust", "h11 trio os pathlib signal socket ssl"
    ),
    "connection.starttls": Room("errors"),
    "connection": Room(
        f"{VALUES} proxy_protocol access config.model _openssl relay tls x509 observe connection.starttls",
        "fcntl mmap os select socket trio",
    ),
    # Process: the daemon.
    "daemon.system": Room("errors config.model connection.ledger", "ctypes os pathlib resource select socket"),
    "daemon.listen": Room("errors address config.model daemon.system", "os pathlib socket stat"),
    "daemon": Room(
        f"{VALUES} _version access config _openssl tls x509 observe relay connection daemon",
        "ctypes fcntl mmap os pathlib resource select signal socket ssl tempfile trio",
    ),
    # The wing of tools: nothing of the daemon needs them.
    "tools": Room(),
    "tools.tls13": Room("errors parse_errors", "cryptography os"),
    "tools.pki": Room(
        "errors lifetime address parse_errors _openssl tls.reasons x509", "cryptography fcntl os pathlib ssl stat"
    ),
    "tools.probe": Room(
        "errors lifetime address parse_errors x509 connection.starttls tools.tls13 tools.pki",
        "concurrent cryptography os pathlib socket ssl threading",
    ),
    "tools.session": Room(
        f"{VALUES} config.model _openssl relay tls x509 connection", "h11 os signal socket trio"
    ),
    "tools.top": Room("errors address config.model observe.lines x509", "os pathlib socket ssl"),
    "tools.bench": Room(
        f"{VALUES} config.model _openssl relay tls x509 tools.pki",
        "matplotlib os pathlib select signal socket subprocess tempfile",
    ),
    # Commands: everything below is theirs.
    "cli": Room(
        f"{VALUES} _version access config _openssl tls x509 observe daemon tools",
        "os pathlib rich select signal socket stat subprocess tempfile typer",
    ),
    "": Room("_version cli"),
    "__main__": Room("cli"),
}  # fmt: skip

# What only the rooms have that name it. The rest of the standard library is everybody's.
GUARDED = (
    "OpenSSL cryptography h11 matplotlib prometheus_client rich trio typer "
    "asyncio concurrent ctypes fcntl mmap multiprocessing os pathlib resource select shutil signal socket ssl stat "
    "subprocess tempfile threading"
).split()


def is_below(name: str, top: str) -> bool:
    return name == top or name.startswith(top + ".")


def place(path: Path) -> str:
    """`tlstunnel/tls/store.py` is `tls.store`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Every module name imported anywhere in the file, also inside functions, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return tuple(found)


def room_of(where: str) -> str | None:
    """The most specific room that a module stands in: `observe.metrics` before `observe`."""
    if where in ("", "__main__"):
        return where
    return max((room for room in ROOMS if room and is_below(where, room)), key=len, default=None)


def sites() -> Iterator[tuple[str, str, str, str]]:
    """Every import of the package: `file:line`, the importing module, its room, and what it imports."""
    for path in FILES:
        where = place(path)
        for line, name in imports(path):
            yield f"{path.relative_to(ROOT)}:{line}", where, room_of(where) or "", name


def test_every_module_stands_in_a_room() -> None:
    assert [str(path.relative_to(ROOT)) for path in FILES if room_of(place(path)) is None] == []


def test_every_room_of_the_table_exists() -> None:
    places = [place(path) for path in FILES]
    assert [room for room in ROOMS if not any(is_below(where, room) or where == room for where in places)] == []


def test_every_folder_says_what_lives_there() -> None:
    silent = []
    for path in FILES:
        if path.name == "__init__.py" and path.parent != PACKAGE:
            text = ast.get_docstring(ast.parse(path.read_text())) or ""
            if not all(word in text for word in ("Imports:", "Touches:")):
                silent.append(str(path.relative_to(ROOT)))
    assert silent == [], "the docstring says what lives here, then 'Imports:' and 'Touches:'"


def test_nothing_is_imported_relatively() -> None:
    assert [f"{site} imports {name}" for site, _, _, name in sites() if name.startswith(".")] == []


def test_imports_go_down_only() -> None:
    offenders = []
    for site, where, room, name in sites():
        if not name.startswith("tlstunnel."):
            continue
        target = name.removeprefix("tlstunnel.")
        is_inside = is_below(target, room) if room else False
        if not (is_inside or ROOMS[room].may_use(target)):
            offenders.append(f"{site}: {where} must not import {target}")
    assert offenders == []


def test_libraries_and_the_machine_are_touched_only_where_the_table_says() -> None:
    offenders = []
    for site, where, room, name in sites():
        guarded = next((library for library in GUARDED if is_below(name, library)), None)
        if guarded is not None and not (ROOMS[room].may_load(name) or ROOMS[room].may_load(guarded)):
            offenders.append(f"{site}: {where} must not use {name}")
    assert offenders == []


def test_the_binding_below_openssl_is_reached_through_one_door() -> None:
    binding = "cryptography.hazmat.bindings"
    assert [
        f"{site}: {name}" for site, _, room, name in sites() if is_below(name, binding) and room != "_openssl"
    ] == []


def test_the_relay_can_be_read_in_half_an_hour() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (PACKAGE / "relay").glob("*.py"))
    assert lines <= MAX_RELAY_LINES


def test_no_module_imports_in_a_circle() -> None:
    modules = {place(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for where, path in modules.items():
        names = {name.removeprefix("tlstunnel.") for _, name in imports(path) if name.startswith("tlstunnel.")}
        graph[where] = {
            other for other in modules if other and other != where and any(is_below(n, other) for n in names)
        }
        # `from tlstunnel.config.model import X` names config.model, not the package above it.
        graph[where] -= {other for other in graph[where] if any(o.startswith(other + ".") for o in graph[where])}
    circles: list[str] = []
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        if node in trail:
            circles.append(" -> ".join((*trail[trail.index(node) :], node)))
        elif node not in done:
            for other in sorted(graph[node]):
                visit(other, (*trail, node))
            done.add(node)

    for node in sorted(graph):
        visit(node, ())
    assert circles == []


def test_importing_everything_has_no_effects() -> None:
    names = [f"tlstunnel.{place(path)}" for path in FILES if place(path).rpartition(".")[2] not in ("", "__main__")]
    program = (
        "import importlib, os, signal, sys, threading\n"
        "handlers = [signal.getsignal(n) for n in (1, 2, 15)]; fds = set(os.listdir('/proc/self/fd'))\n"
        f"for name in {names!r}:\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError as exc:\n"
        "        assert exc.name == 'matplotlib', exc\n"
        "assert threading.active_count() == 1\n"
        "assert [signal.getsignal(n) for n in (1, 2, 15)] == handlers\n"
        "new = {os.path.realpath(f'/proc/self/fd/{fd}') for fd in set(os.listdir('/proc/self/fd')) - fds}\n"
        "assert not any('socket' in path or 'eventpoll' in path for path in new), new\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
