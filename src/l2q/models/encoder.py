"""The one encoder: initialization, propagation, layer combination, transformation, quantizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels.rotations import itq, random_rotation
from l2q.models.graph import Propagation
from l2q.options import Count, Whole, checked
from l2q.representations import Representations, Rows

Initialization = Callable[[Interactions, int, int], tuple[np.ndarray, np.ndarray]]


class Encoder(nn.Module):
    """Layer-wise graph convolution whose layers, or their mean, are quantized.

        E^(l+1) = A_hat E^(l),   l = 0 .. num_layers - 1
        mean:    X = sum_l w_l E^(l)          one segment   (LightGCN; last-layer quantization)
        concat:  X = [w_l X^(l)]_l            one segment per layer   (L2Q-GCN, L2Q-GCN-anl)
                 X^(0) = E^(0),    X^(l) = E^(l) + residual X^(l-1)
             or  X^(l) = E^(l) + mixing sum_(k != l) E^(k)
        values:  w_s quantizer(X_s W_s)

    The score of a mean has the products of every layer with every other one. A concatenation lacks them: its score
    multiplies each layer with itself. A ``residual`` above 0 brings the products with earlier layers back, ``mixing``
    those with all layers: with 1 every segment has the sum of the layers, under a rotation of its own.

    A_hat is the normalised adjacency without self loops. Float values are propagated, never codes. W_s is the identity,
    a fixed random rotation per segment, a learned orthogonal matrix, or the ITQ rotation of the start. Without a
    quantizer a rotation leaves every score unchanged. Layer 0 has a rotation, too: its start looks the same in every
    direction, but Adam's steps do not. A random rotation of ``rotation_blocks`` = B has a block of its own for each Bth
    part of the columns: what mixes fewer columns can be shared by processes. None and 1 are one block.

    ``initialization(train, dim, seed)`` returns the two sides of E^(0). ``layer_weights`` None: each w is
    1 / (num_layers + 1) for ``mean`` and 1 for ``concat``; "learned" weights start there. ``residual`` and
    ``mixing`` None are 0. ``seed`` fixes initialization and rotations.

    The length of an item's row is how much its popularity counts in a ranking. ``popularity`` None leaves it as it was
    trained; a number e gives ``encode`` rows of length degree^e, with degree the item's number of train users: by the
    scales of codes, by the values of a float model. Training never sees it.

    Source: He et al. 2020 (LightGCN); Chen et al. 2021, arXiv 2112.01944 (reconstruction).
    """

    @checked("model")
    def __init__(
        self,
        train: Interactions,
        propagation: Propagation,
        quantizer: nn.Module,
        initialization: Initialization,
        *,
        embedding_dim: Count,
        num_layers: Whole,
        combination: Literal["mean", "concat"],
        layer_weights: list[float] | Literal["learned"] | None,
        residual: float | None = None,
        mixing: Annotated[float, Ge(0), Le(1)] | None = None,
        popularity: Annotated[float, Ge(-1), Le(1)] | None = None,
        transform: Literal["identity", "rotation", "itq", "learned"],
        rotation_blocks: Count | None = None,
        seed: Whole,
    ) -> None:
        super().__init__()
        learned = layer_weights == "learned"
        if layer_weights is not None and not learned and len(layer_weights) != num_layers + 1:
            raise L2QError(
                f"model.layer_weights has {len(layer_weights)} values; "
                f"num_layers={num_layers} needs {num_layers + 1}"
            )
        for name, value in (("residual", residual), ("mixing", mixing)):
            if value and combination == "mean":
                raise L2QError(f"model.{name}={value} needs model.combination=concat")
        if residual and mixing:
            raise L2QError(
                f"model.mixing={mixing} has all layers, so it needs model.residual=0, not {residual}"
            )
        if popularity is not None and getattr(quantizer, "scales", "row") == "none":
            raise L2QError(
                f"model.popularity={popularity} needs scales to stand in; set model.quantizer.scales=row"
            )
        if rotation_blocks is not None and (transform != "rotation" or embedding_dim % rotation_blocks):
            raise L2QError(
                f"model.rotation_blocks={rotation_blocks} needs model.transform=rotation, not {transform}, and a "
                f"number that divides model.embedding_dim={embedding_dim}"
            )
        self.rotation_blocks = rotation_blocks
        users, items = initialization(train, embedding_dim, seed)
        self.num_users, self.num_items = train.num_users, train.num_items
        self.num_layers, self.combination = num_layers, combination
        self.residual, self.mixing = residual, mixing
        self.popularity, self.item_degrees = popularity, train.item_degrees
        self.embeddings = nn.Parameter(torch.from_numpy(np.concatenate([users, items]).astype(np.float32)))
        self.propagation = propagation
        self.quantizer = quantizer
        default = 1 / (num_layers + 1) if combination == "mean" else 1.0
        weights = [default] * (num_layers + 1) if learned or layer_weights is None else layer_weights
        # fixed ones are plain numbers: reading a tensor would wait for a GPU at every step
        self.layer_weights = nn.Parameter(torch.tensor(weights)) if learned else tuple(map(float, weights))
        self.num_segments = 1 if combination == "mean" else num_layers + 1
        self.transforms = nn.ModuleList()  # ITQ is of the segments without one
        self.transforms = self._transform(transform, seed)

    first_block = 0
    """The number of the first of ``rotation_blocks``, where others are elsewhere."""

    def _transform(self, name: str, seed: int) -> nn.ModuleList:
        dim = self.embeddings.shape[1]
        if name == "identity":
            return nn.ModuleList()
        if self.rotation_blocks is not None:
            width = dim // self.rotation_blocks
            # one of several blocks depends on its number alone; the first is what a single block of its width is
            rngs = [
                np.random.default_rng([seed, width, self.first_block + number])
                for number in range(self.rotation_blocks)
            ]
            return nn.ModuleList(
                BlockRotation([random_rotation(width, rng) for rng in rngs]) for _ in range(self.num_segments)
            )
        rng = np.random.default_rng([seed, dim])
        if name == "itq":
            with torch.no_grad():
                rotations = [itq(x.numpy(), rng=rng) for x in self.segments()]
        else:
            rotations = [random_rotation(dim, rng) for _ in range(self.num_segments)]
        linears = nn.ModuleList()
        for rotation in rotations:
            linear = nn.Linear(dim, dim, bias=False)
            linear.weight = nn.Parameter(
                torch.from_numpy(rotation.T.astype(np.float32).copy()), name == "learned"
            )
            if name == "learned":  # Cayley: runs take .6 of the time of the matrix exponential's
                parametrizations.orthogonal(linear, orthogonal_map="cayley")
            linears.append(linear)
        return linears

    @property
    def segment_weights(self) -> Tensor | tuple[float, ...]:
        """Each segment's factor on one side; the score carries its square."""
        return self.layer_weights if self.combination == "concat" else (1.0,)

    def segments(self, nodes: Tensor | None = None) -> list[Tensor]:
        """The float layers before quantization, (rows, dim) each, of all nodes or of ``nodes`` alone.

        For ``nodes`` the last hop computes only these rows, and its backward starts from them only.
        """
        rows = list(self.propagation.layers(self.embeddings, self.num_layers, nodes))
        if self.combination == "mean":
            total = rows[0] * self.layer_weights[0]
            for weight, row in zip(self.layer_weights[1:], rows[1:], strict=True):
                fixed = isinstance(weight, float)
                total = total.add(row, alpha=weight) if fixed else total.addcmul(row, weight)
            rows = [total]
        elif self.residual:
            for layer in range(1, len(rows)):
                rows[layer] = rows[layer].add(rows[layer - 1], alpha=self.residual)
        elif self.mixing == 1:
            rows = [sum(rows[1:], rows[0])] * len(rows)
        elif self.mixing:
            mixed = sum(rows[1:], rows[0]) * self.mixing
            rows = [mixed.add(row, alpha=1 - self.mixing) for row in rows]
        return [self.transforms[s](row) for s, row in enumerate(rows)] if self.transforms else rows

    def forward(self, nodes: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Values whose inner products are the training scores, (rows, segments * dim): soft or hard, as
        the quantizer's strength says, times scales and layer weights."""
        values = [self.quantizer(x, generator) for x in self.segments(nodes)]
        weighted = zip(values, self.segment_weights, strict=True)
        return torch.cat([v if isinstance(w, float) and w == 1 else v * w for v, w in weighted], dim=1)

    @torch.no_grad()
    def encode(self) -> Representations:
        """Hard codes (or float values, for the float model) of all rows, whatever the strength."""
        found = self._encoded()
        if self.popularity is None:
            return found
        return found.with_item_lengths(np.maximum(self.item_degrees, 1.0) ** self.popularity)

    def _encoded(self) -> Representations:
        encode: Callable[[Tensor], tuple[Tensor, Tensor | None]] = self.quantizer.encode  # type: ignore[assignment]
        codes, scales = zip(*map(encode, self.segments()), strict=True)
        values = torch.cat(codes, dim=1).cpu().numpy()
        factors = None if scales[0] is None else torch.cat(scales, dim=1).float().cpu().numpy()
        if factors is not None and not np.isfinite(factors).all():
            raise L2QError("scales are beyond the range of model.quantizer.scale_dtype; take float32")
        m, alone = self.num_users, self.num_segments == 1
        return Representations(
            # a single segment's user scale is a positive factor of the row: its ranking stays
            users=Rows(values[:m], None if factors is None or alone else factors[:m]),
            items=Rows(values[m:], None if factors is None else factors[m:]),
            dims=(self.embeddings.shape[1],) * self.num_segments,
            weights=torch.as_tensor(self.segment_weights).square().cpu().numpy(),
            scale_dtype=getattr(self.quantizer, "scale_dtype", None) or "float32",
        )


class BlockRotation(nn.Module):
    """x (rows, B b) times an orthogonal block-diagonal matrix: ``weight`` (B, b, b), fixed."""

    def __init__(self, blocks: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(np.stack(blocks)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.weight.shape[1], dim=1)
        return torch.cat([part @ block for part, block in zip(parts, self.weight, strict=True)], dim=1)
