"""Hours of work in one process: every result stays the first one, memory stays flat, no file is left."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from runs import SMALL, composed, figures, table

import l2q
from faults.frame import RIGHT, WRONG, Found, Setting
from l2q.cli import main
from l2q.learning.jobs import Job

SHORT, MINUTES = 10, 120
GROWTH = 0.05
"""MiB a trial that memory may grow, behind the first third: what an allocator keeps, measured, is below it."""


@dataclass
class Soak:
    events: str
    index: Path
    train: Any
    test: Any
    first: dict[str, Any] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    scratch: list[int] = field(default_factory=list)


def prepare(folder: Path) -> Soak:
    scratch = folder / "tmp"
    scratch.mkdir()
    tempfile.tempdir, os.environ["TMPDIR"] = str(scratch), str(scratch)
    os.environ["L2Q_CACHE"] = str(folder / "cache")
    events = table(folder / "events.csv")[1].partition("=")[2]
    train, test = l2q.split(l2q.read_events(events), "random", fraction=0.2, seed=0)
    index = l2q.fit(train, "l2q_anl", seed=0, epochs=2, batch_size=128, model={"embedding_dim": 16})
    return Soak(events, index.save(folder / "index"), train, test)


def finish(soak: Soak) -> dict[str, Found]:
    """Memory over the trials, open files, files in TMPDIR."""
    growth, size = _growth(soak.memory), len(soak.memory)
    said = (
        f"{growth:+.4f} MiB a trial behind the first third of {size:,}, {soak.memory[-1]:,.0f} MiB at the end"
    )
    more = soak.opened[-1] - soak.opened[min(9, len(soak.opened) - 1)]
    left = [name for name in sorted(os.listdir(tempfile.gettempdir())) if "wandb" not in name]
    of_wandb = soak.scratch[-1] - soak.scratch[min(99, len(soak.scratch) - 1)]
    return {
        "memory": Found(RIGHT if growth < GROWTH or size < 300 else WRONG, said),
        "open files": Found(RIGHT if more <= 0 else WRONG, f"{more} more at the end"),
        "files left": Found(RIGHT if not left else WRONG, f"in TMPDIR: {left[:5]}"),
        # W&B's service has some as long as the process lives
        "files of W&B": Found(RIGHT if of_wandb <= 0 else WRONG, f"{of_wandb} more at the end"),
    }


def _growth(memory: list[float]) -> float:
    """MiB a trial: between the least of the fourth tenth and of the last one."""
    tenth = max(len(memory) // 10, 1)
    early, late = memory[3 * tenth : 4 * tenth] or memory[:1], memory[-tenth:]
    return (min(late) - min(early)) / max(6 * tenth, 1)


def _fit(model: str, /, **named: Any) -> Callable[[Setting], Any]:
    def trial(setting: Setting) -> Any:
        found = l2q.fit(setting.made.train, model, seed=0, **named)
        values = l2q.evaluate(found, setting.made.test, ks=[5]).metrics
        return (
            [array.tobytes() for array in found.arrays.values()],
            values,
            list(found.recommend("u1", k=3).items),
        )

    return trial


def _job(logger: str) -> Callable[[Setting], Any]:
    def trial(setting: Setting) -> Any:
        words = [*table(setting.folder / "events.csv"), "model=l2q", *SMALL, f"logger={logger}"]
        outcome = Job(composed(*words), setting.folder / "run").attempt()
        return outcome.state, figures(outcome.metrics)

    return trial


def _queries(setting: Setting) -> Any:
    opened = l2q.load_index(setting.made.index)
    users, items = opened.user_names[:20], opened.item_names[:20]
    return (
        [opened.recommend(user, k=5).items for user in users],
        [opened.similar(item, k=5).items for item in items],
        [opened.recommend(items=list(items[i : i + 3]), k=5).items for i in range(10)],
    )


def _save(setting: Setting) -> Any:
    opened = l2q.load_index(setting.made.index)
    for _ in range(5):
        opened.save(setting.folder / "copy")
    return sorted((path.name, path.read_bytes()) for path in (setting.folder / "copy").iterdir())


def _commands(setting: Setting) -> Any:
    said = io.StringIO()
    index, out = str(setting.made.index), setting.folder / "top.parquet"
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        codes = [
            main(["recommend", "--index", index, "--user", "u3"]),
            main(["recommend", "--index", index, "--user", "nobody"]),
            main(["similar", "--index", index, "--item", "i7"]),
            main(["info", "--index", index]),
            main(["batch", "--index", index, "--out", str(out)]),
        ]
    shown = said.getvalue().replace(str(setting.folder), "")
    return codes, "\n".join(line.rstrip() for line in shown.splitlines()), out.read_bytes()


def _dataset(setting: Setting) -> Any:
    data = l2q.load_dataset("table", dir=setting.made.events, cache_dir=setting.folder / "cache")
    again = l2q.load_dataset("table", dir=setting.made.events, cache_dir=setting.folder / "cache")
    return data.train.fingerprint, data.test.fingerprint, again.train.fingerprint, again.test.fingerprint


def _quantize(setting: Setting) -> Any:
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((80, 12)), rng.standard_normal((60, 12))
    found = l2q.quantize(users.astype(np.float32), items.astype(np.float32), bits=32, seed=0)
    return [array.tobytes() for array in found.arrays.values()]


def _steady(name: str, work: Callable[[Setting], Any]) -> Callable[[Setting], Found]:
    def trial(setting: Setting) -> Found:
        soak: Soak = setting.made
        result = work(setting)
        first = soak.first.setdefault(name, result)
        statm = Path("/proc/self/statm")
        if statm.exists():
            pages = int(statm.read_text().split()[1])
            soak.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            soak.scratch.append(len(os.listdir(tempfile.gettempdir())))
            soak.opened.append(len(os.listdir("/proc/self/fd")))
        return Found(RIGHT) if result == first else Found(WRONG, f"{name} gave another result than at first")

    return trial


TINY: dict[str, Any] = {"epochs": 2, "batch_size": 128, "model": {"embedding_dim": 16}}
CASES = {
    name: _steady(name, work)
    for name, work in {
        "popularity": _fit("popularity"),
        "spectral": _fit("spectral"),
        "l2q_plus": _fit("l2q_plus", bits=16),
        "l2q_anl": _fit("l2q_anl", protocol="holdout", **TINY),
        "lightgcn": _fit("lightgcn", **TINY),
        "job": _job("none"),
        "wandb": _job("wandb"),
        "queries": _queries,
        "save": _save,
        "commands": _commands,
        "dataset": _dataset,
        "quantize": _quantize,
    }.items()
}
