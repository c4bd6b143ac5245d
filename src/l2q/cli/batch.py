"""``python -m l2q batch``: the rankings of all users, for other programs."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from l2q.cli.arguments import add_exact, add_index, add_length
from l2q.errors import L2QError

PLACE = 2
HELP = "items for every user, as Parquet"
USERS = 4096  # of a batch
RANKED = 2**25  # items and scores of a batch: 256 MiB, however long the rankings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_length(parser)
    add_exact(parser)
    parser.add_argument("--out", required=True, metavar="FILE.parquet")


def run(index: str, out: str, k: int, exact: float) -> None:
    """The k best items for every user, as Parquet: one row a user, ``user``, ``items``, ``scores``.

    Memory holds a few thousand users at a time; the file appears under its name when it is complete.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from l2q.files import replaced_file, writing
    from l2q.progress import progress_bars
    from l2q.retrieval.lists import share_of
    from l2q.retrieval.storage import load_index

    target = Path(out)
    if target.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".txt", ".npy"):
        raise L2QError(
            f"--out {out}: the lists are written as Parquet; give {target.with_suffix('.parquet')}"
        )
    if target.exists() and not target.is_file():  # "" is this folder; a device would be replaced
        raise L2QError(f"--out {out!r} is no regular file; give FILE.parquet")
    if not target.parent.is_dir():
        raise L2QError(f"--out {out} cannot be written: {target.parent} is no folder")
    opened = load_index(index)
    k, share = min(k, opened.num_items), share_of(opened.arrays, exact)
    names = pa.array(opened.item_names, pa.string())
    listed = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    schema = pa.schema([("user", pa.string()), ("items", listed), ("scores", pa.list_(pa.float32()))])
    needs = opened.num_users * k * 8  # a name's number and a score
    with (
        writing(out, needs, "--out"),
        replaced_file(target) as fresh,
        fresh.open("wb") as file,
        pq.ParquetWriter(file, schema) as writer,
        progress_bars(stderr=True) as progress,
    ):
        step = min(USERS, max(RANKED // max(k, 1), 1))
        for start in range(0, opened.num_users, step):
            stop = min(start + step, opened.num_users)
            scores, items = opened.search(np.arange(start, stop), k, opened.exclude, exact)
            found = items >= 0
            offsets = pa.array(np.concatenate(([0], np.cumsum(found.sum(axis=1)))), pa.int32())
            chosen = pa.DictionaryArray.from_arrays(pa.array(items[found]), names)
            columns = [
                pa.array(opened.user_names[start:stop], pa.string()),
                pa.ListArray.from_arrays(offsets, chosen),
                pa.ListArray.from_arrays(offsets, pa.array(scores[found])),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            progress(stop, opened.num_users, "users")
    unknown = int(opened.without_items(np.arange(opened.num_users)).sum())
    if unknown:
        warnings.warn(
            f"{unknown:,} users have no train items: the most popular items come instead", stacklevel=2
        )
    how = "" if share == 1 else f"; approximate, {share:.1%} of the exact Top-20 where it was measured"
    print(f"{opened.num_users:,} users x {k} items in {target}{how}")
