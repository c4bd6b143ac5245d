"""The metrics as a torchmetrics module; apart from the formulas, since torchmetrics takes seconds to import
and serving has no use for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import Metric

from l2q.metrics import per_user_metrics


class RankingMetrics(Metric):
    """Means over users of ``l2q.metrics.per_user_metrics``, summed in float64 over batches and ranks."""

    full_state_update = False
    higher_is_better = True
    totals: torch.Tensor
    num_users: torch.Tensor

    def __init__(self, ks: Sequence[int]):
        super().__init__()
        self.ks = tuple(ks)
        self.names = tuple(per_user_metrics(np.zeros((0, max(self.ks))), np.zeros(0, int), self.ks))
        self.add_state("totals", torch.zeros(len(self.names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_users", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, hits, relevant) -> None:
        """``hits`` (n, depth) boolean in rank order, ``relevant`` (n,); arrays or tensors."""
        hits, relevant = (torch.as_tensor(values).cpu().numpy() for values in (hits, relevant))
        values = per_user_metrics(hits, relevant, self.ks).values()
        self.totals += torch.tensor([v.sum() for v in values]).to(self.totals)
        self.num_users += len(hits)

    def compute(self) -> dict[str, float]:
        """The mean of every metric over all users seen, ``recall_20``, ``ndcg_20``, ..."""
        return dict(zip(self.names, (self.totals / self.num_users).tolist(), strict=True))
