"""usearch: bits with the factors behind them, ranked by a compiled metric that is the score of the index.

A row is the segments' codes, each filled up to whole 64-bit words, and then the segments' float32 factors, filled up to
a whole word. Users and items look alike. usearch knows them as vectors of bits (``B1``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from l2q.errors import L2QError
from l2q.exports.codes import Codes, Side, write_arrays


def write(codes: Codes, folder: Path) -> str:
    try:
        from usearch.index import Index, ScalarKind

        from l2q.exports.usearch_rank import metric
    except ImportError as error:
        raise L2QError("export --to usearch needs it and Numba: pip install usearch numba") from error
    items, users = rows(codes.items, codes), rows(codes.users, codes)
    score = metric(codes.dims)
    index = Index(ndim=8 * items.shape[1], metric=score, dtype=ScalarKind.B1)
    index.add(np.arange(len(items), dtype=np.uint64), items)
    index.save(str(folder / "items.usearch"))
    np.save(folder / "users.npy", users)
    (folder / "dims.json").write_text(f"{json.dumps(codes.dims)}\n")
    shutil.copy(Path(__file__).with_name("usearch_rank.py"), folder / "rank.py")
    return README.format(
        items=len(items),
        dims=" + ".join(map(str, codes.dims)),
        bytes=items.shape[1],
        files=write_arrays(codes, folder),
    )


def rows(side: Side, codes: Codes) -> np.ndarray:
    """(rows, bytes) uint8: codes and factors of every segment."""
    segments = [side.codes[:, place] for place in codes.slices]
    filled = [np.pad(segment, ((0, 0), (0, -segment.shape[1] % 8))) for segment in segments]
    factors = np.ones((len(side), len(segments)), np.float32) if side.factors is None else side.factors
    factors = np.pad(factors, ((0, 0), (0, len(segments) % 2))).astype("<f4")
    return np.ascontiguousarray(np.concatenate([*filled, factors.view(np.uint8)], axis=1))


README = """# Codes for usearch

{items:,} items x {dims} bits, and a float32 factor of each segment: {bytes} bytes an item. To usearch they are vectors
of bits with a metric of their own.

| file | what |
|---|---|
| `items.usearch` | the items; the key is the row number |
| `rank.py` | `Ranking(folder).search(users, k)`: needs usearch and Numba (`pip install usearch numba`) |
| `users.npy` | the vector of every user, built like an item's |
| `dims.json` | bits of every segment |
{files}

A vector is the bits of every segment (value k is bit k % 8 of byte k // 8; 1 is +1, 0 is -1), each segment filled up
with zeros to whole 64-bit words, and then the segments' factors as little-endian float32.

```python
from rank import Ranking

ranking = Ranking(".")
scores, items = ranking.search([0], k=20)  # by row number of the user
```

usearch does not store the metric: `rank.py` sets it on the opened index, and without it usearch ranks by Hamming
distance. `exact=True` looks at every item. The scores are those of the index, to the bit. Equal scores fall by
usearch's heap, where the index takes the lower row first. `exact=False` walks a graph and misses items.
"""
