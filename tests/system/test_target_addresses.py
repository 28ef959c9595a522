"""Targets by name, where the test decides what the name means: a hosts file of the daemon's own.

It is mounted over /etc/hosts in a mount namespace that only the daemon sees, and changed while it runs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends, certificates, clients, services
from tests.support.services import Services
from tests.support.tunnel import Tunnel

pytestmark = [pytest.mark.slow, pytest.mark.root]

NAME = "backend.example"


class Hosts:
    """The daemon's hosts file. Written in place: what is mounted is the file, not its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, *addresses: str) -> None:
        """From now on the name stands for these."""
        lines = [*(f"{address} {NAME}" for address in addresses), "127.0.0.1 localhost", ""]
        self.path.write_text("\n".join(lines))


@contextlib.contextmanager
def running(folder: Path, cases: dict[str, str], *addresses: str) -> Iterator[tuple[Services, Hosts]]:
    """The daemon with these services, for which the name stands for these addresses."""
    why_not = None if os.geteuid() == 0 else "a hosts file of one's own needs root"
    why_not = why_not or (None if shutil.which("unshare") else "a hosts file of one's own needs unshare")
    if why_not is not None and os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(why_not)
    if why_not is not None:
        pytest.skip(why_not)
    pair = certificates.server("localhost")
    config = folder / "tunnel.toml"
    common = f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\nunsafe_target = true'
    services.write(config, "", cases, common)
    hosts = Hosts(folder / "hosts")
    hosts.say(*addresses)
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    inside = ["unshare", "--mount", "--propagation=private", "sh", "-c", mount, str(hosts.path)]
    daemon = Tunnel([*inside, sys.executable, "-m", "tlstunnel", "run", str(config)])
    try:
        daemon.wait_ready()
        yield Services(daemon, config), hosts
        daemon.stop()
    finally:
        daemon.kill()


def who(port: int) -> str:
    with clients.connect(port) as client:
        said = client.read_all().decode().strip()
        client.close_notify()
        return said


@contextlib.contextmanager
def at(host: str, port: int) -> Iterator[backends.Backend]:
    """A backend that says where it is, at a port that another has elsewhere."""
    with backends.serve(services.say(host), host=host, port=port) as backend:
        yield backend


def test_all_addresses_of_a_name_are_tried_whichever_of_them_answers(tmp_path: Path) -> None:
    """Of one IPv6 address and three IPv4 ones, a single one listens; each in its turn."""
    everywhere = ("::1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
    port = backends.unused_port()
    with running(tmp_path, {"web": f'target = "{NAME}:{port}"'}, *everywhere) as (tunnel, _):
        for host in everywhere:
            with at(host, port):
                assert who(tunnel.at("web")) == host
            record = tunnel.record()
            assert (record["target"], record["reason"]) == (f"{NAME}:{port}", "finished")
        assert who(tunnel.at("web")) == ""
        assert tunnel.record()["reason"] == "refused"


def test_a_name_is_resolved_for_every_connection_within_a_second(tmp_path: Path) -> None:
    port = backends.unused_port()
    with (
        at("127.0.0.2", port),
        at("127.0.0.3", port),
        running(tmp_path, {"web": f'target = "{NAME}:{port}"'}, "127.0.0.2") as (tunnel, hosts),
    ):
        assert who(tunnel.at("web")) == "127.0.0.2"
        hosts.say("127.0.0.3")
        # What is known of it is used for up to a second; nothing has to be reloaded for the change to be seen.
        answers = ["127.0.0.2"]
        while answers[-1] == "127.0.0.2":
            answers.append(who(tunnel.at("web")))
        assert set(answers[:-1]) == {"127.0.0.2"}
        assert answers[-1] == "127.0.0.3"
        hosts.say()
        while (said := who(tunnel.at("web"))) == "127.0.0.3":
            continue
        assert said == ""
        assert tunnel.daemon.until(lambda: [r for r in tunnel.daemon.records if r["reason"] == "unresolvable"], "it")


def test_from_a_source_address_only_addresses_of_its_family_are_tried(tmp_path: Path) -> None:
    port = backends.unused_port()
    cases = {
        "four": f'target = "{NAME}:{port}"\nsource_address = "127.0.0.9"',
        "six": f'target = "{NAME}:{port}"\nsource_address = "::1"',
        "any": f'target = "{NAME}:{port}"',
    }
    with at("::1", port), at("127.0.0.2", port), running(tmp_path, cases, "::1", "127.0.0.2") as (tunnel, _):
        assert who(tunnel.at("four")) == "127.0.0.2"
        assert who(tunnel.at("six")) == "::1"
        assert who(tunnel.at("any")) in {"::1", "127.0.0.2"}
