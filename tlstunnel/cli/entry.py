"""Where the `tlstunnel` command begins: before anything is imported that takes time.

Two things cannot wait for the command line to be read. A signal that comes while typer is imported would be a
traceback, or the end of a daemon that was only to reload; and a descriptor that was closed (`>&-`) would be given to
the first file or socket that is opened, which would then be sent what the command prints.
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


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream was closed (`<&-`), also for the programs that we become or start."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, mode, closefd=False))  # noqa: SIM115 - for as long as we live
