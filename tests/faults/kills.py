"""SIGKILL at any moment: what is on disk is whole, and the same again ends as if nothing had been."""

from __future__ import annotations

import http.server
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runs import EVERY_EPOCH, SMALL, table

import l2q
from faults.children import Child, files_of, job, leftovers, of_job
from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Setting
from l2q.files import aside
from l2q.interactions import Interactions
from l2q.learning import checkpoints
from l2q.representations import Representations
from l2q.retrieval.named import Index

FULL, SHORT = 200, 6

TRAINED = ["model=l2q_anl", *SMALL[:2], "epochs=4", EVERY_EPOCH, "logger=none"]
FITTED = ["model=l2q_plus", "model.bits=16", "logger=none"]


@dataclass
class Undisturbed:
    """What comes of each case without a kill, and how long it takes."""

    folder: Path
    known: dict[str, tuple[Any, float]] = field(default_factory=dict)

    def of(self, case: str, work: Callable[[Path], Any]) -> tuple[Any, float]:
        if case not in self.known:
            for attempt in range(2):  # the first one compiles kernels
                started = time.monotonic()
                end = Child(lambda number=attempt: work(self.folder / f"{case}-whole-{number}")).end()
                assert end is not None, case
                assert end.code == 0, end.said
                self.known[case] = end.value, time.monotonic() - started
        return self.known[case]


def prepare(folder: Path) -> Undisturbed:
    torch.set_num_threads(1)  # threads do not survive a fork
    os.environ["L2Q_CACHE"] = str(folder / "cache")
    return Undisturbed(folder)


def _killed(work: Callable[[], Any], setting: Setting, seconds: float) -> bool:
    """Whether it was killed, at a moment of its time; False where it ended before."""
    child = Child(work)
    time.sleep(float(setting.rng.uniform(0, seconds)))
    child.send(signal.SIGKILL)
    end = child.end()
    return end is None or end.code == -signal.SIGKILL


def _job(case: str, words: list[str]) -> Callable[[Setting], Found]:
    def trial(setting: Setting) -> Found:
        def work(folder: Path) -> Any:
            return job(folder, [*table(folder.parent / "events.csv"), *words])

        expected, seconds = setting.made.of(case, work)
        for _ in range(1 + int(setting.rng.integers(2))):
            _killed(lambda: work(setting.folder / "run"), setting, seconds)
        found = of_job(Child(lambda: work(setting.folder / "run")).end(), list(expected[3:]))
        if left := leftovers(setting.folder):
            return Found(WRONG, f"left: {left}")
        return found

    return trial


def _checkpointing(setting: Setting) -> Found:
    path = setting.folder / "checkpoints" / "last.ckpt"

    def write() -> None:
        for number in itertools.count():
            content = {"l2q": {}, "epoch": number, "state_dict": {"w": torch.full((200_000,), float(number))}}
            checkpoints.CheckpointFiles().save_checkpoint(content, path)

    child = Child(write)
    while not path.exists():
        time.sleep(0.001)
    time.sleep(float(setting.rng.uniform(0, 0.3)))
    child.send(signal.SIGKILL)
    child.end()
    found = checkpoints.load(path)
    weights = found["state_dict"]["w"]
    whole = len(weights) == 200_000 and bool((weights == found["epoch"]).all())
    checkpoints.CheckpointFiles().save_checkpoint(found, path)
    left = os.listdir(path.parent)
    return Found(RIGHT if whole and left == ["last.ckpt"] else WRONG, f"epoch {found['epoch']}, files {left}")


def _indexes() -> list[Index]:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((rows, 16)).astype(np.float32) for rows in (2000, 3000))
    train = Interactions.from_pairs(np.arange(2000), np.arange(2000), 2000, 3000)
    return [Index.of(Representations.floats(users, items), train, dataset=str(number)) for number in range(2)]


def _export(setting: Setting) -> Found:
    place, indexes = setting.folder / "place" / "index", _indexes()
    indexes[0].save(place)
    (place / "of-others.txt").write_text("kept")

    def write() -> None:
        for index in itertools.cycle(indexes):
            index.save(place)

    child = Child(write)
    time.sleep(float(setting.rng.uniform(0, 0.4)))
    child.send(signal.SIGKILL)
    child.end()
    there = place if place.exists() else aside(place)  # between the two renames
    whole = l2q.load_index(there).manifest["dataset"] in "01"
    indexes[1].save(place)
    anew = l2q.load_index(place).manifest["dataset"] == "1"
    kept = (place / "of-others.txt").read_text() == "kept"
    alone = os.listdir(place.parent) == ["index"]
    return Found(RIGHT if whole and anew and kept and alone else WRONG, f"{whole}, {anew}, {kept}, {alone}")


