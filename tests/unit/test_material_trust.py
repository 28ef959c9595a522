"""CAs and revocation lists as values."""

from __future__ import annotations

import pickle
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support import certificates as made
from tests.support.material_files import Place
from tlstunnel.x509.checks import ca_warnings
from tlstunnel.x509.material import MaterialError, contents_digest, load_ca, load_crls, load_system_ca, system_ca_file
from tlstunnel.x509.trust import signed_by

ROOT, OTHER = made.ca(), made.ca("another root")


def test_a_bundle_holds_every_ca_once_in_file_order(tmp_path: Path) -> None:
    path = Place(tmp_path).put("ca.pem", [ROOT.certificate, b"# the other\n", OTHER.certificate, ROOT.certificate])
    bundle = load_ca(path)
    assert bundle.certificates_der == (ROOT.leaf_der, OTHER.leaf_der)
    assert bundle.subjects == ("CN=tlstunnel test CA", "CN=another root")
    assert bundle.expiries == (made.NOW + timedelta(3650),) * 2
    assert bundle.digest == contents_digest([path])
    assert (bundle.source, bundle.remarks, bundle.is_system) == (str(path), (), False)
    assert pickle.loads(pickle.dumps(bundle)) == bundle  # noqa: S301
    assert ca_warnings(bundle, now=made.NOW) == []


def test_a_ca_without_a_subject_is_still_called_something(tmp_path: Path) -> None:
    nameless = made.issue("", self_signed=True)
    assert load_ca(nameless.certificate).subjects[0]


def test_the_systems_cas_are_found_where_this_system_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlstunnel.x509.trust.SYSTEM_CA_FILES", (Path("/nowhere/ca.pem"), ROOT.certificate))
    assert system_ca_file({}) == ROOT.certificate
    bundle = load_system_ca({})
    assert (bundle.subjects, bundle.is_system) == (("CN=tlstunnel test CA",), True)


def test_the_environment_names_other_cas_than_the_systems(tmp_path: Path) -> None:
    assert load_system_ca({"SSL_CERT_FILE": str(OTHER.certificate)}).subjects == ("CN=another root",)
    for number, pair in enumerate((ROOT, OTHER)):
        shutil.copy(pair.certificate, tmp_path / f"0123abc{number}.0")
    shutil.copy(made.ca("not hashed").certificate, tmp_path / "README.pem")
    bundle = load_system_ca({"SSL_CERT_DIR": str(tmp_path)})
    assert bundle.subjects == ("CN=tlstunnel test CA", "CN=another root")
    assert bundle.source == f"SSL_CERT_DIR={tmp_path}"


def test_one_damaged_certificate_among_the_systems_is_skipped_with_a_remark(tmp_path: Path) -> None:
    damaged = ROOT.certificate.read_bytes().replace(b"MIIB", b"MIIC", 1)
    path = Place(tmp_path).put("ca.pem", [damaged, OTHER.certificate])
    bundle = load_system_ca({"SSL_CERT_FILE": str(path)})
    assert bundle.subjects == ("CN=another root",)
    assert ca_warnings(bundle, now=made.NOW) == [f"{path}: line 1: CERTIFICATE is damaged; copy it anew; skipped"]
    with pytest.raises(MaterialError):
        load_ca(path)
    only = Place(tmp_path).put("only.pem", damaged)
    with pytest.raises(MaterialError, match="no certificate that can be read"):
        load_system_ca({"SSL_CERT_FILE": str(only)})


def test_old_certificates_in_the_systems_store_are_nobodys_business() -> None:
    old = made.ca("old system CA", not_after=made.NOW - timedelta(1))
    assert ca_warnings(load_system_ca({"SSL_CERT_FILE": str(old.certificate)}), now=made.NOW) == []
    assert len(ca_warnings(load_ca(old.certificate), now=made.NOW)) == 1


def test_every_revocation_list_of_a_file_is_read(tmp_path: Path) -> None:
    revoked = made.client("fired"), made.client("lost")
    lists = [made.crl(*(pair.leaf for pair in revoked)), made.crl(authority="another root")]
    path = Place(tmp_path).put("crl.pem", [*lists, ROOT.certificate])
    first, second = load_crls(path)
    assert (first.issuer, first.entries) == ("CN=tlstunnel test CA", 2)
    assert (second.issuer, second.entries) == ("CN=another root", 0)
    assert (first.this_update, first.next_update) == (made.NOW - timedelta(1), made.NOW + timedelta(30))
    assert first.digest == second.digest == contents_digest([path])
    assert pickle.loads(pickle.dumps((first, second))) == (first, second)  # noqa: S301


def test_a_revocation_list_as_cas_publish_it_is_read(tmp_path: Path) -> None:
    der = x509.load_pem_x509_crl(made.crl().read_bytes()).public_bytes(Encoding.DER)
    (one,) = load_crls(Place(tmp_path).put("ca.crl", der))
    assert one.der == der


def test_a_list_counts_only_when_its_ca_signed_it(tmp_path: Path) -> None:
    (mine,) = load_crls(made.crl())
    assert signed_by(mine, load_ca(ROOT.certificate))
    assert not signed_by(mine, load_ca(OTHER.certificate))
    impostor = made.issue("tlstunnel test CA", self_signed=True)
    assert not signed_by(mine, load_ca(impostor.certificate))
