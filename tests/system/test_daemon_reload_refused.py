"""A reload that is no good changes nothing, and everybody who should know is told why."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import backends, certificates
from tests.support.interop import require
from tests.support.load import dial, visitors
from tests.support.manager import Manager
from tests.support.ports import free_port
from tests.support.site import Site, reload, reloads
from tests.support.wire_peers import client_context

pytestmark = pytest.mark.slow


@pytest.fixture
def echo() -> Iterator[backends.Backend]:
    with backends.serve(backends.echo) as backend:
        yield backend


def break_syntax(site: Site, _: int) -> str:
    site.put("tunnel.toml", b"[services\n")
    return "line 1: not TOML"


def misspell_a_key(site: Site, _: int) -> str:
    site.write(idle_tiemout='"1h"')
    return 'services.web.idle_tiemout: unknown key; did you mean "idle_timeout"?'


def remove_the_key_file(site: Site, _: int) -> str:
    (site.folder / "web.key").unlink()
    return f"services.web.key: {site.folder}/web.key: does not exist; check the path"


def swap_the_key(site: Site, _: int) -> str:
    site.put("web.key", certificates.server("other", key_type="RSA 2048").key.read_bytes())
    return "web.key"


def damage_the_certificate(site: Site, _: int) -> str:
    site.put("web.pem", (site.folder / "web.pem").read_bytes()[:300])
    return "web.pem"


def remove_the_configuration(site: Site, _: int) -> str:
    site.config.unlink()
    return "tunnel.toml: does not exist; check the path"


def listen_where_somebody_is(site: Site, taken: int) -> str:
    site.write({"web": {}, "late": {"listen": f'"127.0.0.1:{taken}"'}})
    return f"service late: cannot listen on 127.0.0.1:{taken}: "


def listen_elsewhere_and_where_somebody_is(site: Site, taken: int) -> str:
    site.write({"web": {"listen": f'["127.0.0.1:{free_port()}", "127.0.0.1:{taken}"]'}})
    return f"service web: cannot listen on 127.0.0.1:{taken}: "


def log_to_nowhere(site: Site, _: int) -> str:
    site.write(log_target='"file:missing/tunnel.log"')
    return "missing/tunnel.log"


def promise_too_many_connections(site: Site, _: int) -> str:
    site.write(max_connections="90000000")
    return "services.web.max_connections: 90000000 connections need "


def become_somebody(site: Site, _: int) -> str:
    site.write(process_user='"nobody"')
    return "process.user and process.group cannot be reloaded; restart tlstunnel"


BROKEN = [
    break_syntax,
    misspell_a_key,
    remove_the_key_file,
    swap_the_key,
    damage_the_certificate,
    remove_the_configuration,
    listen_where_somebody_is,
    listen_elsewhere_and_where_somebody_is,
    log_to_nowhere,
    promise_too_many_connections,
    become_somebody,
]


def test_every_kind_of_broken_reload_changes_nothing_and_says_why(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    manager = Manager(tmp_path)
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        site.run(env=manager.environ) as daemon,
        visitors(daemon.port, count=1) as crowd,
    ):
        good = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        manager.until("READY=1")
        before = site.status()
        for number, break_it in enumerate(BROKEN, start=1):
            expected = break_it(site, other.getsockname()[1])
            said = reload(daemon)
            assert said.startswith("reload failed, nothing changed: "), (break_it.__name__, said)
            assert expected in said, break_it.__name__
            assert manager.until("RELOADING=1").startswith("RELOADING=1\nMONOTONIC_USEC="), "in one datagram"
            answer = manager.until("READY=1")
            assert "STATUS=reload failed, still running the old configuration: " in answer
            for name, content in good.items():
                site.put(name, content)
            site.write(**dict.fromkeys(("idle_tiemout", "log_target", "max_connections", "process_user"), ""))
            crowd.wait_for(2)
            metrics = site.metrics()
            assert metrics['tlstunnel_config_reloads_total{result="failure"}'] == number
            assert metrics["tlstunnel_config_last_reload_successful"] == 0
            after = site.status()
            assert after["last_reload"]["ok"] is False
            assert expected in after["last_reload"]["errors"][0]
            assert after["generation"] == 1
            assert places(after) == places(before)
            assert pids(after) == pids(before)
        site.write()
        assert reload(daemon).startswith("reloaded certificates"), "as before, and as if nothing had been"
        assert site.metrics()["tlstunnel_config_last_reload_successful"] == 1


def places(status: dict[str, Any]) -> dict[str, list[str]]:
    return {each["name"]: each["listeners"] for each in status["services"]}


def pids(status: dict[str, Any]) -> set[int]:
    return {each["pid"] for each in status["workers"]}


def test_all_problems_of_a_reload_are_logged(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    with site.run() as daemon:
        site.write({"web": {"idle_timeout": "5", "min_version": '"1.1"'}, "mail": {"colour": '"red"'}})
        reload(daemon)
        daemon.until(lambda: len(reloads(daemon)) == 3, "three problems")
        for word in ("services.web.idle_timeout", "services.web.min_version", "services.mail.colour"):
            assert any(word in line for line in reloads(daemon)), word
        assert len(site.status()["last_reload"]["errors"]) == 3


@pytest.mark.root
def test_a_key_that_may_not_be_read_any_more_changes_nothing(tmp_path: Path, echo: backends.Backend) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a file to somebody else")
    site = Site(tmp_path, echo.port, process_workers="1")
    # Root that may read only what is its own.
    prefix = (require("setpriv"), "--bounding-set", "-dac_override,-dac_read_search")
    with site.run(prefix=prefix) as daemon, visitors(daemon.port, count=1) as crowd:
        shutil.chown(tmp_path / "web.key", "nobody")
        assert "web.key: permission denied for user root" in reload(daemon)
        crowd.wait_for(2)


# --- reloads and signals that meet ----------------------------------------------------------------------------------


def test_a_reload_asked_for_during_another_is_not_lost(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    with site.run() as daemon:
        for number in range(12):
            site.write({"web": {}, f"extra{number}": {}})
            daemon.process.send_signal(signal.SIGHUP)
        # However many reloads that made, the last one saw what was written last.
        site.until(
            lambda metrics: 'tlstunnel_connections_active{service="extra11"}' in metrics, "the last configuration"
        )
        assert not [line for line in reloads(daemon) if "failed" in line]


def test_a_reload_while_draining_is_ignored(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    with site.run(exit_code=None) as daemon:
        with dial(daemon.port, client_context()):
            daemon.terminate()
            daemon.message("stop", "draining")
            site.put("tunnel.toml", b"[nonsense")
            daemon.process.send_signal(signal.SIGHUP)
            assert site.metrics()["tlstunnel_draining"] == 1
        assert daemon.wait() == 0
        assert reloads(daemon) == []


def test_a_stop_during_a_reload_wins(tmp_path: Path, echo: backends.Backend) -> None:
    site = Site(tmp_path, echo.port)
    with site.run(exit_code=None) as daemon:
        site.write(idle_timeout='"2h"', process_workers="8")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.terminate()
        assert daemon.wait() == 0
        assert len([m for m in daemon.messages if m["message"] == "stopped"]) == 1
