"""The reference pages of the configuration, made from the model's docstrings, the loader's keys and the options' table.

The pages are kept in docs/reference/ so that they can be read there; a test compares. `UPDATE_GOLDEN=1` writes them.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import types
import typing
from collections.abc import Iterable
from pathlib import Path

from tlstunnel.cli import options
from tlstunnel.config import effective, model, service
from tlstunnel.config.certificates import read_backend_tls
from tlstunnel.config.model import Config, Mode, Service
from tlstunnel.config.reader import Table
from tlstunnel.config.rules import SHORT_FIELDS
from tlstunnel.config.source import FileSource, Report, render
from tlstunnel.tls import policy

CLASSES = (
    model.CertificateFiles,
    model.Service,
    model.ServerName,
    model.Timeouts,
    model.BackendTLS,
    model.TLSSettings,
    policy.Policy,
)
VALUES = {
    "allow": "array of rules",
    "deny": "array of rules",
    "verify": "array of rules",
    "allow_any": "`true` or `false`",
    "anonymous": '`"allow"` or `"deny"`',
    "listen": "address or array",
    "target": "address or array",
    "names": "string or array",
    "alpn": "string or array",
    "certificate": "file or array",
    "key": "file or array",
    "p12": "file or array",
    "key_passphrase_file": "file or array",
    "sni": "array of tables",
    "target_tls": "`true`, `false` or table",
    "server_name": "string",
    "fallback_target": "address or array",
    "unix_mode": "file mode",
    "source_address": "IP address",
    "allow_from": "network or array",
    "deny_from": "network or array",
    "proxy_trusted": "network or array",
    "connection_rate_per_ip": "rate",
    "handshake_rate": "rate",
    "ocsp_cache": "folder",
    "min_version": '`"1.2"` or `"1.3"`',
    "max_version": '`"1.2"` or `"1.3"`',
}
MEANINGS = {
    "allow": "Rules of which any admits a certificate that matches; see [access rules](#access-rules).",
    "deny": "Rules of which any refuses a certificate that matches, whatever `allow` says.",
    "verify": "Rules of which the server's certificate must match one, on top of its chain and host name.",
    "sni": "More names on the same listeners; see [names](#names).",
    "target_tls": "TLS to the target as well; see [TLS to the target](#tls-to-the-target).",
    "workers": 'Worker processes, 240 at most; `"auto"` is one for each usable core.',
    "reload_poll": 'How often the content of certificate and key files is looked at; `"never"` leaves it to SIGHUP.',
    "ca": "PEM: the CAs that may have issued the server's certificate; the system's when left out.",
    "anonymous": 'With `client_auth = "optional"`: whether clients without a certificate are admitted.',
    "allow_any": "Admit every certificate that `client_ca` vouches for. It must be written out: where a certificate is "
    "required, no rule at all is an error.",
}
MEANINGS |= {
    f"allow_{field}": f"Short for rules of one field, `{field}`; a string or several." for field in SHORT_FIELDS
}
MEANINGS |= {
    f"verify_{field}": f"Short for rules of one field, `{field}`; a string or several." for field in SHORT_FIELDS
}

LOG_MEANINGS = {
    "format": "For people, or one JSON object in each line.",
    "level": "From which level on something is written.",
    "target": "Where to; `syslog` is the local one. A relative PATH starts at the configuration file. "
    "A named pipe needs its reader first; lines that it does not take at once are lost and counted.",
}


def docstrings(module: types.ModuleType) -> dict[tuple[str, str], str]:
    """What stands below each field of each class."""
    assert module.__file__
    found = {}
    for node in ast.parse(Path(module.__file__).read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, text in zip(node.body, node.body[1:], strict=False):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[node.name, field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


DOCSTRINGS = docstrings(model) | docstrings(policy)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a table of keys."""

    key: str
    value: str
    default: str
    meaning: str

    def __str__(self) -> str:
        cells = (f"`{self.key}`", self.value, self.default, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(entries: Iterable[Entry]) -> str:
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *map(str, entries)])


