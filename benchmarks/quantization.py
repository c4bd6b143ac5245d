"""What post-training codes keep of float models: one table, set x model x bits.

    python benchmarks/quantization.py [--sets debian lastfm_music ...] [--models spectral als ...]
        [--bits 768 256] [--data ../shared/data] [--part val|test] [--json FILE]

Every model is fitted on a set's train part, its users' and items' rows are turned into codes by `l2q.quantize`, and
both are evaluated alike: full ranking, train items left out. `--part val` (the default) holds a random tenth of train
out and leaves test unread; options are chosen there. `--part test` uses all of train. `--options` and `--length` try
other settings of the descent and of its lists than `conf/model/l2q_plus.yaml` has. A model `NAME=RUN` (say,
`lightgcn=outputs/debian/lightgcn/TIME`) takes the float rows from the index of a run of train.py on that set; for val a
run of protocol=holdout with protocol.split_seed=0, which never saw that tenth.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import l2q
from l2q import settings
from l2q.fitted.baselines import spectral
from l2q.fitted.descent import CoordinateDescent, fit_codes
from l2q.interactions import Interactions
from l2q.progress import progress_bars
from l2q.representations import Representations
from l2q.retrieval.index import DenseIndex, PackedIndex

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
    rows = l2q.load_index(Path(run) / "index").representations
    return lambda _: (rows.users.values, rows.items.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["debian"])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME[=RUN]")
    parser.add_argument("--bits", nargs="+", type=int, default=[768, 256])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folders of the sets")
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--length", type=int, help="of the lists")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of CoordinateDescent")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    options = {name: json.loads(value) for name, value in (word.split("=") for word in arguments.options)}
    preset = settings.preset("model/l2q_plus")
    descent = CoordinateDescent(**preset["descent"] | options)
    length = arguments.length or preset["length"]

    records = []
    for name in arguments.sets:
        folder = arguments.data / name
        if not folder.is_dir():  # where not all of a set is at hand
            folder = arguments.data / f"{name}_partial"
        dataset = l2q.load_dataset(name, dir=None if name == "debian" else folder)
        train, part = dataset.train, dataset.test
        if arguments.part == "val":
            train, part = l2q.split(dataset.train, "random", fraction=0.1, seed=0)
        for model in arguments.models:
            label, _, run = model.partition("=")
            users, items = (stored(run) if run else MODELS[label])(train)
            floats = DenseIndex(Representations.floats(users, items))
            reference = l2q.evaluate(floats, part, (20,), train).metrics
            for bits in arguments.bits:
                start = time.perf_counter()
                with progress_bars() as progress:
                    codes = fit_codes(users, items, bits, descent, length, 0, train, progress)
                seconds = time.perf_counter() - start
                found = l2q.evaluate(PackedIndex.from_representations(codes), part, (20,), train).metrics
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
