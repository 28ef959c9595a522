"""What TLS scanners say of the defaults: sslyze with Mozilla's intermediate profile, sslscan, testssl."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates, peers, tunnel
from tests.support.interop import require

pytestmark = [pytest.mark.interop, pytest.mark.slow]

KEY_TYPES = ["ECDSA P-256", "RSA 2048"]
# Whoever has it installed beside the project may say where; it pins a cryptography older than ours.
SSLYZE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tlstunnel-tests" / "sslyze"


@pytest.fixture(scope="module")
def sslyze() -> str:
    """sslyze in an environment of its own, made on first use and kept."""
    if found := shutil.which("sslyze"):
        return found
    SSLYZE.parent.mkdir(parents=True, exist_ok=True)
    program, done = SSLYZE / "bin" / "sslyze", SSLYZE / "complete"
    with SSLYZE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not done.exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(SSLYZE)], check=True)
            pip = [str(SSLYZE / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            result = subprocess.run([*pip, "sslyze==6.*"], capture_output=True, text=True, check=False)
            if result.returncode:
                message = f"sslyze cannot be installed: {result.stderr.strip().splitlines()[-1:]}"
                if os.environ.get("TLSTUNNEL_REQUIRE_INTEROP") == "1":
                    pytest.fail(message)
                pytest.skip(message)
            done.touch()
    return str(program)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A web service to scan: scanners ask what they have found."""
    with peers.nginx(tmp_path_factory.mktemp("site")) as service:
        yield service.port


def compliance(sslyze: str, port: int) -> str:
    command = [sslyze, "--mozilla_config=intermediate", f"--certinfo_ca_file={certificates.ca().certificate}"]
    done = subprocess.run(
        [*command, f"localhost:{port}"], capture_output=True, text=True, check=False, timeout=peers.PATIENCE_S
    )
    assert "COMPLIANCE AGAINST TLS CONFIGURATION" in done.stdout, done.stdout + done.stderr
    return done.stdout.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_defaults_comply_with_mozillas_intermediate_profile(sslyze: str, page: int, key_type: str) -> None:
    pair = certificates.server("localhost", key_type=key_type)
    with tunnel.server(page, pair=pair) as daemon:
        assert "OK - Compliant" in compliance(sslyze, daemon.port)


def test_sslyze_would_object_to_a_cipher_that_the_profile_leaves_out(sslyze: str, page: int) -> None:
    with tunnel.server(page, "--ciphers", "ECDHE-ECDSA-AES128-SHA256") as daemon:
        assert "FAILED - Not compliant" in compliance(sslyze, daemon.port)


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_sslscan_finds_modern_versions_and_suites_only(page: int, key_type: str) -> None:
    pair = certificates.server("localhost", key_type=key_type)
    with tunnel.server(page, pair=pair) as daemon:
        command = [require("sslscan"), "--no-colour", f"localhost:{daemon.port}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=peers.PATIENCE_S).stdout
    versions = dict(re.findall(r"^((?:SSL|TLS)v\S+)\s+(enabled|disabled)$", said, re.MULTILINE))
    assert {name for name, state in versions.items() if state == "enabled"} == {"TLSv1.2", "TLSv1.3"}
    assert len(versions) == 6
    suites = re.findall(r"^(?:Preferred|Accepted)\s+TLSv1\.[23]\s+\d+ bits\s+(\S+)", said, re.MULTILINE)
    assert len(suites) == 6
    assert all(re.fullmatch(r"TLS_\w+|ECDHE-(ECDSA|RSA)-(AES\d+-GCM-SHA\d+|CHACHA20-POLY1305)", one) for one in suites)
    assert "Session renegotiation not supported" in said
    assert "Server supports TLS Fallback SCSV" in said
    assert not re.search(r"(?<!not )vulnerable to heartbleed", said)


def test_testssl_finds_nothing_to_complain_of(page: int, tmp_path: Path) -> None:
    """Protocols, cipher categories, renegotiation and CCS injection: what takes seconds, not minutes."""
    program, report = require("testssl"), tmp_path / "report.json"
    options = ["--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1", "--nodns", "none"]
    with tunnel.server(page) as daemon:
        subprocess.run(
            [program, *options, "-p", "-s", "-R", "-I", "--jsonfile", str(report), f"localhost:{daemon.port}"],
            stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=2 * peers.PATIENCE_S,
        )  # fmt: skip
    findings = {one["id"]: one for one in json.loads(report.read_text())}
    assert findings["TLS1_3"]["finding"].startswith("offered")
    assert findings["TLS1_2"]["finding"].startswith("offered")
    weak = [name for name in findings if name.startswith("cipherlist_") and "STRONG" not in name]
    assert len(weak) >= 5
    for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", *weak):
        assert findings[name]["finding"].startswith("not offered"), name
    assert "not vulnerable" in findings["CCS"]["finding"]
    complaints = [one for one in findings.values() if one["severity"] not in {"OK", "INFO"}]
    assert not [one for one in complaints if not one["id"].startswith(("scanTime", "engine", "optimal_proto"))]
