"""A story on the terminal: numbered steps, one below the other."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from tlstunnel.tools.tls13.story import Field, Step, Story

_WIDTH = 110
_INDENT = "     "
_LONG = 96
Line = tuple[str, str]


def show(story: Story, *, show_hex: bool) -> None:
    """Print it on stdout, in colours where stdout is a terminal."""
    console = Console(highlight=False, soft_wrap=True)
    for style, line in lines(story, show_hex=show_hex):
        console.print(Text(line, style=style))


def lines(story: Story, *, show_hex: bool = False) -> Iterator[Line]:
    """Every line with its style."""
    yield "bold", story.title
    yield from (("", line) for line in _summary(story))
    for step in story.steps:
        yield "", ""
        yield from _step(step, show_hex=show_hex)
    yield "", ""
    yield from _wire(story, show_hex=show_hex)


def _summary(story: Story) -> Iterator[str]:
    summary = story.summary
    chosen = [summary[each] for each in ("cipher_suite", "group", "signature", "alpn") if summary[each]]
    if chosen:
        yield f"{_INDENT}agreed on: {', '.join(chosen)}"
    facts = {"resumed": "resumed", "hello_retry_request": "with a HelloRetryRequest"}
    for key, text in facts.items():
        if summary[key]:
            yield f"{_INDENT}{text}"
    if summary["chain"]:
        yield from textwrap.wrap(
            f"server's certificate: {summary['chain']}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT
        )


def _step(step: Step, *, show_hex: bool) -> Iterator[Line]:
    yield "bold cyan" if step.kind == "message" else "bold", f"{step.number:3}. {_headline(step)}"
    for paragraph in step.text:
        yield from (
            ("", line) for line in textwrap.wrap(paragraph, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
        )
    width = min(max((len(each.name) + 2 * each.depth for each in step.fields), default=0), 34)
    for each in step.fields:
        yield from _field(each, width, show_hex=show_hex)
    for derivation in step.derivations:
        yield "green", f"{_INDENT}{derivation.name}"
        yield "dim", f"{_INDENT}  = {derivation.formula}"
        for name, value in derivation.inputs:
            yield "dim", f"{_INDENT}    {name}: {value.hex()}"
        yield "", f"{_INDENT}  = {derivation.value.hex()}"
    for keys in step.keys:
        yield "green", f"{_INDENT}{keys.owner}'s {keys.epoch} keys"
        label = f'HKDF-Expand-Label({keys.secret_name}, "key" and "iv", "", length)'
        yield "dim", f"{_INDENT}  = {label}"
        yield "", f"{_INDENT}  key {keys.key.hex()}"
        yield "", f"{_INDENT}  iv  {keys.iv.hex()}"
    for check in step.checks:
        mark = "verified" if check.passed else "NOT verified"
        yield from _wrapped("green" if check.passed else "bold red", f"{mark} by the {check.by}: {check.text}")
        for name, value in check.values:
            yield "dim", f"{_INDENT}  {name}: {value.hex()}"
    if step.transcript_hash is not None:
        yield "yellow", f"{_INDENT}Transcript-Hash after it: {step.transcript_hash.hex()}"
    if show_hex and step.bytes is not None:
        yield from _dump(step.bytes)


def _headline(step: Step) -> str:
    section = f"RFC 8446 {'appendix' if step.section[0].isalpha() else 'section'} {step.section}"
    if step.sender is None:
        return f"{step.title}  ({section})"
    other = "server" if step.sender == "client" else "client"
    cover = f"encrypted, {step.protection} keys" if step.protection else "plaintext"
    return f"{step.sender} -> {other}: {step.title}  [{cover}]  ({section})"


def _field(each: Field, width: int, *, show_hex: bool) -> Iterator[Line]:
    indent = _INDENT + "  " * (each.depth + 1)
    value = each.value if show_hex or len(each.value) <= _LONG else _shortened(each.value)
    meaning = f"   # {each.meaning}" if each.meaning else ""
    yield "", f"{indent}{each.name:<{width - 2 * each.depth}}  {value}{meaning}"


def _shortened(value: str) -> str:
    """Long runs of hexadecimal are cut in the middle; words never are."""
    words = value.split(" ")
    return " ".join(f"{word[:40]}...{word[-16:]}" if len(word) > 72 else word for word in words)


def _wrapped(style: str, text: str) -> Iterator[Line]:
    for line in textwrap.wrap(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "):
        yield style, line


def _dump(data: bytes) -> Iterator[Line]:
    for start in range(0, len(data), 32):
        yield "dim", f"{_INDENT}{start:06x}  {data[start : start + 32].hex(' ')}"


def _wire(story: Story, *, show_hex: bool) -> Iterator[Line]:
    yield "bold", "What went over the wire"
    for each in story.records:
        inner = f" holding {each.inner_type}, record {each.sequence} under {each.epoch} keys" if each.inner_type else ""
        yield "", f"{each.number:5}. {each.sender}: {each.outer_type}, {each.length} bytes{inner}"
        if show_hex:
            yield from _dump(each.bytes)
