"""A short validation grid for a set that nobody tuned for: which spectral filter suits it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from l2q.data.interactions import Interactions
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.learning.datamodule import split_validation
from l2q.models.coordinate_descent import CoordinateDescent
from l2q.models.initialization import FittedCodes, steps
from l2q.models.spectral import SVD, FilterScores, SpectralFilter, normalize, truncated_svd
from l2q.models.top_lists import LENGTH, top_items
from l2q.representations import Rows

log = logging.getLogger("l2q")

GRID: tuple[tuple[dict[str, float], ...], ...] = (
    tuple({"rank": rank} for rank in (32, 64, 128, 256, 512, 768)),
    # what an item's degree weighs in all, popularity - gamma_item, is 0, -.15 or -.3
    tuple(
        {"gamma_item": gamma, "popularity": round(gamma - less, 2)}
        for gamma in (0.3, 0.4, 0.5)
        for less in (0.0, 0.15, 0.3)
    ),
    tuple({"tail": tail} for tail in (0.0, 0.2, 0.4, 0.8, 1.6)),
    tuple({"gamma_user": gamma} for gamma in (0.3, 0.5)),
)
FEW: tuple[dict[str, float], ...] = (
    {"rank": 4},
    {"rank": 8},
    {"rank": 16},
)  # of less than 128 users or items, too
ROUNDS = 2  # in the second, every line is tried beside the best of the others


class FilterIndex:
    """A filter's float scores behind the search protocol.

    ``lists`` are each user's best items in order, at hand from a fit: a user is scored anew only where the list,
    without what a search excludes, is shorter than it asks for. The values of a list are its targets.
    """

    def __init__(self, scores: FilterScores, lists: sparse.csr_array | None = None) -> None:
        self.scores, self.lists = scores, lists
        self.num_users, self.num_items = len(scores.U), len(scores.Y)

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(users, np.ndarray)
        if self.lists is not None:
            return self._search_lists(users, k, exclude)
        scores = self.scores.scores(users)
        if exclude is not None:
            for row, user in enumerate(users):
                scores[row, exclude[user]] = -np.inf
        items, values = top_items(scores, k)
        return values, items

    def _search_lists(
        self, users: np.ndarray, k: int, exclude: Interactions | None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert self.lists is not None
        values, items = np.full((len(users), k), -np.inf, np.float32), np.full((len(users), k), -1, np.int32)
        short = []
        for row, user in enumerate(users):
            listed = slice(*self.lists.indptr[user : user + 2])
            kept = slice(None) if exclude is None else ~np.isin(self.lists.indices[listed], exclude[user])
            best = self.lists.indices[listed][kept][:k]
            items[row, : len(best)], values[row, : len(best)] = best, self.lists.data[listed][kept][:k]
            if len(best) < k:
                short.append(row)
        if short:
            values[short], items[short] = FilterIndex(self.scores).search(users[short], k, exclude)
        return values, items


def choose_filter(
    train: Interactions, *, split: str = "random", sample: int = 4000, seed: int = 0
) -> SpectralFilter:
    """The best of ``GRID`` by Recall + NDCG at 20 (``deciding_cutoff``) on a tenth of train, one line of it after
    the other, twice over, for about ``sample`` users spread over all. Test plays no part. Every try is logged.
    Where no user has enough items for a validation part, the default filter."""
    fit, val = split_validation(train, split, 0.15 if split == "cluster" else 0.1, seed)
    users = np.flatnonzero(val.user_degrees)
    if not len(users):
        log.warning(
            f"no user has enough items for a {split} validation part that would choose the filter: the default one"
        )
        return SpectralFilter()
    chosen = np.isin(val.users, users[:: max(len(users) // sample, 1)])
    val = val.select(chosen)

    svds: dict[tuple[float, float], SVD] = {}
    tried: dict[SpectralFilter, float] = {}

    most = min(train.num_users, train.num_items)
    grid = ((*FEW, *GRID[0]), *GRID[1:]) if most < 128 else GRID

    def quality(candidate: SpectralFilter) -> float:
        if candidate not in tried:
            gammas = candidate.gamma_user, candidate.gamma_item
            if gammas not in svds:
                rank = min(SpectralFilter.rank, train.num_users, train.num_items)
                svds[gammas] = truncated_svd(normalize(fit, *gammas), rank, seed)
            index = FilterIndex(candidate(fit, seed, svds[gammas]))
            found = evaluate(index, val, [deciding_cutoff(train.num_items)], fit, memory_mb=256).metrics
            tried[candidate] = sum(
                value for key, value in found.items() if key.startswith(("recall", "ndcg"))
            )
            log.info(f"filter try {len(tried)}: {tried[candidate]:.4f} with {candidate}")
        return tried[candidate]

    best = SpectralFilter()
    with steps() as progress:
        for number, values in enumerate(grid * ROUNDS):
            candidates = (replace(best, **value) for value in values)  # type: ignore[arg-type]
            # ranks beyond the data's are all the same filter
            best = max((replace(c, rank=min(c.rank, most)) for c in candidates), key=quality)
            progress(number + 1, len(grid) * ROUNDS, "choosing the filter")
    log.info(f"filter chosen on a {split} validation part of train, {len(tried)} tries: {best}")
    return best


@dataclass(frozen=True)
class TunedCodes:
    """``FittedCodes`` of ``filter``; None: of the one that ``choose_filter`` picks on train alone."""

    filter: SpectralFilter | None = None
    split: str = "random"
    descent: CoordinateDescent = field(default_factory=CoordinateDescent)
    length: int = LENGTH

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        best = self.filter or choose_filter(train, split=self.split, seed=seed)
        return FittedCodes(best, self.descent, self.length)(train, dim, seed)
