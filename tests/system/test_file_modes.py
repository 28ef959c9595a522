"""Whom a file or folder is for that a command makes: stated by the command, whatever the umask it was given."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMMANDS = (
    "cert ca --out new/ca",
    "cert ca --out new/sub/ca --intermediate --ca new/ca --name Below",
    "cert issue --ca new/ca --server localhost --out made/deep/er",
    "cert issue --ca new/ca --client someone --out made/deep/er",
    "cert self-signed --server localhost --out alone/here",
    "cert request --server localhost --out asked/for",
    "cert crl --ca new/ca",
    "cert bundle --cert made/deep/er/localhost.pem --key made/deep/er/localhost.key --out b.p12 --unencrypted",
    "cert key make --out k/one.key",
    "explain --html story.html",
    "systemd install --user",
)
SECRETS = (".key", ".p12")


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*") if path.name
    }


@pytest.fixture(scope="module", params=[0, 0o077], ids=["umask 000", "umask 077"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """What all commands leave behind that were given a umask."""
    folder = tmp_path_factory.mktemp("modes")
    (folder / "k").mkdir(0o755)
    (folder / "k").chmod(0o755)
    environ = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    for command in COMMANDS:
        words = [sys.executable, "-m", "tlstunnel", *command.split()]
        done = subprocess.run(
            words, cwd=folder, env=environ, umask=request.param, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return request.param, folder


def test_folders_are_for_all_to_enter_and_for_their_owner_to_change(made: tuple[int, Path]) -> None:
    _, folder = made
    found = {name: mode for name, mode in modes(folder).items() if (folder / name).is_dir()}
    assert {"new", "new/ca", "new/sub", "made/deep/er", "alone", "asked", "config/systemd/user"} <= set(found)
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o755} == {}


def test_keys_are_for_their_owner_and_nobody_but_the_owner_writes(made: tuple[int, Path]) -> None:
    umask, folder = made
    found = {name: mode for name, mode in modes(folder).items() if not (folder / name).is_dir()}
    secrets = {name: mode for name, mode in found.items() if name.endswith(SECRETS)}
    assert len(secrets) >= 6
    assert set(secrets.values()) == {0o600}
    public = {name: mode for name, mode in found.items() if name.endswith((".pem", ".crl", ".service", ".socket"))}
    assert len(public) >= 6
    assert {name: oct(mode) for name, mode in public.items() if mode != 0o644} == {}
    others = {name: mode for name, mode in found.items() if name not in {**secrets, **public}}
    assert {name: oct(mode) for name, mode in others.items() if mode & 0o022} == {}
    if umask == 0o077:
        assert found["story.html"] == 0o600, "a stricter umask holds where nothing else is stated"
