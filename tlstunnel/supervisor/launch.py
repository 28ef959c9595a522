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


def launch(config: Config) -> NoReturn:
    """Become the daemon that runs this configuration."""
    fd = os.memfd_create("tlstunnel-config", 0)
    with os.fdopen(fd, "wb", closefd=False) as file:
        pickle.dump(config, file)
    os.lseek(fd, 0, os.SEEK_SET)
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: a module in the working directory must not be taken for one of ours.
    words = [sys.executable, "-P", "-m", "tlstunnel.supervisor", str(fd), *sys.argv[1:]]
    os.execv(sys.executable, words)  # noqa: S606 - our own interpreter, no shell


def receive(fd: int) -> Config:
    """In the daemon: the configuration that `launch` left."""
    with os.fdopen(fd, "rb") as file:
        config = pickle.load(file)  # noqa: S301 - from ourselves, a moment ago
    assert isinstance(config, Config)  # noqa: S101
    # What `ps -o comm`, `pgrep` and other daemons' "port in use" show.
    with open("/proc/self/comm", "w") as comm:
        comm.write(NAME)
    return config
