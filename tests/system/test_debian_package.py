"""The Debian package, as an operator has it: installed, used, upgraded, removed and purged, on a booted systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates
from tests.support.interop import require
from tests.support.systemd_machine import SHARED, Machine, booted, why_not

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.interop]
ROOT = Path(__file__).parents[2]
CONFIG = """\
[services.web]
listen = "systemd:https"
target = "127.0.0.1:9"
certificate = "/etc/tlstunnel/web.pem"
key = "cred:keys_web.key"
"""
# A backend that answers, and a client that never waits: each connection must be let in and answered.
KNOCK = """
import socket, ssl, sys, threading
backend = socket.create_server(("127.0.0.1", 9))

def serve():
    while True:
        link, _ = backend.accept()
        link.sendall(link.recv(100))
        link.close()

threading.Thread(target=serve, daemon=True).start()
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
count = 0
print("knocking", flush=True)
threading.Thread(target=lambda: (sys.stdin.readline(), setattr(threading, "is_over", True)), daemon=True).start()
while not getattr(threading, "is_over", False):
    with socket.create_connection(("127.0.0.1", 443)) as sock, context.wrap_socket(sock) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    count += 1
print(count, flush=True)
"""


def built(folder: Path) -> Path:
    """A package of the tree as it is, from a copy."""
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests", "benchmarks")
    shutil.copytree(ROOT, source, ignore=left_out)
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "PYTHON": "/usr/bin/python3"}
    done = subprocess.run([source / "deploy/debian/make-package"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = (source / "dist").glob("*.deb")
    return package


def newer(package: Path, folder: Path) -> Path:
    """The same as version 99.0."""
    root = folder / "root"
    subprocess.run(["dpkg-deb", "--raw-extract", package, root], check=True)
    control = root / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*", "Version: 99.0-1", control.read_text(), flags=re.MULTILINE))
    (version,) = root.rglob("tlstunnel/_version.py")
    version.write_text('VERSION = "99.0"\n')
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, folder / "newer.deb"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "newer.deb"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("package"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    missing = why_not()
    if missing and os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with booted(tmp_path) as machine:
        yield machine


def copied(machine: Machine, package: Path) -> str:
    shutil.copy(package, machine.shared)
    return f"{SHARED}/{package.name}"


def left(machine: Machine) -> list[str]:
    """What there is of it in the machine."""
    places = ("/etc", "/usr", "/var/lib", "/var/log", "/run/tlstunnel")
    found = machine.run(
        "find", *places, "-xdev", "-name", "*tlstunnel*", "-not", "-path", "/var/lib/dpkg/*", check=False
    )
    return found.stdout.split()


def test_lintian_finds_no_error(package: Path) -> None:
    done = subprocess.run(
        [require("lintian"), "--fail-on", "none", package], capture_output=True, text=True, check=False
    )
    assert not re.search(r"^E:", done.stdout, re.MULTILINE), done.stdout


def test_it_is_installed_upgraded_without_a_lost_connection_removed_and_purged(
    package: Path, machine: Machine, tmp_path: Path
) -> None:
    assert left(machine) == []
    machine.run("dpkg", "--install", copied(machine, package))
    assert machine.run("tlstunnel", "--version").stdout.startswith("tlstunnel ")
    assert "conf/examples/redis.toml" in machine.run("tlstunnel", "files").stdout
    done = machine.run("tlstunnel", "check", check=False)
    assert done.returncode == 2  # what comes along has nothing but comments
    assert "/etc/tlstunnel/tlstunnel.toml" in done.stderr
    assert machine.run("stat", "--format=%a", "/etc/tlstunnel/keys").stdout == "700\n"

    pair = certificates.server("localhost")
    machine.write("/etc/tlstunnel/web.pem", pair.certificate.read_text())
    machine.write("/etc/tlstunnel/keys/web.key", pair.key.read_text(), 0o600)
    machine.write("/etc/tlstunnel/tlstunnel.toml", CONFIG)
    machine.systemctl("enable", "--now", "tlstunnel.socket", "tlstunnel.service")
    before = machine.show("tlstunnel.service", "MainPID")["MainPID"]

    later = copied(machine, newer(package, tmp_path))
    with machine.start("/usr/bin/python3", "-c", KNOCK) as knocking:
        assert knocking.stdout is not None
        assert knocking.stdin is not None
        assert knocking.stdout.readline() == "knocking\n"
        machine.run("dpkg", "--install", later)
        assert machine.run("tlstunnel", "--version").stdout == "tlstunnel 99.0\n"
        assert machine.show("tlstunnel.service", "MainPID")["MainPID"] != before
        knocking.stdin.write("\n")
        knocking.stdin.close()
        count = knocking.stdout.read()
    assert knocking.returncode == 0, "a connection was refused or cut"
    assert int(count) > 10
    assert machine.run("cat", "/etc/tlstunnel/tlstunnel.toml").stdout == CONFIG
    assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] == "active"

    machine.run("dpkg", "--remove", "tlstunnel")
    assert machine.show("tlstunnel.service", "ActiveState")["ActiveState"] != "active"
    assert left(machine) == ["/etc/tlstunnel", "/etc/tlstunnel/tlstunnel.toml"]
    machine.run("dpkg", "--purge", "tlstunnel")
    assert left(machine) == []
    assert machine.run("getent", "passwd", "tlstunnel", check=False).returncode != 0
