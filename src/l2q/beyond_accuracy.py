"""What a ranking does beside being right: coverage, Gini, novelty, popularity lift, and whose items it finds.

Let L_u be the first K items of user u's ranking, c_i the number of users with i in L_u, I the catalogue, d_i the users
who have item i in train, U the users with train items, P_u the train items of user u, phi_i = d_i / |U|:

    coverage@K        = |{i: c_i > 0}| / |I|
    Gini@K            = sum_j (2 j - |I| - 1) c_(j) / ((|I| - 1) sum_i c_i),   c_(1) <= c_(2) <= ...
    novelty@K         = sum_i c_i (-log2 max(phi_i, 1 / |U|)) / sum_i c_i
    popularity lift@K = (GAP_q - GAP_p) / GAP_p
                        GAP_q = mean over users of mean_{i in L_u} phi_i
                        GAP_p = mean over users of mean_{i in P_u} phi_i

Gini runs over the whole catalogue: 0 where every item is recommended equally often, 1 where one item is all that
anybody gets. Novelty is in bits; an item that nobody has in train counts as one that a single user has. The lift is 0
where recommendations are as popular as what the same users have. Users without train items are left out of it.

    head, mid, tail recall@K              = Recall@K where only test items of that group count, mean over users with any
    heavy, medium, light users recall@K   = Recall@K, mean over users of that group

A third of train's interactions falls to each of three groups: with D_i the interactions of all items that are more
popular than item i, i is head for 3 D_i / sum D < 1, mid for < 2, else tail. So equally popular items stay together.
Users are divided likewise by how many train items they have.

Sources: coverage, Ge, Delgado-Battenfeld & Jannach, RecSys 2010; Gini, Shani & Gunawardana, Recommender Systems
Handbook, 2011; novelty, Zhou et al., PNAS 107, 2010; lift, Abdollahpouri, Mansoury, Burke & Mobasher, RecSys 2020;
groups with equal interactions: of users, Wang et al. (NGCF), SIGIR 2019; of items, Wu et al. (SGL), SIGIR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from l2q.interactions import Interactions

ITEM_GROUPS = ("head", "mid", "tail")
USER_GROUPS = ("heavy_users", "medium_users", "light_users")


def coverage(counts: np.ndarray) -> float:
    """The share of items that anybody gets; ``counts`` (num_items,) of how many users each is recommended to."""
    return float((counts > 0).mean())


def gini(counts: np.ndarray) -> float:
    """How unequally recommendations fall on the items, 0 to 1; 0 without any and for a single item."""
    size, total = len(counts), int(counts.sum())
    if size < 2 or not total:
        return 0.0
    weights = 2 * np.arange(1, size + 1, dtype=np.int64) - size - 1
    return int(weights @ np.sort(counts).astype(np.int64)) / ((size - 1) * total)


def novelty(counts: np.ndarray, degrees: np.ndarray, num_users: int) -> float:
    """Mean self-information of what is recommended, in bits; ``degrees`` (num_items,) users of each item in train, of
    ``num_users``."""
    bits = np.log2(num_users) - np.log2(np.maximum(degrees, 1))
    return float(counts @ bits / max(int(counts.sum()), 1))


def popularity_lift(recommended: np.ndarray, owned: np.ndarray) -> float:
    """By how much recommendations are more popular than what users have; mean popularities (n,) of each user's."""
    return float(recommended.mean() / owned.mean() - 1)


