"""What is measured after an epoch: the validation part, and how the codes behave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from l2q.evaluation import Evaluation, evaluate
from l2q.interactions import Interactions
from l2q.kernels.packing import pack, unpack
from l2q.representations import Representations, Rows
from l2q.retrieval.index import Backend, DenseIndex, PackedIndex


def code_statistics(now: Representations, before: Representations | None) -> dict[str, float]:
    """How the codes behave.

        flip_ratio     the share of bits that changed since ``before``
        bit_balance    the mean over bits of |mean of the bit over all rows|: 0 is balanced, 1 constant
        scale_spread   the standard deviation of the item scales over their mean, averaged over segments

    Without ``before`` there is no flip_ratio, and codes without scales have no scale_spread.
    """
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

    Without a validation part (``val=None``) it logs the code statistics alone. ``measure`` is ``evaluate``, or what
    several processes share it by.
    """

    def __init__(
        self,
        fit: Interactions,
        val: Interactions | None,
        ks: Sequence[int],
        every_n_epochs: int,
        memory_mb: int,
        measure: Callable[..., Evaluation] = evaluate,
    ) -> None:
        self.measure = measure
        self.fit, self.val, self.ks = fit, val, ks
        self.every_n_epochs, self.memory_mb = every_n_epochs, memory_mb
        self.before: Representations | None = None
        self.measured: dict[str, float] = {}  # of the epoch that just ended; empty if it was not evaluated

    def state_dict(self) -> dict[str, Any]:
        """The codes that the next flip ratio is compared with, packed. So a resumed run has a flip ratio in its first
        epoch, too."""
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
            index: Backend
            if representations.binary:  # the same ranking, an order of magnitude faster
                index = PackedIndex.from_representations(representations)
            else:
                index = DenseIndex(representations)
            found = self.measure(index, self.val, self.ks, self.fit, self.memory_mb)
            values = {f"val/{key}": value for key, value in found.metrics.items()}
        if representations.binary:
            values |= code_statistics(representations, self.before)
            self.before = representations
        module.log_dict(values, batch_size=1)
        self.measured = values