def _fields(*classes: type) -> dict[str, tuple[type, str]]:
    """Which field of which class a key is."""
    found: dict[str, tuple[type, str]] = {}
    for cls in classes:
        for field in dataclasses.fields(cls):
            name = field.name
            key = effective._RENAMED.get(name, name.removesuffix("_s"))
            if (cls.__name__, name) in DOCSTRINGS:
                found.setdefault(key, (cls, name))
    return found


def _value(cls: type, name: str) -> str:
    """How a field is written, from its type."""
    kind = typing.get_type_hints(cls)[name]
    parts = set(typing.get_args(kind)) - {type(None)} if typing.get_origin(kind) in (types.UnionType, tuple) else {kind}
    if name.endswith("_s"):
        return "duration"
    if parts == {int}:
        return 'number or `"auto"`' if name == "workers" else 'number or `"unlimited"`'
    if bool in parts:
        return "`true` or `false`"
    if Path in parts:
        return "file or array" if typing.get_origin(kind) is tuple else "file"
    if cls is model.Log:
        return DOCSTRINGS[cls.__name__, name].rstrip(".")
    if len(parts) == 1 and isinstance(one := next(iter(parts)), type) and issubclass(one, enum.Enum):
        words = [f'`"{member.value}"`' for member in one]
        return ", ".join(words[:-1]) + f" or {words[-1]}"
    return "address" if name == "listen" else "string"


def _entries(keys: Iterable[str], defaults: effective.Keys, *classes: type) -> list[Entry]:
    fields = _fields(*classes)
    rows = []
    for key in keys:
        meaning = (
            LOG_MEANINGS[key]
            if classes[0] is model.Log
            else MEANINGS.get(key) or DOCSTRINGS[(fields[key][0].__name__, fields[key][1])]
        )
        value = VALUES.get(key) if key in VALUES and classes[0] not in (model.Admin, model.Log) else None
        if value is None:
            value = (
                "string or array"
                if key not in fields and key.startswith(("allow_", "verify_"))
                else _value(*fields[key])
            )
        default = defaults.get(key)
        shown = "" if default is None or default == "" else f"`{render(default)}`"
        rows.append(Entry(key, value, shown, meaning))
    return rows


def _known(read: typing.Callable[[Table], object]) -> tuple[str, ...]:
    scratch = Table(Report(FileSource("", Path()), {}), (), {})
    read(scratch)
    return scratch.known


def configuration_page() -> str:
    """docs/reference/configuration.md."""
    parts = [INTRODUCTION]
    for name, cls in (("process", model.Process), ("admin", model.Admin), ("log", model.Log)):
        defaults = effective.keys_of_section(Config(services=()), name)
        parts.append(f"## `[{name}]`\n\n{cls.__doc__}\n\n{table(_entries(defaults, defaults, cls))}\n")
    known = {mode: service.keys_of(mode) for mode in Mode}
    everywhere = [key for key in known[Mode.SERVER] if all(key in keys for keys in known.values())]
    common = [key for key in everywhere if key != "sni"]
    parts.append(f"## `[services.NAME]`\n\n{SERVICES}\n### In every mode\n")
    parts.append(table(_service_entries(Mode.SERVER, common, required=True)) + "\n")
    for mode in (Mode.SERVER, Mode.CLIENT):
        own = [key for key in known[mode] if key not in common]
        parts.append(f'### With `mode = "{mode.value}"`\n\n{table(_service_entries(mode, own))}\n')
    parts.append(f'### With `mode = "passthrough"`\n\n{PASSTHROUGH}\n')
    parts.append(f"## Access rules\n\n{RULES}\n\n| field | matches |\n|---|---|")
    rule_fields = [field.name for field in dataclasses.fields(policy.Rule) if field.init]
    parts[-1] += "".join(f"\n| `{name}` | {DOCSTRINGS['Rule', name]} |" for name in rule_fields) + "\n"
    web = Service(name="", mode=Mode.SERVER, listen=(), targets=())
    names = ("names", *_known(lambda entry: service._read_server_name(entry, web, ())))
    parts.append(f"## Names\n\n{NAMES}\n\n{table(_entries(names, {}, model.ServerName, *CLASSES))}\n")
    below = _known(lambda entry: read_backend_tls(entry, ()))
    defaults = effective._backend_keys(model.BackendTLS())
    entries = table(_entries(below, defaults, model.BackendTLS, *CLASSES))
    parts.append(f"## TLS to the target\n\n{TARGET_TLS}\n\n{entries}\n")
    return "\n".join(parts)


