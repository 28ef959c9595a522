"""A daemon as small as can be that behaves towards systemd as tlstunnel does: `standin.py run|check CONFIG`.

It puts the supervisor's building blocks together (sockets, activation, notification, limits, privileges) with workers
that accept a connection and hold it until the client closes, so that the units can be proved on a real
PID 1 apart from everything that makes a tunnel.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import tomllib
import traceback
from pathlib import Path

from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.model import Config, Mode, Service
from tlstunnel.errors import ConfigError, Problem, TunnelError
from tlstunnel.supervisor.activation import Inherited, take_inherited
from tlstunnel.supervisor.limits import descriptor_budget, raise_descriptor_limit
from tlstunnel.supervisor.privileges import shed
from tlstunnel.supervisor.sdnotify import Notifier
from tlstunnel.supervisor.sockets import Listeners, open_listeners

SLOTS = 2
TICK_S = 0.2
Workers = list[tuple[int, socket.socket]]


def load(path: str, *, only_check: bool = False) -> Config:
    """Just enough of a configuration: services with listen addresses, and a key that can be read.

    A check runs beside the service, in a shell or from ExecReload=, where systemd 252 shows no credentials.
    """
    try:
        tables = tomllib.loads(Path(path).read_text())["services"]
    except (tomllib.TOMLDecodeError, KeyError) as exc:
        raise ConfigError([Problem(path, f"not a configuration: {exc}")]) from exc
    services = []
    for name, table in tables.items():
        listen = table["listen"] if isinstance(table["listen"], list) else [table["listen"]]
        if "key" in table and not only_check:
            key = Path(os.environ["CREDENTIALS_DIRECTORY"], table["key"].removeprefix("cred:"))
            if not key.read_text().strip():
                raise ConfigError([Problem(path, "empty key")])
        addresses = tuple(parse_listen(text) for text in listen)
        target = (parse_target(table["target"]),)
        services.append(Service(name=name, mode=Mode(table["mode"]), listen=addresses, targets=target))
    return Config(services=tuple(services), source=path)


def work(listeners: Listeners, slot: int, channel: socket.socket) -> None:
    """Serve until told to drain (a byte "d"), answering every other byte; then hold what is open until it closes."""
    shed()
    listening = [sock for sockets in listeners.keep_slot(slot).values() for sock in sockets]
    clients: list[socket.socket] = []
    draining = False
    while not draining or clients:
        ready, _, _ = select.select([channel, *listening, *clients], [], [])
        for sock in ready:
            if sock is channel:
                byte = channel.recv(1)
                if byte in (b"d", b""):
                    draining = True
                    for listener in listening:
                        listener.close()
                    listening.clear()
                else:
                    channel.send(byte)
            elif sock in clients:
                if is_over(sock):
                    clients.remove(sock)
                    sock.close()
            else:
                try:
                    client, _ = sock.accept()
                except BlockingIOError:
                    continue
                clients.append(client)


def is_over(client: socket.socket) -> bool:
    try:
        return not client.recv(4096)
    except ConnectionError:
        return True


def fork_worker(listeners: Listeners, slot: int) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            ours.close()
            work(listeners, slot, theirs)
            status = 0
        except BaseException:  # noqa: BLE001  the process ends in any case
            traceback.print_exc()
        finally:
            os._exit(status)
    theirs.close()
    return pid, ours


def say(listeners: Listeners) -> None:
    for listener in listeners:
        print(f"ready: {listener.owner} listening on {listener.bound}", file=sys.stderr, flush=True)


def run(path: str) -> int:
    notifier = Notifier.from_environment()
    inherited = take_inherited()
    config = load(path)
    limit = raise_descriptor_limit()
    listeners = open_listeners(config, SLOTS, inherited=inherited)
    print(descriptor_budget(config, limit=limit, listeners=len(list(listeners)), workers=SLOTS), file=sys.stderr)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    workers = [fork_worker(listeners, slot) for slot in range(SLOTS)]
    say(listeners)
    notifier.ready(f"{len(config.services)} services")
    while True:
        select.select([woken], [], [], TICK_S)
        try:
            numbers = os.read(woken, 64)
        except BlockingIOError:
            numbers = b""
        if signal.SIGTERM in numbers:
            return stop(notifier, listeners, workers)
        if signal.SIGHUP in numbers:
            config, listeners, workers = reload(path, notifier, (config, listeners, workers), inherited)
        ping(notifier, workers)


def reload(
    path: str, notifier: Notifier, serving: tuple[Config, Listeners, Workers], inherited: Inherited
) -> tuple[Config, Listeners, Workers]:
    """A new generation on the same sockets, or everything as it was."""
    config, listeners, workers = serving
    notifier.reloading()
    try:
        config = load(path)
        new = open_listeners(config, SLOTS, inherited=inherited, previous=listeners)
    except TunnelError as exc:
        print(f"reload failed: {exc}", file=sys.stderr, flush=True)
        notifier.ready("reload failed")
        return config, listeners, workers
    replacements = [fork_worker(new, slot) for slot in range(SLOTS)]
    for _, channel in workers:
        channel.send(b"d")
    new.retire(listeners)
    say(new)
    notifier.ready(f"{len(config.services)} services, reloaded")
    return config, new, replacements


def ping(notifier: Notifier, workers: Workers) -> None:
    """The watchdog hears from us when, and only when, every worker has answered this round."""
    for _, channel in workers:
        channel.send(b"?")
    waiting = {channel for _, channel in workers}
    deadline = time.monotonic() + TICK_S
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return
        for channel in ready:
            channel.recv(1)
            waiting.discard(channel)
    notifier.watchdog()


def stop(notifier: Notifier, listeners: Listeners, workers: Workers) -> int:
    notifier.stopping("draining")
    for _, channel in workers:
        channel.send(b"d")
    listeners.close()
    open_ = {channel for _, channel in workers}
    while open_:
        notifier.extend_timeout(5)
        print("still draining", file=sys.stderr, flush=True)
        ready, _, _ = select.select(list(open_), [], [], TICK_S)
        for channel in ready:
            if not channel.recv(1):
                open_.discard(channel)
        notifier.watchdog()
    notifier.status("drained")
    notifier.barrier()
    return 0


def main() -> int:
    command, path = sys.argv[1:]
    try:
        if command == "check":
            load(path, only_check=True)
            return 0
        return run(path)
    except TunnelError as exc:
        print(f"standin: {exc}", file=sys.stderr, flush=True)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
