"""Runs in the process of a test, of settings as the command line composes them; ``train.py`` in one of its own."""

import csv
import functools
import importlib.util
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from hydra import compose, initialize_config_dir

from l2q.files import read_sealed
from l2q.learning.run import Run
from l2q.sweeps.sweep import plain

ROOT = Path(__file__).parents[1]


@functools.cache  # its resolvers, of which the settings of a table need one, are registered once
def entry_point() -> ModuleType:
    """``train.py`` as a module."""
    spec: Any = importlib.util.spec_from_file_location("entry", ROOT / "train.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    return entry


def composed(*words: str) -> dict[str, Any]:
    """The settings of a run by ``python train.py *words``, plain values."""
    entry_point()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return plain(compose("config", list(words)))


def run(folder: Path, *words: str, **named: Any) -> dict[str, Any]:
    """``python train.py *words`` in this process, its files in ``folder`` and nothing to W&B; the metrics."""
    return Run(composed("logger=none", *words), folder, **named)()


def table(path: Path, users: int = 60, more: str = "") -> list[str]:
    """Writes a table of events, whose users choose among 25 of its 45 items; the words that name it."""
    rng = np.random.default_rng(0)
    pairs = {(user, 10 * (user % 3) + item) for user in range(users) for item in rng.integers(25, size=9)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("user,item\n" + "".join(f"u{u},i{i}\n" for u, i in sorted(pairs)) + more)
    return ["dataset=table", f"dataset.dir={path}", "eval.ks=[5,20]"]


SMALL = ["model.embedding_dim=16", "batch_size=128", "epochs=2"]
"""A model that is trained on such a table, small and for two epochs."""
EVERY_EPOCH = "protocol.every_n_epochs=1"
"""Validation after each of them."""


class Trained(NamedTuple):
    """A run in this process, what it was built of, and every epoch's triplets as the training step got them."""

    words: list[str]
    folder: Path
    run: Run
    metrics: dict[str, Any]
    rows: list[dict[str, str]]
    epochs: dict[int, np.ndarray]


def train_recorded(folder: Path) -> Trained:
    rng = np.random.default_rng(1)
    pairs = {(user, 20 * (user % 3) + item) for user in range(90) for item in rng.integers(30, size=12)}
    lines = (f"u{user},i{item}\n" for user, item in sorted(pairs))
    (folder / "events.csv").write_text("user,item\n" + "".join(lines))
    words = ["model=lightgcn", "dataset=table", f"dataset.dir={folder}/events.csv", "model.embedding_dim=8"]
    words += ["epochs=8", "batch_size=128", "learning_rate=0.1", "logger=none", "eval.ks=[5,17]"]
    words += ["protocol.every_n_epochs=1", "protocol.patience=9", "trainer.accelerator=cpu"]
    made = Run(composed(*words), folder)
    assert made.training is not None
    recommender = made.training.recommender
    epochs: dict[int, list[np.ndarray]] = {}
    step = recommender.training_step

    def recorded(*inputs: Any) -> Any:
        triplets = np.stack([part.numpy() for part in inputs[0]])
        epochs.setdefault(recommender.current_epoch, []).append(triplets)
        return step(*inputs)

    recommender.training_step = recorded  # type: ignore[method-assign]
    metrics = made()
    rows = list(csv.DictReader((folder / "history.csv").open(newline="")))
    return Trained(words, folder, made, metrics, rows, {k: np.concatenate(v, 1) for k, v in epochs.items()})


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Files of this process may be no longer than ``size`` bytes, as on a disk that is nearly full. It ends in
    the test: what pytest writes may be a file that is longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def process(*words: str, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
    """``python train.py *words`` in a fresh process, its outputs below ``cwd``, without account or key."""
    done = subprocess.run(
        command(*words),
        cwd=cwd,
        env=environment(cwd) | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *words]


def environment(home: Path) -> dict[str, str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    return known | {"COLUMNS": "120", "HOME": str(home)}


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def metrics_of(folder: Path) -> dict[str, Any]:
    return read_sealed(folder / "metrics.json")


def history_of(folder: Path) -> list[dict[str, str]]:
    """Every column of ``history.csv`` that another run gives too: all but the seconds."""
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """What another run of the same settings gives too: all metrics, and the epoch."""
    return {
        key: value for key, value in metrics.items() if key == "epochs" or key.startswith(("val/", "test/"))
    }


def offline_records(folder: Path) -> Iterator[Any]:
    """The records of W&B's file of an offline run: a seven-byte head, then blocks of 32 KiB that hold chunks
    of records, each with a checksum, its length, and whether it is whole (1), first, middle or last (4)."""
    from wandb.proto import wandb_internal_pb2

    content = only(folder, "*.wandb").read_bytes()
    assert content[:4] == b":W&B"
    position, record = 7, b""
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # no room for a head: filled up
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        record = (b"" if kind in (1, 2) else record) + content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(record)


def offline_history(folder: Path) -> list[dict[str, Any]]:
    """What such a file keeps of every epoch."""
    return [
        {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
        for record in offline_records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def offline_run(folder: Path) -> Any:
    """What such a file says of the run itself: ``display_name``, ``run_group``, ``run_id``."""
    return next(record.run for record in offline_records(folder) if record.WhichOneof("record_type") == "run")
