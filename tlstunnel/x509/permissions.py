"""Who else on this machine can read a file."""

from __future__ import annotations

import os
import stat

from tlstunnel.x509.pem import SourceFile


def is_open_to_others(file: SourceFile) -> bool:
    """Whether users that are neither owner nor in the group can reach and read the file.

    A key with mode 0644 in a directory only root may enter is safe, as certbot keeps them; so the directories count,
    those of the file a symbolic link leads to. Access control lists are not looked at.
    """
    if not file.mode & stat.S_IROTH:
        return False
    folder = os.path.dirname(os.path.realpath(file.path))
    while True:
        try:
            if not os.stat(folder).st_mode & stat.S_IXOTH:
                return False
        except OSError:
            return False
        parent = os.path.dirname(folder)
        if parent == folder:
            return True
        folder = parent
