"""Training and evaluation beside the peers, on one machine, in one run.

    python benchmarks/training.py --data ../shared/data --json training.json

All contestants get the same data, float32, threads, weights and batches, and take turns: one repeat each,
round after round. Training steps run in processes of their own, everything else in this one. Before the clock
starts, losses, gradients and metrics are compared, so that nothing unequal is timed. ``ratio`` above 1: ours is
better.
"""

from __future__ import annotations

import l2q  # noqa: F401  first: sets how NumPy and torch hold memory and threads wait

# isort: split

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from scipy import sparse
from torch import Tensor
from torch.nn.functional import softplus

from l2q.data.lightgcn import read_folder
from l2q.data.sampling import TripletSampler
from l2q.evaluation import evaluate
from l2q.fitted.filter import SpectralFilter
from l2q.interactions import Dataset, Interactions
from l2q.kernels.top_lists import USERS_PER_BLOCK
from l2q.learning.callbacks import TimeSplit
from l2q.learning.datamodule import TripletLoader
from l2q.learning.memory import keep_freed_memory
from l2q.learning.recommender import Recommender
from l2q.models.encoder import Encoder
from l2q.models.graph import Graph, Propagation
from l2q.models.initialization import Normal
from l2q.models.losses import BPR
from l2q.models.quantizers import Identity
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex

DIM, LAYERS, BATCH, L2, RATE, SEED = 64, 3, 2048, 1e-4, 1e-3, 0
PRINTED = ("torch", "numba", "numpy", "scipy", "torch-geometric", "implicit")
console = Console()
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Record:
    """``ours`` and ``peer`` are medians in ``unit``; ``note`` says the spread, or what the figure holds."""

    what: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    note: str = ""


@dataclass(frozen=True)
class Times:
    """Seconds per call; printed as best to third quartile, in milliseconds."""

    seconds: np.ndarray

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    def __str__(self) -> str:
        low, high = np.percentile(self.seconds * 1e3, [0, 75])
        return f"{low:.3g}-{high:.3g}"


def interleaved(repeats: int, contestants: dict[str, Callable[[], object]]) -> dict[str, Times]:
    """Seconds of every contestant, one call each per round, after one call that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(repeats + 1):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            contestant()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return {name: Times(np.array(values)) for name, values in seconds.items()}


def compared(what: str, ours: Times, peer: Times) -> Record:
    ratio = peer.median / ours.median
    return Record(what, 1e3 * ours.median, 1e3 * peer.median, ratio, "ms", f"{ours} against {peer}")


# One training step ------------------------------------------------------------------------------------------


class Ours:
    """The step that ``train.py`` makes, without Lightning around it."""

    def __init__(self, train: Interactions, dim: int = DIM, device: str = "cpu"):
        propagation = Propagation(Graph.from_interactions(train))
        encoder = Encoder(
            train,
            propagation,
            Identity(),
            Normal(std=0.01),
            embedding_dim=dim,
            num_layers=LAYERS,
            combination="mean",
            layer_weights=None,
            transform="identity",
            seed=SEED,
        )
        objective = BPR(l2=L2, temperature=1.0, learn_temperature=False, candidates=1, scales=None)
        self.recommender = Recommender(
            encoder, objective, learning_rate=RATE, schedule="constant", epochs=1, seed=SEED
        ).to(device)
        self.recommender.log = lambda *args, **options: None  # type: ignore[method-assign]
        self.weight = encoder.embeddings
        self.adam = torch.optim.Adam(self.recommender.parameters(), lr=RATE, fused=True)

    def loss(self, batch: Batch) -> Tensor:
        return self.recommender.training_step(batch, 0)


class SparseCOO:
    """What most public LightGCN code does: autograd through ``torch.sparse`` COO products of all layers."""

    def __init__(self, train: Interactions, weight: Tensor):
        adjacency = Graph.from_interactions(train).to_torch(weight.device, weight.dtype)
        self.adjacency = adjacency.to_sparse_coo().coalesce()
        self.num_users = train.num_users
        self.weight = weight.detach().clone().requires_grad_()
        self.adam = torch.optim.Adam([self.weight], lr=RATE, fused=True)

    def loss(self, batch: Batch) -> Tensor:
        users, pos_items, neg_items = batch[0], batch[1] + self.num_users, batch[2] + self.num_users
        layers = [self.weight]
        for _ in range(LAYERS):
            layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
        x = torch.stack(layers, dim=1).mean(dim=1)
        positive, negative = (x[users] * x[pos_items]).sum(dim=1), (x[users] * x[neg_items]).sum(dim=1)
        squares = sum(self.weight[nodes].norm(2).pow(2) for nodes in (users, pos_items, neg_items))
        return softplus(negative - positive).mean() + L2 / 2 / len(users) * squares


class PyG:
    """PyTorch Geometric's own LightGCN and loss; its regularisation has no factor 1/2."""

    def __init__(self, train: Interactions, weight: Tensor):
        from torch_geometric.nn.models import LightGCN

        users = torch.from_numpy(train.users).long()
        items = torch.from_numpy(train.items).long() + train.num_users
        self.edges = torch.stack([torch.cat([users, items]), torch.cat([items, users])]).to(weight.device)
        self.num_users = train.num_users
        self.model = LightGCN(len(weight), weight.shape[1], LAYERS).to(weight.device)
        self.weight = self.model.embedding.weight
        self.weight.data.copy_(weight.detach())
        self.adam = torch.optim.Adam([self.weight], lr=RATE, fused=True)

    def loss(self, batch: Batch) -> Tensor:
        users, pos_items, neg_items = batch[0], batch[1] + self.num_users, batch[2] + self.num_users
        pairs = torch.stack([torch.cat([users, users]), torch.cat([pos_items, neg_items])])
        positive, negative = self.model(self.edges, pairs).chunk(2)
        nodes = torch.cat([users, pos_items, neg_items])
        return self.model.recommendation_loss(positive, negative, nodes, L2 / 2)


