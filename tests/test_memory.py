"""What a training process does about its memory, in a process of its own: the settings are the whole process's."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from l2q.learning.memory import keep_freed_memory
import torch

{setting}
def step():  # what a training step does: large blocks come and go
    for _ in range(8):
        (torch.zeros(4, 2**22) + 1).mul_(2)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_freed_memory_is_not_mapped_anew():
    def faults(setting):
        environment = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}  # small pages, so that all are counted
        command = [sys.executable, "-c", FAULTS.format(setting=setting)]
        return int(subprocess.check_output(command, env=environment, text=True))

    assert faults("assert keep_freed_memory()") < faults("") / 10


def test_waiting_and_pages_are_set_before_the_libraries_load():
    names = "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT", "THP_MEM_ALLOC_ENABLE"
    bare = {key: value for key, value in os.environ.items() if key not in names}
    code = f"import sys, os, l2q; print(*map(os.getenv, {names}), {{'numpy', 'torch'}} & set(sys.modules))"

    def run(environment):
        return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).split()

    assert run(bare) == ["PASSIVE", "4", "1", "set()"]
    assert run(bare | {"OMP_WAIT_POLICY": "ACTIVE"})[0] == "ACTIVE"  # what the user says stays


@pytest.mark.parametrize(
    ("first", "said"),
    [("l2q", ""), ("torch", "torch and numpy came before l2q"), ("numpy", "numpy came before l2q")],
)
def test_libraries_that_came_first_are_said(first, said):
    """They have read none of the settings that ``l2q`` makes; a variable that the caller set is the caller's."""
    code = f"import {first}, l2q; from l2q.learning import memory; memory.prepare(); memory.prepare()"
    settings = {"OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT", "THP_MEM_ALLOC_ENABLE"}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.count("before l2q") == bool(said)
    assert said in done.stderr
    chosen = environment | dict.fromkeys(settings, "1")
    done = subprocess.run(command, env=chosen, capture_output=True, text=True, check=True)
    assert "before l2q" not in done.stderr
