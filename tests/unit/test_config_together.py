"""All problems at once: of any two faults in one file, both are reported, unless one says nothing without the other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.config_texts import Load, loader
from tlstunnel.config.source import render
from tlstunnel.errors import ConfigError

BASE: dict[str, object] = {
    "process.workers": 2,
    "admin.listen": "127.0.0.1:9464",
    "log.format": "json",
    "services.web.listen": "127.0.0.1:8443",
    "services.web.target": "127.0.0.1:8080",
    "services.web.certificate": "server.pem",
    "services.web.key": "server.key",
    "services.web.client_auth": "required",
    "services.web.client_ca": "clients-ca.pem",
    "services.web.allow_cn": "billing",
    "services.web.accept_proxy_protocol": True,
    "services.out.mode": "client",
    "services.out.listen": "127.0.0.1:5432",
    "services.out.target": "db.example.org:5433",
    "services.by.mode": "passthrough",
    "services.by.listen": "127.0.0.1:8444",
    "services.by.target": "127.0.0.1:8445",
}


@dataclass(frozen=True)
class Fault:
    """What is written otherwise (None: not at all), and the place that a message must name."""

    where: str
    changes: tuple[tuple[str, object], ...]


def fault(key: str, value: object, where: str = "", **more: object) -> Fault:
    return Fault(where or key, ((key, value), *((name.replace("__", "."), each) for name, each in more.items())))


FAULTS = (
    fault("proces.workers", 1, "proces"),
    fault("process.workers", "many"),
    fault("process.usr", "nobody"),
    fault("process.user", " nobody"),
    fault("process.reload_poll", 5),
    fault("process.max_connections", 0),
    fault("admin.listen", ":9464"),
    fault("admin.listn", ":9464"),
    fault("admin.certificate", "none.pem"),
    fault("admin.key", "server.key", "admin.certificate"),
    fault("admin.unsafe_admin", "yes"),
    fault("log.format", "xml"),
    fault("log.level", "loud"),
    fault("log.target", "journal"),
    fault("log.colour", True),
    fault("services.web.mode", "servr"),
    fault("services.web.mode", "proxy"),
    fault("services.web.listen", None),
    fault("services.web.listen", "8443"),
    fault("services.web.listen", "127.0.0.1:5432"),
    fault("services.web.target", None),
    fault("services.web.target", "127.0.0.1"),
    fault("services.web.target", "10.0.0.1:80"),
    fault("services.web.certficate", "server.pem"),
    fault("services.web.certificate", "none.pem"),
    fault("services.web.certificate", None),
    fault("services.web.key", "none.key"),
    fault("services.web.key", 5),
    fault("services.web.p12", "bundle.p12", "services.web.certificate"),
    fault("services.web.key_passphrase_file", "none.txt"),
    fault("services.web.client_auth", "maybe"),
    fault("services.web.client_ca", None),
    fault("services.web.client_ca", "none.pem"),
    fault("services.web.allow_cn", "*"),
    fault("services.web.allow_dns", "a b"),
    fault("services.web.allow", [{"cm": "x"}], "services.web.allow[0].cm"),
    fault("services.web.deny", [{"uri": "x"}], "services.web.deny[0].uri"),
    fault("services.web.anonymous", "no"),
    fault("services.web.crl", "none.crl"),
    fault("services.web.crl_expired", "ignore"),
    fault("services.web.min_version", "1.1"),
    fault("services.web.max_version", "1.4"),
    fault("services.web.alpn", "é"),
    fault("services.web.alpn_required", 1),
    fault("services.web.idle_timeout", "5"),
    fault("services.web.handshake_timeout", 5),
    fault("services.web.max_connections", -1),
    fault("services.web.handshake_rate", "20"),
    fault("services.web.allow_from", "10.0.0.1/8"),
    fault("services.web.deny_from", "host"),
    fault("services.web.proxy_protocol", "v3"),
    fault("services.web.proxy_trusted", "host"),
    fault("services.web.proxy_tlvs", True),
    fault("services.web.unix_mode", "0660"),
    fault("services.web.source_address", "host"),
    fault("services.web.fallback_target", "host"),
    fault("services.web.ocsp_staple", "yes"),
    fault("services.web.ocsp_cache", "nowhere"),
    fault("services.web.sni_mismatch", "drop"),
    fault("services.web.http_hint", "no"),
    fault("services.web.starttls", "ftp"),
    fault("services.web.starttls_required", False),
    fault("services.web.strict_close", 0),
    fault("services.web.failover", "random"),
    fault("services.web.target_tls", {"ca": "none.pem"}, "services.web.target_tls.ca"),
    fault("services.web.sni", [{"names": ["a_b..c"]}], "services.web.sni[0].names[0]"),
    fault("services.web.sni", [{"names": ["a.example"], "targt": "x"}], "services.web.sni[0].targt"),
    fault("services.out.mode", "clint"),
    fault("services.out.listen", ":5432"),
    fault("services.out.target", "db"),
    fault("services.out.ca", "none.pem"),
    fault("services.out.server_name", "*.a"),
    fault("services.out.client_ca", "ca.pem"),
    fault("services.out.verify_cn", "*"),
    fault("services.out.crl_expired", "error"),
    fault("services.out.min_version", "2"),
    fault("services.by.mode", "pass"),
    fault("services.by.sni_mismatch", "maybe"),
    fault("services.by.certificate", "server.pem"),
    fault("services.by.sni", [{"names": ["a.example"]}], "services.by.sni[0].target"),
    fault("services.by.nonsense", 1),
    fault("services.b/d.listen", ":1", 'services."b/d"'),
    fault("nonsense", 1),
)


def text_of(*faults: Fault) -> str:
    """The base with these faults in it."""
    written = {**BASE, **dict(change for each in faults for change in each.changes)}
    tables: dict[tuple[str, ...], list[str]] = {}
    for path, value in written.items():
        if value is not None:
            *table, key = path.split(".")
            tables.setdefault(tuple(table), []).append(f"{key} = {render(value)}")
    text = ""
    for steps, lines in sorted(tables.items()):
        header = ".".join(f'"{step}"' for step in steps)
        text += (f"[{header}]\n" if steps else "") + "\n".join(lines) + "\n"
    return text


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(tmp_path, monkeypatch)


def places(load: Load, text: str) -> set[str]:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return {str(problem.where).partition(": ")[2] for problem in caught.value.problems}


def test_the_base_is_without_a_fault(load: Load) -> None:
    load(text_of())


@pytest.mark.parametrize("one", FAULTS, ids=str)
def test_each_fault_is_reported_alone(load: Load, one: Fault) -> None:
    assert one.where in places(load, text_of(one))


def is_contradiction(one: Fault, other: Fault) -> bool:
    """Whether two faults are about one key, or one changes what the other is measured by."""
    ours, theirs = {key for key, _ in one.changes}, {key for key, _ in other.changes}
    if ours & theirs or one.where == other.where:
        return True
    return any((first.where, second.where) in DEPENDENT for first, second in ((one, other), (other, one)))


# What the first is about cannot be judged while the second, on which it depends, is wrong.
DEPENDENT = {
    # Whether it must be there, or may be, depends on the mode, which nobody can guess.
    ("services.web.target", "services.web.mode"),
    ("services.web.certificate", "services.web.mode"),
    ("services.web.client_ca", "services.web.mode"),
    ("services.by.certificate", "services.by.mode"),
    ("services.web.listen", "services.out.listen"),  # one is what the other collides with
    ("services.web.target", "services.web.target_tls.ca"),  # no plaintext goes there
    ("services.web.certificate", "services.web.certficate"),  # misspelt, so not missing
    ("services.web.client_ca", "services.web.client_auth"),
    ("services.web.proxy_tlvs", "services.web.proxy_protocol"),
    ("services.web.starttls_required", "services.web.starttls"),
}


def test_of_any_two_faults_in_one_file_both_are_reported(load: Load) -> None:
    missed = []
    for one, other in itertools.combinations(FAULTS, 2):
        if not is_contradiction(one, other):
            found = places(load, text_of(one, other))
            missed += [
                f"{each.changes} beside {second.changes}"
                for each, second in ((one, other), (other, one))
                if each.where not in found
            ]
    assert missed == []