Model = Ours | SparseCOO | PyG


def step(model: Model, batch: Batch) -> Tensor:
    model.adam.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    model.adam.step()
    return loss.detach()


def batches(train: Interactions, size: int, device: str = "cpu") -> Iterator[Batch]:
    sampler, epoch = TripletSampler(train, size, SEED), 0
    while True:
        for users, pos_items, neg_items in sampler.epoch(epoch):
            yield tuple(torch.from_numpy(ids).to(device) for ids in (users, pos_items, neg_items))  # type: ignore
        epoch += 1


def serve_steps(
    connection: Connection, name: str, train: Interactions, dim: int, size: int, device: str
) -> None:
    """A contestant in a process of its own: sends loss and gradient of the first batch, then makes a step for
    every message. Ours keeps freed memory as ``train.py`` does; the others have what the C library does by
    default, as where they are at home. All else is equal."""
    if name == "ours":
        keep_freed_memory()
        if device == "cuda":  # the same bits every time, as trainer.deterministic has it
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
            torch.use_deterministic_algorithms(True)
    model: Model = Ours(train, dim, device)
    if name != "ours":
        model = {"coo": SparseCOO, "pyg": PyG}[name](train, model.weight)
    stream = batches(train, size, device)
    loss = model.loss(next(stream))
    loss.backward()
    assert model.weight.grad is not None
    connection.send((loss.item(), model.weight.grad.cpu().numpy()))
    while connection.recv():
        connection.send(step(model, next(stream)).item())  # reading the loss waits for a GPU too


def training_steps(
    train: Interactions, repeats: int, dim: int = DIM, size: int = BATCH, device: str = "cpu"
) -> list[Record]:
    context, connections = multiprocessing.get_context("spawn"), {}
    for name in ("ours", "coo", "pyg"):
        connection, other = context.Pipe()
        arguments = other, name, train, dim, size, device
        context.Process(target=serve_steps, args=arguments, daemon=True).start()
        connections[name] = connection
    results = {name: connection.recv() for name, connection in connections.items()}
    for name in ("coo", "pyg"):
        for mine, theirs in zip(results["ours"], results[name], strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-7)

    def one_step(connection: Connection) -> None:
        connection.send(True)
        connection.recv()

    times = interleaved(repeats, {name: partial(one_step, pipe) for name, pipe in connections.items()})
    for connection in connections.values():
        connection.send(False)
    suffix = "" if (dim, size, device) == (DIM, BATCH, "cpu") else f"_d{dim}_b{size}_{device}"
    return [compared(f"step_vs_{name}{suffix}", times["ours"], times[name]) for name in ("coo", "pyg")]


