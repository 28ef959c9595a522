"""The daemon itself; `launch` starts it. Not a command: its configuration comes in a descriptor."""

from __future__ import annotations

import sys

from tlstunnel.daemon.processes.events import hold_signals
from tlstunnel.daemon.processes.launch import forget_settings, receive
from tlstunnel.daemon.processes.supervisor import run
from tlstunnel.errors import TunnelError


def main() -> None:
    """Run the configuration in the descriptor that the first word names."""
    forget_settings()
    try:
        status = run(receive(int(sys.argv[1])))
    except TunnelError as exc:
        for line in str(exc).splitlines():
            sys.stderr.write(f"tlstunnel: {line}\n")
        status = exc.exit_code
    hold_signals()  # the interpreter takes its handlers away before it ends
    sys.exit(status)


if __name__ == "__main__":
    main()
