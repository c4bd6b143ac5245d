"""Quantizers: a row of floats becomes signs times one scale, with a gradient of its own.

    hard value   a sign(x),  sign(0) = +1,  a = ||x||_1 / d per row (or 1, without scales)

a sign(x) with this a is the best sign approximation of x in least squares (Rastegari et al., "XNOR-Net",
2016). The derivative of sign is zero almost everywhere; the backward pass puts a surrogate in its place.
Scales are constants in the backward pass, and no factor of it.

``strength`` t in [0, 1] leads from floats to codes. Every relaxation gives exactly x at t = 0 and exactly
a sign(x) at t = 1:

    tanh       a tanh(beta x / a) / tanh(beta),  beta = t / (1 - t)
    mixture    (1 - t) x + t a sign(x)
    guidance   each row is a sign(x) with probability t, else x (Tan et al., "HashGNN", 2020)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from l2q.models.columns import ALL_COLUMNS, AllColumns
from l2q.options import OneOf, Positive, checked

RELAXATIONS = ("tanh", "mixture", "guidance")


def sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1, in the dtype of x."""
    return torch.ge(x, 0).to(x.dtype).mul_(2).sub_(1)


def row_scale(x: Tensor, scale_dtype: torch.dtype | None = None, columns: AllColumns = ALL_COLUMNS) -> Tensor:
    """a = ||x||_1 / d of every row, (rows, 1) in the dtype of x, a constant. ``scale_dtype`` rounds it."""
    scale = columns.total(x.detach().abs().mean(dim=1, keepdim=True))
    if columns.parts > 1:
        scale /= columns.parts
    return scale if scale_dtype is None else scale.to(scale_dtype).to(x.dtype)


# Surrogate derivatives of sign at z. Each returns a fresh tensor of floats or, for zero and one, of booleans.
# None says that the derivative is one everywhere.


def straight_through(z: Tensor, clip: float) -> None:
    """1 (Bengio et al., 2013)."""


def clipped(z: Tensor, clip: float) -> Tensor:
    """1 where |z| <= clip, else 0 (Hubara et al., "Binarized Neural Networks", 2016)."""
    return z.abs() <= clip


def bireal(z: Tensor, clip: float) -> Tensor:
    """2 - 2 |z| inside |z| < 1, else 0 (Liu et al., "Bi-Real Net", 2018)."""
    return z.abs().mul_(-2).add_(2).clamp_(min=0)


def gaussian(z: Tensor, clip: float) -> Tensor:
    """exp(-z^2) / sqrt(pi), kept in [1e-8, 1]: a Gaussian for Dirac's delta (Chen et al., "BiGeaR", 2022)."""
    return z.square().neg_().exp_().div_(math.sqrt(math.pi)).clamp_(1e-8, 1)


def fourier(z: Tensor, clip: float, terms: int) -> Tensor:
    """sum over odd i < terms of (4 w / pi) cos(i w z), kept in [-1, 1] (Chen et al., "BGCH", 2023).

    The series of the square wave that is sign(z) on (-pi / w, pi / w). We take w = pi / (2 clip): the first
    tone then ends at |z| = clip, where the clipped surrogate ends too.
    """
    w = math.pi / (2 * clip)
    total = torch.zeros_like(z)
    for i in range(1, terms, 2):
        total += (z * (i * w)).cos_()
    return total.mul_(4 * w / math.pi).clamp_(-1, 1)


def tanh(z: Tensor, clip: float) -> Tensor:
    """1 - tanh(z)^2."""
    return z.tanh().square_().neg_().add_(1)


SURROGATES: dict[str, Callable[[Tensor, float], Tensor | None]] = {
    "ste": straight_through,
    "clipped": clipped,
    "bireal": bireal,
    "gaussian": gaussian,
    "fourier_2": partial(fourier, terms=2),
    "fourier_4": partial(fourier, terms=4),
    "fourier_8": partial(fourier, terms=8),
    "fourier_16": partial(fourier, terms=16),
    "tanh": tanh,
}


