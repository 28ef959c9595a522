"""What the systemd units say, what systemd makes of that, and what is refused before one is written."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import reachable
from tests.support.interop import require
from tests.support.units import ROOT, UNITS
from tlstunnel.address import SystemdAddress, parse_listen
from tlstunnel.cli import systemd
from tlstunnel.cli.systemd import running_installation
from tlstunnel.cli.systemd_units import Installation, quote, system_units, user_units
from tlstunnel.errors import UsageError

MAX_EXPOSURE = 1.5


# --- what the units say ---------------------------------------------------------------------------------------------


def test_the_units_in_the_repository_are_what_install_writes_for_a_package() -> None:
    for folder, units in ((UNITS, system_units(Installation())), (UNITS / "user", user_units(Installation()))):
        for name, text in units.items():
            assert (folder / name).read_text() == text, f"{folder / name} differs from what cli/systemd_units.py makes"


def test_systemd_finds_nothing_to_object_to(tmp_path: Path) -> None:
    analyze = require("systemd-analyze")
    for kind, units in (
        ("--system", system_units(reachable.installation())),
        ("--user", user_units(running_installation(in_sandbox=False))),
    ):
        folder = tmp_path / kind
        folder.mkdir()
        for name, text in units.items():
            (folder / name).write_text(text)
        names = [str(folder / name) for name in units]
        environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run(
            [analyze, kind, "verify", *names], capture_output=True, text=True, check=False, env=environ
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), kind


@pytest.mark.parametrize("name", ["tlstunnel.service", "tlstunnel@.service"])
def test_exposure_is_low_also_for_an_installation_in_a_home_directory(name: str, tmp_path: Path) -> None:
    homely = Installation(("/home/ann/env/bin/tlstunnel",), ("/home/ann/env",))
    for number, installation in enumerate((Installation(), homely)):
        assert exposure(tmp_path / str(number), {name: system_units(installation)[name]}) <= MAX_EXPOSURE


def test_socket_activation_lowers_the_exposure(tmp_path: Path) -> None:
    plain = {"tlstunnel.service": system_units(Installation())["tlstunnel.service"]}
    drop_in = {"tlstunnel.service.d/own.conf": (UNITS / "examples/socket-activated.conf").read_text()}
    assert exposure(tmp_path / "activated", plain | drop_in) < exposure(tmp_path / "plain", plain)


def exposure(folder: Path, units: dict[str, str]) -> float:
    """What `systemd-analyze security` makes of a service and its drop-ins. It wants a root to find drop-ins in."""
    analyze = require("systemd-analyze")
    place = folder / "etc/systemd/system"
    for name, text in units.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    service = next(iter(units)).replace("@.", "@one.")
    command = [analyze, "security", "--offline=true", f"--root={folder}", "--no-pager", service]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def test_the_socket_activation_example_takes_the_socket_that_the_unit_names() -> None:
    table = tomllib.loads((UNITS / "examples/socket-activated.toml").read_text())
    names = re.findall(r"^FileDescriptorName=(.*)$", (UNITS / "tlstunnel.socket").read_text(), re.M)
    assert [parse_listen(table["services"]["web"]["listen"])] == [SystemdAddress(name) for name in names]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/usr/bin/tlstunnel", "/usr/bin/tlstunnel"),
        ("/opt/my tunnel/bin", '"/opt/my tunnel/bin"'),
        ("/opt/100%/$x", "/opt/100%%/$$x"),
        ('/opt/"q"\\', '"/opt/\\"q\\"\\\\"'),
    ],
)
def test_a_path_is_written_so_that_systemd_reads_it_back(word: str, written: str) -> None:
    assert quote(word) == written


@pytest.mark.parametrize(
    ("prefix", "base", "bound"),
    [
        ("/opt/tlstunnel", "/usr", ()),
        ("/home/ann/env", "/usr", ("/home/ann/env",)),
        ("/home/ann/env", "/home/ann/python", ("/home/ann/env", "/home/ann/python")),
        ("/home/ann/python/env", "/home/ann/python", ("/home/ann/python",)),
        ("/root/env", "/usr", ("/root/env",)),
    ],
)
def test_what_is_needed_of_a_home_directory_stays_visible_and_nothing_else(
    prefix: str, base: str, bound: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "__file__", f"{prefix}/lib/tlstunnel/cli/systemd.py")
    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "base_prefix", base)
    installation = running_installation(in_sandbox=True)
    assert installation.below_home == bound
    text = system_units(installation)["tlstunnel.service"]
    assert re.findall(r"^BindReadOnlyPaths=(.*)$", text, re.M) == list(bound)
    assert ("ProtectHome=tmpfs" in text) == bool(bound)


def test_an_installation_that_a_service_cannot_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/tmp/try/env")
    with pytest.raises(UsageError) as caught:
        running_installation(in_sandbox=True)
    assert str(caught.value) == (
        'tlstunnel systemd install: "/tmp/try/env" is in a temporary directory, which services do not see; '
        "install it for everybody, in a directory such as /opt/tlstunnel"
    )
    monkeypatch.setattr(sys, "prefix", "/opt/try/env")
    user_site = f"{site.getusersitepackages()}/tlstunnel"
    monkeypatch.setattr(systemd, "__file__", f"{user_site}/cli/systemd.py")
    with pytest.raises(UsageError) as caught:
        running_installation(in_sandbox=True)
    assert f'"{user_site}" is installed for one user only' in str(caught.value)
    assert running_installation(in_sandbox=False).command


@pytest.mark.parametrize("name", ["notify-reload.conf", "socket-activated.conf"])
def test_the_how_to_writes_the_drop_ins_that_the_repository_has(name: str) -> None:
    page = (ROOT / "docs/how-to/systemd.md").read_text()
    written = re.search(
        rf"cat > /etc/systemd/system/tlstunnel\.service\.d/{name} <<'END'\n(.*?)^END$", page, re.S | re.M
    )
    assert written is not None
    kept = [line for line in (UNITS / "examples" / name).read_text().splitlines() if not line.startswith("#")]
    assert written[1].splitlines() == kept