def epoch(data: Path, dim: int, size: int) -> Record:
    """Seconds of an epoch on a GPU under the trainer of ``train.py``, the median of those after the first."""
    train = read_folder(data, data.name).train
    module = Ours(train, dim).recommender
    del module.log  # Lightning's own again
    seconds: list[float] = []
    began = 0.0

    def start(*_: object) -> None:
        nonlocal began
        torch.cuda.synchronize()
        began = time.perf_counter()

    def end(*_: object) -> None:
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)

    clock = pl.callbacks.LambdaCallback(on_train_epoch_start=start, on_train_epoch_end=end)
    quiet = {f"enable_{part}": False for part in ("progress_bar", "model_summary", "checkpointing")}
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="gpu",
        devices=1,
        deterministic=True,
        logger=False,
        callbacks=[clock, TimeSplit()],
        **quiet,
    )
    trainer.fit(module, TripletLoader(TripletSampler(train, size, SEED)))
    parts = ", ".join(f"{part} {trainer.callback_metrics[f'time/{part}']:.2f}" for part in TimeSplit.PARTS)
    name = f"epoch_{data.name.removesuffix('_partial')}_d{dim}_b{size}_cuda"
    return Record(name, float(np.median(seconds[1:])), None, None, "s", parts)


# One product ------------------------------------------------------------------------------------------------


def products(train: Interactions, repeats: int, dim: int) -> list[Record]:
    """A_hat E beside other libraries, and beside the time in which this machine copies as many bytes as the
    product has to move at least: nnz (4 d + 4) in, 4 d per row out."""
    graph = Graph.from_interactions(train)
    csr = graph.to_torch(torch.device("cpu"), torch.float32)
    coo = csr.to_sparse_coo().coalesce()
    arrays = graph.values, graph.indices, graph.indptr.astype(np.int32)
    scipy = sparse.csr_array(arrays, shape=csr.shape)
    E = torch.randn(graph.num_nodes, dim, generator=torch.Generator().manual_seed(SEED))
    propagation, E_numpy = Propagation(graph), E.numpy()
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: propagation(E),
        "scipy": lambda: scipy @ E_numpy,
        "torch_csr": lambda: csr @ E,
        "torch_coo": lambda: torch.sparse.mm(coo, E),
        "copy": lambda: target.copy_(source),
    }
    for name in ("scipy", "torch_csr", "torch_coo"):
        torch.testing.assert_close(torch.as_tensor(contestants[name]()), propagation(E))
    times = interleaved(repeats, contestants)
    bandwidth = 2 * source.nbytes / times["copy"].median
    least = len(graph.indices) * (4 * dim + 4) + E.nbytes
    bound, ours = least / bandwidth, times["ours"]
    suffix = "" if dim == DIM else f"_d{dim}"
    note = f"{least / 1e6:.0f} MB at {bandwidth / 1e9:.1f} GB/s; {ours}"
    share = Record(
        f"spmm_share_of_bound{suffix}", 1e3 * ours.median, 1e3 * bound, bound / ours.median, "ms", note
    )
    others = ("scipy", "torch_csr", "torch_coo")
    return [share, *(compared(f"spmm_vs_{name}{suffix}", ours, times[name]) for name in others)]


