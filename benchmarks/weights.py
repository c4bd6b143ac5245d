"""What weights by age bring: `l2q_plus` with all pairs alike and with weights, held to what came later.

    python benchmarks/weights.py [--table TABLE --options "user=CustomerID item=StockCode where=Quantity>0"]
    python benchmarks/weights.py --table ml-100k/ml-100k.inter

The last fifth of the events is left alone. Of the others, in the order of time, a tenth is held out behind the part
that is fitted, for each of `--windows` cuts: the latest tenth, the one before it, and so forth. Figures are those of
users who are in both, by full ranking without the items that they have, and without items that are new. `None` of
halvings is what a fit chooses by itself.
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
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--halvings", nargs="+", default=["0", "None"])
    arguments = parser.parse_args()
    given = arguments.options
    if given is None:
        given = SHOP if arguments.table == parser.get_default("table") else ""
    options = dict(pair.split("=", 1) for pair in given.split())
    events = l2q.read_events(arguments.table, **options)
    known, _ = l2q.split(events, "time", fraction=0.2)
    assert known.times is not None
    table = Table(title=f"{arguments.table}, {len(known):,} pairs")
    for column in ("window", "users", "halvings", "Recall@20", "NDCG@20"):
        table.add_column(column, justify="right")
    for window in range(arguments.windows):
        until = np.nanquantile(known.times, 1 - 0.1 * window)
        train, later = l2q.split(
            known.select(~(known.times > until)), "time", fraction=0.1 / (1 - 0.1 * window)
        )
        both = (train.user_degrees[later.users] > 0) & (train.item_degrees[later.items] > 0)
        later = later.select(both)
        for given in arguments.halvings:
            halvings = None if given == "None" else float(given)
            index = l2q.fit(train, "l2q_plus", model={"halvings": halvings})
            found = l2q.evaluate(index, later, ks=[20], exclude=train).metrics
            had = index.manifest["filter"]["halvings"]
            table.add_row(
                str(window),
                f"{np.count_nonzero(later.user_degrees):,}",
                f"{given}: {had:g}" if halvings is None else given,
                f"{found['recall_20']:.4f}",
                f"{found['ndcg_20']:.4f}",
            )
            Console().print(*[list(column.cells)[-1] for column in table.columns])
    Console().print(table)


if __name__ == "__main__":
    main()
