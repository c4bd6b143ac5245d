"""What ``effort=fast`` does otherwise than ``effort=best``: the same choice and the same fit in a tenth of the time.

- The teacher is chosen on fewer users where the catalogue is large, and all tries that share products are made in one
  pass. A decomposition starts from that of nearly the same matrix, and has no more directions than are asked for.
- Embeddings are trained in a quarter of the batches against a quarter of the items. Those of all of train go on from
  those of the choice.
- The tail of the filter ends at the directions at hand where data is so dense that all of it would take hours.

Seconds and quality of both stand in docs/results/fitting.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from l2q import exchange
from l2q.evaluation import deciding_cutoff
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.fitted.parts import NOWHERE, Parts, once
from l2q.fitted.teacher import CosineEmbeddings, Made, Teacher
from l2q.fitted.tuning import FILTERS, GAIN, ROUNDS, _filters, _weights, held_out, nothing_held, tried_weight
from l2q.interactions import Interactions, normalize, power
from l2q.kernels import rows
from l2q.kernels.svd import SVD, svd_in_parts
from l2q.kernels.trials import recall_and_ndcg
from l2q.progress import Progress

log = logging.getLogger("l2q")
log_tries = logging.getLogger("l2q.file")

ASKED, SCORES = 4000, 2**26  # users of the choice at most, and scores of theirs in one matrix (256 MiB)
RANKS = tuple(int(values["rank"]) for values in FILTERS[0])
PASSES = (
    1e12  # pairs that the tails of all users may pass; MovieLens-1M has 10^10, 25 million dense events 10^13
)
BROAD = SpectralFilter.rank
KEPT = 2**28  # numbers in decompositions that are at hand for later tries (1 GiB)
NARROW = 256  # directions of the base at most
FIRST, NEXT = 3, 1  # power iterations of the first decomposition, and of those that start from another


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


class Trials:
    """Recall + NDCG of teachers on the items that ``held`` keeps back of the users ``asked``; those that are fitted to
    are ``part``. Teachers that share products are tried in one pass over them."""

    def __init__(
        self,
        part: Interactions,
        held: Interactions,
        asked: np.ndarray,
        learned: tuple[np.ndarray, np.ndarray] | None,
        temperature: float,
        seed: int,
    ) -> None:
        self.part, self.held, self.asked, self.seed = part, held, asked, seed
        self.ended = tail_ends(part)
        self.k = deciding_cutoff(part.num_items)
        self.most = min(part.num_users, part.num_items)
        self.tried: dict[Teacher, float] = {}
        self.svds: dict[tuple[float, float], SVD] = {}
        self._own = asked[rows.own(len(asked), 1)]  # of which this process has the scores
        self._nothing = np.empty((len(self._own), 0), np.float32)
        self._E = self._nothing
        self._tails: dict[tuple[float, float], np.ndarray] = {}
        if learned is not None:
            X, Y = learned
            E = rows.scores(X[asked], Y[rows.own(len(Y))], len(Y))
            E -= 1
            E /= np.float32(2 * temperature)
            np.exp(E, out=E)
            E /= np.linalg.norm(E, axis=1, keepdims=True)
            self._E = E

    def __call__(self, line: Sequence[Teacher]) -> dict[Teacher, float]:
        """The quality of each: Recall + NDCG, of teachers without embeddings times ``GAIN``."""
        groups: dict[tuple[float, float, int], list[Teacher]] = {}
        for teacher in line:
            if teacher not in self.tried:
                filter = teacher.filter
                groups.setdefault((filter.gamma_user, filter.gamma_item, filter.rank), []).append(teacher)
        for group in sorted(groups, key=lambda group: -group[-1]):  # a decomposition serves lower ranks too
            teachers = list(dict.fromkeys(groups[group]))
            for teacher, quality in zip(teachers, self.by_user(teachers).mean(axis=0), strict=True):
                self.tried[teacher] = float(quality)
                log_tries.info(
                    f"teacher try {len(self.tried)}: Recall + NDCG {quality:.4f} with {teacher.filter}, "
                    f"weight {teacher.embeddings.weight:g} of embeddings"
                )
        return {teacher: self._weighed(teacher) for teacher in line}

    @property
    def best(self) -> Teacher:
        """Of all that were tried; the first of equals. A line may have left a better one behind."""
        return max(self.tried, key=self._weighed)

    def _weighed(self, teacher: Teacher) -> float:
        return self.tried[teacher] * (1 if teacher.embeddings.weight else GAIN)

    def decomposed(self, filter: SpectralFilter) -> SVD:
        """As many directions of the part's interactions as the filter has, or more: the own rows of them."""
        gammas = filter.gamma_user, filter.gamma_item
        rank = min(max(filter.rank, BROAD if self.ended else 0), self.most)
        at_hand = self.svds.get(gammas)
        if at_hand is None or len(at_hand[1]) < rank:
            start, iterations = None, FIRST
            if self.svds:
                other, (U, s, V) = max(self.svds.items(), key=lambda found: len(found[1][1]))
                users, items = (rows.own(size) for size in (self.part.num_users, self.part.num_items))
                start = (
                    U * power(self.part.user_weights, other[0] - gammas[0])[users, None],
                    V * power(self.part.item_weights, other[1] - gammas[1])[items, None],
                )
                iterations = NEXT if len(s) >= rank else FIRST
            self.svds[gammas] = svd_in_parts(
                normalize(self.part, *gammas), rank, self.seed, iterations, start
            )
            self._forget(gammas)
        return self.svds[gammas]

    def _forget(self, newest: tuple[float, float]) -> None:
        """Of decompositions with more than ``KEPT`` numbers the oldest, but for the newest and that of the best."""
        best = self.best.filter if self.tried else None
        needed = {newest} if best is None else {newest, (best.gamma_user, best.gamma_item)}
        for gammas in [gammas for gammas in self.svds if gammas not in needed]:
            width = self.part.num_users + self.part.num_items  # of all processes
            if sum(len(s) * width for _, s, _ in self.svds.values()) > KEPT:
                del self.svds[gammas]

    def by_user(self, teachers: Sequence[Teacher]) -> np.ndarray:
        """Recall + NDCG of every user who is asked, (asked, teachers); their filters share gammas and rank."""
        return exchange.joined(self._tried(teachers))

    def _tried(self, teachers: Sequence[Teacher]) -> np.ndarray:
        """The same of the users of this process."""
        filter = teachers[0].filter
        U, s, V = self.decomposed(filter)
        own = rows.own(self.part.num_users)
        U = exchange.joined(U[self.asked[(self.asked >= own.start) & (self.asked < own.stop)] - own.start])
        scores = partial(rows.scores, size=self.part.num_items)
        curves = [teacher.filter.curve(s, self.most) for teacher in teachers]
        h, shares = curves[0][0], np.array([factor for _, factor in curves], np.float32)
        beyond = slice(len(h), None if self.ended else len(h))
        outside = U[:, beyond] * s[beyond] ** 3, V[:, beyond]
        U, s, V = U[:, : len(h)], s[: len(h)], V[:, : len(h)]
        B = self._nothing
        if self.ended:
            A = scores(U * h, V)
            if outside[1].shape[1] and shares.any():
                B = scores(*outside)
        elif len(set(shares)) == 1:
            A = scores(U * (h - shares[0] * s**3), V)
            if shares[0]:
                B = self._tail(filter)
        else:
            tail = self._tail(filter)
            A, B = scores(U * h, V), scores(U * s**3, V)
            np.subtract(tail, B, out=B)
        degrees = np.stack([power(self.part.item_weights, one.filter.popularity) for one in teachers])
        weights = np.array([one.embeddings.weight for one in teachers], np.float32)
        known, held = _rows(self.part, self._own), _rows(self.held, self._own)
        return recall_and_ndcg(A, B, shares, degrees, self._E, weights, *known, *held, self.k)

    def _tail(self, filter: SpectralFilter) -> np.ndarray:
        """R_hat R_hat^T R_hat of the users of this process, (users, N)."""
        gammas = filter.gamma_user, filter.gamma_item
        if gammas not in self._tails:
            self._tails = {}
            R_hat = normalize(self.part, *gammas)
            none = [np.zeros((size, 1), np.float32) for size in R_hat.shape]
            h, ones = np.zeros(1, np.float32), np.ones(R_hat.shape[1], np.float32)
            hops = FilterScores(none[0], h, h, none[1], R_hat, R_hat.T.tocsr(), ones, 1.0)
            self._tails[gammas] = hops.scores(self._own, len(self.asked))
        return self._tails[gammas]


def tail_ends(train: Interactions) -> bool:
    """Whether the filter's tail ends at the ``BROAD`` directions at hand: its three hops for every user would pass more
    than ``PASSES`` pairs."""
    # a user reaches the users of all own items, and then all items of these
    second = np.bincount(train.users, train.item_degrees[train.items], train.num_users)
    reached = np.minimum(second, train.num_users) * (len(train) / max(train.num_users, 1))
    return bool(reached.sum() > PASSES)


def _rows(interactions: Interactions, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compressed rows of some users: where each begins, and their items."""
    lengths = interactions.user_degrees[users]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(indptr[-1]) + np.repeat(interactions.indptr[users] - indptr[:-1], lengths)
    return indptr, interactions.items[places]
