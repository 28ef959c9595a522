"""Files that a configuration names: where they are, and whether they can be read now."""

from __future__ import annotations

import os
from pathlib import Path

from tlstunnel.reading import UnfitFileError, require_readable

_CREDENTIAL = "cred:"


class FileTroubleError(ValueError):
    """The text is right, but the file it names cannot be read on this machine."""


NOT_HERE = Path("/run/credentials/tlstunnel is not started by systemd here")
"""Where credentials are for whoever looks at a configuration outside the unit that is given them; see `look_away`."""


def look_away() -> None:
    """Take `cred:NAME` for a file that cannot be looked at, where there is no $CREDENTIALS_DIRECTORY to look into.

    For `check` in a shell: the daemon will have its credentials, and there is much else to check.
    """
    os.environ.setdefault("CREDENTIALS_DIRECTORY", str(NOT_HERE))


def find_file(text: str, base: Path, *, may_be_folder: bool = False) -> Path:
    """The file a text names: absolute, relative to `base`, or `cred:NAME`. Its content is not looked at.

    Args:
        may_be_folder: whether a folder of files is good as well.

    Raises:
        ValueError: no such text can name a file, or it names something else.
        FileTroubleError: the file is missing or cannot be read.
    """
    path = _locate(text, base)
    if may_be_folder and _can_list(path):
        return path
    try:
        require_readable(path)
    except UnfitFileError as exc:
        if not (text.startswith(_CREDENTIAL) and is_hidden(path)):
            raise (FileTroubleError if exc.is_machine else ValueError)(f"{path}: {exc}") from exc
    return path


def is_hidden(path: Path) -> bool:
    """Whether the file is there for the daemon and not for us: outside its unit, or started beside it by ExecReload=.

    systemd 252 gives such processes $CREDENTIALS_DIRECTORY, but not the right to read what is in it. They are known by
    $MAINPID, which the daemon itself never has (systemd.exec(5), "Environment Variables Set or Propagated").
    """
    if path.parent == NOT_HERE:
        return True
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder or "MAINPID" not in os.environ or path.parent != Path(folder):
        return False
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def find_folder(text: str, base: Path) -> Path:
    """The folder a text names, in which files can be made now.

    Raises:
        ValueError: no such text can name a folder.
        FileTroubleError: there is none, or nothing can be written to it.
    """
    path = _locate(text, base)
    if not path.is_dir():
        what = f"{path} is not a folder" if path.exists() else f"there is no folder {path}"
        raise FileTroubleError(f'"{text}": {what}; create it or correct the path')
    if not os.access(path, os.W_OK | os.X_OK):
        raise FileTroubleError(f'"{text}": nothing can be written to {path}; let tlstunnel\'s user write there')
    return path


def _locate(text: str, base: Path) -> Path:
    if not text:
        raise ValueError("the path is empty; write the path of a file")
    if "\0" in text:
        raise ValueError("a path cannot hold a NUL; write the path of a file")
    if not text.startswith(_CREDENTIAL):
        return base / text
    # What LoadCredential= brought (systemd.exec(5), "Credentials").
    name = text.removeprefix(_CREDENTIAL)
    if not name or "/" in name or name in (".", ".."):
        raise ValueError(f'"{text}" names no credential; write cred:NAME with the ID given to LoadCredential=')
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        right = "start tlstunnel from a unit with LoadCredential="
        raise FileTroubleError(f'"{text}": $CREDENTIALS_DIRECTORY is not set; {right}')
    return Path(folder) / name


def _can_list(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