class _WithDerivative(torch.autograd.Function):
    """value, derivative = function(x); backward grad * derivative. Only the derivative is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor | None]]) -> Tensor:
        value, derivative = function(x)
        ctx.save_for_backward(derivative)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        (derivative,) = ctx.saved_tensors
        if derivative is None:
            return grad, None
        if derivative.dtype == torch.bool:  # where() needs no float copy of the mask
            return torch.where(derivative, grad, 0), None
        return grad * derivative, None


class Quantizer(nn.Module):
    """Signs of rows (rows, d), softened while ``strength`` < 1.

    ``estimator`` names the surrogate derivative. It stands for the derivative of the whole a sign(x), so the size of
    the scale does not change the gradient. It is taken at x, or with ``normalize`` at x / a, where a is the mean |x| of
    the row. ``clip`` is the width of the clipped and Fourier surrogates. ``scales`` "row" multiplies the signs by a,
    which ``scale_dtype`` rounds; "none" leaves them as they are. With ``normalize`` it puts x / a in place of x at
    every strength: a code without a scale has no length, so the soft row before it may have none either. The tanh
    relaxation needs no surrogate below strength 1: it has its own derivative.

    Raises L2QError for an unknown option.
    """

    @checked("model.quantizer")
    def __init__(
        self,
        *,
        estimator: Annotated[str, OneOf(SURROGATES)],
        normalize: bool = False,
        clip: Positive = 1.0,
        scales: Literal["none", "row"],
        scale_dtype: Literal["float16", "float32"] | None = None,
        relaxation: Annotated[str, OneOf(RELAXATIONS)],
    ):
        super().__init__()
        self.estimator = estimator
        self.normalize = normalize
        self.clip = clip
        self.scales = scales
        self.scale_dtype = scale_dtype
        self.relaxation = relaxation
        self.columns = ALL_COLUMNS
        self.strength = 1.0  # a plain number: reading a tensor would wait for a GPU at every step

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Values (rows, d) for training scores. Guidance between 0 and 1 draws rows from ``generator``."""
        strength = self.strength
        if self.normalize and self.scales == "none":
            scale = self._scale(x)
            x = x / scale.where(scale > 0, 1)
        if strength == 0:
            return x
        if strength == 1:
            return _WithDerivative.apply(x, self._hard)
        if self.relaxation == "tanh":
            return _WithDerivative.apply(x, partial(self._tanh, beta=strength / (1 - strength)))
        if self.relaxation == "mixture":
            return _WithDerivative.apply(x, partial(self._mixture, strength=strength))
        if generator is None:
            raise ValueError("guidance draws its rows from an explicit generator")
        draws = torch.rand(len(x), 1, generator=generator, device=generator.device)
        return _WithDerivative.apply(x, partial(self._guidance, soft=(draws >= strength).to(x.device)))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hard codes int8 (rows, d) and scales (rows, 1) or None, whatever the strength."""
        codes = torch.ge(x, 0).view(torch.int8).mul_(2).sub_(1)
        return codes, self._scale(x) if self.scales == "row" else None

    def _scale(self, x: Tensor) -> Tensor:
        return row_scale(x, self.scale_dtype and getattr(torch, self.scale_dtype), self.columns)

    def _hard(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        scaled = self.scales == "row"
        scale = self._scale(x) if scaled or self.normalize else x
        z = x / _positive(scale) if self.normalize else x
        value = sign(x)
        if scaled:
            value.mul_(scale)
        return value, SURROGATES[self.estimator](z, self.clip)

    def _mixture(self, x: Tensor, strength: float) -> tuple[Tensor, Tensor | None]:
        value, derivative = self._hard(x)
        if derivative is not None:  # (1 - t) 1 + t g
            derivative = derivative.to(x.dtype).mul_(strength).add_(1 - strength)
        return value.lerp_(x, 1 - strength), derivative

    def _guidance(self, x: Tensor, soft: Tensor) -> tuple[Tensor, Tensor | None]:
        value, derivative = self._hard(x)
        if derivative is not None:
            derivative.masked_fill_(soft, 1)
        return torch.where(soft, x, value), derivative

    def _tanh(self, x: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        scale = self._scale(x) if self.scales == "row" else torch.ones_like(x[:1, :1])
        value, slope = x.div(_positive(scale / beta)).tanh_(), beta / math.tanh(beta)
        derivative = torch.addcmul(x.new_full((), slope), value, value, value=-slope)  # slope (1 - tanh^2)
        return value.mul_(scale / math.tanh(beta)), derivative


class Identity(nn.Module):
    """The float model: nothing is quantized."""

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x

    def encode(self, x: Tensor) -> tuple[Tensor, None]:
        """Values float32 (rows, d), no scales."""
        return x.float(), None


def _positive(scale: Tensor) -> Tensor:
    # A row of zeros has scale 0: 0 / tiny = 0 where 0 / 0 would be NaN.
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)
