"""Files that are read, with other bytes than were written: refused by name, or read as they were.

What is written by this package has checksums: there, another result without a word is wrong. A table of somebody's has
none. There, what comes out must be what a plain reader of the same bytes finds, or be refused or noted.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import shutil
import sqlite3
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from runs import EVERY_EPOCH, SMALL, composed, figures, table

import l2q
from faults.frame import RIGHT, WRONG, Found, Setting, told
from faults.mutations import mutated
from l2q.errors import L2QError
from l2q.learning import checkpoints
from l2q.learning.jobs import Job
from l2q.report import runs as report
from l2q.tracking.wandb_files import told as wandb_told
from l2q.tracking.wandb_rebuild import rebuild

FULL, SHORT = 20_000, 170


@dataclass
class Sample:
    """Files of one kind: those that are changed, how they are read, what comes of them unchanged. ``read`` returns
    what can be compared; ``allowed``: whether another result is no harm, by the file as it is now."""

    files: Sequence[Path]
    read: Callable[[], Any]
    allowed: Callable[[Path, Any], bool] = lambda path, result: False
    names: tuple[str, ...] = ()
    expected: Any = None
    after: Callable[[], None] = lambda: None


@dataclass
class Samples:
    folder: Path
    made: dict[str, Sample] = field(default_factory=dict)

    def __getitem__(self, case: str) -> Sample:
        if case not in self.made:
            place = self.folder / "samples" / case
            place.mkdir(parents=True)
            sample = self.made[case] = MAKERS[case](place)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sample.expected = sample.read()
                assert sample.read() == sample.expected, case
        return self.made[case]


def prepare(folder: Path) -> Samples:
    os.environ["L2Q_CACHE"] = str(folder / "cache")
    return Samples(folder)


def _case(case: str) -> Callable[[Setting], Found]:
    def trial(setting: Setting) -> Found:
        sample = setting.made[case]
        path = sample.files[int(setting.rng.integers(len(sample.files)))]
        whole, times = path.read_bytes(), path.stat()
        changed, how = mutated(setting.rng, whole)
        path.write_bytes(changed)
        if case == "cache":  # or it would be made anew for its time alone
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        results: list[Any] = []

        def read() -> Any:
            results.append(sample.read())
            return results[-1]

        try:
            found = told(read, lambda result: result == sample.expected, sample.names or (path.name,))
            if found.outcome == WRONG and results and _allowed(sample, path, results[-1]):
                found = Found(RIGHT, "as a plain reader finds it")
        finally:
            path.write_bytes(whole)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            sample.after()
        return Found(found.outcome, f"{path.name} by {how}: {found.said}")

    return trial


def _allowed(sample: Sample, path: Path, result: Any) -> bool:
    try:
        return sample.allowed(path, result)
    except Exception:  # a plain reader refuses it
        return False


# What this package writes


def _contents(index: l2q.Index) -> Any:
    users = np.arange(index.num_users)
    ranked = index.search(users, 5, index.exclude)
    arrays = {name: array.tobytes() for name, array in index.arrays.items()}
    said = {key: value for key, value in index.manifest.items() if key != "sha256"}
    return arrays, list(index.user_names), list(index.item_names), said, *(part.tobytes() for part in ranked)


def _saved(place: Path, model: str, **named: Any) -> Path:
    events = table(place / "events.csv")[1].partition("=")[2]
    return l2q.fit(l2q.read_events(events), model, seed=0, **named).save(place / "index")


def _index(model: str, pattern: str, **named: Any) -> Callable[[Path], Sample]:
    def make(place: Path) -> Sample:
        folder = _saved(place, model, **named)
        return Sample(sorted(folder.glob(pattern)), lambda: _contents(l2q.load_index(folder)))

    return make


def _checkpoint(place: Path) -> Sample:
    words = [*table(place / "events.csv"), *SMALL, EVERY_EPOCH, "logger=none", "model=l2q_anl"]
    Job(composed(*words), place / "run").attempt()
    path = place / "run" / "checkpoints" / "last.ckpt"
    return Sample([path], lambda: checkpoints.checksum(checkpoints.load(path)))


def _parts(data: l2q.Dataset) -> Any:
    names = [[] if side is None else list(side) for side in (data.user_names, data.item_names)]
    return data.train.fingerprint, data.test.fingerprint, *names


def _cache(place: Path) -> Sample:
    events = table(place / "events.csv")[1].partition("=")[2]

    def read() -> Any:
        return _parts(l2q.load_dataset("table", dir=events, cache_dir=place / "cache"))

    read()
    return Sample(list((place / "cache").glob("*.npz")), read)


def _run(*files: str, reports: bool = True) -> Callable[[Path], Sample]:
    """A run that is done: what a report shows of it, and what the same job again gives, or that alone."""

    def make(place: Path) -> Sample:
        words = [*table(place / "events.csv"), *SMALL, EVERY_EPOCH, "model=l2q", "logger=none"]
        job, folder = Job(composed(*words), place / "run"), place / "run"
        assert job.attempt().state == "done"
        kept = place / "kept"
        shutil.copytree(folder, kept)

        def restore() -> None:
            if any(
                path.stat().st_mtime_ns != (kept / path.name).stat().st_mtime_ns for path in _tops(folder)
            ):
                shutil.rmtree(folder)
                shutil.copytree(kept, folder)

        def again() -> Any:
            outcome = job.attempt()
            if outcome.state != "done":
                raise L2QError(outcome.reason)
            return figures(outcome.metrics)

        def read() -> Any:
            rows = report.read(folder, allow_none=True)
            left = [(each.state, each.epoch, each.epochs) for each in report.unfinished(folder)]
            curves = report.history(folder / report.HISTORY)
            users = [report.per_user(row, "recall_20") for row in rows]
            chosen = report.config_of(folder)
            shown = [[part.tobytes() for part in pair] if pair else None for pair in users]
            untimed = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in curves]
            return again(), [figures(row) for row in rows], left, untimed, shown, chosen

        names = (*files, "run")
        return Sample(
            [folder / name for name in files], read if reports else again, names=names, after=restore
        )

    return make


def _tops(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and path.suffix in (".json", ".csv", ".npz")]


def _wandb(place: Path) -> Sample:
    """W&B's own files: which epochs they hold decides which are told again."""
    words = [*table(place / "events.csv"), *SMALL, EVERY_EPOCH, "model=l2q", "logger=wandb"]
    Job(composed(*words), place / "run").attempt()
    path = next((place / "run" / "wandb").glob("*/*.wandb"))
    run_id = path.stem.removeprefix("run-")

    def read() -> Any:
        found = wandb_told(place / "run", run_id)
        return found.epochs, found.steps

    def fewer(_: Path, result: Any) -> bool:
        return result[0] <= {1, 2} and result[1] <= 3  # those behind the damage are told again

    return Sample([path], read, fewer)


