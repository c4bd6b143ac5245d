"""Teachers tried on held-out items, those that share products in one pass over them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from l2q import exchange
from l2q.evaluation import deciding_cutoff
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.fitted.teacher import Teacher
from l2q.interactions import Interactions, normalize, power
from l2q.kernels import rows
from l2q.kernels.svd import SVD, svd_in_parts
from l2q.kernels.trials import recall_and_ndcg

log_tries = logging.getLogger("l2q.file")  # some 40 lines, which nobody waits for

SCORES = 2**26  # in one matrix of users who are asked (256 MiB)
PASSES = (
    1e12  # pairs that the tails of all users may pass; MovieLens-1M has 10^10, 25 million dense events 10^13
)
BROAD = SpectralFilter.rank
KEPT = 2**28  # numbers in decompositions that are at hand for later tries (1 GiB)
FIRST, NEXT = 3, 1  # power iterations of the first decomposition, and of those that start from another
GAIN = 1.01  # that embeddings must bring to be trained: less is within the noise of a small validation part


class Trials:
    """Recall + NDCG of teachers on the items that ``held`` keeps back of the users ``asked``; those that are fitted to
    are ``part``. ``whole``: every decomposition is as good as that of a fit, and the tail has all directions."""

    def __init__(
        self,
        part: Interactions,
        held: Interactions,
        asked: np.ndarray,
        learned: tuple[np.ndarray, np.ndarray] | None,
        temperature: float,
        seed: int,
        whole: bool = False,
    ) -> None:
        self.part, self.held, self.asked, self.seed, self.whole = part, held, asked, seed, whole
        self.ended = not whole and tail_ends(part)
        self.k = deciding_cutoff(part.num_items)
        self.most = min(part.num_users, part.num_items)
        self.tried: dict[Teacher, float] = {}
        self.svds: dict[tuple[float, float], SVD] = {}
        self._learned, self._temperature = learned, temperature
        self._products: dict[str, tuple[tuple[object, ...], np.ndarray]] = {}

    def __call__(self, line: Sequence[Teacher]) -> dict[Teacher, float]:
        """The quality of each: Recall + NDCG, of teachers without embeddings times ``GAIN``."""
        for teachers in alike([teacher for teacher in line if teacher not in self.tried]):
            for teacher, quality in zip(teachers, self.by_user(teachers).mean(axis=0), strict=True):
                self.tried[teacher] = float(quality)
                log_try(len(self.tried), teacher, quality)
        return {teacher: self._weighed(teacher) for teacher in line}

    @property
    def best(self) -> Teacher:
        """Of all that were tried; the first of equals. A line may have left a better one behind."""
        return max(self.tried, key=self._weighed)

    def _weighed(self, teacher: Teacher) -> float:
        return weighed(teacher, self.tried[teacher])

    def asking(self, users: np.ndarray) -> Trials:
        """The same of other users, with the decompositions of this one."""
        trials = Trials(self.part, self.held, users, self._learned, self._temperature, self.seed, self.whole)
        trials.svds = self.svds
        return trials

    def decomposed(self, filter: SpectralFilter) -> SVD:
        """As many directions of the part's interactions as the filter has, or more: the own rows of them."""
        gammas = filter.gamma_user, filter.gamma_item
        rank = min(max(filter.rank, BROAD if self.ended or self.whole else 0), self.most)
        at_hand = self.svds.get(gammas)
        if at_hand is None or len(at_hand[1]) < rank:
            R_hat = normalize(self.part, *gammas)
            if self.whole:
                self.svds[gammas] = svd_in_parts(R_hat, rank, self.seed)
            else:
                self.svds[gammas] = svd_in_parts(R_hat, rank, self.seed, *self._start(gammas, rank))
            self._forget(gammas)
        return self.svds[gammas]

    def _start(
        self, gammas: tuple[float, float], rank: int
    ) -> tuple[int, tuple[np.ndarray, np.ndarray] | None]:
        """How many power iterations, and from where."""
        if not self.svds:
            return FIRST, None
        other, (U, s, V) = max(self.svds.items(), key=lambda found: len(found[1][1]))
        users, items = (rows.own(size) for size in (self.part.num_users, self.part.num_items))
        start = (
            U * power(self.part.user_weights, other[0] - gammas[0])[users, None],
            V * power(self.part.item_weights, other[1] - gammas[1])[items, None],
        )
        return NEXT if len(s) >= rank else FIRST, start

    def _forget(self, newest: tuple[float, float]) -> None:
        """Of decompositions with more than ``KEPT`` numbers the oldest, but for the newest and that of the best."""
        best = self.best.filter if self.tried else None
        needed = {newest} if best is None else {newest, (best.gamma_user, best.gamma_item)}
        for gammas in [gammas for gammas in self.svds if gammas not in needed]:
            width = self.part.num_users + self.part.num_items  # of all processes
            if sum(len(s) * width for _, s, _ in self.svds.values()) > KEPT:
                del self.svds[gammas]

    def by_user(self, teachers: Sequence[Teacher]) -> np.ndarray:
        """Recall + NDCG of every user who is asked, (asked, teachers); their filters are ``alike``."""
        ranks = sorted(
            {teacher.filter.rank for teacher in teachers}, reverse=True
        )  # the highest serves the lower
        found = np.empty((len(self.asked), len(teachers)))
        at_once = max(SCORES // self.part.num_items, 1)
        for first in range(0, len(self.asked), at_once):
            users = slice(first, first + at_once)
            for rank in ranks:
                places = [place for place, one in enumerate(teachers) if one.filter.rank == rank]
                some = self._tried([teachers[place] for place in places], self.asked[users])
                found[users, places] = exchange.joined(some)
        return found

    def _tried(self, teachers: Sequence[Teacher], asked: np.ndarray) -> np.ndarray:
        """Of the users ``asked`` who are this process's; all filters have the same rank."""
        filter = teachers[0].filter
        U, s, V = self.decomposed(filter)
        own, mine = rows.own(self.part.num_users), asked[rows.own(len(asked), 1)]
        U = exchange.joined(U[asked[(asked >= own.start) & (asked < own.stop)] - own.start])
        scores = partial(rows.scores, size=self.part.num_items)
        curves = [teacher.filter.curve(s, self.most) for teacher in teachers]
        h, shares = curves[0][0], np.array([factor for _, factor in curves], np.float32)
        beyond = slice(len(h), None if self.ended else len(h))
        outside = U[:, beyond] * s[beyond] ** 3, V[:, beyond]
        U, s, V = U[:, : len(h)], s[: len(h)], V[:, : len(h)]
        B = E = np.empty((len(mine), 0), np.float32)
        if self.ended:
            A = scores(U * h, V)
            if outside[1].shape[1] and shares.any():
                B = scores(*outside)
        elif len(set(shares)) == 1:
            A = scores(U * (h - shares[0] * s**3), V)
            if shares[0]:
                B = self._tail(filter, asked)
        else:
            A, B = scores(U * h, V), scores(U * s**3, V)
            np.subtract(self._tail(filter, asked), B, out=B)
        degrees = np.stack([power(self.part.item_weights, one.filter.popularity) for one in teachers])
        weights = np.array([one.embeddings.weight for one in teachers], np.float32)
        if weights.any():
            E = self._embedded(asked)
        known, held = _rows(self.part, mine), _rows(self.held, mine)
        return recall_and_ndcg(A, B, shares, degrees, E, weights, *known, *held, self.k)

    def _tail(self, filter: SpectralFilter, asked: np.ndarray) -> np.ndarray:
        """R_hat R_hat^T R_hat of those ``asked`` who are this process's, (users, N)."""
        gammas = filter.gamma_user, filter.gamma_item

        def make() -> np.ndarray:
            R_hat = normalize(self.part, *gammas)
            none = [np.zeros((size, 1), np.float32) for size in R_hat.shape]
            h, ones = np.zeros(1, np.float32), np.ones(R_hat.shape[1], np.float32)
            hops = FilterScores(none[0], h, h, none[1], R_hat, R_hat.T.tocsr(), ones, 1.0)
            return hops.scores(asked[rows.own(len(asked), 1)], len(asked))

        return self._latest("tail", (gammas, asked[0], len(asked)), make)

    def _embedded(self, asked: np.ndarray) -> np.ndarray:
        """E / |E| of the embeddings, of the same users, (users, N)."""

        def make() -> np.ndarray:
            assert self._learned is not None
            X, Y = self._learned
            E = rows.scores(X[asked], Y[rows.own(len(Y))], len(Y))
            E -= 1
            E /= np.float32(2 * self._temperature)
            np.exp(E, out=E)
            E /= np.linalg.norm(E, axis=1, keepdims=True)
            return E

        return self._latest("embeddings", (asked[0], len(asked)), make)

    def _latest(self, name: str, of: tuple[object, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The latest product of a name, where it is ``of`` the same; only one is kept."""
        if self._products.get(name, (None,))[0] != of:
            self._products.pop(name, None)
            self._products[name] = of, make()
        return self._products[name][1]


def alike(teachers: Sequence[Teacher]) -> list[list[Teacher]]:
    """By what one pass can try: filters with the same exponents."""
    groups: dict[tuple[float, float], list[Teacher]] = {}
    for teacher in dict.fromkeys(teachers):
        groups.setdefault((teacher.filter.gamma_user, teacher.filter.gamma_item), []).append(teacher)
    return list(groups.values())


def weighed(teacher: Teacher, quality: float) -> float:
    """By which teachers are compared."""
    return quality if teacher.embeddings.weight else GAIN * quality


def log_try(number: int, teacher: Teacher, quality: float) -> None:
    log_tries.info(
        f"teacher try {number}: Recall + NDCG {quality:.4f} with {teacher.filter}, "
        f"weight {teacher.embeddings.weight:g} of embeddings"
    )


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
