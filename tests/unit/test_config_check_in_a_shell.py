"""`check` outside the unit whose credentials a configuration names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import certificates


def check(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "tunnel.toml").write_text(text)
    environ = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    command = [sys.executable, "-m", "tlstunnel", "check", "tunnel.toml"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


SERVICE = '[services.web]\nlisten = ":8443"\ntarget = "127.0.0.1:80"\nkey = "cred:keys_web.key"\n'


def test_check_in_a_shell_says_that_it_cannot_see_credentials_and_looks_at_the_rest(tmp_path: Path) -> None:
    pair = certificates.server("localhost")
    done = check(f'{SERVICE}certificate = "{pair.certificate}"\n', tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].startswith("web: systemd shows its credentials to the daemon alone")
    assert done.stdout.splitlines()[-1] == "configuration OK"


def test_check_in_a_shell_still_finds_what_is_wrong_beside_credentials(tmp_path: Path) -> None:
    done = check(f'{SERVICE}certificate = "missing.pem"\nidle_timeout = 5\n', tmp_path)
    assert done.returncode == 2
    assert "services.web.idle_timeout" in done.stderr
    assert "missing.pem" in done.stderr
