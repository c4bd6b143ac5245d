"""Which similarity of codes finds what people have together: one table, set x codes x similarity.

    python benchmarks/similar.py [--sets debian lastfm_music ...] [--models l2q_plus l2q_anl] [--data ../shared/data]
        [--json FILE]

A fifth of the users is held out of a set's train part, baskets and all; test is not read. Models are fitted to the
others. Every item's 20 nearest are held to the baskets of the users held out:

    basket      of an item's basket, how much of the rest its list has: the mean over all items of all baskets
    together    c_ij / sqrt(c_i c_j) of an item and one of its list, c counted in those baskets: the mean over places,
                then over items; an item that everybody has gains nothing by that
    popular     share of the lists' places that the most popular 1 % of the items take
    covered     share of the items that some list has

`scales^p` scores codes as for users, with both items' scales to the power p: 1 is the score of a recommendation, 0 the
angle of the codes alone, segments by their weights. `dequantized` is the cosine of codes times scales, which for one
segment is the angle. Beside them: the cosine of the float rows that the codes are fitted to, the cosine of what is
together in train, and the most popular items.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import l2q
from l2q import settings
from l2q.fitted import fit
from l2q.interactions import Interactions
from l2q.learning.run import closed_form
from l2q.representations import Representations

K = 20
POWERS = (0, 0.25, 0.5, 0.75, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["debian", "lastfm_music", "movielens_1m"])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["l2q_plus"])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    records = []
    for name in options.sets:
        data = l2q.load_dataset(name, **({} if name == "debian" else {"dir": f"{options.data}/{name}"}))
        train, baskets = held_out(data.train)
        for model in options.models:
            for similarity, scores in {**MODELS[model](train), **references(train)}.items():
                records.append({"set": name, "model": model, "similarity": similarity})
                records[-1] |= measured(scores, train, baskets)
    show(records)
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1) + "\n")


def held_out(train: Interactions) -> tuple[Interactions, Interactions]:
    """Users of four fifths, and those of the other fifth, each numbered anew."""
    out = np.random.default_rng(0).random(train.num_users) < 0.2
    parts = []
    for mine in (~out, out):
        kept = mine[train.users]
        users = np.unique(train.users[kept], return_inverse=True)
        parts.append(Interactions.from_pairs(users[1], train.items[kept], len(users[0]), train.num_items))
    return parts[0], parts[1]


def of_codes(rows: Representations) -> dict[str, np.ndarray]:
    """(items, items) by each similarity, computed plainly."""
    codes = np.split(rows.items.values.astype(np.float32), rows.offsets[1:-1], axis=1)
    scales = (
        np.ones((len(rows.items), len(codes)), np.float32) if rows.items.scales is None else rows.items.scales
    )
    dots = [w * part @ part.T for w, part in zip(rows.weights, codes, strict=True)]
    found = {}
    for power in POWERS:
        terms = zip(dots, (scales**power).T, strict=True)
        found[f"scales^{power:g}"] = sum(dot * np.outer(a, a) for dot, a in terms)
    if len(codes) > 1:
        both = found["scales^1"]
        norms = np.sqrt(np.maximum(np.diag(both), 1e-12))
        found["dequantized"] = both / np.outer(norms, norms)
    return found


def cosine(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T


def l2q_plus(train: Interactions) -> dict[str, np.ndarray]:
    fitted = fit(closed_form(settings.compose(model="l2q_plus")), train, seed=0)
    scores = fitted.teacher_index.scores
    floats = {"float filter": cosine(scores.filter.Y)}
    if scores.Y is not None:
        floats["float embeddings"] = cosine(scores.Y)
    return of_codes(fitted.representations) | floats


def l2q_anl(train: Interactions) -> dict[str, np.ndarray]:
    return of_codes(l2q.fit(train, "l2q_anl", seed=0).representations)


MODELS = {"l2q_plus": l2q_plus, "l2q_anl": l2q_anl}


def references(train: Interactions) -> dict[str, np.ndarray]:
    together = _counts(train)
    degrees = np.broadcast_to(train.item_degrees.astype(np.float32), together.shape)
    return {"together in train": together, "popularity": degrees}


def _counts(baskets: Interactions) -> np.ndarray:
    """c_ij / sqrt(c_i c_j), (items, items) float32; 0 where an item is in no basket."""
    B = sparse.csr_array(baskets.to_csr(), dtype=np.float32)
    both = (B.T @ B).toarray()
    counts = np.sqrt(np.maximum(np.diag(both), 1))
    return both / np.outer(counts, counts)


def measured(scores: np.ndarray, train: Interactions, baskets: Interactions) -> dict[str, float]:
    scores = scores.copy()
    np.fill_diagonal(scores, -np.inf)
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    B = sparse.csr_array(baskets.to_csr(), dtype=np.float32)
    listed = sparse.csr_array(
        (np.ones(lists.size, np.float32), lists.ravel(), np.arange(0, lists.size + 1, K)), scores.shape
    )
    found = (B @ listed.T).multiply(B).tocoo()  # of an item of a basket: how many of the basket its list has
    rest = baskets.user_degrees - 1
    shares = found.data / rest[found.row]
    pairs = baskets.user_degrees[rest > 0].sum()
    together = np.take_along_axis(_counts(baskets), lists, axis=1).mean(axis=1)
    popular = np.argsort(-train.item_degrees, kind="stable")[: -(-train.num_items // 100)]
    return {
        "basket": float(shares.sum() / pairs),
        "together": float(together[baskets.item_degrees > 0].mean()),
        "popular": float(np.isin(lists, popular).mean()),
        "covered": len(np.unique(lists)) / train.num_items,
    }


def show(records: list[dict]) -> None:
    table = Table(box=None)
    for column in records[0]:
        table.add_column(column, justify="left" if column in ("set", "model", "similarity") else "right")
    for record in records:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else value for value in record.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
