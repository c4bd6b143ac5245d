"""Lightning callbacks: annealing, validation, code statistics, time split, history, patience, finite loss,
progress."""

from __future__ import annotations

import csv
import logging
import math
import os
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import WandbLogger
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.interactions import Interactions
from l2q.kernels.packing import pack, unpack
from l2q.models.annealing import Annealing
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex, Index, PackedIndex

log = logging.getLogger("l2q.file")  # the screen has the bar


class AnnealingCallback(Callback):
    """Writes the quantizer's strength before every step, from progress alone."""

    def __init__(self, annealing: Annealing) -> None:
        self.annealing = annealing

    def finished(self, module: Any) -> bool:
        return self.annealing.finished(module.progress())

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        strength = self.annealing.strength(module.progress())
        if hasattr(module.encoder.quantizer, "strength"):
            module.encoder.quantizer.strength = strength
            module.log("anneal/strength", strength, on_step=False, on_epoch=True, batch_size=1)


def code_statistics(now: Representations, before: Representations | None) -> dict[str, float]:
    """How the codes behave: flip_ratio, the share of bits that changed since ``before``; bit_balance, the
    mean over bits of |mean of the bit over all rows| (0: balanced, 1: constant); scale_spread, the standard
    deviation of the item scales over their mean, averaged over segments."""
    values = np.concatenate([now.users.values, now.items.values])
    statistics = {"codes/bit_balance": float(np.abs(values.mean(axis=0, dtype=np.float64)).mean())}
    if before is not None:
        flips = [
            (a.values != b.values).sum() for a, b in ((now.users, before.users), (now.items, before.items))
        ]
        statistics["codes/flip_ratio"] = float(sum(flips) / values.size)
    if now.items.scales is not None:
        spread = now.items.scales.std(axis=0) / np.maximum(now.items.scales.mean(axis=0), 1e-30)
        statistics["codes/scale_spread"] = float(spread.mean())
    return statistics


class Validation(Callback):
    """Measures the hard codes on the validation part after an epoch and logs ``val/*`` and ``codes/*``.

    Without a validation part (``val=None``) it logs the code statistics alone.
    """

    def __init__(
        self,
        fit: Interactions,
        val: Interactions | None,
        ks: Sequence[int],
        every_n_epochs: int,
        memory_mb: int,
    ) -> None:
        self.fit, self.val, self.ks = fit, val, ks
        self.every_n_epochs, self.memory_mb = every_n_epochs, memory_mb
        self.before: Representations | None = None
        self.measured: dict[str, float] = {}  # of the epoch that just ended; empty if it was not evaluated

    def state_dict(self) -> dict[str, Any]:
        """The codes that the next flip ratio is taken from, packed: a resumed run has one in every epoch."""
        if self.before is None:
            return {}
        users, items = (
            torch.from_numpy(pack(side.values, self.before.dims))
            for side in (self.before.users, self.before.items)
        )
        return {"dims": list(self.before.dims), "users": users, "items": items}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        dims = tuple(state["dims"])
        users, items = (Rows(unpack(state[side].numpy(), dims)) for side in ("users", "items"))
        self.before = Representations(users, items, dims, np.ones(len(dims), np.float32))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.measured = {}
        epochs, most = trainer.current_epoch + 1, trainer.max_epochs or 0
        # a run that trainer.max_epochs shortens may be gone on with: it measures where a whole one would have
        if epochs % self.every_n_epochs and (epochs != most or most < module.epochs):
            return
        representations = module.encoder.encode()
        values: dict[str, float] = {}
        if self.val is not None:
            index: Index
            if representations.binary:  # the same ranking, an order of magnitude faster
                index = PackedIndex.from_representations(representations)
            else:
                index = DenseIndex(representations)
            found = evaluate(index, self.val, self.ks, self.fit, self.memory_mb)
            values = {f"val/{key}": value for key, value in found.metrics.items()}
        if representations.binary:
            values |= code_statistics(representations, self.before)
            self.before = representations
        module.log_dict(values, batch_size=1)
        self.measured = values


