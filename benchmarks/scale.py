"""What several processes send, hold and compute in a step, beside the cost model of docs/scale.md; and that model, for
graphs that no machine here holds.

    python benchmarks/scale.py [--data ../shared/data] [--json outputs/benchmarks/scale.jsonl]     # measures
    python benchmarks/scale.py --plan [--json outputs/benchmarks/scale.jsonl]                      # evaluates the model
    python benchmarks/scale.py --fits [--data ../shared/data]   # measures fits of l2q_plus instead, which --plan needs
    python benchmarks/scale.py --weak                 # measures ten million edges a process instead, which --plan needs
    python benchmarks/scale.py --tables                               # measures how a table of Parquet is read instead

Every case trains a few steps of `batch_size=32768` in 1, 2 or 4 processes of one thread each. Bytes are those that the
kernel counts on the loopback of a network namespace of its own (`unshare`), headers and acknowledgments with them, from
the third step to the last. Seconds are processor seconds of a process, since the processes outnumber the cores: they
say what a step computes, not how long it takes. Memory is the most that a process held. The losses of every step are
compared with those of one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import pydoc
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
import numpy as np
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.table import Table
from scipy.optimize import nnls

from l2q import processes, settings
from l2q.interactions import Interactions
from l2q.kernels.rows import DEEPEST

BATCH, WARM, LAYERS, SEED = 32768, 2, 2, 0
MIB = 2**20
WEAK = "scale_weak"  # the file of the graphs with ten million edges a process
FITS = "scale_fits"  # and of the fits


def cases() -> Iterator[dict[str, Any]]:
    two = ("", 1), ("batches", 2), ("columns", 2)
    for dim, steps, ways in ((64, 25, two), (256, 8, (*two, ("batches", 4), ("columns", 4)))):  # 25: an epoch
        for model in ("lightgcn", "l2q_anl"):
            for parallel, size in ways:
                given = {"parallel": parallel, "processes": size, "steps": steps}
                yield {"graph": "gowalla", "model": model, "dim": dim} | given
    yield from weak(2.5, 8, "l2q_anl", 32, columns=(1, 2, 4))


def weak(
    millions: float, steps: int, model: str, width: int, **ways: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """Drawn graphs with as many ``millions`` of edges, and as many columns, for every process."""
    for parallel, sizes in ways.items():
        for size in sizes:
            given = {"parallel": parallel if size > 1 else "", "processes": size, "steps": steps}
            yield {"graph": f"made_{millions * size:g}m", "model": model, "dim": width * size} | given


def made(edges: int) -> Interactions:
    """A tenth as many users as pairs, a fiftieth as many items; degrees and popularity follow power laws."""
    rng = np.random.default_rng(SEED)
    users, items = edges // 10, edges // 50
    u, i = (
        (rng.random(edges) ** 2 * users).astype(np.int64),
        (rng.random(edges) ** 3 * items).astype(np.int64),
    )
    return Interactions.from_pairs(rng.permutation(users)[u], rng.permutation(items)[i], users, items)


def graph_of(name: str, data: str) -> Interactions:
    if name.startswith("made_"):
        return made(int(float(name[5:-1]) * 1e6))
    return l2q.load_dataset(name, dir=f"{data}/{name}").train


def sent() -> int:
    """Bytes on the loopback so far, of all processes in this network namespace."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    return 0


def held(what: str = "VmRSS") -> float:
    """MiB that this process holds now, or the most that it held (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    return 0.0


class Meter(Callback):
    """Losses of every step; bytes and processor seconds from the third one on."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rows: list[int] = []
        self.entries: list[int] = []
        self.begin = self.end = (0.0, 0)
        METERS.append(self)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_index: int) -> None:
        users, pos_items, neg_items = batch[:3]
        import torch

        nodes = module._batch_nodes(users, torch.cat([pos_items, neg_items]) + module.encoder.num_users)
        self.rows.append(len(module.encoder.embeddings) if nodes is None else len(nodes))
        indptr, some = (
            module.encoder.propagation.graph.indptr,
            slice(None) if nodes is None else nodes.numpy(),
        )
        self.entries.append(int((indptr[1:][some] - indptr[:-1][some]).sum()))

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))
        if batch_index + 1 in (WARM, trainer.num_training_batches):
            trainer.strategy.barrier()
            mark = time.process_time(), sent()
            self.begin, self.end = (mark, mark) if batch_index + 1 == WARM else (self.begin, mark)
            if trainer.is_last_batch:
                self.most = held("VmHWM")


