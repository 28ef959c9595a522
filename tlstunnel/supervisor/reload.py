"""What a reload amounts to: nothing, new material in the same generation, or a new generation.

Reading and judging happen here, before anything is touched, so a reload that fails has changed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tlstunnel.config.load import load_file
from tlstunnel.config.model import Config
from tlstunnel.tls import inventory
from tlstunnel.tls.inventory import Inventory
from tlstunnel.tls.material import MaterialError, contents_digest, files_of
from tlstunnel.tls.passphrase import PassphraseSource
from tlstunnel.tls.store import ServiceContexts

COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and its material, read at the same moment."""

    config: Config
    inventory: Inventory


def load(current: Config, passphrases: PassphraseSource, contexts: tuple[ServiceContexts, ...]) -> Loaded:
    """Read everything again: the file if there is one, and all that it names.

    Raises:
        TunnelError: with every problem.
    """
    config = current if current.source == COMMAND_LINE else load_file(Path(current.source))
    previous = {service.name: each for service, each in zip(current.services, contexts, strict=True)}
    return Loaded(config, inventory.take(config, passphrases, previous))


def watched_files(config: Config) -> tuple[Path, ...]:
    """The files whose content the poll looks at. The configuration itself is not among them: changing it is a
    decision, and SIGHUP is how an operator says that it is complete."""
    paths: list[Path | None] = []
    for service in config.services:
        for files in service.certificate:
            paths += files_of(files)
        paths.append(service.client_ca)
        paths += service.crl
        for name in service.sni:
            for files in name.certificate:
                paths += files_of(files)
        if service.backend_tls is not None:
            backend = service.backend_tls
            paths += [backend.ca, *backend.crl]
            if backend.certificate is not None:
                paths += files_of(backend.certificate)
    return tuple(dict.fromkeys(path for path in paths if path is not None))


class Poll:
    """Notices that the content of files has changed, also through swapped symlinks, and that it has come to rest."""

    def __init__(self, config: Config) -> None:
        self._files = watched_files(config)
        self._loaded = self._digest()
        self._seen = self._loaded

    def look(self) -> bool:
        """Whether there is something new that is worth trying.

        A file caught half-written differs from what it is a moment later, so a change counts when two looks in a row
        agree about it. What was tried and failed is not tried again until it changes.
        """
        digest = self._digest()
        is_at_rest, self._seen = digest == self._seen, digest
        return is_at_rest and digest != self._loaded

    def settle(self) -> None:
        """What was seen last has been tried."""
        self._loaded = self._seen

    def _digest(self) -> str:
        try:
            return contents_digest(self._files)
        except MaterialError as exc:
            return f"unreadable: {exc}"
