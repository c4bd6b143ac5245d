"""Recall against queries per second against bytes: packed codes beside what people search with instead.

    python benchmarks/frontier.py [--sets debian ...] [--items 100000 ...] [--threads 1 2] [--seconds S]
        [--data ../shared/data] [--json FILE] [--plot FILE]
    python benchmarks/frontier.py --plot docs/frontier.png --json outputs/benchmarks/frontier.json   # of stored records

Of a set: test Recall@20 of `l2q_plus` with 224 and 768 bits, and of a float model's rows (`--float`, `spectral` where
nothing is said) under each peer. Peers cannot leave out what a user has, so they are asked for 100 items, of which
those are dropped; ours leaves it out itself.

Of `--items` made items: users and items with 64 normal columns, and lengths of items that vary by a half; recall is the
share of the exact Top-20 by the same rows. For peers that is the inner product of the floats. For codes, signs of a
random rotation with a scale each, it is their own exact ranking, which ours gives by construction, so that it shows the
speed alone.

Speeds are queries a second of processor time, in batches of 1 and of many, the best of several calls; with two threads
of wall time. Every peer has the threads that ours has. Peers that no test needs are installed by hand, and left out
where they are not:

    pip install --no-deps hnswlib==0.8.0 voyager==2.2.3
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
import faiss
import matplotlib.pyplot as plt
import numba
import numpy as np
from rich.console import Console
from rich.table import Table

from l2q.interactions import Interactions
from l2q.kernels.packed import PackedItems, top_k
from l2q.kernels.packing import pack

K, FETCHED, MANY = 20, 100, 1024
BITS = (224, 768)
PROBES = (16, 64, 256)


@dataclass
class Contender:
    """``search(first, last, k, threads)`` finds items of those queries; ``own_exclusion`` where it leaves out train."""

    name: str
    setting: str
    nbytes: int
    search: Callable[[int, int, int, int], np.ndarray]
    own_exclusion: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["debian"])
    parser.add_argument("--items", nargs="*", type=int, default=[100_000])
    parser.add_argument("--float", default="spectral", help="a model of float rows, for the peers")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="draw the picture; alone with --json: of its records")
    options = parser.parse_args()
    if options.plot and options.json and options.json.exists():
        draw(json.loads(options.json.read_text()), options.plot)
        return
    records: list[dict] = []
    for part in (*options.sets, *options.items):
        records += of_made(part, options) if isinstance(part, int) else of_set(part, options)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(records, indent=1) + "\n")
    show(records)
    if options.plot:
        draw(records, options.plot)


def of_set(name: str, options: argparse.Namespace) -> list[dict]:
    data = l2q.load_dataset(name, **({} if name == "debian" else {"dir": f"{options.data}/{name}"}))
    train, test = data.train, data.test
    users = np.flatnonzero(test.user_degrees)[:MANY]
    contenders = []
    for bits in BITS:
        index = l2q.fit(train, "l2q_plus", bits=bits, seed=0)
        contenders.append(_index(f"l2q {bits}", index, users))
    floats = l2q.fit(train, options.float, seed=0)
    if "items.values" not in floats.arrays:
        raise SystemExit(f"--float {options.float} has codes; name a float model")
    factors = np.repeat(np.float32(floats.manifest["weights"]), floats.manifest["dims"])
    contenders += peers(floats.arrays["users.values"][users] * factors, floats.arrays["items.values"])

    asked = test.select(np.isin(test.users, users))

    def quality(found: np.ndarray) -> float:
        return l2q.evaluate(Ranked(users, found, train), asked, [K], train).metrics[f"recall_{K}"]

    about = {"data": name, "items": train.num_items, "measure": "test Recall@20"}
    return measured(contenders, quality, len(users), about, options, FETCHED)


def of_made(count: int, options: argparse.Namespace) -> list[dict]:
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((rows, 64), dtype=np.float32) for rows in (MANY, count))
    items *= rng.lognormal(0, 0.5, (count, 1)).astype(np.float32)
    contenders = []
    for bits in BITS:
        turned = np.linalg.qr(rng.standard_normal((bits, 64), dtype=np.float32)).Q.T
        codes, scales = np.empty((count, bits // 8), np.uint8), np.empty((count, 1), np.float32)
        for first in range(0, count, 1 << 16):
            part = items[first : first + (1 << 16)] @ turned
            codes[first : first + len(part)] = pack(part, (bits,))
            scales[first : first + len(part), 0] = np.abs(part).mean(axis=1)
        packed_items, left, one = (
            PackedItems.from_packed(codes, (bits,), scales),
            users @ turned,
            np.ones(1, np.float32),
        )
        contenders.append(_packed(f"l2q {bits}", pack(left, (bits,)), one, packed_items))
        contenders.append(_packed(f"l2q {bits}, float users", left, one, packed_items))
    contenders += peers(users, items)
    flat = faiss.IndexFlatIP(64)
    flat.add(items)
    truth = flat.search(users, K)[1]

    def quality(found: np.ndarray) -> float:
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))

    about = {"data": f"made {count}", "items": count, "measure": "recall of the exact Top-20"}
    return measured(contenders, quality, MANY, about, options, K)


class Ranked:
    """What a contender found, behind the search protocol; train items are dropped."""

    def __init__(self, users: np.ndarray, found: np.ndarray, train: Interactions) -> None:
        self.num_users, self.num_items = train.num_users, train.num_items
        self.rows = dict(zip(users.tolist(), found, strict=True))

    def search(
        self, users: np.ndarray, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        items = np.full((len(users), k), -1, np.int32)
        for row, user in enumerate(users.tolist()):
            found = self.rows[user]
            kept = found if exclude is None else found[~np.isin(found, exclude[user])]
            items[row, : len(kept[:k])] = kept[:k]
        return np.where(items < 0, -np.inf, -np.arange(k, dtype=np.float32)), items


def _index(name: str, index: l2q.Index, users: np.ndarray) -> Contender:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        numba.set_num_threads(threads)
        return index.index.search(users[first:last], K, index.exclude)[1]

    nbytes = sum(index.arrays[f"items.{part}"].nbytes for part in ("codes", "scales"))
    return Contender(name, "exact", nbytes, search, own_exclusion=True)


def _packed(name: str, queries: np.ndarray, factors: np.ndarray, items: PackedItems) -> Contender:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        numba.set_num_threads(threads)
        return top_k(queries[first:last], factors, items, K)[1]

    return Contender(name, "exact", items.nbytes, search, own_exclusion=True)


def peers(users: np.ndarray, items: np.ndarray) -> Iterator[Contender]:
    """FAISS, hnswlib, usearch and Voyager over float rows, each with several settings of what it looks at."""
    dim, inner = items.shape[1], faiss.METRIC_INNER_PRODUCT
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    lists = int(4 * np.sqrt(len(items)))
    described = {
        "faiss flat": ("Flat", [{}]),
        "faiss IVF": (f"IVF{lists},Flat", [{"nprobe": probes} for probes in PROBES]),
        "faiss HNSW": ("HNSW16,Flat", [{"efSearch": width} for width in (32, 128, 512)]),
    }
    if dim % 2 == 0:
        quick = f"IVF{lists},PQ{dim // 2}x4fs,RFlat"
        described["faiss IVF PQ FastScan"] = (
            quick,
            [{"nprobe": probes, "k_factor_rf": 10} for probes in PROBES],
        )
        described["faiss IVF RaBitQ"] = (f"IVF{lists},RaBitQ", [{"nprobe": probes} for probes in PROBES])
    for name, (factory, settings) in described.items():
        index = faiss.index_factory(dim, factory, inner)
        index.train(items)
        index.add(items)
        nbytes = faiss.serialize_index(index).nbytes
        for setting in settings:
            yield Contender(name, _said(setting), nbytes, _faiss(index, users, setting))
    if importlib.util.find_spec("hnswlib"):
        import hnswlib

        index = hnswlib.Index("ip", dim)
        index.init_index(len(items), ef_construction=100, M=16)
        index.add_items(items)
        for width in (32, 128, 512):
            yield Contender("hnswlib", f"ef {width}", index.index_file_size(), _hnswlib(index, users, width))
    if importlib.util.find_spec("usearch"):
        from usearch.index import Index

        index = Index(ndim=dim, metric="ip", connectivity=16, expansion_add=100)
        index.add(np.arange(len(items)), items)
        for width in (32, 128, 512):
            yield Contender(
                "usearch HNSW", f"ef {width}", index.serialized_length, _usearch(index, users, width)
            )
    if importlib.util.find_spec("voyager"):
        import voyager

        index = voyager.Index(voyager.Space.InnerProduct, dim, M=16, ef_construction=100)
        longest = np.argsort(
            -np.linalg.norm(items, axis=1)
        )  # first: its place for others hangs on the longest so far
        index.add_items(items[longest], longest)
        for width in (32, 128, 512):
            yield Contender("Voyager", f"ef {width}", len(index.as_bytes()), _voyager(index, users, width))


def _said(setting: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in setting.items() if key != "k_factor_rf") or "exact"


def _faiss(index, users: np.ndarray, setting: dict) -> Callable:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        faiss.omp_set_num_threads(threads)
        space = faiss.ParameterSpace()
        for key, value in setting.items():
            space.set_index_parameter(index, key, value)
        return index.search(users[first:last], k)[1]

    return search


def _hnswlib(index, users: np.ndarray, width: int) -> Callable:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        index.set_ef(max(width, k))
        return index.knn_query(users[first:last], k, num_threads=threads)[0].astype(np.int64)

    return search


def _usearch(index, users: np.ndarray, width: int) -> Callable:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        index.expansion_search = max(width, k)
        found = index.search(users[first:last], k, threads=threads)
        return np.atleast_2d(found.keys).astype(np.int64)

    return search


def _voyager(index, users: np.ndarray, width: int) -> Callable:
    def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
        found = index.query(users[first:last], k, num_threads=threads, query_ef=max(width, k))
        return found[0].astype(np.int64)

    return search


def measured(contenders, quality, queries: int, about: dict, options, fetched: int) -> list[dict]:
    records = []
    for one in contenders:
        k = K if one.own_exclusion else fetched
        reached = 1.0 if one.own_exclusion and fetched == K else quality(one.search(0, queries, k, 1))
        for threads in options.threads:
            for batch in (1, queries):
                rate = _rate(one.search, k, threads, batch, queries, options.seconds)
                records.append(
                    about
                    | {
                        "contender": one.name,
                        "setting": one.setting,
                        "MB": one.nbytes / 1e6,
                        "recall": reached,
                    }
                    | {"threads": threads, "batch": batch, "queries_per_second": rate}
                )
    return records


def _rate(search: Callable, k: int, threads: int, batch: int, queries: int, seconds: float) -> float:
    clock = time.process_time if threads == 1 else time.perf_counter
    search(0, batch, k, threads)
    best, first, began = np.inf, 0, time.perf_counter()
    while time.perf_counter() - began < seconds or best == np.inf:
        calls = 1 if batch > 1 else 20
        start = clock()
        for _ in range(calls):
            search(first, first + batch, k, threads)
            first = (first + batch) % max(queries - batch, 1)
        best = min(best, (clock() - start) / (calls * batch))
    return 1 / best


def show(records: list[dict]) -> None:
    table = Table(box=None)
    columns = ("data", "contender", "setting", "MB", "recall")
    speeds = list(dict.fromkeys((row["threads"], row["batch"]) for row in records))
    for column in (*columns, *(f"{t} thr, {b}" for t, b in speeds)):
        table.add_column(column, justify="left" if column in columns[:3] else "right")
    groups: dict[tuple, dict] = {}
    for row in records:
        groups.setdefault(tuple(row[column] for column in columns), {})[row["threads"], row["batch"]] = row
    for key, found in groups.items():
        cells = [f"{found[at]['queries_per_second']:,.0f}" if at in found else "" for at in speeds]
        table.add_row(*key[:3], f"{key[3]:.1f}", f"{key[4]:.4f}", *cells)
    Console(width=120).print(table)


def draw(records: list[dict], path: Path) -> None:
    """Recall over queries a second, one thread: a row for a data set, a column for a batch; the area is bytes. Points
    below half of the best recall are left out."""
    data = list(dict.fromkeys(row["data"] for row in records))
    names = list(dict.fromkeys(row["contender"] for row in records))
    figure, panels = plt.subplots(
        len(data), 2, figsize=(10, 3.6 * len(data)), squeeze=False, layout="constrained"
    )
    colors = dict(zip(names, plt.get_cmap("tab20").colors, strict=False))
    for line, of in zip(panels, data, strict=True):
        rows = [row for row in records if row["data"] == of and row["threads"] == 1]
        largest, best = (max(row[what] for row in rows) for what in ("MB", "recall"))
        rows = [row for row in rows if row["recall"] >= best / 2]
        for panel, batch in zip(line, sorted({row["batch"] for row in rows}), strict=True):
            for name in names:
                points = [row for row in rows if row["contender"] == name and row["batch"] == batch]
                if points:
                    speed, reached = (
                        [row[what] for row in points] for what in ("queries_per_second", "recall")
                    )
                    ours = name.startswith("l2q")
                    panel.plot(speed, reached, color=colors[name], linewidth=1)
                    size = [12 + 220 * row["MB"] / largest for row in points]
                    panel.scatter(
                        speed,
                        reached,
                        size,
                        color=colors[name],
                        marker="s" if ours else "o",
                        label=name,
                        alpha=0.8,
                    )
            panel.set(
                xscale="log",
                xlabel="queries a second of processor time, one thread",
                ylabel=rows[0]["measure"],
            )
            panel.set_title(f"{of.split()[0]}: {rows[0]['items']:,} items, batches of {batch:,}", fontsize=10)
            panel.xaxis.set_minor_formatter("")
            panel.grid(alpha=0.3, which="both")
    handles = {}
    for panel in panels.flat:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
