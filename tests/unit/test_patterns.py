"""Every regular expression of the package takes a time linear in the text, whatever the text."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tlstunnel
from tests.support.ambiguity import why_not_linear

ROOT = Path(__file__).parents[2]
_ANCHORED = {"match", "fullmatch"}
_SEARCHING = {"search", "finditer", "findall", "split", "sub", "subn", "scanner"}


@dataclass(frozen=True)
class Use:
    """A pattern, and whether it is looked for anywhere in a text."""

    place: str
    pattern: re.Pattern[Any]
    is_search: bool


@functools.cache
def patterns() -> tuple[Use, ...]:
    """Every pattern in the package, once for each way in which it is used."""
    found: dict[tuple[str, bool], Use] = {}
    modules = [module.name for module in pkgutil.walk_packages(tlstunnel.__path__, "tlstunnel.")]
    for name in modules:
        if name.rpartition(".")[2] == "__main__":
            continue  # running it is what it is for; it has a few lines
        module = importlib.import_module(name)
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for use in (*_kept(name, vars(module), tree), *_written_in_place(name, tree)):
            found[use.place, use.is_search] = use
    return tuple(found.values())


def _kept(name: str, values: dict[str, Any], tree: ast.AST) -> Iterator[Use]:
    """Patterns with a name. One that is used elsewhere, or in a way not seen here, counts as searched for."""
    ways: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            ways.setdefault(node.value.id, set()).add(node.attr)
    for variable, value in values.items():
        if isinstance(value, re.Pattern):
            methods = ways.get(variable, set()) & (_ANCHORED | _SEARCHING)
            yield Use(f"{name}.{variable}", value, not methods or bool(methods & _SEARCHING))


def _written_in_place(name: str, tree: ast.AST) -> Iterator[Use]:
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        method, place = node.func.attr, f"{name}:{node.lineno}"
        if method in _ANCHORED | _SEARCHING:
            assert not any(word.arg == "flags" for word in node.keywords), place
            yield Use(place, re.compile(_text_of(node.args[0], place)), method in _SEARCHING)


def _text_of(node: ast.expr, place: str) -> Any:
    """A pattern as it is written: one string, or strings put together with what `re.escape` makes of a value, and with
    numbers for how often something stands there."""
    match node:
        case ast.Constant(value=str() | bytes() as text):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text_of(left, place) + _text_of(right, place)
        case ast.Call() if ast.unparse(node.func) == "re.escape":
            return "value"
        case ast.JoinedStr(values=values):
            return "".join(str(value.value) if isinstance(value, ast.Constant) else "9" for value in values)
    raise AssertionError(f"{place}: the pattern is not written where it is used")


def test_every_pattern_takes_linear_time() -> None:
    guilty = [
        f"{use.place}: {use.pattern.pattern!r}: {why}"
        for use in patterns()
        if (why := why_not_linear(use.pattern, is_search=use.is_search))
    ]
    assert guilty == []


def test_no_pattern_is_overlooked() -> None:
    """A pattern has a name at the top of its module or is written where it is used; nothing else makes one."""
    seen = {use.place for use in patterns()}
    for path in sorted(Path(tlstunnel.__path__[0]).rglob("*.py")):
        tree = ast.parse(path.read_text())
        module = ".".join(("tlstunnel", *path.relative_to(tlstunnel.__path__[0]).with_suffix("").parts))
        named = [
            ast.unparse(statement.targets[0])
            for statement in tree.body
            if isinstance(statement, ast.Assign) and ast.unparse(statement.value).startswith("re.compile(")
        ]
        assert {f"{module}.{name}" for name in named} <= seen
        made = 0
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not any(name.name == "fnmatch" or (name.name == "re" and name.asname) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in ("re", "fnmatch"), path
            elif isinstance(node, ast.Call):
                made += ast.unparse(node.func) == "re.compile"
        assert made == len(named), path


@pytest.mark.slow
def test_every_parser_of_text_from_outside_answers_a_long_text() -> None:
    """Patterns are not all: whatever a parser does, what it costs does not grow with the square of the text."""
    command = [sys.executable, "-m", "tests.support.long_texts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good" in done.stdout


SLOW = {
    "two ways around": (r"(?=.{1,253}\.?$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.?)+", False),
    "nested": (r"(?:a+)+b", False),
    "nested star": (r"(?:a*)*b", False),
    "alternatives": (r"(?:a|a)*b", False),
    "alternatives that overlap": (r"(?:\d|\wx?)*!", False),
    "nested bounded": (r"(?:a{1,9}){1,30}b", False),
    "lazy before blanks": (r"\s*([\w.-]+)\s*=\s*([^\s\"'\[{#].*?)\s*(?:#.*)?", False),
    "one behind the other": (r"a*[ab]*c", False),
    "found anywhere": (r"a+b", True),
    "found anywhere, but only there": (r"a+$", True),
    "an assertion in a loop": (r"(?:(?=[^x]*y)a)*", False),
}
QUICK = {
    "one loop": (r"a+b", False),
    "told apart": (r"a*b*c", False),
    "labels": (r"[a-z](?:[a-z-]{0,61}[a-z])?(?:\.[a-z](?:[a-z-]{0,61}[a-z])?)*", False),
    "found anywhere": (r"-----BEGIN ([A-Z0-9 ]{1,60})-----", True),
    "found at once": (r"[:, ]+", True),
    "in quotes": (r"'([^']*)'", True),
    "an assertion once": (r"(?=.{1,253}$)a*", False),
}


@pytest.mark.parametrize(("pattern", "is_search"), SLOW.values(), ids=SLOW)
def test_a_slow_pattern_is_found(pattern: str, is_search: bool) -> None:
    assert why_not_linear(re.compile(pattern), is_search=is_search)


@pytest.mark.parametrize(("pattern", "is_search"), QUICK.values(), ids=QUICK)
def test_a_quick_pattern_is_left_alone(pattern: str, is_search: bool) -> None:
    assert why_not_linear(re.compile(pattern), is_search=is_search) is None
