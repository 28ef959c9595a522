"""A daemon without a tunnel: counters, state, workers that count and answer, and the real admin process.

Run as a program (`python -m tests.support.admin_rig`). It prints one JSON line when the endpoint listens, then obeys
one JSON command per line of stdin, answering each with a line, until stdin ends:

    {"do": "phase", "phase": "draining"}          publish another phase
    {"do": "connections", "row": 1, "count": 5}   worker 1 opens and finishes five connections
    {"do": "open", "row": 1, "count": 5}          worker 1 opens five that stay open
    {"do": "kill", "row": 1}                      SIGKILL worker 1, reap it, replace it
    {"do": "stop_worker", "row": 1}               SIGSTOP worker 1: it answers nothing any more
    {"do": "reload", "ok": false}                 note a reload
    {"do": "traffic", "row": 1}                   worker 1 makes up traffic until the end
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlstunnel.address import TCPAddress
from tlstunnel.config.model import Admin, Config, Log, Mode, Service
from tlstunnel.observe.counters import Counters
from tlstunnel.observe.listing import answer, channel_pair
from tlstunnel.observe.log import open_log
from tlstunnel.observe.observer import Observer
from tlstunnel.observe.record import ConnectionRecord
from tlstunnel.observe.series import series_for
from tlstunnel.observe.state import (
    CertificateState,
    ReloadState,
    ServiceState,
    StateBlob,
    TunnelState,
    WorkerState,
)
from tlstunnel.outcome import CloseReason

DAY_S = 86400.0
ENDINGS = [CloseReason.FINISHED] * 30 + [
    CloseReason.NOT_TLS,
    CloseReason.UNKNOWN_CA,
    CloseReason.BACKEND_REFUSED,
    CloseReason.CLIENT_RESET,
]


def config(services: tuple[str, ...] = ("orders", "mail")) -> Config:
    return Config(
        services=tuple(
            Service(
                name=name,
                mode=Mode.SERVER,
                listen=(TCPAddress("127.0.0.1", 8443),),
                targets=(TCPAddress("127.0.0.1", 8080), TCPAddress("127.0.0.1", 8081)),
                max_connections=1000,
            )
            for name in services
        ),
        log=Log(level="error"),
    )


def one_connection(observer: Observer, service: int = 0, reason: CloseReason = CloseReason.FINISHED) -> None:
    record = begin(observer, service, 51514)
    if reason.stage.value in ("link", "dial"):
        observer.handshake_done(record)
    if reason.stage.value == "link":
        observer.dialed(record)
        forward, reverse = observer.byte_counters(service)
        observer.row.counters[forward] += 100
        observer.row.counters[reverse] += 1000
    record.reason = reason
    observer.closed(record)


def begin(observer: Observer, service: int, port: int) -> ConnectionRecord:
    record = observer.opened(service, f"192.0.2.7:{port}")
    record.version, record.cipher, record.group = "TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519MLKEM768"
    record.identity, record.server_name = "CN=billing\n<script>", "api.example.org"
    record.target = "127.0.0.1:8080"
    record.handshake_s, record.connect_s = 0.0021, 0.0003
    return record


class _Worker:
    """The worker's process: counts what it is told to count, answers lists."""

    def __init__(self, observer: Observer, channel: socket.socket, orders: socket.socket) -> None:
        self._observer, self._channel, self._orders = observer, channel, orders
        self._wants_traffic = False
        self._last = time.monotonic()

    def run(self) -> None:
        while True:
            readable, _, _ = select.select([self._channel, self._orders], [], [], 0.05 if self._wants_traffic else None)
            if self._channel in readable:
                answer(self._channel, self._observer.open.values())
            if self._orders in readable:
                text = self._orders.recv(4096)
                if not text:
                    return
                self._obey(json.loads(text))
                self._orders.send(b"done")
            if self._wants_traffic:
                self._make_up_traffic()

    def _obey(self, order: dict[str, Any]) -> None:
        if order["do"] == "traffic":
            self._wants_traffic = True
        for number in range(order.get("count", 0)):
            if order["do"] == "connections":
                one_connection(self._observer)
            else:
                record = begin(self._observer, 0, 40000 + number)
                record.live_bytes = lambda number=number: (number, 10 * number)

    def _make_up_traffic(self) -> None:
        observer = self._observer
        for _ in range(random.randint(1, 8)):
            one_connection(observer, random.randint(0, 1), random.choice(ENDINGS))
        while len(observer.open) < 12:
            record = begin(observer, random.randint(0, 1), random.randint(1024, 65535))
            speed, began = random.randint(1, 1 << 22), time.monotonic()
            record.live_bytes = lambda s=speed, b=began: (
                int(s * (time.monotonic() - b) / 9),
                int(s * (time.monotonic() - b)),
            )
        now = time.monotonic()
        for record in observer.open.values():
            forward, reverse = observer.byte_counters(record.service_index)
            observer.row.counters[forward] += int(20000 * (now - self._last))
            observer.row.counters[reverse] += int(random.randint(100_000, 400_000) * (now - self._last))
        self._last = now


