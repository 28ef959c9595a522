"""What `show` prints is complete, and is read back as the same configuration."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest

from tlstunnel.access.policy import Policy, Rule
from tlstunnel.address import parse_listen, parse_target
from tlstunnel.config.effective import render_config
from tlstunnel.config.load import load_file
from tlstunnel.config.model import (
    Admin,
    ALPNMismatch,
    CertificateFiles,
    ClientAuth,
    Config,
    CRLExpired,
    Failover,
    Keepalive,
    Log,
    Mode,
    OCSPStaple,
    Process,
    ProxyProtocol,
    Rate,
    ServerName,
    Service,
    SNIMismatch,
    StartTLS,
    TargetTLS,
    Timeouts,
    TLSSettings,
)

TIMES = Timeouts(
    handshake_s=0.5, connect_s=math.inf, idle_s=90.0, half_close_s=7200.0, drain_s=0.0, max_lifetime_s=86400.0
)
TLS = TLSSettings(
    min_version="1.3", ciphers="A:B", ciphersuites="C", groups="D", alpn=("h2", 'odd "name"'), alpn_required=True
)
SERVER_TLS = dataclasses.replace(TLS, alpn_mismatch=ALPNMismatch.IGNORE)
PIN = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
POLICY = Policy(
    allow=(Rule(cn='a "quoted" name'), Rule(ou="ops", uri="spiffe://example.org/ns/*/x"), Rule(spki_pin=PIN)),
    deny=(Rule(email="mallory@example.org"), Rule(ip="192.0.2.0/24"), Rule(dns="*.example.org")),
    anonymous=False,
)


def everything(folder: Path) -> Config:
    """A configuration in which nothing is as by default."""

    def file(name: str) -> Path:
        (folder / name).touch()
        return folder / name

    pairs = tuple(
        CertificateFiles(
            certificate=file(f"{name}.pem"), key=file(f"{name}.key"), key_passphrase_file=file(f"{name}.pass")
        )
        for name in ("ecdsa", "rsa")
    )
    limits = {
        "max_connections": 10,
        "max_connections_per_ip": 2,
        "connection_rate_per_ip": Rate(count=20.0, per_s=1.0, burst=50.0),
        "handshake_rate": Rate(count=100.0, per_s=60.0, burst=100.0),
        "allow_from": (IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::7/128")),
        "deny_from": (IPv4Network("192.0.2.7/32"),),
        "crl_expired": CRLExpired.WARNING,
    }
    own_backend = TargetTLS(
        ca=file("ca.pem"),
        server_name="db.example.org",
        verify=Policy(allow=(Rule(cn="db"), Rule(ou="x", dns="db.example.org"))),
        certificate=CertificateFiles(p12=file("own.p12"), key_passphrase_file=file("own.pass")),
        crl=(file("a.crl"), file("b.crl")),
        tls=TLS,
    )
    server = Service(
        name="web.1",
        mode=Mode.SERVER,
        listen=tuple(map(parse_listen, (":8443", "[::1]:0", "unix:/run/a b.sock", "systemd:web"))),
        targets=tuple(map(parse_target, ("app.example.org:1", "unix:/run/b.sock"))),
        unix_mode=0o600,
        failover=Failover.ROUND_ROBIN,
        proxy_tlvs=False,
        source_address="127.0.0.9",
        ocsp_staple=OCSPStaple.AUTO,
        ocsp_cache=folder,
        sni_mismatch=SNIMismatch.REJECT,
        http_hint=False,
        certificate=pairs,
        client_auth=ClientAuth.OPTIONAL,
        client_ca=file("clients-ca.pem"),
        crl=(file("c.crl"),),
        policy=POLICY,
        tls=SERVER_TLS,
        sni=(
            ServerName(
                names=("a.example.org", "*.a.example.org"),
                certificate=pairs[:1],
                targets=(parse_target("127.0.0.1:2"),),
                policy=Policy(allow_any=True),
                tls=TLSSettings(),
            ),
        ),
        target_tls=own_backend,
        timeouts=TIMES,
        proxy_protocol=ProxyProtocol.V2,
        accept_proxy_protocol=True,
        proxy_trusted=(),
        strict_close=True,
        unsafe_target=True,
        unsafe_keylog=True,
        **limits,
    )
    client = Service(
        name="db",
        mode=Mode.CLIENT,
        listen=(parse_listen(":5432"),),
        targets=(parse_target("db.example.org:5433"),),
        target_tls=own_backend,
        timeouts=TIMES,
        keepalive=Keepalive(idle_s=7200, interval_s=75, count=9),
        starttls=StartTLS.POSTGRES,
        unsafe_listen=True,
        **limits,
    )
    router = Service(
        name="router",
        mode=Mode.PASSTHROUGH,
        listen=(parse_listen(":443"),),
        targets=(parse_target("10.0.0.7:443"),),
        keepalive=None,
        sni=(
            ServerName(
                names=("b.example.org",),
                certificate=(),
                targets=(parse_target("10.0.0.8:443"),),
                policy=Policy(),
                tls=TLSSettings(),
            ),
        ),
    )
    stapled = Service(
        name="stapled",
        mode=Mode.SERVER,
        listen=(parse_listen(":444"),),
        targets=(parse_target("[::1]:1"),),
        fallback_target=tuple(map(parse_target, ("[::1]:3", "unix:/run/fallback.sock"))),
        client_auth=ClientAuth.OPTIONAL,
        client_ca=file("ca.pem"),
        policy=Policy(allow=(Rule(cn="a"),)),
        source_address="::1",
        certificate=pairs,
        ocsp_staple=OCSPStaple.FILE,
        ocsp_response=(file("ecdsa.ocsp"), file("rsa.ocsp")),
        accept_proxy_protocol=True,
        proxy_trusted=(IPv4Network("10.0.0.0/8"),),
    )
    mail = Service(
        name="mail",
        mode=Mode.SERVER,
        listen=(parse_listen(":25"),),
        targets=(parse_target("127.0.0.1:25"),),
        certificate=pairs,
        starttls=StartTLS.SMTP,
        starttls_required=False,
    )
    strict = dataclasses.replace(
        router, name="strict", listen=(parse_listen(":445"),), targets=(), sni_mismatch=SNIMismatch.REJECT
    )
    return Config(
        services=(server, client, router, stapled, mail, strict),
        process=Process(workers=3, user="tls", group="tls", max_connections=100, reload_poll_s=math.inf),
        admin=Admin(
            listen=parse_listen(":9464"),
            certificate=file("admin.pem"),
            key=file("admin.key"),
            client_ca=file("ca.pem"),
            unsafe_admin=True,
        ),
        log=Log(format="json", level="debug", target=f"file:{folder}/tunnel.log"),
    )


def test_a_configuration_without_defaults_is_read_back_as_the_same(tmp_path: Path) -> None:
    config = everything(tmp_path)
    path = tmp_path / "shown.toml"
    path.write_text(render_config(config))
    assert dataclasses.replace(load_file(path), source=config.source) == config


def test_in_that_configuration_every_key_is_used_by_some_service(tmp_path: Path) -> None:
    config = everything(tmp_path)
    ours = {"name", "mode", "listen", "targets", "target_tls", "timeouts", "policy", "tls", "sni", "certificate"}
    for field in dataclasses.fields(Service):
        default = Service.__dataclass_fields__[field.name].default
        assert field.name in ours or any(getattr(service, field.name) != default for service in config.services)


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / "server.pem").touch()
    path = tmp_path / "tunnel.toml"
    path.write_text('[services.web]\nlisten = ":1"\ntarget = "127.0.0.1:2"\ncertificate = "server.pem"\n')
    web = tomllib.loads(render_config(load_file(path)))["services"]["web"]
    assert web["certificate"] == f"{tmp_path}/server.pem"
    assert (web["idle_timeout"], web["max_lifetime"], web["max_connections"]) == ("1h", "never", "unlimited")
    assert (web["client_auth"], web["target_tls"], web["unsafe_target"]) == ("none", False, False)


@pytest.mark.parametrize("empty", ["ciphers", "ciphersuites", "groups"])
def test_what_an_empty_list_stands_for_is_said_in_a_comment(tmp_path: Path, empty: str) -> None:
    text = render_config(everything(tmp_path), {empty: "ONE:TWO"})
    assert f'{empty} = ""  # ONE:TWO\n' in text
    assert tomllib.loads(text) == tomllib.loads(render_config(everything(tmp_path)))
