"""Recall against queries per second against bytes: packed codes beside what people search with instead.

    python benchmarks/frontier.py [--sets debian gowalla ...] [--items 1000000 ...] [--rows clustered even]
        [--bits 224 768] [--columns 256] [--floats NAME=INDEX ...] [--threads 1 2] [--batch 4096] [--seconds S]
        [--only NAME ...] [--build-threads 1] [--kept DIR] [--data ../shared/data] [--json FILE] [--plot FILE]
    python benchmarks/frontier.py --plot docs/frontier.png --json outputs/benchmarks/frontier.json   # of stored records

Of a set: test Recall@20 of `l2q_plus`, and of float rows under each peer. These are the strongest `--columns` of the
filter that the codes are fitted to, and the rows of `--floats`, as `lightgcn=RUN/index`. Peers cannot leave out what a
user has, so they are asked for 100 items, of which those are dropped; ours leaves it out itself. A float user over
codes is what the user's code is fitted to be, without its signs.

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
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
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

from l2q.fitted.filter import FilterScores
from l2q.interactions import Interactions
from l2q.representations import Rows
from l2q.retrieval import lists
from l2q.retrieval.index import PackedIndex, stored

K, FETCHED = 20, 100
SHARES = (0.9, 0.95, 0.98, 0.99, 0.995)
PROBES = (16, 64, 256, 1024)
WIDTHS = (32, 128, 512)
LINKS, BUILDING = 16, 100  # of a graph: links of an item, and what its building looks at
MOST_QUERIES = 4096  # of made rows
MANY_ITEMS, QUICK_BUILDING = 300_000, 40  # of so many a graph's building looks at fewer
MOST_OF_GRAPHS = 1_000_000  # items; of more Voyager's alone is built
MOST_LISTS = 4096
FILTERS = {  # of conf/experiment; for other sets the fit chooses
    "gowalla": {"gamma_item": 0.4, "popularity": 0.3, "tail": 0.6},
    "amazon_book": {"gamma_item": 0.4, "popularity": 0.1, "tail": 0.4},
}


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
    parser.add_argument(
        "--columns", nargs="+", type=int, default=[256], help="of a set's float rows, for the peers"
    )
    parser.add_argument(
        "--floats",
        nargs="*",
        default=[],
        metavar="NAME=INDEX",
        help="a model's float rows of the set, for the peers",
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch", type=int, default=4096, help="queries of a large batch, and of a recall")
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
    folder, values = Path(options.data) / name, {}
    if name != "debian":
        whole = folder.is_dir()  # otherwise a part of its train part is at hand
        values = {"dir": folder if whole else f"{folder}_partial", "verify": whole}
    data = l2q.load_dataset(name, **values)
    train, test = data.train, data.test
    users = np.flatnonzero(test.user_degrees)[: options.batch]
    asked = test.select(np.isin(test.users, users))

    def quality(found: np.ndarray) -> float:
        return l2q.evaluate(Ranked(users, found, train), asked, [K], train).metrics[f"recall_{K}"]

    def fitted(bits: int) -> l2q.Index:
        folder = options.kept / f"{name}-l2q_plus-{bits}"
        if not (folder / "manifest.json").exists():
            teacher = {"filter": FILTERS[name], "embeddings": {"weight": 0}} if name in FILTERS else {}
            l2q.fit(train, "l2q_plus", seed=0, bits=bits, model=teacher).with_lists().save(folder)
        return l2q.load_index(folder)

    def contenders() -> Iterator[Contender]:
        own = Interactions.from_pairs(
            np.repeat(np.arange(len(users)), train.user_degrees[users]),
            np.concatenate([train[user] for user in users]),
            len(users),
            train.num_items,
        )
        for bits in options.bits:
            index = fitted(bits)
            if _wanted(f"l2q {bits}", options):
                yield from _of_index(f"l2q {bits}", index, users, index.exclude)
            if _wanted(f"float users over l2q {bits}", options):
                yield from _of_index(f"float users over l2q {bits}", index, float_users(index, own), own)
        X, Y = base_of(index, own)
        strongest = np.argsort(-np.linalg.norm(X, axis=0) * np.linalg.norm(Y, axis=0))
        for columns in options.columns:
            some = strongest[:columns]
            left, right = (np.ascontiguousarray(side[:, some]) for side in (X, Y))
            for one in peers(left, right, f"{name}-{columns}", options):
                yield replace(one, name=f"{one.name} of {columns}")
        for model, _, folder in (text.partition("=") for text in options.floats):
            rows = l2q.load_index(folder).representations
            left, right = rows.users.values[users], rows.items.values
            for one in peers(left, right, f"{name}-{model}-{right.shape[1]}", options):
                yield replace(one, name=f"{one.name} of {model}")

    about = {"data": name, "items": train.num_items, "measure": "test Recall@20"}
    for one in contenders():
        yield from measured(one, quality, len(users), about, options, FETCHED)


def of_made(rows: str, count: int, options: argparse.Namespace) -> Iterator[dict]:
    name = f"{rows}-{count}"
    files = {part: options.kept / f"{name}.{part}.npy" for part in ("users", "items")}
    files["truth"] = options.kept / f"{name}.truth-{options.batch}.npy"
    if not files["items"].exists():
        users, items = first_stage.rows(rows, count, first_stage.SAMPLE + MOST_QUERIES)
        np.save(files["users"], users)
        np.save(files["items"], items)
        del items
    users, items = (np.load(files[part], mmap_mode="r") for part in ("users", "items"))
    asked = np.array(users[first_stage.SAMPLE :][: options.batch])
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

        yield from measured(one, quality, len(asked), about, options, K, of_floats)


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


def scores_of(index: l2q.Index, own: Interactions) -> FilterScores:
    """The scores of the filter that the codes of an index are fitted to, of users with these items."""
    found = index.filter_side.scores(own, index.exclude)
    parts = {field.name: getattr(found, field.name) for field in fields(FilterScores)}
    return FilterScores(**(parts | {"Y": found.bytes.rows(slice(None))}))


def base_of(index: l2q.Index, own: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """X (queries, rank) and Y (N, rank) of that filter."""
    scores = scores_of(index, own)
    return scores.U * scores.h, scores.Y


def float_users(index: l2q.Index, own: Interactions) -> Rows:
    """Rows v that lose least of what user codes are fitted to (``l2q.fitted.descent``), (queries, bits) float32:

    (A^T A + w sum_j A_j A_j^T) v = A^T Y x + w sum_j t_j A_j,    A the items' codes with scales, j on the user's list
    """
    items, side = index.representations.items, index.filter_side
    A, weight = items.values * items.scales, np.float32(side.options["weight"])
    _, (X, Y), lists = scores_of(index, own).ranking(own, int(side.options["length"]))
    gram, values = A.T @ A, X @ (Y.T @ A)
    gram += 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram), dtype=np.float32)
    for user, (first, last) in enumerate(itertools.pairwise(lists.indptr)):
        some = A[lists.indices[first:last]]
        values[user] = np.linalg.solve(
            gram + weight * some.T @ some, values[user] + weight * np.float32(lists.data[first:last]) @ some
        )
    return Rows(values)


def _of_index(
    name: str, index: l2q.Index, users: np.ndarray | Rows, own: Interactions
) -> Iterator[Contender]:
    """``users`` by number, or as rows; ``own`` is then what each row has."""
    size = sum(index.arrays[f"items.{part}"].nbytes for part in ("codes", "scales"))
    listed = size + sum(array.nbytes for array in index.lists.arrays.values())

    def searching(exact: float) -> Callable:
        def search(first: int, last: int, k: int, threads: int) -> np.ndarray:
            numba.set_num_threads(threads)
            if not isinstance(users, Rows):
                return index.search(users[first:last], k, own, exact)[1]
            start, end = own.indptr[[first, last]]
            some = Interactions(own.indptr[first : last + 1] - start, own.items[start:end], own.num_items)
            return index.search(Rows(users.values[first:last]), k, some, exact)[1]

        return search

    for exact in (1.0, *SHARES):
        if exact == 1:
            yield Contender(name, "exact", size, searching(exact), own_exclusion=True)
        else:
            yield Contender(
                f"{name}, lists", f"exact={exact:g}", listed, searching(exact), own_exclusion=True
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
    others = np.arange(first_stage.SAMPLE, first_stage.SAMPLE + options.batch)
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
    if len(items) <= MOST_OF_GRAPHS:
        others |= {"hnswlib": _of_hnswlib, "usearch": _of_usearch}
    for module, contenders in others.items():
        if importlib.util.find_spec(module) and _wanted(module, options):
            yield from contenders(users, items, options.kept / f"{data}-{module}", options.build_threads)
            gc.collect()


def _of_faiss(users, items, data: str, options: argparse.Namespace) -> Iterator[Contender]:
    """Inverted lists share their centroids, whose length is one: rows of another length RaBitQ cannot tell apart, so
    items have that on average. RFlat scores the best by their floats."""
    faiss.omp_set_num_threads(options.build_threads)
    dim, count = items.shape[1], min(int(4 * np.sqrt(len(items))), MOST_LISTS)
    probes = [some for some in PROBES if 2 * some <= count]
    described = {
        "faiss flat": "Flat",
        "faiss IVF": f"IVF{count},Flat",
        "faiss IVF PQ FastScan": f"IVF{count},PQ{dim // 2}x4fs,RFlat",
        "faiss IVF RaBitQ FastScan": f"IVF{count},RaBitQfs,RFlat",
        "faiss IVF RaBitQ, 4 bits": f"IVF{count},RaBitQ4",
        "faiss IVF RaBitQ": f"IVF{count},RaBitQ",
        "faiss HNSW": f"HNSW{LINKS},Flat",
    }
    for name, factory in described.items():
        if not _wanted(name, options) or ("HNSW" in name and len(items) > MOST_OF_GRAPHS):
            continue
        path = str(options.kept / f"{data}-{factory.replace(',', '-')}.faiss")
        if os.path.exists(path):
            index = faiss.read_index(path)
        else:
            index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            if "IVF" in factory:
                _set_centroids(faiss.extract_index_ivf(index), options.kept / f"{data}-centroids.npy", items)
            if "HNSW" in name:
                index.hnsw.efConstruction = _building(items)
            some = _sample(items, 64 * MOST_LISTS)
            factor = 1 / np.linalg.norm(some, axis=1).mean()
            index.train(some * factor)
            for part in parts_of(len(items)):
                index.add(items[part] * factor)
            if name != "faiss flat":
                faiss.write_index(index, path)
        nbytes = os.path.getsize(path) if os.path.exists(path) else items.nbytes
        for suffix, setting in (
            [("", {})] if name == "faiss flat"
            else [("", {"efSearch": width}) for width in WIDTHS] if name == "faiss HNSW"
            else [("", {"nprobe": some}) for some in probes]
            + [(", floats", {"nprobe": some, "k_factor_rf": 10}) for some in probes if "RFlat" in factory]
        ):  # fmt: skip
            floats = "RFlat" in factory and not suffix  # are not used
            searched = faiss.downcast_index(index.base_index) if floats else index
            size = nbytes - items.nbytes if floats else nbytes
            yield Contender(name + suffix, _said(setting), size, _faiss(searched, users, setting))
        del index
        gc.collect()


def _building(items: np.ndarray) -> int:
    return QUICK_BUILDING if len(items) > MANY_ITEMS else BUILDING


def _sample(items: np.ndarray, most: int) -> np.ndarray:
    """Of all items a quantizer would learn as long as of some."""
    return items[:: -(-len(items) // most)]


def _set_centroids(index: faiss.IndexIVF, path: Path, items: np.ndarray) -> None:
    if not path.exists():
        means = faiss.Kmeans(
            items.shape[1], index.nlist, niter=6, max_points_per_centroid=32, spherical=index.cp.spherical
        )
        means.train(_sample(items, 32 * index.nlist))
        np.save(path, means.centroids)
    index.quantizer.train(np.load(path))
    index.quantizer.add(np.load(path))


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
        index.init_index(len(items), ef_construction=_building(items), M=LINKS)
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

    index = Index(ndim=items.shape[1], metric="ip", connectivity=LINKS, expansion_add=_building(items))
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
        index = voyager.Index(
            voyager.Space.InnerProduct, items.shape[1], LINKS, _building(items), max_elements=len(items)
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
            .tree(count, PROBES[0], training_sample_size=min(64 * count, len(items)), training_iterations=6)
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
    search(0, min(batch, 64), k, threads)
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


STYLES = {  # color and marker; what is not here, and float users, are not drawn
    "l2q 224": ("crimson", "s"),
    "l2q 768": ("black", "s"),
    "Voyager": ("tab:blue", "o"),
    "hnswlib": ("deepskyblue", "o"),
    "usearch HNSW": ("navy", "o"),
    "faiss HNSW": ("mediumturquoise", "o"),
    "ScaNN": ("darkorange", "^"),
    "faiss IVF": ("goldenrod", "^"),
    "faiss IVF PQ FastScan, floats": ("saddlebrown", "^"),
    "faiss IVF RaBitQ FastScan, floats": ("olive", "^"),
    "faiss IVF RaBitQ, 4 bits": ("mediumorchid", "D"),
    "faiss IVF PQ FastScan": ("rebeccapurple", "D"),
    "faiss flat": ("gray", "X"),
}
LINES = {"768": ":", "lightgcn": "--"}  # of these rows


def draw(records: list[dict], path: Path) -> None:
    """Recall over queries a second, one thread: a row for a data set, a column for a batch. Points below two thirds of
    the best recall are left out, and lists where exact search is as fast: on sets."""
    records = [
        row | {"drawn": row["contender"].removesuffix(", lists").partition(" of ")[0]} for row in records
    ]
    records = [
        row
        for row in records
        if row["threads"] == 1
        and row["drawn"] in STYLES
        and (row["data"].startswith("made") or not row["contender"].endswith(", lists"))
    ]
    data = list(dict.fromkeys(row["data"] for row in records))
    figure, panels = plt.subplots(
        len(data), 2, figsize=(11, 3.5 * len(data)), squeeze=False, sharey="row", layout="constrained"
    )
    handles: dict = {}
    for line, of in zip(panels, data, strict=True):
        rows = [row for row in records if row["data"] == of]
        best = max(row["recall"] for row in rows)
        rows = [row for row in rows if row["recall"] >= 2 / 3 * best]
        for panel, batch in zip(line, sorted({row["batch"] for row in rows}), strict=True):
            for name in dict.fromkeys(row["contender"] for row in rows):
                points = [row for row in rows if (row["contender"], row["batch"]) == (name, batch)]
                speed, reached = ([row[what] for row in points] for what in ("queries_per_second", "recall"))
                (drawn,) = {row["drawn"] for row in points}
                color, marker = STYLES[drawn]
                exact = drawn == name and name.startswith("l2q")
                (handle,) = panel.plot(
                    speed, reached, color=color, marker="*" if exact else marker,
                    linestyle=LINES.get(name.rpartition(" of ")[2], "-"), linewidth=2.2 if "l2q" in name else 1,
                    markersize=14 if exact else 6, markeredgecolor="white", markeredgewidth=0.5,
                )  # fmt: skip
                handles[drawn + ", exact" * exact] = handle
            panel.set(xscale="log", xlabel="queries a second of processor time")
            kind = f", {of.split()[2]}" if of.startswith("made") else ""
            title = f"{of.split()[0]}: {rows[0]['items']:,} items{kind}, "
            panel.set_title(title + ("one by one" if batch == 1 else f"batches of {batch:,}"), fontsize=10)
            slowest, fastest = panel.get_xlim()
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if fastest < 300 * slowest else (1,)))
            panel.xaxis.set_major_formatter("{x:,.0f}")
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
        line[0].set_ylabel(rows[0]["measure"])
    ordered = [name for drawn in STYLES for name in (f"{drawn}, exact", drawn) if name in handles]
    labels = [f"{name}, lists" if name in ("l2q 224", "l2q 768") else name for name in ordered]
    figure.legend(
        [handles[name] for name in ordered],
        labels,
        loc="outside lower center",
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    figure.savefig(path, dpi=95)
    plt.close(figure)


if __name__ == "__main__":
    main()
