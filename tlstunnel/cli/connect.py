"""`tlstunnel connect HOST:PORT`: a TLS client on standard input and output."""

from __future__ import annotations

import errno
import inspect
import sys
from typing import Any

import typer

from tlstunnel.cli import signals
from tlstunnel.cli.options import parameters, read
from tlstunnel.config.model import Mode
from tlstunnel.errors import StartupError, words_of

app = typer.Typer(add_completion=False)

_OF_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PANELS = ("Certificate", "The server's identity", "Handshake")


def connect(address: str, verbose: bool, **given: Any) -> None:
    """Connect over TLS: standard input goes to the server, what it sends to standard output.

    The server's certificate and name are always verified. EOF of the input closes our direction only, so the whole
    answer still arrives. Exit code 0 when the server has closed properly, 1 when it could not be reached or trusted,
    or broke off.
    """
    from tlstunnel.tls import inventory
    from tlstunnel.tools.session import session
    from tlstunnel.x509.passphrase import PassphraseSource

    config = read(Mode.CLIENT, {**given, "listen": ["127.0.0.1:0"], "target": [address]}, {"target": "HOST:PORT"})
    service = config.services[0]
    material = inventory.take(config, PassphraseSource.of_this_process())

    async def main() -> int:
        opened = await session.open_session(service, material.contexts[0])
        try:
            if verbose:
                print(f"connected to {service.targets[0]}: {opened.negotiated}", file=sys.stderr)
            await session.converse(opened, sys.stdin.fileno(), sys.stdout.fileno())
        finally:
            opened.close()
        if opened.is_truncated:
            print("tlstunnel: the server closed without close_notify; something may be missing", file=sys.stderr)
            return 1
        return 0

    # A signal ends us at once, also while nobody reads what we write, and without a close_notify, which
    # would tell the server that all has been sent.
    signals.die_at_once()
    try:
        code = session.run(main)
    except OSError as error:  # what the network says is a SessionError: this is one of our own streams
        raise _stream_error(error) from None
    sys.exit(code)


def _stream_error(error: OSError) -> Exception:
    """What standard input or output said. A reader that went away is its own business, as with every command."""
    if isinstance(error, BrokenPipeError):
        return BrokenPipeError()
    place = "standard output" if error.errno in _OF_OUTPUT else "standard input or output"
    return StartupError(f"{place}: {words_of(error)}; redirect it elsewhere")


_ADDRESS = typer.Argument(metavar="HOST:PORT", help="The server; or unix:/path.", show_default=False)
_VERBOSE = typer.Option(False, "-v", "--verbose", help="Say on stderr what was negotiated.", show_default=False)
_KIND = inspect.Parameter.KEYWORD_ONLY
connect.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("address", _KIND, default=_ADDRESS, annotation=str),
        inspect.Parameter("verbose", _KIND, default=_VERBOSE, annotation=bool),
        *parameters(Mode.CLIENT, _PANELS),
    ]
)
app.command()(connect)
