"""Looking at everything a configuration names: nothing is asked twice, and every finding has its key path."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support import certificates
from tlstunnel.access.policy import Policy
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.keys import Key, options_of
from tlstunnel.config.model import (
    Admin,
    CertificateFiles,
    ClientAuth,
    Config,
    CRLExpired,
    Mode,
    ServerName,
    Service,
    TargetTLS,
    TLSSettings,
)
from tlstunnel.errors import ConfigError, StartupError
from tlstunnel.tls import inventory
from tlstunnel.tls.context import ContextError
from tlstunnel.tls.inspection import Finding, inspect, loop_warnings
from tlstunnel.tls.store import Material, ServiceContexts
from tlstunnel.x509.passphrase import PassphraseSource

NOW = datetime.now(UTC)
PASSPHRASE = "correct horse"


def config(files: CertificateFiles, **more: object) -> Config:
    service = Service(
        name="web",
        mode=Mode.SERVER,
        listen=(parse_listen(":0"),),
        targets=(parse_target("127.0.0.1:1"),),
        certificate=(files,),
        **more,  # type: ignore[arg-type]
    )
    return Config(services=(service,))


def plain() -> CertificateFiles:
    pair = certificates.server("localhost")
    return CertificateFiles(certificate=pair.certificate, key=pair.key)


def test_what_openssl_has_against_the_whole_is_a_finding_of_its_key() -> None:
    def build(service: Service, material: Material) -> ServiceContexts:
        assert material.credentials
        raise ContextError("certificate", "OpenSSL refuses it; write another")

    found = inspect(config(plain()), PassphraseSource(), now=NOW, build=build)
    assert found.problems == (Finding(("services", "web", "certificate"), "OpenSSL refuses it; write another"),)
    assert found.contexts == ()


def test_what_was_read_is_handed_out_for_a_start() -> None:
    found = inspect(config(plain()), PassphraseSource(), now=NOW)
    assert found.problems == ()
    assert [len(material.credentials) for material in found.materials] == [1]
    assert len(found.contexts) == 1


def test_a_passphrase_is_asked_for_once_however_many_names_share_the_key() -> None:
    asked: list[str] = []

    def prompt(question: str) -> str:
        asked.append(question)
        return PASSPHRASE

    pair = certificates.server("localhost")
    files = CertificateFiles(certificate=pair.certificate, key=certificates.encrypted_key(pair, PASSPHRASE))
    name = ServerName(
        names=("localhost",), certificate=(files,), targets=(), policy=Policy(), tls=TLSSettings(min_version="1.3")
    )
    found = inspect(config(files, sni=(name,)), PassphraseSource(prompt=prompt), now=NOW)
    assert (found.problems, len(asked)) == ((), 1)


def test_a_name_the_certificate_is_not_for_is_a_warning() -> None:
    files = plain()
    name = ServerName(names=("a.example.org",), certificate=(files,), targets=(), policy=Policy(), tls=TLSSettings())
    found = inspect(config(files, sni=(name,)), PassphraseSource(), now=NOW)
    assert any("not for a.example.org" in warning for warning in found.warnings)


@pytest.mark.filterwarnings("ignore:.*X509:DeprecationWarning")
@pytest.mark.parametrize("judged", CRLExpired)
def test_an_expired_revocation_list_is_what_crl_expired_says_with_its_date(judged: CRLExpired) -> None:
    yesterday = NOW.replace(microsecond=0) - timedelta(days=1)
    crl = certificates.crl(last_update=yesterday - timedelta(days=7), next_update=yesterday)
    trust = {"client_auth": ClientAuth.REQUIRED, "client_ca": certificates.ca().certificate, "crl": (crl,)}
    asked = config(plain(), policy=Policy(allow_any=True), crl_expired=judged, **trust)
    found = inspect(asked, PassphraseSource(), now=NOW)
    warned = [line for line in found.warnings if f"expired on {yesterday:%Y-%m-%d}" in line]
    refused = [(each.steps, each.what) for each in found.problems]
    if judged is CRLExpired.WARNING:
        assert (len(warned), refused) == (1, [])
    else:
        assert (warned, [steps for steps, _ in refused]) == ([], [("services", "web", "crl")])
        assert refused[0][1].endswith('fetch it anew, or set crl_expired to "warning"')


@pytest.mark.filterwarnings("ignore:.*X509:DeprecationWarning")
def test_an_expired_list_beside_a_current_one_of_the_same_ca_refuses_nobody() -> None:
    old = certificates.crl(last_update=NOW - timedelta(days=9), next_update=NOW - timedelta(days=1))
    ca = certificates.ca().certificate
    trust = {"client_auth": ClientAuth.REQUIRED, "client_ca": ca, "crl": (old, certificates.crl())}
    found = inspect(config(plain(), policy=Policy(allow_any=True), **trust), PassphraseSource(), now=NOW)
    assert found.problems == ()
    assert any("expired on" in warning for warning in found.warnings)


@pytest.mark.filterwarnings("ignore:.*X509:DeprecationWarning")
def test_the_servers_list_may_be_expired_too_where_that_is_a_warning() -> None:
    old = certificates.crl(last_update=NOW - timedelta(days=9), next_update=NOW - timedelta(days=1))
    backend = TargetTLS(ca=certificates.ca().certificate, crl=(old, old))
    found = inspect(config(plain(), target_tls=backend), PassphraseSource(), now=NOW)
    assert [each.steps for each in found.problems] == [("services", "web", "target_tls", "crl", at) for at in (0, 1)]
    found = inspect(config(plain(), target_tls=backend, crl_expired=CRLExpired.WARNING), PassphraseSource(), now=NOW)
    assert found.problems == ()


def test_the_admin_endpoints_files_are_read_and_handed_out() -> None:
    pair, ca = certificates.server("localhost"), certificates.ca().certificate
    admin = Admin(listen=parse_listen("127.0.0.1:0"), certificate=pair.certificate, key=pair.key, client_ca=ca)
    found = inspect(replace(config(plain()), admin=admin), PassphraseSource(), now=NOW)
    assert found.problems == ()
    assert found.admin is not None
    assert len(found.admin.credentials) == 1
    assert found.admin.client_ca is not None
    wrong = replace(admin, key=certificates.server("other").key, client_ca=pair.key)
    found = inspect(replace(config(plain()), admin=wrong), PassphraseSource(), now=NOW)
    assert [each.steps for each in found.problems] == [("admin", "key"), ("admin", "client_ca")]
    assert inspect(config(plain()), PassphraseSource(), now=NOW).admin is None


def test_a_start_names_each_problem_by_key_path_or_by_option() -> None:
    other = certificates.server("other.example.org")
    files = replace(plain(), key=other.key)
    asked = replace(config(files, tls=TLSSettings(groups="P-999")), source="tunnel.toml")
    with pytest.raises(ConfigError) as caught:
        inventory.take(asked, PassphraseSource())
    assert [problem.where for problem in caught.value.problems] == [
        "tunnel.toml: services.web.groups",
        "tunnel.toml: services.web.key",
    ]
    with pytest.raises(ConfigError) as caught:
        inventory.take(replace(asked, source="command line"), PassphraseSource())
    assert [problem.where for problem in caught.value.problems] == ["--groups", "--key"]


def test_a_start_over_files_that_cannot_be_read_is_the_machines_fault(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^--cert: .*missing.pem"):
        inventory.take(config(replace(plain(), certificate=tmp_path / "missing.pem")), PassphraseSource())


def test_a_start_names_the_option_of_the_file_that_is_wrong(tmp_path: Path) -> None:
    empty = tmp_path / "pass.txt"
    empty.write_bytes(b"\n")
    asked = config(replace(plain(), key_passphrase_file=empty))
    with pytest.raises(ConfigError, match=r"^--key-passphrase-file: .*pass.txt: "):
        inventory.take(asked, PassphraseSource())


def test_a_start_says_that_a_key_log_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "no" / "keys.log"))
    with pytest.raises(
        ConfigError, match=r"^--unsafe-keylog: SSLKEYLOGFILE names .*, which cannot be opened \(no such"
    ):
        inventory.take(config(plain(), unsafe_keylog=True), PassphraseSource())


def test_what_a_start_has_read_can_be_used_with_other_contexts() -> None:
    taken = inventory.take(config(plain()), PassphraseSource())
    again = inventory.take(config(plain()), PassphraseSource(), {"web": taken.contexts[0]})
    assert taken.with_contexts(again.contexts) == replace(taken, contexts=again.contexts)
    assert len(taken.materials) == len(taken.contexts) == 1


@pytest.mark.parametrize("key", options_of(Mode.SERVER) + options_of(Mode.CLIENT), ids=lambda key: key.option)
def test_a_key_of_a_service_is_named_as_its_option(key: Key) -> None:
    if key.section == "service":
        assert inventory.place("command line", ("services", "server", key.name, 0)) == key.option


def test_a_service_whose_name_has_a_dot_is_named_as_toml_writes_it() -> None:
    steps = ("services", "web.1", "sni", 0, "certificate")
    assert inventory.place("a.toml", steps) == 'a.toml: services."web.1".sni[0].certificate'


def chain(**ways: str) -> tuple[Service, ...]:
    """Services by name, each `LISTEN > TARGET`."""
    return tuple(
        Service(
            name=name,
            mode=Mode.PASSTHROUGH,
            listen=(parse_listen(way.split(" > ")[0]),),
            targets=tuple(map(parse_target, way.split(" > ")[1].split(", "))),
        )
        for name, way in ways.items()
    )


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        (":8443", "127.0.0.1:8443"),
        (":8443", "[::1]:8443"),
        (":8443", "localhost:8443"),
        (":8443", "0.0.0.0:8443"),
        (":8443", "10.0.0.7:1, 127.0.0.9:8443"),
        ("0.0.0.0:8443", "127.0.0.1:8443"),
        ("[::]:8443", "[::1]:8443"),
        ("[::]:8443", "localhost:8443"),
        ("localhost:8443", "127.0.0.1:8443"),
        ("127.0.0.1:8443", "LOCALHOST.:8443"),
        ("192.0.2.7:8443", "192.0.2.7:8443"),
        ("[2001:db8::7]:8443", "[2001:db8:0::7]:8443"),
        ("db.example.org:8443", "DB.example.org.:8443"),
        ("unix:/run/a", "unix:/run/a"),
    ],
)
def test_a_target_that_is_where_the_service_listens_is_warned_of(listen: str, target: str) -> None:
    (line,) = loop_warnings(chain(web=f"{listen} > {target}"))
    back = parse_target(target.rsplit(", ", maxsplit=1)[-1])
    assert line == (
        f"web: target {back} leads back to the service itself (web -> web): each "
        "connection makes the next, until there are no descriptors left; write the address of what is behind it"
    )


@pytest.mark.parametrize(
    ("listen", "target"),
    [
        (":8443", "127.0.0.1:8444"),
        (":8443", "10.0.0.7:8443"),
        (":8443", "db.example.org:8443"),
        (":0", "127.0.0.1:8443"),
        ("0.0.0.0:8443", "[::1]:8443"),
        ("127.0.0.1:8443", "127.0.0.2:8443"),
        ("127.0.0.1:8443", "[::1]:8443"),
        ("db.example.org:8443", "127.0.0.1:8443"),
        ("systemd:web", "127.0.0.1:8443"),
        ("unix:/run/a", "unix:/run/b"),
        ("unix:/run/a", "127.0.0.1:8443"),
    ],
)
def test_a_target_elsewhere_is_not(listen: str, target: str) -> None:
    assert loop_warnings(chain(web=f"{listen} > {target}")) == []


def test_a_circle_of_services_is_one_warning_and_a_chain_is_none() -> None:
    forward = {"front": ":443 > 127.0.0.1:8443", "middle": "127.0.0.1:8443 > 127.0.0.1:8444, 10.0.0.1:1"}
    assert loop_warnings(chain(**forward, back="127.0.0.1:8444 > 127.0.0.1:80")) == []
    (line,) = loop_warnings(chain(**forward, back="127.0.0.1:8444 > 127.0.0.1:443"))
    assert line.startswith("front: target 127.0.0.1:8443 leads back to the service itself (front -> middle -> back -> ")
    lines = loop_warnings(chain(one=":1 > 127.0.0.1:1", two=":2 > 127.0.0.1:2", three=":3 > 127.0.0.1:1"))
    assert [line.partition(":")[0] for line in lines] == ["one", "two"]


def test_check_and_a_start_say_that_a_target_leads_back() -> None:
    files = plain()
    service = replace(
        config(files).services[0], listen=(parse_listen("127.0.0.1:7"),), targets=(parse_target("127.0.0.1:7"),)
    )
    found = inspect(Config(services=(service,)), PassphraseSource(), now=NOW)
    assert [line for line in found.warnings if "leads back" in line]


def pem_file(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_a_chain_without_the_intermediate_that_only_the_clients_cas_hold_is_warned_about(tmp_path: Path) -> None:
    inter, root = certificates.intermediate().leaf, certificates.ca().leaf
    bundle = pem_file(tmp_path, "cas.pem", certificates.pem(inter, root))
    auth = {"client_auth": ClientAuth.REQUIRED, "client_ca": bundle, "policy": Policy(allow_any=True)}
    for pair, is_short in (
        (certificates.server("localhost", under=certificates.intermediate()), True),
        (certificates.server("localhost", through_intermediate=True), False),
        (certificates.server("localhost"), False),
    ):
        files = CertificateFiles(certificate=pair.certificate, key=pair.key)
        found = inspect(config(files, **auth), PassphraseSource(), now=NOW)
        lines = [line for line in found.warnings if "the chain ends at" in line]
        assert len(lines) == is_short, found.warnings
        assert not is_short or "its issuer CN=tlstunnel test intermediate" in lines[0]


def test_ciphers_that_suit_no_key_are_a_problem_where_nothing_else_is_left_and_a_warning_where_tls_1_3_is() -> None:
    ciphers = "ECDHE-RSA-AES128-GCM-SHA256"  # and the key is ECDSA
    found = inspect(config(plain(), tls=TLSSettings(ciphers=ciphers, max_version="1.2")), PassphraseSource(), now=NOW)
    (problem,) = found.problems
    assert problem.steps == ("services", "web", "ciphers")
    assert "can be used with a key of ECDSA P-256" in problem.what
    found = inspect(config(plain(), tls=TLSSettings(ciphers=ciphers)), PassphraseSource(), now=NOW)
    assert found.problems == ()
    (line,) = [line for line in found.warnings if "ciphers" in line]
    assert line.startswith("web: ciphers: nothing in")
    assert "TLS 1.2 is out of reach" in line


def test_settings_of_a_server_name_and_of_a_target_are_looked_at_too() -> None:
    lowered = TLSSettings(ciphers="DEFAULT:@SECLEVEL=0")
    files = plain()
    name = ServerName(
        names=("x.example",), certificate=(files,), targets=(parse_target("127.0.0.1:1"),), policy=Policy(), tls=lowered
    )
    ca = certificates.ca().certificate
    service = config(files, sni=(name,), target_tls=TargetTLS(ca=ca, tls=lowered))
    lines = [line for line in inspect(service, PassphraseSource(), now=NOW).warnings if "SECLEVEL" in line]
    assert [line.partition(":")[0] for line in lines] == ["web.sni.0", "web.target_tls"]
