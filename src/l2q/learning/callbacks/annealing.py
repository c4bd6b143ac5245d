"""The quantizer's strength over training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.models.annealing import Annealing


class AnnealingCallback(Callback):
    """Writes the quantizer's strength before every step, from progress alone."""

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def finished(self, module: Any) -> bool:
        return self.annealing.finished(module.share_done())

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        strength = self.annealing.strength(module.share_done())
        if hasattr(module.encoder.quantizer, "strength"):
            module.encoder.quantizer.strength = strength
            module.log("anneal/strength", strength, on_step=False, on_epoch=True, batch_size=1)