class Slow(http.server.BaseHTTPRequestHandler):
    """A set in pieces, so that a kill finds a part of it."""

    def do_GET(self) -> None:
        body = ids(1 if "test" in self.path else 0)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), 2000):
            self.wfile.write(body[start : start + 2000])
            time.sleep(0.01)

    def log_message(self, *_: Any) -> None:
        pass


def ids(seed: int) -> bytes:
    """A train or test part of the LightGCN paper's form."""
    rng = np.random.default_rng(seed)
    lines = [" ".join(map(str, [user, *rng.permutation(200)[:20]])) for user in range(200)]
    return ("\n".join(lines) + "\n").encode()


def fetched(url: str, cache: Path) -> Any:
    import hashlib

    md5 = {part: hashlib.md5(ids(number)).hexdigest() for number, part in enumerate(("train", "test"))}
    data = l2q.load_dataset("fetched", url=url, md5=md5, cache_dir=cache)
    return data.train.fingerprint, data.test.fingerprint


def again(setting: Setting, work: Callable[[], Any], expected: Any) -> Found:
    end = Child(work).end()
    if end is None:
        return Found(WRONG, "no end")
    if end.code:
        return Found(TRACEBACK if end.traceback else WRONG, end.said[-300:])
    return Found(RIGHT if end.value == expected else WRONG, "another set")


def _download(setting: Setting) -> Found:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/"
        expected, seconds = setting.made.of("download", lambda folder: fetched(url, folder))
        cache = setting.folder / "cache"
        _killed(lambda: fetched(url, cache), setting, seconds)
        found = again(setting, lambda: fetched(url, cache), expected)
    finally:
        server.shutdown()
        server.server_close()
    left = [path.name for path in (setting.folder / "cache" / "fetched").iterdir()]
    if found.outcome == RIGHT and {"train.txt", "test.txt"} - set(left):
        return Found(WRONG, f"files: {left}")
    return found


def _cache(setting: Setting) -> Found:
    events = table(setting.made.folder / "cached.csv", users=600)[1].partition("=")[2]

    def work(cache: Path) -> Any:
        data = l2q.load_dataset("table", dir=events, cache_dir=cache)
        return data.train.fingerprint, data.test.fingerprint

    expected, seconds = setting.made.of("cache", work)
    _killed(lambda: work(setting.folder / "cache"), setting, seconds)
    return again(setting, lambda: work(setting.folder / "cache"), expected)


def commands(place: Path) -> Callable[[Path], Any]:
    """``python -m l2q quantize``, ``batch``, ``export`` and ``convert`` of what lies in ``place``: the exit codes, and
    their files."""
    from l2q.cli import main

    rng = np.random.default_rng(0)
    for side in ("users", "items"):
        np.save(place / f"{side}.npy", rng.standard_normal((900, 24)).astype(np.float32))
    events = table(place / "events.csv", users=300)[1].partition("=")[2]

    def work(folder: Path) -> Any:
        folder.mkdir(exist_ok=True)
        arrays = ["--users", f"{place}/users.npy", "--items", f"{place}/items.npy", "--bits", "32"]
        codes = []
        for words in (
            ["quantize", *arrays, "--out", f"{folder}/index"],
            ["batch", "--index", f"{folder}/index", "--out", f"{folder}/top.parquet"],
            ["export", "--index", f"{folder}/index", "--to", "parquet", "--out", f"{folder}/engine"],
            ["convert", events, f"{folder}/split", "--to", "csv", "--split", "random", "--force"],
        ):
            if code := main(words):
                return [*codes, code]
            codes.append(code)
        written = [files_of(folder / part) for part in ("index", "engine", "split")]
        return codes, written, (folder / "top.parquet").read_bytes()

    return work


def _commands(setting: Setting) -> Found:
    """Their files are there whole or not at all."""
    work = commands(setting.folder)
    expected, seconds = setting.made.of("commands", work)
    _killed(lambda: work(setting.folder / "out"), setting, seconds)
    found = again(setting, lambda: work(setting.folder / "out"), expected)
    return Found(WRONG, f"left: {left}") if (left := leftovers(setting.folder)) else found


CASES = {
    "training": _job("training", TRAINED),
    "fitting": _job("fitting", FITTED),
    "checkpointing": _checkpointing,
    "export": _export,
    "download": _download,
    "cache": _cache,
    "commands": _commands,
}
