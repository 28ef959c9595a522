"""A story as one self-contained HTML page: a sequence diagram, and every step below it with its bytes.

No script, no network, no fonts from elsewhere. Everything a stranger sent goes through `escape`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from html import escape

from tlstunnel.tools.tls13.story import Step, Story

_LEFT, _RIGHT, _ROW, _TOP = 150, 750, 46, 60
_WIDTH = 900
_STYLE = """
:root { --ink: #1a1f26; --paper: #fff; --soft: #5b6673; --line: #d7dde4; --plain: #b45309; --sealed: #1d6f42;
        --secret: #6b3fa0; --box: #f5f7f9; --bad: #b91c1c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #14181d; --soft: #9aa5b1; --line: #333c46; --plain: #f0a95b; --sealed: #63c68f;
          --secret: #bd9bec; --box: #1d232a; --bad: #f87171; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
       max-width: 960px; padding: 32px 24px 96px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; }
h2 { font-size: 19px; margin: 0; } h2 a { color: inherit; text-decoration: none; }
p { margin: 10px 0; max-width: 74ch; }
code, pre, td.value, dd { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
section { border-top: 1px solid var(--line); padding: 22px 0 10px; }
.meta { color: var(--soft); font-size: 14px; margin: 2px 0 8px; }
.plaintext { color: var(--plain); font-weight: 600; } .sealed { color: var(--sealed); font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin: 12px 0; table-layout: fixed; }
td, th { text-align: left; vertical-align: top; padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line); }
td.name { width: 30%; font-size: 14px; overflow-wrap: anywhere; } td.value { overflow-wrap: anywhere; }
.meaning { color: var(--soft); font: 14px/1.5 system-ui, sans-serif; display: block; }
.derivation, .check { background: var(--box); border-left: 3px solid var(--secret); padding: 10px 14px; margin: 12px 0;
       overflow-wrap: anywhere; }
.check { border-left-color: var(--sealed); } .check.failed { border-left-color: var(--bad); }
.derivation h3, .check h3 { margin: 0 0 4px; font-size: 15px; }
dl { display: grid; grid-template-columns: minmax(120px, 28%) 1fr; gap: 2px 14px; margin: 6px 0 0; }
dt { color: var(--soft); font-size: 14px; overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
dd.result { color: var(--secret); }
.hash { color: var(--soft); overflow-wrap: anywhere; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--soft); font-size: 14px; }
pre { background: var(--box); padding: 12px; overflow-x: auto; margin: 8px 0 0; }
.failure { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; margin: 24px 0; }
svg text { font: 15px system-ui, sans-serif; fill: var(--ink); } svg .end { font-weight: 700; font-size: 17px; }
svg .small { font-size: 12.5px; fill: var(--soft); } svg .lifeline { stroke: var(--line); stroke-width: 2; }
svg .arrow { stroke-width: 2; fill: none; } svg .plain { stroke: var(--plain); } svg .seal { stroke: var(--sealed); }
svg .head-plain { fill: var(--plain); } svg .head-seal { fill: var(--sealed); }
svg .compute { fill: var(--box); stroke: var(--secret); } svg a { text-decoration: none; }
"""


def render(story: Story) -> str:
    """The page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(story.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(story.title)}</h1>",
        *_summary(story),
        *_diagram(story),
        *(part for step in story.steps for part in _step(step)),
        *_wire(story),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _summary(story: Story) -> Iterator[str]:
    summary = story.summary
    chosen = [summary[each] for each in ("cipher_suite", "group", "signature", "alpn") if summary[each]]
    if chosen:
        yield f"<p>Agreed on {escape(', '.join(chosen))}.</p>"
    if summary["chain"]:
        yield f"<p>Server's certificate: {escape(summary['chain'])}.</p>"
    if story.failure:
        yield f'<p class="failure">It ended early: {escape(story.failure)}.</p>'
    yield (
        '<p><span class="plaintext">Orange</span> is plaintext that anybody on the path can read, '
        '<span class="sealed">green</span> is encrypted. Boxes are computed by both ends and never sent. '
        "Sections are those of RFC 8446.</p>"
    )


def _diagram(story: Story) -> Iterator[str]:
    height = _TOP + _ROW * len(story.steps) + 30
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Sequence diagram of the handshake">'
    yield "<defs>"
    for name in ("plain", "seal"):
        yield (
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="9" markerHeight="9" '
            f'orient="auto-start-reverse" markerUnits="userSpaceOnUse">'
            f'<path class="head-{name}" d="M0 0 10 5 0 10z"/></marker>'
        )
    yield "</defs>"
    for x, name in ((_LEFT, "client"), (_RIGHT, "server")):
        yield f'<text class="end" x="{x}" y="28" text-anchor="middle">{name}</text>'
        yield f'<line class="lifeline" x1="{x}" y1="40" x2="{x}" y2="{height - 10}"/>'
    for place, step in enumerate(story.steps):
        yield f'<a href="#step-{step.number}">{_row(step, _TOP + _ROW * place + 24)}</a>'
    yield "</svg>"


