"""Recall against queries per second against bytes: packed codes beside what people search with instead.

    python benchmarks/frontier.py [--sets debian gowalla ...] [--items 1000000 ...] [--rows clustered even]
        [--bits 224 768] [--threads 1 2] [--seconds S] [--only NAME ...] [--build-threads 1] [--kept DIR]
        [--data ../shared/data] [--json FILE] [--plot FILE]
    python benchmarks/frontier.py --plot docs/frontier.png --json outputs/benchmarks/frontier.json   # of stored records

Of a set: test Recall@20 of `l2q_plus`, and of a float model's rows (`--float`, `spectral` where nothing is said) under
each peer. Peers cannot leave out what a user has, so they are asked for 100 items, of which those are dropped; ours
leaves it out itself.

Of `--items` made items: the rows of `benchmarks/first_stage.py`, where `clustered` and `even` are said. Recall is the
share of the exact Top-20 by the same rows. For peers that is the inner product of the floats. For codes, signs of a
random rotation with a scale each, it is their own exact ranking; `of_floats` is the share of the floats' exact Top-20
that they find, so that codes and small float indexes can be compared at equal bytes.

Speeds are queries a second, in batches of 1 and of many, the best of several calls: of processor time with one thread,
of wall time with two. Every peer has the threads that ours has. `--kept` has rows, exact rankings and indexes that took
long to build, which a later run reads; records of `--json` stay beside new ones. Peers that no test needs are installed
by hand, and left out where they are not:

    pip install --no-deps hnswlib==0.8.0 voyager==2.2.3 scann-core==0.2.1
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
import faiss
import first_stage
import matplotlib.pyplot as plt
import numba
import numpy as np
from first_stage import parts_of
from matplotlib.ticker import LogLocator, NullLocator
from rich.console import Console
from rich.table import Table

from l2q.interactions import Interactions
from l2q.representations import Rows
from l2q.retrieval import lists
from l2q.retrieval.index import PackedIndex, stored

K, FETCHED, MANY = 20, 100, 1024
SHARES = (0.9, 0.95, 0.98, 0.99, 0.995)
PROBES = (16, 64, 256, 1024)
WIDTHS = (32, 128, 512)
LINKS, BUILDING = 16, 100  # of a graph: links of an item, and what its building looks at
QUICK_BUILDING = 40  # of many items, of which Voyager's graph alone is built
MANY_ITEMS, MOST_LISTS = 300_000, 4096


@dataclass
class Contender:
    """``search(first, last, k, threads)`` finds items of those queries; ``own_exclusion`` where it leaves out train.
    ``truth``: the exact ranking by the rows that it has, where those are other than the peers'."""

    name: str
    setting: str
    nbytes: int
    search: Callable[[int, int, int, int], np.ndarray]
    own_exclusion: bool = False
    truth: np.ndarray | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=[])
    parser.add_argument("--items", nargs="*", type=int, default=[])
    parser.add_argument("--rows", nargs="+", default=["clustered", "even"], help="how made rows lie")
    parser.add_argument("--bits", nargs="+", type=int, default=[224, 768])
    parser.add_argument("--float", default="spectral", help="a model of float rows, for the peers")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least")
    parser.add_argument("--only", nargs="*", help="contenders whose name begins so")
    parser.add_argument("--build-threads", type=int, default=os.cpu_count() or 1, help="for building indexes")
    parser.add_argument("--kept", type=Path, help="where rows and indexes stay; otherwise a folder that goes")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="draw the picture; alone with --json: of its records")
    options = parser.parse_args()
    records: list[dict] = (
        json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    )
    if not (options.sets or options.items):
        if options.plot and records:
            draw(records, options.plot)
            return
        options.sets, options.items = ["debian"], [100_000]
    with tempfile.TemporaryDirectory() as scratch:
        options.kept = options.kept or Path(scratch)
        options.kept.mkdir(parents=True, exist_ok=True)
        for part in (*options.sets, *((rows, count) for count in options.items for rows in options.rows)):
            for record in of_set(part, options) if isinstance(part, str) else of_made(*part, options):
                records = [row for row in records if _which(row) != _which(record)] + [record]
                if options.json:
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    options.json.write_text(json.dumps(records, indent=1) + "\n")
    show(records)
    if options.plot:
        draw(records, options.plot)