def _wandb_id(place: Path) -> Sample:
    """The id of the run in W&B. A changed one is another run's: nothing is known of it, and all is told."""
    words = [*table(place / "events.csv"), *SMALL, "model=popularity", "logger=wandb"]
    Job(composed(*[word for word in words if word not in SMALL]), place / "run").attempt()
    path = place / "run" / "checkpoints" / "wandb_id.txt"

    def read() -> Any:
        made = rebuild(place / "run")
        whole = len(list(made.glob("*.wandb")))
        shutil.rmtree(made)
        return whole

    return Sample([path], read)


# What others write

ROWS = [
    (f"user {u}", f"item-{i}", 1_600_000_000 + 3600 * u + i) for u in range(40) for i in range(u % 7, 25, 4)
]


def _pairs(found: l2q.Interactions) -> list[tuple[str, str]]:
    """By names; where there are none, the numbers are the names."""
    users, items = (
        list(map(str, range(size))) if names is None else names
        for names, size in ((found.user_names, found.num_users), (found.item_names, found.num_items))
    )
    return sorted((users[user], items[item]) for user, item in zip(found.users, found.items, strict=True))


def _text(delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerows([("user", "item", "time"), *ROWS])
    return out.getvalue().encode()


def _plain_text(delimiter: str) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        rows = list(
            csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter, strict=True)
        )
        assert rows[0][:2] == ["user", "item"]
        return sorted({(row[0], row[1]) for row in rows[1:] if row})

    return parse


def _jsonl(data: bytes) -> Any:
    rows = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
    return sorted({(str(row["user"]), str(row["item"])) for row in rows})


def _columns(found: pa.Table) -> Any:
    return sorted(
        set(zip(map(str, found["user"].to_pylist()), map(str, found["item"].to_pylist()), strict=True))
    )


def _arrow() -> pa.Table:
    return pa.table(dict(zip(("user", "item", "time"), map(list, zip(*ROWS, strict=True)), strict=True)))


def _packed(write: Callable[[Any, Any], None]) -> bytes:
    out = io.BytesIO()
    write(_arrow(), out)
    return out.getvalue()


def _sqlite(data: bytes) -> Any:
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data)
    return sorted({(str(u), str(i)) for u, i in connection.execute("SELECT user, item FROM events")})


def _sqlite_bytes() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE events (user TEXT, item TEXT, time INTEGER)")
    connection.executemany("INSERT INTO events VALUES (?, ?, ?)", ROWS)
    connection.commit()
    return connection.serialize()


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("events.csv", data)
    return out.getvalue()


