"""What post-training codes keep of float models: one table, set x model x bits.

    python benchmarks/quantization.py [--sets debian lastfm_music ...] [--models spectral als ...]
        [--bits 768 256] [--data ../shared/data] [--part val|test] [--json FILE]

Every model is fitted on a set's train part, its users' and items' rows are turned into codes by `fit_codes` with its
defaults, and both are evaluated alike: full ranking, train items left out. `--part val` (the default) holds a random
tenth of train out and leaves test unread; options are chosen there. `--part test` uses all of train. A model
`NAME=RUN` (say, `lightgcn=outputs/debian/lightgcn/TIME`) takes the float rows from the index of a run of train.py on
that set; for val a run of protocol=holdout with protocol.split_seed=0, which never saw that tenth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

from l2q.data.sources import load_dataset
from l2q.data.splits import holdout
from l2q.evaluation import evaluate
from l2q.fitted.baselines import spectral
from l2q.fitted.descent import CoordinateDescent, fit_codes
from l2q.interactions import Interactions
from l2q.progress import steps
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex, PackedIndex
from l2q.retrieval.storage import load_index

Embeddings = tuple[np.ndarray, np.ndarray]


def als(factors: int) -> Callable[[Interactions], Embeddings]:
    """Alternating least squares of `implicit`, its defaults but for the width."""

    def fit(train: Interactions) -> Embeddings:
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import (
            threadpool_limits,
        )  # comes with implicit, whose threads those of BLAS would block

        model = AlternatingLeastSquares(factors=factors, random_state=0)
        with threadpool_limits(1, "blas"):
            model.fit(sparse.csr_matrix(train.to_csr()), show_progress=False)
        return model.user_factors, model.item_factors

    return fit


MODELS: dict[str, Callable[[Interactions], Embeddings]] = {
    "spectral": lambda train: spectral(train, min(256, train.num_users, train.num_items), seed=0),
    "als64": als(64),
    "als256": als(256),
}


def stored(run: str) -> Callable[[Interactions], Embeddings]:
    rows = load_index(Path(run) / "index").representations
    return lambda _: (rows.users.values, rows.items.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["debian"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME[=RUN]")
    parser.add_argument("--bits", nargs="+", type=int, default=[768, 256])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folders of the sets")
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--length", type=int, help="of the lists; fit_codes's default")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of CoordinateDescent")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    options = {name: json.loads(value) for name, value in (word.split("=") for word in arguments.options)}
    length = {} if arguments.length is None else {"length": arguments.length}

    records = []
    for name in arguments.sets:
        folder = arguments.data / name
        if not folder.is_dir():  # where not all of a set is at hand
            folder = arguments.data / f"{name}_partial"
        dataset = load_dataset(name, dir=None if name == "debian" else folder)
        train, part = dataset.train, dataset.test
        if arguments.part == "val":
            train, part = holdout(dataset.train, 0.1, 0)
        for model in arguments.models:
            label, _, run = model.partition("=")
            users, items = (stored(run) if run else MODELS[label])(train)
            floats = Representations(Rows(users), Rows(items), (users.shape[1],), np.ones(1, np.float32))
            reference = evaluate(DenseIndex(floats), part, (20,), train).metrics
            for bits in arguments.bits:
                descent = replace(CoordinateDescent(**options), bits=bits)
                start = time.perf_counter()
                with steps() as progress:
                    codes = fit_codes(users, items, descent, 0, train, progress=progress, **length)
                seconds = time.perf_counter() - start
                found = evaluate(PackedIndex.from_representations(codes), part, (20,), train).metrics
                record = {
                    "set": name,
                    "model": label,
                    "d": users.shape[1],
                    "bits": bits,
                    "part": arguments.part,
                }
                for key in ("recall_20", "ndcg_20"):
                    record |= {
                        f"float_{key}": reference[key],
                        key: found[key],
                        f"kept_{key}": found[key] / reference[key],
                    }
                records.append(record | {"seconds": seconds})
                print(json.dumps(records[-1]), flush=True)
    show(records)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")


def show(records: list[dict]) -> None:
    table = Table(title="What codes keep of float models; Recall@20 and NDCG@20")
    for column in (
        "set",
        "model",
        "d",
        "bits",
        "float R",
        "codes R",
        "kept",
        "float N",
        "codes N",
        "kept",
        "fit s",
    ):
        table.add_column(column, justify="left" if column in ("set", "model") else "right")
    for r in records:
        cells = [r["set"], r["model"], str(r["d"]), str(r["bits"])]
        for key in ("recall_20", "ndcg_20"):
            cells += [f"{r[f'float_{key}']:.4f}", f"{r[key]:.4f}", f"{r[f'kept_{key}']:.1%}"]
        table.add_row(*cells, f"{r['seconds']:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
