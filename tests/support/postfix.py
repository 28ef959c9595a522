"""Postfix on a free port, with queue and configuration of its own, that throws mail away. Needs root.

with postfix.running(pair) as port: ...
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support import peers
from tests.support.certificates import Pair
from tests.support.interop import require

_MAIN = """
compatibility_level = 3.6
myhostname = mail.example.org
mydestination = localhost
inet_interfaces = 127.0.0.1
local_recipient_maps =
alias_maps =
alias_database =
queue_directory = {path}/queue
data_directory = {path}/data
default_transport = discard
local_transport = discard
relay_transport = discard
smtpd_relay_restrictions = permit_mynetworks, reject
maillog_file = {path}/log
maillog_file_prefixes = {path}
"""
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
discard unix - - n - - discard
postlog unix-dgram n - n - 1 postlogd
"""
# `postfix start-fg` leaves it running when it is ended itself.
_MASTER_PROGRAM = "/usr/lib/postfix/sbin/master"


@contextlib.contextmanager
def running(pair: Pair | None = None) -> Iterator[int]:
    """Its port. With STARTTLS if a certificate is given."""
    program = require("postfix")
    with peers.folder() as path:
        path.chmod(0o755)
        for name in ("conf", "queue", "data"):
            (path / name).mkdir(mode=0o755)
        shutil.chown(path / "data", "postfix")

        def command(port: int) -> list[str]:
            (path / "conf" / "main.cf").write_text(_MAIN.format(path=path) + _tls(pair, path))
            (path / "conf" / "master.cf").write_text(_MASTER.format(port=port))
            subprocess.run([program, "-c", str(path / "conf"), "check"], check=True, capture_output=True)
            return [_MASTER_PROGRAM, "-c", str(path / "conf"), "-d"]

        with peers.serving(command) as peer:
            yield peer.port
            assert peer.process.poll() is None, peer.said()


def _tls(pair: Pair | None, path: Path) -> str:
    if pair is None:
        return "smtpd_tls_security_level = none\n"
    lines = ["smtpd_tls_security_level = may", f"smtpd_tls_cert_file = {pair.certificate}"]
    lines += [f"smtpd_tls_key_file = {pair.key}", f"smtpd_tls_session_cache_database = btree:{path}/data/sessions"]
    return "\n".join([*lines, ""])