def _unzip(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(archive.namelist()[0])


def _table(name: str, data: bytes, plain: Callable[[bytes], Any]) -> Callable[[Path], Sample]:
    """``plain``: the pairs that a plain reader of the format finds."""

    def make(place: Path) -> Sample:
        path = place / name
        path.write_bytes(data)

        def read() -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = l2q.read_events(path)
            return _pairs(found), found.reading.notes if found.reading else []

        def allowed(path: Path, result: Any) -> bool:
            pairs, notes = result
            if notes:  # something odd was found, and is shown
                return True
            return plain(path.read_bytes()) == pairs

        return Sample([path], read, allowed)

    return make


def _ids(data: bytes) -> Any:
    rows = [line.split() for line in data.decode().splitlines()]
    return sorted({(str(int(row[0])), str(int(item))) for row in rows if row for item in row[1:]})


def _split(kind: str) -> Callable[[Path], Sample]:
    """A folder of a train and a test part: ids as of the LightGCN paper, and two tables."""

    def make(place: Path) -> Sample:
        rng, lines = np.random.default_rng(0), {"train": [], "test": []}
        for user in range(30):
            items = rng.permutation(40)[:9].tolist()
            parts = {"train": items[:6], "test": items[6:]}
            for part, chosen in parts.items():
                if kind == "txt":
                    lines[part].append(" ".join(map(str, [user, *chosen])))
                else:
                    lines[part] += [f"u{user},i{item}" for item in chosen]
        files = [place / f"{part}.{kind}" for part in lines]
        for path, written in zip(files, lines.values(), strict=True):
            path.write_text("\n".join((["user,item"] if kind == "csv" else []) + written) + "\n")

        def read() -> Any:
            data = l2q.load_dataset("table", dir=place, cache_dir=place.parent / f"{place.name}-cache")
            return [_pairs(part) for part in (data.train, data.test)]

        def allowed(_: Path, result: Any) -> bool:
            plain = _ids if kind == "txt" else DELIMITED
            train, test = (plain(path.read_bytes()) for path in files)
            return [train, sorted(set(test) - set(train))] == result  # what train has is no test

        return Sample(files, read, allowed, names=tuple(path.name for path in files))

    return make


CSV = _text(",")
DELIMITED = _plain_text(",")
MAKERS: dict[str, Callable[[Path], Sample]] = {
    "index": _index("l2q_plus", "*", bits=24),
    "float_index": _index("spectral", "*"),
    "manifest": _index("l2q_plus", "manifest.json", bits=24),
    "names": _index("popularity", "*.txt"),
    "checkpoint": _checkpoint,
    "cache": _cache,
    "metrics": _run("metrics.json"),
    "status": _run("status.json"),
    "configuration": _run("config.json"),
    "history": _run("history.csv"),
    "per_user": _run("per_user.npz"),
    "run_again": _run(
        "metrics.json", "status.json", "config.json", "history.csv", "per_user.npz", reports=False
    ),
    "wandb": _wandb,
    "wandb_id": _wandb_id,
    "csv": _table("events.csv", CSV, DELIMITED),
    "tsv": _table("events.tsv", _text("\t"), _plain_text("\t")),
    "jsonl": _table(
        "events.jsonl",
        "".join(
            json.dumps(dict(zip(("user", "item", "time"), row, strict=True))) + "\n" for row in ROWS
        ).encode(),
        _jsonl,
    ),
    "parquet": _table(
        "events.parquet", _packed(pq.write_table), lambda data: _columns(pq.read_table(io.BytesIO(data)))
    ),
    "arrow": _table(
        "events.feather",
        _packed(feather.write_feather),
        lambda data: _columns(feather.read_table(io.BytesIO(data))),
    ),
    "sqlite": _table("events.sqlite", _sqlite_bytes(), _sqlite),
    "gzip": _table(
        "events.csv.gz", gzip.compress(CSV, mtime=0), lambda data: DELIMITED(gzip.decompress(data))
    ),
    "bzip2": _table("events.csv.bz2", bz2.compress(CSV), lambda data: DELIMITED(bz2.decompress(data))),
    "xz": _table("events.csv.xz", lzma.compress(CSV), lambda data: DELIMITED(lzma.decompress(data))),
    "zip": _table("events.zip", zipped(CSV), lambda data: DELIMITED(_unzip(data))),
    "split_ids": _split("txt"),
    "split_tables": _split("csv"),
}
CASES = {case: _case(case) for case in MAKERS}
SLOW = ("metrics", "status", "configuration", "history", "per_user", "wandb_id")
SHARES = {case: 1 if case in SLOW else 4 for case in CASES}
