"""The wheel, as a user gets it: built, installed into an empty environment, and run from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.interop import require

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def run(*words: str | Path, **how: object) -> str:
    """Standard output of a program that must end well."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def build(folder: Path) -> Path:
    """A wheel of the tree as it is, from a copy: a build leaves folders behind."""
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "tests", "benchmarks")
    shutil.copytree(ROOT, source, ignore=left_out)
    env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, env=env)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel and what it depends on."""
    prefix = tmp_path_factory.mktemp("prefix")
    run(sys.executable, "-m", "venv", prefix)
    run(prefix / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return prefix


def test_a_wheel_built_twice_is_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_demo_runs_from_an_empty_environment(prefix: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [prefix / "bin" / "tlstunnel", "demo", "--once"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HTTP/1.1 200 OK" in done.stdout + done.stderr


def test_the_files_that_come_along_are_those_of_the_repository(prefix: Path, tmp_path: Path) -> None:
    command = prefix / "bin" / "tlstunnel"
    names = run(command, "files", cwd=tmp_path).splitlines()
    assert len(names) > 20
    for name in names:
        where = Path(run(command, "files", "--path", name, cwd=tmp_path).strip())
        assert where.is_relative_to(prefix / "share" / "tlstunnel")
        assert where.read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.interop
def test_man_finds_the_pages_of_the_environment(prefix: Path) -> None:
    env = {"PATH": f"{prefix}/bin:/usr/bin:/bin", "MANPATH": str(prefix / "share" / "man"), "LC_ALL": "C.UTF-8"}
    for page, words in {
        "tlstunnel-cert-issue": "--server NAME,NAME",
        "tlstunnel.toml": 'workers = number or "auto"',
    }.items():
        assert words in run(require("man"), page, env=env | {"MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""})


@pytest.mark.interop
def test_bash_completes_commands_and_options(prefix: Path) -> None:
    program = (
        f"source {prefix}/share/bash-completion/completions/tlstunnel; COMP_WORDS=(tlstunnel {{}}); COMP_CWORD={{}}; "
        '_tlstunnel_completion tlstunnel; echo "${{COMPREPLY[@]}}"'
    )
    env = {"PATH": f"{prefix}/bin:/usr/bin:/bin"}
    for words, place, completed in (
        ("exp", 1, "explain"),
        ("server --max-connections-p", 2, "--max-connections-per-ip"),
    ):
        assert completed in run("/bin/bash", "-c", program.format(words, place), env=env).split()


@pytest.mark.interop
@pytest.mark.parametrize(
    ("shell", "path"), [("zsh", "zsh/site-functions/_tlstunnel"), ("fish", "fish/vendor_completions.d/tlstunnel.fish")]
)
def test_the_other_shells_read_their_completions(prefix: Path, shell: str, path: str) -> None:
    run(require(shell), "-n", prefix / "share" / path)
    if shell == "fish":
        env = {"PATH": f"{prefix}/bin:/usr/bin:/bin", "HOME": str(prefix)}
        said = run(require("fish"), "-c", f"source {prefix}/share/{path}; complete -C 'tlstunnel exp'", env=env)
        assert said.split()[0] == "explain"
