"""Annealing: curves from progress p in [0, 1] to strength t in [0, 1], float at 0 and hard codes at 1.

p = ``end`` times the share of the epochs that are done. With an end below 1 the trained model stays soft, by most
curves. With an end above 1 its codes are hard from the share 1 / end on. What is measured and exported is hard at any
time.

The relaxation, in ``quantizers``, says how a strength softens the codes. Under tanh the slope is
beta = t / (1 - t), so a linear curve raises beta slowly at first and without bound at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from annotated_types import Ge, Le, Lt

from l2q.errors import L2QError
from l2q.models.quantizers import RELAXATIONS
from l2q.options import Count, OneOf, Positive, Share, options


def constant(p: float) -> float:
    """t = 1: hard codes from the first step on."""
    return 1.0


def linear(p: float) -> float:
    """t = p."""
    return p


def cosine(p: float) -> float:
    """t = (1 - cos(pi p)) / 2: slow at both ends (after Loshchilov and Hutter, "SGDR", 2017)."""
    return (1 - math.cos(math.pi * p)) / 2


def geometric(p: float, hold: float, minimum: float) -> float:
    """t = 1 - T, T = 1 until p = hold, then minimum^((p - hold) / (1 - hold)).

    The temperature T waits, then is multiplied by the same factor at every step until ``minimum``; the codes
    are hard at p = 1 (after an unused schedule in BiGeaR's code, Chen et al., 2022).
    """
    return 1 - minimum ** (max(p - hold, 0.0) / (1 - hold))


def hashnet(p: float, stages: int) -> float:
    """t = sqrt(floor(stages p) / stages): equal stages whose strength grows as a square root.

    After the continuation of Cao et al., "HashNet", 2017, which raises the slope of tanh so.
    """
    return math.sqrt(math.floor(stages * p) / stages)


def step(p: float, switch: float) -> float:
    """t = 0 until p = switch, then 1: a float model first, then its codes."""
    return float(p >= switch)


CURVES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "constant": (constant, ()),
    "linear": (linear, ()),
    "cosine": (cosine, ()),
    "geometric": (geometric, ("hold", "minimum")),
    "hashnet": (hashnet, ("stages",)),
    "step": (step, ("switch",)),
}


@options("annealing")
class Annealing:
    """A curve with a relaxation, from p = 0 to p = ``end`` over all epochs.

    Every curve but the constant one needs ``end``. ``hold`` and ``minimum`` belong to the geometric curve, ``stages``
    to hashnet, ``switch`` to step. Raises L2QError for an unknown curve or relaxation, and for a parameter that is
    missing or outside its range.

    >>> Annealing(name="linear", curve="linear", relaxation="tanh", end=1.0).strength(0.25)
    0.25
    """

    name: str
    curve: Annotated[str, OneOf(CURVES)]
    relaxation: Annotated[str, OneOf(RELAXATIONS)]
    end: Positive | None = None
    hold: Annotated[float, Ge(0), Lt(1)] | None = None
    minimum: Share | None = None
    stages: Count | None = None
    switch: Annotated[float, Ge(0), Le(1)] | None = None

    def __post_init__(self) -> None:
        for name in ("end", *CURVES[self.curve][1]) if self.curve != "constant" else ():
            if getattr(self, name) is None:
                raise L2QError(f"annealing.{name} is not given; annealing.curve={self.curve} needs it")

    def finished(self, share: float) -> bool:
        """Whether nothing changes any more once ``share`` of the epochs are done."""
        return self.curve == "constant" or self._progress(share) >= 1

    def strength(self, share: float) -> float:
        """t after ``share`` >= 0 of the epochs; exactly 1 from p = 1 on."""
        if self.finished(share):
            return 1.0
        curve, parameters = CURVES[self.curve]
        return curve(self._progress(share), **{name: getattr(self, name) for name in parameters})

    def _progress(self, share: float) -> float:
        assert self.end is not None
        return self.end * share
