"""OpenLDAP, MariaDB and Prosody on free ports, with TLS if they are given a certificate.

    with directories.slapd(pair) as port, directories.mariadb() as other: ...

Whoever knows `PASSWORD` is the administrator `ADMIN` of OpenLDAP, and in MariaDB `tester`, or `modern` with ed25519.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from tests.support import peers
from tests.support.certificates import Pair
from tests.support.interop import require

ADMIN, PASSWORD = "cn=admin,dc=example,dc=org", "sesame"
_SLAPD = """
include /etc/ldap/schema/core.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {path}/pid
database mdb
suffix "dc=example,dc=org"
rootdn "{admin}"
rootpw {password}
directory {path}/db
"""
_PROSODY = """
data_path = "{path}/data"
pidfile = "{path}/pid"
log = {{ error = "{path}/log" }}
run_as_root = true
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {port} }}
s2s_ports = {{}}
c2s_direct_tls_ports = {{}}
http_ports = {{}}
https_ports = {{}}
modules_enabled = {{ "saslauth", {tls} }}
modules_disabled = {{ "s2s" }}
c2s_require_encryption = {required}
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
{certificate}
VirtualHost "localhost"
"""


@contextlib.contextmanager
def slapd(pair: Pair | None = None) -> Iterator[int]:
    """OpenLDAP with an empty tree."""
    program = require("slapd")
    with peers.folder() as path:
        (path / "db").mkdir()
        text = _SLAPD.format(path=path, admin=ADMIN, password=PASSWORD)
        if pair is not None:
            text = f"TLSCertificateFile {pair.certificate}\nTLSCertificateKeyFile {pair.key}\n" + text
        (path / "slapd.conf").write_text(text)
        with peers.serving(
            lambda port: [program, "-d", "0", "-h", f"ldap://127.0.0.1:{port}", "-f", str(path / "slapd.conf")]
        ) as peer:
            yield peer.port


@contextlib.contextmanager
def mariadb(pair: Pair | None = None) -> Iterator[int]:
    """MariaDB with two users."""
    program, install = require("mariadbd"), require("mariadb-install-db")
    user = ["--user=mysql"] if os.geteuid() == 0 else []
    with peers.folder() as path:
        path.chmod(0o755)
        data = path / "data"
        command = [install, "--no-defaults", f"--datadir={data}", "--skip-test-db", *user]
        subprocess.run([*command, "--auth-root-authentication-method=normal"], check=True, capture_output=True)
        (path / "users.sql").write_text(
            f"create user tester identified by '{PASSWORD}';\n"
            f"create user modern identified via ed25519 using password('{PASSWORD}');\n"
        )
        words = ["--no-defaults", f"--datadir={data}", f"--socket={data}/socket", "--bind-address=127.0.0.1", *user]
        words += ["--skip-name-resolve", f"--init-file={path}/users.sql", "--plugin-load-add=auth_ed25519"]
        if pair is None:
            words.append("--skip-ssl")
        else:
            for source, name in ((pair.certificate, "server.pem"), (pair.key, "server.key")):
                shutil.copy(source, path / name)
                if user:
                    shutil.chown(path / name, "mysql")
            words += [f"--ssl-cert={path}/server.pem", f"--ssl-key={path}/server.key"]
        with peers.serving(lambda port: [program, *words, f"--port={port}"]) as peer:
            yield peer.port


@contextlib.contextmanager
def prosody(pair: Pair | None = None) -> Iterator[int]:
    """Prosody for the domain localhost."""
    program = require("prosody")
    with peers.folder() as path:
        (path / "data").mkdir()
        certificate = "" if pair is None else f'ssl = {{ certificate = "{pair.certificate}", key = "{pair.key}" }}'

        def command(port: int) -> list[str]:
            tls, required = ("", "false") if pair is None else ('"tls"', "true")
            text = _PROSODY.format(path=path, port=port, tls=tls, required=required, certificate=certificate)
            (path / "prosody.cfg.lua").write_text(text)
            return [program, "--config", str(path / "prosody.cfg.lua"), "-F"]

        with peers.serving(command) as peer:
            yield peer.port
