"""From the command to the daemon: the same process, begun again with an interpreter of its own.

The command line has imported what a command line needs, and the daemon would carry it for as long as it runs, in every
process it forks. So it starts again by execve, with the configuration in an anonymous file. The process id stays, and
with it what systemd knows us by and has passed in.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import NoReturn

from tlstunnel.config.model import Config

NAME = "tlstunnel"
_CONF = "OPENSSL_CONF"
_OURS = "/proc/self/fd/"
# One session ticket for a handshake instead of two: a client that resumes is given a new one, and a full handshake is
# 6 % cheaper (9 interleaved rounds against two). OpenSSL takes the number only from a configuration file, which it
# reads when the library is loaded. An operator's own OPENSSL_CONF is left alone.
_ONE_TICKET = b"""openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = all
[all]
NumTickets = 1
"""


def launch(config: Config) -> NoReturn:
    """Become the daemon that runs this configuration."""
    fd = _anonymous(pickle.dumps(config))
    sys.stdout.flush()
    sys.stderr.flush()
    environ = {_CONF: f"{_OURS}{_anonymous(_ONE_TICKET)}", **os.environ}
    # -P: a module in the working directory must not be taken for one of ours.
    words = [sys.executable, "-P", "-m", "tlstunnel.daemon", str(fd), *sys.argv[1:]]
    os.execve(sys.executable, words, environ)  # noqa: S606 - our own interpreter, no shell


def forget_settings() -> None:
    """In the daemon, once OpenSSL is loaded: programs that we start shall not inherit our settings for it."""
    path = os.environ.get(_CONF, "")
    if path.startswith(_OURS):
        del os.environ[_CONF]
        os.close(int(path.removeprefix(_OURS)))


def receive(fd: int) -> Config:
    """In the daemon: the configuration that `launch` left."""
    with os.fdopen(fd, "rb") as file:
        config = pickle.load(file)  # noqa: S301 - from ourselves, a moment ago
    assert isinstance(config, Config)  # noqa: S101
    set_name()
    return config


def set_name() -> None:
    """What `ps -o comm`, `pgrep` and other daemons' "port in use" show."""
    with open("/proc/self/comm", "w") as comm:
        comm.write(NAME)


def _anonymous(data: bytes) -> int:
    """A descriptor that survives execve, of a file without a name that holds this."""
    fd = os.memfd_create(NAME, 0)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
