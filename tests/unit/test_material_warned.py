"""What is said about certificates, CAs and revocation lists that load, or are none, as golden files.

`UPDATE_GOLDEN=1 pytest tests/unit/test_material_warned.py` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from tests.support import certificates as made
from tests.support.material_files import GOLDEN, SECRET, Place, compare
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.checks import ca_warnings, crl_problems, warnings
from tlstunnel.x509.material import MaterialError, load_ca, load_credential, load_crls, load_system_ca
from tlstunnel.x509.passphrase import PassphraseSource

Case = Callable[[Place], CertificateFiles]

LEAF = made.server("www.example.org")
CHAIN = made.server("www.example.org", through_intermediate=True)
_INTERMEDIATE, _ROOT = made.intermediate().certificate, made.ca().certificate


def _with(*extensions: x509.ExtensionType, purpose: str | None = "server", **options: Any) -> Case:
    return lambda place: place.both(made.server("www.example.org", purpose=purpose, extensions=extensions, **options))


def _open_key(place: Place) -> CertificateFiles:
    files = place.pair(LEAF.certificate, LEAF.key)
    place.put("server.key", LEAF.key, 0o644)
    return files


def _open_passphrase(place: Place) -> CertificateFiles:
    place.p12(made.p12(LEAF, SECRET))
    secret = place.put("pass.txt", SECRET.encode(), 0o644)
    return CertificateFiles(p12=place.put("server.p12", made.p12(LEAF, SECRET), 0o644), key_passphrase_file=secret)


_USAGE = dict.fromkeys(
    ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only"), False
)
_ISSUER = x509.AccessDescription(
    AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example/ca.cer")
)

WARNED: dict[str, Case] = {
    "nothing": lambda place: place.both(CHAIN),
    "expired": lambda place: place.both(made.expired("www.example.org")),
    "not_yet_valid": lambda place: place.both(made.not_yet_valid("www.example.org")),
    "expires_soon": _with(not_before=made.NOW - timedelta(days=300), not_after=made.NOW + timedelta(days=20, hours=1)),
    "expires_today": _with(not_after=made.NOW + timedelta(hours=5, minutes=30)),
    "expires_now": _with(not_after=made.NOW + timedelta(seconds=30)),
    "short_life_just_renewed": _with(not_before=made.NOW, not_after=made.NOW + timedelta(days=6)),
    "expired_intermediate": lambda place: place.pair(*_expired_intermediate()),
    "other_name": lambda place: place.both(made.server("mail.example.org", "192.0.2.7")),
    "many_other_names": lambda place: place.both(made.server(*(f"{n}.example.net" for n in range(9)))),
    "no_san": lambda place: place.both(made.issue("www.example.org")),
    "only_uri": lambda place: place.both(made.issue("www.example.org", uris=("spiffe://example.org/web",))),
    "for_clients": _with(purpose="client"),
    "for_anything": _with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), purpose=None),
    "cannot_sign": _with(x509.KeyUsage(digital_signature=False, key_encipherment=True, decipher_only=False, **_USAGE)),
    "ca_as_leaf": lambda place: place.both(made.ca()),
    "rare_curve": _with(key_type="ECDSA brainpoolP256r1"),
    "small_intermediate": lambda place: place.pair(*_small_intermediate()),
    "no_chain": _with(x509.AuthorityInformationAccess([_ISSUER])),
    "root_included": lambda place: place.pair([CHAIN.certificate, _ROOT], CHAIN.key),
    "twice": lambda place: place.pair([CHAIN.certificate, _INTERMEDIATE], CHAIN.key),
    "leaf_last": lambda place: place.pair([_INTERMEDIATE, made.pem(CHAIN.leaf)], CHAIN.key),
    "out_of_order": lambda place: place.pair([made.pem(CHAIN.leaf), _ROOT, _INTERMEDIATE], CHAIN.key),
    "stranger": lambda place: place.pair([CHAIN.certificate, made.ca("a stranger").certificate], CHAIN.key),
    "hostile_subject": lambda place: place.pair(*_hostile_intermediate()),
    "p12_open": lambda place: _opened(place, place.p12(made.p12(LEAF))),
    "open_key": _open_key,
    "open_passphrase": _open_passphrase,
}


def _opened(place: Place, files: CertificateFiles) -> CertificateFiles:
    assert files.p12 is not None
    files.p12.chmod(0o604)
    return files


def _chained(authority: made.Pair) -> tuple[list[bytes | Path], Path]:
    leaf = made.issue("www.example.org", dns=("www.example.org",), under=authority)
    return [leaf.certificate, authority.certificate], leaf.key


def _expired_intermediate() -> tuple[list[bytes | Path], Path]:
    return _chained(made.intermediate(name="old intermediate", not_after=made.NOW - timedelta(days=2)))


def _hostile_intermediate() -> tuple[list[bytes | Path], Path]:
    name = "a\nb\x1b[31m\u202e" + "x" * 50
    return _chained(made.intermediate(name=name, not_after=made.NOW - timedelta(days=2)))


def _small_intermediate() -> tuple[list[bytes | Path], Path]:
    return _chained(made.intermediate(name="small intermediate", key_type="RSA 1024"))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Unlike tmp_path, a folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("name", WARNED)
def test_what_peers_may_hold_against_a_certificate_is_said_in_one_line_each(name: str, open_folder: Path) -> None:
    place = Place(open_folder)
    credential = load_credential(WARNED[name](place), PassphraseSource(place.environ))
    found = warnings(credential, service_names=["www.example.org"], now=made.NOW)
    compare(f"warned_{name}", "".join(f"{line}\n" for line in found), open_folder)


def test_a_key_in_a_folder_others_cannot_enter_is_not_called_exposed(open_folder: Path) -> None:
    files = _open_key(Place(open_folder))
    assert load_credential(files, PassphraseSource()).remarks
    open_folder.chmod(0o700)
    assert not load_credential(files, PassphraseSource()).remarks


def test_a_client_certificate_needs_the_purpose_but_no_name(tmp_path: Path) -> None:
    place = Place(tmp_path)
    shown = [
        warnings(
            load_credential(place.pair(pair.certificate, pair.key), PassphraseSource()), now=made.NOW, use="client"
        )
        for pair in (made.client("billing"), made.server("www.example.org"))
    ]
    assert shown[0] == []
    compare("warned_server_as_client", "\n".join(shown[1]) + "\n", tmp_path)


# CAs and revocation lists.

CA_REFUSED: dict[str, bytes | Path] = {
    "key": made.ca().key,
    "crl": made.crl(),
    "damaged": made.ca().certificate.read_bytes().replace(b"MIIB", b"MIIC", 1),
}
CRL_REFUSED: dict[str, bytes | Path] = {
    "certificate": made.ca().certificate,
    "der_certificate": made.ca().leaf_der,
    "text": b"no list\n",
    "damaged": b"".join(made.crl().read_bytes().splitlines(keepends=True)[i] for i in (0, 1, 3, -1)),
    "delta": made.crl(extensions=(x509.DeltaCRLIndicator(1),)),
}


@pytest.mark.parametrize("name", CA_REFUSED)
def test_a_file_that_is_no_ca_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(MaterialError) as caught:
        load_ca(Place(tmp_path).put("ca.pem", CA_REFUSED[name]))
    compare(f"ca_{name}", f"{caught.value}\nexit {caught.value.exit_code}\n", tmp_path)


@pytest.mark.parametrize("name", CRL_REFUSED)
def test_a_file_that_is_no_full_revocation_list_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(MaterialError) as caught:
        load_crls(Place(tmp_path).put("crl.pem", CRL_REFUSED[name]))
    compare(f"crl_{name}", f"{caught.value}\nexit {caught.value.exit_code}\n", tmp_path)


def test_a_system_without_cas_is_told_how_to_get_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlstunnel.x509.trust.SYSTEM_CA_FILES", (tmp_path / "none.pem",))
    said = []
    (tmp_path / "empty").mkdir()
    for environ in ({}, {"SSL_CERT_FILE": f"{tmp_path}/gone.pem"}, {"SSL_CERT_DIR": f"{tmp_path}/empty"},
                    {"SSL_CERT_DIR": f"{tmp_path}/gone"}):  # fmt: skip
        with pytest.raises(MaterialError) as caught:
            load_system_ca(environ)
        said.append(f"{caught.value}\nexit {caught.value.exit_code}\n")
    compare("ca_system", "".join(said), tmp_path)


def test_a_ca_file_that_cannot_verify_everything_says_so(tmp_path: Path) -> None:
    old = made.ca("old CA", not_after=made.NOW - timedelta(days=400))
    parts: list[bytes | Path] = [
        old.certificate,
        _INTERMEDIATE,
        LEAF.combined,
        made.server("x", self_signed=True).certificate,
    ]
    bundle = load_ca(Place(tmp_path).put("ca.pem", parts))
    compare("warned_ca", "".join(f"{line}\n" for line in ca_warnings(bundle, now=made.NOW)), tmp_path)


def test_revocation_lists_that_would_refuse_everybody_say_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    stale = made.crl(next_update=made.NOW - timedelta(days=1), last_update=made.NOW - timedelta(days=9))
    early = made.crl(last_update=made.NOW + timedelta(days=1))
    lists = load_crls(place.put("crl.pem", [stale, early, made.crl(authority="a stranger")]))
    bundle = load_ca(place.put("ca.pem", [_ROOT, made.ca("another").certificate]))
    compare("warned_crl", "".join(f"{line}\n" for line in crl_problems(lists, bundle, now=made.NOW)), tmp_path)
    good = load_crls(place.put("good.pem", made.crl()))
    assert crl_problems(good, load_ca(_ROOT), now=made.NOW) == []


def test_no_golden_file_is_left_over() -> None:
    known = {f"warned_{name}" for name in [*WARNED, "server_as_client", "ca", "crl"]}
    known |= {f"ca_{name}" for name in [*CA_REFUSED, "system"]} | {f"crl_{name}" for name in CRL_REFUSED}
    assert {path.stem for path in GOLDEN.glob("*.txt") if not path.stem.startswith("refused_")} == known