class TimeSplit(Callback):
    """Logs where the seconds of an epoch go, ``time/*``:

        sample      waiting for the batch, and what stands between two steps, such as the annealing
        propagate   the encoder, forward and backward: hops, rotations, quantizer
        loss        the objective, forward and backward
        optimizer   Adam and the learning rate
        evaluate    validation and code statistics
        other       the rest: distinct nodes, checkpoint and history of the epoch before

    Every mark charges the time since the last one to a part, so the parts add up to the whole. Comes right after
    ``Validation`` in the list of callbacks. On a GPU the marks are events in its stream, read once per epoch.
    """

    PARTS = ("sample", "propagate", "loss", "optimizer", "evaluate", "other")

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.cuda = module.device.type == "cuda"
        self.marks: list[tuple[str, Any]] = []
        self.hooks = [
            module.encoder.register_forward_pre_hook(lambda *_: self.mark("other")),
            module.encoder.register_forward_hook(self._encoded),
        ]
        self.mark("other")

    def mark(self, part: str) -> None:
        now: Any = torch.cuda.Event(enable_timing=True) if self.cuda else time.perf_counter()
        if self.cuda:
            now.record()
        self.marks.append((part, now))

    def _encoded(self, encoder: Any, arguments: Any, values: torch.Tensor) -> None:
        self.mark("propagate")
        # the objective's backward is over when the gradient of the values is there
        values.register_hook(lambda gradient: self.mark("loss"))

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.mark("other")

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        self.mark("sample")

    def on_before_backward(self, trainer: pl.Trainer, module: Any, loss: torch.Tensor) -> None:
        self.mark("loss")

    def on_after_backward(self, trainer: pl.Trainer, module: Any) -> None:
        self.mark("propagate")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        self.mark("optimizer")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.mark("evaluate")
        if self.cuda:
            torch.cuda.synchronize()
        seconds = dict.fromkeys(self.PARTS, 0.0)
        for (_, before), (part, now) in pairwise(self.marks):
            seconds[part] += before.elapsed_time(now) / 1e3 if self.cuda else now - before
        self.marks = self.marks[-1:]
        module.log_dict({f"time/{part}": value for part, value in seconds.items()}, batch_size=1)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        for hook in self.hooks:
            hook.remove()


class History(Callback):
    """Keeps every epoch's logged values, in the checkpoint and in ``history.csv``, so that a resumed run
    has its whole history."""

    def __init__(self, folder: Path, validation: Validation) -> None:
        self.path = Path(folder) / "history.csv"
        self.validation = validation
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        # an offline W&B file cannot be continued: the file of a resumed run begins with what came before
        if self.rows and isinstance(trainer.logger, WandbLogger) and trainer.logger.experiment.offline:
            for row in self.rows:
                values = {key: value for key, value in row.items() if "/" in key}
                trainer.logger.log_metrics(values | {"epoch": row["epoch"] - 1}, step=int(row["step"]) - 1)

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
        self.write()

    def total(self, key: str) -> float:
        """The sum over all epochs."""
        return sum(row.get(key, 0.0) for row in self.rows)

    def write(self) -> None:
        keys = sorted({key for row in self.rows for key in row}, key=lambda key: ("/" in key, key))
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(part, self.path)


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
    its weights."""

    def __init__(self, validation: Validation, dirpath: Path) -> None:
        super().__init__(dirpath, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.validation = validation
        self.written, self.cost = -math.inf, 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        started = time.perf_counter()
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if ends or self.validation.measured or started - self.written >= 20 * self.cost:
            super().on_train_epoch_end(trainer, module)
            self.written = time.perf_counter()
            self.cost = self.written - started


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


class FiniteLoss(Callback):
    """Stops at a loss that is not finite, or where an epoch ends with embeddings that are not, before a
    checkpoint of it could be written."""

    def __init__(self) -> None:
        self.bad_step: torch.Tensor | None = None

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
        first = int(self.bad_step) if self.bad_step is not None else torch.iinfo(torch.int64).max
        self.bad_step = None
        if first < torch.iinfo(torch.int64).max:
            kept = (
                "checkpoints/last.ckpt holds a whole epoch before" if whole_epochs else "no epoch was whole"
            )
            raise L2QError(f"the loss is not finite at step {first}; lower learning_rate; {kept}")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"


class EpochProgress(Callback):
    """One bar over the whole training with the time left; says at the start how long it expects to take.

    Ten lines instead of the bar where the output is no terminal."""

    def __init__(self) -> None:
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
        self.bar = Progress(*columns, *times, TextColumn("{task.fields[values]}"))
        self.bar.disable = not self.bar.console.is_terminal

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.start = trainer.current_epoch
        self.timed: list[float] = []  # when the first batches ended; the first two compile kernels
        self.bar.start()
        self.task = self.bar.add_task(
            "training", total=trainer.max_epochs, completed=trainer.current_epoch, values=""
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        if len(self.timed) < 6:
            self.timed.append(time.perf_counter())
            if len(self.timed) == 6:
                steps = ((trainer.max_epochs or 1) - self.start) * trainer.num_training_batches
                span = _span(float(np.median(np.diff(self.timed))) * steps)
                self.bar.console.print(f"expects to take {span} and what evaluation costs")
        self.bar.update(
            self.task, completed=trainer.current_epoch + (batch_index + 1) / trainer.num_training_batches
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        shown = {"train/loss": "loss", "val/recall_20": "val recall@20"}
        found = {label: trainer.callback_metrics.get(key) for key, label in shown.items()}
        text = "  ".join(f"{label} {float(value):.4f}" for label, value in found.items() if value is not None)
        done, total = trainer.current_epoch + 1, trainer.max_epochs or 1
        self.bar.update(self.task, completed=done, values=text)
        tenth = done * 10 // total > (done - 1) * 10 // total
        if tenth:
            steps = trainer.num_training_batches
            a_step = (time.perf_counter() - self.timed[0]) / max((done - self.start) * steps - 1, 1)
            left = a_step * steps * (total - done)
            line = f"epoch {done} of {total}, {_span(left)} left  {text}"
            log.info(line)
            if self.bar.disable:
                self.bar.console.print(line)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.bar.stop()
