"""Exports beside the index that they come from: which rankings are the same, how large they are, how long one takes.

    python benchmarks/exports.py INDEX... [--generated ITEMS] [--users 1000] [--engines faiss duckdb ...] [--json FILE]

An INDEX is a folder; `--generated ITEMS` adds one of random codes of 768 bits with a scale an item. Codes of several
scales are asked as they are and, for engines of one scale, quantized to one segment first (`NAME, one segment`).
PostgreSQL is started from Debian's packages.

`same` is the share of users whose Top-20 has the same items in the same places, train items left out. `but for ties`
counts a ranking as the same where its items have, place by place, the scores that the index has there. One user is
asked at a time, on one thread; `ms` is the median over users, connections and files open. The last row of an index is
what FAISS does without its scales, by Hamming distance alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import duckdb
import faiss
import numba
import numpy as np
from rich.console import Console
from rich.table import Table

import l2q
from l2q.errors import L2QError
from l2q.exports import ENGINES
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows

K = 20
RUN_HERE = ("faiss", "usearch", "duckdb", "postgres", "parquet")
Ask = Callable[[int], list[int]]
"""The items of a user's ranking."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("indexes", nargs="*", metavar="INDEX", help="folder of an index of codes")
    parser.add_argument("--generated", type=int, metavar="ITEMS")
    parser.add_argument("--users", type=int, default=1000, help="asked, every so many of all (1000)")
    parser.add_argument("--engines", nargs="*", choices=ENGINES, default=RUN_HERE)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    faiss.omp_set_num_threads(1)
    numba.set_num_threads(1)
    indexes = {_name(folder): l2q.load_index(folder) for folder in options.indexes}
    if options.generated:
        indexes[f"{options.generated:,} items"] = generated(options.generated)
    records = []
    for name, index in indexes.items():
        print(
            f"{name}: {index.num_users:,} users x {index.num_items:,} items, {index.dims} bits",
            file=sys.stderr,
        )
        records += measured(name, index, options.users, options.engines)
        if len(index.dims) > 1 and "faiss" in options.engines:
            codes = l2q.quantize(index)
            records += measured(f"{name}, one segment", codes, options.users, options.engines)
    show(records)
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1) + "\n")


def measured(name: str, index: l2q.Index, num_users: int, engines: list[str]) -> list[dict]:
    users = np.unique(np.linspace(0, index.num_users - 1, min(num_users, index.num_users)).astype(np.int64))
    own = index.search(users, K, index.exclude)
    every = index.search(users, index.num_items)
    of_item = np.take_along_axis(every[0], np.argsort(every[1], axis=1), axis=1)
    known = ~index.without_items(users)  # others are shown what is popular, by another score

    def record(engine: str, ask: Ask, seconds: float, size: int) -> dict:
        took, same, but_for_ties = [], [], []
        for place, user in enumerate(users.tolist()):
            start = time.perf_counter()
            items = np.array(ask(user))
            took.append(time.perf_counter() - start)
            right, scores = own[1][place], own[0][place]
            right, scores = right[right >= 0], scores[right >= 0]
            same.append(np.array_equal(items, right))
            alike = len(items) == len(right) and np.array_equal(of_item[place, items], scores)
            but_for_ties.append(same[-1] or bool(known[place] and alike))
        return {
            "index": name,
            "engine": engine,
            "users": len(users),
            "same": np.mean(same).item(),
            "but_for_ties": np.mean(but_for_ties).item(),
            "ms": 1e3 * statistics.median(took),
            "build_s": seconds,
            "mb": size / 1e6,
        }

    def ask_index(user: int) -> list[int]:
        found = index.search(np.array([user]), K, index.exclude)[1][0]
        return found[found >= 0].tolist()

    files = index.save(tempfile.mkdtemp()) if index.folder is None else index.folder
    yielded = [record("the index", ask_index, 0.0, _size(files))]
    for engine in engines:
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            start = time.perf_counter()
            try:
                out = l2q.export(index, engine, Path(folder) / "out")
            except L2QError as error:
                print(f"{name}, {engine}: {error}", file=sys.stderr)
                continue
            seconds, size = time.perf_counter() - start, _size(out)
            with ASK[engine](out, index) as ask:
                yielded.append(record(engine, ask, seconds, size))
    if "faiss" in engines:
        yielded.append(record("FAISS by Hamming", by_hamming(index), 0.0, index.arrays["items.codes"].nbytes))
    return yielded


