"""Files that cannot be used as a certificate or a key: what the file system refuses, and what is something else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.support import certificates as made
from tests.support.material_files import SECRET, Place
from tlstunnel.config.model import CertificateFiles

Case = Callable[[Place], CertificateFiles]
REFUSED: dict[str, Case] = {}
LEAF = made.server("www.example.org")


def refused(case: Case) -> Case:
    REFUSED[case.__name__] = case
    return case


# What the file system says.


@refused
def missing(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.folder / "server.pem", key=place.folder / "server.key")


@refused
def missing_folder(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.folder / "certs" / "server.pem")


@refused
def missing_key(place: Place) -> CertificateFiles:
    files = place.pair(LEAF.certificate, None)
    return CertificateFiles(certificate=files.certificate, key=place.folder / "server.key")


@refused
def dangling_link(place: Place) -> CertificateFiles:
    (place.folder / "server.pem").symlink_to(place.folder / "gone.pem")
    return CertificateFiles(certificate=place.folder / "server.pem")


@refused
def directory(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.folder)


@refused
def device(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=Path("/dev/zero"))


@refused
def a_file_as_folder(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.put("file", b"x") / "server.pem")


@refused
def empty(place: Place) -> CertificateFiles:
    return place.pair(b"", None)


@refused
def blank(place: Place) -> CertificateFiles:
    return place.pair(b" \n\n", None)


@refused
def enormous(place: Place) -> CertificateFiles:
    path = place.put("server.pem", b"")
    os.truncate(path, 1 << 30)  # sparse: nothing is written
    return CertificateFiles(certificate=path)


@refused
def control_characters_in_the_path(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.folder / "server\n\x1b[31m.pem")


@refused
def nul_in_the_path(place: Place) -> CertificateFiles:
    return CertificateFiles(certificate=place.folder / "server\0.pem")


@refused
def nothing_named(place: Place) -> CertificateFiles:
    return CertificateFiles()


# Files that are something else.


@refused
def der_certificate(place: Place) -> CertificateFiles:
    return place.pair(LEAF.leaf_der, LEAF.key)


@refused
def der_key(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, LEAF.key_der)


@refused
def p12_as_pem(place: Place) -> CertificateFiles:
    return place.pair(made.p12(LEAF, SECRET), None)


@refused
def pem_as_p12(place: Place) -> CertificateFiles:
    return place.p12(LEAF.combined)


@refused
def der_as_p12(place: Place) -> CertificateFiles:
    return place.p12(LEAF.leaf_der)


@refused
def jks_as_p12(place: Place) -> CertificateFiles:
    return place.p12(bytes.fromhex("feedfeed 00000002 00000001") + b"x" * 100)


@refused
def text_as_p12(place: Place) -> CertificateFiles:
    return place.p12(b"hello\n")


@refused
def jks(place: Place) -> CertificateFiles:
    return place.pair(bytes.fromhex("feedfeed 00000002 00000001") + b"x" * 100, None)


@refused
def putty(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")


@refused
def openssh_key(place: Place) -> CertificateFiles:
    key = LEAF.private_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return place.pair(LEAF.certificate, key)


@refused
def openssh_public_key(place: Place) -> CertificateFiles:
    key = LEAF.private_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return place.pair(key, LEAF.key)


@refused
def public_key(place: Place) -> CertificateFiles:
    key = LEAF.private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return place.pair(LEAF.certificate, key)


@refused
def request(place: Place) -> CertificateFiles:
    return place.pair(b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n", LEAF.key)


@refused
def pkcs7(place: Place) -> CertificateFiles:
    return place.pair(b"-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----\n", LEAF.key)


@refused
def pkcs7_der(place: Place) -> CertificateFiles:
    return place.pair(bytes.fromhex("3080 06092a864886f70d010702 a080"), LEAF.key)


@refused
def revocation_list(place: Place) -> CertificateFiles:
    return place.pair(made.crl(), LEAF.key)


@refused
def html(place: Place) -> CertificateFiles:
    return place.pair(b"\n<!DOCTYPE html>\n<title>404</title>", LEAF.key)


@refused
def utf16(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate.read_text().encode("utf-16"), LEAF.key)


@refused
def gzip(place: Place) -> CertificateFiles:
    return place.pair(b"\x1f\x8b\x08\x00" + b"x" * 40, LEAF.key)


@refused
def text(place: Place) -> CertificateFiles:
    return place.pair(b"0 is where I keep my certificates\n", LEAF.key)


@refused
def base64_only(place: Place) -> CertificateFiles:
    lines = LEAF.certificate.read_bytes().splitlines(keepends=True)
    return place.pair(b"".join(lines[1:-1]), LEAF.key)


@refused
def swapped(place: Place) -> CertificateFiles:
    return place.pair(LEAF.key, LEAF.certificate)


@refused
def certificate_as_key(place: Place) -> CertificateFiles:
    return place.pair(LEAF.certificate, LEAF.certificate)
