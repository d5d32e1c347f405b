import subprocess
import sys

import pytest

from sak.evaluation.distributed import keep_freed

COUNT = """
import resource, sys
import numpy as np
from sak.evaluation.distributed import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_a_freed_block_is_used_again_without_new_pages():
    faults = {}
    for way in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", COUNT, way], capture_output=True, text=True, check=True)
        faults[way] = int(done.stdout)
    assert faults["kept"] < faults["given back"] / 10


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("a library was asked"))
    keep_freed()
