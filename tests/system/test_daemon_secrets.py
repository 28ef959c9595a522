"""Which process has which secret: the memory of all of them is searched for keys and passphrases."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509 import load_pem_x509_certificates

from tests.support import certificates
from tests.support.site import Site, reload
from tests.support.tunnel import Tunnel
from tlstunnel.x509.passphrase import VARIABLE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root may read other memories")]

PASSPHRASE = "Tr0ub4dor-and-a-correct-horse"


def memory(pid: int) -> bytes:
    """All that a process has written or could have, and its environment. Not the counters, which are mostly holes that
    reading would fill."""
    found = [Path(f"/proc/{pid}/environ").read_bytes()]
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            place, permissions, _, _, _, *path = line.split(maxsplit=5)
            start, end = (int(word, 16) for word in place.split("-"))
            if not permissions.startswith("rw") or (path and "memfd:tlstunnel-" in path[0]):
                continue
            try:
                mem.seek(start)
                while start < end and (data := mem.read(min(end - start, 1 << 24))):
                    found.append(data)
                    start += len(data)
            except OSError:
                continue
    return b"".join(found)


def traces(pair: certificates.Pair) -> dict[str, bytes]:
    """By what a private key is recognised, as libraries keep it and as files write it."""
    key = load_pem_private_key(pair.key.read_bytes(), None)
    found = {"pem": pair.key.read_bytes().splitlines()[1]}
    numbers = []
    if isinstance(key, ec.EllipticCurvePrivateKey):
        numbers = [key.private_numbers().private_value]
    elif isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        numbers = [private.p, private.q, private.d]
    for index, number in enumerate(numbers):
        size = (number.bit_length() + 7) // 8
        found[f"big {index}"] = number.to_bytes(size, "big")
        found[f"little {index}"] = number.to_bytes(size, "little")
    return found


def holders(site: Site, daemon: Tunnel, secrets: dict[str, bytes]) -> dict[str, set[str]]:
    """Which of the secrets each kind of process has."""
    admin = admin_pid(site)
    found: dict[str, set[str]] = {"supervisor": set(), "worker": set(), "admin": set()}
    for pid in (daemon.process.pid, *daemon.children()):
        kind = "supervisor" if pid == daemon.process.pid else "admin" if pid == admin else "worker"
        try:
            data = memory(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue  # of the generation that was replaced
        found[kind] |= {name for name, secret in secrets.items() if secret in data}
    return found


def admin_pid(site: Site) -> int:
    """Who listens on the admin endpoint."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"{site.folder}/admin.sock")
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def encrypted(pair: certificates.Pair) -> bytes:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSPHRASE.encode()))


def bundle(pair: certificates.Pair) -> bytes:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    leaf, *others = load_pem_x509_certificates(pair.certificate.read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return pkcs12.serialize_key_and_certificates(
        b"web", key, leaf, others, BestAvailableEncryption(PASSPHRASE.encode())
    )


def put(site: Site, pair: certificates.Pair, form: str) -> None:
    """Install a pair in one of the forms that a key may have."""
    if form == "plain":
        site.install(pair)
    elif form.startswith("p12"):
        site.put("web.p12", bundle(pair), 0o600)
        site.write(certificate="", key="", p12='"web.p12"')
    else:
        site.put("web.pem", pair.certificate.read_bytes())
        site.put("web.key", encrypted(pair), 0o600)
    if form.endswith("file"):
        site.put("passphrase", PASSPHRASE.encode() + b"\n", 0o600)
        site.write(key_passphrase_file='"passphrase"')


@pytest.mark.parametrize(
    ("form", "key_type"),
    [
        ("plain", "RSA 2048"),
        ("plain", "ECDSA P-256"),
        ("encrypted, variable", "RSA 2048"),
        ("encrypted, file", "ECDSA P-256"),
        ("p12, variable", "ECDSA P-256"),
        ("p12, file", "RSA 2048"),
    ],
)
def test_the_process_that_speaks_http_has_no_key_and_nobody_has_the_passphrase(
    form: str, key_type: str, tmp_path: Path
) -> None:
    first = certificates.server("localhost", key_type=key_type)
    second = certificates.server("localhost", "second.test", key_type=key_type)
    secrets = {f"first {name}": secret for name, secret in traces(first).items()}
    secrets |= {f"second {name}": secret for name, secret in traces(second).items()}
    secrets["passphrase"] = PASSPHRASE.encode()
    site = Site(tmp_path, 9, process_workers="1", process_user='"nobody"')
    put(site, first, form)
    environment = {VARIABLE: PASSPHRASE} if form.endswith("variable") else {}
    with site.run(env=environment, is_clean=False) as daemon:
        found = holders(site, daemon, secrets)
        assert found["admin"] == set()
        assert "passphrase" not in found["supervisor"] | found["worker"]
        assert any(name.startswith("first ") for name in found["worker"]), "the search finds what is there"
        put(site, second, form)
        site.write(idle_timeout='"2h"')  # a new generation, and with it another admin process
        assert reload(daemon).startswith("reloaded")
        assert site.ask("/readyz")[0] == 200, "the new one listens"
        found = holders(site, daemon, secrets)
        assert found["admin"] == set()
        assert "passphrase" not in found["supervisor"] | found["worker"]
        assert any(name.startswith("second ") for name in found["worker"])
        os.kill(admin_pid(site), 9)
        daemon.message("admin", "another one starts")
        site.until(lambda metrics: metrics["tlstunnel_workers"] == 1, "another admin process")
        assert holders(site, daemon, secrets)["admin"] == set()


def test_the_admin_process_has_the_key_of_its_own_endpoint_and_no_other(tmp_path: Path) -> None:
    own, others = certificates.server("localhost", "admin.test"), certificates.server("localhost", "127.0.0.1")
    site = Site(tmp_path, 9, process_workers="1", admin_certificate='"admin.pem"', admin_key='"admin.key"')
    site.install(others)
    site.install(own, "admin")
    with site.run() as daemon:
        secrets = {f"own {n}": s for n, s in traces(own).items()} | {f"other {n}": s for n, s in traces(others).items()}
        kinds = {name.partition(" ")[0] for name in holders(site, daemon, secrets)["admin"]}
        assert kinds == {"own"}
