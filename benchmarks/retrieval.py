"""Exact Top-K from packed codes beside FAISS, usearch and torch: one run, same threads, interleaved medians.

    python benchmarks/retrieval.py [--json FILE] [--threads N] [--repeats N] [--quick]
    python benchmarks/retrieval.py --threads 1 --looked-at DIR clustered:1000000 ...

Amazon-Book's size: 91,599 items, queries in batches of 4,096 (its 52,643 users are 13 of them), 64 and 1.
Items and users are drawn from one 64-dimensional normal distribution; wider floats are a random rotation of
it into more dimensions, codes the signs of that, scales the mean magnitudes per segment. Our figures include
everything from packed queries to sorted lists.
Every contender runs once per round, a pause after each, and the medians over the rounds are compared.

`--looked-at` counts how little a query looks at, of an index of one segment or of made items (`first_stage.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import faiss
import first_stage
import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table

import l2q
from l2q.interactions import Interactions
from l2q.kernels.packed import PackedItems, top_k
from l2q.kernels.packing import pack
from l2q.representations import Rows
from l2q.retrieval.index import stored

try:
    from usearch.index import MetricKind
    from usearch.index import search as usearch_search
except ImportError:
    usearch_search = None  # type: ignore[assignment]

Search = Callable[[int, int], tuple[np.ndarray, np.ndarray]]  # (queries, k) -> scores or distances, items
PACKED = {"packed768": ((768,), True), "packed864": ((256,) * 3, True), "packed288": ((256,), True)}
PACKED |= {"hamming768": ((768,), False)}
SLOW = 256  # queries per call for the contenders that need seconds for a batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--looked-at", nargs="+", default=[], help="count in these instead")
    options = parser.parse_args()
    numba.set_num_threads(options.threads)
    for name in options.looked_at:
        count(catalogue(name))
    if options.looked_at:
        return
    faiss.omp_set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    num_items, batch, many = (5_000, 256, 100_000) if options.quick else (91_599, 4_096, 10_000_000)
    console = Console(width=110)
    describe_machine(console, options.threads)

    contenders, sizes = build(num_items, batch, options.threads)
    check(contenders, min(batch, 64))
    rates = {
        (k, size): measure(contenders, size, k, options.repeats, options.quick)
        for k in (20, 100)
        for size in (batch, 64)
    }
    latencies = {
        name: [ms for k in (20, 100) for ms in latency(search, k, 20 if options.quick else 100)]
        for name, search in contenders.items()
    }
    overlap = recall(contenders, min(batch, SLOW))
    show(console, rates, latencies, overlap, sizes, batch)

    ours = {name: rates[20, batch][name] for name in contenders}
    pairs = {
        "packed768_vs_faiss_binary768": ("packed768", "faiss binary768"),
        "packed768_vs_faiss_float768": ("packed768", "faiss float768"),
        "packed864_vs_faiss_float64": ("packed864", "faiss float64"),
        "packed288_vs_faiss_float64": ("packed288", "faiss float64"),
        "asymmetric768_vs_packed768": ("asymmetric768", "packed768"),
    }
    records = [
        record(what, ours[a], ours[b], ours[a] / ours[b], "queries/s") for what, (a, b) in pairs.items()
    ]
    speed = ours["whole768"] * num_items * 768 / 1e9
    peak, bound = (popcount_peak(options.threads, whole) for whole in (False, True))
    console.print(
        f"Popcount peak {peak:,.0f} Gbit-op/s; xor + popcount + add, registers only, {bound:,.0f}; "
        f"all items of packed768 with scales, Top-20, {speed:,.0f}: {speed / peak:.0%} and {speed / bound:.0%}."
    )
    records.append(record("share_of_popcount_peak", speed, peak, speed / peak, "Gbit-op/s"))
    files = bytes_on_disk(num_items)
    records.append(
        record("item_index_bytes_vs_float256", files, 1024 * num_items, 1024 * num_items / files, "bytes")
    )
    records += ten_million(many, options.threads, 20 if options.quick else 300)

    table = Table(
        "record", "ours", "peer or limit", "ratio", "unit", title="Records (ratio > 1: ours better)"
    )
    for row in records:
        table.add_row(
            row["what"], f"{row['ours']:,.1f}", f"{row['peer']:,.1f}", f"{row['ratio']:.2f}", row["unit"]
        )
    console.print(table)
    console.print(f"Load at the end: {os.getloadavg()[0]:.2f} (this run's own threads included)")
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


def record(what: str, ours: float, peer: float, ratio: float, unit: str) -> dict:
    return {"what": what, "ours": float(ours), "peer": float(peer), "ratio": float(ratio), "unit": unit}


def describe_machine(console: Console, threads: int) -> None:
    load = os.getloadavg()[0]
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = dict(
            line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
        )
        names = {key.strip(): value.strip() for key, value in lines.items()}
        wide = "avx512_vpopcntdq" in names.get("flags", "")
        cpu = f"{names.get('model name', cpu)}, {'with' if wide else 'without'} vector popcount"
    packages = [name for name in ("numpy", "numba", "faiss-cpu", "torch", "usearch") if _installed(name)]
    console.print(f"{cpu}; {os.cpu_count()} cores, {threads} threads; load {load:.2f}")
    console.print(f"Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages))
    if load > 0.25 * (os.cpu_count() or 1):
        console.print("[bold red]Warning: this machine is busy; times and ratios are not to be quoted.[/]")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


def build(num_items: int, batch: int, threads: int) -> tuple[dict[str, Search], dict[str, int]]:
    """Contenders by name, and the bytes of each one's items."""
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((rows, 64), dtype=np.float32) for rows in (batch, num_items))
    projection = np.linalg.qr(rng.standard_normal((768, 64), dtype=np.float32)).Q.T  # keeps inner products
    wide_users, wide_items = users @ projection, items @ projection
    contenders: dict[str, Search] = {}
    sizes: dict[str, int] = {}

    for name, (dims, scaled) in PACKED.items():
        width, shape = sum(dims), (-1, len(dims), dims[0])
        scales = np.abs(wide_items[:, :width].reshape(shape)).mean(axis=2) if scaled else None
        factors = np.abs(wide_users[:, :width].reshape(shape)).mean(axis=2)
        packed = PackedItems.longest_first(pack(wide_items[:, :width], dims), dims, scales)
        queries = pack(wide_users[:, :width], dims)
        factors = factors if scaled else np.ones_like(factors)
        contenders[name] = _ours(queries, factors, packed)
        sizes[name] = packed.nbytes
        if name == "packed768":  # no item ahead of another, so that none is left out
            whole = PackedItems.from_packed(pack(wide_items, dims), dims, scales)
            contenders["whole768"], sizes["whole768"] = _ours(queries, factors, whole), packed.nbytes
    contenders["asymmetric768"] = _ours(
        wide_users, np.ones((batch, 1), np.float32), PackedItems.from_packed(pack(wide_items, (768,)), (768,))
    )
    sizes["asymmetric768"] = sizes["hamming768"]

    for name, left, right in (("float64", users, items), ("float768", wide_users, wide_items)):
        flat = faiss.IndexFlatIP(right.shape[1])
        flat.add(right)
        contenders[f"faiss {name}"] = _faiss(flat, left)
        contenders[f"torch {name}"] = _torch(torch.from_numpy(left), torch.from_numpy(right))
        sizes[f"faiss {name}"] = sizes[f"torch {name}"] = right.nbytes
    bits, item_bits = pack(wide_users, (768,)), pack(wide_items, (768,))
    binary = faiss.IndexBinaryFlat(768)
    binary.add(item_bits)
    contenders["faiss binary768"] = _faiss(binary, bits)
    sizes["faiss binary768"] = item_bits.nbytes
    if usearch_search is not None:
        contenders["usearch b1 768"] = _usearch(bits, item_bits, threads)
        sizes["usearch b1 768"] = item_bits.nbytes
    return contenders, sizes


