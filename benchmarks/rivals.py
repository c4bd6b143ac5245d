"""Models of other libraries on the project's sets, chosen and measured as ours are.

    python benchmarks/rivals.py [--sets debian lastfm_music ...] [--models ials ease sansa] [--data ../shared/data]
        [--json FILE]

Options are chosen on the hold-out by which ours are: a tenth of train, drawn at random, on Gowalla and Yelp2018 a
cluster, by Recall@20. Then test is read once. As in the result tables, the models of these two are fitted to all of
train before, and those of the other sets are not. Evaluation is `l2q.evaluate`: full ranking, train items left out,
test users alone.

- `ials`: implicit's ALS, 256 factors, 15 sweeps (Hu, Koren, Volinsky, ICDM 2008).
- `ease`: the closed form (Steck, WWW 2019), where the catalog is small enough for its inverse.
- `sansa`: its sparse approximation (Spisak et al., RecSys 2023), exact Cholesky factors, a density of 1 %. Installed by
  hand (`benchmarks/fitting.py` says how), and left out where it is not.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
from fitting import MOST_ITEMS, ease, factors, sansa
from rich.console import Console
from rich.table import Table

from l2q.interactions import Interactions

CLUSTERS = "gowalla", "yelp2018"  # whose hold-out is one, and whose models are fitted to all of train
L2 = [{"l2": l2} for l2 in (5, 20, 100, 500)]
OPTIONS: dict[str, list[dict[str, float]]] = {
    "ials": [
        {"alpha": alpha, "regularization": regularization}
        for alpha, regularization in itertools.product((4, 16, 64, 256), (10, 40, 160, 640))
    ],
    "ease": L2,
    "sansa": L2,
}


def ials(train: Interactions, **options: float) -> Any:
    from implicit.als import AlternatingLeastSquares

    return factors(AlternatingLeastSquares(256, random_state=0, **options))(train)


FITS: dict[str, Callable[..., Any]] = {"ials": ials, "ease": ease, "sansa": sansa}


def figures(index: Any, asked: Interactions, left_out: Interactions) -> dict[str, float]:
    found = l2q.evaluate(index, asked, ks=[20], exclude=left_out).metrics
    return {key: found[key] for key in ("recall_20", "ndcg_20")}


def measured(set_name: str, models: list[str], data: Path) -> Iterator[dict[str, Any]]:
    whole = l2q.load_dataset(set_name, **({} if set_name == "debian" else {"dir": data / set_name}))
    how = "cluster" if set_name in CLUSTERS else "random"
    train, held = l2q.split(whole.train, how, fraction=0.1, seed=0)
    for name in models:
        if (name == "ease" and train.num_items > MOST_ITEMS) or (
            name == "sansa" and importlib.util.find_spec(name) is None
        ):
            continue
        fit, tries = FITS[name], []
        for options in OPTIONS[name]:
            index = fit(train, **options)
            tries.append((figures(index, held, train)["recall_20"], options))
            print(f"{set_name}: {name} {options}: {tries[-1][0]:.4f}", flush=True)
        recall, best = max(tries, key=lambda pair: pair[0])
        known, began = whole.train if set_name in CLUSTERS else train, time.process_time()
        index = fit(known, **best)
        record = {"set": set_name, "model": name, "options": best, "val_recall_20": recall}
        seconds = time.process_time() - began
        yield record | {"cpu_seconds": seconds, **figures(index, whole.test, whole.train)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sets", nargs="+", default=["lastfm_music", "debian", "online_retail", "movielens_1m", "gowalla"]
    )
    parser.add_argument("--models", nargs="+", default=list(FITS), choices=list(FITS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--json", type=Path, help="adds to its records, in place of those of the same set and model"
    )
    arguments = parser.parse_args()
    logging.getLogger("sansa").setLevel(logging.WARNING)
    records = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    for name in arguments.sets:
        for record in measured(name, arguments.models, arguments.data):
            same = record["set"], record["model"]
            records = [one for one in records if (one["set"], one["model"]) != same] + [record]
            if arguments.json:
                arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    table = Table(box=None)
    for column in ("set", "model", "options", "CPU s", "val Recall@20", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="left" if column in ("set", "model", "options") else "right")
    for record in records:
        options = ", ".join(f"{key} {value:g}" for key, value in record["options"].items())
        values = (f"{record[key]:.4f}" for key in ("val_recall_20", "recall_20", "ndcg_20"))
        table.add_row(record["set"], record["model"], options, f"{record['cpu_seconds']:.0f}", *values)
    Console().print(table)


if __name__ == "__main__":
    main()
