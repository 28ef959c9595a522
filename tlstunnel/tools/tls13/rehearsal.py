"""A client and a server in one process, with certificates made for the occasion: what `tlstunnel explain` shows."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tlstunnel.tools.tls13.client import Client
from tlstunnel.tools.tls13.client_config import ClientConfig
from tlstunnel.tools.tls13.narrate import TaggedNote
from tlstunnel.tools.tls13.notes import Role
from tlstunnel.tools.tls13.server import Server
from tlstunnel.tools.tls13.server_config import ServerConfig
from tlstunnel.tools.tls13.signature import Credential, PrivateKey

SERVER_NAME = "server.example"
KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-2048")
_LIFETIME = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays: a CA, in DER, and what it issued."""

    ca: bytes
    server: Credential
    client: Credential


def make_cast(key_type: str = "ecdsa-p256") -> Cast:
    """A CA, a server and a client; the leaves' keys are of `key_type`, one of `KEY_TYPES`."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    subject = _name("tlstunnel explain CA")
    authority = _build(subject, authority_key, None, authority_key, x509.BasicConstraints(ca=True, path_length=0))
    return Cast(
        authority.public_bytes(Encoding.DER),
        _issue(SERVER_NAME, key_type, ExtendedKeyUsageOID.SERVER_AUTH, authority, authority_key),
        _issue("client.example", key_type, ExtendedKeyUsageOID.CLIENT_AUTH, authority, authority_key),
    )


def run(client: Client, server: Server) -> None:
    """Carry bytes both ways until there are none; a handshake, a ticket, whatever was queued."""
    while True:
        forward = client.data_to_send()
        if forward:
            server.receive(forward)
        reverse = server.data_to_send()
        if reverse:
            client.receive(reverse)
        if not forward and not reverse:
            return


def rehearse(
    client_config: ClientConfig, server_config: ServerConfig, *, update_keys: bool = False
) -> tuple[list[TaggedNote], Client]:
    """Handshake, a word each way, key updates if wanted, and close_notify both ways.

    Returns:
        Both ends' notes in the order in which they were made, and the client.
    """
    notes: list[TaggedNote] = []
    client = Client(client_config, witness=lambda note: notes.append((Role.CLIENT, note)))
    server = Server(server_config, witness=lambda note: notes.append((Role.SERVER, note)))
    client.start()
    run(client, server)
    client.send(b"hello, server")
    run(client, server)
    if update_keys:
        client.update_keys(request_peer=True)
        run(client, server)
    server.send(b"hello, client")
    run(client, server)
    client.close()
    server.close()
    run(client, server)
    return notes, client


def _new_key(key_type: str) -> PrivateKey:
    if key_type == "rsa-2048":
        return rsa.generate_private_key(65537, 2048)
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if key_type == "ecdsa-p384" else ec.SECP256R1())


def _issue(
    name: str, key_type: str, usage: x509.ObjectIdentifier, authority: x509.Certificate, authority_key: PrivateKey
) -> Credential:
    key = _new_key(key_type)
    extensions = (
        x509.BasicConstraints(ca=False, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName(name)]),
        x509.ExtendedKeyUsage([usage]),
    )
    certificate = _build(_name(name), key, authority, authority_key, *extensions)
    return Credential((certificate.public_bytes(Encoding.DER),), key)


def _build(
    subject: x509.Name,
    key: PrivateKey,
    authority: x509.Certificate | None,
    authority_key: PrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    is_ca = authority is None
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    usage = x509.KeyUsage(
        digital_signature=not is_ca, key_cert_sign=is_ca, crl_sign=is_ca, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject if authority else subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - datetime.timedelta(minutes=5),
        not_valid_after=now + _LIFETIME,
    )
    for extension in (*extensions, usage, key_id, issuer_id):
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    algorithm = None if isinstance(authority_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(authority_key, algorithm)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
