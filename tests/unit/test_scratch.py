"""The buffers that all links of a worker share."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from tlstunnel._openssl import Scratch

class Holder:
    pass

for name in ("wire", "plain"):
    scratch, holder = Scratch(), Holder()
    holder.view, holder.pointer, holder.itself = getattr(scratch, name), getattr(scratch, name + "_ptr"), holder
    del scratch, holder
    gc.collect()
print("alive")
"""


def test_buffers_in_a_reference_cycle_are_collected_without_a_crash() -> None:
    """Python before 3.12.4 crashes where a memoryview from which a buffer was taken is in it (cpython issue 77894)."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
