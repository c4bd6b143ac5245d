"""How far the training is."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.kernels import compiling
from l2q.learning.callbacks.validation import Validation
from l2q.progress import Bars, span

log = logging.getLogger("l2q.file")  # the screen has the bar
STEPS = 5  # that a step's time is taken from
SOON = 60  # seconds: a validation that is further away is not waited for


class EpochProgress(Callback):
    """One bar over the whole training with the time left; ten lines instead where the output is no terminal, and
    nothing where it is not ``shown``.

    It says how long the training is expected to take as soon as this process has seen a validation. The estimate is
    made of the validation's time and of the median step before it; compiling counts in neither. Where the validation is
    more than a minute away, the time of the steps alone is said before it, as the least that the training takes.
    """

    def __init__(self, validation: Validation, shown: bool = True) -> None:
        self.validation, self.shown = validation, shown
        self.bars = Bars("epochs", shown=shown)

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.start = trainer.current_epoch
        self.began: float | None = None  # when the first batch ended
        self.steps: list[float] = []  # seconds of each step in which nothing was compiled
        self.least = self.said = False
        self._lap()
        self.bars.start()
        self._update(trainer, trainer.current_epoch)

    def _lap(self) -> tuple[float, bool]:
        """Seconds since the last lap without what compiling took, and whether there was any."""
        now, compiled = time.perf_counter(), compiling.seconds()
        before = getattr(self, "last", (now, compiled))
        self.last = now, compiled
        return now - before[0] - (compiled - before[1]), compiled > before[1]

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._lap()  # checkpoint and history of the epoch before

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        seconds, compiled = self._lap()
        first = self.began is None  # torch and its libraries are slow at their first step
        if first:
            self.began = time.perf_counter()
        if not (first or compiled or self.said):
            self.steps.append(seconds)
            if len(self.steps) == STEPS and not self.least:
                epoch = float(np.median(self.steps)) * trainer.num_training_batches
                if epoch * self.validation.every_n_epochs > SOON:
                    self.least = True
                    left = (trainer.max_epochs or 1) - self.start
                    self._print(
                        f"training is expected to take at least {span(epoch * left)}, and what validation takes"
                    )
        self._update(trainer, trainer.current_epoch + (batch_index + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        seconds, _ = self._lap()
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        shown = {"train/loss": "loss", "val/recall_20": "recall@20"}
        found = {label: trainer.callback_metrics.get(key) for key, label in shown.items()}
        text = "  ".join(f"{label} {float(value):.4f}" for label, value in found.items() if value is not None)
        self._update(trainer, done, text)
        every = self.validation.every_n_epochs
        if not self.said and len(self.steps) >= STEPS and done % every == 0 and done < total:
            self.said = True
            steps = float(np.median(self.steps)) * trainer.num_training_batches * (total - self.start)
            validations = seconds * (total // every - self.start // every)
            self._print(
                f"training is expected to take {span(steps + validations)} in all, and less if it ends early"
            )
        tenth = done * 10 // total > (done - 1) * 10 // total
        if tenth and self.began is not None:
            batches = trainer.num_training_batches
            a_step = (time.perf_counter() - self.began) / max((done - self.start) * batches - 1, 1)
            left = a_step * batches * (total - done)
            line = f"epoch {done} of {total}, {span(left)} left  {text}"
            log.info(line)
            if not self.bars.shown:
                self._print(line)

    def _print(self, line: str) -> None:
        if self.shown:
            self.bars.print(line)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.bars.stop()

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.bars.stop()

    def _update(self, trainer: pl.Trainer, done: float, values: str | None = None) -> None:
        self.bars.update("training", done, trainer.max_epochs or 1, values)