def _row(step: Step, y: int) -> str:
    label = f"{step.number}. {step.title}"
    middle = (_LEFT + _RIGHT) // 2
    if step.sender is None:
        return (
            f'<rect class="compute" x="{_LEFT - 14}" y="{y - 19}" width="{_RIGHT - _LEFT + 28}" height="28" rx="6"/>'
            f'<text x="{middle}" y="{y}" text-anchor="middle">{escape(label)}</text>'
        )
    start, end = (_LEFT + 2, _RIGHT - 2) if step.sender == "client" else (_RIGHT - 2, _LEFT + 2)
    kind = "seal" if step.protection else "plain"
    cover = f"{step.protection} keys" if step.protection else "plaintext"
    x, anchor = (_RIGHT + 14, "start") if step.sender == "client" else (_LEFT - 14, "end")
    return (
        f'<text x="{middle}" y="{y - 6}" text-anchor="middle">{escape(label)}</text>'
        f'<path class="arrow {kind}" marker-end="url(#{kind})" d="M{start} {y + 4}H{end}"/>'
        f'<text class="small" x="{x}" y="{y + 8}" text-anchor="{anchor}">{escape(cover)}</text>'
    )


def _step(step: Step) -> Iterator[str]:
    yield f'<section id="step-{step.number}"><h2>{step.number}. {escape(step.title)}</h2>'
    yield f'<div class="meta">{_meta(step)}</div>'
    yield from (f"<p>{escape(paragraph)}</p>" for paragraph in step.text)
    if step.fields:
        yield "<table>"
        for each in step.fields:
            meaning = f'<span class="meaning">{escape(each.meaning)}</span>' if each.meaning else ""
            indent = f' style="padding-left:{20 * each.depth}px"' if each.depth else ""
            value = escape(each.value)
            if len(each.value) > 400:
                value = f"<details><summary>{escape(each.value[:72])}...</summary>{value}</details>"
            yield f'<tr><td class="name"{indent}>{escape(each.name)}</td><td class="value">{value}{meaning}</td></tr>'
        yield "</table>"
    for derivation in step.derivations:
        yield f'<div class="derivation"><h3>{escape(derivation.name)}</h3>= {escape(derivation.formula)}'
        yield _definitions(derivation.inputs, derivation.value)
    for keys in step.keys:
        yield f'<div class="derivation"><h3>{escape(keys.owner)}\'s {escape(keys.epoch)} keys</h3>'
        yield f'= HKDF-Expand-Label({escape(keys.secret_name)}, "key" and "iv", "", length)'
        yield f'<dl><dt>key</dt><dd class="result">{keys.key.hex()}</dd>'
        yield f'<dt>iv</dt><dd class="result">{keys.iv.hex()}</dd></dl></div>'
    for check in step.checks:
        mark, style = ("Verified", "check") if check.passed else ("Not verified", "check failed")
        yield f'<div class="{style}"><h3>{mark} by the {escape(check.by)}</h3>{escape(check.text)}'
        yield _definitions(check.values, None)
    if step.transcript_hash is not None:
        yield f'<p class="hash">Transcript-Hash after it <code>{step.transcript_hash.hex()}</code></p>'
    if step.bytes is not None:
        yield f"<details><summary>{len(step.bytes)} bytes</summary><pre>{_dump(step.bytes)}</pre></details>"
    yield "</section>"


def _meta(step: Step) -> str:
    section = f"RFC 8446 {'appendix' if step.section[:1].isalpha() else 'section'} {escape(step.section)}"
    if step.sender is None:
        return f"computed by both ends, never sent · {section}"
    other = "server" if step.sender == "client" else "client"
    cover = (
        f'<span class="sealed">encrypted with the {escape(step.sender)}\'s {escape(step.protection)} keys</span>'
        if step.protection
        else '<span class="plaintext">plaintext</span>'
    )
    return f"{step.sender} → {other} · {cover} · {section}"


def _definitions(values: Iterable[tuple[str, bytes]], result: bytes | None) -> str:
    rows = [f"<dt>{escape(name)}</dt><dd>{value.hex()}</dd>" for name, value in values]
    if result is not None:
        rows.append(f'<dt>result</dt><dd class="result">{result.hex()}</dd>')
    return f"<dl>{''.join(rows)}</dl></div>"


def _wire(story: Story) -> Iterator[str]:
    yield '<section id="wire"><h2>What went over the wire</h2><table>'
    yield "<tr><th>record</th><th>from outside</th><th>inside</th></tr>"
    for each in story.records:
        inside = f"{each.inner_type}, number {each.sequence} under {each.epoch} keys" if each.inner_type else "the same"
        yield (
            f"<tr><td>{each.number}. {escape(each.sender)}</td>"
            f"<td>{escape(each.outer_type)}, {each.length} bytes"
            f"<details><summary>bytes</summary><pre>{_dump(each.bytes)}</pre></details></td><td>{escape(inside)}</td></tr>"
        )
    yield "</table></section>"


def _dump(data: bytes) -> str:
    return "\n".join(textwrap.wrap(data.hex(" "), 72))