def _service_entries(mode: Mode, keys: Iterable[str], *, required: bool = False) -> list[Entry]:
    defaults = effective.keys_of_service(Service(name="", mode=mode, listen=(), targets=()))
    defaults |= effective._policy_keys(policy.Policy(), model.ClientAuth.OPTIONAL)
    first = (model.BackendTLS,) if mode is Mode.CLIENT else ()
    entries = _entries(keys, defaults, *first, *CLASSES)
    if required:
        must = ("listen", "target")
        entries = [dataclasses.replace(e, default="required") if e.key in must else e for e in entries]
    return entries


def options_page() -> str:
    """docs/reference/options.md."""
    parts = [OPTIONS]
    defaults = {mode: options._defaults(mode) for mode in (Mode.SERVER, Mode.CLIENT)}
    for panel in options.PANELS:
        rows = ["| option | command | key | default | meaning |", "|---|---|---|---|---|"]
        for option in panel.options:
            metavar = f" {option.metavar}" if option.metavar else ""
            default = defaults[option.modes[0]].get((option.section, option.key))
            shown = "" if default in (None, "", False, []) else f"`{options._listed(default)}`"
            key = option.key if option.section == "service" else f"{option.section}.{option.key}"
            commands = "both" if len(option.modes) > 1 else option.modes[0].value
            often = " Repeatable." if option.kind in (options.Kind.MANY, options.Kind.COMMAS) else ""
            cells = (f"`{option.flag}{metavar}`", commands, f"`{key}`", shown, option.help + often)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append(f"## {panel.title}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


INTRODUCTION = """# Configuration file

One TOML file tells one daemon everything: `tlstunnel run FILE`. The same words are [options](options.md) of
`tlstunnel server` and `tlstunnel client`, for a single service without a file. A complete file with comments is
`conf/tlstunnel.toml`; realistic ones are in `conf/examples/`.

    tlstunnel check FILE    reads the file and everything it names, tries it out, and reports every problem at once
    tlstunnel show FILE     prints what is in effect: defaults filled in, paths absolute, nothing secret

`check` prints warnings, such as a certificate that expires soon, and then `configuration OK`. It exits with 0 when
nothing is wrong; with 2 when the configuration is; and with 1 when the text is right but this machine lacks what it
names: files that are missing or cannot be read, an unknown `user` or `group`, file descriptors for `max_connections`
(of which the service manager may grant another number). As `ExecReload=` of a unit it may not be shown the daemon's
credentials (systemd 252); it says so, looks at the rest, and the daemon judges them when it reloads. What `show` prints
can be run again.

An unknown key is an error that names the nearest known one, and so is a key that would have no effect.

## How values are written

- **Addresses**: `"HOST:PORT"`, `":PORT"` for all interfaces with IPv4 and IPv6, `"[V6]:PORT"`, `"unix:/path"`; to
  listen on also `"systemd:NAME"` for sockets that systemd opened, by their `FileDescriptorName=`. Port 0 takes a free
  port, which the line `ready: ...` names. A unix socket's path may be relative, as any file's (below). Where several
  addresses are allowed, one string or an array of strings.
- **Durations**: a number and a unit, `"500ms"`, `"10s"`, `"5m"`, `"1h"`, `"7d"`; or `"never"`. A bare number is an
  error, and zero never means infinite.
- **Counts**: whole numbers from 1 on, or `"unlimited"`.
- **Rates**: `"20/s"`, `"100/m"`, `"1000/h"`, or `"unlimited"`. As many may come at once after a rest, unless
  `"20/s burst 50"` says how many.
- **Networks**: `"192.0.2.0/24"`, `"2001:db8::/32"`, or one address. Bits behind the prefix are an error, since nobody
  can tell whether the network or the one address was meant.
- **Files**: absolute, or relative to the configuration file (for options: to the current folder). `"cred:NAME"` is the
  file NAME in `$CREDENTIALS_DIRECTORY`, where systemd's `LoadCredential=` puts it. Links are followed anew at each
  reload, so a link may be swapped. Every file is read with the rights that tlstunnel was started with. A pipe, such as
  a shell's `<(pass show key)`, is read once, at the start, to its end, which must come within ten seconds; what came
  out of one cannot be reloaded. Devices are refused, and so is what is too large to be what was meant.

Two listeners of one daemon cannot have the same address: their connections would be shared out between them at random.
"""
SERVICES = """One listener (or several) and where its connections go. The name is 1 to 63 letters, digits, `_`, `.` and
`-`; it stands in log lines and metrics. A daemon has at least one service.
"""
PASSTHROUGH = """TLS is routed by the server name that the client asks for, and not terminated: there is no key here,
and the certificate is the target's own. Beside the keys of every mode there are `sni`, whose entries hold only `names`
and `target`, and `sni_mismatch`: with `"default"` other names go to the service's own `target`; with `"reject"` they
are refused, and there is no such `target`."""
RULES = """A rule is a table, and matches a certificate when every field in it does. Of several rules any is enough:
`allow = [{ cn = "billing" }, { ou = "ops", uri = "spiffe://example.org/ns/*/admin" }]`. A rule in `deny` that matches
refuses, whatever the others say.

Rules that allow compare names as they are. Rules that deny refuse whatever could pass for the name they hold: other
capitals, blanks or Unicode forms, a dot at the end of a host name, a certificate's wildcard that covers it, `xn--` and
what it stands for, `%61` for `a`, `/../` and `//` in a path, a default port, IPv4 within IPv6.

With `client_auth = "required"` there must be a rule, or `allow_any = true`. With `"optional"` and no rule every
verified certificate is admitted, since clients without one are too; with `anonymous = "deny"`, or with a
`fallback_target` for those without, there must be a rule again. With `"none"` a rule is an error, because nothing would
ever ask it."""
NAMES = """Each `[[services.NAME.sni]]` is a set of server names on the service's listeners. What it leaves out is as in
the service; without a certificate of its own, only where its connections go and what holds for them differs.

An exact name comes before a wildcard, which stands for one label. Two entries may have a name in common when they
differ in their certificates alone: the one that is valid now is used."""
TARGET_TLS = """In server mode, `target_tls = true` opens TLS to the target too, verified against the system's CAs and
the target's host name. A table `[services.NAME.target_tls]` says more. With it, a target on another machine is not
plaintext, so `unsafe_target` is not needed."""
OPTIONS = """# Options of `tlstunnel server` and `tlstunnel client`

Each option stands for a key of the [configuration file](configuration.md), takes the same words, and is read by the
same code. The service is named `server` or `client`. Options that may be repeated collect their values; of several
`--allow-...` or `--verify-...` any one that matches is enough.

    tlstunnel server --listen :8443 --target 127.0.0.1:8080 --cert server.pem --key server.key
    tlstunnel client --listen 127.0.0.1:5432 --target db.example.org:5433 --ca ca.pem
"""
