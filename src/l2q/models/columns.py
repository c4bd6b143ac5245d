"""What sums over the columns of embeddings: scores, row scales, norms. Elsewhere each column is by itself."""

from __future__ import annotations

from torch import Tensor


class AllColumns:
    """All columns are here. Where a process has a part of them, this is replaced by sums over processes
    (``l2q.learning.parallel.columns``)."""

    parts = 1
    """How many parts there are, of equally many columns each."""

    def total(self, partial: Tensor) -> Tensor:
        """The sum of what every part's columns come to, the same for all parts."""
        return partial

    def spread(self, value: Tensor) -> Tensor:
        """``value``, which all parts have, where each part's own columns make use of it: its gradient is the sum of
        theirs."""
        return value


ALL_COLUMNS = AllColumns()
