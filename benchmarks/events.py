"""Tables of events with the shape of a public set, drawn: users, items and pairs as many, degrees by power laws.

    python benchmarks/events.py made_25m --folder outputs/benchmarks [--format csv|parquet]

Nobody's events are in them, so quality on them says little. They are for seconds and memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

SHAPES = {  # pairs, users, items
    "made_100k": (100_000, 4_000, 2_500),
    "made_1m": (1_000_000, 6_500, 4_000),
    "made_25m": (25_000_095, 162_541, 59_047),  # MovieLens-25M's
}
COMMUNITIES = 40
OWN = 0.7  # of a user's events in the two communities that are the user's own
LEAST = 20  # events of a user, as in MovieLens
FIRST, LAST = 789_652_004, 1_574_327_703  # seconds since 1970, MovieLens-25M's


def draw(pairs: int, users: int, items: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users' numbers, items' numbers and times in seconds of ``pairs`` events in order of time, no pair twice.

    Users' degrees are log-normal above ``LEAST``; the r-th item of a community has a share of (r + 2)^-1.
    """
    rng = np.random.default_rng(seed)
    least = min(LEAST, pairs // users)
    degrees = least + (pairs / users - least) * rng.lognormal(-0.72, 1.2, users)
    degrees *= pairs / degrees.sum()
    order = rng.permutation(items)
    groups = min(COMMUNITIES, items)
    own = rng.integers(groups, size=(users, 2))
    found = np.empty(0, np.int64)
    while len(found) < pairs:
        # as many as are missing and some more, for those that are drawn twice
        missing = 1.3 * (pairs - len(found)) / pairs
        who = np.repeat(np.arange(users), rng.poisson(degrees * missing))
        there = rng.integers(groups, size=len(who))
        chosen = np.where(rng.random(len(who)) < OWN, own[who, rng.integers(2, size=len(who))], there)
        sizes = (items - chosen + groups - 1) // groups  # of communities: every 40th item
        ranks = (2 * ((sizes / 2 + 1) ** rng.random(len(who)) - 1)).astype(np.int64)
        what = order[chosen + groups * np.minimum(ranks, sizes - 1)]
        found = np.unique(np.concatenate([found, who * items + what]))
    found = found[np.sort(rng.permutation(len(found))[:pairs])]
    who, what = found // items, found % items
    begins, lasts = rng.integers(FIRST, LAST, users), rng.exponential(30 * 86_400, users)
    times = np.minimum(begins[who] + (rng.random(pairs) * lasts[who]).astype(np.int64), LAST)
    order = np.argsort(times, kind="stable")
    return who[order], what[order], times[order]


def written(name: str, folder: Path, kind: str = "csv") -> Path:
    """The file of a set, drawn and written where it is not there yet."""
    path = folder / f"{name}.{kind}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    users, items, times = draw(*SHAPES[name])
    table = pa.table({"userId": users + 1, "movieId": 3 * items + 1, "timestamp": times})
    fresh = path.with_suffix(".part")
    if kind == "csv":
        csv.write_csv(table, fresh)
    else:
        parquet.write_table(table, fresh)
    fresh.rename(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=SHAPES)
    parser.add_argument("--folder", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--format", choices=["csv", "parquet"], default="csv")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(written(name, arguments.folder, arguments.format))


if __name__ == "__main__":
    main()
