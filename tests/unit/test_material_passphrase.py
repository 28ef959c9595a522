"""Where a passphrase comes from, in which order, and where it must never go."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import certificates as made
from tests.support.material_files import SECRET, WRONG, Place
from tlstunnel.config.model import CertificateFiles
from tlstunnel.x509 import passphrase
from tlstunnel.x509.material import MaterialError, load_credential
from tlstunnel.x509.passphrase import ATTEMPTS, VARIABLE, PassphraseSource

PAIR = made.server("www.example.org")


class Typist:
    """A person at the terminal."""

    def __init__(self, *answers: str) -> None:
        self.answers: Iterator[str] = iter(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        answer = next(self.answers, None)
        if answer is None:
            raise EOFError
        return answer


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return Place(tmp_path).pair(PAIR.certificate, made.encrypted_key(PAIR, SECRET))


def with_file(files: CertificateFiles, content: bytes) -> CertificateFiles:
    assert files.key is not None
    path = Place(files.key.parent).put("pass.txt", content)
    return CertificateFiles(certificate=files.certificate, key=files.key, key_passphrase_file=path)


def test_the_file_counts_before_the_variable_and_the_variable_before_the_terminal(files: CertificateFiles) -> None:
    nobody = Typist()
    assert load_credential(with_file(files, SECRET.encode()), PassphraseSource({VARIABLE: WRONG}, nobody))
    assert load_credential(files, PassphraseSource({VARIABLE: SECRET}, nobody))
    assert nobody.questions == []
    assert load_credential(files, PassphraseSource({}, Typist(SECRET)))


def test_a_wrong_passphrase_in_one_place_is_not_made_good_by_another(files: CertificateFiles) -> None:
    person = Typist(SECRET)
    with pytest.raises(MaterialError):
        load_credential(with_file(files, WRONG.encode()), PassphraseSource({VARIABLE: SECRET}, person))
    with pytest.raises(MaterialError):
        load_credential(files, PassphraseSource({VARIABLE: WRONG}, person))
    assert person.questions == []


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\nsecond line\n"])
def test_the_first_line_of_the_file_is_the_passphrase(files: CertificateFiles, end: str) -> None:
    assert load_credential(with_file(files, (SECRET + end).encode()), PassphraseSource())


@pytest.mark.parametrize("secret", [" blanks count ", "pässwörd", "a\tb"])
def test_every_character_of_a_passphrase_counts(secret: str, tmp_path: Path) -> None:
    files = Place(tmp_path).pair(PAIR.certificate, made.encrypted_key(PAIR, secret))
    assert load_credential(with_file(files, secret.encode() + b"\n"), PassphraseSource())
    assert load_credential(files, PassphraseSource({VARIABLE: secret}))
    assert load_credential(files, PassphraseSource({}, Typist(secret)))


def test_a_person_may_try_again_but_not_for_ever(files: CertificateFiles) -> None:
    person = Typist(WRONG, SECRET)
    assert load_credential(files, PassphraseSource({}, person))
    assert person.questions == [f"passphrase of {files.key}: ", f"that was wrong; passphrase of {files.key}: "]
    person = Typist(*[WRONG] * 99)
    with pytest.raises(MaterialError, match="the passphrase typed does not open it"):
        load_credential(files, PassphraseSource({}, person))
    assert len(person.questions) == ATTEMPTS


def test_a_person_who_types_nothing_ends_the_start(files: CertificateFiles) -> None:
    with pytest.raises(MaterialError, match="no passphrase was typed"):
        load_credential(files, PassphraseSource({}, Typist()))


def test_what_was_typed_at_the_start_opens_the_key_at_a_reload(files: CertificateFiles) -> None:
    person = Typist(WRONG, SECRET)
    source = PassphraseSource({}, person)
    assert load_credential(files, source) == load_credential(files, source)
    assert len(person.questions) == 2
    assert files.key is not None
    files.key.write_bytes(made.encrypted_key(PAIR, "changed since").read_bytes())
    with pytest.raises(MaterialError, match="the passphrase typed at the start does not open it"):
        load_credential(files, source)
    assert len(person.questions) == 2, "nobody is at the terminal at a reload"


def test_nobody_is_asked_for_a_key_that_is_not_encrypted() -> None:
    person = Typist()
    load_credential(CertificateFiles(certificate=PAIR.combined), PassphraseSource({}, person))
    load_credential(CertificateFiles(p12=made.p12(PAIR)), PassphraseSource({}, person))
    assert person.questions == []


def test_a_source_shows_no_passphrase_and_stays_in_its_process(files: CertificateFiles) -> None:
    source = PassphraseSource({VARIABLE: SECRET}, None)
    typed = PassphraseSource({}, Typist(SECRET))
    load_credential(files, typed)
    assert SECRET not in repr(source) + repr(typed) + repr(list(source.attempts(Path("key"), None)))
    for one in (source, typed):
        with pytest.raises(TypeError):
            pickle.dumps(one)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_terminal_is_asked_only_when_stdin_is_one(
    files: CertificateFiles, is_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", type("Stdin", (), {"isatty": lambda self: is_terminal})())
    monkeypatch.setattr("getpass.getpass", Typist(SECRET))
    if is_terminal:
        assert load_credential(files, PassphraseSource.of_this_process())
    else:
        with pytest.raises(MaterialError, match="at a terminal"):
            load_credential(files, PassphraseSource.of_this_process())


def test_an_enormous_passphrase_file_is_not_read(files: CertificateFiles) -> None:
    with pytest.raises(MaterialError, match="larger than 64 KiB"):
        load_credential(with_file(files, b"x" * (passphrase._MAX_BYTES + 1)), PassphraseSource())
