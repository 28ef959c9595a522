"""All the TLS material of a configuration, for a start or a reload: taken as a whole or refused as a whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tlstunnel.config.model import COMMAND_LINE, Config, Service
from tlstunnel.errors import ConfigError, Problem, StartupError, words_of
from tlstunnel.tls.context import ContextError
from tlstunnel.tls.inspection import Steps, inspect
from tlstunnel.tls.store import Material, ServiceContexts
from tlstunnel.x509.passphrase import PassphraseSource

_OPTIONS = {"certificate": "--cert"}
"""Options that are not simply named like their key."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was read, in the order of the services, and what is remarkable about it."""

    materials: tuple[Material, ...] = field(repr=False)
    contexts: tuple[ServiceContexts, ...] = field(repr=False)
    warnings: tuple[str, ...]
    """Whole lines."""
    admin: Material | None = field(default=None, repr=False)
    """Certificate and trust of the admin endpoint, if it has TLS."""

    def with_contexts(self, contexts: tuple[ServiceContexts, ...]) -> Inventory:
        """The same material, used by other contexts."""
        return dataclasses.replace(self, contexts=contexts)


def take(
    config: Config, passphrases: PassphraseSource, previous: Mapping[str, ServiceContexts] | None = None
) -> Inventory:
    """Read everything and build the contexts.

    Args:
        previous: contexts in use now, by service name; their session tickets stay good where that is possible.

    Raises:
        ConfigError: with every problem, when at least one is in what the operator wrote.
        StartupError: with every problem, when files could not be read and nothing else is wrong.
    """

    def build(service: Service, material: Material) -> ServiceContexts:
        try:
            return ServiceContexts(service, material, (previous or {}).get(service.name))
        except OSError as exc:  # of the key log: nothing else is opened
            what = f"SSLKEYLOGFILE names {exc.filename}, which cannot be opened ({words_of(exc)})"
            raise ContextError("unsafe_keylog", f"{what}; correct the variable, or leave the key out") from exc

    found = inspect(config, passphrases, now=datetime.now(UTC), build=build)
    if found.problems:
        problems = [Problem(place(config.source, finding.steps), finding.what) for finding in found.problems]
        if all(finding.is_machine for finding in found.problems):
            raise StartupError("\n".join(map(str, problems)))
        raise ConfigError(problems)
    return Inventory(found.materials, found.contexts, found.warnings, found.admin)


def place(source: str, steps: Steps) -> str:
    """Name a key as the operator wrote it: by file and key path, or as the option.

    Args:
        source: `Config.source`.
        steps: the key path.
    """
    if source == COMMAND_LINE:
        key = next(step for step in reversed(steps) if isinstance(step, str))
        return _OPTIONS.get(key) or "--" + key.replace("_", "-")
    path = ""
    for step in steps:
        name = f'"{step}"' if "." in str(step) else step  # of a service, whose name may hold a dot
        path += f"[{step}]" if isinstance(step, int) else f"{'.' if path else ''}{name}"
    return f"{source}: {path}"
