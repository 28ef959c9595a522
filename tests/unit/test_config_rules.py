"""The rules that decide whether a configuration is valid: access, plaintext, addresses, names; wordings are golden."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.config_texts import CLIENT, SERVER, Load, loader, service
from tlstunnel.config.model import (
    SNIMismatch,
)
from tlstunnel.config.parsers import parse_network
from tlstunnel.errors import ConfigError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(tmp_path, monkeypatch)


def problems(caught: pytest.ExceptionInfo[ConfigError]) -> list[str]:
    return [str(problem).partition(": ")[2] for problem in caught.value.problems]


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


@pytest.mark.parametrize("listen", [":1", "0.0.0.0:1", "[::]:1", "192.0.2.1:1", "db.example.org:1"])
def test_a_plaintext_listener_for_others_must_be_called_unsafe(load: Load, listen: str) -> None:
    text = f"[services.db]\n{CLIENT}".replace("127.0.0.1:5432", listen)
    with pytest.raises(ConfigError, match="reachable from other machines"):
        load(text)
    assert service(load(text + "unsafe_listen = true")).unsafe_listen


def test_where_a_descriptor_is_bound_is_not_known_before_the_start(load: Load) -> None:
    text = f'[admin]\nlisten = "systemd:admin"\n[services.db]\n{CLIENT}'.replace("127.0.0.1:5432", "systemd:db")
    assert not service(load(text)).unsafe_listen


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


def test_passthrough_needs_no_target_of_its_own_where_unknown_names_are_refused(load: Load) -> None:
    text = """[services.router]
mode = "passthrough"
listen = ":443"
sni_mismatch = "reject"
sni = [{ names = "a.example.org", target = "10.0.0.8:443" }]
"""
    router = service(load(text))
    assert (router.targets, router.sni_mismatch) == ((), SNIMismatch.REJECT)


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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('certificate = "none-1.pem"', 'certificate = "none-2.pem"'),
        ('certificate = "api.pem"', 'certificate = "none.pem"'),
        ('certificate = "api.pem"', 'certificate = "rsa.pem"\ntarget = "nowhere"'),
        ('certificate = "api.pem"', 'certficate = "rsa.pem"'),
    ],
)
def test_entries_with_certificates_of_their_own_are_no_doublets_while_one_is_wrong(
    load: Load, first: str, second: str
) -> None:
    entry = '[[services.web.sni]]\nnames = ["a.example.org"]\n'
    with pytest.raises(ConfigError) as caught:
        load(f"[services.web]\n{SERVER}{entry}{first}\n{entry}{second}\n")
    assert "already routed" not in str(caught.value)


def test_entries_without_certificates_are_doublets_also_while_one_is_wrong(load: Load) -> None:
    entry = '[[services.web.sni]]\nnames = ["a.example.org"]\n'
    with pytest.raises(ConfigError, match="already routed above"):
        load(f'[services.web]\n{SERVER}{entry}{entry}target = "nowhere"\n')


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
