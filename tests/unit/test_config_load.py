"""What a valid configuration becomes, and the rules that decide validity; wordings are in the golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlstunnel.address import SystemdAddress, TCPAddress, UnixAddress
from tlstunnel.config.files import FileTroubleError, find_file, is_hidden
from tlstunnel.config.load import from_options, load_file
from tlstunnel.config.model import (
    BackendTLS,
    CertificateFiles,
    ClientAuth,
    Config,
    Failover,
    Mode,
    OCSPStaple,
    ProxyProtocol,
    Service,
    SNIMismatch,
    TLSSettings,
)
from tlstunnel.config.network import parse_network
from tlstunnel.config.source import FilesError
from tlstunnel.errors import ConfigError
from tlstunnel.tls.policy import Policy, Rule

Load = Callable[[str], Config]

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
SERVER = 'listen = ":8443"\ntarget = "127.0.0.1:8080"\ncertificate = "server.pem"\n'
CLIENT = 'mode = "client"\nlisten = "127.0.0.1:5432"\ntarget = "db.example.org:5433"\n'


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text as a file beside which the files of these tests exist."""
    for name in ("orders", "clients-ca", "api", "server", "rsa", "ca"):
        (tmp_path / f"{name}.pem").touch()
        (tmp_path / f"{name}.key").touch()
    for name in ("bundle.p12", "pass.txt", "a.crl", "b.crl"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)

    def load_text(text: str) -> Config:
        path = tmp_path / "tunnel.toml"
        path.write_text(text)
        return load_file(path)

    return load_text


def service(config: Config) -> Service:
    assert len(config.services) == 1
    return config.services[0]


def problems(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(problem).partition(": ")[2] for problem in caught.value.problems]


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
    assert db.backend_tls == BackendTLS(
        ca=tmp_path / "ca.pem",
        server_name="db.example.org",
        verify=Policy(allow=(Rule(cn="db", ou="ops"), Rule(dns="db.example.org"))),
        certificate=CertificateFiles(p12=tmp_path / "bundle.p12"),
        crl=(tmp_path / "a.crl",),
        tls=TLSSettings(alpn=("postgresql",)),
    )
    assert (db.certificate, db.client_ca, db.policy, db.tls) == ((), None, Policy(), TLSSettings())


def test_a_client_without_any_option_verifies_against_the_systems_roots(load: Load) -> None:
    assert service(load(f"[services.db]\n{CLIENT}")).backend_tls == BackendTLS()


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
    assert (process.reload_poll_s, config.admin.unsafe_admin) == (None, True)
    assert (config.log.level, config.log.target) == ("debug", f"file:{tmp_path}/tunnel.log")


def test_target_tls_re_encrypts_with_defaults_or_with_its_own_settings(load: Load, tmp_path: Path) -> None:
    remote = SERVER.replace("127.0.0.1:8080", "app.example.org:443")
    assert service(load(f"[services.web]\n{remote}target_tls = true")).backend_tls == BackendTLS()
    assert service(load(f"[services.web]\n{SERVER}target_tls = false")).backend_tls is None
    own = service(load(f'[services.web]\n{remote}[services.web.target_tls]\nca = "ca.pem"\nserver_name = "app"'))
    assert own.backend_tls == BackendTLS(ca=tmp_path / "ca.pem", server_name="app")


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
    assert router.backend_tls is None


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


@pytest.mark.parametrize("rule", ['allow_cn = "a"', "allow_any = true", 'allow = [{ ou = "ops" }]'])
def test_required_with_a_rule_is_accepted(load: Load, rule: str) -> None:
    web = service(load(f'[services.web]\n{SERVER}client_auth = "required"\nclient_ca = "ca.pem"\n{rule}'))
    assert web.policy.allow or web.policy.allow_any


@pytest.mark.parametrize("rule", ["", 'deny = [{ cn = "a" }]', "allow_any = false"])
def test_required_without_a_rule_that_admits_anybody_is_refused(load: Load, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f'[services.web]\n{SERVER}client_auth = "required"\nclient_ca = "ca.pem"\n{rule}')
    assert problems(caught)[0].startswith('services.web.client_auth: "required" needs a rule')


