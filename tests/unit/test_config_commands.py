"""`run`, `check`, `show`, `server` and `client` as a user calls them; the supervisor behind them only takes notes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import certificates
from tlstunnel.cli import app
from tlstunnel.cli import run as run_module
from tlstunnel.config.keys import Key, options_of
from tlstunnel.config.load import load_file
from tlstunnel.config.model import ClientAuth, Config, Mode

PASSPHRASE = "correct horse battery"
PIN = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
SERVER = ["--listen", ":0", "--target", "127.0.0.1:8080"]
CLIENT = ["--listen", "127.0.0.1:0", "--target", "db.example.org:5433"]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str
    started: list[Config]


Command = Callable[..., Done]


@pytest.fixture
def tlstunnel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Runs the command line in a folder of its own. The supervisor is a fake that ends at once with status 7."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca().certificate))

    def run(*words: str) -> Done:
        started: list[Config] = []

        def launch(config: Config) -> None:
            started.append(config)
            sys.exit(7)

        monkeypatch.setattr("tlstunnel.daemon.processes.launch.launch", launch)
        monkeypatch.setattr(sys, "argv", ["tlstunnel", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        code = ended.value.code
        out, err = capsys.readouterr()
        return Done(code if isinstance(code, int) else 0, out, err, started)

    return run


@pytest.fixture
def pair() -> certificates.Pair:
    return certificates.server("localhost")


def config_file(text: str, name: str = "tunnel.toml") -> str:
    Path(name).write_text(text)
    return name


def service(pair: certificates.Pair, more: str = "", name: str = "web") -> str:
    return (
        f'[services.{name}]\nlisten = ":0"\ntarget = "127.0.0.1:8080"\n'
        f'certificate = "{pair.certificate}"\nkey = "{pair.key}"\n{more}\n'
    )


def test_run_hands_the_configuration_over_and_ends_with_the_supervisors_status(
    tlstunnel: Command, pair: certificates.Pair
) -> None:
    done = tlstunnel("run", config_file(service(pair)))
    assert done.code == 7
    assert done.started == [load_file(Path("tunnel.toml"))]


def test_server_and_client_hand_over_what_their_options_say(tlstunnel: Command, pair: certificates.Pair) -> None:
    server = tlstunnel("server", *SERVER, "--cert", str(pair.certificate), "--key", str(pair.key))
    (config,) = server.started
    assert (server.code, config.source, config.services[0].mode) == (7, "command line", Mode.SERVER)
    client = tlstunnel("client", *CLIENT, "--ca", str(certificates.ca().certificate))
    assert client.started[0].services[0].mode is Mode.CLIENT


@pytest.mark.parametrize(
    "words",
    [("run", "broken.toml"), ("check", "broken.toml"), ("show", "broken.toml"), ("server", "--idle-timeout", "5")],
)
def test_what_is_refused_is_not_started_and_gets_a_line_for_each_problem(
    tlstunnel: Command, words: tuple[str, ...]
) -> None:
    config_file("[services.web]\nidle_timeout = 5\n", "broken.toml")
    done = tlstunnel(*words)
    lines = done.err.splitlines()
    assert (done.code, done.out, done.started) == (2, "", [])
    assert len(lines) == 4
    assert all(line.startswith(("tlstunnel: broken.toml: services.web.", "tlstunnel: --")) for line in lines)


@pytest.mark.parametrize("command", ["run", "check", "show"])
def test_a_configuration_file_that_is_not_there_exits_1(tlstunnel: Command, command: str) -> None:
    done = tlstunnel(command, "missing.toml")
    assert (done.code, done.started) == (1, [])
    assert done.err.startswith("tlstunnel: missing.toml: does not exist; check the path")


@pytest.mark.parametrize("command", ["run", "check", "show"])
def test_who_names_no_file_and_has_none_at_the_usual_place_is_told_to_name_one(
    tlstunnel: Command, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(run_module, "_USUAL", "usual.toml")
    done = tlstunnel(command, "usual.toml")
    assert (done.code, done.started) == (1, [])
    assert done.err == "tlstunnel: usual.toml: does not exist; write it, or name the file, such as tunnel.toml\n"


def test_check_says_ok_when_everything_can_be_used(tlstunnel: Command, pair: certificates.Pair) -> None:
    done = tlstunnel("check", config_file(service(pair)))
    assert (done.code, done.out, done.err) == (0, "configuration OK\n", "")


def test_check_warns_of_an_expired_certificate_with_its_date(tlstunnel: Command) -> None:
    expired = certificates.expired("localhost")
    done = tlstunnel("check", config_file(service(expired)))
    warning, ok = done.out.splitlines()
    assert (done.code, ok) == (0, "configuration OK")
    assert warning.startswith(f"warning: {expired.certificate}: expired on {expired.leaf.not_valid_after_utc:%Y-%m-%d}")


def test_check_names_the_certificate_whose_key_does_not_match(tlstunnel: Command, pair: certificates.Pair) -> None:
    other = certificates.server("other.example.org")
    text = (
        f'[services.web]\nlisten = ":0"\ntarget = "127.0.0.1:8080"\n'
        f'certificate = ["{pair.certificate}", "{pair.certificate}"]\nkey = ["{pair.key}", "{other.key}"]\n'
    )
    done = tlstunnel("check", config_file(text))
    assert done.code == 2
    assert done.err.startswith(f"tlstunnel: tunnel.toml: services.web.key[1]: {other.key}: the private key")


def test_check_reports_text_files_and_settings_together(tlstunnel: Command, pair: certificates.Pair) -> None:
    text = (
        service(pair, "idle_timeout = 5", "text")
        + service(pair, 'ciphers = "NOPE"\ngroups = "P-999"\nciphersuites = "NOPE"', "settings")
        + service(pair, f'client_auth = "required"\nallow_any = true\nclient_ca = "{pair.key}"', "files")
        + service(pair, f'target_tls = {{ ca = "{pair.key}", groups = "P-999" }}', "below")
        + service(pair, f'sni = [{{ names = "a.example.org", certificate = "{pair.certificate}" }}]', "names")
        + '[services.p12]\nlisten = ":0"\ntarget = "127.0.0.1:8080"\np12 = "tunnel.toml"\n'
    )
    done = tlstunnel("check", config_file(text))
    where = [line.split(": ")[2] for line in done.err.splitlines()]
    assert done.code == 2
    assert where == [
        "services.text.idle_timeout",
        "services.settings.ciphers",
        "services.settings.ciphersuites",
        "services.settings.groups",
        "services.files.client_ca",
        "services.below.target_tls.groups",
        "services.below.target_tls.ca",
        "services.names.sni[0].certificate",
        "services.p12.p12",
    ]


def test_a_wrong_key_hides_nothing_that_is_wrong_with_the_files_and_settings_of_its_service(
    tlstunnel: Command, pair: certificates.Pair
) -> None:
    Path("bad.pem").write_text("garbage\n")
    Path("t.toml").write_text(f"""
