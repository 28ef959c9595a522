"""Dovecot on free ports: IMAP, POP3, LMTP and ManageSieve, with TLS if it is given a certificate. Needs root.

    with dovecot.running(pair) as ports:
        ports["lmtp"]

Whoever knows the password `PASSWORD` is a user; mail is kept below a temporary folder.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support import peers
from tests.support.certificates import Pair
from tests.support.interop import require
from tests.support.ports import free_port

USER, PASSWORD = "tester", "sesame"
_LISTENERS = {
    "imap": ("imap-login", "imap", ("imaps",)),
    "pop3": ("pop3-login", "pop3", ("pop3s",)),
    "lmtp": ("lmtp", "lmtp", ()),
    "sieve": ("managesieve-login", "sieve", ()),
}
_OLD = """
log_path = /dev/stderr
base_dir = {path}/run
state_dir = {path}/state
listen = 127.0.0.1
protocols = imap pop3 lmtp sieve
disable_plaintext_auth = no
mail_location = maildir:~/Maildir
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={path}/mail/%u
}}
"""
_NEW = """
dovecot_config_version = {version}
dovecot_storage_version = {version}
log_path = /dev/stderr
base_dir = {path}/run
state_dir = {path}/state
listen = 127.0.0.1
protocols = imap pop3 lmtp sieve
auth_allow_cleartext = yes
mail_driver = maildir
mail_path = ~/Maildir
passdb static {{
  password = {password}
}}
userdb static {{
  fields {{
    uid = nobody
    gid = nogroup
    home = {path}/mail/%{{user}}
  }}
}}
"""


@contextlib.contextmanager
def running(pair: Pair | None = None) -> Iterator[dict[str, int]]:
    """The ports by protocol."""
    program = require("dovecot")
    for module in ("lmtp", "managesieve-login", "pop3-login"):
        require(f"/usr/lib/dovecot/{module}")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.split("[ -]", version)[0]
    with peers.folder() as path:
        path.chmod(0o755)
        mail = path / "mail"
        mail.mkdir()
        mail.chmod(0o777)
        ports = {name: free_port() for name in _LISTENERS}

        def command(port: int) -> list[str]:
            ports["imap"] = port
            (path / "dovecot.conf").write_text(_settings(path, version, ports, pair))
            return [program, "-F", "-c", str(path / "dovecot.conf")]

        with peers.serving(command) as peer:
            yield ports
            assert peer.process.poll() is None, peer.said()


def _settings(path: Path, version: str, ports: dict[str, int], pair: Pair | None) -> str:
    is_old = version.startswith("2.3")
    text = (_OLD if is_old else _NEW).format(path=path, password=PASSWORD, version=version)
    if pair is None:
        text += "ssl = no\n"
    elif is_old:
        text += f"ssl = yes\nssl_cert = <{pair.certificate}\nssl_key = <{pair.key}\n"
    else:
        text += f"ssl = yes\nssl_server_cert_file = {pair.certificate}\nssl_server_key_file = {pair.key}\n"
    for name, (service, listener, unused) in _LISTENERS.items():
        inner = f"inet_listener {listener} {{\n port = {ports[name]}\n}}\n"
        inner += "".join(f"inet_listener {other} {{\n port = 0\n}}\n" for other in unused)
        text += f"service {service} {{\n{inner}}}\n"
    return text
