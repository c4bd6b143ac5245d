"""What codes of ``l2q_plus`` are fitted to: a spectral filter beside trained embeddings.

    S = S_filter / |S_filter| + weight E / |E|,    E_ui = exp(cos(x_u, y_i) / (2 temperature)),    norms by user

The filter knows what follows from the interactions at once, the embeddings what a loss that ranks can learn from
them; each is better than the other for many users, and together they are better than both (docs/results/l2q-plus.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Lt
from scipy import sparse
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, normalize

from l2q import processes
from l2q.fitted.baselines import spectral
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.interactions import Interactions
from l2q.kernels import dense, rows
from l2q.kernels.selection import top_items
from l2q.kernels.svd import SVD
from l2q.options import Count, NotNegative, Positive, Whole, options
from l2q.progress import Progress
from l2q.representations import Rows

BATCH, BATCHES = 8192, 16  # a small set's batches are as many, and smaller
QUICK = 0.25  # of the steps, in a quick training
Made = tuple[SVD, tuple[np.ndarray, np.ndarray] | None]
"""What a teacher is made of: its filter's decomposition, and the embeddings of users and items where they weigh."""


@options("model.embeddings")
class CosineEmbeddings:
    """Embeddings x_u, y_i of ``dim`` columns and unit length, trained by a softmax over sampled items:

        loss = -mean log [e^(x_u y_i / t) / (e^(x_u y_i / t) + sum_n e^(x_u y_n / t))],    t = ``temperature``

    over train pairs (u, i) and up to ``negatives`` items n which a batch shares, by Adam in ``steps`` batches of up to
    8,192 pairs, with a cosine curve of the rate. The start is a truncated SVD. ``weight`` is theirs beside a filter
    (``Teacher``); None: chosen on validation where there is a choice, else 0.

    Source: Wu et al., "On the effectiveness of sampled softmax loss for item recommendation", TOIS 2024.
    """

    weight: NotNegative | None
    dim: Count
    # below .02 the float32 exponentials of the softmax would overflow
    temperature: Annotated[float, Ge(0.02), Lt(float("inf"))]
    steps: Whole
    negatives: Count
    learning_rate: Positive

    def quick(self, left: float = 1.0) -> CosineEmbeddings:
        """With a quarter of the steps and of the negatives at two and a half times the rate, which ranks as well
        (docs/results/fitting.md). ``left``: of the steps, for rows that have some behind them; the rate falls with its
        root."""
        share, rate = QUICK * left, 2.5 * left**0.5
        return replace(
            self,
            steps=math.ceil(share * self.steps),
            negatives=math.ceil(self.negatives / 4),
            learning_rate=rate * self.learning_rate,
        )

    def __call__(
        self,
        train: Interactions,
        seed: int,
        progress: Progress | None = None,
        start_from: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(M, dim) and (N, dim) float32, rows of unit length; fewer columns where the data has fewer. ``start_from``:
        rows of an earlier training in the place of the SVD. Of several processes one trains."""
        rank = min(self.dim, train.num_users, train.num_items)
        start = np.concatenate(spectral(train, rank, seed) if start_from is None else start_from)
        return processes.said(lambda: self._trained(start, train, seed, progress))

    def _trained(
        self, start: np.ndarray, train: Interactions, seed: int, progress: Progress | None
    ) -> tuple[np.ndarray, np.ndarray]:
        rng, num_users, num_items = np.random.default_rng(seed), train.num_users, train.num_items
        # rows that the SVD leaves at zero need a direction; 0.1 fits the rate, the length of a row has no effect
        start *= 0.1 / max(start.std(), 1e-12)
        start += 0.01 * rng.standard_normal(start.shape, dtype=np.float32)
        E = torch.from_numpy(start).requires_grad_()
        optimizer = torch.optim.Adam([E], lr=self.learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(self.steps, 1))
        batch = min(BATCH, -(-len(train) // BATCHES))
        users, items = train.users, train.items
        order, place = rng.permutation(len(train)), 0
        sums = None if train.weights is None else np.cumsum(train.weights, dtype=np.float64)
        for step in range(self.steps if len(train) else 0):
            if sums is not None:  # drawn as often as they weigh
                pairs = np.searchsorted(sums[:-1], rng.random(batch) * sums[-1], "right")
            else:
                if place >= len(order):
                    order, place = rng.permutation(len(train)), 0
                pairs, place = order[place : place + batch], place + batch
            u, i = (torch.from_numpy(side[pairs].astype(np.int64)) for side in (users, items))
            n = torch.from_numpy(rng.choice(num_items, min(self.negatives, num_items), replace=False))
            # the rows that take part, gathered at once
            X, P, Q = normalize(embedding(torch.cat([u, num_users + i, num_users + n]), E), dim=1).split(
                [len(u), len(i), len(n)]
            )
            loss = _Softmax.apply(X / self.temperature, P, Q, *_same(i, n, num_items))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if progress is not None:
                progress(step + 1, self.steps, "embeddings")
        unit = normalize(E.detach(), dim=1).numpy()
        unit[:num_users][train.user_degrees == 0] = 0  # never trained: no say beside the filter
        return unit[:num_users], unit[num_users:]


class _Softmax(torch.autograd.Function):
    """-mean log softmax of the scores <X_b, P_b> and X Q^T with its gradient at once, without a check against
    overflow: one exponential and five passes over (batch, negatives) less. ``rows``, ``columns``: negatives that are
    their row's own positive and do not count."""

    @staticmethod
    def forward(ctx, X: Tensor, P: Tensor, Q: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        positive = torch.linalg.vecdot(X, P)
        shares = (X @ Q.T).exp_()
        shares[rows, columns] = 0
        own = positive.exp()
        total = shares.sum(1).add_(own)
        shares.div_(total.mul(len(X)).unsqueeze(1))
        weight = (own / total - 1).div_(len(X)).unsqueeze(1)
        ctx.save_for_backward((shares @ Q).addcmul_(P, weight), weight * X, shares.T @ X)
        return (total.log() - positive).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        return *(grad * saved for saved in ctx.saved_tensors), None, None


def _same(items: Tensor, negatives: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the entries with items[row] = negatives[column]; negatives are distinct."""
    columns = torch.full((num_items,), -1)
    columns[negatives] = torch.arange(len(negatives))
    rows = (columns[items] >= 0).nonzero().squeeze(1)
    return rows, columns[items[rows]]


@dataclass(frozen=True)
class Teacher:
    """A filter and, where their weight is above 0, embeddings beside it."""

    filter: SpectralFilter
    embeddings: CosineEmbeddings

    def __call__(self, train: Interactions, seed: int, progress: Progress | None = None) -> TeacherScores:
        svd, learned = self.make(train, seed, progress)
        return self.scores(self.filter(train, seed, svd), learned)

    def make(self, train: Interactions, seed: int, progress: Progress | None = None) -> Made:
        """What takes long."""
        learned = self.embeddings(train, seed, progress) if self.embeddings.weight else None
        return self.filter.decompose(train, seed), learned

    def scores(
        self, filter_scores: FilterScores, learned: tuple[np.ndarray, np.ndarray] | None
    ) -> TeacherScores:
        """Of parts at hand: what ``filter`` gives and, where they have a weight, what ``embeddings`` give."""
        if not self.embeddings.weight or learned is None:
            return TeacherScores(filter_scores)
        X, Y = learned
        temperature = np.float32(2 * self.embeddings.temperature)
        return TeacherScores(filter_scores, X / temperature, Y, self.embeddings.weight)


@dataclass(frozen=True, eq=False)
class TeacherScores:
    """The scores S of a ``Teacher``, computed by blocks of users; ``X`` is over 2 temperature."""

    filter: FilterScores
    X: np.ndarray | None = None
    Y: np.ndarray | None = None
    weight: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """(M, N)"""
        return self.filter.shape

    def scores(self, users: slice | np.ndarray) -> np.ndarray:
        """S of some users up to a factor of each, (users, N) float32."""
        S = self.filter.scores(users)
        return S if self.X is None else self._add(S, _norms(S), users)

    def ranking(
        self, exclude: Interactions, length: int, progress: Progress | None = None, measured: int = 0
    ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], sparse.csr_array]:
        """As ``FilterScores.ranking``: the base is the filter's, the lists are S's."""
        return self.filter.ranking(exclude, length, progress, None if self.X is None else self._add, measured)

    def _add(self, S: np.ndarray, norms: np.ndarray, users: slice | np.ndarray) -> np.ndarray:
        """S / norms + weight E / |E|, in S."""
        assert self.X is not None
        assert self.Y is not None
        sums = torch.from_numpy(S)
        # cosines are at most 1: the exponential of what is below the bound cannot overflow, whatever the temperature
        E = torch.from_numpy(dense.product(self.X[users], self.Y.T))
        E = E.sub_(E.amax(1, keepdim=True)).exp_()
        factor = self.weight / torch.linalg.vector_norm(E, dim=1, keepdim=True)
        sums.div_(torch.from_numpy(norms).unsqueeze(1)).addcmul_(E, factor)
        return S


def _norms(S: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(np.vecdot(S, S)), 1e-12)


class TeacherIndex:
    """A teacher's float scores behind the search protocol.

    ``lists`` are each user's best items in order, at hand from a fit: a user is scored anew only where the list,
    without what a search excludes, is shorter than it asks for. The values of a list are its targets. Several
    processes ask together: each answers for its own users, and all have all answers.
    """

    def __init__(self, scores: TeacherScores, lists: sparse.csr_array | None = None) -> None:
        self.scores, self.lists = scores, lists
        self.num_users, self.num_items = scores.shape

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(users, np.ndarray)
        own = rows.own(self.num_users)
        here = np.flatnonzero((users >= own.start) & (users < own.stop))
        values, items = np.full((len(users), k), -np.inf, np.float32), np.full((len(users), k), -1, np.int32)
        short = here
        if self.lists is not None:
            short = self._look_up(users, here, own.start, exclude, values, items)
        if processes.anywhere(len(short)):
            whole = replace(self.scores, filter=self.scores.filter.with_all_items())
            values[short], items[short] = processes.agreed(lambda: _best(whole, users[short], k, exclude))
        for places, *found in processes.everyone((here, values[here], items[here])):
            values[places], items[places] = found
        return values, items

    def _look_up(
        self,
        users: np.ndarray,
        here: np.ndarray,
        first: int,
        exclude: Interactions | None,
        values: np.ndarray,
        items: np.ndarray,
    ) -> np.ndarray:
        """Writes what the lists say of the users ``here``; which of them have too few items."""
        lists, k, short = self.lists, items.shape[1], []
        assert lists is not None
        for row in here:
            user = users[row]
            listed = slice(*lists.indptr[user - first : user - first + 2])
            kept = slice(None) if exclude is None else ~np.isin(lists.indices[listed], exclude[user])
            best = lists.indices[listed][kept][:k]
            items[row, : len(best)], values[row, : len(best)] = best, lists.data[listed][kept][:k]
            if len(best) < k:
                short.append(row)
        return np.array(short, np.intp)


def _best(
    scores: TeacherScores, users: np.ndarray, k: int, exclude: Interactions | None
) -> tuple[np.ndarray, np.ndarray]:
    S = scores.scores(users)
    if exclude is not None:
        for row, user in enumerate(users):
            S[row, exclude[user]] = -np.inf
    items, values = top_items(S, k)
    return values, items
