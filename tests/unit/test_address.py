"""Addresses: what each form means, what is refused, and that what is printed is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlstunnel.address import (
    MAX_UNIX_PATH,
    AddressError,
    SystemdAddress,
    TCPAddress,
    UnixAddress,
    parse_listen,
    parse_target,
)

BOTH = {
    "127.0.0.1:80": TCPAddress("127.0.0.1", 80),
    "[::1]:80": TCPAddress("::1", 80),
    "[fe80::1%eth0]:80": TCPAddress("fe80::1%eth0", 80),
    "db.example.org:5433": TCPAddress("db.example.org", 5433),
    "db.example.org.:5433": TCPAddress("db.example.org.", 5433),
    "x" * 63 + "." + "x." * 94 + "x:1": TCPAddress("x" * 63 + "." + "x." * 94 + "x", 1),
    "_service.example:1": TCPAddress("_service.example", 1),
    "x" * 63 + ".example:1": TCPAddress("x" * 63 + ".example", 1),
    ("x" * 61 + ".") * 4 + "examp.:1": TCPAddress(("x" * 61 + ".") * 4 + "examp.", 1),
    "r3---sn-4g5.example:1": TCPAddress("r3---sn-4g5.example", 1),
    "1a:1": TCPAddress("1a", 1),
    "[fe80::1%4294967295]:80": TCPAddress("fe80::1%4294967295", 80),
    "[fe80::1%br-1f0c2d3e.42]:80": TCPAddress("fe80::1%br-1f0c2d3e.42", 80),
    "localhost:65535": TCPAddress("localhost", 65535),
    "unix:/run/a b.sock": UnixAddress("/run/a b.sock"),
}
LISTEN_ONLY = {
    ":8443": TCPAddress("", 8443),
    ":0": TCPAddress("", 0),
    "127.0.0.1:0": TCPAddress("127.0.0.1", 0),
    "systemd:https": SystemdAddress("https"),
}
REFUSED = [
    "",
    ":",
    "80",
    "host",
    "host:",
    "host:http",
    "host:-1",
    "host:+1",
    "host: 1",
    "host:65536",
    "host:000001",
    "host:٨٠",
    "::1:80",
    "[::1]",
    "[127.0.0.1]:80",
    "[fe80::1%]:80",
    "[]:80",
    "1.2.3:80",
    "300.1.1.1:80",
    "-host:80",
    "host-:80",
    "a..b:80",
    "a b:80",
    "http://host:80",
    "http://http://host:80",
    "://host:80",
    "/run/a.sock",
    "/run/a:80",
    "host/path:80",
    "[::1",
    "[::1]80",
    "[]",
    "x" * 254 + ":80",
    "x" * 64 + ".example:80",
    "x." * 126 + "xx:80",
    "host..:80",
    ".:80",
    ".host:80",
    "host\t:80",
    "host\N{NO-BREAK SPACE}:80",
    " host:80",
    "host:80\n",
    "x" * 64 + ":80",
    "host." + "x" * 64 + ":80",
    ("x" * 63 + ".") * 4 + "com:80",
    ".example:80",
    "host.example..:80",
    "1.:80",
    "127.1:80",
    "0x7f.0.0.1:80",
    "0x7f000001:80",
    "host.0x1:80",
    "b\u00fccher.example:80",
    "\u212a.example:80",
    "a\0b:80",
    "a\x1bb:80",
    "a\nb:80",
    "a\u00a0b:80",
    "a,b:80",
    "a@b:80",
    "a%b:80",
    "[fe80::1]:80",
    "[fe80::1%a\0b]:80",
    "[fe80::1%a b]:80",
    "[fe80::1%a/b]:80",
    "[fe80::1%..]:80",
    "[fe80::1%0]:80",
    "[fe80::1%4294967296]:80",
    "[fe80::1%\u0663]:80",
    "[fe80::1%sixteencharacters]:80",
    "unix:",
    "unix:relative",
    "unix:@abstract",
    "unix:/a\0b",
    "unix:/" + "x" * MAX_UNIX_PATH,
    "systemd:",
    "systemd:a:b",
    "systemd:a b",
]


@pytest.mark.parametrize(("text", "address"), BOTH.items())
def test_a_form_for_both_sides_is_read(text: str, address: object) -> None:
    assert parse_listen(text) == parse_target(text) == address


@pytest.mark.parametrize(("text", "address"), LISTEN_ONLY.items())
def test_a_form_to_listen_on_is_no_target(text: str, address: object) -> None:
    assert parse_listen(text) == address
    with pytest.raises(AddressError, match="; "):
        parse_target(text)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_address_is_refused_on_both_sides(text: str) -> None:
    for parse in (parse_listen, parse_target):
        with pytest.raises(AddressError):
            parse(text)


SAID = {
    "http://host:1": '"http://..." is a URL; write its host and port alone, "host:1"',
    "https://host/a:b?c#d": '"https://..." is a URL; write its host and port alone, "host:443"',
    "HTTP://[::1]": '"HTTP://..." is a URL; write its host and port alone, "[::1]:80"',
    "redis://host": '"redis://..." is a URL; write HOST:PORT, [V6]:PORT or unix:/path',
    "[::1]": '"[::1]" has no port; write HOST:PORT, [V6]:PORT or unix:/path',
    "[::1]80": '"[::1]80" is not [V6]:PORT; write HOST:PORT, [V6]:PORT or unix:/path',
    "::1:80": '"::1:80" is ambiguous; put an IPv6 address in brackets: [V6]:PORT',
    "8080": '"8080" has no host; write HOST:PORT, [V6]:PORT or unix:/path, such as "127.0.0.1:8080"',
    "host": '"host" has no port; write HOST:PORT, [V6]:PORT or unix:/path',
    "mydb.cluster-c9akciq32rgw.eu-central-1.rds.amazonaws.com :5432": (
        '"mydb.cluster-c9akciq32rgw.eu-central-1.rds.amazonaws.com :5432" has a blank in it; '
        "write HOST:PORT, [V6]:PORT or unix:/path without"
    ),
    "a" * 70 + ".example:80": f'"{"a" * 70}.example" has a label of 70 characters, and DNS allows 63',
    "a." * 150 + "example:80": f'"{"a." * 38}a..." has 307 characters, and DNS allows 253',
    "b\u00fccher.example:80": '"b\u00fccher.example" is not ASCII; write the name in its xn-- form',
    "host..:80": '"host.." is neither an IP address nor a host name; write HOST:PORT, [V6]:PORT or unix:/path',
    "[fe80::1]:80": '"fe80::1" is on each link another machine; name the interface: [fe80::1%eth0]',
    "[fe80::1%a/b]:80": '"fe80::1%a/b" names no interface behind the "%"; write one such as [fe80::1%eth0]',
    "/run/a.sock": '"/run/a.sock" is a path; write "unix:/run/a.sock" for the socket there',
}


@pytest.mark.parametrize(("text", "said"), SAID.items())
def test_a_refusal_says_what_the_text_is_and_what_to_write(text: str, said: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_target(text)
    assert str(caught.value) == said


@pytest.mark.parametrize("host", ["db.example.org:5432", "db.example.org :5432"])
def test_the_password_of_a_url_is_not_repeated(host: str) -> None:
    for parse in (parse_listen, parse_target):
        with pytest.raises(AddressError) as caught:
            parse(f"postgres://user:pa/ss@w0rd@{host}/orders")
        assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize("text", [*BOTH, *LISTEN_ONLY])
def test_an_address_is_printed_as_it_is_read(text: str) -> None:
    assert str(parse_listen(text)) == text


def test_the_path_of_a_unix_socket_may_be_relative_to_a_folder() -> None:
    base = Path("/etc/tlstunnel")
    for parse in (parse_listen, parse_target):
        assert parse("unix:u.sock", base) == UnixAddress("/etc/tlstunnel/u.sock")
        assert parse("unix:/run/u.sock", base) == UnixAddress("/run/u.sock")
        for text in ("unix:", "unix:@abstract", "unix:a\0b", "unix:" + "x" * MAX_UNIX_PATH):
            with pytest.raises(AddressError):
                parse(text, base)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for parse in (parse_listen, parse_target):
        try:
            address = parse(text)
        except AddressError:
            continue
        assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["127.0.0.1:1", "127.255.0.1:1", "[::1]:1", "localhost:1", "LOCALHOST.:1", "a.localhost:1", "unix:/a"]
)
def test_what_stays_on_this_machine_is_loopback(text: str) -> None:
    assert parse_listen(text).is_loopback


@pytest.mark.parametrize(
    "text", [":1", "0.0.0.0:1", "[::]:1", "10.0.0.1:1", "localhost.example.org:1", "notlocalhost:1", "systemd:a"]
)
def test_what_may_leave_this_machine_is_not(text: str) -> None:
    assert not parse_listen(text).is_loopback


@pytest.mark.parametrize(
    ("text", "is_literal"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("host:1", False), (":1", False), ("unix:/a", True)],
)
def test_only_names_have_to_be_resolved(text: str, is_literal: bool) -> None:
    address = parse_listen(text)
    assert not isinstance(address, SystemdAddress)
    assert address.is_literal is is_literal
