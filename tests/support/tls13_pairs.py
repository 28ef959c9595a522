"""Our TLS 1.3 client and server, joined in memory."""

from __future__ import annotations

from dataclasses import replace

from tests.support import hostile
from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.events import (
    Event,
    State,
)
from tlstunnel.tools.tls13.names import (
    AlertDescription,
    ExtensionType,
    HandshakeType,
)
from tlstunnel.tools.tls13.server import Server

H, X, A = HandshakeType, ExtensionType, AlertDescription


def talk(client: Client, server: Server) -> list[Event]:
    """Carry bytes until there are none. Returns both ends' events."""
    if client.state is State.START:
        client.start()
    events: list[Event] = []
    while True:
        forward = client.data_to_send()
        events += server.receive(forward) if forward else []
        reverse = server.data_to_send()
        events += client.receive(reverse) if reverse else []
        if not forward and not reverse:
            return events


def ends(
    client_changes: dict[str, object] | None = None, server_changes: dict[str, object] | None = None
) -> tuple[Client, Server]:
    client = replace(hostile.client_config(), **(client_changes or {}))  # type: ignore[arg-type]
    server = replace(hostile.server_config(), **(server_changes or {}))  # type: ignore[arg-type]
    return Client(client), Server(server)
