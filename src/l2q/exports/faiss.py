"""FAISS: an ``IndexRaBitQ`` whose scores are those of the index, to the bit.

RaBitQ's estimate of <q, a_i o_i>, for codes o_i and a query of signs q, is exact where nothing is centered and the
query keeps one bit: FAISS computes

    |q|^2 - 2 m_i (s n_i)        n_i = <signs of q, o_i>, an integer;  s = |q| / D;  m_i is stored with the code

The signs of q are given magnitudes, the same for all users, so that s is a power of two and s n_i is not rounded. They
are small, so that |q|^2 is nothing beside the scores. m_i is a_i times the power of two that undoes both.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from l2q.errors import L2QError
from l2q.exports.codes import Codes, write_arrays

UNIT = 64  # D is a multiple of it: then the magnitudes are 1, 2 and 3


def write(codes: Codes, folder: Path) -> str:
    try:
        import faiss
    except ImportError as error:
        raise L2QError("export --to faiss needs FAISS: pip install faiss-cpu") from error
    if not hasattr(faiss, "IndexRaBitQFastScan"):  # came with the exact mode of IndexRaBitQ
        raise L2QError(
            f"export --to faiss needs FAISS 1.13, here is {faiss.__version__}: pip install -U faiss-cpu"
        )
    codes = codes.one_segment("FAISS")
    (dim,) = codes.dims
    scales = (
        np.ones(len(codes.items), np.float32) if codes.items.factors is None else codes.items.factors[:, 0]
    )
    vector, unit = query(dim, scales)
    index = faiss.IndexRaBitQ(len(vector), faiss.METRIC_INNER_PRODUCT)
    index.train(np.zeros((1, len(vector)), np.float32))  # the center is 0
    index.qb, index.centered = 1, True
    rows = np.empty((len(codes.items), len(vector) // 8 + 8), np.uint8)
    rows[:, :-8] = widened(codes.items.codes, dim, len(vector))
    rows[:, -8:] = np.stack([np.zeros_like(scales), scales * unit], axis=1).astype("<f4").view(np.uint8)
    index.add_sa_codes(rows)
    (folder / "items.faiss").write_bytes(faiss.serialize_index(index).tobytes())
    np.save(folder / "query.npy", vector)
    np.save(folder / "users.npy", widened(codes.users.codes, dim, len(vector)))
    shutil.copy(Path(__file__).with_name("faiss_rank.py"), folder / "rank.py")
    return README.format(
        items=len(codes.items), dim=dim, width=len(vector), files=write_arrays(codes, folder)
    )


def widened(packed: np.ndarray, dim: int, width: int) -> np.ndarray:
    """Packed rows of ``dim`` bits as FAISS gets them, (rows, width / 8): an odd number of bits each twice, filled up
    with 1."""
    if dim == width:
        return np.asarray(packed)
    bits = np.unpackbits(packed, axis=1, count=dim, bitorder="little").repeat(1 + dim % 2, axis=1)
    filled = np.pad(bits, ((0, 0), (0, width - bits.shape[1])), constant_values=1)
    return np.packbits(filled, axis=1, bitorder="little")


def query(dim: int, scales: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """What a user's signs are multiplied by, (D,) float32, and the factor that makes m_i of a_i, a power of two.

    A user's D signs are its widened ones; the filling cancels, since half of it has a minus here. The magnitudes are
    1, 2 and 3 times 2^-e, with |q|^2 = (D 2^-t 2^-e)^2 exactly, which makes s = 2^-t 2^-e.
    """
    signs = 1 + dim % 2  # each of them
    width = -(-signs * dim // UNIT) * UNIT
    t = (width.bit_length() - 1) // 2  # 4^t <= D < 4^(t + 1)
    total = width**2 // 4**t  # of the squares: D ones, and 3 more for a 2, 8 more for a 3
    threes = next(n for n in range(3) if (total - width - 8 * n) % 3 == 0)
    twos = (total - width - 8 * threes) // 3
    values = np.ones(width, np.float32)
    values[:twos], values[twos : twos + threes] = 2, 3
    values[signs * dim :: 2] *= -1
    least = np.abs(scales[scales != 0]).min(initial=1.0)
    e = (26 + int(total).bit_length() - int(np.floor(np.log2(least)))) // 2 + 1  # |q|^2 < 2^-26 of any score
    e = min(e, 55)  # |q|^2 stays a normal float32; scales below 2^-60 were too small to matter
    return values * np.float32(2.0**-e), np.float32(2.0 ** (t + e) / signs)


README = """# Codes for FAISS

{items:,} items x {dim} bits and a float32 factor each, as an `IndexRaBitQ` of {width} dimensions (inner product).

| file | what |
|---|---|
| `items.faiss` | the items, in row order |
| `rank.py` | `Ranking(folder).search(users, k)`: needs NumPy and FAISS (`pip install faiss-cpu`), nothing else |
| `users.npy` | the code of every user: value k is bit k % 8 of byte k // 8; 1 is +1, 0 is -1 |
| `query.npy` | a user's vector is its code times this, value by value |
{files}

```python
from rank import Ranking

ranking = Ranking(".")
scores, items = ranking.search([0], k=20)  # by row number of the user
```

Search with `qb=1, centered=True`: FAISS does not store `centered`, and ranks otherwise without it. The scores are those
of the index, to the bit. Equal scores fall by FAISS's heap; the index takes the lower row first.
"""
