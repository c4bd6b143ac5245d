"""Seconds and quality of a fit: `l2q_plus` with either effort and from yesterday's index, beside float models.

    python benchmarks/fitting.py [--sets debian lastfm_music ...] [--fits fast best start als bpr ease ...]
        [--data ../shared/data] [--json FILE]
    python benchmarks/fitting.py --plot docs/fitting.png --json outputs/benchmarks/fitting.jsonl   # of stored lines

Every fit sees nine tenths of a set's train part and is measured on the last tenth, drawn at random: full ranking, items
of the nine tenths left out; test is not read. Seconds are those of the fit alone, from interactions to an index, with
kernels compiled before. `start` goes on from an index of 99 % of the pairs: a day with 1 % new events. `als` and `bpr`
are `implicit`'s with its defaults, `ease` is Steck's closed form (WWW 2019) with l = 500, where the catalog is small
enough for its inverse.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import l2q
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex

MOST_ITEMS = 20_000
"""Of a catalog whose items x items matrix is inverted."""


class Scores:
    """Scores of a model without factors, behind the search protocol."""

    def __init__(self, train: Interactions, weights: np.ndarray) -> None:
        self.rows, self.weights = train.to_csr(), weights
        self.num_users, self.num_items = train.num_users, train.num_items

    def search(
        self, users: Any, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores = self.rows[users] @ self.weights
        for row, user in enumerate(users):
            if exclude is not None:
                scores[row, exclude[user]] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        return np.take_along_axis(scores, items, axis=1), items


def l2q_plus(effort: str) -> Callable[[Interactions], Any]:
    return lambda train: l2q.fit(train, "l2q_plus", model={"effort": effort})


def going_on(train: Interactions) -> Callable[[Interactions], Any]:
    """From an index of all pairs but every hundredth; what is timed is the fit that takes them in."""
    late = np.zeros(len(train), bool)
    late[np.random.default_rng(0).permutation(len(train))[: len(train) // 100]] = True
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


def ease(train: Interactions) -> Scores:
    """B = I - P / diag(P), P = (X^T X + l I)^-1."""
    R = train.to_csr()
    gram = (R.T @ R).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += 500
    P = np.linalg.inv(gram)
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return Scores(train, B.astype(np.float32))


def fit_of(name: str, train: Interactions) -> Callable[[Interactions], Any] | None:
    if name in ("fast", "best"):
        return l2q_plus(name)
    if name == "start":
        return going_on(train)
    if name == "ease":
        return ease if train.num_items <= MOST_ITEMS else None
    if name == "als":
        from implicit.als import AlternatingLeastSquares

        return factors(AlternatingLeastSquares(random_state=0))
    from implicit.bpr import BayesianPersonalizedRanking

    return factors(BayesianPersonalizedRanking(random_state=0))


def measure(set_name: str, fits: list[str], data: Path, tell: Callable[[dict[str, Any]], None]) -> None:
    directory = {} if set_name == "debian" else {"dir": data / set_name}
    train, held = l2q.split(l2q.load_dataset(set_name, **directory).train, "random", fraction=0.1, seed=0)
    for name in fits:
        fit = fit_of(name, train)
        if fit is None:
            continue
        began, used = time.perf_counter(), time.process_time()
        index = fit(train)
        record = {
            "set": set_name,
            "pairs": len(train),
            "fit": name,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - used,
        }
        found = l2q.evaluate(getattr(index, "index", index), held, ks=[20], exclude=train).metrics
        tell(record | {key: found[key] for key in ("recall_20", "ndcg_20")})


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Seconds against Recall + NDCG, a panel a set."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = sorted({record["set"]: record["pairs"] for record in records}.items(), key=lambda pair: pair[1])
    figure = Figure(figsize=(3.2 * len(sets), 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, pairs) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for record in records:
            if record["set"] == name:
                ours = record["fit"] in ("fast", "best", "start")
                place = record["seconds"], record["recall_20"] + record["ndcg_20"]
                axes.plot(*place, "o" if ours else "s", color="tab:green" if ours else "tab:gray")
                axes.annotate(
                    record["fit"], place, (0, 6), textcoords="offset points", ha="center", fontsize=8
                )
        axes.set_xscale("log")
        axes.margins(0.18)
        axes.set_title(f"{name}, {pairs:,} pairs", fontsize=9)
        axes.set_xlabel("seconds of the fit")
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
    parser.add_argument("--fits", nargs="+", default=["fast", "best", "start", "als", "bpr", "ease"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", type=Path, help="adds a line for every fit")
    parser.add_argument("--plot", type=Path, help="draws the lines of --json instead")
    arguments = parser.parse_args()
    if arguments.plot:
        plot([json.loads(line) for line in arguments.json.read_text().splitlines()], arguments.plot)
        return
    warm = np.random.default_rng(0).integers(60, size=(2, 1500))
    events = Interactions.from_pairs(warm[0], warm[1], 60, 60)
    for fit in (l2q_plus("fast"), l2q_plus("best"), going_on(events)):
        fit(events)  # compiles
    table = Table(title=f"{os.cpu_count()} cores; measured on a random tenth of train")
    for column in ("set", "pairs", "fit", "seconds", "CPU seconds", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="left" if column in ("set", "fit") else "right")

    def tell(record: dict[str, Any]) -> None:
        table.add_row(
            record["set"],
            f"{record['pairs']:,}",
            record["fit"],
            *(f"{record[key]:.1f}" for key in ("seconds", "cpu_seconds")),
            *(f"{record[key]:.4f}" for key in ("recall_20", "ndcg_20")),
        )
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(record) + "\n")

    for name in arguments.sets:
        measure(name, arguments.fits, arguments.data, tell)
    Console().print(table)


if __name__ == "__main__":
    main()
