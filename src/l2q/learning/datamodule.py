"""Lightning data module: one dataset, one validation split, one stream of triplets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch

from l2q.data.sampling import Triplets, TripletSampler
from l2q.data.sources import load_dataset, prepare
from l2q.data.splits import SPLITS, split_validation
from l2q.errors import L2QError
from l2q.interactions import Dataset, Interactions


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
    """``source`` holds the keyword arguments of ``l2q.data.sources.load_dataset``.

    ``split`` is ``random`` or ``cluster`` (a validation part of train is held out, ``fit`` is the rest) or
    None (``fit`` is all of train and ``val`` is None). ``split_seed`` fixes the split, ``seed`` the samples.
    Every pair has ``candidates`` negatives.
    """

    def __init__(
        self,
        source: dict[str, Any],
        *,
        batch_size: int,
        candidates: int = 1,
        seed: int = 0,
        split: str | None = "random",
        fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        if split is not None and split not in SPLITS:
            raise L2QError(f"protocol.split={split} is unknown; use {' or '.join(SPLITS)}")
        for name, value in (("seed", seed), ("protocol.split_seed", split_seed)):
            if value < 0:
                raise L2QError(f"{name}={value} must be at least 0")
        if batch_size < 1:
            raise L2QError(f"batch_size={batch_size} must be at least 1")
        if split and not 0 < fraction < 1:
            raise L2QError(f"protocol.fraction={fraction} must lie between 0 and 1")
        self.source, self.batch_size, self.seed, self.candidates = source, batch_size, seed, candidates
        self.split, self.fraction, self.split_seed = split, fraction, split_seed
        self.dataset: Dataset | None = None

    def prepare_data(self) -> None:
        if self.dataset is None:  # Lightning asks once more
            prepare(**self.source)

    def setup(self, stage: str | None = None) -> None:
        if self.dataset is not None:
            return
        self.dataset = load_dataset(**self.source)
        train = self.dataset.train
        self.fit: Interactions = train
        self.val: Interactions | None = None
        if self.split:
            self.fit, self.val = split_validation(train, self.split, self.fraction, self.split_seed)
        if self.val is not None and not len(self.val):
            raise L2QError(
                f"{self.dataset.name} has no user with enough items for a validation part; use protocol=final"
            )

    def train_dataloader(self) -> TripletLoader:
        return TripletLoader(TripletSampler(self.fit, self.batch_size, self.seed, self.candidates))
