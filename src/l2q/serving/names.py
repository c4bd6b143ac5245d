"""The names of one side of an index: rows by name, names by their beginning."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from l2q.errors import L2QError


class Unknown(L2QError):
    """A name that the index does not know."""


class Names:
    """``side`` is "users" or "items"; ``degrees`` (names,) says which of the names that begin alike come first: the
    largest. Capitals do not matter to a beginning.

    >>> items = Names("items", ["libx264", "ffmpeg", "libX11"], np.array([3, 9, 20]))
    >>> items.row("ffmpeg"), items.starting("libx", 5)
    (1, ['libX11', 'libx264'])
    """

    def __init__(self, side: str, names: Sequence[str], degrees: np.ndarray) -> None:
        self.side, self._names, self._degrees = side, names, degrees
        # from the end, so that of equal names the first row stays
        self._rows = {names[row]: row for row in range(len(names) - 1, -1, -1)}
        folded = [name.casefold() for name in names]
        # sorted by Arrow, which lets other threads go on meanwhile
        self._order = pc.sort_indices(pa.array(folded, pa.large_string())).to_numpy().astype(np.int64)
        self._sorted = [folded[row] for row in self._order]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, row: int) -> str:
        return self._names[row]

    def find(self, name: str | int) -> int | None:
        """The row of a name, the first where several have it; None where none has."""
        return self._rows.get(str(name))

    def row(self, name: str | int) -> int:
        """The same. Raises Unknown, which says what is near it in the alphabet."""
        if (row := self._rows.get(str(name))) is not None:
            return row
        near = self.near(str(name))
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise Unknown(f"no {self.side[:-1]} is named {str(name)[:100]!r} among {len(self):,}{hint}")

    def starting(self, beginning: str, count: int) -> list[str]:
        """At most ``count`` names that begin so: the name itself, then those with the most events."""
        beginning = beginning.casefold()
        start = bisect_left(self._sorted, beginning)
        rows = self._order[start : bisect_left(self._sorted, beginning + "\U0010ffff", lo=start)]
        itself = [rows[0]] if len(rows) and self._sorted[start] == beginning else []
        rest = rows[len(itself) :]
        if len(rest) > count:
            rest = rest[np.argpartition(-self._degrees[rest], count - 1)[:count]]
        ordered = [*itself, *sorted(rest, key=lambda row: (-self._degrees[row], row))]
        return [self._names[row] for row in ordered[:count]]

    def near(self, name: str, count: int = 3) -> list[str]:
        """Names that begin as ``name`` does or, where none does, as far as one does."""
        name = name.casefold()
        place = bisect_left(self._sorted, name)
        shared = max(
            (_shared(name, other) for other in self._sorted[max(place - 1, 0) : place + 1]), default=0
        )
        return self.starting(name[:shared], count) if shared else []


def _shared(one: str, other: str) -> int:
    """How many letters at the beginning are the same."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
