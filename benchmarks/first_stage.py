"""One user at a time over millions of items: exact search, lists of items, FAISS over the same float rows.

    python benchmarks/first_stage.py [--items 1000000 10000000] [--bits 256] [--threads 2] [--without hnsw]
        [--queries 1000] [--json FILE] [--plot FILE]
    python benchmarks/first_stage.py --plot docs/first-stage.png --json outputs/benchmarks/first_stage.json  # stored

Made rows have 64 columns and lengths that vary by a half (log-normal, .5). Codes are signs of a random rotation, with a
scale each.

- `clustered`: columns' deviations fall as j^-1/2; an item is sqrt(.8) of the row of its group, of 100 items, and
  sqrt(.2) of its own; a user is the mean of three items.
- `even`: items and users are normal, as in benchmarks/frontier.py: no direction has more items than another.

Recall is the share of the exact Top-20, of codes by the same codes, of floats by the same floats. Lists are measured on
1,000 users when they are made; those that are timed here are others. FAISS's graph is built up to a million items.
Times are of single searches, by the clock (p50, p99), and of all processors (cpu).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import l2q  # noqa: F401  before numpy, whose threads would spin where they wait

# isort: split
import faiss
import matplotlib.pyplot as plt
import numba
import numpy as np
from rich.console import Console
from rich.table import Table

from l2q.interactions import Interactions
from l2q.kernels.packing import pack
from l2q.representations import Rows
from l2q.retrieval import lists
from l2q.retrieval.index import PackedIndex

K, DIM, SAMPLE = 20, 64, 1000
SHARES = (0.9, 0.95, 0.98, 0.99, 0.995)
MOST_OF_A_GRAPH = 1_000_000
Search = Callable[[int], np.ndarray]  # items of one query


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", nargs="+", type=int, default=[1_000_000, 10_000_000])
    parser.add_argument("--sets", nargs="+", default=["clustered", "even"])
    parser.add_argument("--bits", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--without", nargs="*", default=[], help="ivf, hnsw, lists: to leave out")
    parser.add_argument("--json", type=Path, help="adds to its records, in place of the same ones")
    parser.add_argument(
        "--plot", type=Path, help="draw the picture; with a --json that is there: of its records"
    )
    options = parser.parse_args()
    if options.plot and options.json and options.json.exists():
        draw(json.loads(options.json.read_text()), options.plot)
        return
    numba.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    print(f"load {os.getloadavg()[0]:.1f} at the start, {os.cpu_count()} processors")
    records: list[dict] = []
    if options.json and options.json.exists():
        records = json.loads(options.json.read_text())
    for count in options.items:
        for name in options.sets:
            fresh = measured(name, count, options)
            records = [one for one in records if _which(one) not in map(_which, fresh)] + fresh
            gc.collect()
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(records, indent=1) + "\n")
    show(records)
    if options.plot:
        draw(records, options.plot)


def _which(record: dict) -> tuple:
    return tuple(record[key] for key in ("data", "items", "contender", "setting"))


def rows(name: str, count: int, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Users and items, (n, 64) float32."""
    rng = np.random.default_rng(0)
    if name == "even":
        items = rng.standard_normal((count, DIM), dtype=np.float32)
        items *= rng.lognormal(0, 0.5, (count, 1)).astype(np.float32)
        return rng.standard_normal((users, DIM), dtype=np.float32), items
    deviations = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    groups = rng.standard_normal((max(count // 100, 1), DIM), dtype=np.float32)
    items = rng.standard_normal((count, DIM), dtype=np.float32)
    for part in parts_of(count):
        items[part] *= np.float32(0.2**0.5)
        items[part] += np.float32(0.8**0.5) * groups[rng.integers(len(groups), size=len(items[part]))]
        items[part] *= deviations * rng.lognormal(0, 0.5, (len(items[part]), 1)).astype(np.float32)
    return items[rng.integers(count, size=(users, 3))].mean(axis=1), items


def parts_of(count: int) -> Iterator[slice]:
    for first in range(0, count, 1 << 16):
        yield slice(first, min(first + (1 << 16), count))


def turned(rows: np.ndarray, bits: int) -> np.ndarray:
    """In a random rotation, (n, bits)."""
    rng = np.random.default_rng(1)
    return rows @ np.linalg.qr(rng.standard_normal((bits, DIM), dtype=np.float32)).Q.T


def codes_of(users: np.ndarray, items: np.ndarray, bits: int) -> dict[str, np.ndarray]:
    """As the arrays of an index."""
    codes, scales = np.empty((len(items), bits // 8), np.uint8), np.empty((len(items), 1), np.float32)
    for part in parts_of(len(items)):
        some = turned(items[part], bits)
        codes[part], scales[part, 0] = pack(some, (bits,)), np.abs(some).mean(axis=1)
    return {"users.codes": pack(turned(users, bits), (bits,)), "items.codes": codes, "items.scales": scales}


def measured(name: str, count: int, options: argparse.Namespace) -> list[dict]:
    users, items = rows(name, count, SAMPLE + options.queries)
    arrays = codes_of(users, items, options.bits)
    about = {"data": name, "items": count}
    found: list[dict] = []
    queries = np.ascontiguousarray(users[SAMPLE:])
    truth = faiss.knn(queries[:200], items, K, metric=faiss.METRIC_INNER_PRODUCT)[1]
    for contender, setting, size, search, peak in peers(queries, items, options.without):
        found.append(about | timed(contender, setting, size, search, truth, options.queries, peak))
    del items
    gc.collect()
    dims, one = (options.bits,), np.ones(1, np.float32)
    exact = PackedIndex(
        Rows(arrays["users.codes"]), Rows(arrays["items.codes"], arrays["items.scales"]), dims, one
    )
    others = np.arange(SAMPLE, SAMPLE + options.queries)
    truth = exact.search(others[:200], K)[1]
    size = arrays["items.codes"].nbytes + arrays["items.scales"].nbytes

    def one_by(backend) -> Search:
        return lambda query: backend.search(others[query : query + 1], K)[1][0]

    few = min(options.queries, 200)
    found.append(about | timed(f"l2q {options.bits}", "exact", size, one_by(exact), truth, few, 0.0))
    del exact
    if "lists" in options.without:
        return found
    start = time.perf_counter()
    sample = {**arrays, "users.codes": arrays["users.codes"][:SAMPLE]}
    nothing = Interactions(np.zeros(SAMPLE + 1, np.int64), np.empty(0, np.int32), count)
    made = lists.made(sample, dims, one, nothing, None, 0)
    seconds = time.perf_counter() - start
    listed = lists.ListedIndex.of(arrays | made.arrays, dims, one)
    size += sum(array.nbytes for array in made.arrays.values())
    for share in SHARES:
        looking = listed.looking_at(share)
        setting = f"exact={share:g}, {looking.probes:,} of {len(made.codes):,} lists"
        record = timed(
            f"l2q {options.bits}, lists", setting, size, one_by(looking), truth, options.queries, seconds
        )
        found.append(about | record | {"looked_at": float(made.shares[looking.probes - 1, 1])})
    return found


def peers(
    users: np.ndarray, items: np.ndarray, without: list[str]
) -> Iterator[tuple[str, str, int, Search, float]]:
    """FAISS's inverted lists and its graph over float rows: name, setting, bytes, search, seconds of building."""
    inner, dim = faiss.METRIC_INNER_PRODUCT, items.shape[1]
    if "ivf" not in without:
        start, count = time.perf_counter(), 4096
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, count, inner)
        index.cp.niter, index.cp.max_points_per_centroid = 6, 64
        index.train(items)
        index.add(items)
        seconds = time.perf_counter() - start
        for probes in (8, 32, 128, 512):
            index.nprobe = probes
            yield (
                "faiss IVF",
                f"nprobe {probes} of {count:,}",
                items.nbytes + 8 * len(items),
                _faiss(index, users),
                seconds,
            )
        del index
        gc.collect()
    if "hnsw" not in without and len(items) <= MOST_OF_A_GRAPH:
        start = time.perf_counter()
        index = faiss.IndexHNSWFlat(dim, 16, inner)
        index.add(items)
        seconds, size = time.perf_counter() - start, items.nbytes + len(items) * 2 * 16 * 4
        for width in (32, 128, 512):
            index.hnsw.efSearch = width
            yield "faiss HNSW16", f"efSearch {width}", size, _faiss(index, users), seconds


def _faiss(index, users: np.ndarray) -> Search:
    return lambda query: index.search(users[query : query + 1], K)[1][0]


def timed(
    name: str, setting: str, size: int, search: Search, truth: np.ndarray, queries: int, building: float
) -> dict:
    recall = np.mean([np.isin(best, search(query)).mean() for query, best in enumerate(truth)])
    times = []
    began = time.process_time()
    for query in range(queries):
        start = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - start)
    cpu = (time.process_time() - began) / queries
    p50, p99 = np.quantile(times, [0.5, 0.99]).tolist()
    record = {"contender": name, "setting": setting, "MB": size / 1e6, "recall": float(recall)}
    record |= {"p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "cpu_ms": 1e3 * cpu, "building_s": building}
    print(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()},
        flush=True,
    )
    return record


def show(records: list[dict]) -> None:
    table = Table(box=None)
    for column in (
        "data",
        "items",
        "contender",
        "setting",
        "MB",
        "recall",
        "p50 ms",
        "p99 ms",
        "cpu ms",
        "made in s",
    ):
        table.add_column(column, justify="left" if column in ("data", "contender", "setting") else "right")
    for row in records:
        table.add_row(
            row["data"],
            f"{row['items']:,}",
            row["contender"],
            row["setting"],
            f"{row['MB']:,.0f}",
            f"{row['recall']:.4f}",
            *(f"{row[key]:.2f}" for key in ("p50_ms", "p99_ms", "cpu_ms")),
            f"{row['building_s']:.0f}",
        )
    Console(width=130).print(table)


def draw(records: list[dict], path: Path) -> None:
    """Recall over milliseconds of processor time of one query; a panel for a set and a size."""
    panels = list(dict.fromkeys((row["items"], row["data"]) for row in records))
    figure, axes = plt.subplots(
        -(-len(panels) // 2),
        2,
        figsize=(10, 3.4 * -(-len(panels) // 2)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    names = list(dict.fromkeys(row["contender"] for row in records))
    colors = dict(zip(names, plt.get_cmap("tab10").colors, strict=False))
    for axis, (count, data) in zip(axes.flat, panels, strict=False):
        for name in names:
            some = [
                row for row in records if (row["items"], row["data"], row["contender"]) == (count, data, name)
            ]
            if some:
                axis.plot(
                    [row["cpu_ms"] for row in some],
                    [row["recall"] for row in some],
                    color=colors[name],
                    marker="s" if name.startswith("l2q") else "o",
                    markersize=5,
                    label=name,
                )
        axis.set(xscale="log", xlabel="ms of processor time, one query", ylabel="recall of the exact Top-20")
        axis.tick_params(labelbottom=True)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.set_title(f"{count:,} items, {data}", fontsize=10)
        axis.grid(alpha=0.3, which="both")
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    handles: dict = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
