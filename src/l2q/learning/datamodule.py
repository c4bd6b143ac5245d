"""Lightning data module: the stream of triplets that a recommender is trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytorch_lightning as pl
import torch

from l2q.data.sampling import Triplets, TripletSampler
from l2q.interactions import Interactions


class TripletLoader:
    """Batches of (users, pos_items, neg_items) tensors; what an epoch holds depends on (seed, epoch) alone,
    so a resumed run sees the same batches as one that was never stopped. The draws of the next epoch are made
    during this one: they need a core, which a GPU leaves idle."""

    def __init__(self, sampler: TripletSampler) -> None:
        self.sampler = sampler
        self.epoch = 0
        self._ahead: tuple[int, Iterator[Triplets]] | None = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        number, batches = self._ahead or (-1, iter(()))
        if number != self.epoch:
            batches = self.sampler.epoch(self.epoch)
        self._ahead = self.epoch + 1, self.sampler.epoch(self.epoch + 1)
        for batch in batches:
            yield tuple(torch.from_numpy(part) for part in batch)


class InteractionsModule(pl.LightningDataModule):
    """The pairs of ``train`` in batches of ``batch_size``, each pair with ``candidates`` negatives; ``seed`` fixes
    their order and the negatives. ``by_users`` keeps the pairs of a user together. ``loader`` makes of them what this
    process trains on."""

    def __init__(
        self,
        train: Interactions,
        *,
        batch_size: int,
        by_users: bool,
        candidates: int,
        seed: int,
        loader: Callable[[TripletSampler], TripletLoader] = TripletLoader,
    ) -> None:
        super().__init__()
        self.train, self.batch_size, self.by_users = train, batch_size, by_users
        self.candidates, self.seed, self.loader = candidates, seed, loader

    def train_dataloader(self) -> TripletLoader:
        return self.loader(
            TripletSampler(self.train, self.batch_size, self.seed, self.candidates, self.by_users)
        )
