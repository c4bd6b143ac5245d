"""A sparse matrix of users x items, whose entries are the events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from l2q.errors import L2QError
from l2q.events import likes
from l2q.interactions import Interactions, Reading


def of_matrix(matrix: Any, value: str | int | None, min_value: float | None) -> Interactions:
    """The interactions of a SciPy matrix: rows and columns are the names, entries that are not zero the events, of at
    least ``min_value`` where it is given. ``value`` "none": whatever the entries are, all count.

    Raises L2QError where entries say that events are no likes, and where nothing remains.
    """
    if matrix.ndim != 2:
        raise L2QError(f"a matrix of users x items has two dimensions, not {matrix.ndim}")
    if value not in (None, "none"):
        raise L2QError(
            f"value={value!r}: a matrix has no columns but its entries; value='none' takes all alike"
        )
    if np.iscomplexobj(matrix):
        raise L2QError("the matrix has complex numbers; give a matrix of numbers or of truth values")
    rows = sparse.csr_array(matrix, copy=True)
    rows.sum_duplicates()
    values = rows.data.astype(np.float32)
    event = values != 0
    dropped, notes = {}, []
    if min_value is not None and value is None:
        low = event & ~(values >= min_value)
        dropped = {f"entries below {min_value:g}": int(low.sum())} if low.any() else {}
        event &= ~low
    elif value is None:
        for odd, what in ((np.isnan(values), "NaN"), (values < 0, "below 0: dislikes or returns")):
            if odd.any():
                raise L2QError(
                    f"{int(odd.sum()):,} of {int(event.sum()):,} entries of the matrix are {what}; min_value=1 leaves "
                    "them out, value='none' takes all alike"
                )
        if event.any():
            _, note = likes.of_numbers("value", (), values[event])
            notes = [note] if note else []
    if not event.any():
        raise L2QError("the matrix has no interactions")
    users = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    found = Interactions.from_pairs(users[event], rows.indices[event], *rows.shape)
    reading = Reading("the matrix", {}, rows=len(values), dropped=dropped, notes=tuple(notes))
    return replace(found, values=values[event] if value is None else None, reading=reading)
