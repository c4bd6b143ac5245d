"""What ``effort=fast`` does otherwise than ``effort=best``: the same choice and the same fit in a tenth of the time.

- The teacher is chosen on fewer users where there are many. A decomposition starts from that of nearly the same matrix,
  and has no more directions than are asked for.
- Embeddings are trained in a quarter of the batches against a quarter of the items. Those of all of train go on from
  those of the choice.
- The tail of the filter ends at the directions at hand where data is so dense that all of it would take hours.

Seconds and quality of both stand in docs/results/fitting.md.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from l2q.fitted.filter import SpectralFilter
from l2q.fitted.parts import NOWHERE, Parts, once
from l2q.fitted.teacher import CosineEmbeddings, Made, Teacher
from l2q.fitted.trials import BROAD, FIRST, NEXT, SCORES, Trials
from l2q.fitted.tuning import FILTERS, ROUNDS, _filters, _weights, held_out, nothing_held, tried_weight
from l2q.interactions import Interactions, normalize
from l2q.kernels import rows
from l2q.kernels.svd import svd_in_parts
from l2q.progress import Progress

log = logging.getLogger("l2q")

ASKED = 4000  # users of the choice at most
RANKS = tuple(int(values["rank"]) for values in FILTERS[0])
NARROW = 256  # directions of the base at most


@dataclass(frozen=True, eq=False)
class Choice:
    """The ``teacher``, and what there is to go on from: ``directions``, about the singular vectors of users and items,
    own rows, and ``learned`` embeddings, which have ``left`` of a quick training before them. None: nothing is at hand.
    ``ended``: see ``SpectralFilter.__call__``."""

    teacher: Teacher
    directions: tuple[np.ndarray, np.ndarray] | None = None
    learned: tuple[np.ndarray, np.ndarray] | None = None
    ended: bool = False
    left: float = 0.25

    def make(self, train: Interactions, seed: int, progress: Progress | None = None) -> Made:
        """As ``Teacher.make``, of all of train, with the own rows of the decomposition."""
        filter, embeddings = self.teacher.filter, self.teacher.embeddings
        rank = min(max(filter.rank, BROAD if self.ended else 0), train.num_users, train.num_items)
        R_hat = normalize(train, filter.gamma_user, filter.gamma_item)
        iterations = FIRST if self.directions is None else NEXT + 1
        svd = svd_in_parts(R_hat, rank, seed, iterations, self.directions)
        learned = None
        if embeddings.weight:
            learned = embeddings.quick(1.0 if self.learned is None else self.left)(
                train, seed, progress, self.learned
            )
        return svd, learned


def choose_quickly(
    train: Interactions,
    *,
    embeddings: CosineEmbeddings,
    filter: SpectralFilter | None = None,
    how: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    parts: Parts = NOWHERE,
) -> Choice:
    """As ``tuning.choose_teacher``, in less time."""
    weight = embeddings.weight
    best = Teacher(filter or SpectralFilter(), replace(embeddings, weight=weight or 0.0))
    if filter is not None and weight is not None:
        return Choice(best)
    part, held, how = held_out(train, how, seed, most_asked(train))
    if not len(held):
        log.warning(nothing_held(how))
        return Choice(best)
    weight = tried_weight(weight, how)
    users = np.flatnonzero(held.user_degrees)
    learned = None
    if weight != 0:
        learned = once(parts, "embeddings", lambda: embeddings.quick()(part, seed, progress))
    trials = Trials(part, held, users, learned, embeddings.temperature, seed)
    most = min(train.num_users, train.num_items)
    for number in range(ROUNDS):
        for line in FILTERS if filter is None else ():
            candidates = _filters(line, most, best)
            if number and line is FILTERS[0]:  # lower ranks come with the decomposition of this one
                place = min(range(len(RANKS)), key=lambda at: abs(RANKS[at] - best.filter.rank))
                candidates = candidates[: place + 2]
                if weight is None:  # without embeddings another rank may be right
                    candidates += [
                        replace(one, embeddings=replace(one.embeddings, weight=0.0)) for one in candidates
                    ]
            trials(candidates)
            best = trials.best
        if weight is None:
            trials(_weights(best))
            best = trials.best
        if progress is not None:
            progress(number + 1, ROUNDS, "choosing the teacher")
    log.info(
        f"chosen on a {how} validation part of train, {len(trials.tried)} tries: {best.filter}, "
        f"weight {best.embeddings.weight:g} of embeddings; Recall + NDCG {trials.tried.get(best, 0):.4f}"
    )
    U, _, V = trials.decomposed(best.filter)
    return Choice(best, (U, V), learned if best.embeddings.weight else None, trials.ended)


def most_asked(train: Interactions) -> int:
    """As many users as ``Trials`` take."""
    return min(ASKED, SCORES // train.num_items)


def strongest(base: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The ``NARROW`` directions of X (M, r) and Y (N, r) that say most, by |X_k| |Y_k|, in their order. The lists
    decide the rankings; the base says what all other items have, for which these are enough.

    >>> X, Y = np.ones((1, 300)), np.arange(300.0)[None]
    >>> strongest((X, Y))[1][0, [0, -1]]
    array([ 44., 299.])
    """
    X, Y = base
    if X.shape[1] <= NARROW:
        return base
    lengths = (np.sqrt(rows.sums(side * side)) for side in base)
    kept = np.sort(np.argsort(-math.prod(lengths))[:NARROW])
    return np.ascontiguousarray(X[:, kept]), np.ascontiguousarray(Y[:, kept])
