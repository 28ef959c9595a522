"""A daemon before a service in which TLS is asked for in plaintext first.

with starttls.server_mode("imap", backend_port) as port: ...
with starttls.client_mode("imap", server_port, records) as port: ...
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support import certificates, tunnel
from tests.support.tunnel import Record


@contextlib.contextmanager
def server_mode(
    protocol: str,
    port: int,
    *,
    required: bool = True,
    alpn: str | None = None,
    timeout: str = "10s",
    more: str = "",
    records: list[Record] | None = None,
) -> Iterator[int]:
    """A port where TLS is to be had, before a backend on this port that has none; `records` gets what was logged.

    `more` are lines of the service.
    """
    pair = certificates.server("localhost", "127.0.0.1")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "tunnel.toml"
        config.write_text(
            '[log]\nformat = "json"\n[process]\nworkers = 1\n'
            f'[services.web]\nmode = "server"\nlisten = "127.0.0.1:0"\ntarget = "127.0.0.1:{port}"\n'
            f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
            f'starttls = "{protocol}"\nstarttls_required = {str(required).lower()}\n'
            f'handshake_timeout = "{timeout}"\n{more}\n' + (f'alpn = ["{alpn}"]\n' if alpn else "")
        )
        with tunnel.run(config) as daemon:
            yield daemon.port
    if records is not None:
        records += daemon.records


@contextlib.contextmanager
def client_mode(
    protocol: str, port: int, *, timeout: str = "10s", records: list[Record] | None = None
) -> Iterator[int]:
    """A port where no TLS is wanted, before a server on this port that has it."""
    with tunnel.client(port, "--starttls", protocol, "--handshake-timeout", timeout) as daemon:
        yield daemon.port
    if records is not None:
        records += daemon.records


def was_relayed_in_tls(records: list[Record], protocol: str) -> bool:
    """Whether TLS was asked for, begun, and carried a link, in the first connection that ended."""
    first = records[0]
    return (first["stage"], first["starttls"]) == ("link", protocol) and first["version"] is not None
