"""How far the training is."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.progress import Bars, span

log = logging.getLogger("l2q.file")  # the screen has the bar


class EpochProgress(Callback):
    """One bar over the whole training with the time left; says at the start how long it expects to take.

    Ten lines instead of the bar where the output is no terminal."""

    def __init__(self) -> None:
        self.bars = Bars("epochs")

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.start = trainer.current_epoch
        self.timed: list[float] = []  # when the first batches ended; the first two compile kernels
        self.bars.start()
        self._update(trainer, trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if len(self.timed) < 6:
            self.timed.append(time.perf_counter())
            if len(self.timed) == 6:
                steps = ((trainer.max_epochs or 1) - self.start) * trainer.num_training_batches
                expected = span(float(np.median(np.diff(self.timed))) * steps)
                self.bars.print(f"expects to take {expected} and what evaluation costs")
        self._update(trainer, trainer.current_epoch + (batch_index + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        shown = {"train/loss": "loss", "val/recall_20": "val recall@20"}
        found = {label: trainer.callback_metrics.get(key) for key, label in shown.items()}
        text = "  ".join(f"{label} {float(value):.4f}" for label, value in found.items() if value is not None)
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        self._update(trainer, done, text)
        tenth = done * 10 // total > (done - 1) * 10 // total
        if tenth:
            steps = trainer.num_training_batches
            a_step = (time.perf_counter() - self.timed[0]) / max((done - self.start) * steps - 1, 1)
            left = a_step * steps * (total - done)
            line = f"epoch {done} of {total}, {span(left)} left  {text}"
            log.info(line)
            if not self.bars.shown:
                self.bars.print(line)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.bars.stop()

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.bars.stop()

    def _update(self, trainer: pl.Trainer, done: float, values: str | None = None) -> None:
        self.bars.update("training", done, trainer.max_epochs or 1, values)
