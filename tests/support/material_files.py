"""Folders of certificate files, broken the way operators break them, and the golden files of what is said."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import certificates as made
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509.passphrase import VARIABLE, PassphraseSource

GOLDEN = Path(__file__).parent.parent / "golden" / "material"
SECRET = "correct horse battery staple"
WRONG = "tr0ub4dor&3"

_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")


@dataclass
class Place:
    """A folder with files by name, as an operator would have it."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, content: bytes | Path | list[bytes | Path], mode: int = 0o600) -> Path:
        parts = content if isinstance(content, list) else [content]
        path = self.folder / name
        path.write_bytes(b"".join(part.read_bytes() if isinstance(part, Path) else part for part in parts))
        path.chmod(mode)
        return path

    def pair(self, certificate: bytes | Path | list[bytes | Path], key: bytes | Path | None) -> CertificateFiles:
        return CertificateFiles(
            certificate=self.put("server.pem", certificate, 0o644),
            key=None if key is None else self.put("server.key", key),
        )

    def both(self, pair: made.Pair) -> CertificateFiles:
        return self.pair(pair.certificate, pair.key)

    def p12(self, content: bytes | Path, passphrase: bytes | None = None) -> CertificateFiles:
        secret = None if passphrase is None else self.put("pass.txt", passphrase)
        return CertificateFiles(p12=self.put("server.p12", content), key_passphrase_file=secret)


def opening(secret: str) -> PassphraseSource:
    """Whoever is asked says this."""
    return PassphraseSource({VARIABLE: secret})


def compare(name: str, said: str, folder: Path) -> None:
    """Against the golden file, with the folder and the dates of this run taken out."""
    said = said.replace(f"{folder}/", "").replace(str(folder), "FOLDER")
    said = _DATE.sub("DATE", said)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        golden.write_text(said)
    assert said == golden.read_text()


def assert_no_secret(shown: str, place: Place) -> None:
    """Neither a passphrase nor any piece of a key."""
    assert SECRET not in shown
    assert WRONG not in shown
    for path in place.folder.iterdir():
        if path.is_file() and path.stat().st_size < 1 << 20:
            for line in path.read_bytes().splitlines():
                if len(line) >= 48 and line.isascii():
                    assert line.decode()[:48] not in shown