def generated(num_items: int) -> l2q.Index:
    rng = np.random.default_rng(0)
    codes = [Rows(rng.choice(np.int8([-1, 1]), (rows, 768))) for rows in (1000, num_items)]
    scales = rng.lognormal(-3, 0.5, (num_items, 1)).astype(np.float16).astype(np.float32)
    items = Rows(codes[1].values, scales)
    train = Interactions.from_pairs(
        np.repeat(np.arange(1000), 30), rng.integers(0, num_items, 30_000), 1000, num_items
    )
    return l2q.Index.of(Representations(codes[0], items, (768,), np.ones(1, np.float32), "float16"), train)


@contextmanager
def ask_vectors(folder: Path, index: l2q.Index) -> Iterator[Ask]:
    """By the program of the export."""
    engine = "faiss" if (folder / "items.faiss").exists() else "usearch"
    ranking = import_module(f"l2q.exports.{engine}_rank").Ranking(folder)  # the same file

    def ask(user: int) -> list[int]:
        items = ranking.search([user], K)[1][0]
        return items[items >= 0].tolist()

    yield ask


@contextmanager
def ask_duckdb(folder: Path, index: l2q.Index) -> Iterator[Ask]:
    with duckdb.connect(str(folder / "index.duckdb"), read_only=True, config={"threads": 1}) as base:
        names = index.user_names
        yield lambda user: [
            row[0] for row in base.execute("FROM recommend(?, ?)", [names[user], K]).fetchall()
        ]


@contextmanager
def ask_parquet(folder: Path, index: l2q.Index) -> Iterator[Ask]:
    query, names = (folder / "rank.sql").read_text(), index.user_names
    with duckdb.connect(config={"threads": 1}) as base:
        base.execute(f"SET file_search_path = '{folder}'")
        yield lambda user: [row[0] for row in base.execute(query, {"name": names[user], "k": K}).fetchall()]


@contextmanager
def ask_postgres(folder: Path, index: l2q.Index) -> Iterator[Ask]:
    import psycopg

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from clusters import postgres_cluster

    names = index.user_names
    with postgres_cluster("secret") as host:
        address = f"host={host} user=me password=secret dbname=postgres"
        subprocess.run(["psql", "-X", "-q", "-d", address, "-f", folder / "load.sql"], check=True)
        with psycopg.connect(address, autocommit=True) as base:
            base.execute("SET max_parallel_workers_per_gather = 0")
            select = "SELECT id FROM l2q.recommend(%s, %s)"
            yield lambda user: [row[0] for row in base.execute(select, [names[user], K]).fetchall()]


ASK = {
    "faiss": ask_vectors,
    "usearch": ask_vectors,
    "duckdb": ask_duckdb,
    "postgres": ask_postgres,
    "parquet": ask_parquet,
}


def by_hamming(index: l2q.Index) -> Ask:
    """What an ``IndexBinaryFlat`` ranks: the codes without scales and weights."""
    codes = np.ascontiguousarray(index.arrays["items.codes"])
    binary = faiss.IndexBinaryFlat(8 * codes.shape[1])
    binary.add(codes)

    def ask(user: int) -> list[int]:
        owned = index.exclude[user]
        most = min(K + len(owned), index.num_items)
        items = binary.search(np.ascontiguousarray(index.arrays["users.codes"][[user]]), most)[1][0]
        return items[~np.isin(items, owned)][:K].tolist()

    return ask


def show(records: list[dict]) -> None:
    table = Table(box=None)
    for column in ("index", "engine", "same", "but for ties", "ms", "build s", "MB"):
        table.add_column(column, justify="left" if column in ("index", "engine") else "right")
    for record in records:
        table.add_row(
            record["index"],
            record["engine"],
            f"{record['same']:.1%}",
            f"{record['but_for_ties']:.1%}",
            f"{record['ms']:.2f}",
            f"{record['build_s']:.1f}",
            f"{record['mb']:.1f}",
        )
    Console().print(table)


def _name(folder: str) -> str:
    """Of .../debian/l2q_anl/TIME/index: l2q_anl."""
    parts = [part for part in Path(folder).resolve().parts if part != "index"]
    return next((part for part in reversed(parts) if part.startswith("l2q")), parts[-1])


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


if __name__ == "__main__":
    main()
