"""`tlstunnel connect HOST:PORT`: a TLS client on standard input and output."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import typer

from tlstunnel.cli.options import parameters, read
from tlstunnel.config.model import Mode

app = typer.Typer(add_completion=False)

_PANELS = ("Certificate", "The server's identity", "Handshake")


def connect(address: str, verbose: bool, **given: Any) -> None:
    """Connect over TLS: standard input goes to the server, what it sends to standard output.

    The server's certificate and name are always verified. EOF of the input closes our direction only, so the whole
    answer still arrives. Exit code 0 when the server has closed properly, 1 when it could not be reached or trusted,
    or broke off.
    """
    from tlstunnel.server import session
    from tlstunnel.tls import inventory
    from tlstunnel.tls.passphrase import PassphraseSource

    config = read(Mode.CLIENT, {**given, "listen": ["127.0.0.1:0"], "target": [address]})
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

    sys.exit(session.run(main))


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
