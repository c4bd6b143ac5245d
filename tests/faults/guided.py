"""Bytes that a coverage-guided fuzzer (Atheris, libFuzzer) drives into the readers: an answer, or one line.

A trial is a process that tries ``BATCH`` inputs on one reader and goes where they reach new code. It is skipped where
Atheris is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable

from faults.frame import RIGHT, TRACEBACK, Found, Setting

FULL, SHORT, BATCH = 200_000, 10_000, 5_000

CODE = """
import atheris, os, sys, tempfile, warnings
from pathlib import Path
MODULES = ["l2q.events", "l2q.files", "l2q.data", "l2q.retrieval.manifest", "l2q.tracking"]
with atheris.instrument_imports(include=MODULES):
    from l2q.errors import L2QError
    import l2q.files, l2q.data.lightgcn, l2q.retrieval.manifest, l2q.data.cache, l2q.events.dialect, l2q.events.archives
    import l2q.events.encodings, l2q.events.lines, l2q.tracking.wandb_files, l2q.data.names
warnings.simplefilter("ignore")
folder = Path(sys.argv[2])
path = folder / "input"

def array(): l2q.files.read_array(path)
def ids(): l2q.data.lightgcn.read_lightgcn(path)
def manifest(): l2q.retrieval.manifest.read(folder)
def names(): l2q.data.names.read_names(path)
def records(): list(l2q.tracking.wandb_files.records(path))
def dialect():
    name, _ = l2q.events.encodings.encoding_of(path, "input")
    l2q.events.dialect.dialect("input", l2q.events.lines.first_lines(path, name), None, None)
def archive(): l2q.events.archives.unpacked(path, "input", folder / "unpacked")

target = globals()[sys.argv[1]]
if target is manifest:
    path = folder / "manifest.json"
SEEDS = {"array": b"\\x93NUMPY\\x01\\x00", "manifest": b"{", "archive": b"PK\\x03\\x04", "records": b":W&B"}

def once(data):
    path.write_bytes(data if len(data) % 3 else SEEDS.get(sys.argv[1], b"") + data)
    try:
        target()
    except (L2QError, ValueError) as error:
        if isinstance(error, ValueError) and target not in (array, names):
            raise
        assert "\\n" not in str(error), error

options = [f"-runs={sys.argv[3]}", f"-seed={sys.argv[4]}", "-verbosity=0", "-max_len=600", "-timeout=120"]
atheris.Setup([sys.argv[0], *options], once)
atheris.Fuzz()
"""


def _case(target: str) -> Callable[[Setting], list[Found]]:
    def trial(setting: Setting) -> list[Found]:
        if importlib.util.find_spec("atheris") is None:
            return []
        seed = 1 + int(setting.rng.integers(2**31 - 1))
        command = [sys.executable, "-c", CODE, target, str(setting.folder), str(BATCH), str(seed)]
        done = subprocess.run(
            command, cwd=setting.folder, env=os.environ, capture_output=True, text=True, timeout=280
        )
        said = done.stderr
        if done.returncode:
            place = said.find("=== Uncaught Python exception")
            return [
                Found(
                    TRACEBACK, f"{target}: {' '.join(said[max(place, len(said) - 1500, 0) :].split())[-600:]}"
                )
            ]
        return [Found(RIGHT)] * BATCH

    return trial


CASES = {name: _case(name) for name in ("array", "ids", "manifest", "names", "records", "dialect", "archive")}
