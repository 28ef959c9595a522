"""What a valid configuration becomes: which key reaches which field, and what the defaults are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.config_texts import CLIENT, SERVER, Load, loader, service
from tlstunnel.access.policy import Policy, Rule
from tlstunnel.address import SystemdAddress, TCPAddress, UnixAddress
from tlstunnel.config.load import from_options
from tlstunnel.config.model import (
    CertificateFiles,
    ClientAuth,
    Failover,
    Keepalive,
    Mode,
    OCSPStaple,
    ProxyProtocol,
    Service,
    TargetTLS,
    TLSSettings,
)
from tlstunnel.errors import ConfigError

CONTRACT = """
[process]
workers = "auto"
[admin]
listen = "127.0.0.1:9464"
[log]
format = "json"

[services.orders]
mode = "server"
listen = ["0.0.0.0:8443", "[::]:8443"]
target = "127.0.0.1:8080"
certificate = "orders.pem"
key = "orders.key"
min_version = "1.2"
client_auth = "required"
client_ca = "clients-ca.pem"
allow = [{ cn = "billing" }, { uri = "spiffe://example.org/ns/*/billing" }]
idle_timeout = "1h"

[[services.orders.sni]]
names = ["api.example.org", "*.api.example.org"]
certificate = "api.pem"
key = "api.key"
target = "127.0.0.1:8081"
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(tmp_path, monkeypatch)


def test_the_example_of_the_contract_is_read_as_it_says(load: Load, tmp_path: Path) -> None:
    config = load(CONTRACT)
    orders = service(config)
    assert (config.process.workers, config.log.format, config.source) == (None, "json", str(tmp_path / "tunnel.toml"))
    assert config.admin.listen == TCPAddress("127.0.0.1", 9464)
    assert (orders.name, orders.mode) == ("orders", Mode.SERVER)
    assert orders.listen == (TCPAddress("0.0.0.0", 8443), TCPAddress("::", 8443))
    assert orders.targets == (TCPAddress("127.0.0.1", 8080),)
    assert orders.certificate == (CertificateFiles(certificate=tmp_path / "orders.pem", key=tmp_path / "orders.key"),)
    assert (orders.client_auth, orders.client_ca) == (ClientAuth.REQUIRED, tmp_path / "clients-ca.pem")
    rules = (Rule(cn="billing"), Rule(uri="spiffe://example.org/ns/*/billing"))
    assert orders.policy == Policy(allow=rules)
    assert orders.timeouts.idle_s == 3600.0
    api = orders.sni[0]
    assert api.names == ("api.example.org", "*.api.example.org")
    assert api.certificate == (CertificateFiles(certificate=tmp_path / "api.pem", key=tmp_path / "api.key"),)
    assert api.targets == (TCPAddress("127.0.0.1", 8081),)
    assert (api.policy, api.tls) == (orders.policy, orders.tls)


def test_what_is_left_out_is_the_models_default(load: Load, tmp_path: Path) -> None:
    assert service(load(f"[services.web]\n{SERVER}")) == Service(
        name="web",
        mode=Mode.SERVER,
        listen=(TCPAddress("", 8443),),
        targets=(TCPAddress("127.0.0.1", 8080),),
        certificate=(CertificateFiles(certificate=tmp_path / "server.pem"),),
    )