def _ours(queries: np.ndarray, factors: np.ndarray, items: PackedItems) -> Search:
    return lambda n, k: top_k(queries[:n], factors[:n], items, k)


def _faiss(index, queries: np.ndarray) -> Search:
    return lambda n, k: index.search(queries[:n], k)


def _torch(users: torch.Tensor, items: torch.Tensor) -> Search:
    def search(n: int, k: int):
        parts = [torch.topk(users[i : min(i + SLOW, n)] @ items.T, k) for i in range(0, n, SLOW)]
        scores, ids = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        return scores, ids

    return search


def _usearch(users: np.ndarray, items: np.ndarray, threads: int) -> Search:
    def search(n: int, k: int):
        found = usearch_search(items, users[:n], k, metric=MetricKind.Hamming, exact=True, threads=threads)
        shape = (n, k)
        return np.reshape(found.distances, shape), np.reshape(found.keys, shape)

    return search


def check(contenders: dict[str, Search], n: int) -> None:
    """Both rankings by Hamming distance find the same distances."""
    dots, _ = contenders["hamming768"](n, 20)
    distances, _ = contenders["faiss binary768"](n, 20)
    np.testing.assert_array_equal((768 - dots) / 2, distances)


def measure(contenders: dict[str, Search], batch: int, k: int, repeats: int, quick: bool) -> dict[str, float]:
    """Queries per second of each contender, the median over rounds of all."""
    calls = {
        name: min(batch, SLOW) if name.startswith(("torch", "usearch")) else batch for name in contenders
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name, search in contenders.items():
        search(min(calls[name], 8), k)
    for _ in range(2 if quick else repeats if batch > SLOW else 3 * repeats):
        for name, search in contenders.items():
            start = time.perf_counter()
            search(calls[name], k)
            times[name].append(time.perf_counter() - start)
            time.sleep(0.02)  # let a library's idle threads go to sleep
    return {name: calls[name] / float(np.median(seconds)) for name, seconds in times.items()}


def latency(search: Search, k: int, calls: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds of calls with one query."""
    search(1, k)
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        search(1, k)
        seconds.append(time.perf_counter() - start)
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return float(p50), float(p99)


def recall(contenders: dict[str, Search], n: int) -> dict[str, float]:
    """Share of the float ranking's Top-20 (64 dimensions) that each one finds."""
    truth = contenders["faiss float64"](n, 20)[1]
    found = {name: search(n, 20)[1] for name, search in contenders.items()}
    return {
        name: float(np.mean([np.isin(a, b).mean() for a, b in zip(truth, items, strict=True)]))
        for name, items in found.items()
    }


def show(console: Console, rates, latencies, overlap, sizes, batch: int) -> None:
    rate = Table(title="Exact search, interleaved medians: queries per second")
    rate.add_column("contender")
    for column in (f"{batch:,} K20", f"{batch:,} K100", "64 K20", "64 K100", "items MB", "recall"):
        rate.add_column(column, justify="right")
    one = Table(title="One query: milliseconds")
    one.add_column("contender")
    for column in ("K20 p50", "K20 p99", "K100 p50", "K100 p99"):
        one.add_column(column, justify="right")
    for name in latencies:
        cells = [f"{rates[k, size][name]:,.0f}" for size in (batch, 64) for k in (20, 100)]
        rate.add_row(name, *cells, f"{sizes[name] / 1e6:.1f}", f"{overlap[name]:.3f}")
        one.add_row(name, *(f"{value:.2f}" for value in latencies[name]))
    console.print(rate)
    console.print(one)


def bytes_on_disk(num_items: int) -> int:
    """The item files of three segments of 256 bits with float32 scales, as NumPy writes them."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "codes.npy", np.zeros((num_items, 96), np.uint8))
        np.save(Path(folder) / "scales.npy", np.zeros((num_items, 3), np.float32))
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def ten_million(num_items: int, threads: int, calls: int) -> list[dict]:
    """256 bits and a float32 scale per item: bytes, and the latency of one user among all items."""
    rng = np.random.default_rng(1)
    packed = rng.integers(0, 256, (num_items, 32), dtype=np.uint8)
    scales = rng.uniform(0.5, 1.5, (num_items, 1)).astype(np.float32)
    items = PackedItems.longest_first(packed, (256,), scales)
    del packed, scales
    queries = rng.integers(0, 256, (calls, 32), dtype=np.uint8)
    top_k(queries[:1], np.ones(1, np.float32), items, 20)
    seconds = []
    for query in queries[:, None]:
        start = time.perf_counter()
        top_k(query, np.ones(1, np.float32), items, 20)
        seconds.append(time.perf_counter() - start)
    p99, megabytes = 1e3 * float(np.percentile(seconds, 99)), items.nbytes / 1e6
    return [
        record("ten_million_items_p99", p99, 100, 100 / p99, "ms"),
        record("ten_million_items_memory", megabytes, 500, 500 / megabytes, "MB"),
    ]


class Catalogue(NamedTuple):
    """Users and items of one segment; ``own``: what each user has."""

    name: str
    users: Rows
    items: Rows
    dim: int
    own: Interactions


def catalogue(name: str) -> Catalogue:
    """Of the index in a folder, or made as ``KIND:ITEMS``."""
    if Path(name).is_dir():
        index = l2q.load_index(name)
        (dim,) = index.dims
        assert index.weights[0] == 1
        return Catalogue(
            name, stored(index.arrays, "users"), stored(index.arrays, "items"), dim, index.exclude
        )
    kind, count = name.split(":")
    arrays = first_stage.codes_of(*first_stage.rows(kind, int(count), 4096), 256)
    nothing = Interactions(np.zeros(4097, np.int64), np.empty(0, np.int32), int(count))
    return Catalogue(name, stored(arrays, "users"), stored(arrays, "items"), 256, nothing)


def count(given: Catalogue, k: int = 20) -> None:
    """Prints how many items users look at, and what that is worth beside a look at all of them."""
    name, users, items, dim, own = given
    first = PackedItems.longest_first(items.values, (dim,), items.scales)
    some = np.random.default_rng(0).permutation(len(users))[:4096]
    found = [looked_at(given, first, int(user), k) for user in some[: 200 if len(items) < 10**6 else 20]]
    places, bits = np.mean(found, axis=0)
    high = np.percentile([share for share, _ in found], 90)
    print(
        f"{name}: {len(items):,} items of {dim} bits. Of the items {places:.1%} are looked at (p90 {high:.1%}), of "
        f"all bits {bits:.1%} are counted: means of {len(found)} users, each alone, Top-{k}"
    )
    layouts = [PackedItems.from_packed(items.values, (dim,), items.scales), first]
    many = len(some) if len(items) < 10**7 else 256
    for batch, queries in ((1, 200 if len(items) < 10**6 else 20), (many, many)):

        def seconds(layout: PackedItems, batch=batch, queries=queries) -> float:
            start = time.process_time()
            for begin in range(0, queries, batch):
                who = some[begin : begin + batch]
                factors = np.ones(1, np.float32) if users.scales is None else users.scales[who]
                top_k(users.values[who], factors, layout, k, own, who)
            return time.process_time() - start

        rounds = np.array([[seconds(layout) for layout in layouts] for _ in range(4)][1:])
        whole, early = queries / rounds.min(axis=0)
        print(
            f"  {batch:,} users at a time: {early:,.0f} queries a second of processor time, {whole:,.0f} where all is "
            f"looked at; median ratio {np.median(rounds[:, 0] / rounds[:, 1]):.2f}"
        )


def looked_at(given: Catalogue, first: PackedItems, user: int, k: int) -> tuple[float, float]:
    """The shares of places and of bits that a user alone looks at, by NumPy: the search ends, and passes end, as
    ``l2q.kernels.packed`` has it."""
    _, users, items, dim, own = given
    assert first.ids is not None
    assert first.reach is not None
    assert items.scales is not None
    codes, scales = items.values[first.ids], items.scales[first.ids, 0]
    width, blocks = codes.shape[1], len(first.planes)
    tile = max((1 << 18) // (64 * width) // 2 * 2, 2)
    cuts = [*range(min(-(-width // 3), 31), width, min(-(-width // 3), 31)), width]
    factor = 1.0 if users.scales is None else float(users.scales[user, 0])
    differing = np.bitwise_count(codes ^ users.values[user]).cumsum(axis=1, dtype=np.uint16).astype(np.int32)
    scores = factor * (dim - 2 * differing[:, -1]) * scales
    scores[np.argsort(first.ids)[own[user]]] = -np.inf
    looked = counted = 0
    bar = -np.inf
    for begin in range(0, blocks, tile):
        last = min(begin + tile, blocks)
        while begin < last and factor * dim * first.reach[last - 1, 0] <= bar:
            last -= 1
        if begin == last:
            break
        most = dim if bar < 0 else (dim - bar / (factor * float(first.reach[begin, 0])) + 1) // 2
        for block in range(begin, last, 2):
            some = slice(64 * block, 64 * (block + 2))
            if len(scores[some]):
                looked += len(scores[some])
                ends = (cut for cut in cuts if differing[some, cut - 1].min() > most)
                counted += len(scores[some]) * next(ends, width)
        bar = np.sort(scores[: 64 * last])[-k:][0] if 64 * last >= k else bar
    return looked / len(codes), counted / codes.size


def popcount_peak(threads: int, whole: bool) -> float:
    """Gbit-op/s of 16 independent chains in registers: popcounts alone, or xor, popcount and addition."""
    vector = ir.VectorType(ir.IntType(32), 16)

    @intrinsic
    def chains(_context, rounds, seed):
        def generate(context, builder, signature, arguments):
            kind = ir.FunctionType(vector, [vector])
            count = cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.v16i32")
            start = ir.Constant(vector, ir.Undefined)
            seed = builder.trunc(arguments[1], ir.IntType(32))
            for lane in range(16):
                start = builder.insert_element(start, builder.add(seed, seed.type(lane)), seed.type(lane))
            before, loop = builder.block, builder.append_basic_block("loop")
            after = builder.append_basic_block("after")
            zeros = builder.xor(start, start)
            starts = [builder.add(start, vector([7 * chain] * 16)) for chain in range(16)]
            builder.branch(loop)
            builder.position_at_end(loop)
            index, values = builder.phi(arguments[0].type), [builder.phi(vector) for _ in range(16)]
            if whole:
                counts = [builder.call(count, [builder.xor(value, start)]) for value in values]
                results = [builder.add(*pair) for pair in zip(values, counts, strict=True)]
            else:
                results = [builder.call(count, [value]) for value in values]
            following = builder.add(index, index.type(1))
            for phi, first, again in zip(
                [index, *values], [index.type(0), *starts], [following, *results], strict=True
            ):
                phi.add_incoming(first, before)
                phi.add_incoming(again, loop)
            builder.cbranch(builder.icmp_signed("<", following, arguments[0]), loop, after)
            builder.position_at_end(after)
            total = zeros
            for result in results:
                total = builder.add(total, result)
            return builder.zext(builder.extract_element(total, seed.type(0)), arguments[0].type)

        return types.int64(types.int64, types.int64), generate

    @numba.njit(nogil=True)
    def run(rounds, seed):
        return chains(rounds, seed)  # type: ignore[call-arg]

    rounds, rates = 5_000_000, []
    run(1, 1)
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            list(pool.map(run, [rounds] * threads, range(threads)))
            rates.append(threads * rounds * 16 * 512 / (time.perf_counter() - start) / 1e9)
    return max(rates)


if __name__ == "__main__":
    main()
