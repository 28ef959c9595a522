"""`tlstunnel server` and `tlstunnel client`: one service, described by options alone."""

from __future__ import annotations

import typer

from tlstunnel.cli.options import add_command
from tlstunnel.config.model import Config, Mode

app = typer.Typer(add_completion=False)


def _start(config: Config) -> None:
    from tlstunnel.daemon.processes.launch import launch

    launch(config)


add_command(app, Mode.SERVER, "Accept TLS, forward plaintext to a service.", _start)
add_command(app, Mode.CLIENT, "Accept plaintext, forward it over TLS.", _start)
