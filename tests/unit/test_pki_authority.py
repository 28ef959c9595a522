"""A CA folder: whole after every crash, orderly under concurrency, its keys for its owner alone."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.material_files import opening
from tlstunnel.errors import StartupError, UsageError
from tlstunnel.tools.pki import authority, constraints, files, index, issue, keys, profile, readers
from tlstunnel.x509.passphrase import Passphrase

CRASH_EVERYWHERE = """
import os, sys
from pathlib import Path
from tlstunnel.tools.pki import authority, files, index, issue, keys, readers

root = Path(sys.argv[1])
STEPS = ("open", "replace", "link", "unlink", "fsync", "mkdir")

def crash_at(number, work):
    child = os.fork()
    if child == 0:
        left = [number]
        def counted(original):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return original(*args, **kwargs)
            return call
        for step in STEPS:
            setattr(os, step, counted(getattr(os, step)))
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def check(folder):
    made = authority.load(folder)
    listed = {entry.file for entry in index.load(folder / "index.txt")}
    kept = {f"issued/{path.name}" for path in (folder / "issued").glob("*.pem")}
    assert kept <= listed, "a certificate that the index does not know"
    for path in (folder / "issued").glob("*.pem"):
        readers.load_certificates(path)
    return made

crashes = 0
for number in range(1, 1000):
    folder = root / f"made-{number}"
    code = crash_at(number, lambda: authority.create(folder))
    if code == 0:
        break
    crashes += 1
    if not (folder / "ca.pem").exists() or (folder / "unfinished").exists():
        authority.create(folder)
    check(folder)
assert crashes > 20, crashes
print("create", crashes)

folder, crashes = root / "ca", 0
authority.create(folder)
for number in range(1, 1000):
    out = root / f"out-{number}"
    code = crash_at(number, lambda: issue.server(folder, ["localhost"], out))
    check(folder)
    for path in out.glob("[!.]*"):
        assert path.read_bytes().endswith(b"-----\\n"), f"{path} is half written"
        if path.suffix == ".key":
            keys.load(path)
    if code == 0:
        break
    crashes += 1
    issue.server(folder, ["localhost"], out, force=True)
assert crashes > 10, crashes
assert not list(folder.glob(".*.tmp"))
print("issue", crashes)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.ExtensionType:
    return certificate.extensions.get_extension_for_class(kind).value


@pytest.mark.slow
def test_a_crash_at_any_step_leaves_the_folder_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH_EVERYWHERE, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("create")


def issue_some(folder: Path, out: Path, number: int) -> None:
    for each in range(10):
        issue.client(folder, f"client-{number}-{each}", out)