METERS: list[Meter] = []


def work(case: dict[str, Any], data: str, out: Path) -> None:
    """What one process does."""
    from l2q.learning import memory
    from l2q.learning.training import Training

    processes.join()
    if processes.size() > 1:
        processes.connect()
    with np.load(out.with_suffix(".npz")) as file:  # which one process has made
        train = Interactions(file["indptr"], file["items"], int(file["num_items"]))
    memory.prepare()
    changes: dict[str, Any] = {
        "batch_size": BATCH,
        "epochs": 1,
        "parallel": case["parallel"] or "batches",
        "model": {"embedding_dim": case["dim"], "num_layers": LAYERS},
        "trainer": {"accelerator": "cpu", "limit_train_batches": case["steps"], "enable_progress_bar": False},
    }
    if case["model"] == "l2q_anl":
        changes["model"]["rotation_blocks"] = 4
    config = settings.compose(changes, model=case["model"], protocol="final")
    config["callbacks"] = {"meter": {"_target_": "scale.Meter"}}
    before = held()
    Path("/proc/self/clear_refs").write_text("5")  # the most from here on
    Training(config, train, None, None)()
    (meter,) = METERS
    steps = len(meter.losses) - WARM
    found = {
        "losses": meter.losses,
        "rows": float(np.mean(meter.rows[WARM:])),
        "entries": float(np.mean(meter.entries[WARM:])),
        "seconds": (meter.end[0] - meter.begin[0]) / steps,
        "sent": (meter.end[1] - meter.begin[1]) / steps / processes.size(),
        "data_mib": before,
        "most_mib": meter.most,
        "nodes": train.num_users + train.num_items,
        "edges": len(train),
    }
    out.with_suffix(f".{processes.rank()}").write_text(json.dumps(found))