class _Rig:
    def __init__(self, workers: int, address: str, settings: Admin) -> None:
        self._settings = settings
        self._config = config()
        self._series = series_for(self._config)
        self._counters = Counters(self._series.layout, rows=workers + 1)
        self._own = self._counters.row(0)
        self._state_blob = StateBlob()
        self._log = open_log(self._config.log)
        self._channels = {row: channel_pair() for row in range(1, workers + 1)}
        self._orders: dict[int, socket.socket] = {}
        self._pids: dict[int, int] = {}
        self._listener = _bind(address)
        now = time.time()
        self._state = TunnelState(
            version="1.0.0",
            supervisor_pid=os.getpid(),
            started_at=now,
            phase="starting",
            source="/etc/tlstunnel/tunnel.toml",
            services=tuple(
                ServiceState(
                    name=each.name,
                    mode=each.mode.value,
                    listeners=tuple(str(a) for a in each.listen),
                    targets=tuple(str(target) for target in each.targets),
                )
                for each in self._config.services
            ),
            certificates=tuple(
                CertificateState(
                    service=each.name,
                    file=f"/etc/tlstunnel/{each.name}.pem",
                    subject=f"CN={each.name}.example.org",
                    not_before=now - 90 * DAY_S,
                    not_after=now + days * DAY_S,
                    loaded_at=now,
                    names=(f"{each.name}.example.org",),
                )
                for each, days in zip(self._config.services, (90.5, 12.25), strict=True)
            ),
        )
        self._own.floats[self._series.process.last_reload_success] = now

    def run(self) -> None:
        for row in self._channels:
            self._start_worker(row)
        admin = self._fork(self._admin)
        self._publish(phase="ready", admin_pid=admin)
        name = self._listener.getsockname()
        print(
            json.dumps({"address": name if isinstance(name, str) else name[1], "pid": os.getpid(), "admin": admin}),
            flush=True,
        )
        for line in sys.stdin:
            self._obey(json.loads(line))
            print(json.dumps({"pids": self._pids}), flush=True)
        for pid in (*self._pids.values(), admin):
            os.kill(pid, signal.SIGKILL if pid != admin else signal.SIGTERM)
            os.waitpid(pid, 0)

    def _obey(self, order: dict[str, Any]) -> None:
        row = order.get("row", 0)
        if order["do"] == "phase":
            self._own.counters[self._series.process.draining] = int(order["phase"] == "draining")
            self._publish(phase=order["phase"])
        elif order["do"] == "kill":
            os.kill(self._pids[row], signal.SIGKILL)
            os.waitpid(self._pids[row], 0)
            self._counters.row(row).clear_gauges()
            self._own.counters[self._series.process.worker_restarts] += 1
            self._start_worker(row)
            self._publish()
        elif order["do"] == "stop_worker":
            os.kill(self._pids[row], signal.SIGSTOP)
            os.waitpid(self._pids[row], os.WUNTRACED)
        elif order["do"] == "reload":
            result = "success" if order["ok"] else "failure"
            self._own.counters[self._series.process.reloads[result]] += 1
            errors = () if order["ok"] else ("tunnel.toml: services.orders.key: does not match the certificate",)
            self._publish(last_reload=ReloadState(at=time.time(), ok=order["ok"], errors=errors))
        else:
            self._orders[row].send(json.dumps(order).encode())
            self._orders[row].recv(64)

    def _publish(self, **changes: Any) -> None:
        workers = tuple(
            WorkerState(pid=pid, row=row, generation=1, started_at=time.time()) for row, pid in self._pids.items()
        )
        self._state = replace(self._state, workers=workers, **changes)
        self._own.counters[self._series.process.workers] = len(workers)
        self._state_blob.publish(self._state)

    def _start_worker(self, row: int) -> None:
        observer = Observer(self._series, self._counters.row(row), self._log)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders[row] = ours
        self._pids[row] = self._fork(_Worker(observer, self._channels[row][1], theirs).run)
        theirs.close()

    def _admin(self) -> None:
        from tlstunnel.observe.admin.process import run_admin
        from tlstunnel.observe.admin.routes import AdminSources
        from tlstunnel.observe.admin.tls import tls_context

        ends = {row: pair[0] for row, pair in self._channels.items()}
        sources = AdminSources(
            self._counters, self._series, self._state_blob, ends, self._log, self._state.supervisor_pid
        )
        run_admin(sources, [self._listener], tls_context(self._settings))

    @staticmethod
    def _fork(life: Any) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            life()
        finally:
            os._exit(0)


def _bind(address: str) -> socket.socket:
    if address.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(address)))
    listener.listen()
    return listener


@dataclass
class Rig:
    """A running rig, from the outside."""

    address: int | str
    """Port on 127.0.0.1, or a path."""
    pid: int
    admin_pid: int
    process: subprocess.Popen[str]

    def tell(self, **order: Any) -> dict[int, int]:
        """Give an order; returns once it is carried out, with the workers' pids by row."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return {int(row): pid for row, pid in answer["pids"].items()}


@contextmanager
def running(
    workers: int = 2, address: str = "0", *, certificate: Path | str = "", client_ca: Path | str = ""
) -> Iterator[Rig]:
    """A rig in its own process, ended with the block. With a certificate (and key in one file) it speaks TLS."""
    files = [str(certificate), str(client_ca)]
    command = [sys.executable, "-m", "tests.support.admin_rig", str(workers), address, *files]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        try:
            yield Rig(hello["address"], hello["pid"], hello["admin"], process)
        finally:
            process.stdin.close()
            process.wait()


if __name__ == "__main__":
    files = [Path(name) if name else None for name in sys.argv[3:]]
    _Rig(int(sys.argv[1]), sys.argv[2], Admin(certificate=files[0], client_ca=files[1])).run()
