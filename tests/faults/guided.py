"""Bytes that a coverage-guided fuzzer (Atheris, libFuzzer) drives into the readers: an answer, or one line.

A trial is a process that tries ``BATCH`` inputs on one reader, from whole files on, and goes where they reach new
code. It is skipped where Atheris is not installed.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from runs import composed, table

import l2q
from faults.corruptions import CSV, ROWS, zipped
from faults.frame import RIGHT, TRACEBACK, Found, Setting
from l2q.learning.jobs import Job

FULL, SHORT, BATCH = 200_000, 18_000, 10_000

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

def sealed(): l2q.files.read_sealed(path)
def listed():
    for name in ("input", "input.csv"):
        (folder / name).write_bytes(path.read_bytes())
        l2q.data.names.read_list(folder / name, "item", l2q.data.names.np.arange(4))

target = globals()[sys.argv[1]]
if target is manifest:
    path = folder / "manifest.json"

def again_sealed(data):
    # with the checksum that it would have, or no input would get behind it
    try:
        found = l2q.files.read_json(path)
        return l2q.files.json.dumps({**found, "sha256": l2q.files.checksum(found)}).encode()
    except (L2QError, ValueError, TypeError):
        return data

def once(data):
    path.write_bytes(data)
    if len(data) % 2 and target in (manifest, sealed):
        path.write_bytes(again_sealed(data))
    try:
        target()
    except (L2QError, ValueError) as error:
        if isinstance(error, ValueError) and target not in (array, names, sealed):
            raise
        assert "\\n" not in str(error), error

options = [f"-runs={sys.argv[3]}", f"-seed={sys.argv[4]}", "-verbosity=0", "-max_len=2000", "-timeout=120", sys.argv[5]]
atheris.Setup([sys.argv[0], *options], once)
atheris.Fuzz()
"""


def _whole(target: str, place: Path) -> Iterator[bytes]:
    """Files that are right, from which the fuzzer begins."""
    rng = np.random.default_rng(0)
    if target == "array":
        for number, array in enumerate((np.arange(6), rng.random((2, 3)), np.zeros((0, 4), np.uint8))):
            np.save(place / f"{number}.npy", array)
            yield (place / f"{number}.npy").read_bytes()
    elif target in ("manifest", "names"):
        events = l2q.read_events(table(place / "events.csv")[1].partition("=")[2])
        folder = l2q.fit(events, "spectral", seed=0).save(place / "index")
        yield (folder / ("manifest.json" if target == "manifest" else "items.txt")).read_bytes()
    elif target in ("records", "sealed"):
        words = [*table(place / "events.csv"), "model=popularity", "logger=wandb"]
        Job(composed(*words), place / "run").attempt()
        files = (
            (place / "run" / "wandb").glob("*/*.wandb")
            if target == "records"
            else [place / "run" / "metrics.json"]
        )
        yield from (path.read_bytes()[:1900] for path in files)
    elif target == "archive":
        yield from (pack(CSV[:300]) for pack in (gzip.compress, bz2.compress, lzma.compress, zipped))
    else:
        lines = [",".join(map(str, row)) for row in ROWS[:9]]
        yield from (
            CSV[:400],
            "\n".join(lines).encode().replace(b",", b"\t"),
            b"# user item\n1 2\n1 3\n2 3\n",
            b'"user";"item"\r\n"a ""b""";"c"\r\n',
            b" user | item\n------+------\n a    | b\n(1 row)\n",
            b"user_id:token\titem_id:token\na\tb\n",
            b"org_id remap_id\n17 0\n18 1\n19 2\n",
            b"0 1 2 3\n1 2\n2\n",
            b"sep=;\n0,5;7\n",
        )


def prepare(folder: Path) -> Path:
    os.environ["WANDB_MODE"] = "offline"
    for target in CASES:
        place, corpus = folder / "made" / target, folder / target
        place.mkdir(parents=True)
        corpus.mkdir()
        for number, data in enumerate(_whole(target, place)):
            (corpus / str(number)).write_bytes(data)
    return folder


def _case(target: str) -> Callable[[Setting], list[Found]]:
    def trial(setting: Setting) -> list[Found]:
        if importlib.util.find_spec("atheris") is None:
            return []
        seed = 1 + int(setting.rng.integers(2**31 - 1))
        corpus = shutil.copytree(setting.made / target, setting.folder / "corpus")
        told = [target, str(setting.folder), str(BATCH), str(seed), str(corpus)]
        command = [sys.executable, "-c", CODE, *told]
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


TARGETS = ("array", "ids", "manifest", "names", "listed", "records", "sealed", "dialect", "archive")
CASES = {name: _case(name) for name in TARGETS}