class Stages:
    """Of a fit: calls, processor seconds of this process and bytes of all, by stage, without what is nested in it; and
    the units by which the cost model counts them."""

    PLACES = (
        ("l2q.fitted.l2q_plus", "choose_quickly", "choice"),
        ("l2q.fitted.shortcuts", "svd_in_parts", "decompositions"),
        ("l2q.fitted.filter.FilterScores", "ranking", "lists"),
        ("l2q.fitted.descent", "half_round", "rounds"),
        ("l2q.fitted.descent", "with_intruders", "intruders"),
    )

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self.inner = [np.zeros(2)]
        for module, name, stage in self.PLACES:
            place = pydoc.locate(module)
            setattr(place, name, self.timed(getattr(place, name), stage))

    def timed(self, function: Any, stage: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = np.array([time.process_time(), sent()])
            self.inner.append(np.zeros(2))
            result = function(*args, **kwargs)
            all_of_it = np.array([time.process_time(), sent()]) - began
            own = all_of_it - self.inner.pop()
            self.inner[-1] += all_of_it
            units = {"calls": 1.0} | units_of(stage, args)
            units |= {"seconds": own[0], "sent": own[1] / processes.size()}
            known = self.found.setdefault(stage, {})
            for key, value in units.items():
                known[key] = known.get(key, 0.0) + float(value)
            return result

        return call


def units_of(stage: str, args: tuple[Any, ...]) -> dict[str, float]:
    """Of all processes: multiplications of a sparse product, of dense ones, and what is left by stage."""
    if stage == "decompositions":
        R_hat, rank, _, iterations, start = (*args, 6, None)[:5]
        return decomposition(*R_hat.shape, R_hat.nnz, rank, iterations, start is not None)
    if stage == "lists":
        (users, items), rank = args[0].shape, len(args[0].h)
        return lists_of(users, items, rank)
    if stage == "rounds":
        _, X, Y, lists, others = args[:5]
        n, m = (processes.total(len(side)) for side in (X, Y))
        return round_of(n, m, processes.total(lists.nnz), X.shape[1], others.codes.shape[1])
    if stage == "intruders":
        state, (X, Y) = args[:2]
        n, m = (processes.total(len(side)) for side in (X, Y))
        return intruders_of(n, m, Y.shape[1], state.items.codes.shape[1])
    return {}


def decomposition(
    users: float, items: float, edges: float, rank: float, iterations: int, near: bool
) -> dict[str, float]:
    """Of one with so many power iterations, from a start that is ``near`` or a random one."""
    small, large = sorted([users, items])
    width = min(rank + (64 if near else max(rank // 4, 64)), small)
    orthonormal = small * width**2  # half a Gram matrix, half a triangular solve
    turned = (2 * iterations + 1) * small * width + large * width
    return {
        "sparse": (2 * iterations + 1) * edges * width,
        "dense": (iterations + 1) * orthonormal + large * width**2 / 2 + (small + large) * width * rank,
        "turned": 4 * turned,
        "joined": (iterations + 1) * gram_bytes(small, width) + gram_bytes(large, width),
    }


def gram_bytes(rows: float, width: float, other: float | None = None) -> float:
    """That travel to everyone: all rows, or sums of blocks of them, and the result."""
    result = 4 * width * (width if other is None else other)
    return 4 * rows * width + result if rows <= DEEPEST else math.ceil(rows / DEEPEST) * result


def round_of(rows: float, others: float, entries: float, rank: float, bits: float) -> dict[str, float]:
    """Of one side."""
    return {
        "dense": rows * (rank + bits) * bits + others * (rank + bits / 2) * bits,
        "entries": entries * bits,
        "joined": others * (bits / 8 + 4) + gram_bytes(others, rank, bits),
    }


def lists_of(users: float, items: float, rank: float) -> dict[str, float]:
    return {"products": users * items * rank, "scores": users * items, "joined": 4 * items * rank}


def intruders_of(users: float, items: float, rank: float, bits: float) -> dict[str, float]:
    return {"bits": users * items * bits, "joined": items * (bits / 8 + 4 + 4 * rank)}


def fit_payload(of: dict[str, float], p: int) -> float:
    """Bytes that a process sends: of what is ``joined`` all others get its share, of what is ``turned`` each gets a
    share of its share."""
    return (of.get("joined", 0.0) + of.get("turned", 0.0) / p) * (p - 1) / p


def fit(case: dict[str, Any], data: str, out: Path) -> None:
    """What one process does of a fit."""
    from l2q.learning import memory
    from l2q.learning.run import closed_form

    processes.join()
    train = graph_of(case["graph"], data)
    memory.prepare()
    model = closed_form(settings.compose({"model": {"bits": case["bits"]}}, model=case["model"]))
    assert model is not None
    logging.getLogger("l2q").setLevel(logging.ERROR)
    stages, before = Stages(), held()
    Path("/proc/self/clear_refs").write_text("5")  # the most from here on
    with processes.together("again"):
        processes.shared(lambda parts: [None for _ in parts], [0])  # all of them have begun
        began, bytes_before = time.process_time(), sent()
        rows = model.fit(train, SEED).representations
        bytes_after = sent()
    found = {
        "seconds": time.process_time() - began,
        "sent": (bytes_after - bytes_before) / processes.size(),
        "data_mib": before,
        "most_mib": held("VmHWM"),
        # the first process has all codes
        "digest": hashlib.sha256(b"".join(side.tobytes() for side in rows.factors())).hexdigest()[:12],
        "stages": stages.found,
        "users": train.num_users,
        "items": train.num_items,
        "edges": len(train),
    }
    out.with_suffix(f".{processes.rank()}").write_text(json.dumps(found))


def written(folder: Path, rows: int) -> None:
    """A table of drawn events in eight files, with names of 20 letters: a quarter as many users as rows at most."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(SEED)
    for part in range(8):
        users = (rng.random(rows // 8) ** 2 * (rows // 4)).astype(np.int64) * 7919 % (rows // 4)
        items = (rng.random(rows // 8) ** 3 * (rows // 50)).astype(np.int64) * 7919 % (rows // 50)
        table = {
            "user": [f"customer-{user:011}" for user in users],
            "item": [f"product-{item:012}" for item in items],
            "time": rng.integers(1_500_000_000, 1_600_000_000, size=rows // 8),
        }
        parquet.write_table(pa.table(table), folder / f"part-{part}.parquet", row_group_size=rows // 64)


def read(case: dict[str, Any], data: str, out: Path) -> None:
    """What one process does of reading a table."""
    processes.join()
    with processes.together("again"):
        few = Path(data).parent / "few"  # all that reading loads and compiles is there from here on
        l2q.read_events(few)
        before, began, bytes_before = held(), time.process_time(), sent()
        Path("/proc/self/clear_refs").write_text("5")  # the most from here on
        events = l2q.read_events(data)
        seconds, bytes_after = time.process_time() - began, sent()
        most = held("VmHWM")
        processes.everyone(None)
    arrays = [events.indptr, events.items, events.times, events.counts]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays if array is not None))
    found = {
        "seconds": seconds,
        "sent": (bytes_after - bytes_before) / processes.size(),
        "data_mib": before,
        "most_mib": most,
        "left_mib": held() - before,
        "users": events.num_users,
        "items": events.num_items,
        "pairs": len(events),
        "digest": digest.hexdigest()[:12],
    }
    out.with_suffix(f".{processes.rank()}").write_text(json.dumps(found))
    processes.leave()


def parts_of(case: dict[str, Any], data: str) -> list[dict[str, Any]]:
    """A case in processes of its own, in a network namespace of its own; what each of them found."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        if "model" in case and "bits" not in case:
            train = graph_of(case["graph"], data)
            np.savez(
                out.with_suffix(".npz"), indptr=train.indptr, items=train.items, num_items=train.num_items
            )
            del train
        worker = [__file__, "--work", json.dumps(case), "--data", data, "--out", str(out)]
        start = [sys.executable]
        if case["processes"] > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case['processes']}"]
        shell = 'ip link set lo up && exec "$@"'
        subprocess.run(
            ["unshare", "-rn", "sh", "-c", shell, "sh", *start, *worker],
            check=True,
            env=os.environ | threads,
            stdout=subprocess.DEVNULL,
        )
        return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("out.[0-9]*"))]


def run(case: dict[str, Any], data: str) -> dict[str, Any]:
    """A case with the means over its processes."""
    parts = parts_of(case, data)
    mean = {key: float(np.mean([part[key] for part in parts])) for key in parts[0] if key != "losses"}
    # by batches a process's loss counts for its share
    found = case | mean | {"losses": np.mean([part["losses"] for part in parts], axis=0).tolist()}
    return found | {"formula": payload(found)}


def payload(one: dict[str, Any]) -> float:
    """Bytes that a process sends in a step: a sum of n float32 numbers over p processes costs each 8 n (p - 1) / p in a
    ring. By batches it is the gradient; by columns 2 b scores, row scales of every segment, the squares of L2. By edges
    come neighbors of the others' nodes, 4 bytes each, for every hop; of how many they are in the last hop's backward,
    4 bytes a node; and of a batch the numbers of its pairs, their items and negatives."""
    p, d, batch, nodes = one["processes"], one["dim"], one.get("batch", BATCH), one["nodes"]
    if one["parallel"] == "batches":
        return 8 * nodes * d * (p - 1) / p
    segments = LAYERS + 1 if one["model"] == "l2q_anl" else 0
    numbers = 2 * batch + segments * one["rows"] + 1
    if one["parallel"] != "edges":
        return 8 * numbers * (p - 1) / p
    whole, some = (LAYERS - 1, nodes) if one["rows"] < nodes else (LAYERS, 0)
    neighbors = 2 * whole * 2 * one["edges"] + 2 * one["entries"] * (LAYERS - whole)
    return (8 * numbers + 4 * neighbors + 4 * some + (8 + 2 * 8) * batch) * (p - 1) / p


def constants(train: Interactions) -> dict[str, float]:
    """Processor nanoseconds of one thread: of a product with the graph by edge, direction and column, for several
    widths; of Adam by number."""
    import torch

    from l2q.models.graph import Graph, Propagation

    torch.set_num_threads(1)
    propagation = Propagation(Graph.from_interactions(train))
    found, nodes = {}, train.num_users + train.num_items

    def nanoseconds(call: Any, units: float) -> float:
        call()
        began = time.process_time()
        for _ in range(3):
            call()
        return (time.process_time() - began) / 3 / units * 1e9

    for width in WIDTHS:
        E = torch.randn(nodes, width)
        found[f"hop_{width}"] = nanoseconds(lambda E=E: propagation.hop(E), 2 * len(train) * width)
    value = torch.nn.Parameter(torch.randn(nodes, 64))
    value.grad = torch.randn(nodes, 64)
    found["adam"] = nanoseconds(torch.optim.Adam([value], fused=True).step, nodes * 64)
    return found


WIDTHS = (16, 32, 64, 128, 256)
USERS, ITEMS, DIM, STEPS_OF_EPOCH = 1e8, 1e7, 256, 1000
CORES, NETWORK = 32, 25e9 / 8  # of a machine, and bytes a second


def amounts(one: dict[str, Any]) -> dict[str, float]:
    """What a process of a case works on in a step and holds: its columns, entries of the graph in all products,
    entries that come from others, numbers of the tables, numbers that are quantized, numbers of pairs; rows of a batch
    in all segments, edges."""
    width = one["dim"] / (one["processes"] if one["parallel"] in ("columns", "edges") else 1)
    pairs = one.get("batch", BATCH) / (one["processes"] if one["parallel"] == "batches" else 1)
    codes = one["model"] == "l2q_anl"
    rows = one["rows"] * width * (LAYERS + 1 if codes else 1)
    return {
        "width": width,
        "entries": (payload(one) - payload(one | {"parallel": "columns"})) / 4
        if one["parallel"] == "edges"
        else 0,
        "products": 2 * LAYERS * 2 * one["edges"] * width,
        "numbers": one["nodes"] * width,
        "quantized": rows * codes,
        "pairs": pairs * width * (LAYERS + 1 if codes else 1),
        "rows": rows,
        "edges": one["edges"],
    }


def counted(one: dict[str, Any]) -> float:
    """Bytes of the graph and the pairs by edges: all pairs as they were read, 4 bytes each; of its own the process has
    the neighbors in both directions, the order of an epoch and at most as many neighbors again while it sends those of
    a batch; of all nodes where they begin and their degrees and roots, and as much again in a product."""
    return (4 + 24 / one["processes"]) * one["edges"] + 40 * one["nodes"]


def product(hops: dict[str, float], width: float) -> float:
    """Nanoseconds by edge, direction and column. A line of the cache has 16 columns, and costs the same with fewer."""
    found = [hops[f"hop_{one}"] for one in WIDTHS]
    return found[0] * WIDTHS[0] / width if width < WIDTHS[0] else float(np.interp(width, WIDTHS, found))


def fitted(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The constants of the model. Products and Adam were measured alone; the others fit all cases best by their
    relative errors, none below 0. The last two are the lowest and highest ratio of the model to what was measured."""
    known, found = records[0]["constants"], records[1:]
    alone, units, memory, graphs = [], [], [], []
    for one in found:
        of, hops = amounts(one), known["gowalla" if one["graph"] == "gowalla" else "made_10m"]
        alone.append((of["products"] * product(hops, of["width"]) + of["numbers"] * hops["adam"]) / 1e9)
        units.append([of["quantized"] / 1e9, of["pairs"] / 1e9, of["entries"] / 1e9])
        parts = one["parallel"] == "edges"
        memory.append([4 * of["numbers"] / MIB, 4 * of["rows"] / MIB, 0 if parts else of["edges"] / MIB, 1])
        graphs.append(counted(one) / MIB if parts else 0.0)
    seconds, most = (np.array([one[key] for one in found]) for key in ("seconds", "most_mib"))
    more, _ = nnls(np.array(units) / seconds[:, np.newaxis], (seconds - alone) / seconds)
    weights, _ = nnls(np.array(memory) / most[:, np.newaxis], 1 - np.array(graphs) / most)
    ratios = (alone + np.array(units) @ more) / seconds, (np.array(memory) @ weights + graphs) / most
    return {
        "hops": known["made_10m"],
        **dict(zip(("quantize", "pair", "entry"), more, strict=True)),
        **dict(zip(("tables", "rows", "edge", "any"), weights, strict=True)),
        **{
            name: (ratio.min(), ratio.max())
            for name, ratio in zip(("seconds", "memory"), ratios, strict=True)
        },
    }


def plan(path: Path) -> dict[str, Any]:
    """The tables of docs/scale.md, from both measurements of trainings; the constants of the model."""
    weakly = path.with_stem(WEAK).read_text().splitlines()[1:]
    known = fitted([json.loads(line) for line in [*path.read_text().splitlines(), *weakly]])
    for name, value in known.items():
        print(name, value)
    print(
        "\n| edges | share | p | tables GB | batch GB | graph GB | GB sent | CPU h, epoch | h, epoch | network h |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    nodes = USERS + ITEMS
    for edges in (1e9, 1e10):
        for parallel in ("batches", "columns", "edges"):
            for p in (16, 64, 256):
                batch = edges / STEPS_OF_EPOCH
                share = batch / p if parallel == "batches" else batch
                one = {
                    "edges": edges,
                    "nodes": nodes,
                    "rows": min(3 * share, nodes),
                    "batch": batch,
                    "dim": DIM,
                    "entries": 2 * edges,  # at most
                }
                one |= {"parallel": parallel, "processes": p, "model": "l2q_anl"}
                of = amounts(one)
                nanoseconds = of["products"] * product(known["hops"], of["width"])
                nanoseconds += of["numbers"] * known["hops"]["adam"]
                nanoseconds += of["quantized"] * known["quantize"] + of["pairs"] * known["pair"]
                nanoseconds += of["entries"] * known["entry"]
                hours = nanoseconds / 1e9 * STEPS_OF_EPOCH / 3600
                sent = payload(one)
                held = (
                    4 * of["numbers"] * known["tables"],
                    4 * of["rows"] * known["rows"],
                    counted(one) if parallel == "edges" else edges * known["edge"],
                )
                said = [f"{number / 1e9:,.0f}" for number in held]
                said += [f"{sent / 1e9:,.2f}", f"{hours:,.0f}", f"{hours / CORES:,.1f}"]
                network = sent / NETWORK * STEPS_OF_EPOCH / 3600
                print(f"| 10^{edges:.0e}".replace("10^1e+", "10^").replace("^0", "^"), end=" | ")
                print(" | ".join([parallel, str(p), *said, f"{network:,.2f}"]), "|")
    return known


def plan_fits(path: Path, hop: float) -> dict[str, float]:
    """The tables of docs/scale.md of fits: the model beside what was measured, and what it says of larger ones, of
    which an entry and column of a sparse product takes ``hop`` nanoseconds."""
    head, *records = map(json.loads, path.read_text().splitlines())
    alone = [record["parts"][0]["stages"] for record in records if record["processes"] == 1]
    known = {"sparse": head["constants"]["hop_256"]}
    one = alone[0]
    for unit, stage in {"dense": "decompositions", "entries": "rounds", "bits": "intruders"}.items():
        others = sum(one[stage].get(other, 0.0) * each for other, each in known.items())
        known[unit] = (one[stage]["seconds"] * 1e9 - others) / one[stage][unit]
    # of the lists, whose filters have other ranks and tails, what fits all sets best
    lists = [each["lists"] for each in alone]
    units = np.array([[each["products"], each["scores"]] for each in lists])
    seconds_of_lists = np.array([[each["seconds"] * 1e9] for each in lists])
    fits, _ = nnls(units / seconds_of_lists, np.ones(len(lists)))
    known |= dict(zip(("products", "scores"), fits, strict=True))
    print({key: float(f"{value:.3g}") for key, value in known.items()}, "ns")

    def seconds(of: dict[str, float]) -> float:
        return sum(of.get(unit, 0.0) * each for unit, each in known.items()) / 1e9

    print("\n| graph | stage | calls | CPU s | by the model | p | CPU s, all | MB sent | by the formula |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for record in records:
        p, parts = record["processes"], [part["stages"] for part in record["parts"]]
        alone = next(
            other["parts"][0]["stages"]
            for other in records
            if other["graph"] == record["graph"] and other["processes"] == 1
        )
        for stage in [place[2] for place in Stages.PLACES][1:]:
            of, spent = alone[stage], sum(part[stage]["seconds"] for part in parts)
            sent_mb, formula = parts[0][stage]["sent"] / 1e6, fit_payload(of, p) / 1e6
            said = [
                f"{of['calls']:.0f}",
                f"{of['seconds']:.1f}",
                f"{seconds(of):.1f}",
                str(p),
                f"{spent:.1f}",
            ]
            print(
                f"| {record['graph']} | {stage} |",
                " | ".join([*said, f"{sent_mb:,.1f}", f"{formula:,.1f}"]),
                "|",
            )

    known["sparse"] = hop
    users, items, rank, bits, base, listed = USERS, ITEMS, 768, 256, 256, 40
    print("\n| edges | stage | CPU h | h by 16, 64, 256 | GB sent by 16, 64, 256 |")
    print("|---:|---|---:|---|---|")
    for edges in (1e9, 1e10):
        intruding = intruders_of(users, items, base, bits)
        halves = [round_of(*sides, users * listed, base, bits) for sides in ((users, items), (items, users))]
        stages = {
            "a decomposition, 3 iterations": decomposition(users, items, edges, rank, 3, False),
            "lists": lists_of(users, items, rank),
            "a round": {key: sum(half[key] for half in halves) for key in halves[0]},
            "a step of intruders": intruding,
        }
        for stage, of in stages.items():
            hours = seconds(of) / 3600
            shared = [f"{hours / CORES / p:,.2f}" for p in (16, 64, 256)]
            bytes_sent = [f"{fit_payload(of, p) / 1e9:,.2f}" for p in (16, 64, 256)]
            print(f"| {edges:.0e} | {stage} | {hours:,.1f} | {', '.join(shared)} | {', '.join(bytes_sent)} |")
    print(
        "\n| edges | p | GB: pairs and matrix | decompositions | lists | descent | of the first at the end |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for edges in (1e9, 1e10):
        for p in (16, 64, 256):
            nodes = users + items
            held = (
                24 * edges,
                (2 * 4 * rank + 8 * 1.25 * rank) * nodes / p,
                4 * rank * (items + 2 * users / p) + 8 * 64 * users / p,
                4 * base * nodes / p + 32 * 2 * listed * users / p + (bits / 8 + 4) * nodes,
                bits * nodes,
            )
            print(f"| {edges:.0e} | {p} |", " | ".join(f"{number / 1e9:,.0f}" for number in held), "|")
    return known


def others(known: dict[str, Any], dense: float) -> None:
    """Processor hours of a pass over 10^9 edges by models that do not propagate, of ``DIM`` columns: BPR with Adam on
    the rows of a batch alone, and one sweep of alternating least squares over both sides."""
    edges, nodes = 1e9, USERS + ITEMS
    bpr = edges * DIM * (known["pair"] + 3 * known["hops"]["adam"])
    als = (2 * edges * DIM**2 / 2 + nodes * DIM**3 / 6) * dense  # half of each is symmetric
    print(f"\nCPU h without propagation: BPR by rows {bpr / 3.6e12:,.1f}, a sweep of ALS {als / 3.6e12:,.1f}")


def measure_fits(data: str, path: Path) -> None:
    """The fits of docs/scale.md: the first process, which has all codes at the end, and the most of the others."""
    lines = [json.dumps(described() | {"constants": constants(graph_of("gowalla", data))})]
    table = Table("graph", "p", "CPU s", "CPU s, others", "MB sent", "+ MiB", "+ MiB, others", "codes")
    graphs = {"gowalla": (1, 2, 4), "yelp2018": (1, 2), "movielens_1m": (1, 2), "made_2.5m": (1, 2)}
    for graph, sizes in graphs.items():
        for size in sizes:
            case = {"graph": graph, "model": "l2q_plus", "bits": 256, "processes": size}
            first, *others = parts_of(case, data)
            grown = [part["most_mib"] - part["data_mib"] for part in (first, *others)]
            table.add_row(
                case["graph"], str(size), f"{first['seconds']:.1f}",
                f"{max((part['seconds'] for part in others), default=math.nan):.1f}",
                f"{np.mean([part['sent'] for part in (first, *others)]) / 1e6:,.0f}",
                f"{grown[0]:,.0f}", f"{max(grown[1:], default=math.nan):,.0f}", first["digest"],
            )  # fmt: skip
            lines.append(json.dumps(case | {"parts": [first, *others]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    Console(width=120).print(table)


def measure_tables(rows: int) -> None:
    """The reading of docs/scale.md: the first process, which takes the names, and the most of the others."""
    columns = (
        "rows",
        "p",
        "CPU s",
        "CPU s, others",
        "MB sent",
        "+ MiB",
        "+ MiB, others",
        "left",
        "left, others",
    )
    table = Table(*columns, "digest")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("few", 8000), ("events", rows)):
            (Path(folder) / name).mkdir()
            written(Path(folder) / name, size)
        data = str((Path(folder) / "events").resolve())
        for size in (1, 2, 4):
            first, *others = parts_of({"read": rows, "processes": size}, data)
            assert {part["digest"] for part in others} <= {first["digest"]}
            said = [f"{first['users']:,} users, {first['items']:,} items, {first['pairs']:,} pairs"]
            grown = [part["most_mib"] - part["data_mib"] for part in (first, *others)]
            more = [max((part[key] for part in others), default=math.nan) for key in ("seconds", "left_mib")]
            table.add_row(
                f"{rows:,}", str(size), f"{first['seconds']:.1f}", f"{more[0]:.1f}",
                f"{np.mean([part['sent'] for part in (first, *others)]) / 1e6:,.0f}",
                f"{grown[0]:,.0f}", f"{max(grown[1:], default=math.nan):,.0f}",
                f"{first['left_mib']:,.0f}", f"{more[1]:,.0f}", first["digest"],
            )  # fmt: skip
    Console(width=130).print(table, *said)


def measure_weak(data: str, path: Path) -> None:
    """Ten million edges a process."""
    found = []
    for case in weak(10, 4, "lightgcn", 8, columns=(1, 2), edges=(2, 4)):
        found.append(run(case, data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in [described(), *found]))
    show(path)


def measure(data: str, path: Path) -> None:
    console, records = Console(), []
    one: dict[str, dict[str, Any]] = {}
    alone = {name: constants(graph_of(name, data)) for name in ("gowalla", "made_10m")}
    known: dict[str, Any] = {"constants": alone, **described()}
    for case in cases():
        found = run(case, data)
        name = f"{case['graph']} {case['model']} {case['dim']}"
        if case["processes"] == 1:
            one[name] = found
        if name in one and case["graph"] == "gowalla":
            found["loss_off"] = float(np.abs(np.subtract(found["losses"], one[name]["losses"])).max())
        records.append(found)
        console.print({key: value for key, value in found.items() if key != "losses"})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in [known, *records]))
    show(path)


def described() -> dict[str, str]:
    from l2q.learning.results import environment

    return {
        key: value for key, value in environment().items() if key in ("git_commit", "hardware", "versions")
    }


def show(path: Path) -> None:
    columns = (
        "graph",
        "model",
        "d",
        "share",
        "p",
        "MB sent",
        "formula",
        "ratio",
        "CPU s",
        "data MiB",
        "+ MiB",
        "loss off",
    )
    table = Table(*columns)
    for line in path.read_text().splitlines()[1:]:
        one = json.loads(line)
        ratio = one["sent"] / one["formula"] if one["formula"] else math.nan
        table.add_row(
            one["graph"],
            one["model"],
            str(one["dim"]),
            one["parallel"] or "-",
            str(one["processes"]),
            f"{one['sent'] / 1e6:.2f}",
            f"{one['formula'] / 1e6:.2f}",
            f"{ratio:.3f}",
            f"{one['seconds']:.2f}",
            f"{one['data_mib']:.0f}",
            f"{one['most_mib'] - one['data_mib']:.0f}",
            f"{one.get('loss_off', math.nan):.1e}",
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--json", type=Path, default=Path("outputs/benchmarks/scale.jsonl"))
    parser.add_argument("--plan", action="store_true")
    parser.add_argument(
        "--weak", action="store_true", help="ten million edges a process, instead of all else"
    )
    parser.add_argument("--fits", action="store_true", help="of l2q_plus by rows, instead of trainings")
    parser.add_argument(
        "--tables",
        type=int,
        nargs="?",
        const=8_000_000,
        help="of drawn events with so many rows, instead of trainings",
    )
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        sys.modules["scale"] = sys.modules["__main__"]  # where the trainer finds the meter
        case = json.loads(options.work)
        does = read if "read" in case else fit if "bits" in case else work
        does(case, options.data, options.out)
    elif options.plan:
        known = plan(options.json)
        others(known, plan_fits(options.json.with_stem(FITS), known["hops"]["hop_256"])["dense"])
    elif shutil.which("unshare") is None:
        sys.exit("needs unshare (util-linux), for a network that is this measurement's alone")
    elif options.weak:
        measure_weak(options.data, options.json.with_stem(WEAK))
    elif options.tables:
        measure_tables(options.tables)
    elif options.fits:
        measure_fits(options.data, options.json.with_stem(FITS))
    else:
        measure(options.data, options.json)