def test_every_key_of_a_server_reaches_its_field(load: Load, tmp_path: Path) -> None:
    web = service(
        load(
            f"""[services.web]\n{SERVER}
            key = "server.key"
            key_passphrase_file = "pass.txt"
            failover = "round-robin"
            client_auth = "optional"
            anonymous = "deny"
            client_ca = "ca.pem"
            crl = ["a.crl", "b.crl"]
            deny = [{{ email = "mallory@example.org" }}]
            allow_cn = ["a", "b"]
            allow_spki_pin = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            min_version = "1.3"
            max_version = "1.3"
            ciphers = "ECDHE+AESGCM"
            ciphersuites = "TLS_AES_256_GCM_SHA384"
            groups = "X25519"
            alpn = ["h2", "http/1.1"]
            alpn_required = true
            handshake_timeout = "1s"
            connect_timeout = "2s"
            idle_timeout = "3s"
            half_close_timeout = "4s"
            drain_timeout = "0s"
            max_lifetime = "6s"
            max_connections = 7
            max_connections_per_ip = 8
            proxy_protocol = "v2"
            accept_proxy_protocol = true
            strict_close = true
            unsafe_keylog = true
            """
        )
    )
    assert web.certificate[0].key_passphrase_file == tmp_path / "pass.txt"
    assert (web.failover, web.client_auth) == (Failover.ROUND_ROBIN, ClientAuth.OPTIONAL)
    assert web.crl == (tmp_path / "a.crl", tmp_path / "b.crl")
    pin = Rule(spki_pin="sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
    assert web.policy == Policy(
        allow=(Rule(cn="a"), Rule(cn="b"), pin), deny=(Rule(email="mallory@example.org"),), anonymous=False
    )
    assert web.tls == TLSSettings(
        min_version="1.3",
        max_version="1.3",
        ciphers="ECDHE+AESGCM",
        ciphersuites="TLS_AES_256_GCM_SHA384",
        groups="X25519",
        alpn=("h2", "http/1.1"),
        alpn_required=True,
    )
    times = web.timeouts
    assert (times.handshake_s, times.connect_s, times.idle_s, times.half_close_s) == (1.0, 2.0, 3.0, 4.0)
    assert (times.drain_s, times.max_lifetime_s) == (0.0, 6.0)
    assert (web.max_connections, web.max_connections_per_ip) == (7, 8)
    assert (web.proxy_protocol, web.accept_proxy_protocol) == (ProxyProtocol.V2, True)
    assert (web.strict_close, web.unsafe_keylog) == (True, True)


def test_every_key_of_a_client_reaches_its_field(load: Load, tmp_path: Path) -> None:
    db = service(
        load(
            f"""[services.db]\n{CLIENT}
            ca = "ca.pem"
            server_name = "DB.example.org."
            verify = [{{ cn = "db", ou = "ops" }}]
            verify_dns = "db.example.org"
            p12 = "bundle.p12"
            crl = "a.crl"
            alpn = "postgresql"
            """
        )
    )
    assert db.target_tls == TargetTLS(
        ca=tmp_path / "ca.pem",
        server_name="db.example.org",
        verify=Policy(allow=(Rule(cn="db", ou="ops"), Rule(dns="db.example.org"))),
        certificate=CertificateFiles(p12=tmp_path / "bundle.p12"),
        crl=(tmp_path / "a.crl",),
        tls=TLSSettings(alpn=("postgresql",)),
    )
    assert (db.certificate, db.client_ca, db.policy, db.tls) == ((), None, Policy(), TLSSettings())


def test_a_client_without_any_option_verifies_against_the_systems_roots(load: Load) -> None:
    assert service(load(f"[services.db]\n{CLIENT}")).target_tls == TargetTLS()


def test_daemon_wide_keys_reach_their_fields(load: Load, tmp_path: Path) -> None:
    config = load(
        f"""
        [process]
        workers = 2
        user = "tls"
        group = "tls"
        max_connections = 100
        reload_poll = "never"
        [admin]
        listen = "0.0.0.0:9464"
        unsafe_admin = true
        [log]
        format = "json"
        level = "debug"
        target = "file:tunnel.log"
        [services.web]\n{SERVER}"""
    )
    process = config.process
    assert (process.workers, process.user, process.group, process.max_connections) == (2, "tls", "tls", 100)
    assert (process.reload_poll_s, config.admin.unsafe_admin) == (math.inf, True)
    assert (config.log.level, config.log.target) == ("debug", f"file:{tmp_path}/tunnel.log")


def test_target_tls_re_encrypts_with_defaults_or_with_its_own_settings(load: Load, tmp_path: Path) -> None:
    remote = SERVER.replace("127.0.0.1:8080", "app.example.org:443")
    assert service(load(f"[services.web]\n{remote}target_tls = true")).target_tls == TargetTLS()
    assert service(load(f"[services.web]\n{SERVER}target_tls = false")).target_tls is None
    own = service(load(f'[services.web]\n{remote}[services.web.target_tls]\nca = "ca.pem"\nserver_name = "app"'))
    assert own.target_tls == TargetTLS(ca=tmp_path / "ca.pem", server_name="app")


def test_names_take_what_they_do_not_say_from_their_service(load: Load) -> None:
    web = service(
        load(
            f"""[services.web]\n{SERVER}
            client_auth = "required"
            client_ca = "ca.pem"
            allow_cn = "a"
            deny = [{{ ou = "z" }}]
            alpn = "h2"
            [[services.web.sni]]
            names = "ONE.example.org."
            min_version = "1.3"
            [[services.web.sni]]
            names = "two.example.org"
            allow_cn = "b"
            alpn = []
            [[services.web.sni]]
            names = "three.example.org"
            deny = [{{ cn = "x" }}]
            [[services.web.sni]]
            names = "four.example.org"
            deny = []
            """
        )
    )
    one, two, three, four = web.sni
    assert one.names == ("one.example.org",)
    assert (one.certificate, one.targets, one.policy) == (web.certificate, web.targets, web.policy)
    assert one.tls == TLSSettings(min_version="1.3", alpn=("h2",))
    assert two.policy == Policy(allow=(Rule(cn="b"),), deny=web.policy.deny)
    assert two.tls.alpn == ()
    assert three.policy == Policy(allow=(Rule(cn="a"),), deny=(Rule(cn="x"),))
    assert four.policy == Policy(allow=(Rule(cn="a"),))


def test_a_name_that_only_denies_does_not_admit_more_than_its_service(load: Load) -> None:
    web = service(
        load(
            f"""[services.web]\n{SERVER}
            client_auth = "optional"
            anonymous = "deny"
            client_ca = "ca.pem"
            allow_cn = "a"
            [services.web.sni]
            names = "a.example.org"
            anonymous = "allow"
            """
        )
    )
    assert web.sni[0].policy == Policy(allow=(Rule(cn="a"),), anonymous=True)


def test_passthrough_routes_names_to_targets_anywhere(load: Load) -> None:
    router = service(
        load(
            """[services.router]
            mode = "passthrough"
            listen = ":443"
            target = "10.0.0.7:443"
            sni = [{ names = ["a.example.org", "*.b.example.org"], target = ["10.0.0.8:443", "unix:/run/b.sock"] }]
            """
        )
    )
    assert router.targets == (TCPAddress("10.0.0.7", 443),)
    assert router.sni[0].targets == (TCPAddress("10.0.0.8", 443), UnixAddress("/run/b.sock"))
    assert router.target_tls is None


def test_rsa_may_stand_beside_ecdsa_with_one_passphrase_for_both(load: Load, tmp_path: Path) -> None:
    text = SERVER.replace('"server.pem"', '["server.pem", "rsa.pem"]\nkey = ["server.key", "rsa.key"]')
    ecdsa, rsa = service(load(f'[services.web]\n{text}key_passphrase_file = "pass.txt"')).certificate
    assert (ecdsa.certificate, ecdsa.key) == (tmp_path / "server.pem", tmp_path / "server.key")
    assert (rsa.certificate, rsa.key) == (tmp_path / "rsa.pem", tmp_path / "rsa.key")
    assert ecdsa.key_passphrase_file == rsa.key_passphrase_file == tmp_path / "pass.txt"


def test_what_has_no_effect_and_says_so_is_accepted(load: Load) -> None:
    web = service(load(f"[services.web]\n{SERVER}allow_any = false\nmax_connections = 'unlimited'"))
    assert (web.policy, web.max_connections) == (Policy(), None)


def test_optional_without_a_rule_admits_every_verified_certificate(load: Load) -> None:
    web = service(load(f'[services.web]\n{SERVER}client_auth = "optional"\nclient_ca = "ca.pem"'))
    assert web.policy == Policy(allow_any=True)


def test_options_and_file_make_the_same_service(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from_file = load(f'[services.server]\n{SERVER}idle_timeout = "5m"\nmax_connections = 9\n[process]\nworkers = 3')
    values: dict[tuple[str, str], object] = {
        ("service", "listen"): [":8443"],
        ("service", "target"): ["127.0.0.1:8080"],
        ("service", "certificate"): ["server.pem"],
        ("service", "idle_timeout"): "5m",
        ("service", "max_connections"): "9",
        ("process", "workers"): "3",
    }
    from_command = from_options(Mode.SERVER, values, {})
    assert (from_command.services, from_command.process) == (from_file.services, from_file.process)


def test_systemd_sockets_may_carry_tls(load: Load) -> None:
    web = service(load(f"[services.web]\n{SERVER}".replace(":8443", "systemd:web")))
    assert web.listen == (SystemdAddress("web"),)


def test_a_response_file_alone_says_that_it_is_stapled(load: Load) -> None:
    web = service(load(f'[services.web]\n{SERVER}ocsp_response = ["a.crl", "b.crl"]'))
    assert (web.ocsp_staple, [path.name for path in web.ocsp_response]) == (OCSPStaple.FILE, ["a.crl", "b.crl"])


def test_a_name_without_a_certificate_of_its_own_shows_that_of_the_service(load: Load) -> None:
    web = service(load(f'[services.web]\n{SERVER}sni = [{{ names = "a.example.org", target = "127.0.0.1:1" }}]'))
    assert web.sni[0].certificate == web.certificate
    assert web.sni[0].targets == (TCPAddress("127.0.0.1", 1),)


def test_clients_without_a_certificate_may_go_elsewhere(load: Load) -> None:
    trust = 'client_auth = "optional"\nclient_ca = "ca.pem"\nallow_cn = "a"\n'
    web = service(load(f'[services.web]\n{SERVER}{trust}fallback_target = ["127.0.0.1:1", "unix:/run/b"]'))
    assert web.fallback_target == (TCPAddress("127.0.0.1", 1), UnixAddress("/run/b"))
    assert web.policy.anonymous


@pytest.mark.parametrize(
    ("written", "keepalive"),
    [
        ("", Keepalive(idle_s=60, interval_s=10, count=6)),
        ('keepalive = "never"', None),
        ('keepalive = { idle = "2h" }', Keepalive(idle_s=7200, interval_s=10, count=6)),
        ('keepalive = { idle = "30s", interval = "5s", count = 3 }', Keepalive(idle_s=30, interval_s=5, count=3)),
    ],
)
def test_keepalive_is_on_with_times_of_its_own_unless_it_is_never(
    load: Load, written: str, keepalive: Keepalive | None
) -> None:
    assert service(load(f"[services.web]\n{SERVER}{written}")).keepalive == keepalive


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_the_admin_endpoint_takes_one_file_and_leaves_none_out_in_silence(load: Load, key: str) -> None:
    with pytest.raises(ConfigError, match=rf'admin\.{key}: \["ca.pem", "server.pem"\] is an array; write a string'):
        load(f'[admin]\nlisten = "127.0.0.1:0"\n{key} = ["ca.pem", "server.pem"]\n[services.web]\n{SERVER}')
