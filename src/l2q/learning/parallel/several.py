"""What several processes do alike, whichever way they share the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from l2q import processes
from l2q.errors import L2QError
from l2q.evaluation import Evaluation, evaluate
from l2q.interactions import Interactions
from l2q.learning.parallel.one import One


class Several(One):
    """Several processes train one model."""

    def check(self, config: Mapping[str, Any]) -> None:
        if config["objective"]["_target_"].endswith(".Distillation"):
            raise L2QError(
                f"objective=distillation is trained by one process, not by {processes.size()}: start one, without "
                "torchrun, and give it more threads"
            )

    def evaluate(self, index: Any, part: Interactions, *more: Any) -> Evaluation:
        """A process ranks for its share of the users; torchmetrics joins what they found. With fewer users than
        processes each ranks for all, which leaves the means as they are."""
        users = np.flatnonzero(part.user_degrees)
        if len(users) >= processes.size():
            own = np.zeros(part.num_users, bool)
            own[users[processes.rank() :: processes.size()]] = True
            part = part.select(own[part.users])
        with processes.jointly():
            return evaluate(index, part, *more)

    def lowest(self, value: Tensor) -> Tensor:
        value = value.clone()
        dist.all_reduce(value, dist.ReduceOp.MIN)
        return value

    def decided(self, value: Any) -> Any:
        said = [value]
        dist.broadcast_object_list(said)
        return said[0]


def placed(strategy: DDPStrategy) -> dict[str, Any]:
    """The trainer's options for one process of several, each with a device of its own."""
    here = processes.on_this_machine()
    return {"strategy": strategy, "devices": here, "num_nodes": processes.size() // here}