@pytest.mark.slow
def test_processes_that_issue_at_once_take_turns(tmp_path: Path) -> None:
    authority.create(tmp_path / "ca")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=issue_some, args=(tmp_path / "ca", tmp_path / "out", n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    entries = index.load(tmp_path / "ca" / "index.txt")
    assert len(entries) == 30
    assert {(tmp_path / "ca" / entry.file).exists() for entry in entries} == {True}
    assert len(list((tmp_path / "out").glob("*.pem"))) == 30


def force_some(folder: Path, out: Path) -> None:
    for _ in range(10):
        issue.server(folder, ["localhost"], out, force=True)


@pytest.mark.slow
def test_processes_that_force_the_same_name_leave_a_matching_pair(tmp_path: Path) -> None:
    authority.create(tmp_path / "ca")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=force_some, args=(tmp_path / "ca", tmp_path)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    key = keys.load(tmp_path / "localhost.key")
    certificate = readers.load_certificates(tmp_path / "localhost.pem")[0]
    assert keys.public_bytes(key) == keys.public_bytes(certificate.public_key())


def test_keys_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ca = authority.create(tmp_path / "ca")
        made = issue.server(ca, ["localhost"], tmp_path / "out")
    finally:
        os.umask(before)
    assert mode(tmp_path / "ca" / "ca.key") == mode(made.key or Path()) == 0o600
    assert mode(tmp_path / "ca" / "ca.pem") == mode(made.certificate) == 0o644


def test_a_strict_umask_does_not_hide_certificates(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        authority.create(tmp_path / "ca")
    finally:
        os.umask(before)
    assert mode(tmp_path / "ca" / "ca.pem") == 0o644


def test_a_finished_ca_is_never_replaced(tmp_path: Path) -> None:
    authority.create(tmp_path)
    before = (tmp_path / "ca.key").read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        authority.create(tmp_path)
    assert (tmp_path / "ca.key").read_bytes() == before


def test_a_root_says_what_it_is(tmp_path: Path) -> None:
    made = authority.create(tmp_path, name="Root", organization="Example", path_length=1).certificate
    assert made.subject.rfc4514_string() == "CN=Root,O=Example"
    basic = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=1)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature
    assert 3640 < profile.days_left(made) <= 3650


def test_serial_numbers_are_random_and_long(tmp_path: Path) -> None:
    ca = authority.create(tmp_path)
    serials = {issue.server(ca, ["localhost"], tmp_path, force=True).parsed.serial_number for _ in range(4)}
    assert len(serials) == 4
    assert all(serial.bit_length() > 100 for serial in serials)


def test_an_intermediate_hands_out_its_chain_and_knows_its_root(tmp_path: Path) -> None:
    root = authority.create(tmp_path / "root", name="Root")
    authority.create(tmp_path / "sub", name="Sub", parent=root)
    sub = authority.load(tmp_path / "sub")
    made = issue.server(sub, ["localhost"], tmp_path / "out")
    chain = readers.load_certificates(made.certificate)
    assert [c.subject.rfc4514_string() for c in chain] == ["CN=localhost", "CN=Sub"]
    assert readers.load_certificates(made.ca) == (root.certificate,)
    assert extension(sub.certificate, x509.BasicConstraints) == x509.BasicConstraints(ca=True, path_length=0)
    assert len(index.load(tmp_path / "root" / "index.txt")) == 1


def test_no_ca_stands_below_a_path_length_of_zero(tmp_path: Path) -> None:
    root = authority.create(tmp_path / "root", name="Root", path_length=1)
    with pytest.raises(UsageError, match="write 0 or less"):
        authority.create(tmp_path / "long", name="Long", parent=root, path_length=1)
    sub = authority.create(tmp_path / "sub", name="Sub", parent=root)
    with pytest.raises(UsageError, match="forbids CAs below it"):
        authority.create(tmp_path / "subsub", name="Sub sub", parent=sub)


def test_an_intermediate_does_not_outlive_its_parent(tmp_path: Path) -> None:
    root = authority.create(tmp_path / "root", name="Root", days=100)
    sub = authority.create(tmp_path / "sub", name="Sub", parent=root)
    assert sub.certificate.not_valid_after_utc <= root.certificate.not_valid_after_utc
    with pytest.raises(UsageError, match="outlive the CA"):
        issue.server(sub, ["localhost"], tmp_path, days=101)


def test_an_encrypted_ca_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    authority.create(tmp_path, passphrase=Passphrase(b"right"))
    assert b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()
    authority.load(tmp_path, opening("right"))
    with pytest.raises(UsageError, match="is encrypted; give its passphrase"):
        authority.load(tmp_path)
    with pytest.raises(UsageError, match="does not open it"):
        authority.load(tmp_path, opening("wrong"))


def test_another_cas_key_is_noticed(tmp_path: Path) -> None:
    authority.create(tmp_path / "a")
    authority.create(tmp_path / "b")
    os.replace(tmp_path / "a" / "ca.key", tmp_path / "b" / "ca.key")
    with pytest.raises(UsageError, match="not the key of"):
        authority.load(tmp_path / "b")


def test_a_folder_without_a_ca_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="make one with tlstunnel cert ca --out"):
            authority.load(folder)


