"""Training shared by batches: every process has the whole model and takes its share of each batch.

A step is that of one process. Of a batch of n pairs, which (seed, epoch) alone gives, rank r of p takes the pairs

    floor(r n / p) .. floor((r + 1) n / p) - 1

and its gradient of the mean over its n_r pairs counts n_r p / n. The mean of all gradients (DistributedDataParallel)
is then the gradient of the whole batch. So ``batch_size`` is that of all processes together, and steps, rates and
annealing are those of one process. The figures are, too, but for the order of float32 sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from l2q import processes
from l2q.data.sampling import TripletSampler
from l2q.errors import L2QError
from l2q.learning.datamodule import TripletLoader
from l2q.learning.parallel.several import Several, placed
from l2q.learning.recommender import Recommender

Batch = tuple[Tensor, Tensor, Tensor]


def share(batch: Batch, rank: int, size: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """The pairs of ``rank`` with their negatives, and the weight of their mean. A rank that a batch of fewer pairs
    leaves without one takes a pair with weight 0, since all take every step.

    >>> pairs = torch.arange(5)
    >>> share((pairs, pairs, pairs), 1, 2)
    (tensor([2, 3, 4]), tensor([2, 3, 4]), tensor([2, 3, 4]), 1.2)
    """
    users, pos_items, neg_items = batch
    n = len(users)
    first, last = rank * n // size, (rank + 1) * n // size
    pairs = slice(first, max(last, first + 1))
    negatives = neg_items.reshape(len(neg_items) // n, n)[:, pairs].reshape(-1)
    return users[pairs], pos_items[pairs], negatives, (last - first) * size / n


class Shares(TripletLoader):
    """This process's share of every batch."""

    def __init__(self, sampler: TripletSampler, rank: int, size: int) -> None:
        super().__init__(sampler)
        self.rank, self.size = rank, size

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield share(batch, self.rank, self.size)  # type: ignore[arg-type]


class ShareRecommender(Recommender):
    """Weights the loss of a share."""

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        *triplets, weight = batch
        return super().training_step(tuple(triplets), batch_index) * weight  # type: ignore[arg-type]


class Batches(Several):
    """``parallel=batches``."""

    recommender = ShareRecommender

    def check(self, config: Mapping[str, Any]) -> None:
        super().check(config)
        if config["objective"]["_target_"].endswith(".Softmax"):
            raise L2QError(
                "parallel=batches: objective=softmax holds a pair against the items of its whole batch, of which a "
                "process has a share; give parallel=columns, or objective=bpr"
            )

    def loader(self, sampler: TripletSampler) -> TripletLoader:
        return Shares(sampler, processes.rank(), processes.size())

    def trainer(self) -> dict[str, Any]:
        # buffers are constants, the same everywhere
        return placed(DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True))