def _which(record: dict) -> tuple:
    return tuple(record[key] for key in ("data", "contender", "setting", "threads", "batch"))


def _wanted(name: str, options: argparse.Namespace) -> bool:
    return not options.only or any(name.startswith(start) for start in options.only)


def of_set(name: str, options: argparse.Namespace) -> Iterator[dict]:
    data = l2q.load_dataset(name, **({} if name == "debian" else {"dir": f"{options.data}/{name}"}))
    train, test = data.train, data.test
    users = np.flatnonzero(test.user_degrees)[:MANY]
    asked = test.select(np.isin(test.users, users))

    def quality(found: np.ndarray) -> float:
        return l2q.evaluate(Ranked(users, found, train), asked, [K], train).metrics[f"recall_{K}"]

    def fitted(model: str, **settings) -> l2q.Index:
        folder = options.kept / "-".join([name, model, *map(str, settings.values())])
        if not (folder / "manifest.json").exists():
            index = l2q.fit(train, model, seed=0, **settings)
            (index.with_lists() if "items.codes" in index.arrays else index).save(folder)
        return l2q.load_index(folder)

    def contenders() -> Iterator[Contender]:
        for bits in options.bits:
            if _wanted(f"l2q {bits}", options):
                yield from _of_index(f"l2q {bits}", fitted("l2q_plus", bits=bits), users)
        floats = fitted(options.float)
        if "items.values" not in floats.arrays:
            raise SystemExit(f"--float {options.float} has codes; name a float model")
        factors = np.repeat(np.float32(floats.manifest["weights"]), floats.manifest["dims"])
        left, right = (np.float32(floats.arrays[f"{side}.values"]) for side in ("users", "items"))
        yield from peers(
            left[users] * factors, np.array(right, order="C"), f"{name}-{options.float}", options
        )

    about = {"data": name, "items": train.num_items, "measure": "test Recall@20"}
    for one in contenders():
        yield from measured(one, quality, len(users), about, options, FETCHED)


def of_made(rows: str, count: int, options: argparse.Namespace) -> Iterator[dict]:
    name = f"{rows}-{count}"
    files = {part: options.kept / f"{name}.{part}.npy" for part in ("users", "items", "truth")}
    if not files["items"].exists():
        users, items = first_stage.rows(rows, count, first_stage.SAMPLE + MANY)
        np.save(files["users"], users)
        np.save(files["items"], items)
        del items
    users, items = (np.load(files[part], mmap_mode="r") for part in ("users", "items"))
    asked = np.array(users[first_stage.SAMPLE :])
    if not files["truth"].exists():
        np.save(files["truth"], faiss.knn(asked, items, K, metric=faiss.METRIC_INNER_PRODUCT)[1])
    truth = np.load(files["truth"])

    def of_floats(found: np.ndarray) -> float:
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, found, strict=True)]))

    def contenders() -> Iterator[Contender]:
        for bits in options.bits:
            if _wanted(f"l2q {bits}", options) or _wanted(f"float users over l2q {bits}", options):
                yield from _of_codes(f"l2q {bits}", users, items, bits, name, options)
        yield from peers(asked, items, name, options)

    about = {"data": f"made {count} {rows}", "items": count, "measure": "recall of the exact Top-20"}
    for one in contenders():
        best = truth if one.truth is None else one.truth

        def quality(found: np.ndarray, best=best) -> float:
            return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, found, strict=True)]))

        yield from measured(one, quality, MANY, about, options, K, of_floats)


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


def _of_index(name: str, index: l2q.Index, users: np.ndarray) -> Iterator[Contender]:
    size = sum(index.arrays[f"items.{part}"].nbytes for part in ("codes", "scales"))
    listed = size + sum(array.nbytes for array in index.lists.arrays.values())
    for exact in (1.0, *SHARES):
        yield Contender(
            name if exact == 1 else f"{name}, lists",
            "exact" if exact == 1 else f"exact={exact:g}",
            size if exact == 1 else listed,
            _ranking(lambda some, k, exact=exact: index.search(some, k, index.exclude, exact)[1], users),
            own_exclusion=True,
        )


