"""Which epochs are kept as files."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from l2q.errors import L2QError
from l2q.learning import signals
from l2q.learning.callbacks.validation import Validation


class BestCheckpoint(ModelCheckpoint):
    """The epoch with the best monitored metric, among those that were measured."""

    def __init__(self, validation: Validation, **arguments: Any) -> None:
        super().__init__(save_on_train_epoch_end=True, **arguments)
        self.validation = validation

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self.validation.measured:
            super().on_train_epoch_end(trainer, module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The best epoch so far lies in this run's folder, which may have been moved or copied since it was named;
        where a run goes on in a folder of its own, it stays where it was."""

        def now(path: str) -> str:
            here = Path(self.dirpath or "") / Path(path).name
            if path and not here.is_file() and not Path(path).is_file():
                raise L2QError(f"ckpt_path: the best epoch so far, {here}, is gone; put it beside last.ckpt")
            return str(here) if path and here.is_file() else path

        state = state_dict | {"dirpath": self.dirpath}
        for key in ("best_model_path", "kth_best_model_path"):
            state[key] = now(state[key])
        state["best_k_models"] = {now(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict(state)


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``, what a stopped run goes on from: written after every epoch that was measured and after the last,
    and after others where that takes at most a twentieth of the time. An epoch on a GPU may be shorter than writing
    its weights. Of several processes the first decides: ``decided`` gives its word to all."""

    def __init__(
        self, validation: Validation, dirpath: Path, decided: Callable[[bool], bool] = lambda behind: behind
    ) -> None:
        super().__init__(dirpath, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.validation, self.decided = validation, decided
        self.written, self.cost = -math.inf, 0.0
        self.behind = False  # whether a whole epoch is not on disk

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        super().on_train_start(trainer, module)
        signals.take_back()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        started = time.perf_counter()
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        self.behind = not (ends or self.validation.measured or started - self.written >= 20 * self.cost)
        if self.behind and signals.waiting():
            self.behind = False
        self.behind = self.decided(self.behind)
        if not self.behind:
            super().on_train_epoch_end(trainer, module)
            self.written = time.perf_counter()
            self.cost = self.written - started
        signals.release()
