"""The peers of Debian 13, whose OpenSSL 3.5 is faster than Debian 12's: installed into a chroot, once.

An old TLS library would be an unfair opponent. The mirror is the one this machine's apt uses, asked at run time.
Making the chroot and entering it need root; without, these peers are left out, loudly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.errors import BenchmarkError
from benchmarks.peers.native import cache_dir

SUITE = "trixie"
PACKAGES = ("haproxy", "nginx-light", "libnginx-mod-stream")


def default_root() -> Path:
    return cache_dir() / SUITE


def _apt(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


def _mirror() -> str:
    """The Debian archive apt is configured with; the security archive has no base system."""
    for line in _apt("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").splitlines():
        if line.rstrip("/").endswith("/debian"):
            return line
    raise BenchmarkError("apt: no Debian archive among its sources; say which peers to run with --peers")


def ensure(root: Path) -> Path:
    """The chroot with the peers in it, made when it is not there yet.

    Raises BenchmarkError when it is not there and cannot be made, or cannot be entered.
    """
    if os.geteuid() != 0:
        raise BenchmarkError(f"{root}: entering a chroot needs root; run as root, or leave the Debian 13 peers out")
    if (root / "usr/sbin/haproxy").exists() and (root / "usr/sbin/nginx").exists():
        return root
    program = shutil.which("debootstrap", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        raise BenchmarkError("debootstrap: not installed; it makes the chroot the Debian 13 peers run in")
    print(f"making {root} (a minute, once)", file=sys.stderr)
    environment = dict(os.environ)
    proxy = _apt("apt-config", "shell", "PROXY", "Acquire::http::Proxy").partition("'")[2].rstrip("'\n")
    if proxy:
        environment["http_proxy"] = proxy
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    argv = [program, "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(partial), _mirror()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise BenchmarkError(f"debootstrap: failed\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    partial.rename(root)
    return root
