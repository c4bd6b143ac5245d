"""Objectives: what a batch of (user, positive item, negative items) costs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from l2q.kernels.pairs import pair_scores
from l2q.options import Count, NotNegative, Positive, checked


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """mean_b softplus(negative_b - positive_b) of scores (batch,) (Rendle et al., "BPR", 2009)."""
    return softplus(negative - positive).mean()


def sampled_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """-mean_b log(exp(p_b) / (exp(p_b) + sum_k exp(n_bk))) of scores p (batch,), n (batch, negatives).

    A negative of -inf does not count. There is no correction by log Q, the sampling probability (Yi et al.,
    2019): negatives drawn uniformly all have the same Q, and it cancels when the positive is corrected alike.
    """
    # -log(e^p / (e^p + e^n)) = softplus(n - p), with n the log of the summed negatives
    return bpr(positive, torch.logsumexp(negatives, dim=1))


@torch.no_grad()
def hardest(X: Tensor, Y: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """Each user's candidate with the highest score <X[user], Y[item]>, (batch,); the first among equals.

    ``items`` (candidates * batch,) holds one candidate of every user, then a second one of every user, and so on.
    """
    number = len(items) // len(users)
    scores = pair_scores(X, Y, users.repeat(number), items).view(number, -1)
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
        self.temperature = Temperature(temperature, learn_temperature, scales)

    def forward(
        self, X: Tensor, Y: Tensor, batch: tuple[Tensor, Tensor, Tensor], E_users: Tensor, E_items: Tensor
    ) -> Tensor:
        """Loss of ``batch`` = (users, pos_items, neg_items): (batch,), (batch,) and (candidates * batch,) row numbers.

        Inner products of X (users, D) and Y (items, D) are the scores. L2 is on layer 0, E_users and E_items.
        """
        users, pos_items, neg_items = batch
        if self.candidates > 1:
            neg_items = hardest(X, Y, users, neg_items)
        factor = self.temperature(X.shape[1])
        items = torch.cat([pos_items, neg_items])
        # scored at once: the backward goes once instead of twice over the pairs, and over X and Y
        positive, negative = (factor * pair_scores(X, Y, users.repeat(2), items)).chunk(2)
        squares = l2(E_users, users) + l2(E_items, items)
        return bpr(positive, negative) + self.l2 / len(users) * squares


class SampledSoftmax(nn.Module):
    """Softmax of each positive against negatives that the whole batch shares, with L2 on layer 0.

    The first ``num_negatives`` of the batch's negative items serve all its users, so that their scores are one dense
    product. A smaller batch has fewer negatives. Where one of them is a user's own positive, it does not count.
    """

    @checked("objective")
    def __init__(
        self,
        *,
        l2: NotNegative,
        temperature: Positive,
        learn_temperature: bool,
        num_negatives: Count,
        scales: str | None,
    ):
        super().__init__()
        self.l2 = l2
        self.num_negatives = num_negatives
        self.temperature = Temperature(temperature, learn_temperature, scales)

    def forward(
        self, X: Tensor, Y: Tensor, batch: tuple[Tensor, Tensor, Tensor], E_users: Tensor, E_items: Tensor
    ) -> Tensor:
        """As ``BPR.forward``."""
        users, pos_items, neg_items = batch
        neg_items = neg_items[: self.num_negatives]
        factor = self.temperature(X.shape[1])
        positive = factor * pair_scores(X, Y, users, pos_items)
        negatives = (factor * X[users]) @ Y[neg_items].T  # (batch, num_negatives)
        negatives.masked_fill_(pos_items.unsqueeze(1) == neg_items, -torch.inf)
        squares = l2(E_users, users) + l2(E_items, torch.cat([pos_items, neg_items]))
        return sampled_softmax(positive, negatives) + self.l2 / len(users) * squares