def thirds(degrees: np.ndarray) -> np.ndarray:
    """The group of each row, 0 for the largest degrees to 2, so that each holds a third of their sum; see above."""
    sizes, place = np.unique(degrees, return_inverse=True)
    sums = sizes * np.bincount(place, minlength=len(sizes))
    above = sums.sum() - sums.cumsum()  # of strictly larger degrees
    return np.minimum(3 * above // max(int(sums.sum()), 1), 2)[place]


class BeyondAccuracy(Metric):
    """The figures above of all batches and ranks, for users of ``test`` whose ``train`` items stay out of rankings.

    States are counts, which add up: batches and ranks change no figure by a bit.

        metric = BeyondAccuracy(train, test, [20])
        metric.update(users, items, hits)
        metric.compute()["coverage_20"]

    ``options`` are those of torchmetrics.
    """

    full_state_update = False
    recommended: Tensor
    seen: Tensor
    lengths: Tensor
    popularity: Tensor
    hits: Tensor

    def __init__(self, train: Interactions, test: Interactions, ks: Sequence[int], **options: Any):
        super().__init__(**options)
        self.train_part, self.ks = train, tuple(ks)
        num_users, groups = train.num_users, len(ITEM_GROUPS)
        self.degrees = train.item_degrees.astype(np.int64)
        self.item_groups, self.user_groups = thirds(self.degrees), thirds(train.user_degrees)
        owned = test.users.astype(np.int64) * groups + self.item_groups[test.items]
        self.relevant = np.bincount(owned, minlength=num_users * groups).reshape(num_users, groups)
        sizes = {
            "recommended": (len(self.ks), train.num_items),  # users whom an item is recommended to
            "seen": (num_users,),
            "lengths": (len(self.ks), num_users),  # of the rankings, without padding
            "popularity": (len(self.ks), num_users),  # sum of the degrees of recommended items
            "hits": (len(self.ks), num_users, groups),  # in each group of items
        }
        for name, size in sizes.items():
            self.add_state(name, torch.zeros(size, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, users, items, hits) -> None:
        """``users`` (n,), their ``items`` (n, depth) in rank order, -1 for padding, and which are ``hits``; arrays or
        tensors, depth at least the largest K."""
        users, items, hits = (np.asarray(torch.as_tensor(part).cpu()) for part in (users, items, hits))
        rows = torch.as_tensor(users, dtype=torch.int64, device=self.seen.device)
        self._add(self.seen, rows, np.ones(len(users), np.int64))
        there = items >= 0
        degrees = np.where(there, self.degrees[items], 0)
        for j, k in enumerate(self.ks):
            listed = items[:, :k][there[:, :k]]
            counts = np.bincount(listed, minlength=self.train_part.num_items)
            self.recommended[j] += torch.as_tensor(counts, device=self.seen.device)
            self._add(self.lengths[j], rows, there[:, :k].sum(axis=1))
            self._add(self.popularity[j], rows, degrees[:, :k].sum(axis=1))
            found, ranks = np.nonzero(hits[:, :k])
            group = self.item_groups[items[found, ranks]]
            size = len(ITEM_GROUPS)
            of_groups = np.bincount(found * size + group, minlength=len(users) * size).reshape(-1, size)
            self._add(self.hits[j], rows, of_groups)

    def _add(self, state: Tensor, rows: Tensor, values: np.ndarray) -> None:
        state.index_add_(0, rows, torch.as_tensor(values, device=state.device))

    def compute(self) -> dict[str, float]:
        """Every figure at every K: ``coverage_20``, ``gini_20``, ``novelty_20``, ``popularity_lift_20``,
        ``tail_recall_20``, ``light_users_recall_20``, ... One that has no user is left out."""
        train, found = self.train_part, {}
        seen = self.seen.cpu().numpy()
        num_users = max(int((train.user_degrees > 0).sum()), 1)
        owned = np.bincount(train.users, self.degrees[train.items], train.num_users)
        for j, k in enumerate(self.ks):
            counts, lengths = self.recommended[j].cpu().numpy(), self.lengths[j].cpu().numpy()
            found[f"coverage_{k}"] = coverage(counts)
            found[f"gini_{k}"] = gini(counts)
            found[f"novelty_{k}"] = novelty(counts, self.degrees, num_users)
            both = (lengths > 0) & (train.user_degrees > 0)
            if both.any():
                means = self.popularity[j].cpu().numpy()[both] / lengths[both]
                found[f"popularity_lift_{k}"] = popularity_lift(means, owned[both] / train.user_degrees[both])
            hits = self.hits[j].cpu().numpy()
            for group, name in enumerate(ITEM_GROUPS):
                found |= self._recall(f"{name}_recall_{k}", hits[:, group], self.relevant[:, group], seen)
            for group, name in enumerate(USER_GROUPS):
                chosen = np.where(self.user_groups == group, seen, 0)
                found |= self._recall(f"{name}_recall_{k}", hits.sum(1), self.relevant.sum(1), chosen)
        return found

    def _recall(self, key: str, hits: np.ndarray, relevant: np.ndarray, seen: np.ndarray) -> dict[str, float]:
        """The mean over users who were seen and have relevant items."""
        users = (seen > 0) & (relevant > 0)
        if not users.any():
            return {}
        return {key: float((hits[users] / (seen[users] * relevant[users])).mean())}
