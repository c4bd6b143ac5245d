"""Seconds and quality of a fit: `l2q_plus` with either effort and from yesterday's index, beside float models.

    python benchmarks/fitting.py [--sets debian lastfm_music made_1m ...] [--fits fast best start als sansa ...]
        [--data ../shared/data] [--made outputs/benchmarks] [--json FILE]
    python benchmarks/fitting.py --plot docs/fitting.png --json outputs/benchmarks/fitting.jsonl   # of stored lines

Every fit sees nine tenths of a set's train part and is measured on the last tenth, drawn at random: full ranking, items
of the nine tenths left out; test is not read. Seconds are those of the fit alone, from interactions to an index, with
kernels compiled before; the picture has processor seconds, which a busy machine changes less. `start` goes on from an
index of 99 % of the pairs: a day with 1 % new events.

The sets `made_100k`, `made_1m` and `made_25m` are drawn (`benchmarks/events.py`) and written to a file. A fit of one is
all of it, in a process of its own: seconds of the reading and of the fit, and the most memory that the process held.

`als` and `bpr` are `implicit`'s with its defaults, `rectools` is RecTools' PureSVD with its default of ten factors,
`ease` is Steck's closed form (WWW 2019) with l = 500, and `sansa` its sparse approximation with the same l, exact
Cholesky factors and a density of 1 %; the last two where the catalog is small enough for its inverse. Peers that no
test needs are installed by hand:

    apt install libsuitesparse-dev    # for scikit-sparse
    pip install --no-deps rectools==0.19.0 sansa==1.1.0 scikit-sparse==0.4.16 typeguard==4.6.1
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
import numpy as np
from events import SHAPES, written
from rich.console import Console
from rich.table import Table
from scipy import sparse

from l2q.interactions import Interactions
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex

OURS = "fast", "best", "start"
MOST_ITEMS = 20_000
"""Of a catalog whose items x items matrix is inverted."""


class Scores:
    """Scores R B of a model without rows for users, behind the search protocol; B is a product of ``weights``."""

    def __init__(self, train: Interactions, *weights: Any) -> None:
        self.rows, self.weights = train.to_csr(), weights
        self.num_users, self.num_items = train.num_users, train.num_items

    def search(
        self, users: Any, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = self.rows[users]
        for weights in self.weights:
            scores = scores @ weights
        scores = scores.toarray() if sparse.issparse(scores) else scores
        for row, user in enumerate(users):
            if exclude is not None:
                scores[row, exclude[user]] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        return np.take_along_axis(scores, items, axis=1), items


def l2q_plus(effort: str) -> Callable[[Interactions], Any]:
    return lambda train: l2q.fit(train, "l2q_plus", model={"effort": effort})


def going_on(train: Interactions) -> Callable[[Interactions], Any]:
    """From an index of all pairs but the latest hundredth, or a random one without times; what is timed is the fit that
    takes them in."""
    times = train.times if train.ahead else None
    order = np.random.default_rng(0).permutation(len(train)) if times is None else np.argsort(-times)
    late = np.zeros(len(train), bool)
    late[order[: len(train) // 100]] = True
    index = l2q.fit(train.select(~late), "l2q_plus")
    return lambda train: l2q.fit(train, "l2q_plus", start=index)


def factors(model: Any) -> Callable[[Interactions], Any]:
    def fit(train: Interactions) -> DenseIndex:
        from threadpoolctl import threadpool_limits  # comes with implicit, whose threads BLAS would block

        with threadpool_limits(1, "blas"):
            model.fit(sparse.csr_matrix(train.to_csr()), show_progress=False)
        users, items = (np.asarray(side, np.float32) for side in (model.user_factors, model.item_factors))
        return DenseIndex(
            Representations(Rows(users), Rows(items), (users.shape[1],), np.ones(1, np.float32))
        )

    return fit


def ease(train: Interactions, l2: float = 500) -> Scores:
    """B = I - P / diag(P), P = (R^T R + l I)^-1."""
    R = train.to_csr()
    gram = (R.T @ R).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    P = np.linalg.inv(gram)
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return Scores(train, B.astype(np.float32))


def sansa(train: Interactions, l2: float = 500, density: float = 0.01) -> Scores:
    from sansa import SANSA, CHOLMODGramianFactorizerConfig, SANSAConfig, UMRUnitLowerTriangleInverterConfig

    factors, inverse = CHOLMODGramianFactorizerConfig(), UMRUnitLowerTriangleInverterConfig(1, 5)
    model = SANSA(SANSAConfig(float(l2), density, factors, inverse))
    model.fit(sparse.csr_matrix(train.to_csr()))
    return Scores(train, *model.weights)


def rectools(train: Interactions) -> DenseIndex:
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import PureSVDModel

    pairs = {Columns.User: train.users, Columns.Item: train.items, Columns.Weight: 1.0}
    table = pd.DataFrame(pairs | {Columns.Datetime: pd.Timestamp(0)})
    data, model = Dataset.construct(table), PureSVDModel()
    model.fit(data)
    rows = []
    maps = (data.user_id_map, train.num_users), (data.item_id_map, train.num_items)
    for found, (numbers, size) in zip(model.get_vectors(), maps, strict=True):
        side = np.zeros((size, found.shape[1]), np.float32)
        side[numbers.external_ids] = found
        rows.append(Rows(side))
    return DenseIndex(Representations(*rows, (rows[0].values.shape[1],), np.ones(1, np.float32)))


def fit_of(name: str, train: Interactions) -> Callable[[Interactions], Any] | None:
    if name in ("fast", "best"):
        return l2q_plus(name)
    if name == "start":
        return going_on(train)
    if name in ("ease", "sansa") and train.num_items > MOST_ITEMS:
        return None
    if name in ("sansa", "rectools") and importlib.util.find_spec(name) is None:
        return None
    if name in ("ease", "sansa", "rectools"):
        return {"ease": ease, "sansa": sansa, "rectools": rectools}[name]
    if name == "als":
        from implicit.als import AlternatingLeastSquares

        return factors(AlternatingLeastSquares(random_state=0))
    from implicit.bpr import BayesianPersonalizedRanking

    return factors(BayesianPersonalizedRanking(random_state=0))


def measured(set_name: str, name: str, train: Interactions, held: Interactions) -> dict[str, Any] | None:
    fit = fit_of(name, train)
    if fit is None:
        return None
    began, used = time.perf_counter(), time.process_time()
    index = fit(train)
    record = {
        "set": set_name,
        "pairs": len(train),
        "fit": name,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - used,
        "memory_mib": peak(),
    }
    found = l2q.evaluate(getattr(index, "index", index), held, ks=[20], exclude=train).metrics
    return record | {key: found[key] for key in ("recall_20", "ndcg_20")}


def measure(set_name: str, fits: list[str], data: Path, tell: Callable[[dict[str, Any]], None]) -> None:
    directory = {} if set_name == "debian" else {"dir": data / set_name}
    train, held = l2q.split(l2q.load_dataset(set_name, **directory).train, "random", fraction=0.1, seed=0)
    for name in fits:
        if (record := measured(set_name, name, train, held)) is not None:
            tell({key: value for key, value in record.items() if key != "memory_mib"})  # of all fits so far


def from_file(path: Path, name: str) -> dict[str, Any] | None:
    """In a process that does nothing else."""
    warm([name])
    began, used = time.perf_counter(), time.process_time()
    events = l2q.read_events(path)
    reading = {
        "read_seconds": time.perf_counter() - began,
        "read_cpu_seconds": time.process_time() - used,
        "read_memory_mib": peak(),
    }
    train, held = l2q.split(events, "auto", fraction=0.1)  # by time, as a table's default is
    record = measured(path.stem, name, train, held)
    return None if record is None else reading | record


def peak() -> int:
    """MiB, the most that this process has held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def warm(fits: list[str]) -> None:
    """Compiles kernels, or reads them."""
    pairs = np.random.default_rng(0).integers(60, size=(2, 1500))
    events = Interactions.from_pairs(pairs[0], pairs[1], 60, 60)
    for fit in (fit_of(name, events) for name in fits if name in OURS):
        if fit is not None:
            fit(events)


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Processor seconds against Recall + NDCG, a panel a set; nobody's taste is in sets that were drawn."""
    records = [record for record in records if record["set"] not in SHAPES]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = sorted({record["set"]: record["pairs"] for record in records}.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(3.2 * len(sets), 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, pairs) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for record in records:
            if record["set"] == name:
                ours = record["fit"] in OURS
                place = record["cpu_seconds"], record["recall_20"] + record["ndcg_20"]
                axes.plot(*place, "o" if ours else "s", color="tab:green" if ours else "tab:gray")
                axes.annotate(
                    record["fit"],
                    place,
                    (0, -13 if record["fit"] == "ease" else 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                )
        axes.set_xscale("log")
        axes.margins(0.18)
        axes.set_title(f"{name}, {pairs:,} pairs", fontsize=9)
        axes.set_xlabel("processor seconds of the fit")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("Recall@20 + NDCG@20")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sets", nargs="+", default=["lastfm_music", "debian", "online_retail", "movielens_1m"]
    )
    fits = ["fast", "best", "start", "als", "bpr", "ease", "sansa", "rectools"]
    parser.add_argument("--fits", nargs="+", default=fits, choices=fits)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--made", type=Path, default=Path("outputs/benchmarks"), help="where drawn sets lie")
    parser.add_argument("--json", type=Path, help="adds a line for every fit")
    parser.add_argument("--plot", type=Path, help="draws the lines of --json instead")
    arguments = parser.parse_args()
    if arguments.plot:
        plot([json.loads(line) for line in arguments.json.read_text().splitlines()], arguments.plot)
        return
    table = Table(title=f"{os.cpu_count()} cores; measured on a tenth of train")
    for column in ("set", "pairs", "fit", "seconds", "CPU seconds", "MiB", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="left" if column in ("set", "fit") else "right")

    def tell(record: dict[str, Any]) -> None:
        table.add_row(
            record["set"],
            f"{record['pairs']:,}",
            record["fit"],
            *(f"{record[key]:.1f}" for key in ("seconds", "cpu_seconds")),
            f"{record['memory_mib']:,}" if "memory_mib" in record else "",
            *(f"{record[key]:.4f}" for key in ("recall_20", "ndcg_20")),
        )
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(record) + "\n")

    if not set(arguments.sets) <= set(SHAPES):
        warm(arguments.fits)
    for name in arguments.sets:
        if name not in SHAPES:
            measure(name, arguments.fits, arguments.data, tell)
            continue
        path = written(name, arguments.made)
        for fit in arguments.fits:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                record = pool.apply(from_file, (path, fit))
            if record is not None:
                tell(record)
    Console().print(table)


if __name__ == "__main__":
    main()
