"""What is wrong with a command line that typer cannot read, as one line like every other error.

Typer would draw a box over five lines, which neither fits into a log nor can be compared by a script. Its exceptions
say what they are by their class and hold the command they came from; what we cannot place is passed on in its own
words, on one line.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import typer

from tlstunnel.errors import printable

UsageErrors: type[Exception] = typer.BadParameter.__mro__[1]
"""Base of what typer raises about a command line. Where the class lives has moved with every release; its place above
the one that typer exports has not."""
_NO_COMMAND, _SUGGESTION = "No such command ", ". Did you mean "
_EXTRA = re.compile(r"Got unexpected extra arguments?\(?s?\)? \((.*)\)", re.DOTALL)
_WORD = re.compile(r"[a-z][a-z-]*")


def explain(error: Any, argv: Sequence[str]) -> str:
    """One line: the command, what is wrong, and what would be right.

    Args:
        error: one of `UsageErrors`.
        argv: the command line; it names the command where the error does not.
    """
    context = error.ctx
    path = context.command_path if context is not None else _path(argv)
    what, right = _describe(error, context, path)
    return printable(f"{path}: {' '.join(what.split())}; {right or f'see {path} --help'}")


def is_request_for_help(error: Exception) -> bool:
    """Whether the command line was only too short to mean anything, which the help answers best."""
    return type(error).__name__ == "NoArgsIsHelpError"


def _describe(error: Any, context: Any, path: str) -> tuple[str, str]:
    """What is wrong, and what would be right if more can be said than where the help is."""
    kind, message = type(error).__name__, error.message
    if kind == "NoSuchOption":
        right = _key_of_files(error.option_name, context)
        right = right or _nearest(error.option_name, _options(context), cutoff=0.52)
        return f"no such option {error.option_name}", right
    if kind == "MissingParameter" and error.param is not None:
        name, value = _name(error.param), error.param.metavar or "VALUE"
        return f"{name} is missing", f"write {path} {name if name == value else f'{name} {value}'}"
    if kind == "BadParameter":
        return f"{_name(error.param) if error.param else 'a value'}: {_own_words(message)}", ""
    if kind == "BadOptionUsage":
        return _own_words(message.removeprefix("Option ")), ""
    if message.startswith(_NO_COMMAND):
        word = message.removeprefix(_NO_COMMAND).partition(_SUGGESTION)[0].removesuffix(".")[1:-1]  # without quotes
        names = context.command.list_commands(context) if context is not None else ()
        return f'no such command "{word}"', _nearest(word, names, cutoff=0.7)
    if found := _EXTRA.fullmatch(message):
        asks = context is not None and context.command.name in ("status", "top")
        return f'"{found[1]}" is one word too many', f"write {path} --admin {found[1]}" if asks else ""
    return _own_words(message), ""


def _key_of_files(option: str, context: Any) -> str:
    """What to do with a key that has no option."""
    from tlstunnel.config.keys import keys_in, place_of
    from tlstunnel.config.model import Mode

    mode = context.command.name if context is not None else ""
    if mode not in (Mode.SERVER, Mode.CLIENT):
        return ""
    name = option.strip("-").removeprefix("no-").replace("-", "_")
    is_one = any(key.name == name and not key.panel for key in keys_in(place_of(Mode(mode))))
    return f"{name} is for files alone; write it into one, and tlstunnel run FILE" if is_one else ""


def _own_words(message: str) -> str:
    """Typer's words in our manner: no capital, no full stop, straight quotes."""
    message = re.sub(r"a valid int(eger)?( range)?", "a whole number", message)
    message = re.sub(r"a valid float( range)?", "a number", message)
    text = re.sub(r"'([^']*)'", lambda quoted: quoted[1] if quoted[1].startswith("-") else f'"{quoted[1]}"', message)
    return text[:1].lower() + text[1:].rstrip(".")


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(max(parameter.opts, key=len))


def _options(context: Any) -> Iterable[str]:
    if context is None:
        return ()
    parameters = context.command.get_params(context)
    return itertools.chain.from_iterable(each.opts for each in parameters if each.param_type_name == "option")


def _nearest(word: str, known: Iterable[str], *, cutoff: float) -> str:
    bare = {each.lstrip("-"): each for each in known}  # the hyphens that all options share make none of them alike
    near = difflib.get_close_matches(word.lstrip("-"), list(bare), n=1, cutoff=cutoff)
    return f"did you mean {bare[near[0]]}?" if near else ""


def _path(argv: Sequence[str]) -> str:
    """The command as far as it was written: words before the first option."""
    return " ".join(["tlstunnel", *itertools.takewhile(_WORD.fullmatch, argv[1:])])
