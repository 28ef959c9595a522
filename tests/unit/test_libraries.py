"""The libraries we reach into: all that is called is looked for at start, and versions that do not fit are named."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tlstunnel._openssl import binding

ROOT = Path(__file__).parents[2]


def test_every_name_of_the_binding_that_is_used_is_looked_for_at_start() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "tlstunnel" / "_openssl").glob("*.py"))
    used = set(re.findall(r"\b_?lib\.([A-Za-z]\w+)", sources))
    assert used == set(binding._NEEDED)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with another package OpenSSL or cryptography found first."""
    return subprocess.run(
        [sys.executable, "-m", "tlstunnel", *words], cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        "raise AttributeError(\"module 'lib' has no attribute 'GEN_EMAIL'\")",
        "raise ImportError('cannot\\nimport x509')",
    ],
)
def test_libraries_that_do_not_fit_are_one_line_with_the_versions_that_do(tmp_path: Path, said: str) -> None:
    (tmp_path / "OpenSSL").mkdir()
    (tmp_path / "OpenSSL" / "__init__.py").write_text(said + "\n")
    done = run(tmp_path, "demo", "--once")
    assert done.returncode == 1
    assert re.fullmatch(
        r"tlstunnel: cryptography \S+ and pyOpenSSL \S+ do not fit each other, or tlstunnel \(.*\); "
        r"install 'cryptography[<>=.,\d]+' 'pyOpenSSL[<>=.,\d]+'\n",
        done.stderr,
    ), done.stderr


def test_a_binding_that_lacks_a_function_is_refused_at_start_in_one_line(
    tmp_path: Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text("""
from cryptography.hazmat.bindings.openssl.binding import Binding

class Lacking:
    def __init__(self, real):
        self._real = real
    def __getattr__(self, name):
        if name == "SSL_set_SSL_CTX":
            raise AttributeError(name)
        return getattr(self._real, name)

Binding.lib = Lacking(Binding.lib)
""")
    done = run(tmp_path, "demo", "--once")
    assert done.returncode == 1
    assert re.fullmatch(
        r"tlstunnel: cryptography \S+ and pyOpenSSL \S+ do not fit each other, or tlstunnel "
        r"\(the OpenSSL binding lacks SSL_set_SSL_CTX\); install 'cryptography[<>=.,\d]+' 'pyOpenSSL[<>=.,\d]+'\n",
        done.stderr,
    ), done.stderr


def test_an_error_of_our_own_is_not_blamed_on_the_libraries(tmp_path: Path) -> None:
    (tmp_path / "trio").mkdir()
    (tmp_path / "trio" / "__init__.py").write_text("import nothing_of_the_kind\n")
    done = run(tmp_path, "demo", "--once")
    assert done.returncode == 1
    assert "No module named 'nothing_of_the_kind'" in done.stderr
    assert "do not fit" not in done.stderr
