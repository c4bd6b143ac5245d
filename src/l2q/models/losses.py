"""Objectives: what a batch of (user, positive item, negative items) costs."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding, normalize, softplus

from l2q.errors import L2QError
from l2q.kernels.log_sums import log_sums
from l2q.kernels.pairs import pair_scores
from l2q.models.columns import ALL_COLUMNS, AllColumns
from l2q.options import Count, NotNegative, Positive, checked


class Batch(NamedTuple):
    """What a loss scores, as row numbers: ``users`` have ``pos_items``, (batch,) both; ``neg_items`` is
    (candidates * batch,), a negative for every pair, then for every pair another, ... ``pos_shares`` (batch,) is the
    share of all train pairs that have the positive item."""

    users: Tensor
    pos_items: Tensor
    neg_items: Tensor
    pos_shares: Tensor


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """mean_b softplus(negative_b - positive_b) of scores (batch,) (Rendle et al., "BPR", 2009)."""
    return softplus(negative - positive).mean()


def softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """-mean_b log(exp(p_b) / (exp(p_b) + exp(n_b))) of scores p and logarithms n of summed exponentials, (batch,)."""
    return bpr(positive, negatives)  # -log(e^p / (e^p + e^n)) = softplus(n - p)


@torch.no_grad()
def hardest(X: Tensor, Y: Tensor, users: Tensor, items: Tensor, columns: AllColumns = ALL_COLUMNS) -> Tensor:
    """Each user's candidate with the highest score <X[user], Y[item]>, (batch,); the first among equals.

    ``items`` (candidates * batch,) holds one candidate of every user, then a second one of every user, and so on.
    """
    number = len(items) // len(users)
    scores = columns.total(pair_scores(X, Y, users.repeat(number), items)).view(number, -1)
    return items.view(number, -1).gather(0, scores.argmax(0, keepdim=True)).squeeze(0)


def l2(embeddings: Tensor, rows: Tensor) -> Tensor:
    """1/2 sum_b |embeddings[rows_b]|^2; rows may repeat. The (batch, d) copy is never made."""
    return _HalfSquares.apply(embeddings, rows)


class _HalfSquares(torch.autograd.Function):
    """1/2 sum_r c_r |E_r|^2, c_r how often row r occurs; dE_r = c_r E_r."""

    @staticmethod
    def forward(ctx, embeddings: Tensor, rows: Tensor) -> Tensor:
        counts = torch.bincount(rows, minlength=len(embeddings)).to(embeddings.dtype)
        ctx.save_for_backward(embeddings, counts)
        return torch.linalg.vector_norm(embeddings, dim=1).square_().dot(counts).div_(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        embeddings, counts = ctx.saved_tensors
        return embeddings * (grad * counts).unsqueeze(1), None


class Temperature(nn.Module):
    """What scores are multiplied by before the loss sees them: t, or t / sqrt(D) for codes without scales.

    A score of D signs reaches D and would saturate softplus. The score of D random signs has standard deviation
    sqrt(D), so "none", the quantizer's option ``scales`` for codes without scales, divides by it. The ranking does not
    change. A learned temperature starts at ``temperature`` and moves on a log scale.
    """

    def __init__(self, temperature: float, learn_temperature: bool, scales: str | None):
        super().__init__()
        self.by_width = scales == "none"
        log_temperature = torch.tensor(math.log(temperature))
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)

    def forward(self, width: int) -> Tensor:
        """The factor for scores over ``width`` = D values."""
        return self.log_temperature.exp() / math.sqrt(width if self.by_width else 1)


class BPR(nn.Module):
    """Bayesian personalised ranking with L2 on layer 0.

    bpr(t score(user, pos), t score(user, neg)) + l2 / 2 (|e_u|^2 + |e_i|^2 + |e_j|^2) / batch

    Every pair has ``candidates`` negatives. The hardest of them counts: the one that the model scores highest (dynamic
    negative sampling: Zhang et al., "Optimizing top-N collaborative filtering", SIGIR 2013).
    """

    @checked("objective")
    def __init__(
        self,
        *,
        l2: NotNegative,
        temperature: Positive,
        learn_temperature: bool,
        candidates: Count,
        scales: str | None,
    ):
        super().__init__()
        self.l2 = l2
        self.candidates = candidates
        self.columns = ALL_COLUMNS
        self.temperature = Temperature(temperature, learn_temperature, scales)

    def forward(self, X: Tensor, Y: Tensor, batch: Batch, E_users: Tensor, E_items: Tensor) -> Tensor:
        """Inner products of X (users, D) and Y (items, D) are the scores. L2 is on layer 0, E_users and E_items."""
        users, pos_items, neg_items, _ = batch
        columns = self.columns
        if self.candidates > 1:
            neg_items = hardest(X, Y, users, neg_items, columns)
        factor = self.temperature(X.shape[1] * columns.parts)
        items = torch.cat([pos_items, neg_items])
        # scored at once: the backward goes once instead of twice over the pairs, and over X and Y
        scores = columns.total(pair_scores(X, Y, users.repeat(2), items))
        positive, negative = (factor * scores).chunk(2)
        squares = columns.total(l2(E_users, users) + l2(E_items, items))
        return bpr(positive, negative) + self.l2 / len(users) * squares


class Softmax(nn.Module):
    """Softmax of each positive against negatives that the whole batch shares, with L2 on layer 0.

        p_b = s(u_b, i_b) / t,    n_b = log sum_j exp(s(u_b, j) / t)
        softmax(p, n) + l2 / 2 (|e_u|^2 + |e_i|^2) / batch

    over all items j of the batch, as often as they occur, but those that its pairs give to u_b. With ``num_negatives``
    j are items drawn uniformly instead: as many of the batch's negatives, which then have L2, too.

    s is the ``similarity``: the cosine of the rows, or their inner product. Rankings are by inner products, whatever a
    model is trained with.

    A batch has an item as often as it is popular, which lowers its s / t by log Q, with Q its share of the train pairs.
    ``correct_popularity`` takes s / t - log Q in place of s / t, of positives and negatives (Yi et al., 2019). Items
    that are drawn uniformly have one Q, which cancels.

    ``bilateral`` = w turns softmax(p, n) into mean_b (w n_b - p_b) (Wu et al., "BSL", ICDE 2024, by its code).

    Source: Wu et al., "On the effectiveness of sampled softmax loss for item recommendation", TOIS 2024.
    """

    @checked("objective")
    def __init__(
        self,
        *,
        l2: NotNegative,
        similarity: Literal["cosine", "inner"],
        temperature: Positive,
        learn_temperature: bool,
        num_negatives: Count | None,
        correct_popularity: bool,
        bilateral: Positive | None,
        scales: str | None,
    ):
        super().__init__()
        if correct_popularity and num_negatives is not None:
            raise L2QError(
                f"objective.correct_popularity=true needs objective.num_negatives=null, not {num_negatives}: items "
                "that are drawn uniformly have nothing to correct"
            )
        self.l2, self.similarity, self.num_negatives = l2, similarity, num_negatives
        self.columns = ALL_COLUMNS
        self.correct_popularity, self.bilateral = correct_popularity, bilateral
        self.candidates = 0 if num_negatives is None else 1
        # a cosine does not grow with the width
        self.temperature = Temperature(
            1 / temperature, learn_temperature, scales if similarity == "inner" else None
        )

    def forward(self, X: Tensor, Y: Tensor, batch: Batch, E_users: Tensor, E_items: Tensor) -> Tensor:
        """As ``BPR.forward``."""
        users, pos_items, neg_items, pos_shares = batch
        neg_items = neg_items[: self.num_negatives or 0]
        columns = self.columns
        factor = self.temperature(X.shape[1] * columns.parts)
        if self.similarity == "cosine":
            X, Y = _unit_rows(X, columns), _unit_rows(Y, columns)
        positive = factor * columns.total(pair_scores(X, Y, users, pos_items))
        own = self.num_negatives is None
        items, counts = torch.unique(pos_items if own else neg_items, return_counts=True)
        places = torch.searchsorted(items, pos_items).clamp_(max=len(items) - 1)
        bias = counts.to(X.dtype).log_()
        if self.correct_popularity:
            log_q = pos_shares.to(X.dtype).log()
            positive = positive - log_q
            bias[places] -= log_q
        distinct, rows = torch.unique(users, return_inverse=True)
        present = items[places] == pos_items
        left_out = rows[present], places[present]
        total = None if columns.parts == 1 else columns.total
        sums = log_sums(
            columns.spread(factor) * _rows(X, distinct), _rows(Y, items), bias, *left_out, total=total
        )
        negatives = sums[rows]
        squares = columns.total(l2(E_users, users) + l2(E_items, torch.cat([pos_items, neg_items])))
        return self._loss(positive, negatives) + self.l2 / len(users) * squares

    def _loss(self, positive: Tensor, negatives: Tensor) -> Tensor:
        if self.bilateral is None:
            return softmax(positive, negatives)
        costs = self.bilateral * negatives - positive
        return torch.where(negatives.isinf(), 0, costs).mean()  # without negatives there is nothing to learn


def _unit_rows(X: Tensor, columns: AllColumns) -> Tensor:
    """Rows of length 1, over the columns of all parts; one of zeros stays so."""
    if columns.parts == 1:
        return normalize(X, dim=1)
    lengths = columns.total(X.square().sum(1, keepdim=True)).sqrt()
    return X / columns.spread(lengths.clamp(min=1e-12))  # as in normalize


def _rows(X: Tensor, rows: Tensor) -> Tensor:
    """X[rows] of distinct ascending rows, without a copy where these are all."""
    return X if len(rows) == len(X) else embedding(rows, X)
