"""Distillation: the scores of a float teacher in place of train pairs are what a model is trained on."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from l2q.errors import L2QError
from l2q.fitted.filter import FilterScores
from l2q.fitted.l2q_plus import L2QPlus
from l2q.interactions import Interactions
from l2q.kernels.pairs import pair_scores
from l2q.kernels.top_lists import heads
from l2q.models.columns import ALL_COLUMNS
from l2q.models.losses import Batch, l2
from l2q.options import NotNegative, checked


class Distillation(nn.Module):
    """Squared error of a user's scores of all items against a teacher's, the top of the ranking weighted, with L2 on
    layer 0.

        f_u  = sum_i (s_ui - a_u <x_u, y_i>)^2 + w sum_(j in L_u) (t_uj - a_u <x_u, y_j>)^2
        loss = mean_u f_u / (sum_i s_ui^2 + w sum_j t_uj^2)  +  l2 / 2 (|e_u|^2 + |e_i|^2) / batch

    over the users of a batch and all items i. The teacher is that of a ``L2QPlus``, chosen as it chooses. s is the part
    of low rank of its filter, so that the first sum costs Gram matrices, and no scores of users x items. L_u are the
    ``teacher.length`` best items by the whole teacher that u does not have, with their scores t. ``weight`` is w; None:
    N / (4 length). a_u is the least-squares factor, which no ranking has: it makes f_u smallest, so the gradient may
    take it for a constant.

    ``learn_from`` comes first. Source: f is what ``l2q.fitted.descent`` minimizes bit by bit, here for gradients. To
    train codes on the ranking of a float model is after Chen et al., "BiGeaR", KDD 2022.
    """

    all_items = True
    """The loss takes rows of all users and items, whatever the batch has."""
    candidates = 0

    @checked("objective")
    def __init__(
        self,
        *,
        l2: NotNegative,
        teacher: L2QPlus,
        weight: NotNegative | None,
    ):
        super().__init__()
        self.l2, self.teacher, self.weight = l2, teacher, weight
        self.columns = ALL_COLUMNS
        self.lists: sparse.csr_array | None = None
        self.X_base: Tensor
        self.Y_base: Tensor
        self.squares: Tensor
        for name in ("X_base", "Y_base", "squares"):
            self.register_buffer(name, None, persistent=False)

    def learn_from(self, train: Interactions, seed: int) -> FilterScores:
        """Fits the teacher to ``train`` and takes what it says of every user; the scores of its filter."""
        lesson = self.teacher.teach(train, seed)
        self.take(lesson.base, heads(lesson.ranking, self.teacher.length))
        return lesson.scores.filter

    def take(self, base: tuple[np.ndarray, np.ndarray], lists: sparse.csr_array) -> None:
        """``base``: X (M, r) and Y (N, r), whose products are s; ``lists``: t in compressed rows, (M, N)."""
        self.lists = lists
        self.X_base, self.Y_base = (torch.from_numpy(np.ascontiguousarray(side)) for side in base)
        self.squares = (self.X_base @ (self.Y_base.T @ self.Y_base)).mul_(self.X_base).sum(1)
        if self.weight is None:
            longest = int(np.diff(lists.indptr).max(initial=1))
            self.list_weight = lists.shape[1] / (4 * max(longest, 1))
        else:
            self.list_weight = self.weight

    def forward(self, X: Tensor, Y: Tensor, batch: Batch, E_users: Tensor, E_items: Tensor) -> Tensor:
        """As ``BPR.forward``, with rows of all users and items."""
        if self.lists is None:
            raise L2QError("objective: learn_from(train, seed) comes before a distillation's first batch")
        users = torch.unique(batch.users)
        lists = self.lists[users.cpu().numpy()]
        counts = torch.from_numpy(np.diff(lists.indptr)).to(X.device)
        rows = torch.repeat_interleave(torch.arange(len(users), device=X.device), counts)
        items = torch.from_numpy(lists.indices.astype(np.int64)).to(X.device)
        targets = torch.from_numpy(lists.data).to(X)
        X, X_base, squares = (_rows(side, users) for side in (X, self.X_base.to(X), self.squares.to(X)))
        along, lengths = _BaseProducts.apply(X, Y, X_base, self.Y_base.to(X))
        scores = pair_scores(X, Y, rows, items)
        w = self.list_weight

        def by_user(values: Tensor) -> Tensor:
            return torch.zeros_like(squares).index_add(0, rows, values)

        with torch.no_grad():
            tiny = torch.finfo(X.dtype).tiny
            factors = along + w * by_user(targets * scores)
            factors /= (lengths + w * by_user(scores.square())).clamp_(min=tiny)
            whole = (squares + w * by_user(targets.square())).clamp_(min=tiny)
        errors = squares - 2 * factors * along + factors.square() * lengths
        errors = errors + w * by_user((targets - factors[rows] * scores).square())
        penalty = l2(E_users, batch.users) + l2(E_items, batch.pos_items) if self.l2 else 0
        return (errors / whole).mean() + self.l2 / len(batch.users) * penalty


class _BaseProducts(torch.autograd.Function):
    """sum_i s_ui <x_u, y_i> and sum_i <x_u, y_i>^2 of every user, (n,) both, for s = X_base Y_base^T:

        C = Y_base^T Y,  G = Y^T Y:     <X_base_u C, x_u>,    <x_u G, x_u>

    Each product of a whole side is made once, forward and backward together.
    """

    @staticmethod
    def forward(ctx, X: Tensor, Y: Tensor, X_base: Tensor, Y_base: Tensor) -> tuple[Tensor, Tensor]:
        base, own = X_base @ (Y_base.T @ Y), X @ (Y.T @ Y)
        ctx.save_for_backward(X, Y, X_base, Y_base, base, own)
        return torch.linalg.vecdot(base, X), torch.linalg.vecdot(own, X)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_along: Tensor, d_lengths: Tensor):
        X, Y, X_base, Y_base, base, own = ctx.saved_tensors
        along, lengths = d_along.unsqueeze(1), d_lengths.unsqueeze(1)
        dX = torch.addcmul(along * base, lengths, own, value=2)
        dC, dG = X_base.T @ (along * X), X.T @ (lengths * X)
        return dX, torch.addmm(Y_base @ dC, Y, dG, alpha=2), None, None


def _rows(side: Tensor, users: Tensor) -> Tensor:
    """side[users] of distinct ascending users, without a copy where these are all."""
    return side if len(users) == len(side) else side[users]
