"""ML-DSA keys are read in all three forms that there are, encrypted or not; for handshakes see test_context."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import certificates as made
from tests.support import mldsa_keys
from tests.support.material_files import Place, opening
from tlstunnel.config.model import CertificateFiles
from tlstunnel.errors import UsageError
from tlstunnel.tools.pki import keys
from tlstunnel.x509.key import key_type
from tlstunnel.x509.material import MaterialError, load_credential
from tlstunnel.x509.passphrase import Passphrase, PassphraseSource

KINDS = ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87")


@pytest.mark.parametrize("form", mldsa_keys.FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_cert_reads_every_form(kind: str, form: str) -> None:
    key = keys.generate(keys.KeyKind(kind.lower().replace("-", "")))
    der = mldsa_keys.pkcs8(key, form)
    secret = Passphrase(b"secret")
    for data in (der, mldsa_keys.pem(der), mldsa_keys.encrypted(der, "secret")):
        found = keys.parse(data, where="k", passphrases=opening("secret"))
        assert key_type(found) == kind
        assert keys.public_bytes(found) == keys.public_bytes(key)
        again = keys.parse(keys.to_pem(found, secret), where="k", passphrases=opening("secret"))
        assert keys.public_bytes(again) == keys.public_bytes(key)


def test_a_key_without_its_seed_is_not_asked_to_sign_certificates() -> None:
    found = keys.parse(mldsa_keys.pkcs8(mldsa.MLDSA44PrivateKey.generate(), "expanded"), where="k")
    with pytest.raises(UsageError, match="without its seed"):
        keys.signature_hash(found)
    assert b"BEGIN PRIVATE KEY" in found.private_bytes(Encoding.PEM, None, None)  # type: ignore[arg-type]


def test_a_seed_and_a_key_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    pair = made.server("localhost", key_type="ML-DSA-44")
    der = mldsa_keys.pkcs8(pair.private_key, "both")
    broken = mldsa_keys.pem(der[:-1] + bytes([der[-1] ^ 1]))
    with pytest.raises(MaterialError, match="damaged"):
        load_credential(Place(tmp_path).pair(pair.certificate, broken), PassphraseSource())
    with pytest.raises(UsageError, match="damaged"):
        keys.parse(broken, where="k")


def test_a_wrong_passphrase_of_such_a_key_is_called_that() -> None:
    der = mldsa_keys.pkcs8(mldsa.MLDSA44PrivateKey.generate(), "both")
    with pytest.raises(UsageError, match=r"is encrypted, and the passphrase in [A-Z_]+ does not open it"):
        keys.parse(mldsa_keys.encrypted(der, "secret"), where="k", passphrases=opening("wrong"))


@pytest.mark.parametrize("form", [*mldsa_keys.FORMS, "encrypted"])
def test_the_files_that_openssl_3_5_writes_are_read(form: str) -> None:
    folder = Path(__file__).parent.parent / "golden" / "mldsa"  # made by OpenSSL 3.5.9 of Debian 13
    files = CertificateFiles(certificate=folder / "certificate.pem", key=folder / f"{form}.pem")
    credential = load_credential(files, PassphraseSource({"TLSTUNNEL_KEY_PASSPHRASE": "secret"}))
    assert credential.key_type == "ML-DSA-44"
    found = keys.load(folder / f"{form}.pem", opening("secret"))
    assert key_type(found) == "ML-DSA-44"
