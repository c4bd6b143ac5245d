"""Parts of models with the values that ``conf/`` has for them, but for those that a test changes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from l2q import settings
from l2q.fitted.descent import CoordinateDescent
from l2q.fitted.l2q_plus import L2QPlus
from l2q.fitted.teacher import CosineEmbeddings
from l2q.interactions import Interactions
from l2q.models.annealing import Annealing
from l2q.models.distillation import Distillation
from l2q.models.encoder import Encoder, Initialization
from l2q.models.graph import Graph, Propagation
from l2q.models.initialization import Normal
from l2q.models.losses import BPR, Softmax
from l2q.models.quantizers import Quantizer


@cache
def _composed(**chosen: str) -> dict[str, Any]:
    return settings.compose(**chosen)


def _built(group: str, part: dict[str, Any], changes: dict[str, Any]) -> Any:
    return settings.build(part | changes, group)


def l2q_plus(**changes: Any) -> L2QPlus:
    return _built("model", _composed(model="l2q_plus")["model"], changes)


def descent(**changes: Any) -> CoordinateDescent:
    return CoordinateDescent(**_composed(model="l2q_plus")["model"]["descent"] | changes)


def embeddings(**changes: Any) -> CosineEmbeddings:
    return CosineEmbeddings(**_composed(model="l2q_plus")["model"]["embeddings"] | changes)


def quantizer(**changes: Any) -> Quantizer:
    """That of L2Q-GCN: straight through, without scales."""
    return _built("model.quantizer", _composed(model="l2q")["model"]["quantizer"], changes)


def normal(**changes: Any) -> Normal:
    return _built("model.initialization", _composed(model="l2q")["model"]["initialization"], changes)


def annealing(name: str, **changes: Any) -> Annealing:
    return _built("annealing", _composed(annealing=name, model="l2q")["annealing"], changes)


def bpr(**changes: Any) -> BPR:
    """Of a float model."""
    return _built("objective", _composed(model="lightgcn", objective="bpr")["objective"], changes)


def softmax(**changes: Any) -> Softmax:
    """Of a float model."""
    return _built("objective", _composed(model="lightgcn", objective="softmax")["objective"], changes)


def distillation(**changes: Any) -> Distillation:
    """Of a float model."""
    return _built("objective", _composed(model="lightgcn", objective="distillation")["objective"], changes)


def wandb_logger(folder: Path, run_name: str, group: str | None, **changes: Any) -> Any:
    """Without tags."""
    usual = settings.preset("logger/wandb") | {"tags": None}
    return _built("logger", usual | {"folder": folder, "run_name": run_name, "group": group}, changes)


def encoder(
    train: Interactions, quantizer: nn.Module, initialization: Initialization, **changes: Any
) -> Encoder:
    """One whose layers are all kept, on the graph of ``train``."""
    model = _composed(model="l2q")["model"]
    usual = {key: value for key, value in model.items() if key not in ("name", "quantizer", "initialization")}
    propagation = Propagation(Graph.from_interactions(train))
    return Encoder(train, propagation, quantizer, initialization, **{"seed": 0} | usual | changes)


def recommender(encoder: Encoder, objective: nn.Module, learning_rate: float) -> Any:
    """One whose learning rate stays."""
    from l2q.learning.recommender import Recommender  # Lightning takes seconds

    return Recommender(encoder, objective, learning_rate=learning_rate, schedule="constant", epochs=1, seed=0)
