"""The four planes: who may import whom, how large the relay may be, and that importing has no effects."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tlstunnel"
FILES = sorted(PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in FILES]
MAX_RELAY_LINES = 1120

# Which of our own packages and modules each place may import; a place is a package, or a module named in full.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "lifetime": set(),
    "patience": set(),
    "clock": {"patience"},
    "reading": set(),
    "outcome": set(),
    "address": {"errors"},
    "proxy_protocol": {"errors"},
    "_openssl": {"_openssl"},
    "starttls": {"errors"},
    "relay": {"_openssl", "outcome"},
    "x509": {"errors", "lifetime", "reading", "_openssl"},
    "tls": {"errors", "lifetime", "x509", "outcome", "address", "reading", "_openssl", "config.model"},
    "tls.policy": {"errors", "tls.peer", "tls.likeness"},
    "tls.likeness": set(),
    "config": {"errors", "address", "reading", "config", "tls.policy"},
    "config.model": {"address", "tls.policy"},
    "observe": {"errors", "clock", "lifetime", "outcome", "address", "reading", "config.model", "_version"},
    "server": {
        "errors", "outcome", "clock", "address", "proxy_protocol", "_openssl", "relay", "tls", "starttls",
        "config.model", "observe",
    },
    "supervisor": {
        "errors", "patience", "outcome", "address", "reading", "config", "x509", "tls", "observe", "server",
        "_version",
    },
    "pki": {"errors", "lifetime", "reading", "x509"},
    "tls13": {"errors"},
    "probe": {"errors", "lifetime", "address", "x509", "tls13", "pki", "starttls"},
    "bench": {"errors", "outcome", "address", "_openssl", "relay", "x509", "tls", "tls13", "pki", "config.model"},
}  # fmt: skip

# A library may be imported only below these places.
LIBRARY_ONLY_IN: dict[str, set[str]] = {
    "trio": {"server", "observe.admin", "clock"},
    "typer": {"cli"},
    "rich": {"cli"},
    "prometheus_client": {"observe.metrics"},
    "h11": {"observe.admin", "server.embedded"},
    "OpenSSL": {"tls.context", "tls.ciphers", "tls.portable", "_openssl"},
    "cryptography.hazmat.bindings": {"_openssl"},
    "cryptography": {"x509", "tls", "pki", "tls13", "probe", "_openssl"},
    "matplotlib": {"bench"},
}


def place(path: Path) -> str:
    """`tlstunnel/tls/policy.py` is `tls.policy`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> list[tuple[int, str]]:
    """Every module name imported anywhere in the file, also inside functions, with its line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def is_below(name: str, tops: set[str]) -> bool:
    return any(name == top or name.startswith(top + ".") for top in tops)


def rule_for(where: str) -> set[str] | None:
    """The most specific rule: `tls.policy` before `tls`. A package may always import itself unless named in full."""
    if where in MAY_IMPORT:
        return MAY_IMPORT[where]
    top = where.partition(".")[0]
    rule = MAY_IMPORT.get(top)
    return None if rule is None else rule | {top}


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_down_only(path: Path) -> None:
    where = place(path)
    rule = rule_for(where)
    if rule is None:
        assert where.partition(".")[0] in ("cli", "__main__", ""), f"{where}: name its rule in MAY_IMPORT"
        return
    for line, name in imports(path):
        if name == "tlstunnel" or not name.startswith("tlstunnel."):
            continue
        target = name.removeprefix("tlstunnel.")
        assert is_below(target, rule), f"{path}:{line}: {where} must not import {target}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_libraries_stay_in_their_plane(path: Path) -> None:
    where = place(path)
    for line, name in imports(path):
        for library, allowed in LIBRARY_ONLY_IN.items():
            if is_below(name, {library}):
                assert is_below(where, allowed), f"{path}:{line}: {library} is for {sorted(allowed)}, not {where}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_nothing_is_used_that_an_early_python_3_11_gets_wrong(path: Path) -> None:
    """What an `except*` block raises is put into a group again before 3.11.4, and possessive quantifiers and atomic
    groups with a lookahead in them never match before 3.11.5. Debian 12 has 3.11.2."""
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.TryStar):
            raised = [inner for handler in node.handlers for inner in ast.walk(handler) if isinstance(inner, ast.Raise)]
            assert not raised, f"{where}: an except* block that raises"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            assert re.search(r"[*+?}]\+.*\(\?[=!]|\(\?[=!].*[*+?}]\+|\(\?>", text) is None, f"{where}: {text}"


def test_the_relay_can_be_read_in_half_an_hour() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (PACKAGE / "relay").glob("*.py"))
    assert lines <= MAX_RELAY_LINES


def test_no_module_imports_in_a_circle() -> None:
    modules = {place(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for where, path in modules.items():
        names = {name.removeprefix("tlstunnel.") for _, name in imports(path) if name.startswith("tlstunnel.")}
        graph[where] = {
            other for other in modules if other and other != where and any(is_below(n, {other}) for n in names)
        }
        # `from tlstunnel.config.model import X` names config.model, not the package above it.
        graph[where] -= {other for other in graph[where] if any(o.startswith(other + ".") for o in graph[where])}
    done: set[str] = set()

    def visit(node: str, trail: tuple[str, ...]) -> None:
        assert node not in trail, " -> ".join((*trail, node))
        if node not in done:
            for other in sorted(graph[node]):
                visit(other, (*trail, node))
            done.add(node)

    for node in sorted(graph):
        visit(node, ())


def test_importing_everything_has_no_effects() -> None:
    names = [f"tlstunnel.{place(path)}" for path in FILES if place(path) not in ("", "__main__")]
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
