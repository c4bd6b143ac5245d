"""The metrics as a torchmetrics module, which ``evaluate`` feeds; apart from the formulas, since torchmetrics takes
over a second to import and serving has no use for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from l2q.metrics import per_user_metrics


class RankingMetrics(Metric):
    """Means over users of ``l2q.metrics.per_user_metrics``, of all batches and ranks.

    States are the hits themselves, so that the mean is one sum over all users, whatever the batches:

        metric = RankingMetrics([20])
        metric.update(hits, relevant)
        metric.compute()["recall_20"]

    ``options`` are those of torchmetrics.
    """

    full_state_update = False
    higher_is_better = True
    hits: list[torch.Tensor]
    relevant: list[torch.Tensor]

    def __init__(self, ks: Sequence[int], **options: Any):
        super().__init__(**options)
        self.ks = tuple(ks)
        self.add_state("hits", [], dist_reduce_fx="cat")
        self.add_state("relevant", [], dist_reduce_fx="cat")

    def update(self, hits, relevant) -> None:
        """``hits`` (n, depth) boolean in rank order, ``relevant`` (n,) how many relevant items each user has; arrays or
        tensors."""
        self.hits.append(torch.as_tensor(hits, dtype=torch.bool))
        self.relevant.append(torch.as_tensor(relevant))

    def per_user(self) -> dict[str, np.ndarray]:
        """Every metric per user seen, float64 (n,), in the order of the updates."""
        if not len(self.hits):  # a list, but one tensor where the states of several ranks were joined
            return per_user_metrics(np.zeros((0, max(self.ks))), np.zeros(0, int), self.ks)
        hits, relevant = (dim_zero_cat(state).cpu().numpy() for state in (self.hits, self.relevant))
        return per_user_metrics(hits, relevant, self.ks)

    def compute(self) -> dict[str, float]:
        """The mean of every metric over all users seen, ``recall_20``, ``ndcg_20``, ..."""
        return {name: float(values.mean()) for name, values in self.per_user().items()}
