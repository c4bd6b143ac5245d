"""Lightning module: one encoder, one objective, dense Adam."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from l2q.errors import L2QError
from l2q.learning import checkpoints
from l2q.models.encoder import Encoder
from l2q.models.losses import Batch


class Recommender(pl.LightningModule):
    """Trains ``encoder`` on triplets.

    ``identity`` names what a checkpoint belongs to: the dataset, its fingerprint, the model and its options. A
    checkpoint of another identity is refused. ``training`` holds the options that must be equal, too, where a run goes
    on with a checkpoint.
    ``epochs`` is the length of the curves of learning rate and annealing, however many are run:

        constant: r,    cosine: r (1 + cos(pi p)) / 2,    p = min(global_step / (epochs * steps), 1)

    a function of progress alone, as annealing is.
    """

    def __init__(
        self,
        encoder: Encoder,
        objective: nn.Module,
        *,
        learning_rate: float,
        schedule: str,
        epochs: int,
        seed: int,
        identity: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.item_shares: Tensor
        if schedule not in ("constant", "cosine"):
            raise L2QError(f"schedule={schedule} is unknown; use constant or cosine")
        if not learning_rate > 0:
            raise L2QError(f"learning_rate={learning_rate} must be above 0")
        self.encoder, self.objective = encoder, objective
        self.learning_rate, self.schedule, self.epochs = learning_rate, schedule, epochs
        self.seed, self.identity, self.training_options = seed, identity or {}, training or {}
        degrees = np.diff(encoder.propagation.graph.indptr)[encoder.num_users :]
        shares = torch.from_numpy((degrees / max(degrees.sum(), 1)).astype(np.float32))
        self.register_buffer("item_shares", shares, persistent=False)

    def share_done(self) -> float:
        """The share of ``epochs`` that is done; may pass 1."""
        steps = self.epochs * self._epoch_steps()
        return self.global_step / steps if steps else 1.0

    def _epoch_steps(self) -> int:
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    def on_train_epoch_start(self) -> None:
        trainer: Any = self.trainer
        loader = trainer.train_dataloader
        loader.epoch = 0 if trainer.overfit_batches else self.current_epoch  # the same ones again

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_index: int) -> Tensor:
        encoder = self.encoder
        # random relaxations draw from (seed, step), so that a resumed run draws the same
        generator = torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + self.global_step)
        users, pos_items, neg_items = batch
        items = torch.cat([pos_items, neg_items])
        everything = getattr(self.objective, "all_items", False)
        nodes = None if everything else self._batch_nodes(users, items + encoder.num_users)
        values = encoder(nodes, generator)
        start: Tensor = encoder.embeddings
        split = encoder.num_users
        if nodes is not None:
            start, split = start[nodes], int(torch.searchsorted(nodes, encoder.num_users))
            users = torch.searchsorted(nodes, users)
            items = torch.searchsorted(nodes, items + encoder.num_users) - split
        sizes = (split, len(values) - split)
        positives, negatives = items.split([len(pos_items), len(neg_items)])
        scored = Batch(users, positives, negatives, self.item_shares[pos_items])
        loss = self.objective(*values.split(sizes), scored, *start.split(sizes))
        self.log(
            "train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(users), sync_dist=True
        )
        return loss

    def _batch_nodes(self, users: Tensor, items: Tensor) -> Tensor | None:
        """The batch's distinct nodes, ascending, where they are few enough to save work; None for all. A GPU
        multiplies whole matrices, and its step would have to wait for their number."""
        total = len(self.encoder.embeddings)
        if users.is_cuda or len(users) + len(items) > total // 2:
            return None
        return torch.unique(torch.cat([users, items]))

    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.parameters(), lr=self.learning_rate, fused=True)

        def factor(step: int) -> float:
            # at step 0 Lightning does not know yet how many batches there are
            steps = self.epochs * self._epoch_steps() if step else 0
            progress = min(step / steps, 1.0) if steps else 0.0
            return 1.0 if self.schedule == "constant" else (1 + math.cos(math.pi * progress)) / 2

        scheduler = torch.optim.lr_scheduler.LambdaLR(adam, factor)
        return {"optimizer": adam, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def own(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        """What of a checkpoint's tensors this process has: all of it, where they are not shared."""
        return checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["l2q"] = self.identity | self.training_options

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        _check(checkpoint, self.identity | self.training_options)


def read_checkpoint(
    path: Path, expected: dict[str, Any], files: checkpoints.CheckpointFiles | None = None
) -> dict[str, Any]:
    """What ``path`` holds. Raises L2QError where it is no checkpoint, is damaged, or was written with other options."""
    files = files or checkpoints.CheckpointFiles(share=None)  # what it was written with says the file itself
    if str(path) not in files.kept and not path.is_file():
        inside = next(iter(sorted(path.rglob("last.ckpt"))), "outputs/.../checkpoints/last.ckpt")
        raise L2QError(f"ckpt_path={path} is not a file; give a checkpoint such as {inside}")
    checkpoint = files.read(path)
    _check(checkpoint, expected)
    return checkpoint


def _check(checkpoint: dict[str, Any], expected: dict[str, Any]) -> None:
    found = checkpoint["l2q"]
    groups = {key.partition(".")[0] for key in expected}
    # an option that the checkpoint alone was given differs, too
    for key in [*expected, *(key for key in found if key.partition(".")[0] in groups)]:
        if found.get(key) != expected.get(key):
            raise L2QError(
                f"ckpt_path: the checkpoint has {key}={found.get(key)}, this run has {key}={expected.get(key)}; "
                "give the options that it was trained with"
            )
