"""What ends a training before its last epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, Timer

from l2q.errors import L2QError
from l2q.learning.callbacks.annealing import AnnealingCallback
from l2q.learning.callbacks.validation import Validation


class PatienceAfterAnnealing(EarlyStopping):
    """Early stopping whose patience starts when the annealing has ended: the codes get better while it
    runs, whatever a single epoch says."""

    def __init__(self, annealing: AnnealingCallback, validation: Validation, **arguments: Any) -> None:
        super().__init__(check_on_train_epoch_end=True, **arguments)
        self.annealing, self.validation = annealing, validation

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if self.wait_count >= max(self.patience, 1):  # the run that is gone on with had stopped here
            trainer.should_stop = True

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        if self.validation.measured and self.annealing.finished(trainer.lightning_module):
            super()._run_early_stopping_check(trainer)


class TimeLimit(Timer):
    """Ends the training after the epoch in which ``duration`` is over: days:hours:minutes:seconds, or a mapping of
    them. The epochs before a resume count, too."""

    def __init__(self, duration: str | Mapping[str, int]) -> None:
        super().__init__(
            duration if isinstance(duration, str) else dict(duration), interval="epoch", verbose=False
        )

    @property
    def over(self) -> bool:
        left = self.time_remaining()
        return left is not None and left <= 0


class Diverged(L2QError):
    """A loss that is not finite, of which all processes of a run learn."""


class FiniteLoss(Callback):
    """Stops at a loss that is not finite, or where an epoch ends with embeddings that are not, before a
    checkpoint of it could be written. ``lowest`` is that of all processes, so that they stop together."""

    def __init__(self, lowest: Callable[[torch.Tensor], torch.Tensor] = lambda step: step) -> None:
        self.bad_step: torch.Tensor | None = None
        self.lowest = lowest

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        # stays on the device: reading it every step would stall a GPU
        step = torch.tensor(trainer.global_step, device=outputs["loss"].device)
        finite = torch.isfinite(outputs["loss"])
        if trainer.is_last_batch:  # the loss was taken before the last step
            finite = finite & torch.isfinite(module.encoder.embeddings).all()
        bad = torch.where(finite, torch.iinfo(step.dtype).max, step)
        self.bad_step = bad if self.bad_step is None else torch.minimum(self.bad_step, bad)
        if trainer.is_last_batch or batch_index % 50 == 49:
            self.check(trainer.current_epoch)

    def check(self, whole_epochs: int) -> None:
        first = torch.iinfo(torch.int64).max if self.bad_step is None else int(self.lowest(self.bad_step))
        self.bad_step = None
        if first < torch.iinfo(torch.int64).max:
            kept = (
                "checkpoints/last.ckpt holds a whole epoch before" if whole_epochs else "no epoch was whole"
            )
            raise Diverged(f"the loss is not finite at step {first}; lower learning_rate; {kept}")
