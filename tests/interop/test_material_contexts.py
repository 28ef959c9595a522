"""Every kind of credential, CA and revocation list is taken by the TLS library the workers use, and by its peers.

A worker gets DER. This is how it becomes a context, and a handshake with the result.
"""

from __future__ import annotations

import contextlib
import pickle
import warnings
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import SSL, crypto

from tests.support import certificates as made
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.material import CRL, CABundle, Credential, load_ca, load_credential, load_crls
from tlstunnel.x509.passphrase import PassphraseSource

KEY_TYPES = ["RSA 2048", "ECDSA P-256", "ECDSA P-384", "ECDSA P-521", "ECDSA brainpoolP256r1", "Ed25519", "Ed448"]
KEY_TYPES += ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"]
SECRET = "correct horse battery staple"


def load(passphrase: str = "", **files: Path) -> Credential:
    """Read here, used over there: through pickle, as workers get it."""
    source = PassphraseSource({"TLSTUNNEL_KEY_PASSPHRASE": passphrase} if passphrase else {})
    credential: Credential = pickle.loads(pickle.dumps(load_credential(CertificateFiles(**files), source)))  # noqa: S301
    return credential


def use(context: SSL.Context, credential: Credential) -> None:
    context.use_certificate(x509.load_der_x509_certificate(credential.certificate_der))
    with warnings.catch_warnings():
        # pyOpenSSL would rather have cryptography's key objects, but takes no ML-DSA of those, and a key for RSASSA-PSS
        # alone loses in them that it is one, whereupon OpenSSL finds that it does not fit the certificate.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_ASN1, credential.key_der))
    for der in credential.chain_der:
        context.add_extra_chain_cert(x509.load_der_x509_certificate(der))
    context.check_privatekey()


def trust(context: SSL.Context, bundle: CABundle, crls: tuple[CRL, ...] = ()) -> None:
    store = context.get_cert_store()
    for der in bundle.certificates_der:
        store.add_cert(crypto.X509.from_cryptography(x509.load_der_x509_certificate(der)))
    for crl in crls:
        store.add_crl(x509.load_der_x509_crl(crl.der))
    if crls:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)


def shake(server: SSL.Context, client: SSL.Context) -> SSL.Connection:
    """A handshake in memory; the client's side of it."""
    ends = SSL.Connection(server, None), SSL.Connection(client, None)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for _ in range(6):
        for end, other in (ends[::-1], ends):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(1 << 17))
    return ends[1]


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_every_kind_of_key_makes_a_handshake_its_client_verifies(key_type: str) -> None:
    pair = made.server("www.example.org", key_type=key_type, through_intermediate=True)
    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    use(server, load(certificate=pair.certificate, key=pair.key))
    trust(client, load_ca(made.ca().certificate))
    chain = shake(server, client).get_verified_chain(as_cryptography=True)
    assert chain == [pair.leaf, made.intermediate().leaf, made.ca().leaf]


@pytest.mark.parametrize("way", ["combined", "p12", "p12 with passphrase", "encrypted key", "chain out of order"])
def test_every_way_of_keeping_a_credential_makes_a_handshake(way: str, tmp_path: Path) -> None:
    pair = made.server("www.example.org", through_intermediate=True)
    mixed = tmp_path / "mixed.pem"
    mixed.write_bytes(made.pem(made.ca().leaf, *pair.chain, pair.leaf))
    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    use(server, {
        "combined": lambda: load(certificate=pair.combined),
        "p12": lambda: load(p12=made.p12(pair)),
        "p12 with passphrase": lambda: load(SECRET, p12=made.p12(pair, SECRET)),
        "encrypted key": lambda: load(SECRET, certificate=pair.certificate, key=made.encrypted_key(pair, SECRET)),
        "chain out of order": lambda: load(certificate=mixed, key=pair.key),
    }[way]())  # fmt: skip
    trust(client, load_ca(made.ca().certificate))
    assert shake(server, client).get_verified_chain(as_cryptography=True)[0] == pair.leaf


@pytest.mark.parametrize("is_revoked", [True, False])
def test_a_revoked_client_is_refused_by_the_lists_that_were_read(is_revoked: bool) -> None:
    pair, site = made.client("billing"), made.server("www.example.org")
    crls = load_crls(made.crl(pair.leaf if is_revoked else made.client("another").leaf))
    bundle = load_ca(made.ca().certificate)
    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    use(server, load(certificate=site.certificate, key=site.key))
    use(client, load(certificate=pair.certificate, key=pair.key))
    trust(server, bundle, crls)
    trust(client, bundle)
    if is_revoked:
        with pytest.raises(SSL.Error):
            shake(server, client)
    else:
        shake(server, client)


def test_what_openssl_would_refuse_never_becomes_a_credential() -> None:
    """The other half of the promise: the library does refuse what we refuse, so nothing good is turned away."""
    small = made.server("www.example.org", key_type="RSA 1024")
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    with pytest.raises(SSL.Error, match="ee key too small"):
        context.use_certificate(small.leaf)
    odd = made.server("www.example.org", key_type="ECDSA secp256k1")
    server, client = SSL.Context(SSL.TLS_SERVER_METHOD), SSL.Context(SSL.TLS_CLIENT_METHOD)
    server.use_certificate(odd.leaf)
    server.use_privatekey(odd.private_key)
    with pytest.raises(SSL.Error, match=r"no shared cipher|no suitable signature algorithm"):
        shake(server, client)
