"""Training shared by columns: of p processes each has d / p columns of all embeddings, and the whole graph.

Propagation, signs, surrogate gradients and Adam take each column by itself, so a process needs nothing of the others
there. What sums over columns is a sum over processes:

    scores of a batch     <x, y> = sum_r <x_r, y_r>      (pairs,), or in blocks (users x items) for softmax
    row scales            a = sum_r mean|x_r| / p         (rows,) for each segment
    squares of L2         one number
    lengths of cosines    (rows,)

Every process has the whole loss then, and the gradient of its own columns follows from it without another word. All
draw the same batches. Rotations are block-diagonal (``model.rotation_blocks``), whole blocks a process, so that any
number of processes that divides the number of blocks trains the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from l2q import processes
from l2q.errors import L2QError
from l2q.files import writing
from l2q.interactions import Interactions
from l2q.learning import checkpoints
from l2q.learning.checkpoints import CheckpointFiles
from l2q.learning.parallel.several import Several, placed
from l2q.learning.recommender import Recommender
from l2q.models.columns import AllColumns
from l2q.models.encoder import Encoder, Initialization
from l2q.models.initialization import Normal
from l2q.representations import Representations, Rows


class _Total(torch.autograd.Function):
    """y = sum_r x_r on every process. All have the same loss of y, so dx_r = dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return grad


class _Spread(torch.autograd.Function):
    """y_r = x on every process, whose loss sees x through the columns of all of them: dx = sum_r dy_r."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return _Total.apply(grad)


class SharedColumns(AllColumns):
    """Sums over the columns of all processes."""

    def __init__(self) -> None:
        self.parts = processes.size()  # type: ignore[misc]

    def total(self, partial: Tensor) -> Tensor:
        return _Total.apply(partial)

    def spread(self, value: Tensor) -> Tensor:
        return _Spread.apply(value)


class ColumnEncoder(Encoder):
    """The encoder of this process's columns. ``encode`` is called by all processes and gives the whole rows to each."""

    @property
    def first_block(self) -> int:  # type: ignore[override]
        return processes.rank() * (self.rotation_blocks or 0)

    def _encoded(self) -> Representations:
        found = super()._encoded()
        return Representations(
            Rows(joined(found.users.values, len(found.dims)), found.users.scales),
            Rows(joined(found.items.values, len(found.dims)), found.items.scales),
            tuple(dim * processes.size() for dim in found.dims),
            found.weights,
            found.scale_dtype,
        )


def joined(values: np.ndarray, segments: int) -> np.ndarray:
    """Rows of all columns from this process's: (rows, segments * d / p) -> (rows, segments * d). The parts of processes
    come in one after the other, codes as bits, so that little is held beside the rows."""
    own = values.reshape(len(values), segments, -1)
    width, codes = own.shape[2], values.dtype == np.int8
    sent = torch.from_numpy(np.packbits(own > 0, axis=2) if codes else np.array(own, order="C"))
    found = np.empty((len(values), segments, processes.size(), width), values.dtype)
    part = torch.empty_like(sent)
    for number in range(processes.size()):
        if number == processes.rank():
            part.copy_(sent)
        dist.broadcast(part, number)
        columns = found[:, :, number]
        if codes:
            columns[:] = np.unpackbits(part.numpy(), axis=2, count=width)
            columns *= 2
            columns -= 1
        else:
            columns[:] = part.numpy()
    return found.reshape(len(values), -1)


class ColumnRecommender(Recommender):
    """Every process has a part of a checkpoint (``learning.checkpoints``), and takes its columns of one, whichever
    number of processes wrote it."""

    def setup(self, stage: str) -> None:
        weights = self.encoder.layer_weights
        if isinstance(weights, nn.Parameter):  # each process knows its columns' part of their gradient
            weights.register_hook(_Total.apply)

    def own(self, checkpoint: dict[str, Any]) -> dict[str, Any]:
        width = self.encoder.embeddings.shape[1]
        if checkpoint["state_dict"]["encoder.embeddings"].shape[1] == width:
            return checkpoint  # read from parts, a share of the columns already

        def cut(value: Tensor, dim: int) -> Tensor:
            width = value.shape[dim] // processes.size()
            return value.narrow(dim, processes.rank() * width, width).clone()

        return self.with_columns(checkpoint, cut)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        checkpoint.update(self.own(checkpoint))

    def with_columns(self, checkpoint: dict[str, Any], change: Any) -> dict[str, Any]:
        """The checkpoint with ``change(tensor, dim)`` for every tensor that has columns or blocks in ``dim``."""
        weights = dict(checkpoint["state_dict"])
        for name in sorted(weights):
            if (dim := _dim(name)) is not None:
                weights[name] = change(weights[name], dim)
        found = checkpoint | {"state_dict": weights}
        if "optimizer_states" in checkpoint:
            names = [name for name, _ in self.named_parameters()]
            states = []
            for state in checkpoint["optimizer_states"]:
                moments = {
                    number: {
                        key: change(value, _dim(names[number]))
                        if _dim(names[number]) is not None and value.dim() > 1
                        else value
                        for key, value in values.items()
                    }
                    for number, values in state["state"].items()
                }
                states.append(state | {"state": moments})
            found["optimizer_states"] = states
        return found


