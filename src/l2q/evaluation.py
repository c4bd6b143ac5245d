"""The only way to a figure: full ranking through an index, hits against held-out items, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import eq
from typing import Any, Protocol

import numpy as np

from l2q import processes, settings
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Rows

BYTES_PER_SCORE = 8  # for one user and item where the whole catalogue is scored: a float32, and as much again


def deciding_cutoff(num_items: int) -> int:
    """The k of the Recall@k that chooses an epoch or a filter: 20, in a small catalogue a quarter of it. Where k
    reaches what a user's train items leave of the catalogue, every ranking has Recall 1."""
    return max(min(20, num_items // 4), 1)


class Ranker(Protocol):
    """What ``evaluate`` asks of an index, ours or a wrapper around another library: the search of
    ``l2q.retrieval.index.Index`` by user ids."""

    @property
    def num_users(self) -> int: ...

    @property
    def num_items(self) -> int: ...

    def search(
        self, users: Any, k: int, exclude: Interactions | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a ranking gave its users.

    ``users`` (n,) are the ids of those with held-out items. ``per_user`` holds their metrics by name, float64 (n,)
    each. ``metrics`` holds the means: ``recall_20``, ``ndcg_20``, ``precision_20``, ``hit_rate_20``, ``mrr_20``.
    ``beyond`` holds what was asked for beside accuracy, such as ``coverage_20`` and ``tail_recall_20``.

        found = l2q.evaluate(index, test, ks=[20])
        found.metrics["ndcg_20"], found.per_user["ndcg_20"].std()
    """

    users: np.ndarray
    per_user: dict[str, np.ndarray]
    metrics: dict[str, float]
    beyond: dict[str, float] = field(default_factory=dict)


def evaluate(
    index: Ranker,
    interactions: Interactions,
    ks: Sequence[int],
    exclude: Interactions | None = None,
    memory_mb: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    beyond: Sequence[int] = (),
    fold_in: Callable[[Sequence[np.ndarray]], Rows] | None = None,
) -> Evaluation:
    """Ranks the whole catalogue for every user of ``interactions`` with items; users without are left out.

        l2q.evaluate(index, test, ks=[10, 20]).metrics["recall_20"]

    Items of ``exclude`` stay out of the rankings; None: the train items that the index itself keeps, if it does.

    Users of ``interactions.given`` (the split "users") are folded in: ``fold_in``, by default the index's own, makes
    query rows of what each is given, which stays out of the ranking.

    At the cut-offs of ``beyond``, coverage, Gini, novelty, popularity lift, and recall by popularity of items and
    activity of users are measured in the same pass; ``exclude`` is their train part.

        l2q.evaluate(index, test, ks=[20], beyond=[20]).beyond["tail_recall_20"]

    Users go to ``index.search`` in chunks. The scores that a chunk has with all items take about ``memory_mb`` MiB;
    None: as many as ``eval.memory_mb`` in ``conf/config.yaml``. Where memory still runs out, chunks are halved. Their
    size does not change the result. ``progress(done, total)`` is called after each chunk, in users.

    Raises L2QError for a K outside the catalogue, an index of another shape or with other names, or no interactions.
    """
    from l2q.ranking_metrics import RankingMetrics  # brings torch and torchmetrics along

    num_users, num_items = interactions.num_users, interactions.num_items
    if not isinstance(ks, Iterable):
        raise L2QError(f"eval.ks={ks}: give a list of cut-offs, such as [20]")
    ks, beyond = tuple(ks), tuple(beyond)
    for name, given in (("eval.ks", ks), ("beyond", beyond)):
        whole = all(isinstance(k, int | np.integer) and not isinstance(k, bool) for k in given)
        if (not given and name == "eval.ks") or not whole or not all(1 <= k <= num_items for k in given):
            raise L2QError(
                f"{name}={list(given)}: give cut-offs from 1 to {num_items}, the size of the catalogue"
            )
    if (index.num_users, index.num_items) != (num_users, num_items):
        raise L2QError(
            f"the index has {index.num_users} users x {index.num_items} items, the data {num_users} x "
            f"{num_items}: evaluate it on the set that it was built from"
        )
    known: Interactions | None = getattr(index, "exclude", None)
    exclude = known if exclude is None else exclude
    if known is not None:
        _check_names(known, interactions)
    users = np.flatnonzero(interactions.user_degrees)
    if not len(users):
        raise L2QError("no held-out interactions to evaluate on: give a set with test items")
    brought = interactions.given
    if brought is not None and fold_in is None:
        fold_in = getattr(index, "fold_in", None)
        if fold_in is None:
            raise L2QError(
                "users of the interactions are to be folded in, and the index cannot: give fold_in"
            )

    joint = processes.measure_jointly()
    measured, besides = RankingMetrics(ks, sync_on_compute=joint), None
    if beyond:
        from l2q.beyond_accuracy import BeyondAccuracy

        if exclude is None:
            raise L2QError("beyond needs train, whose popularity it compares with: give exclude=train")
        besides = BeyondAccuracy(exclude, interactions, beyond, sync_on_compute=joint)
    keys = interactions.keys
    memory_mb = settings.defaults()["eval"]["memory_mb"] if memory_mb is None else memory_mb
    chunk = max(int(memory_mb * 2**20) // (BYTES_PER_SCORE * num_items), 1)
    done = 0
    while done < len(users):
        batch = users[done : done + chunk]
        try:
            items = _ranked(index, batch, max(ks + beyond), exclude, brought, fold_in)
        except MemoryError as error:
            if chunk == 1:
                needs = BYTES_PER_SCORE * num_items / 2**20
                raise L2QError(
                    f"memory ran out where one user was ranked, which takes about {needs:,.1f} MiB for {num_items:,} "
                    "items, beside the rows; give a smaller model, or a larger machine"
                ) from error
            chunk //= 2
            continue
        hits = _contains(keys, batch[:, None], np.asarray(items), num_items)
        measured.update(hits, interactions.user_degrees[batch])
        if besides is not None:
            besides.update(batch, items, hits)
        done += len(batch)
        if progress is not None:
            progress(done, len(users))
    return Evaluation(
        users, measured.per_user(), measured.compute(), {} if besides is None else besides.compute()
    )


def _ranked(
    index: Ranker,
    users: np.ndarray,
    k: int,
    exclude: Interactions | None,
    given: Interactions | None,
    fold_in: Callable[[Sequence[np.ndarray]], Rows] | None,
) -> np.ndarray:
    """Items (users, k), best first: of known users by their rows, of those with ``given`` items by these."""
    if given is None or fold_in is None:
        return np.asarray(index.search(users, k, exclude)[1])
    new = given.user_degrees[users] > 0
    items = np.empty((len(users), k), np.int32)
    if not new.all():
        items[~new] = index.search(users[~new], k, exclude)[1]
    if new.any():
        lists = [given[user] for user in users[new]]
        numbers = np.repeat(np.arange(len(lists)), given.user_degrees[users[new]])
        own = Interactions.from_pairs(numbers, np.concatenate(lists), len(lists), given.num_items)
        items[new] = index.search(fold_in(lists), k, own)[1]
    return items


def _check_names(known: Interactions, asked: Interactions) -> None:
    """Raises L2QError where rows of an index and of what it is asked are named otherwise."""
    for side in ("user_names", "item_names"):
        ours, theirs = getattr(known, side), getattr(asked, side)
        if ours is None or theirs is None or ours is theirs:
            continue
        if len(ours) != len(theirs) or not all(map(eq, ours, theirs)):
            raise L2QError(
                f"the {side[:4]}s of the interactions are named otherwise than those of the index: take both parts "
                "from one l2q.split"
            )


def _keys(users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """One integer per pair, ascending as users and then items ascend."""
    return users.astype(np.int64) * num_items + items


def _contains(keys: np.ndarray, users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """Which pairs are among the ascending ``keys``; padding (item -1) is not, though its key is that of
    the previous user's last item."""
    wanted = _keys(users, items, num_items)
    found = keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)]
    return (found == wanted) & (items >= 0)