[services.a]
listen = "127.0.0.1:1234"
target = "127.0.0.1:80"
certificate = "bad.pem"
key = "{pair.key}"
ciphers = "FOO"
idle_timout = "3s"
[services.b]
listen = "127.0.0.1:1235"
target = "127.0.0.1:80"
certificate = "{pair.certificate}"
key = "{pair.key}"
handshake_timeout = 3
groups = "nope"
[services.c]
mode = "client"
listen = "127.0.0.1:1236"
target = "x:80"
ca = "bad.pem"
foo = 1
""")
    done = tlstunnel("check", "t.toml")
    places = [line.removeprefix("tlstunnel: t.toml: services.").split(": ")[0] for line in done.err.splitlines()]
    assert places == [
        "a.idle_timout", "b.handshake_timeout", "c.foo", "a.ciphers", "a.certificate", "b.groups", "c.ca"
    ]  # fmt: skip
    assert done.code == 2


def test_check_exits_1_when_only_files_are_missing(tlstunnel: Command, pair: certificates.Pair) -> None:
    done = tlstunnel("check", config_file(service(pair) + service(pair, 'crl = "no.crl"', "b").replace("key", "#")))
    assert done.code == 2  # crl without client_auth is a mistake in the text
    done = tlstunnel("check", config_file(service(pair).replace(str(pair.key), "missing.key")))
    assert done.code == 1
    assert "missing.key: does not exist; check the path" in done.err


def test_check_tells_when_a_key_is_encrypted_and_nobody_gives_its_passphrase(
    tlstunnel: Command, pair: certificates.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLSTUNNEL_KEY_PASSPHRASE", raising=False)
    encrypted = certificates.encrypted_key(pair, PASSPHRASE)
    text = service(pair).replace(str(pair.key), str(encrypted))
    done = tlstunnel("check", config_file(text))
    assert (done.code, "is encrypted" in done.err) == (2, True)
    Path("pass").write_text(f"{PASSPHRASE}\n")
    done = tlstunnel("check", config_file(text + 'key_passphrase_file = "pass"'))
    assert (done.code, done.out.splitlines()[-1]) == (0, "configuration OK")


def test_check_names_accounts_and_descriptors_that_a_start_would_miss(
    tlstunnel: Command, pair: certificates.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlstunnel.daemon.system.limits.raise_descriptor_limit", lambda: 1024)
    text = '[process]\nworkers = 1\nuser = "nobody-of-that-name"\nmax_connections = 100000\n' + service(pair)
    done = tlstunnel("check", config_file(text))
    user, descriptors = done.err.splitlines()
    assert (done.code, done.out) == (1, "")
    assert user.startswith('tlstunnel: tunnel.toml: process.user: this machine has no user "nobody-of-that-name"; ')
    assert descriptors.startswith("tlstunnel: tunnel.toml: process.max_connections: ")
    done = tlstunnel("check", config_file(text + "bogus = 1"))
    assert (done.code, len(done.err.splitlines())) == (2, 3)
    text = text.replace("nobody-of-that-name", "nobody").replace("100000", "100")
    assert tlstunnel("check", config_file(text)).code == 0


def test_check_beside_the_daemon_looks_at_what_it_can_see(
    tlstunnel: Command, pair: certificates.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlstunnel.config.files.is_hidden", lambda path: path.name == "hidden.key")
    Path("hidden.key").write_text("what only the daemon reads")
    hidden = service(pair, name="hidden").replace(str(pair.key), "hidden.key")
    done = tlstunnel("check", config_file(hidden + service(pair)))
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "hidden: systemd shows its credentials to the daemon alone, which reads them when it reloads\n"
        "configuration OK\n"
    )
    wrong = service(pair).replace(str(pair.key), str(certificates.server("other").key))
    assert tlstunnel("check", config_file(hidden + wrong)).code == 2
    admin = f'[admin]\nlisten = "127.0.0.1:0"\ncertificate = "{pair.certificate}"\nkey = "hidden.key"\n'
    done = tlstunnel("check", config_file(admin + service(pair)))
    assert (done.code, done.out.splitlines()[0].partition(":")[0]) == (0, "[admin]")


def test_check_does_not_begin_a_key_log(
    tlstunnel: Command, pair: certificates.Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", "keys.log")
    done = tlstunnel("check", config_file(service(pair, "unsafe_keylog = true")))
    assert "warning: web: unsafe_keylog is on" in done.out
    assert not Path("keys.log").exists()


def test_show_prints_defaults_and_paths_but_no_secret(tlstunnel: Command, pair: certificates.Pair) -> None:
    Path("pass").write_text(f"{PASSPHRASE}\n")
    encrypted = certificates.encrypted_key(pair, PASSPHRASE)
    text = service(pair, 'key_passphrase_file = "pass"').replace(str(pair.key), str(encrypted))
    done = tlstunnel("show", config_file(text))
    assert done.code == 0
    assert 'handshake_timeout = "10s"' in done.out
    assert f'key_passphrase_file = "{Path.cwd()}/pass"' in done.out
    assert 'groups = ""  # X25519MLKEM768:' in done.out
    assert PASSPHRASE not in done.out
    assert "PRIVATE KEY" not in done.out


def test_the_help_names_every_option_and_its_default(tlstunnel: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for mode in (Mode.SERVER, Mode.CLIENT):
        done = tlstunnel(mode.value, "--help")
        assert done.code == 0
        assert all(key.option in done.out for key in options_of(mode))
        assert "Default: 10s." in done.out


@pytest.mark.parametrize(
    ("written", "offered"),
    [
        ("server --client-", {"--client-auth", "--client-ca"}),
        ("client --client-", set()),
        ("server --client-auth ", {"none", "optional", "required"}),
        ("client --workers ", {"auto"}),
    ],
)
def test_the_shell_completes_options_and_their_words(
    tlstunnel: Command, monkeypatch: pytest.MonkeyPatch, written: str, offered: set[str]
) -> None:
    monkeypatch.setenv("_TLSTUNNEL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"tlstunnel {written}")
    monkeypatch.setenv("COMP_CWORD", str(len(written.split(" "))))
    assert set(tlstunnel().out.split()) == offered


def test_an_option_that_does_not_exist_exits_2(tlstunnel: Command) -> None:
    assert tlstunnel("server", "--no-such-option").code == 2


VALUES = {
    "--failover": "round-robin",
    "--client-auth": "required",
    "--anonymous": "deny",
    "--min-version": "1.3",
    "--max-version": "1.2",
    "--ciphers": "ECDHE+AESGCM",
    "--ciphersuites": "TLS_AES_256_GCM_SHA384",
    "--groups": "P-256",
    "--alpn": "h2,http/1.1",
    "--server-name": "db.example.org",
    "--proxy-protocol": "v1",
    "--workers": "3",
    "--user": "nobody",
    "--group": "nogroup",
    "--admin": "127.0.0.1:0",
    "--log-format": "json",
    "--log-level": "debug",
    "--log-target": "syslog",
    "--source-address": "127.0.0.2",
    "--ocsp-staple": "auto",
    "--crl-expired": "warning",
    "--alpn-mismatch": "ignore",
    "--starttls": "imap",
}
"""A value for each option that takes other than a file, a duration, a number, a name or an address."""
VERIFIES = ["--client-auth", "required", "--client-ca", "FILE"]
NEEDS = {
    "--anonymous": ["--client-auth", "optional", "--client-ca", "FILE", "--allow-any"],
    "--client-auth": ["--client-ca", "FILE", "--allow-any"],
    "--client-ca": [*VERIFIES, "--allow-any"],
    "--crl": [*VERIFIES, "--allow-any"],
    "--allow-any": [*VERIFIES, "--allow-cn", "x"],
    "--alpn-required": ["--alpn", "h2"],
    "--key": ["--cert", "FILE"],
    "--key-passphrase-file": ["--cert", "FILE"],
    "--fallback-target": ["--client-auth", "optional", "--client-ca", "FILE", "--allow-cn", "x"],
    "--ocsp-cache": ["--ocsp-staple", "auto"],
    "--crl-expired": [*VERIFIES, "--allow-any", "--crl", "FILE"],
    "--proxy-trusted": ["--accept-proxy-protocol"],
} | {f"--allow-{name}": [*VERIFIES, "--allow-cn", "x"] for name in ("cn", "ou", "dns", "uri", "spki-pin")}
"""What else an option makes sense with."""


def sample(key: Key) -> list[str]:
    if not key.kind.metavar:
        return []
    by_metavar = {"DURATION": "17s", "N": "17", "PEM": "OTHER", "FILE": "OTHER", "NAME": "name.example.org"}
    by_metavar |= {"NETWORK": "192.0.2.0/24", "RATE": "17/s", "DER": "OTHER", "FOLDER": "."}
    by_metavar |= {"ADDR": "127.0.0.1:17", "URI": "spiffe://example.org/a", "sha256:BASE64": PIN}
    return [VALUES.get(key.option) or by_metavar[key.kind.metavar]]


@pytest.mark.parametrize(
    ("mode", "key"),
    [(mode, key) for mode in (Mode.SERVER, Mode.CLIENT) for key in options_of(mode)],
    ids=lambda value: value.option if isinstance(value, Key) else value.value,
)
def test_no_option_is_accepted_and_ignored(tlstunnel: Command, mode: Mode, key: Key, tmp_path: Path) -> None:
    for name in ("file", "other"):
        (tmp_path / name).touch()
    base = [mode.value, *(SERVER if mode is Mode.SERVER else CLIENT)]
    needs = NEEDS.get(key.option, [])
    if mode is Mode.CLIENT:
        needs = {"--crl": [], "--crl-expired": ["--crl", "FILE"]}.get(key.option, needs)
    if mode is Mode.SERVER and key.option != "--p12" and "--cert" not in needs:
        base += ["--cert", "FILE"]
    words = [word.replace("FILE", "file").replace("OTHER", "other") for word in [*base, *needs]]
    without = tlstunnel(*words)
    if key.option == "--allow-any":  # beside other rules it would be a contradiction
        words = words[:-2]
    elif key.option == "--client-ca":
        words[words.index("--client-ca") : words.index("--client-ca") + 2] = []
    with_it = tlstunnel(*words, key.option, *(word.replace("OTHER", "other") for word in sample(key)))
    assert with_it.code == 7, with_it.err
    assert with_it.started != without.started


def test_client_auth_on_the_command_line_is_as_the_contract_says(tlstunnel: Command, pair: certificates.Pair) -> None:
    done = tlstunnel(
        *("server", "--listen", ":8443", "--target", "127.0.0.1:8080"),
        *("--cert", str(pair.certificate), "--key", str(pair.key)),
        *("--client-auth", "required", "--client-ca", str(certificates.ca().certificate), "--allow-cn", "billing"),
    )
    (one,) = done.started[0].services
    assert (one.client_auth, [rule.cn for rule in one.policy.allow]) == (ClientAuth.REQUIRED, ["billing"])
    assert str(one.listen[0]) == ":8443"
