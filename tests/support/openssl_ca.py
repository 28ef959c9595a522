"""A CA run by openssl(1), for tests against certificates that no code of ours or of `cryptography` has made.

authority = openssl_ca.make(tmp_path)                      # authority.certificate is its path
pair = authority.issue("billing", "subjectAltName=URI:spiffe://example.org/billing", subject="/OU=eng/CN=billing")
authority.revoke(pair); authority.crl()                    # a new list, as PEM
with authority.responder() as url: ...                     # `openssl ocsp`, which knows what was revoked
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import peers
from tests.support.interop import require

_CONFIG = """
[ca]
default_ca = test
[test]
dir = {dir}
database = $dir/index.txt
new_certs_dir = $dir
certificate = $dir/ca.pem
private_key = $dir/ca.key
serial = $dir/serial
crlnumber = $dir/crlnumber
default_md = sha256
default_days = 30
default_crl_days = 30
policy = anything
unique_subject = no
copy_extensions = copy
x509_extensions = leaf
[anything]
commonName = optional
organizationalUnitName = optional
[leaf]
basicConstraints = critical,CA:false
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files. Usable where `certificates.Pair` is."""

    certificate: Path
    key: Path


@dataclass
class Authority:
    """A root that openssl(1) keeps in a folder."""

    folder: Path
    _count: int = field(default=0)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def issue(
        self,
        name: str,
        *extensions: str,
        subject: str | None = None,
        key: str = "ec:P-256",
        options: tuple[str, ...] = (),
        with_issuer: bool = False,
    ) -> Pair:
        """A leaf. `extensions` are lines as of a configuration; a `subjectAltName` is up to them."""
        self._count += 1
        stem = self.folder / f"{self._count}-{name.strip('*.')}"
        pair = Pair(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request = stem.with_suffix(".csr")
        algorithm, _, size = key.partition(":")
        words = ["-newkey", algorithm, *(["-pkeyopt", f"ec_paramgen_curve:{size}"] if algorithm == "ec" else [])]
        if algorithm == "rsa":
            words = ["-newkey", f"rsa:{size}"]
        for extension in extensions:
            words += ["-addext", extension]
        subject = f"/CN={name}" if subject is None else subject
        self._run(
            "req", "-new", "-noenc", *words, "-subj", subject, "-multivalue-rdn", "-utf8",
            "-keyout", pair.key, "-out", request,
        )  # fmt: skip
        self._run(
            "ca", "-batch", "-notext", "-config", self.folder / "ca.cnf", "-in", request, "-out", pair.certificate,
            *options,
        )  # fmt: skip
        if with_issuer:
            pair.certificate.write_bytes(pair.certificate.read_bytes() + self.certificate.read_bytes())
        return pair

    def revoke(self, pair: Pair) -> None:
        """From the next list on, and at once for the responder."""
        self._run("ca", "-config", self.folder / "ca.cnf", "-revoke", pair.certificate)

    def crl(self, *options: str, name: str = "ca.crl") -> Path:
        """A list of what is revoked now. `-crl_lastupdate` and `-crl_nextupdate` set its dates."""
        path = self.folder / name
        self._run("ca", "-config", self.folder / "ca.cnf", "-gencrl", "-out", path, *options)
        return path

    def answer(self, pair: Pair, *options: str, signer: Pair | None = None, name: str = "answer.ocsp") -> Path:
        """A response of `openssl ocsp` for a certificate, made without a network, in DER."""
        path = self.folder / name
        request = self.folder / f"{name}.request"
        ca = self.certificate
        self._run("ocsp", "-issuer", ca, "-cert", pair.certificate, "-reqout", request, "-no_nonce")
        self._run(*self._ocsp(signer), "-reqin", request, "-respout", path, *options)
        return path

    @contextmanager
    def responder(self, *options: str, port: int) -> Iterator[peers.Peer]:
        """`openssl ocsp` as a responder."""
        command = [require("openssl"), *self._ocsp(None), "-port", str(port), *(options or ("-ndays", "1"))]
        with peers.talking(command) as peer:
            peer.read_until("waiting for OCSP client connections")
            yield peer

    def _ocsp(self, signer: Pair | None) -> list[str]:
        ca = self.certificate
        by = signer or Pair(ca, self.folder / "ca.key")
        words = ["ocsp", "-index", self.folder / "index.txt", "-CA", ca, "-rsigner", by.certificate, "-rkey", by.key]
        return [str(word) for word in words]

    def _run(self, *words: str | Path) -> None:
        done = subprocess.run([require("openssl"), *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"openssl {words}: {done.stderr}"


def make(folder: Path, name: str = "openssl test CA") -> Authority:
    """A new root in a folder of its own below this one."""
    path = folder / name.replace(" ", "-")
    path.mkdir()
    (path / "ca.cnf").write_text(_CONFIG.format(dir=path))
    (path / "index.txt").touch()
    for number in ("serial", "crlnumber"):
        (path / number).write_text("1000\n")
    subprocess.run(
        [
            require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
            "-subj", f"/CN={name}", "-days", "30", "-keyout", path / "ca.key", "-out", path / "ca.pem",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return Authority(path)
