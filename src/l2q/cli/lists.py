"""``python -m l2q lists``: lists of items, by which an index of millions of items ranks approximately."""

from __future__ import annotations

import argparse

from l2q.cli.arguments import add_index

PLACE = 7
HELP = "lists of items, for approximate rankings of large catalogs"
SHARES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--directions", type=int, metavar="N", help="more: shorter lists (2 sqrt(items))")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")


def run(index: str, directions: int | None, seed: int) -> None:
    """Adds lists to the index in its folder, and says which share of the exact Top-20 is found in how many."""
    from rich.table import Table

    from l2q.cli.printing import print_table
    from l2q.progress import progress_bars
    from l2q.retrieval.storage import load_index

    opened = load_index(index)
    with progress_bars(stderr=True) as progress:
        listed = opened.with_lists(directions, seed, progress)
    folder = listed.save(index)
    found = listed.lists
    assert found is not None
    size = sum(array.nbytes for array in found.arrays.values())
    print(f"{opened.num_items:,} items in {len(found.codes):,} lists, {size / 1e6:,.1f} MB in {folder}")
    table = Table("--exact", "of the exact Top-20", "lists looked at", "of all items")
    for share in SHARES:
        probes = found.probes(share)
        reached, looked_at = found.shares[probes - 1]
        table.add_row(f"{share:g}", f"{reached:.2%}", f"{probes:,}", f"{looked_at:.2%}")
    print_table(table)