def gpu_products(train: Interactions, repeats: int, dim: int, calls: int = 50) -> list[Record]:
    """A_hat E on a GPU, with the same bits every time, beside torch's products, whose bits differ from call to
    call, and beside the time in which the card copies as many bytes as the product has to move at least."""
    from l2q.kernels.sparse_cuda import Product

    graph, device = Graph.from_interactions(train), torch.device("cuda")
    csr = graph.to_torch(device, torch.float32)
    coo = csr.to_sparse_coo().coalesce()
    product = Product(graph.indptr, graph.indices, graph.values, device, torch.float32)
    E = torch.randn(graph.num_nodes, dim, generator=torch.Generator().manual_seed(SEED)).to(device)
    source = torch.ones(2**28, device=device)
    target = torch.empty_like(source)
    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: product(E),
        "torch_csr": lambda: csr @ E,
        "torch_coo": lambda: torch.sparse.mm(coo, E),
        "copy": lambda: target.copy_(source),
    }
    for name in ("torch_csr", "torch_coo"):
        torch.testing.assert_close(contestants[name](), product(E), rtol=1e-4, atol=1e-5)

    def many(call: Callable[[], object]) -> None:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()

    times = interleaved(repeats, {name: partial(many, call) for name, call in contestants.items()})
    times = {name: Times(each.seconds / calls) for name, each in times.items()}
    least = len(graph.indices) * (4 * dim + 4) + E.nbytes
    bound = Times(times["copy"].seconds * least / (2 * source.nbytes))
    named = {"share_of_bound": bound, "vs_torch_csr": times["torch_csr"], "vs_torch_coo": times["torch_coo"]}
    return [compared(f"spmm_{name}_d{dim}_cuda", times["ours"], peer) for name, peer in named.items()]


# Evaluation and sampling ------------------------------------------------------------------------------------


def per_user_metrics(
    X: np.ndarray, Y: np.ndarray, train: Interactions, test: Interactions, k: int
) -> tuple[float, float]:
    """Recall@k and NDCG@k user by user in NumPy, with a fast partial sort."""
    discounts = 1 / np.log2(np.arange(2, k + 2))
    recalls, ndcgs = [], []
    for user in np.flatnonzero(test.user_degrees):
        scores = Y @ X[user]
        scores[train[user]] = -np.inf
        top = np.argpartition(-scores, k)[:k]
        top = top[np.argsort(-scores[top])]
        hits = np.isin(top, test[user])
        recalls.append(hits.sum() / len(test[user]))
        ndcgs.append(discounts[hits].sum() / discounts[: len(test[user])].sum())
    return float(np.mean(recalls)), float(np.mean(ndcgs))


def evaluation(dataset: Dataset, repeats: int, share: float) -> Record:
    """Full ranking for the first ``share`` of the users with test items, the same for both."""
    train, test = dataset.train, dataset.test
    test = test.select(test.users < share * test.num_users)
    model = Ours(train)
    for _, batch in zip(range(5), batches(train, BATCH), strict=False):
        step(model, batch)
    representations = model.recommender.encoder.encode()
    index = DenseIndex(representations)
    X, Y = representations.users.values, representations.items.values
    metrics = evaluate(index, test, [20], exclude=train).metrics
    expected = per_user_metrics(X, Y, train, test, 20)
    np.testing.assert_allclose([metrics["recall_20"], metrics["ndcg_20"]], expected, rtol=1e-3)
    times = interleaved(
        repeats,
        {
            "ours": lambda: evaluate(index, test, [20], exclude=train).metrics,
            "peer": lambda: per_user_metrics(X, Y, train, test, 20),
        },
    )
    return compared("evaluation_vs_per_user", times["ours"], times["peer"])


