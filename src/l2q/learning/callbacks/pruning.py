"""What ends a training that its search gives up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.learning.callbacks.validation import Validation
from l2q.learning.jobs import Pruned


class Watched(Callback):
    """Tells ``watch`` every validation, by its epoch and metrics; raises ``Pruned`` where it answers with a reason to
    end, unless the training is at its end anyway."""

    def __init__(
        self, validation: Validation, watch: Callable[[int, Mapping[str, float]], str | None]
    ) -> None:
        self.validation, self.watch = validation, watch

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if not self.validation.measured:
            return
        epoch = trainer.current_epoch + 1
        reason = self.watch(epoch, self.validation.measured)
        if reason and not trainer.should_stop and epoch != trainer.max_epochs:
            raise Pruned(reason)
