"""What a machine lacks, memory, room, rights or a place for temporary files: one line, and what was there before."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runs import SMALL, table

import l2q
from faults.children import Child, files_of, job, leftovers, of_job
from faults.frame import REFUSED, RIGHT, TRACEBACK, WRONG, Found, Setting
from faults.kills import prepare as prepare
from l2q.cli import main

FULL, SHORT = 400, 8
NOBODY = 65534
TRAINED = ["model=l2q", *SMALL, "logger=none"]


def _work(words: list[str]) -> Callable[[Path], Any]:
    return lambda folder: job(folder, [*table(folder.parent / "events.csv"), *words])


def _limited(
    case: str, words: list[str], limit: Callable[[Setting], Callable[[], Any]]
) -> Callable[..., Found]:
    """A job under a limit, and again without it."""

    def trial(setting: Setting) -> Found:
        work = _work(words)
        expected, _ = setting.made.of(case, work)
        table(setting.folder / "events.csv")
        apply = limit(setting)

        def narrow() -> Any:
            apply()
            return work(setting.folder / "run")

        found = of_job(Child(narrow).end(), list(expected[3:]))
        if found.outcome in (RIGHT, REFUSED):
            os.chmod(setting.folder, 0o777)
            again = of_job(Child(lambda: work(setting.folder / "run")).end(), list(expected[3:]))
            if again.outcome != RIGHT:
                return Found(WRONG, f"{found.said}; and with room: {again.said}")
            if left := leftovers(setting.folder):
                return Found(WRONG, f"left: {left}")
        return found

    return trial


def _file_size(setting: Setting) -> Callable[[], Any]:
    """Files may be no longer, as on a disk that is nearly full."""
    size = int(10 ** setting.rng.uniform(0, 5))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _memory(setting: Setting) -> Callable[[], Any]:
    more = int(setting.rng.uniform(1, 120) * 2**20)

    def apply() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        size = pages * os.sysconf("SC_PAGE_SIZE") + more
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return apply


def _descriptors(setting: Setting) -> Callable[[], Any]:
    few = len(os.listdir("/proc/self/fd")) + int(setting.rng.integers(1, 12))
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))


def _unprivileged() -> None:
    if os.getuid() == 0:  # who may write everywhere
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _read_only(setting: Setting) -> Callable[[], Any]:
    """The folder of the run, the one above it, or a folder in it."""
    os.chmod(setting.folder, 0o555)
    return _unprivileged


def _no_scratch(setting: Setting) -> Callable[[], Any]:
    """TMPDIR is absent, a file, or full."""
    place = setting.folder / "tmp"
    how = int(setting.rng.integers(2))
    if how:
        place.write_text("")

    def apply() -> None:
        os.environ["TMPDIR"] = str(place)
        tempfile.tempdir = None

    return apply


def _command(name: str) -> Callable[[Setting], Found]:
    """Commands that write, where files may be no longer or the folder is read-only: code 0 or 2, and a line."""

    def trial(setting: Setting) -> Found:
        folder, rng = setting.folder, np.random.default_rng(0)
        np.save(folder / "rows.npy", rng.standard_normal((700, 24)).astype(np.float32))
        rows = str(folder / "rows.npy")
        out = folder / "out"
        out.mkdir(mode=0o777)
        os.chmod(folder, 0o755)
        events = table(folder / "events.csv", users=300)[1].partition("=")[2]
        asked = {
            "quantize": [
                "quantize",
                "--users",
                rows,
                "--items",
                rows,
                "--bits",
                "32",
                "--out",
                f"{out}/index",
            ],
            "convert": ["convert", events, f"{out}/split", "--to", "csv", "--split", "random"],
            "inspect": ["inspect", events],
            "batch": ["batch", "--index", f"{folder}/index", "--out", f"{out}/top.parquet"],
        }[name]
        if name == "batch":
            made = Child(
                lambda: l2q.quantize(*[np.load(rows)] * 2, bits=32, seed=0).save(folder / "index")
            ).end()
            assert made is not None
            assert made.code == 0, made.said
        size, read_only = int(10 ** setting.rng.uniform(0, 5.2)), setting.rng.random() < 0.3

        def work() -> int:
            if read_only:
                os.chmod(out, 0o555)
                _unprivileged()
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return main(asked)

        end = Child(work).end()
        if end is None or end.code or end.traceback or end.value not in (0, 2):
            return Found(TRACEBACK, f"{end and end.code} {end and ' '.join(end.said.split())[-300:]}")
        there = files_of(out)
        if end.value:
            if there or leftovers(out):
                return Found(WRONG, f"refused, and left {there or leftovers(out)}")
            errors = [line for line in end.said.splitlines() if line.startswith("error: ")]
            return Found(REFUSED if len(errors) == 1 else WRONG, end.said[-300:])
        return Found(RIGHT)

    return trial


def _small_disk(setting: Setting) -> Found:
    """A file system of its own with room for a part of the run. Without the right to mount one, nothing is tried."""
    disk, work = setting.folder / "disk", _work(TRAINED)
    expected, _ = setting.made.of("small_disk", work)
    disk.mkdir()
    size = int(setting.rng.integers(40, 400))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return Found(REFUSED, "no right to mount a small disk: not tried")
    try:
        found = of_job(Child(lambda: work(disk / "run")).end(), list(expected[3:]))
        if found.outcome == REFUSED:
            subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
            again = of_job(Child(lambda: work(disk / "run")).end(), list(expected[3:]))
            return found if again.outcome == RIGHT else Found(WRONG, f"with room again: {again.said}")
        return found
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


CASES = {
    "file_size": _limited("file_size", TRAINED, _file_size),
    "small_disk": _small_disk,
    "memory": _limited("memory", TRAINED, _memory),
    "descriptors": _limited("descriptors", TRAINED, _descriptors),
    "read_only": _limited("read_only", ["model=popularity", "logger=none"], _read_only),
    "no_scratch": _limited("no_scratch", ["model=popularity", "logger=none"], _no_scratch),
    **{name: _command(name) for name in ("quantize", "convert", "inspect", "batch")},
}
