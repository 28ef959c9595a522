"""One address becomes listening sockets, or a refusal that says what to do.

Theory of operation. A port has one listening socket per worker slot: with SO_REUSEPORT the kernel spreads new
connections over them by a hash, and each has a queue of its own, which the supervisor keeps alive when it replaces the
worker behind it. SO_REUSEPORT has a trap: two daemons of the same user would share a port without either noticing,
each getting half of the connections. So the first socket of a port is bound and made to listen without it, which fails
if anyone listens there; only then is the port opened up to its siblings. Linux lets a listening socket join a group
after the fact (since 4.6), and the group then counts all of them.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from tlstunnel.address import TCPAddress
from tlstunnel.daemon.listen.bind_errors import ListenRefused, explain_port, reason
from tlstunnel.errors import words_of

DEFAULT_BACKLOG = 4096
"""Connections a socket may hold for its worker. The kernel takes the lesser of this and net.core.somaxconn, whose
default since Linux 5.4 is the same number: enough for a second's burst while a worker is being replaced."""
_PORT_TRIES = 16
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One thing to bind: a family and a socket address; `is_dual` is an IPv6 socket that takes IPv4 too."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]
    is_dual: bool = False

    @property
    def port(self) -> int:
        return self.sockaddr[1]

    def at(self, port: int) -> Endpoint:
        """The same endpoint on another port."""
        host, _, *rest = self.sockaddr
        return Endpoint(self.family, (host, port, *rest), self.is_dual)  # type: ignore[arg-type]

    def __str__(self) -> str:
        if self.is_dual:
            return f":{self.port}"
        host = socket.getnameinfo(self.sockaddr, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
        return str(TCPAddress(host, self.port))


def resolve(address: TCPAddress) -> tuple[Endpoint, ...]:
    """Every endpoint an address stands for: one for a literal, one dual-stack for `:PORT`, all of a name's addresses.

    Raises:
        ListenRefused: the name does not resolve here.
    """
    if not address.host:
        return (Endpoint(socket.AF_INET6, ("::", address.port, 0, 0), is_dual=True),)
    flags = socket.AI_PASSIVE | (socket.AI_NUMERICHOST if address.is_literal else 0)
    try:
        # As bytes, because for text Python loads its IDNA tables, which stay in memory; hosts here are ASCII already.
        found = socket.getaddrinfo(address.host.encode("ascii"), address.port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as exc:
        zone = address.host.partition("%")[2]
        if zone:
            raise ListenRefused(f'there is no interface "{zone}"; write one that `ip link` lists') from exc
        raise ListenRefused(
            f'the name "{address.host}" does not resolve ({words_of(exc)}); '
            "write an address of this machine, or :PORT for all of them"
        ) from exc
    return tuple(dict.fromkeys(Endpoint(family, sockaddr) for family, _, _, _, sockaddr in found))  # type: ignore[arg-type]


def bind_port(
    endpoints: Sequence[Endpoint], count: int, *, backlog: int, joins: bool
) -> tuple[dict[Endpoint, tuple[Endpoint, list[socket.socket]]], list[str]]:
    """Bind `count` sockets for every endpoint: asked-for endpoint to (bound endpoint, sockets), and warnings.

    Endpoints with port 0 get one free port for all of them. Of several endpoints (a name with several addresses) those
    that are not on this machine are left out with a warning, as long as one remains. `joins` lets the first socket
    share a port that we hold already under another address, while a reload moves a listener.

    Raises:
        ListenRefused: with every socket made here closed.
    """
    for _ in range(_PORT_TRIES):
        made: dict[Endpoint, tuple[Endpoint, list[socket.socket]]] = {}
        warnings: list[str] = []
        port = 0
        try:
            for endpoint in endpoints:
                wanted = endpoint if endpoint.port else endpoint.at(port)
                try:
                    made[endpoint] = _bind_endpoint(wanted, count, backlog=backlog, joins=joins)
                except OSError as exc:
                    last = endpoint is endpoints[-1]
                    if exc.errno not in _NOT_HERE or (last and not made):
                        raise ListenRefused(explain_port(wanted.port, exc)) from exc
                    warnings.append(f"{wanted} is left out: {reason(exc)}")
                    continue
                port = made[endpoint][0].port
            return made, warnings
        except ListenRefused as exc:
            for _, sockets in made.values():
                close_all(sockets)
            cause = exc.__cause__
            # The port that was free for the first address is taken on the second: any other port will do.
            if not (made and endpoints[0].port == 0 and isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE):
                raise
    raise ListenRefused(f"no port is free on all of {', '.join(map(str, endpoints))}; name a port")


def add_siblings(bound: Endpoint, sockets: Sequence[socket.socket], count: int, *, backlog: int) -> list[socket.socket]:
    """New sockets that make a port's group `count` strong; the given ones stay as they are, with their queues.

    Raises:
        ListenRefused: with the new sockets closed.
    """
    made: list[socket.socket] = []
    try:
        if count > len(sockets):
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(sockets) + len(made) < count:
            made.append(_listening(bound, backlog=backlog, shares_port=True))
    except OSError as exc:
        close_all(made)
        raise ListenRefused(explain_port(bound.port, exc)) from exc
    return made


def close_all(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _bind_endpoint(
    endpoint: Endpoint, count: int, *, backlog: int, joins: bool
) -> tuple[Endpoint, list[socket.socket]]:
    try:
        first = _listening(endpoint, backlog=backlog, shares_port=joins)
    except OSError as exc:
        if not (endpoint.is_dual and exc.errno in _NOT_HERE):
            raise
        # No IPv6 on this machine: all interfaces are then all IPv4 interfaces.
        endpoint = Endpoint(socket.AF_INET, ("0.0.0.0", endpoint.port))
        first = _listening(endpoint, backlog=backlog, shares_port=joins)
    bound = endpoint.at(first.getsockname()[1])
    try:
        return bound, [first, *add_siblings(bound, [first], count, backlog=backlog)]
    except ListenRefused:
        first.close()
        raise


def _listening(endpoint: Endpoint, *, backlog: int, shares_port: bool) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        # Without it a restart would wait for the last connections' TIME_WAIT to end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if endpoint.family == socket.AF_INET6:
            # Said either way: net.ipv6.bindv6only must not decide what "[::]:443" means.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not endpoint.is_dual)
        sock.bind(endpoint.sockaddr)
        sock.listen(backlog)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
