"""``python -m l2q lists``: lists of items, by which an index of millions of items ranks approximately."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import numpy as np

from l2q.cli.arguments import add_index

if TYPE_CHECKING:
    from l2q.retrieval.named import Index

PLACE = 7
HELP = "lists of items, for approximate rankings of large catalogs"
SHARES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
K, ALONE, TOGETHER = 20, 200, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--directions", type=int, metavar="N", help="more: shorter lists (2 sqrt(items))")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")


def run(index: str, directions: int | None, seed: int) -> None:
    """Adds lists to the index in its folder, and says which share of the exact Top-20 is found in how many of them, and
    how long that takes beside an exact search."""
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
    table = Table("--exact", "found", "lists", "of all items", "ms, one user", "ms, of many")
    times = {share: _milliseconds(listed, share) for share in (*SHARES, 1)}
    for share in SHARES:
        probes = found.probes(share)
        reached, looked_at = found.shares[probes - 1]
        table.add_row(
            f"{share:g}", f"{reached:.2%}", f"{probes:,}", f"{looked_at:.2%}", *map(_said, times[share])
        )
    table.add_row("1 (exact)", "100.00%", "", "", *map(_said, times[1]))
    print_table(table)
    slower = [share for share in SHARES if times[share][0] >= times[1][0]]
    if slower:
        print(f"an exact search of one user takes no longer than --exact {slower[0]:g}; leave it out")


def _milliseconds(index: Index, share: float) -> tuple[float, float]:
    """Of a Top-20 by the clock: the median of users who are asked for one by one, and the mean of many at once."""
    known = np.flatnonzero(index.exclude.user_degrees) if len(index.exclude) else np.arange(index.num_users)
    users = np.random.default_rng(0).choice(known, min(TOGETHER, len(known)), replace=False)
    index.search(users[:2], K, index.exclude, share)  # lays the codes out
    alone = []
    for user in users[:ALONE]:
        began = time.perf_counter()
        index.search(user[None], K, index.exclude, share)
        alone.append(time.perf_counter() - began)
    began = time.perf_counter()
    index.search(users, K, index.exclude, share)
    return 1e3 * float(np.median(alone)), 1e3 * (time.perf_counter() - began) / len(users)


def _said(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds >= 0.1 else f"{milliseconds:.3f}"