@pytest.mark.parametrize("target", ["127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/x.sock", "127.9.9.9:1"])
def test_a_plaintext_target_on_this_machine_needs_no_word(load: Load, target: str) -> None:
    assert service(load(f"[services.web]\n{SERVER}".replace("127.0.0.1:8080", target))).targets


@pytest.mark.parametrize("target", ["10.0.0.1:80", "app.example.org:80", "[2001:db8::1]:80", "localhost.evil.org:80"])
def test_a_plaintext_target_elsewhere_must_be_called_unsafe(load: Load, target: str) -> None:
    text = f"[services.web]\n{SERVER}".replace("127.0.0.1:8080", target)
    with pytest.raises(ConfigError, match="in plaintext over the network"):
        load(text)
    assert service(load(text + "unsafe_target = true")).unsafe_target


@pytest.mark.parametrize("listen", [":1", "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "systemd:db", "db.example.org:1"])
def test_a_plaintext_listener_for_others_must_be_called_unsafe(load: Load, listen: str) -> None:
    text = f"[services.db]\n{CLIENT}".replace("127.0.0.1:5432", listen)
    with pytest.raises(ConfigError, match="reachable from other machines"):
        load(text)
    assert service(load(text + "unsafe_listen = true")).unsafe_listen


def test_relative_paths_start_at_the_file_not_at_the_current_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(f"[services.web]\n{SERVER}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_file(Path("../tunnel.toml"))
    (files,) = service(config).certificate
    assert files.certificate is not None
    assert files.certificate.is_absolute()
    assert files.certificate.samefile(tmp_path / "server.pem")


def test_a_symlink_to_a_file_is_not_resolved_so_that_it_can_be_swapped(load: Load, tmp_path: Path) -> None:
    (tmp_path / "current.pem").symlink_to("server.pem")
    web = service(load(f"[services.web]\n{SERVER}".replace("server.pem", "current.pem")))
    assert web.certificate[0].certificate == tmp_path / "current.pem"


def test_a_credential_is_a_file_that_systemd_brought(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "web.pem").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "creds"))
    web = service(load(f"[services.web]\n{SERVER}".replace("server.pem", "cred:web.pem")))
    assert web.certificate[0].certificate == tmp_path / "creds" / "web.pem"
    with pytest.raises(FilesError, match="there is no file"):
        load(f"[services.web]\n{SERVER}".replace("server.pem", "cred:other.pem"))


@pytest.mark.parametrize("name", ["..", ".", "a/b", ""])
def test_a_credential_cannot_name_a_file_elsewhere(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match="names no credential"):
        load(f"[services.web]\n{SERVER}".replace("server.pem", f"cred:{name}"))


def test_a_file_that_may_not_be_read_is_the_machines_fault(tmp_path: Path) -> None:
    path = tmp_path / "server.pem"
    path.touch(mode=0)
    user = os.geteuid()
    try:
        if user == 0:  # root reads everything; somebody else cannot even enter the folder
            os.seteuid(65534)
        with pytest.raises(FileTroubleError, match=r"cannot be read \(permission denied\); let "):
            find_file("server.pem", tmp_path)
    finally:
        os.seteuid(user)


def test_credentials_that_systemd_shows_to_the_daemon_alone_are_not_missing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.key").touch(mode=0)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(FileTroubleError, match="cannot be read"):  # in the daemon itself
            find_file("cred:web.key", tmp_path)
        monkeypatch.setenv("MAINPID", "1")
        assert find_file("cred:web.key", tmp_path) == tmp_path / "web.key"
        with pytest.raises(FileTroubleError, match="cannot be read"):  # a file of ours, not a credential
            find_file(str(tmp_path.parent / "web.key"), tmp_path)
    finally:
        os.seteuid(user)
    with pytest.raises(FileTroubleError, match="there is no file"):
        find_file("cred:other.key", tmp_path)
    (tmp_path / "web.key").chmod(0o600)
    assert not is_hidden(tmp_path / "web.key")


def test_a_loop_of_symlinks_is_the_machines_fault(load: Load, tmp_path: Path) -> None:
    (tmp_path / "server.pem").unlink()
    (tmp_path / "server.pem").symlink_to("server.pem")
    with pytest.raises(ConfigError, match="too many levels of symbolic links") as caught:
        load(f"[services.web]\n{SERVER}")
    assert caught.value.exit_code == 1


def test_missing_files_alone_exit_1_and_with_anything_else_2(load: Load) -> None:
    text = f"[services.web]\n{SERVER}".replace("server.pem", "missing.pem")
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert caught.value.exit_code == 1
    with pytest.raises(ConfigError) as caught:
        load(text + "idle_timeout = 5")
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 2


def test_a_configuration_file_that_is_not_there_exits_1(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(tmp_path / "missing.toml")
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith(f"{tmp_path}/missing.toml: cannot be read (no such file or directory); ")


def test_a_named_pipe_does_not_hold_the_loader_up(load: Load, tmp_path: Path) -> None:
    (tmp_path / "server.pem").unlink()
    os.mkfifo(tmp_path / "server.pem")
    assert service(load(f"[services.web]\n{SERVER}")).certificate


def test_a_byte_order_mark_does_no_harm(load: Load) -> None:
    assert service(load("\ufeff[services.web]\n" + SERVER)).name == "web"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (":1", ":1"),
        (":1", "0.0.0.0:1"),
        (":1", "[::]:1"),
        ("localhost:1", "[::1]:1"),
        ("db.example.org:1", "DB.example.org.:1"),
        ("unix:/run/a", "unix:/run/a"),
        ("systemd:a", "systemd:a"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
    ],
)
def test_two_services_cannot_share_an_address(load: Load, first: str, second: str) -> None:
    one, two = (SERVER.replace(":8443", listen) for listen in (first, second))
    with pytest.raises(ConfigError, match=r"services\.b\.listen: .* is listened on by service a already"):
        load(f"[services.a]\n{one}[services.b]\n{two}")


@pytest.mark.parametrize(
    ("first", "second"),
    [(":0", ":0"), ("127.0.0.1:1", "[::1]:1"), (":1", ":2"), ("127.0.0.1:1", "127.0.0.2:1"), ("unix:/a", "unix:/b")],
)
def test_two_services_may_listen_on_different_addresses(load: Load, first: str, second: str) -> None:
    one, two = (SERVER.replace(":8443", listen) for listen in (first, second))
    assert len(load(f"[services.a]\n{one}[services.b]\n{two}").services) == 2


def test_problems_stand_in_the_order_of_the_file(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load('[services.b]\nlisten = 1\nbogus = 2\n[services.a]\nidle_timeout = 5\n[process]\nworkers = "x"\n')
    keys = [problem.split(": ")[0] for problem in problems(caught)]
    assert keys == [
        "services.b.target",
        "services.b.certificate",
        "services.b.listen",
        "services.b.bogus",
        "services.a.listen",
        "services.a.target",
        "services.a.certificate",
        "services.a.idle_timeout",
        "process.workers",
    ]


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


def test_the_lists_of_who_may_connect_from_where_are_networks(load: Load) -> None:
    web = service(
        load(
            f"""[services.web]
{SERVER}allow_from = ["192.0.2.0/24", "2001:DB8::/32", "10.0.0.7"]
deny_from = "192.0.2.0/255.255.255.128"
accept_proxy_protocol = true
proxy_trusted = "10.0.0.0/8"
"""
        )
    )
    assert [str(network) for network in web.allow_from] == ["192.0.2.0/24", "2001:db8::/32", "10.0.0.7/32"]
    assert [str(network) for network in web.deny_from] == ["192.0.2.0/25"]
    assert [str(network) for network in web.proxy_trusted] == ["10.0.0.0/8"]


@given(st.one_of(st.ip_addresses(network="0.0.0.0/0"), st.ip_addresses(v=6)), st.integers(min_value=0, max_value=128))
def test_what_is_accepted_as_a_network_admits_what_was_written_and_nothing_nobody_meant(
    address: IPv4Address | IPv6Address, prefix: int
) -> None:
    prefix = min(prefix, address.max_prefixlen)
    try:
        network = parse_network(f"{address}/{prefix}")
    except ValueError:
        return  # its wordings are in the golden files
    assert network.network_address == address
    assert network.prefixlen == prefix


def test_a_response_file_alone_says_that_it_is_stapled(load: Load) -> None:
    web = service(load(f'[services.web]\n{SERVER}ocsp_response = ["a.crl", "b.crl"]'))
    assert (web.ocsp_staple, [path.name for path in web.ocsp_response]) == (OCSPStaple.FILE, ["a.crl", "b.crl"])


def test_a_folder_nobody_may_write_to_is_the_machines_fault(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(FilesError, match="nothing can be written to "):
        load(f'[services.web]\n{SERVER}ocsp_staple = "auto"\nocsp_cache = "."')


def test_passthrough_needs_no_target_of_its_own_where_unknown_names_are_refused(load: Load) -> None:
    text = """[services.router]
mode = "passthrough"
listen = ":443"
sni_mismatch = "reject"
sni = [{ names = "a.example.org", target = "10.0.0.8:443" }]
"""
    router = service(load(text))
    assert (router.targets, router.sni_mismatch) == ((), SNIMismatch.REJECT)


def test_a_name_without_a_certificate_of_its_own_shows_that_of_the_service(load: Load) -> None:
    web = service(load(f'[services.web]\n{SERVER}sni = [{{ names = "a.example.org", target = "127.0.0.1:1" }}]'))
    assert web.sni[0].certificate == web.certificate
    assert web.sni[0].targets == (TCPAddress("127.0.0.1", 1),)


@pytest.mark.parametrize(
    ("second", "is_good"),
    [
        ('certificate = "api.pem"', True),
        ('certificate = "rsa.pem"', False),
        ('certificate = "api.pem"\ntarget = "127.0.0.1:2"', False),
        ('certificate = "api.pem"\nmin_version = "1.3"', False),
    ],
)
def test_two_entries_share_a_name_only_where_they_differ_in_nothing_but_the_certificate(
    load: Load, second: str, is_good: bool
) -> None:
    entry = '[[services.web.sni]]\nnames = ["a.example.org"]\n'
    text = f'[services.web]\n{SERVER}{entry}certificate = "rsa.pem"\n{entry}{second}\n'
    if is_good:
        assert len(service(load(text)).sni) == 2
        return
    with pytest.raises(ConfigError, match="already routed above"):
        load(text)


def test_clients_without_a_certificate_may_go_elsewhere(load: Load) -> None:
    trust = 'client_auth = "optional"\nclient_ca = "ca.pem"\nallow_cn = "a"\n'
    web = service(load(f'[services.web]\n{SERVER}{trust}fallback_target = ["127.0.0.1:1", "unix:/run/b"]'))
    assert web.fallback_target == (TCPAddress("127.0.0.1", 1), UnixAddress("/run/b"))
    assert web.policy.anonymous


@pytest.mark.parametrize(
    ("keys", "is_good"),
    [
        ('listen = ":9464"', False),
        ('listen = ":9464"\ncertificate = "server.pem"', False),
        ('listen = ":9464"\ncertificate = "server.pem"\nclient_ca = "ca.pem"', True),
        ('listen = ":9464"\ncertificate = "server.pem"\nunsafe_admin = true', True),
        ('listen = "127.0.0.1:9464"\ncertificate = "server.pem"\nkey = "server.key"', True),
        ('listen = "unix:/run/admin"\nclient_ca = "ca.pem"', False),
        ('certificate = "server.pem"', False),
    ],
)
def test_an_admin_endpoint_that_others_reach_knows_who_looks(load: Load, keys: str, is_good: bool) -> None:
    text = f"[admin]\n{keys}\n[services.web]\n{SERVER}"
    if is_good:
        assert load(text).admin.listen is not None
        return
    with pytest.raises(ConfigError):
        load(text)
