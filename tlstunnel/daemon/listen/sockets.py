"""Every listening socket of a configuration: opened before anything else, kept over reloads, closed in one place.

Theory of operation. The supervisor owns all listening sockets, one per worker slot and TCP address (`binding`), and
workers inherit theirs when they are forked. So a worker may die, or a whole generation be replaced, and the queue of
connections waiting in the kernel stays. Three operations, always in this order at a reload:

    new = open_listeners(config, slots, inherited=..., previous=old)    binds only what is new; fails without a trace
    ... fork the new generation; in each worker: new.keep_slot(i) ...
    new.retire(old)                                                     closes what the new configuration lacks

Closing a socket resets the connections queued on it. That is why a group never shrinks: with fewer workers than
sockets, worker 0 of 3 serves sockets 0 and 3 of 4.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from tlstunnel.address import Listen, SystemdAddress, TCPAddress, UnixAddress
from tlstunnel.config.model import Admin, Config, Mode, Service
from tlstunnel.daemon.listen.activation import Inherited
from tlstunnel.daemon.listen.bind_errors import ListenRefused
from tlstunnel.daemon.listen.binding import (
    DEFAULT_BACKLOG,
    Endpoint,
    add_siblings,
    bind_port,
    close_all,
    resolve,
)
from tlstunnel.daemon.listen.listeners import Listener, Listeners
from tlstunnel.daemon.listen.unix import UNIX_MODE, UnixFile, bind_unix
from tlstunnel.errors import StartupError

ADMIN = "admin"
_NOTHING = Inherited()


def open_listeners(
    config: Config,
    slots: int = 1,
    *,
    inherited: Inherited = _NOTHING,
    previous: Listeners | None = None,
    owner: tuple[int, int] | None = None,
    backlog: int = DEFAULT_BACKLOG,
) -> Listeners:
    """Bind, or take over, every address that a configuration listens on.

    Args:
        config: services and admin endpoint.
        slots: how many workers accept.
        inherited: what systemd passed in. All of it must be used.
        previous: the listeners before a reload. Whatever address they share with the new ones keeps its sockets, also
            when another service has it now, and a port 0 keeps its port; they themselves stay untouched.
        owner: uid and gid that the files of unix sockets are given, when root starts workers that are not.
        backlog: length of each socket's queue; the kernel caps it at net.core.somaxconn.

    Raises:
        StartupError: with one line per address that failed. Nothing new is left open then.
    """
    opening = _Opening(slots, inherited, previous, owner, backlog=backlog)
    services = {}
    for service in config.services:
        owns, unsafe = f"service {service.name}", _unsafe_if_exposed(service)
        services[service.name] = tuple(opening.open(owns, service.listen, service.unix_mode, unsafe=unsafe))
    # One socket: the admin process is one process.
    opening.slots = 1
    listens = () if config.admin.listen is None else (config.admin.listen,)
    admin = tuple(opening.open(ADMIN, listens, unsafe=_unsafe_if_exposed_admin(config.admin)))
    opening.check_all_used()
    if opening.problems:
        opening.undo()
        raise StartupError("\n".join(opening.problems))
    return Listeners(services, admin, slots, tuple(opening.warnings))


class _Opening:
    """One run of `open_listeners`: what is open so far, what was new and must be closed if the run fails."""

    def __init__(
        self,
        slots: int,
        inherited: Inherited,
        previous: Listeners | None,
        owner: tuple[int, int] | None,
        *,
        backlog: int,
    ) -> None:
        self.slots, self.inherited, self.owner = slots, inherited, owner
        self.backlog = backlog
        self.previous = {listener.key: listener for listener in previous or () if listener.is_ours}
        self.taken: dict[tuple[object, ...], str] = {}
        self.new_sockets: list[socket.socket] = []
        self.new_files: list[UnixFile] = []
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def open(
        self, owner: str, addresses: Sequence[Listen], unix_mode: int = UNIX_MODE, *, unsafe: str = ""
    ) -> list[Listener]:
        """Open every address of one owner.

        Args:
            owner: for messages.
            addresses: what the configuration says.
            unix_mode: permissions of the files of unix sockets.
            unsafe: the key that must be set before other machines may reach it; for sockets that were passed in, as the
                loader has looked at the other addresses.
        """
        opened: list[Listener] = []
        for index, address in enumerate(addresses):
            try:
                if isinstance(address, SystemdAddress):
                    opened += self._inherit(owner, address, unsafe)
                elif isinstance(address, UnixAddress):
                    opened.append(self._unix(owner, address, unix_mode))
                else:
                    opened += self._tcp(owner, index, address)
            except ListenRefused as exc:
                self.problems.append(f"{owner}: cannot listen on {address}: {exc}")
        return opened

    def check_all_used(self) -> None:
        for name in self.inherited.sockets:
            if ("systemd", name) not in self.taken:
                self.problems.append(
                    f'socket activation: no service listens on the socket named "{name}"; '
                    f'write listen = "systemd:{name}" or stop its socket unit'
                )

    def undo(self) -> None:
        close_all(self.new_sockets)
        for file in self.new_files:
            file.unlink()

    def _claim(self, owner: str, key: tuple[object, ...]) -> None:
        if key in self.taken:
            raise ListenRefused(f"{self.taken[key]} listens there already; give each address to one service")
        self.taken[key] = owner

    def _inherit(self, owner: str, address: SystemdAddress, unsafe: str) -> list[Listener]:
        key = ("systemd", address.name)
        sockets = self.inherited.sockets.get(address.name)
        if sockets is None:
            given = self.inherited.describe()
            raise ListenRefused(
                f"systemd passed no socket of this name, only {given}; set FileDescriptorName={address.name}"
                if given
                else "not started by a socket unit; start the .socket unit instead, or write HOST:PORT"
            )
        self._claim(owner, key)
        exposed = next((sock for sock in sockets if not _stays_here(sock)), None)
        if unsafe and exposed is not None:
            raise ListenRefused(
                f"{describe_socket(exposed)} is reachable from other machines; "
                f"let the socket unit listen on loopback or a path, or set {unsafe}"
            )
        return [
            Listener(owner, address, f"{address} ({describe_socket(sock)})", (sock,), True, (*key, number))
            for number, sock in enumerate(sockets)
        ]

    def _unix(self, owner: str, address: UnixAddress, mode: int) -> Listener:
        key = ("unix", address.path)
        self._claim(owner, key)
        old = self.previous.get(key)
        if old is not None:
            return Listener(owner, address, old.bound, old.sockets, True, key, file=old.file, mode=mode)
        sock, file = bind_unix(address.path, mode=mode, owner=self.owner, backlog=self.backlog)
        self.new_sockets.append(sock)
        self.new_files.append(file)
        return Listener(owner, address, str(address), (sock,), True, key, file=file, mode=mode)

    def _tcp(self, owner: str, index: int, address: TCPAddress) -> list[Listener]:
        # Port 0 has no address of its own to be recognised by at a reload; its place in the configuration serves.
        place: tuple[object, ...] = (owner, index) if address.port == 0 else ()
        keys = {endpoint: ("tcp", endpoint, *place) for endpoint in resolve(address)}
        for key in keys.values():
            self._claim(owner, key)
        opened = []
        fresh = []
        for endpoint, key in keys.items():
            old = self.previous.get(key)
            if old is None:
                fresh.append(endpoint)
                continue
            assert old.endpoint is not None  # noqa: S101  every TCP listener has one
            more = add_siblings(old.endpoint, old.sockets, self.slots, backlog=self.backlog)
            self.new_sockets += more
            opened.append(Listener(owner, address, old.bound, (*old.sockets, *more), False, key, endpoint=old.endpoint))
        if fresh:
            joins = any(old.endpoint and old.endpoint.port == address.port for old in self.previous.values())
            made, warnings = bind_port(fresh, self.slots, backlog=self.backlog, joins=joins)
            self.warnings += [f"{owner}: {address}: {warning}" for warning in warnings]
            for endpoint, (bound, sockets) in made.items():
                self.new_sockets += sockets
                opened.append(
                    Listener(owner, address, str(bound), tuple(sockets), False, keys[endpoint], endpoint=bound)
                )
        return opened


def _unsafe_if_exposed(service: Service) -> str:
    """What a service must say before other machines may reach it; nothing if they may."""
    is_plaintext = service.mode is Mode.CLIENT
    return "unsafe_listen, since clients send plaintext" if is_plaintext and not service.unsafe_listen else ""


def _unsafe_if_exposed_admin(admin: Admin) -> str:
    if admin.unsafe_admin or (admin.certificate is not None and admin.client_ca is not None):
        return ""
    return "client_ca beside certificate to serve only those it vouches for, or unsafe_admin"


def _stays_here(sock: socket.socket) -> bool:
    """Whether only this machine reaches a listening socket."""
    if sock.family == socket.AF_UNIX:
        return True
    address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def describe_socket(sock: socket.socket) -> str:
    """A listening socket's own address as the contract writes addresses."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}" if isinstance(name, str) else f"unix:@{name[1:].decode(errors='replace')}"
    dual = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return str(Endpoint(sock.family, name, is_dual=dual and name[0] == "::"))
