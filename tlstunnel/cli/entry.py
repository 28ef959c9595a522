"""Where the `tlstunnel` command begins: before anything is imported that takes time.

Three things cannot wait for the command line to be read. A signal that comes while typer is imported would be a
traceback, or the end of a daemon that was only to reload; and a descriptor that was closed (`>&-`) would be given to
the first file or socket that is opened, which would then be sent what the command prints. And the passphrase in the
environment of a daemon would be in its memory, and in that of every process it forks, for as long as they live: the
environment lies where a program cannot wipe it reliably, and `/proc/PID/environ` shows it. So it goes into an anonymous
file, and the command begins once more without the variable.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from tlstunnel.cli import signals


def main() -> NoReturn:
    """Run the command line; see `app.main`."""
    signals.hold()
    open_standard_streams()
    if len(sys.argv) > 1 and sys.argv[1] in signals.DAEMONS:
        hide_passphrase()
    try:
        try:
            from tlstunnel.cli.app import main as run

            run()
        except SystemExit as exc:
            status = exc.code
            if status and signals.has_ended():
                status = signals.status()
        signals.hold()  # what ends the interpreter is not to be interrupted
    except KeyboardInterrupt:
        signals.hold()
        status = signals.status()
    sys.exit(status)


def hide_passphrase() -> None:
    """Begin again without the passphrase in the environment, if there is one.

    `x509.passphrase` knows where it went.
    """
    passphrase = os.environb.get(b"TLSTUNNEL_KEY_PASSPHRASE")
    if passphrase is None:
        return
    held = os.memfd_create("passphrase", 0)
    os.write(held, passphrase)
    environ = {name: value for name, value in os.environb.items() if name != b"TLSTUNNEL_KEY_PASSPHRASE"}
    environ[b"TLSTUNNEL_KEY_PASSPHRASE_FD"] = b"%d" % held
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)  # noqa: S606 - our own interpreter


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed (`<&-`), also for the programs that we become or start."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, mode, closefd=False))  # noqa: SIM115 - for as long as we live
