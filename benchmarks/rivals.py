"""Other models on the project's sets: those of other libraries, and others' ways to train codes, by configuration.

    python benchmarks/rivals.py [--sets debian lastfm_music ...] [--models ials gaussian ...]
        [--data ../shared/data] [--json FILE]
    python benchmarks/rivals.py --markdown --json outputs/benchmarks/rivals.json     # the page's table

Evaluation is one for all: full ranking, train items left out, test users alone. What has options is chosen on the
hold-out by which ours are: a tenth of train, drawn at random, on Gowalla and Yelp2018 a cluster, by Recall@20. Then
test is read once. As in the result tables, the models of these two are fitted to all of train before, and those of the
other sets are not.

Libraries:

- `ials`: implicit's ALS, 256 factors, 15 sweeps (Hu, Koren, Volinsky, ICDM 2008).
- `ease`: the closed form (Steck, WWW 2019), where the catalog is small enough for its inverse.
- `sansa`: its sparse approximation (Spisak et al., RecSys 2023), exact Cholesky factors, a density of 1 %, likewise.
  Installed by hand (`benchmarks/fitting.py` says how), and left out where it is not.

By configuration, with the seed 0: `mf` is matrix factorization, LightGCN without layers, by BPR, its rate and L2
chosen on the hold-out. `l2q_plus` is fitted. All others learn from the same teacher by `experiment=distilled`, the
codes with 864 bits: `lightgcn` has 256 floats in place of codes; `l2q_anl` is the recipe as it is; `clipped`,
`gaussian` (BiGeaR, KDD 2022) and `fourier` (BGCH, WWW 2023, four terms) have hard signs from the first step and so the
gradient of that surrogate; `guidance` makes rows hard at random, more of them from step to step (HashGNN, WWW 2020).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import subprocess
import sys
import tempfile
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

ROOT = Path(__file__).parents[1]
CLUSTERS = "gowalla", "yelp2018"  # whose hold-out is one, and whose models are fitted to all of train
L2 = [{"l2": l2} for l2 in (5, 20, 100, 500, 2000)]
OPTIONS: dict[str, list[dict[str, float]]] = {
    "ials": [
        {"alpha": alpha, "regularization": regularization}
        for alpha, regularization in itertools.product((4, 16, 64, 256, 1024), (10, 40, 160, 640))
    ],
    "ease": L2,
    "sansa": L2,
}


def ials(train: Interactions, **options: float) -> Any:
    from implicit.als import AlternatingLeastSquares

    return factors(AlternatingLeastSquares(256, random_state=0, **options))(train)


FITS: dict[str, Callable[..., Any]] = {"ials": ials, "ease": ease, "sansa": sansa}


HARD = ["experiment=distilled", "annealing=none"]
RUNS: dict[str, list[str]] = {
    "mf": ["model=lightgcn", "model.num_layers=0", "model.embedding_dim=256"],
    "lightgcn": ["experiment=distilled", "model=lightgcn", "model.embedding_dim=256"],
    "guidance": ["experiment=distilled", "annealing=guidance", "annealing.end=4.0"],
    "clipped": [*HARD, "model.quantizer.estimator=clipped"],
    "gaussian": [*HARD, "model.quantizer.estimator=gaussian"],
    "fourier": [*HARD, "model.quantizer.estimator=fourier_4"],
    "l2q_anl": ["experiment=distilled"],
    "l2q_plus": ["model=l2q_plus"],
}
"""Words of train.py."""


RATES_AND_L2 = [
    f"learning_rate={rate:g} objective.l2={l2:g}"
    for rate, l2 in itertools.product((1e-3, 5e-3, 2e-2), (1e-3, 1e-2, 1e-1))
]
TRIES = {"mf": RATES_AND_L2}
"""More words, of which validation chooses."""


def trained(set_name: str, name: str, data: Path) -> dict[str, Any]:
    words = [*RUNS[name], f"dataset={set_name}", "seed=0"]
    if set_name in CLUSTERS:
        words.append("protocol=final")
    where = [] if set_name == "debian" else [f"dataset.dir={(data / set_name).resolve()}"]

    def run(*more: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            more = (*more, *where, "logger=none", f"hydra.run.dir={folder}")
            command = [sys.executable, str(ROOT / "train.py"), *words, *more]
            if subprocess.run(command, stdout=subprocess.DEVNULL, cwd=ROOT).returncode:
                sys.exit(f"failed: {' '.join(command)}")
            return json.loads((Path(folder) / "metrics.json").read_text())

    if tries := {more: run("test=false", *more.split())["val/recall_20"] for more in TRIES.get(name, [])}:
        print(f"{set_name}: {name} {tries}", flush=True)
        words += max(tries, key=lambda more: tries[more]).split()
    found = run()
    test = {f"{key}_20": found[f"test/packed/{key}_20"] for key in ("recall", "ndcg")}
    return {
        "set": set_name,
        "model": name,
        "command": " ".join(["python train.py", *words]),
        "val_recall_20": found.get("val/recall_20"),
        "seconds": found["start_seconds"] + found["fit_seconds"],
        **test,
    }


def figures(index: Any, asked: Interactions, left_out: Interactions) -> dict[str, float]:
    found = l2q.evaluate(index, asked, ks=[20], exclude=left_out).metrics
    return {key: found[key] for key in ("recall_20", "ndcg_20")}


def chosen(set_name: str, models: list[str], data: Path) -> Iterator[dict[str, Any]]:
    whole = l2q.load_dataset(set_name, **({} if set_name == "debian" else {"dir": data / set_name}))
    how = "cluster" if set_name in CLUSTERS else "random"
    train, held = l2q.split(whole.train, how, fraction=0.1, seed=0)
    for name in models:
        missing = name == "sansa" and importlib.util.find_spec(name) is None
        if missing or (name != "ials" and train.num_items > MOST_ITEMS):
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
        yield record | {"seconds": seconds, **figures(index, whole.test, whole.train)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sets", nargs="+", default=["lastfm_music", "debian", "online_retail", "movielens_1m", "gowalla"]
    )
    parser.add_argument("--models", nargs="+", default=[*FITS, *RUNS], choices=[*FITS, *RUNS])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--json", type=Path, help="adds to its records, in place of those of the same set and model"
    )
    parser.add_argument(
        "--markdown", action="store_true", help="print the records of --json, and run nothing"
    )
    arguments = parser.parse_args()
    logging.getLogger("sansa").setLevel(logging.WARNING)
    records = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    if arguments.markdown:
        print(markdown(records))
        return
    for name in arguments.sets:
        fits = [model for model in arguments.models if model in FITS]
        runs = (trained(name, model, arguments.data) for model in arguments.models if model in RUNS)
        for record in itertools.chain(chosen(name, fits, arguments.data), runs):
            same = record["set"], record["model"]
            records = [one for one in records if (one["set"], one["model"]) != same] + [record]
            if arguments.json:
                arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    table = Table(box=None)
    for column in ("set", "model", "s", "val Recall@20", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="left" if column in ("set", "model") else "right")
    for record in records:
        values = (record[key] for key in ("val_recall_20", "recall_20", "ndcg_20"))
        shown = ("" if value is None else f"{value:.4f}" for value in values)
        table.add_row(record["set"], record["model"], f"{record['seconds']:.0f}", *shown)
    Console().print(table)


def markdown(records: list[dict[str, Any]]) -> str:
    """A row a model, a column a set: Recall@20 / NDCG@20 on test, the best of each column in bold."""
    sets = list(dict.fromkeys(record["set"] for record in records))
    found = {(record["set"], record["model"]): record for record in records}
    best = {
        (name, key): max(record[key] for record in records if record["set"] == name)
        for name, key in itertools.product(sets, ("recall_20", "ndcg_20"))
    }

    def cell(name: str, model: str) -> str:
        if (record := found.get((name, model))) is None:
            return ""
        marks = {key: "**" * (record[key] == best[name, key]) for key in ("recall_20", "ndcg_20")}
        return " / ".join(f"{mark}{record[key]:.4f}{mark}".replace("0.", ".") for key, mark in marks.items())

    lines = ["| model | " + " | ".join(sets) + " |", "|---|" + "---:|" * len(sets)]
    for model in [model for model in (*FITS, *RUNS) if any(record["model"] == model for record in records)]:
        lines.append(f"| `{model}` | " + " | ".join(cell(name, model) for name in sets) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
