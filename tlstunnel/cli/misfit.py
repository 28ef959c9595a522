"""Libraries that do not fit: pyOpenSSL and cryptography, upgraded or held back behind our back.

pyOpenSSL names parts of cryptography's binding that come and go with its versions, some when it is imported and some
when a context is made; and both may be put beside us in versions that we have never run with. What Python says then is
an attribute that some module does not have, which helps nobody. The versions that work are in our package's metadata.
"""

from __future__ import annotations

import re
import traceback
from importlib import metadata

_OURS = "tlstunnel"
_LIBRARIES = ("cryptography", "pyOpenSSL")
_MODULES = ("OpenSSL", "cryptography", "_cffi_backend")


def explain(error: ImportError | AttributeError) -> str | None:
    """One line that says which versions are there and which work; None where the error is about something else."""
    if not _is_theirs(error):
        return None
    found = " and ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    said = " ".join(str(error).split())
    return f"{found} do not fit each other, or tlstunnel ({said}); install {_wanted()}"


def _is_theirs(error: ImportError | AttributeError) -> bool:
    """Whether one of the libraries raised it, or lacks what we asked of it."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [*frames[-1:], type(getattr(error, "obj", None)).__module__, getattr(error, "name", None) or ""]
    return any(name.partition(".")[0] in _MODULES for name in names)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(missing)"


def _wanted() -> str:
    """Both requirements as pip takes them."""
    try:
        requirements = metadata.requires(_OURS) or []
    except metadata.PackageNotFoundError:
        requirements = []
    wanted = [text for text in requirements if re.match(rf"({'|'.join(_LIBRARIES)})\b", text, re.IGNORECASE)]
    return " ".join(f"'{text}'" for text in wanted) or "the versions in pyproject.toml"
