"""What the numbers were measured on: a result without it cannot be compared with another."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from tlstunnel._openssl import binding

# What OpenSSL uses where a processor has it; without the first of each pair AES or SHA-256 is computed in plain code.
_INSTRUCTIONS = {
    "aes": "AES", "vaes": "VAES", "pmull": "PMULL", "sha_ni": "SHA", "sha2": "SHA", "avx2": "AVX2",
    "avx512f": "AVX-512",
}  # fmt: skip


class Machine(TypedDict):
    """Facts about this machine and the libraries."""

    cpu: str
    cpus: int
    instructions: list[str]
    kernel: str
    python: str
    cryptography: str
    openssl: str
    load: float


def look() -> Machine:
    """This machine, now. `load` is the load average of the last minute: the noise to expect."""
    fields = _cpu_fields()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "instructions": sorted({name for flag, name in _INSTRUCTIONS.items() if flag in flags}),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
        "openssl": _openssl_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def has_aes(machine: Machine) -> bool:
    """Whether the processor has instructions for AES."""
    return "AES" in machine["instructions"]


def _cpu_fields() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    first = text.partition("\n\n")[0]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}


def _openssl_version() -> str:
    """`OpenSSL 4.0.3 29 Sep 2026`, of the one that cryptography brings, which is not the system's."""
    if binding.lib is None:
        return "unknown"
    text: bytes = binding.ffi.string(binding.lib.OpenSSL_version(0))
    return text.decode("ascii", "replace")