def test_a_leafs_certificate_makes_no_ca(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca")
    made = issue.server(ca, ["localhost"], tmp_path / "out")
    (tmp_path / "ca" / "ca.pem").write_bytes(made.certificate.read_bytes())
    with pytest.raises(UsageError, match="not a CA's certificate"):
        authority.load(tmp_path / "ca")


def test_a_damaged_index_is_named_with_its_line(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca")
    issue.server(ca, ["localhost"], tmp_path / "out")
    path = tmp_path / "ca" / "index.txt"
    path.write_bytes(path.read_bytes() + b"V\tnonsense\n")
    with pytest.raises(UsageError, match=r"index\.txt: line 2: not an entry \(2 fields instead of 6\)"):
        issue.server(ca, ["localhost"], tmp_path / "other")
    assert not (tmp_path / "other").exists(), "nothing is handed out that the index does not know"


def test_an_index_line_survives_odd_subjects(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", name="Tab/Slash\\ Ünïcode")
    sub = authority.create(tmp_path / "sub", name="Größe/x=y", parent=ca)
    del sub
    (entry,) = index.load(tmp_path / "ca" / "index.txt")
    assert entry.subject == r"/CN=Gr\xC3\xB6\xC3\x9Fe\x2Fx=y"
    assert index.parse(entry.line.encode(), where="x") == [entry]


@pytest.mark.parametrize(
    ("permit", "exclude", "good", "bad"),
    [
        (["example.org"], [], "api.example.org", "example.com"),
        (["example.org"], [], "example.org", "badexample.org"),
        (["example.org"], [], "*.example.org", "10.0.0.1"),
        (["10.0.0.0/8"], [], "10.1.2.3", "11.0.0.1"),
        (["10.0.0.0/8"], [], "10.1.2.3", "fd00::1"),
        (["10.0.0.0/8"], [], "10.1.2.3", "localhost"),
        ([], ["corp.example.org"], "example.org", "db.corp.example.org"),
        ([], ["corp.example.org"], "*.example.com", "*.example.org"),
    ],
)
def test_a_constrained_ca_refuses_what_verifiers_would(
    tmp_path: Path, permit: list[str], exclude: list[str], good: str, bad: str
) -> None:
    ca = authority.create(tmp_path / "ca", subtrees=constraints.parse(permit, exclude))
    issue.server(ca, [good], tmp_path / "out")
    with pytest.raises(UsageError, match=re.escape(f'may not vouch for "{bad}"')):
        issue.server(ca, [bad], tmp_path / "out")


@pytest.mark.parametrize("text", ["300.0.0.0/8", "10.0.0.1/8", "*.example.org", "exa mple", "uri:", ""])
def test_a_senseless_constraint_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--permit"):
        constraints.parse([text], [])


def test_uris_and_mail_addresses_can_be_constrained(tmp_path: Path) -> None:
    subtrees = constraints.parse(["example.org", "uri:example.org", "email:.example.org"], [])
    ca = authority.create(tmp_path / "ca", subtrees=subtrees)
    issue.client(ca, "billing", tmp_path, uris=["spiffe://example.org/billing"], emails=["a@mail.example.org"])
    with pytest.raises(UsageError, match="may not vouch"):
        issue.client(ca, "x", tmp_path, uris=["spiffe://example.com/billing"])
    with pytest.raises(UsageError, match="may not vouch"):
        issue.client(ca, "y", tmp_path, emails=["a@example.org"])


def test_a_common_name_that_looks_like_a_host_is_held_against_the_constraints(tmp_path: Path) -> None:
    ca = authority.create(tmp_path / "ca", subtrees=constraints.parse(["10.0.0.0/8", "uri:example.org"], []))
    made = issue.server(ca, ["10.1.2.3"], tmp_path)
    assert not list(made.parsed.subject), "OpenSSL would take the address in it for a host name, and refuse it"
    with pytest.raises(UsageError, match=r'may not vouch for "billing\.example\.com"'):
        issue.client(ca, "billing.example.com", tmp_path, uris=["spiffe://example.org/billing"])
    issue.client(ca, "billing", tmp_path, uris=["spiffe://example.org/billing"])


def test_a_file_is_never_half_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write(path, b"one", secret=False, replace=False)
    with pytest.raises(UsageError, match="exists already; choose another name, or --force"):
        files.write(path, b"two", secret=False, replace=False)
    files.write(path, b"three", secret=True, replace=True)
    assert path.read_bytes() == b"three"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_through_a_symbolic_link_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    files.write(tmp_path / "link", b"new", secret=False, replace=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_unreadable_and_endless_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; check the path"):
        files.read(tmp_path / "missing")
    with pytest.raises(UsageError, match="is a directory"):
        files.read(tmp_path)
    with pytest.raises(UsageError, match="is a device"):
        files.read(Path("/dev/zero"))
    (tmp_path / "image").touch()
    os.truncate(tmp_path / "image", 1 << 40)  # sparse: nothing is written
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        files.read(tmp_path / "image")
    with pytest.raises(StartupError, match="no such directory"):
        files.write(tmp_path / "no" / "file", b"", secret=False, replace=False)


def test_a_sparse_file_of_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.pem"
    with open(path, "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="is larger than 1 MiB"):
        readers.load_certificates(path)
    with pytest.raises(UsageError, match="is larger than 1 MiB"):
        keys.load(path)
