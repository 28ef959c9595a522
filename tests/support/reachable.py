"""The tlstunnel under test where a systemd service can see it.

Services with PrivateTmp= see another /tmp, so a checkout there cannot be what a unit runs (`systemd install` rightly
refuses it). Such a checkout is then installed once more, for the time of the tests, into a directory that services see.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tlstunnel.cli import systemd
from tlstunnel.cli.systemd_units import Installation

_HIDDEN = (Path("/tmp"), Path("/var/tmp"))
# What only tests need; the rest of the environment is some 40 MB.
_LEFT_OUT = shutil.ignore_patterns(
    "matplotlib*", "numpy*", "pillow*", "PIL", "mypy*", "ruff*", "fontTools", "fonttools*", "hypothesis*", "pytest*",
    "_pytest", "pip*", "setuptools*", "contourpy*", "kiwisolver*", "__editable__*", "__pycache__",
)  # fmt: skip


@functools.cache
def tunnel() -> str:
    """The path of a `tlstunnel` that services can run."""
    here = Path(sys.executable).with_name("tlstunnel")
    package = Path(systemd.__file__).resolve().parent.parent
    if not any(path.is_relative_to(hidden) for path in (Path(sys.prefix), package) for hidden in _HIDDEN):
        return str(here)
    return str(_install(package))


def installation() -> Installation:
    """How a sandboxed unit runs it."""
    program = (
        "import json; from tlstunnel.cli.systemd import running_installation as running\n"
        "found = running(in_sandbox=True); print(json.dumps([found.command, found.below_home]))"
    )
    python = Path(tunnel()).with_name("python")
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    command, below_home = json.loads(done.stdout)
    return Installation(tuple(command), tuple(below_home))


def _install(package: Path) -> Path:
    place = Path(tempfile.mkdtemp(prefix="tlstunnel-tests-", dir="/opt"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    place.chmod(0o755)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    libraries = place / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    shutil.copytree(sysconfig.get_path("purelib"), libraries, ignore=_LEFT_OUT, dirs_exist_ok=True)
    shutil.copytree(package, libraries / "tlstunnel", ignore=shutil.ignore_patterns("__pycache__"))
    script = place / "bin" / "tlstunnel"
    script.write_text(f"#!{place}/bin/python\nfrom tlstunnel.cli.app import main\nmain()\n")
    script.chmod(0o755)
    return script