def _of_codes(
    name: str, users: np.ndarray, items: np.ndarray, bits: int, data: str, options: argparse.Namespace
) -> Iterator[Contender]:
    path, dims, one = options.kept / f"{data}-{bits}.npz", (bits,), np.ones(1, np.float32)
    if not path.exists():
        arrays = first_stage.codes_of(users, items, bits)
        sample = {**arrays, "users.codes": arrays["users.codes"][: first_stage.SAMPLE]}
        nothing = Interactions(
            np.zeros(len(sample["users.codes"]) + 1, np.int64), np.empty(0, np.int32), len(items)
        )
        arrays |= lists.made(sample, dims, one, nothing, None, 0).arrays
        arrays["users.values"] = first_stage.turned(users, bits)
        np.savez(path, **arrays)
    arrays = dict(np.load(path))
    values = arrays.pop("users.values")
    size = sum(arrays[f"items.{part}"].nbytes for part in ("codes", "scales"))
    others = np.arange(first_stage.SAMPLE, len(values))
    for kind in (name, f"float users over {name}"):
        if _wanted(kind, options):
            side = stored(arrays, "users") if kind == name else Rows(values)
            exact = PackedIndex(side, stored(arrays, "items"), dims, one)
            truth = exact.search(others, K)[1]
            yield Contender(kind, "exact", size, _ranking(_by(exact), others), True, truth)
            del exact
            listed = lists.ListedIndex(side, stored(arrays, "items"), dims, one, lists.Lists.of(arrays))
            more = sum(array.nbytes for key, array in arrays.items() if key.startswith("lists."))
            for share in SHARES:
                search = _ranking(_by(listed.looking_at(share)), others)
                yield Contender(f"{kind}, lists", f"exact={share:g}", size + more, search, True, truth)
            del listed
            gc.collect()


def _by(backend) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda users, k: backend.search(users, k)[1]


def _ranking(search: Callable[[np.ndarray, int], np.ndarray], users: np.ndarray) -> Callable:
    def ranking(first: int, last: int, k: int, threads: int) -> np.ndarray:
        numba.set_num_threads(threads)
        return search(users[first:last], k)

    return ranking


def peers(
    users: np.ndarray, items: np.ndarray, data: str, options: argparse.Namespace
) -> Iterator[Contender]:
    """FAISS, hnswlib, usearch, Voyager and ScaNN over float rows, each with several settings of what it looks at."""
    yield from _of_faiss(users, items, data, options)
    others = {"voyager": _of_voyager, "scann": _of_scann}
    if len(items) <= MANY_ITEMS:
        others |= {"hnswlib": _of_hnswlib, "usearch": _of_usearch}
    for module, contenders in others.items():
        if importlib.util.find_spec(module) and _wanted(module, options):
            yield from contenders(users, items, options.kept / f"{data}-{module}", options.build_threads)
            gc.collect()


