"""The options of `server` and `client`, made from the table of configuration keys.

A value given on the command line is not parsed here. It is put where the file would have it, and the one loader reads
it; so an option and its key accept the same words and complain in the same words, and the message names the option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import typer

from tlstunnel.config.effective import keys_of_section, keys_of_service
from tlstunnel.config.keys import SECTIONS, Key, options_of
from tlstunnel.config.load import from_options
from tlstunnel.config.model import Config, Mode, Service


def add_command(app: typer.Typer, mode: Mode, summary: str, start: Callable[[Config], None]) -> None:
    """Add `server` or `client` to the app; it calls `start` with what the options say.

    The parameters are made from the table, so the function gets the signature that typer reads, not one of its own.
    """

    def command(**given: Any) -> None:
        start(read(mode, given))

    command.__signature__ = inspect.Signature(parameters(mode))  # type: ignore[attr-defined]
    app.command(mode.value, help=summary)(command)


def parameters(mode: Mode, titles: tuple[str, ...] | None = None) -> list[inspect.Parameter]:
    """The options of a command as parameters for typer: of all panels, or of those with these titles."""
    keys = [key for key in options_of(mode) if titles is None or key.panel in titles]
    values = defaults(mode)
    return [_parameter(key, values.get((key.section, key.name))) for key in keys]


def _parameter(key: Key, default: object) -> inspect.Parameter:
    is_flag = not key.kind.metavar
    words = list(key.kind.choices) or [word for word in key.kind.metavar.split("|") if word and word == word.lower()]
    info = typer.Option(
        False if is_flag else None,
        key.option,
        help=key.help if is_flag or not default else f"{key.help} Default: {listed(default)}.",
        metavar=key.kind.metavar or None,
        autocompletion=(lambda: words) if words else None,
        rich_help_panel=key.panel,
        show_default=False,
    )
    kind: Any = bool if is_flag else list[str] if key.kind.is_many else str | None
    return inspect.Parameter(_name(key), inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind)


def listed(value: object) -> str:
    """A default as the help shows it."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def defaults(mode: Mode) -> dict[tuple[str, str], object]:
    """What holds without an option, as it would be written, by section and key."""
    service = Service(name="", mode=mode, listen=(), targets=())
    found = {("service", key): value for key, value in keys_of_service(service).items()}
    for section in SECTIONS:
        found |= {(section, key): value for key, value in keys_of_section(Config(services=()), section).items()}
    return found


def read(mode: Mode, given: dict[str, Any], words: Mapping[str, str] | None = None) -> Config:
    """The configuration that the options describe.

    Args:
        words: what the command's user writes in place of an option, by its key.

    Raises:
        ConfigError: with every problem, each naming its option.
    """
    values: dict[tuple[str, str], object] = {}
    for key in options_of(mode):
        value = given.get(_name(key))
        if value is None or value is False or value == []:
            continue
        if key.kind.has_commas:
            value = [item.strip() for text in value for item in text.split(",")]
        values[key.section, key.name] = value
    words = words or {}
    options = {(key.section, key.name): words.get(key.name, key.option) for key in options_of(mode)}
    return from_options(mode, values, options)


def _name(key: Key) -> str:
    return key.option.removeprefix("--").replace("-", "_")
