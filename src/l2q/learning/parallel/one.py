"""What a training is built of where one process does it; what several share, they share by overriding this."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from l2q.data.sampling import TripletSampler
from l2q.evaluation import Evaluation, evaluate
from l2q.interactions import Interactions
from l2q.learning.checkpoints import CheckpointFiles
from l2q.learning.datamodule import TripletLoader
from l2q.learning.recommender import Recommender
from l2q.models.encoder import Encoder, Initialization
from l2q.models.graph import Graph, Propagation


class One:
    """One process trains alone."""

    encoder: type[Encoder] = Encoder
    recommender: type[Recommender] = Recommender

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises L2QError for what cannot be shared in this way."""

    def propagation(self, train: Interactions) -> Propagation:
        """Products with the graph, of which this process may have a part."""
        return Propagation(Graph.from_interactions(train))

    def loader(self, sampler: TripletSampler) -> TripletLoader:
        """The batches that this process trains on."""
        return TripletLoader(sampler)

    def own(
        self,
        model: dict[str, Any],
        quantizer: nn.Module,
        objective: nn.Module,
        initialization: Initialization,
    ) -> tuple[dict[str, Any], Initialization]:
        """The options of ``Encoder`` and the start of the part of the model that this process has."""
        return model, initialization

    def files(self, in_memory: bool) -> CheckpointFiles:
        """How checkpoints are read and written."""
        return CheckpointFiles(in_memory)

    def trainer(self) -> dict[str, Any]:
        """More for Lightning's trainer."""
        return {}

    def evaluate(self, *arguments: Any) -> Evaluation:
        """``l2q.evaluate``, whose means are those of all users."""
        return evaluate(*arguments)

    def lowest(self, value: Tensor) -> Tensor:
        """The lowest value that a process has."""
        return value

    def decided(self, value: Any) -> Any:
        """What rank 0 says."""
        return value
