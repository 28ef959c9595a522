"""`tlstunnel echo`: a TLS service that sends back what it receives."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import typer

from tlstunnel.cli.options import parameters, read
from tlstunnel.config.model import Mode

app = typer.Typer(add_completion=False)

_LEFT_OUT = frozenset({"target", "failover", "unsafe_target", "proxy_protocol", "starttls"})


def echo(**given: Any) -> None:
    """Accept TLS and send everything back: something to test clients against.

    The whole tunnel with an echo service behind it, so it takes the options of `server`, without a target.
    """
    from tlstunnel.cli.demo import loopback_socket
    from tlstunnel.daemon.processes.supervisor import run
    from tlstunnel.tools.session import embedded

    sock = loopback_socket()
    config = read(Mode.SERVER, {**given, "target": [f"127.0.0.1:{sock.getsockname()[1]}"]})
    embedded.start(embedded.echo, sock)
    sock.close()
    sys.exit(run(config))


echo.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [parameter for parameter in parameters(Mode.SERVER) if parameter.name not in _LEFT_OUT]
)
app.command()(echo)