def rejection_sampling(train: Interactions, users: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Triplets one by one, redrawn while the negative is a train item: the usual Python loop."""
    positives = [set(train[user].tolist()) for user in range(train.num_users)]
    triplets = np.empty((len(users), 3), np.int64)
    for place, user in enumerate(users):
        items = train[user]
        negative = rng.integers(train.num_items)
        while negative in positives[user]:
            negative = rng.integers(train.num_items)
        triplets[place] = user, items[rng.integers(len(items))], negative
    return triplets


def sampling(train: Interactions, repeats: int) -> Record:
    """Triplets per second, both on one core; the loop draws a tenth of an epoch."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    rng = np.random.default_rng(SEED)
    users = train.users[rng.permutation(len(train))[: len(train) // 10]]
    times = interleaved(
        repeats,
        {
            "ours": lambda: sum(len(batch.users) for batch in TripletSampler(train, BATCH, SEED).epoch(0)),
            "peer": lambda: rejection_sampling(train, users, rng),
        },
    )
    os.sched_setaffinity(0, cores)
    ours, peer = len(train) / times["ours"].median, len(users) / times["peer"].median
    return Record("triplets_per_second", ours / 1e6, peer / 1e6, ours / peer, "million/s", "one core")


# Scores of the filter behind codes --------------------------------------------------------------------------


def filter_scores(data: Path, repeats: int) -> Record:
    """The scores of a spectral filter for a block of users of dense data: by products for many users at once, as
    they come there, against the three hops of one user after the other, as they come in sparse data."""
    train = read_folder(data, data.name).train
    ours, peer = (SpectralFilter(rank=64)(train, SEED) for _ in range(2))
    assert ours._whole_products_pay
    peer.__dict__["_whole_products_pay"] = False
    block = slice(0, USERS_PER_BLOCK)
    np.testing.assert_allclose(ours.scores(block), peer.scores(block), rtol=1e-4, atol=1e-5)
    times = interleaved(repeats, {"ours": lambda: ours.scores(block), "peer": lambda: peer.scores(block)})
    return compared("filter_scores_vs_one_by_one", times["ours"], times["peer"])


# Seconds to codes -------------------------------------------------------------------------------------------


def child(*arguments: object) -> tuple[float, str]:
    """Seconds of a whole Python process, and what it printed."""
    command = [sys.executable, *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def run_experiment(name: str, *overrides: str) -> tuple[float, dict[str, Any]]:
    """Seconds of ``train.py`` with a committed experiment, from start-up to the last file, and its metrics.
    Without W&B, whose service would be timed too."""
    with tempfile.TemporaryDirectory() as folder:
        options = f"experiment={name}", "logger=none", f"hydra.run.dir={folder}", *overrides
        seconds, _ = child(Path(__file__).parents[1] / "train.py", *options)
        return seconds, json.loads((Path(folder) / "metrics.json").read_text())


def implicit_recall(data: Path, model: str, dim: int) -> float:
    """Test Recall@20 of a model of ``implicit`` by our evaluation, its factors as float32.

    The library's defaults, but for ALS's weight of an observed pair: alpha = 40 (Hu, Koren and Volinsky, 2008)
    has validation Recall@20 .159 where the default of 1 has .105 (d = 64, a tenth of train, a fifth of the users),
    and no other weight or regularization that was tried gains more than .001.
    """
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from threadpoolctl import threadpool_limits

    dataset = read_folder(data, data.name)
    options = {"factors": dim, "num_threads": torch.get_num_threads(), "random_state": SEED}
    fitted = (
        AlternatingLeastSquares(alpha=40, **options)
        if model == "als"
        else BayesianPersonalizedRanking(**options)
    )
    with threadpool_limits(1, "blas"):  # as its authors ask for
        fitted.fit(sparse.csr_matrix(dataset.train.to_csr(np.float32)), show_progress=False)
    users, items = Rows(fitted.user_factors), Rows(fitted.item_factors)
    factors = Representations(users, items, (users.values.shape[1],), np.ones(1, np.float32))
    return evaluate(DenseIndex(factors), dataset.test, [20], exclude=dataset.train).metrics["recall_20"]


def seconds_to_codes(data: Path, repeats: int) -> list[Record]:
    """Whole processes on Gowalla, from its files to test metrics: ours against the goals that we set ourselves,
    and against what a practitioner would pick. Quality differs, so it has records of its own."""
    folder = f"dataset.dir={data.resolve()}"
    # a shorter fit than the experiments'
    short = ["model.descent.rounds=2", "model.descent.intruder_rounds=2", "model.embeddings.weight=0"]
    run_experiment("gowalla_l2q_plus_224", "dataset=debian")  # compiles the kernels
    records, ours = [], {}
    for name, bits, least, goal, rank in (
        ("gowalla_l2q_plus_224", 256, 0.185, 45, 512),
        ("gowalla_l2q_plus_784", 784, 0.192, 90, 768),
    ):
        runs = [run_experiment(name, folder, *short, f"model.filter.rank={rank}") for _ in range(repeats)]
        seconds, metrics = float(np.median([run[0] for run in runs])), runs[0][1]
        recall, found = metrics["test/packed/recall_20"], round(8 * metrics["item_bytes"])
        assert recall >= least, f"{name}: Recall@20 {recall}"
        assert found <= bits, f"{name}: {found} bits"
        fitting = metrics["fit_seconds"]
        rest = metrics["total_seconds"] - fitting
        note = (
            f"Recall@20 {recall:.4f} at {found} bits; {fitting:.0f} s of fitting, {rest:.0f} s of evaluation"
        )
        note += " and export; peer: the goal"
        records.append(Record(f"seconds_to_codes_{bits}bits", seconds, goal, goal / seconds, "s", note))
        ours[bits] = seconds, recall, found
    seconds, recall, bits = ours[256]
    for model, dim in (("als", 64), ("als", 256), ("bpr", 64)):
        runs = [child(__file__, "--child", model, dim, "--data", data) for _ in range(repeats)]
        theirs, other = float(np.median([run[0] for run in runs])), float(runs[0][1].split()[-1])
        note = f"{bits} bits an item against {32 * dim}; Recall@20 {recall:.4f} against {other:.4f}"
        records += [
            Record(f"seconds_vs_implicit_{model}{dim}", seconds, theirs, theirs / seconds, "s", note),
            Record(f"recall_vs_implicit_{model}{dim}", recall, other, recall / other, "Recall@20", note),
        ]
    return records


# Memory and growth ------------------------------------------------------------------------------------------


def train_and_evaluate(data: Path) -> None:
    """What the memory figure is about: an encoder on ``data``, steps at a small and at a large batch, and the
    evaluation of a thousand users."""
    dataset = read_folder(data, data.name)
    model = Ours(dataset.train)
    for size in (BATCH, 65_536):
        for _, batch in zip(range(3), batches(dataset.train, size), strict=False):
            step(model, batch)
    index = DenseIndex(model.recommender.encoder.encode())
    test = dataset.test.select(dataset.test.users < 1000)
    evaluate(index, test, [20], exclude=dataset.train)


def peak_memory(data: Path) -> Record:
    """Peak resident memory of a process of its own, interpreter and libraries included; the peer is the limit
    that we set ourselves."""
    peak = int(child(__file__, "--child", "memory", "--data", data)[1].split()[-1]) / 1024
    return Record("peak_memory_amazon_book", peak, 2048, 2048 / peak, "MiB", "peer: the limit of 2 GiB")


def power_law(num_pairs: int, rng: np.random.Generator) -> Interactions:
    """Users and items, one for every 25 pairs, drawn with probability proportional to rank^-.6."""
    size = num_pairs // 25
    weights = np.cumsum(np.arange(1, size + 1) ** -0.6)
    users, items = (
        rng.permutation(size)[np.searchsorted(weights / weights[-1], rng.random(num_pairs))] for _ in range(2)
    )
    return Interactions.from_pairs(users, items, size, size)


def growth(sizes: list[int], repeats: int, figure: Path | None = None) -> list[Record]:
    """Time of the graph and of one step against the number of edges, d = 64, and the exponent of the power
    law through the points; all of it drawn into ``figure``."""
    edges: list[int] = []
    medians: dict[str, list[float]] = {"graph": [], "step": []}
    for size in sizes:
        train = power_law(size, np.random.default_rng(SEED))
        model, stream = Ours(train), batches(train, BATCH)
        contestants: dict[str, Callable[[], object]] = {
            "graph": lambda t=train: Graph.from_interactions(t).values,  # type: ignore[misc]
            "step": lambda m=model, s=stream: step(m, next(s)),  # type: ignore[misc]
        }
        edges.append(len(train))
        for what, times in interleaved(repeats, contestants).items():
            medians[what].append(times.median)
    if figure:
        draw_growth(edges, medians, figure)
    records = []
    for what, seconds in medians.items():
        exponent = float(np.polyfit(np.log(edges), np.log(seconds), 1)[0])
        points = ", ".join(f"{e / 1e6:.1f} M: {s * 1e3:.0f} ms" for e, s in zip(edges, seconds, strict=True))
        records.append(Record(f"growth_{what}", exponent, 1.05, 1.05 / exponent, "exponent", points))
    return records


def draw_growth(edges: list[int], medians: dict[str, list[float]], path: Path) -> None:
    """Seconds against edges on logarithmic axes; dotted, what linear growth from the first point would be."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(5, 3.2), layout="constrained")
    axes = drawing.subplots()
    labels = {"graph": "graph, with its values", "step": "training step"}
    for what, seconds in medians.items():
        (line,) = axes.plot(edges, seconds, marker="o", label=labels[what])
        axes.plot(edges, seconds[0] * np.array(edges) / edges[0], ":", color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="edges", ylabel="seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    drawing.savefig(path, dpi=120)


# The run ----------------------------------------------------------------------------------------------------


def machine() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    libraries = [p.name for p in distributions() if p.name in PRINTED]
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return (
        f"{gpu}{processor}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
        f"threads {torch.get_num_threads()}, float32; python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in libraries)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the sets")
    parser.add_argument("--json", type=Path, help="write the records to this file")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--full", action="store_true", help="all users, graphs up to 30 million edges")
    parser.add_argument("--only", default="", help="benchmarks whose name holds this word")
    parser.add_argument("--figure", type=Path, help="draw the growth into this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)  # on the set in --data itself
    options = parser.parse_args()
    keep_freed_memory()  # as train.py does
    if options.child == ["memory"]:
        train_and_evaluate(options.data)
        # not ru_maxrss: it keeps what the process that started this one held
        print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])  # type: ignore[index]
        return
    if options.child:
        print(implicit_recall(options.data, options.child[0], int(options.child[1])))
        return

    repeats, full = options.repeats, options.full
    busy = os.getloadavg()[0] > 0.5
    where = machine()
    console.print(where)
    if busy:
        console.print("[bold red]The machine is busy: these figures are no measurement to quote.[/]")
    gowalla = read_folder(options.data / "gowalla", "gowalla")
    train = gowalla.train
    sizes = [1_000_000, 3_000_000, 10_000_000] + [30_000_000] * full
    benchmarks: dict[str, Callable[[], Record | list[Record]]] = {
        "step": lambda: training_steps(train, repeats),
        "spmm": lambda: products(train, repeats, DIM),
        "spmm_d256": lambda: products(train, repeats, 256),
        "evaluation": lambda: evaluation(gowalla, min(repeats, 3), 1 if full else 0.1),
        "triplets": lambda: sampling(train, min(repeats, 5)),
        "filter_scores": lambda: filter_scores(options.data / "movielens_1m", min(repeats, 5)),
        "codes": lambda: seconds_to_codes(options.data / "gowalla", 3 if full else 1),
        "peak_memory": lambda: peak_memory(options.data / "amazon_book_partial"),
        "growth": lambda: growth(sizes, min(repeats, 5), options.figure),
    }
    if torch.cuda.is_available():
        for dim in (64, 256):
            benchmarks[f"spmm_cuda_{dim}"] = partial(gpu_products, train, repeats, dim)
        for dim, size in itertools.product((64, 256), (2048, 65_536)):
            benchmarks[f"step_cuda_{dim}_{size}"] = partial(training_steps, train, repeats, dim, size, "cuda")
            for name in ("gowalla", "amazon_book_partial"):
                benchmarks[f"epoch_cuda_{name}_{dim}_{size}"] = partial(epoch, options.data / name, dim, size)
    records: list[Record] = []
    for name, benchmark in benchmarks.items():
        if options.only in name:
            with console.status(name):
                result = benchmark()
            records += result if isinstance(result, list) else [result]
            if options.json:
                written = [asdict(record) | {"machine": where} for record in records]
                options.json.write_text(json.dumps(written, indent=1) + "\n")

    table = Table("what", "ours", "peer", "ratio", "unit", "note (spread: best to third quartile, ms)")
    for r in records:
        numbers = ("" if value is None else f"{value:.3g}" for value in (r.ours, r.peer, r.ratio))
        table.add_row(r.what, *numbers, r.unit, r.note)
    console.print(table, f"load at the end {os.getloadavg()[0]:.1f}" + busy * ", and busy from the start")


if __name__ == "__main__":
    main()