def _of_faiss(users, items, data: str, options: argparse.Namespace) -> Iterator[Contender]:
    faiss.omp_set_num_threads(options.build_threads)
    dim, count = items.shape[1], min(int(4 * np.sqrt(len(items))), MOST_LISTS)
    probes, refined = ([{"nprobe": some} | more for some in PROBES] for more in ({}, {"k_factor_rf": 10}))
    described = {
        "faiss flat": ("Flat", [{}]),
        "faiss IVF": (f"IVF{count},Flat", probes),
        "faiss IVF PQ FastScan": (f"IVF{count},PQ{dim // 2}x4fs", probes),
        "faiss IVF PQ FastScan, floats": (f"IVF{count},PQ{dim // 2}x4fs,RFlat", refined),
        "faiss IVF RaBitQ": (f"IVF{count},RaBitQ", probes),
        "faiss IVF RaBitQ, 4 bits": (f"IVF{count},RaBitQ4", probes),
        "faiss IVF RaBitQ FastScan": (f"IVF{count},RaBitQfs", probes),
        "faiss IVF RaBitQ FastScan, floats": (f"IVF{count},RaBitQfs,RFlat", refined),
        "faiss HNSW": (f"HNSW{LINKS},Flat", [{"efSearch": width} for width in WIDTHS]),
    }
    for name, (factory, settings) in described.items():
        if not _wanted(name, options) or ("HNSW" in name and len(items) > MANY_ITEMS):
            continue
        path = str(options.kept / f"{data}-{factory.replace(',', '-')}.faiss")
        if os.path.exists(path):
            index = faiss.read_index(path)
        else:
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            if "IVF" in factory:
                quick = faiss.extract_index_ivf(index).cp
                quick.niter, quick.max_points_per_centroid = 6, 64
            if "HNSW" in factory:
                index.hnsw.efConstruction = BUILDING
            # Of all items a PQ would learn as long as of some.
            index.train(items[:: -(-len(items) // (64 * MOST_LISTS))])
            for part in parts_of(len(items)):
                index.add(items[part])
            if name != "faiss flat":
                faiss.write_index(index, path)
        nbytes = os.path.getsize(path) if os.path.exists(path) else items.nbytes
        for setting in settings:
            yield Contender(name, _said(setting), nbytes, _faiss(index, users, setting))
        del index
        gc.collect()


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


def _of_hnswlib(users, items, path: Path, threads: int) -> Iterator[Contender]:
    import hnswlib

    index = hnswlib.Index("ip", items.shape[1])
    if path.exists():
        index.load_index(str(path))
    else:
        index.init_index(len(items), ef_construction=BUILDING, M=LINKS)
        for part in parts_of(len(items)):
            index.add_items(items[part], np.arange(part.start, part.stop), num_threads=threads)
        index.save_index(str(path))

    def searching(width: int) -> Callable:
        def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
            index.set_ef(max(width, k))
            return index.knn_query(users[first:last], k, num_threads=threads)[0].astype(np.int64)

        return search

    for width in WIDTHS:
        yield Contender("hnswlib", f"ef {width}", index.index_file_size(), searching(width))


def _of_usearch(users, items, path: Path, threads: int) -> Iterator[Contender]:
    from usearch.index import Index

    index = Index(ndim=items.shape[1], metric="ip", connectivity=LINKS, expansion_add=BUILDING)
    if path.exists():
        index.load(str(path))
    else:
        index.add(np.arange(len(items)), items, threads=threads)
        index.save(str(path))

    def searching(width: int) -> Callable:
        def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
            index.expansion_search = max(width, k)
            found = index.search(users[first:last], k, threads=threads)
            return np.atleast_2d(found.keys).astype(np.int64)

        return search

    for width in WIDTHS:
        yield Contender("usearch HNSW", f"ef {width}", index.serialized_length, searching(width))


def _of_voyager(users, items, path: Path, threads: int) -> Iterator[Contender]:
    import voyager

    if not path.exists():
        width = BUILDING if len(items) <= MANY_ITEMS else QUICK_BUILDING
        index = voyager.Index(
            voyager.Space.InnerProduct, items.shape[1], LINKS, width, max_elements=len(items)
        )
        # The longest first: the place of others hangs on the longest so far.
        longest = np.argsort(
            -np.concatenate([np.linalg.norm(items[part], axis=1) for part in parts_of(len(items))])
        )
        for part in parts_of(len(items)):
            index.add_items(items[longest[part]], longest[part], num_threads=threads)
        index.save(str(path))
        del index
    index = voyager.Index.load(str(path))

    def searching(width: int) -> Callable:
        def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
            found = index.query(users[first:last], k, num_threads=threads, query_ef=max(width, k))
            return found[0].astype(np.int64)

        return search

    for width in WIDTHS:
        yield Contender("Voyager", f"ef {width}", path.stat().st_size, searching(width))


def _of_scann(users, items, path: Path, threads: int) -> Iterator[Contender]:
    """A tree of lists, product codes of two columns, and exact scores of the best of them."""
    from scann.scann_ops.py import scann_ops_pybind as scann

    if not path.exists():
        count = min(int(4 * np.sqrt(len(items))), MOST_LISTS)
        index = (
            scann.builder(items, K, "dot_product")
            .set_n_training_threads(threads)
            .tree(
                count, PROBES[0], training_sample_size=min(64 * MOST_LISTS, len(items)), training_iterations=6
            )
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(10 * K)
            .build()
        )
        path.mkdir()
        index.serialize(str(path))
    index = scann.load_searcher(str(path))
    nbytes = sum(file.stat().st_size for file in path.iterdir())

    def searching(probes: int) -> Callable:
        def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
            asked = {
                "final_num_neighbors": k,
                "pre_reorder_num_neighbors": 10 * k,
                "leaves_to_search": probes,
            }
            if last - first == 1:
                return index.search(users[first], **asked)[0][None].astype(np.int64)
            if threads == 1:
                return index.search_batched(users[first:last], **asked)[0].astype(np.int64)
            return index.search_batched_parallel(users[first:last], **asked)[0].astype(np.int64)

        return search

    for probes in PROBES:
        yield Contender("ScaNN", f"leaves {probes}", nbytes, searching(probes))


def measured(
    one: Contender,
    quality,
    queries: int,
    about: dict,
    options: argparse.Namespace,
    fetched: int,
    of_floats=None,
) -> Iterator[dict]:
    k = K if one.own_exclusion else fetched
    found = one.search(0, queries, k, 1)
    about = about | {
        "contender": one.name,
        "setting": one.setting,
        "MB": one.nbytes / 1e6,
        "recall": quality(found),
    }
    if of_floats:
        about["of_floats"] = of_floats(found)
    for threads in options.threads:
        for batch in (1, queries):
            rate = _rate(one.search, k, threads, batch, queries, options.seconds)
            yield about | {"threads": threads, "batch": batch, "queries_per_second": rate}
    print(f"{about['data']}  {one.name}, {one.setting}: {about['recall']:.4f}", flush=True)


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
    """Recall over queries a second, one thread: a row for a data set, a column for a batch; the area is bytes. Float
    users, and points below half of the best recall, are left out."""
    records = [row for row in records if row["threads"] == 1 and "float users" not in row["contender"]]
    data = list(dict.fromkeys(row["data"] for row in records))
    names = list(dict.fromkeys(row["contender"] for row in records))
    figure, panels = plt.subplots(
        len(data), 2, figsize=(10, 3.4 * len(data)), squeeze=False, sharey="row", layout="constrained"
    )
    ours, others = (
        [name for name in sorted(names) if name.startswith("l2q") == own] for own in (True, False)
    )
    colors = dict(zip(ours, ("black", "crimson", "dimgray", "hotpink"), strict=False))
    strong = plt.get_cmap("tab20").colors
    some = [strong[place] for place in (0, 2, 4, 8, 10, 16, 18, 3, 5, 9, 11, 17, 1, 19)]
    colors |= dict(zip(others, some, strict=False))
    for line, of in zip(panels, data, strict=True):
        rows = [row for row in records if row["data"] == of]
        largest, best = (max(row[what] for row in rows) for what in ("MB", "recall"))
        rows = [row for row in rows if row["recall"] >= best / 2]
        for panel, batch in zip(line, sorted({row["batch"] for row in rows}), strict=True):
            for name in names:
                points = [row for row in rows if (row["contender"], row["batch"]) == (name, batch)]
                if points:
                    speed, reached = (
                        [row[what] for row in points] for what in ("queries_per_second", "recall")
                    )
                    panel.plot(speed, reached, color=colors[name], linewidth=2 if name in ours else 1)
                    size = [14 + 200 * row["MB"] / largest for row in points]
                    marker = "s" if name in ours else "o"
                    panel.scatter(
                        speed, reached, size, color=colors[name], marker=marker, label=name, alpha=0.8
                    )
            panel.set(xscale="log", xlabel="queries a second of processor time")
            kind = f", {of.split()[2]}" if of.startswith("made") else ""
            title = f"{of.split()[0]}: {rows[0]['items']:,} items{kind}, "
            panel.set_title(title + ("one by one" if batch == 1 else f"batches of {batch:,}"), fontsize=10)
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
        line[0].set_ylabel(rows[0]["measure"])
    handles: dict = {}
    for panel in panels.flat:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    handles = {name: handles[name] for name in (*ours, *others) if name in handles}
    legend = figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
