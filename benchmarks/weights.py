"""What weights of pairs bring: `l2q_plus` with all pairs alike and with weights by age or value, on held-out parts.

    python benchmarks/weights.py [--table TABLE --options "user=CustomerID item=StockCode where=Quantity>0"]
    python benchmarks/weights.py --table ml-100k.inter --settings halvings=null halvings=null,value_power=null

The last fifth of the events is left alone, or a random fifth with `--split random`. Of the others a tenth is held
out: behind the part that is fitted, the latest, the one before it, and so forth, or at random. Figures are those of
users who are in both, by full ranking without the items that they have, and without items that are new. `null` is what
a fit chooses by itself.
"""

from __future__ import annotations

import argparse

import l2q  # before numpy, whose threads would spin where they wait

# isort: split
import numpy as np
from rich.console import Console
from rich.table import Table

SHOP = "user=CustomerID item=StockCode time=InvoiceDate where=Quantity>0 missing=drop"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="../shared/data/online_retail/raw.csv.gz")
    parser.add_argument("--options", help="of l2q.read_events, as name=value with spaces between")
    parser.add_argument("--split", choices=["time", "random"], default="time")
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--settings", nargs="+", default=["halvings=0", "halvings=null"])
    arguments = parser.parse_args()
    given = arguments.options
    if given is None:
        given = SHOP if arguments.table == parser.get_default("table") else ""
    events = l2q.read_events(arguments.table, **dict(pair.split("=", 1) for pair in given.split()))
    known, _ = l2q.split(events, arguments.split, fraction=0.2)
    table = Table(title=f"{arguments.table}, {len(known):,} pairs")
    for column in ("part", "users", "model", "taken", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="right")
    for part in range(arguments.parts):
        if arguments.split == "random":
            train, held = l2q.split(known, "random", fraction=0.1, seed=100 + part)
        else:
            assert known.times is not None
            until = np.nanquantile(known.times, 1 - 0.1 * part)
            train, held = l2q.split(
                known.select(~(known.times > until)), "time", fraction=0.1 / (1 - 0.1 * part)
            )
            held = held.select((train.user_degrees[held.users] > 0) & (train.item_degrees[held.items] > 0))
        for setting in arguments.settings:
            options = dict(one.split("=") for one in setting.split(","))
            index = l2q.fit(train, "l2q_plus", model={
                option: None if value == "null" else float(value) for option, value in options.items()
            })  # fmt: skip
            found = l2q.evaluate(index, held, ks=[20], exclude=train).metrics
            table.add_row(
                str(part),
                f"{np.count_nonzero(held.user_degrees):,}",
                setting,
                " ".join(f"{index.manifest['filter'][option]:g}" for option in options),
                f"{found['recall_20']:.4f}",
                f"{found['ndcg_20']:.4f}",
            )
            Console().print(*[list(column.cells)[-1] for column in table.columns])
    Console().print(table)


if __name__ == "__main__":
    main()
