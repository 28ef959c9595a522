"""Write what is installed below a `share` folder: manual pages, and completions for bash, zsh and fish.

    python -m deploy.share               # into share/

There is a page of section 1 for every command, made from what its `--help` shows, and tlstunnel.toml(5), made from
docs/reference/configuration.md. They are kept in the repository, since a package is built without the libraries that
the commands need; a test compares, so they are never older than what they describe. Roff is written as groff_man(7)
and mandoc read it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from typer.completion import get_completion_script

from tlstunnel._version import VERSION
from tlstunnel.cli import app as cli

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "share"
REFERENCE = ROOT / "docs" / "reference"
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
_MARKUP = re.compile(r"\*\*([^*]+)\*\*|`([^`]+)`|\*([^*]+)\*")
_COMPLETIONS = {
    "bash": "bash-completion/completions/tlstunnel",
    "zsh": "zsh/site-functions/_tlstunnel",
    "fish": "fish/vendor_completions.d/tlstunnel.fish",
}
_SEE_ALSO = ("tlstunnel(1)", "tlstunnel-run(1)", "tlstunnel.toml(5)")


def pages() -> dict[str, str]:
    """Every manual page by its path below `share`."""
    made = {"man/man1/tlstunnel.1": _main_page(), "man/man5/tlstunnel.toml.5": _file_page()}
    for words, command in _commands():
        made[f"man/man1/{'-'.join(words)}.1"] = _command_page(words, command)
    return made


def completions() -> dict[str, str]:
    """Every completion script by its path below `share`: where each shell looks by itself."""
    return {
        path: get_completion_script(prog_name="tlstunnel", complete_var="_TLSTUNNEL_COMPLETE", shell=shell) + "\n"
        for shell, path in _COMPLETIONS.items()
    }


def _commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, entry in cli.COMMANDS.items():
        command = cli._load(name, entry)
        yield ("tlstunnel", name), command
        for below, inner in getattr(command, "commands", {}).items():
            yield ("tlstunnel", name, below), inner


def _main_page() -> str:
    parts = [
        *_head("tlstunnel", 1, "modern TLS in front of any TCP service, or behind any TCP client"),
        ".SH SYNOPSIS",
        ".SY tlstunnel", ".I command", ".RI [ option \\~.\\|.\\|.]", ".YS",
        ".SY tlstunnel", ".B \\-\\-version", ".YS",
        ".SH DESCRIPTION",
        "One daemon puts TLS in front of, or behind, any number of TCP services, proves who is on the other end, and",
        "shows what it does; the other commands make certificates, speak TLS, look at servers, and measure.",
    ]  # fmt: skip
    panels = dict.fromkeys(entry.panel for entry in cli.COMMANDS.values())
    for panel in panels:
        parts.append(f".SS {_text(panel)}")
        for name, entry in cli.COMMANDS.items():
            if entry.panel == panel:
                parts += [".TP", f".BR tlstunnel\\-{_text(name)} (1)", _text(entry.summary)]
    parts += [".SH EXIT STATUS", *_rows_of(REFERENCE / "signals.md", "## Exit codes")]
    parts += [
        ".SH ENVIRONMENT",
        ".TP", ".B TLSTUNNEL_KEY_PASSPHRASE", "The passphrase of encrypted private keys.",
        ".TP", ".B SSL_CERT_FILE\\fR, \\fBSSL_CERT_DIR", "The CAs that are trusted where none are named.",
        ".TP", ".B SSLKEYLOGFILE", "Where a service with \\fBunsafe_keylog\\fR writes the secrets of its sessions.",
        ".TP", ".B NO_COLOR", "No colour, also on a terminal.",
    ]  # fmt: skip
    return _page([*parts, *_see_also("tlstunnel")])


def _command_page(words: tuple[str, ...], command: Any) -> str:
    name = "-".join(words)
    summary, _, rest = (command.help or "").partition("\n\n")
    inner = getattr(command, "commands", {})
    parts = [
        *_head(name, 1, " ".join(summary.split()).rstrip(".")),
        ".SH SYNOPSIS",
        f'.SY "{_text(" ".join(words))}"',
    ]
    if inner:
        parts.append(".I command")
    parts += [".RI [ option \\~.\\|.\\|.]"] if not inner else []
    for each in command.params:
        if not each.opts[0].startswith("-"):
            shown = _text(each.metavar or each.name.upper())
            parts.append(f".I {shown}" if each.required else f".RI [ {shown} ]")
    parts += [".YS", ".SH DESCRIPTION", *_prose(f"{summary}\n\n{rest}")]
    if inner:
        parts.append(".SH COMMANDS")
        for below, found in inner.items():
            first = " ".join((found.help or "").partition("\n\n")[0].split())
            parts += [".TP", f".BR {_text(name)}\\-{_text(below)} (1)", _text(first)]
    arguments = [each for each in command.params if not each.opts[0].startswith("-") and each.help]
    if arguments:
        parts.append(".SH ARGUMENTS")
        for each in arguments:
            parts += [".TP", f".I {_text(each.metavar or each.name.upper())}", _text(each.help)]
    panels: dict[str, list[Any]] = {}
    for each in command.params:
        if each.opts[0].startswith("-") and not getattr(each, "hidden", False):
            panels.setdefault(getattr(each, "rich_help_panel", None) or "", []).append(each)
    if panels:
        parts.append(".SH OPTIONS")
    for panel, options in panels.items():
        parts += [f".SS {_text(panel)}"] if panel else []
        for each in options:
            parts += _option(each)
    return _page([*parts, *_see_also(name)])


def _option(option: Any) -> Iterator[str]:
    names = [*option.opts, *option.secondary_opts]
    value = "" if option.is_flag else f"\\~\\fI{_text(_metavar(option))}\\fR"
    yield ".TP"
    yield ", ".join(f"\\fB{_text(each)}\\fR{value}" for each in names)
    text = " ".join((option.help or "").split())
    if option.required:
        text += " Required."
    elif option.show_default and not option.is_flag and option.default not in (None, "", (), []):
        text += f" Default: **{option.default}**."
    yield _text(text) if text else "\\&"


def _metavar(option: Any) -> str:
    """What stands for the value. Of its own typer has another word in each of its versions."""
    if option.metavar:
        return str(option.metavar)
    if choices := getattr(option.type, "choices", None):
        return "|".join(str(getattr(choice, "value", choice)) for choice in choices)
    return "NUMBER" if option.type.name.split()[0] in ("int", "integer", "float") else "TEXT"


def _file_page() -> str:
    """From the reference page: its headings, paragraphs, lists and tables."""
    lines = (REFERENCE / "configuration.md").read_text().splitlines()
    return _page(
        [
            *_head("tlstunnel.toml", 5, "configuration file of tlstunnel"),
            ".SH DESCRIPTION",
            *_markdown(lines[1:]),
            *_see_also("tlstunnel.toml"),
        ]
    )


def _markdown(lines: Iterable[str]) -> Iterator[str]:
    paragraph: list[str] = []
    is_code = in_table = is_item = False
    is_first = True  # of its section, which begins a paragraph by itself

    def said() -> Iterator[str]:
        nonlocal is_first, is_item
        if paragraph:
            yield from () if is_first and not is_item else [".IP \\(bu 3" if is_item else ".PP"]
            yield _text(" ".join(paragraph))
            paragraph.clear()
            is_first = is_item = False

    for line in lines:
        if line.startswith("```") or (line.startswith("    ") and not paragraph) or (is_code and line):
            yield from said()
            if not is_code:
                yield from () if is_first else [".PP"]
                yield from (".in +4n", ".EX")
                is_first = False
                is_code = True
                if line.startswith("```"):
                    continue
            elif line.startswith("```"):
                yield from (".EE", ".in")
                is_code = False
                continue
            yield _text(line.removeprefix("    "), is_code=True)
            continue
        if is_code:
            yield from (".EE", ".in")
            is_code = False
        if line.startswith("|"):
            cells = _cells(line)
            if set(cells[0]) <= set("- "):
                in_table = True
            elif in_table:
                yield from _row(cells)
                is_first = False
            continue
        in_table = False
        if line.startswith("#"):
            yield from said()
            level = len(line) - len(line.lstrip("#"))
            title = _plain(line.lstrip("# "))
            yield f".SS {_text(title)}" if level > 2 else f".SH {_text(title if title[0] == '[' else title.upper())}"
            is_first = True
        elif line.startswith("- "):
            yield from said()
            is_item = True
            paragraph.append(line[2:])
        elif not line.strip():
            yield from said()
        else:
            paragraph.append(line.strip())
    yield from said()
    if is_code:
        yield from (".EE", ".in")


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _row(cells: list[str]) -> Iterator[str]:
    """A key: its name and what it takes, and below what it means and its default."""
    name, meaning = cells[0], cells[-1]
    value, default = (*cells[1:-1], "", "")[:2]
    yield ".TP"
    yield _text(name) + (f" = \\fI{_text(_plain(value))}\\fR" if value else "")
    yield _text(meaning) + (f" Default: {_text(default)}." if default and default != "required" else "")
    if default == "required":
        yield "Required."


def _rows_of(path: Path, heading: str) -> Iterator[str]:
    """The table under a heading of a reference page."""
    lines = path.read_text().partition(f"{heading}\n")[2].partition("\n## ")[0].splitlines()
    for line in lines:
        if line.startswith("|") and not set(_cells(line)[0]) <= set("- ") and _cells(line)[0] != "code":
            code, meaning = _cells(line)
            yield from (".TP", f".B {_text(code)}", _text(meaning))


def _prose(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(filter(None, (part.strip("\n") for part in text.split("\n\n")))):
        yield from [".PP"] if number else ()
        if paragraph.startswith(("    ", "\b")):
            yield from (".in +4n", ".EX")
            yield from (_text(line, is_code=True) for line in paragraph.strip("\b\n").splitlines())
            yield from (".EE", ".in")
        else:
            yield _text(" ".join(paragraph.split()))


def _head(name: str, section: int, summary: str) -> Iterator[str]:
    yield f'.TH {_text(name.upper())} {section} "" "tlstunnel {VERSION}" "tlstunnel manual"'
    yield ".SH NAME"
    yield f"{_text(name)} \\- {_text(summary)}"


def _see_also(name: str) -> Iterator[str]:
    others = [each for each in _SEE_ALSO if not each.startswith(f"{name}(")]
    yield ".SH SEE ALSO"
    for place, each in enumerate(others):
        page, _, section = each.partition("(")
        yield f".BR {_text(page)} ({section}" + ("," if place < len(others) - 1 else "")


def _plain(text: str) -> str:
    return text.replace("`", "")


def _text(text: str, *, is_code: bool = False) -> str:
    """As roff: no character of it is a command."""
    text = text.replace("\\", "\\e")
    if not is_code:
        text = _LINK.sub(r"\1", text)
        text = _MARKUP.sub(
            lambda found: f"\0I{found[3]}\0R" if found[3] else f"\0B{_plain(found[1] or found[2])}\0R", text
        )
    text = (
        text.replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    text = re.sub("\0([BIR])", r"\\f\1", text)
    return f"\\&{text}" if text.startswith(".") else text


def _page(lines: Iterable[str]) -> str:
    return '.\\" Made by deploy/share.py; do not edit.\n' + "\n".join(lines) + "\n"


def main() -> int:
    """Write them all, and take away what is none of them."""
    made = pages() | completions()
    for name, text in made.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text)
    for old in FOLDER.rglob("*"):
        if old.is_file() and str(old.relative_to(FOLDER)) not in made:
            old.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
