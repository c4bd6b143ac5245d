"""Where the seconds of an epoch go."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


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
