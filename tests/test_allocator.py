"""Memory that is freed and taken again, with and without the setting, in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from leandit import allocator

PROGRAM = """
import resource, sys
import torch
from leandit.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):  # until the heap, whose place is drawn anew in each process, has room for the block
    torch.ones(2**24)
before = faults()
for _ in range(5):
    torch.ones(2**24)
print(faults() - before)
"""


def page_faults(kind: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, kind], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_kept_memory_costs_no_page_faults() -> None:
    assert page_faults("keep") < 1000 < page_faults("return")


def test_elsewhere_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_memory()
