"""The certificate every proxy serves: ECDSA P-256, self-signed, made by openssl(1), so without any code of ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from benchmarks.peers.errors import BenchmarkError


def make(directory: Path) -> None:
    """Writes server.pem, server.key and both.pem (certificate, then key) into a directory."""
    if shutil.which("openssl") is None:
        raise BenchmarkError("openssl: not installed; it makes the certificate")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{directory}/server.key")
    name = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "30")
    end_entity = ("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature")
    argv = ["openssl", "req", "-x509", *curve, *name, *end_entity, "-out", f"{directory}/server.pem"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"openssl: {done.stderr.strip()}")
    (directory / "both.pem").write_text((directory / "server.pem").read_text() + (directory / "server.key").read_text())
