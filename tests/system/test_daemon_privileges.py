"""Started as root, the daemon works as somebody else, and keeps for its supervisor what a reload needs."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates
from tests.support.load import visit
from tests.support.site import Site, kill_and_wait, reload
from tests.support.wire_peers import client_context
from tlstunnel.daemon.system.privileges import SUPERVISOR_KEEPS

pytestmark = [pytest.mark.slow, pytest.mark.root]

USER, GROUP = "nobody", "daemon"


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    with backends.serve(backends.echo) as backend:
        yield backend


def facts(pid: int) -> dict[str, list[str]]:
    """/proc/PID/status, its values as words."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: values.split() for name, _, values in (line.partition(":") for line in lines)}


def assert_is_nobody(pid: int) -> None:
    found = facts(pid)
    uid, gid = str(pwd.getpwnam(USER).pw_uid), str(grp.getgrnam(GROUP).gr_gid)
    assert found["Uid"] == [uid] * 4
    assert found["Gid"] == [gid] * 4
    assert found["Groups"] == [gid]
    assert [found[name] for name in ("CapPrm", "CapEff", "CapAmb")] == [["0000000000000000"]] * 3
    assert found["NoNewPrivs"] == ["1"]


def test_workers_and_admin_are_somebody_else_and_the_supervisor_keeps_what_it_needs(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_user=f'"{USER}"', process_group=f'"{GROUP}"')
    with site.run() as daemon:
        visit(daemon.port, b"x", client_context())
        children = daemon.children()
        assert len(children) == 3, "two workers and the admin process"
        for pid in children:
            assert_is_nobody(pid)
        supervisor = facts(daemon.process.pid)
        assert supervisor["Uid"] == ["0"] * 4
        assert supervisor["NoNewPrivs"] == ["1"]
        most = sum(1 << bit for bit in SUPERVISOR_KEEPS)
        for name in ("CapPrm", "CapEff"):
            assert int(supervisor[name][0], 16) & ~most == 0
        assert int(supervisor["CapInh"][0], 16) == int(supervisor["CapAmb"][0], 16) == 0


def test_a_reload_reads_keys_that_only_root_may_read_and_binds_ports_that_only_root_may_bind(
    tmp_path: Path, echo: backends.Backend
) -> None:
    site = Site(tmp_path, echo.port, process_user=f'"{USER}"')
    low = free_low_port()
    with site.run(is_clean=False) as daemon:
        kept_from_root = certificates.server("localhost", key_type="RSA 2048")
        site.install(kept_from_root)
        shutil.chown(tmp_path / "web.key", "daemon")  # not even root's own: a renewal tool may run as anybody
        assert reload(daemon).startswith("reloaded certificates")
        addresses = f'["127.0.0.1:{low}", "unix:{tmp_path}/low.sock"]'
        for generation, mode in ((2, 0o600), (3, 0o666)):
            site.write({"web": {}, "low": {"listen": addresses, "unix_mode": f'"{mode:04o}"'}})
            assert reload(daemon).endswith(f"generation {generation}")
            visit(low, b"x", client_context())
            owner = (tmp_path / "low.sock").stat()
            assert owner.st_uid == pwd.getpwnam(USER).pw_uid
            assert stat.S_IMODE(owner.st_mode) == mode
        kill_and_wait(daemon, site.workers()[0])
        site.until(lambda metrics: metrics["tlstunnel_workers"] == 2, "two workers")
        for pid in site.workers():
            assert facts(pid)["Uid"] == [str(owner.st_uid)] * 4
    assert not (tmp_path / "low.sock").exists()
    assert not (tmp_path / "admin.sock").exists()


def test_names_are_resolved_by_somebody_who_cannot_read_the_interpreter_s_files(
    tmp_path: Path, echo: backends.Backend
) -> None:
    """As here, where it is in root's home: what Python imports only when it is needed must be there before."""
    site = Site(tmp_path, echo.port, process_user=f'"{USER}"', target=f'"localhost:{echo.port}"')
    with site.run() as daemon:
        visit(daemon.port, b"x", client_context())
        assert daemon.record()["reason"] == "finished"
        assert [site.ask(path)[0] for path in ("/metrics", "/status", "/connections", "/")] == [200] * 4


def free_low_port() -> int:
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no low port is free")