def _dim(name: str) -> int | None:
    """The dimension of a parameter that processes share: columns of embeddings, blocks of rotations."""
    return 1 if name == "encoder.embeddings" else 0 if name.startswith("encoder.transforms.") else None


class ColumnStrategy(DDPStrategy):
    """Lightning's processes, without its averaging: no two have the same parameters. Each writes its part of a
    checkpoint, and then the first one the rest."""

    def configure_ddp(self) -> None:
        pass

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        files = self.checkpoint_io
        assert isinstance(files, CheckpointFiles)
        told: list[Any] = [str(Path(filepath).absolute()), files.in_memory]
        dist.broadcast_object_list(told)  # the others know of no folder
        if told[1]:  # of what is kept each has its own columns
            files.save_checkpoint(checkpoint, filepath)
            return
        path, (number, size) = Path(told[0]), (processes.rank(), processes.size())
        module = self.lightning_module
        assert isinstance(module, ColumnRecommender)
        rest, own = checkpoints.split(checkpoint, module.with_columns)
        name = f"{path.stem}.{checkpoint['global_step']}-{number}of{size}.part"
        part = {"l2q": checkpoint["l2q"], "tensors": {key: tensor for key, (tensor, _) in own.items()}}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        parts: list[Any] = [None] * size
        dist.all_gather_object(parts, (name, checkpoints.save(part, path.parent / name)))
        if processes.leads():
            said = {
                "files": [list(part) for part in parts],
                "dims": {key: dim for key, (_, dim) in own.items()},
            }
            files.save_checkpoint(rest | {checkpoints.PARTS: said}, path)
            checkpoints.remove_parts(path, but=[name for name, _ in parts])


class Columns(Several):
    """``parallel=columns``."""

    encoder = ColumnEncoder
    recommender = ColumnRecommender

    def check(self, config: Mapping[str, Any]) -> None:
        super().check(config)
        model, number, way = config["model"], processes.size(), config["parallel"]
        if isinstance(model["embedding_dim"], int) and model["embedding_dim"] % number:
            raise L2QError(
                f"model.embedding_dim={model['embedding_dim']}: {number} processes share the columns evenly; give a "
                f"multiple of {number}"
            )
        blocks, transform = model.get("rotation_blocks"), model["transform"]
        if transform not in ("identity", "rotation"):
            raise L2QError(
                f"model.transform={transform} mixes all columns, of which parallel={way} gives a process a part; "
                "give model.transform=rotation model.rotation_blocks=B, or parallel=batches"
            )
        if transform == "rotation" and isinstance(blocks, int | None) and (blocks or 1) % number:
            raise L2QError(
                f"model.rotation_blocks={blocks or 'null'}: a rotation mixes the columns of its block, and {number} "
                f"processes share the blocks evenly; give a multiple of {number}, or parallel=batches"
            )
        trainer = config["trainer"]
        if trainer.get("gradient_clip_val") and trainer.get("gradient_clip_algorithm") != "value":
            raise L2QError(
                f"trainer.gradient_clip_algorithm=norm takes the gradient of all columns, of which parallel={way} "
                "gives a process a part; give trainer.gradient_clip_algorithm=value, or parallel=batches"
            )

    def files(self, in_memory: bool) -> CheckpointFiles:
        return CheckpointFiles(in_memory, (processes.rank(), processes.size()))

    def own(
        self,
        model: dict[str, Any],
        quantizer: nn.Module,
        objective: nn.Module,
        initialization: Initialization,
    ) -> tuple[dict[str, Any], Initialization]:
        shared, whole = SharedColumns(), model["embedding_dim"]
        for module in (quantizer, objective):
            module.columns = shared  # type: ignore[assignment]
        width = whole // processes.size()
        columns = slice(processes.rank() * width, (processes.rank() + 1) * width)

        def start(train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
            if isinstance(initialization, Normal):
                return initialization.part(train, whole, seed, columns)
            users, items = initialization(train, whole, seed)
            return users[:, columns], items[:, columns]

        own = model | {"embedding_dim": width}
        if model.get("rotation_blocks"):
            own["rotation_blocks"] = model["rotation_blocks"] // processes.size()
        return own, start

    def trainer(self) -> dict[str, Any]:
        return placed(ColumnStrategy())
