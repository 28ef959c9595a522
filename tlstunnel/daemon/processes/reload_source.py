"""What a reload reads, before anything is touched; and how files that changed are noticed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tlstunnel.config.load import load_file
from tlstunnel.config.model import COMMAND_LINE, Config
from tlstunnel.errors import StartupError
from tlstunnel.observe.admin.tls import tls_context
from tlstunnel.reading import forget_pipes, is_pipe
from tlstunnel.tls import inventory
from tlstunnel.tls.inventory import Inventory
from tlstunnel.tls.store import ServiceContexts
from tlstunnel.x509.material import MaterialError, contents_digest, files_of
from tlstunnel.x509.passphrase import PassphraseSource


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and its material."""

    config: Config
    inventory: Inventory
    poll: Poll
    """Watches these files, from just before they were read."""


def load_config(current: Config) -> Config:
    """The configuration as it is written now.

    Raises:
        TunnelError: with every problem.
    """
    if current.source == COMMAND_LINE:
        return current
    if is_pipe(path := Path(current.source)):
        raise StartupError(f"{path}: is a pipe, which gave its configuration at the start; restart tlstunnel instead")
    return load_file(path)


def load_material(
    config: Config,
    passphrases: PassphraseSource,
    current: Config | None = None,
    contexts: tuple[ServiceContexts, ...] = (),
) -> Loaded:
    """Read everything that a configuration names.

    Args:
        config: which.
        passphrases: opens encrypted keys.
        current: the configuration in use, if there is one, and its contexts: their session tickets stay good.

    Raises:
        TunnelError: with every problem.
    """
    services = () if current is None else current.services
    previous = {service.name: each for service, each in zip(services, contexts, strict=True)}
    # The poll looks first: what changes between the two looks is found again, not missed.
    poll = Poll(config)
    try:
        taken = inventory.take(config, passphrases, previous)
        tls_context(config.admin)  # whether it can be made: the admin process makes its own
        return Loaded(config, taken, poll)
    finally:
        forget_pipes()  # before anything is forked


def watched_files(config: Config) -> tuple[Path, ...]:
    """The files whose content the poll looks at. The configuration itself is not among them: changing it is a
    decision, and SIGHUP is how an operator says that it is complete."""
    return tuple(dict.fromkeys(path for path in _named(config) if path is not None))


def _named(config: Config) -> Iterator[Path | None]:
    admin = config.admin
    yield from (admin.certificate, admin.key, admin.client_ca)
    for service in config.services:
        for files in (*service.certificate, *(files for name in service.sni for files in name.certificate)):
            yield from files_of(files)
        yield service.client_ca
        yield from service.crl
        yield from service.ocsp_response
        tls = service.target_tls
        if tls is not None:
            yield tls.ca
            yield from tls.crl
            if tls.certificate is not None:
                yield from files_of(tls.certificate)


class Poll:
    """Notices that the content of files has changed, also through swapped symlinks, and that it has come to rest.

    A file caught half-written differs from what it is a moment later, so a change counts when two looks in a row agree
    about it. A certificate may have been replaced and its key not yet: what cannot be used is in doubt for a while
    before it is called a failure. In both cases `is_unsure`, and the next look should come soon.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = watched_files(config)
        self._clock = clock
        self._loaded = self._seen = self._digest()
        self._doubted = ""
        self._doubted_until = 0.0
        self.is_unsure = False

    def check(self) -> bool:
        """Whether there is something new that is worth trying. What was tried is not tried again until it changes."""
        digest = self._digest()
        is_at_rest, self._seen = digest == self._seen, digest
        is_new = digest != self._loaded
        is_worth_it = is_new and is_at_rest and not (digest == self._doubted and self._clock() < self._doubted_until)
        self.is_unsure = is_new and not is_worth_it
        return is_worth_it

    def doubt(self, patience_s: float) -> bool:
        """What was seen last could not be used. Whether that may still mend itself, `patience_s` from the first time
        on."""
        if self._doubted == self._seen:
            return False
        self._doubted, self._doubted_until = self._seen, self._clock() + patience_s
        self.is_unsure = True
        return True

    def settle(self) -> None:
        """What was seen last has been tried, and its outcome told."""
        self._loaded = self._seen
        self.is_unsure = False

    def _digest(self) -> str:
        try:
            return contents_digest(self._files)
        except MaterialError as exc:
            return f"unreadable: {exc}"
