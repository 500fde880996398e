"""Freed memory stays with the process: once settled, large tensors cost no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from randomix.engine.allocator import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("absent")
    sys.exit()
def rounds():
    for _ in range(10):
        tensors = [torch.ones(12_000_000) for _ in range(2)]  # 48 MB each: above glibc's largest threshold
        del tensors
for _ in range(3):
    rounds()  # freed blocks of the first rounds are still split by small ones now and then
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
rounds()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
    if done.stdout.strip() == "absent":
        pytest.skip("no glibc here")
    return int(done.stdout)


def test_large_tensors_reuse_the_pages_of_freed_ones():
    kept, plain = _faults("keep"), _faults("plain")
    assert kept < plain / 20, (kept, plain)
