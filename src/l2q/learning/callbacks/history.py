"""What was logged, epoch by epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.files import replaced_file
from l2q.learning.callbacks.validation import Validation
from l2q.tracking.tracker import tracker


class History(Callback):
    """Keeps every epoch's logged values, in the checkpoint and in ``history.csv``, so that a resumed run
    has its whole history."""

    def __init__(self, folder: Path | None, validation: Validation) -> None:
        self.path = None if folder is None else Path(folder) / "history.csv"
        self.validation = validation
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        if self.rows:  # of the run that is gone on with
            for logger in trainer.loggers:
                tracker(logger).replay(self.rows)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        logged = trainer.callback_metrics
        values = {
            key: float(value)
            for key, value in logged.items()
            if key.startswith(("train/", "anneal/", "time/"))
        }
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "learning_rate": rate}
        self.rows.append(row | values | self.validation.measured)
        for logger in trainer.loggers:
            tracker(logger).log_epoch(self.rows[-1])
        self.write()

    def total(self, key: str) -> float:
        """The sum over all epochs."""
        return sum(row.get(key, 0.0) for row in self.rows)

    def write(self) -> None:
        if self.path is None:
            return
        keys = sorted({key for row in self.rows for key in row}, key=lambda key: ("/" in key, key))
        with replaced_file(self.path) as fresh, fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(self.rows)
