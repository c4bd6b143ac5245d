"""Metrics against hand-worked fractions, naive loops and ranx."""

from math import log2

import numba
import numpy as np
import pytest
import torch

from l2q.metrics import per_user_metrics
from l2q.ranking_metrics import RankingMetrics

NAMES = ("recall", "ndcg", "precision", "hit_rate", "mrr")

# Three users, five ranks. The first has 3 relevant items, at ranks 2 and 4 and one not retrieved; the
# second 8, at ranks 1 and 5; the third 1, not retrieved.
HITS = np.array([[0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=bool)
RELEVANT = np.array([3, 8, 1])
IDEAL_3 = 1 + 1 / log2(3) + 1 / 2
IDEAL_5 = IDEAL_3 + 1 / log2(5) + 1 / log2(6)


def random_rankings(seed, users=1000, items=60, depth=20):
    """Rankings (users, depth) without repeats and each user's relevant items, some of them never ranked."""
    rng = np.random.default_rng(seed)
    ranked = rng.permuted(np.tile(np.arange(items), (users, 1)), axis=1)[:, :depth]
    relevant = [rng.choice(items, size=rng.integers(1, 40), replace=False) for _ in range(users)]
    hits = np.array([np.isin(row, mine) for row, mine in zip(ranked, relevant, strict=True)])
    return ranked, relevant, hits, np.array([len(mine) for mine in relevant])


def test_hand_worked_fractions():
    expected: dict[str, list[float]] = {
        "recall_1": [0, 1 / 8, 0],
        "recall_2": [1 / 3, 1 / 8, 0],
        "recall_5": [2 / 3, 1 / 4, 0],
        "ndcg_1": [0, 1, 0],
        "ndcg_2": [(1 / log2(3)) / (1 + 1 / log2(3)), 1 / (1 + 1 / log2(3)), 0],
        "ndcg_5": [(1 / log2(3) + 1 / log2(5)) / IDEAL_3, (1 + 1 / log2(6)) / IDEAL_5, 0],
        "precision_1": [0, 1, 0],
        "precision_2": [1 / 2, 1 / 2, 0],
        "precision_5": [2 / 5, 2 / 5, 0],
        "hit_rate_1": [0, 1, 0],
        "hit_rate_2": [1, 1, 0],
        "hit_rate_5": [1, 1, 0],
        "mrr_1": [0, 1, 0],
        "mrr_2": [1 / 2, 1, 0],
        "mrr_5": [1 / 2, 1, 0],
    }
    metrics = per_user_metrics(HITS, RELEVANT, (1, 2, 5))
    assert metrics.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name], values, rtol=1e-15, err_msg=name)
        assert metrics[name].dtype == np.float64


def test_ndcg_in_digits():
    """(0.6309298 + 0.4306766) / 2.1309298, worked with a pocket calculator."""
    assert per_user_metrics(HITS, RELEVANT, [5])["ndcg_5"][0] == pytest.approx(0.4981893, abs=5e-7)


def test_ideal_counts_the_relevant_not_the_retrieved():
    """The inflated NDCG divides by the best order of the hits that were retrieved: one hit at rank 1 of
    four relevant items would be a perfect 1."""
    hits, relevant = np.array([[True, False, False]]), np.array([4])
    inflated = 1.0
    ndcg = per_user_metrics(hits, relevant, [3])["ndcg_3"][0]
    assert ndcg == pytest.approx(1 / IDEAL_3)
    assert ndcg < inflated / 2


def test_recall_divides_by_every_relevant_item():
    """Two hits in two ranks, four relevant: a half; over min(K, n) it would be 1."""
    assert per_user_metrics(np.array([[True, True]]), np.array([4]), [2])["recall_2"][0] == 0.5


def test_ideal_stops_at_the_relevant_items_when_k_is_larger():
    hits = np.array([[True, True, False, False, False], [False, False, True, False, False]])
    metrics = per_user_metrics(hits, np.array([2, 1]), [5])
    assert metrics["ndcg_5"].tolist() == [1.0, 0.5]
    assert metrics["recall_5"].tolist() == [1.0, 1.0]


def test_naive_loops():
    ranked, relevant, hits, counts = random_rankings(0, users=200)
    metrics = per_user_metrics(hits, counts, (1, 7, 20))
    for k in (1, 7, 20):
        for user, (row, mine) in enumerate(zip(ranked.tolist(), relevant, strict=True)):
            ranks = [rank for rank, item in enumerate(row[:k], start=1) if item in set(mine.tolist())]
            ideal = sum(1 / log2(rank + 1) for rank in range(1, min(k, len(mine)) + 1))
            expected = {
                "recall": len(ranks) / len(mine),
                "ndcg": sum(1 / log2(rank + 1) for rank in ranks) / ideal,
                "precision": len(ranks) / k,
                "hit_rate": float(bool(ranks)),
                "mrr": 1 / ranks[0] if ranks else 0.0,
            }
            for name, value in expected.items():
                assert metrics[f"{name}_{k}"][user] == pytest.approx(value, rel=1e-12), (name, k, user)


def test_agrees_with_ranx(monkeypatch):
    monkeypatch.setattr(
        numba.config, "DISABLE_JIT", True
    )  # compiling ranx takes a minute, running it does not
    layer = numba.config.THREADING_LAYER
    import ranx

    # it chooses workqueue for all, which ends a process where two of its threads are at kernels, as a service's are
    numba.config.THREADING_LAYER = layer
    ks = (1, 5, 10, 20)
    ranked, relevant, hits, counts = random_rankings(1)
    qrels = ranx.Qrels({f"{u}": dict.fromkeys(map(str, mine), 1) for u, mine in enumerate(relevant)})
    run = ranx.Run(
        {f"{u}": {str(item): -float(rank) for rank, item in enumerate(row)} for u, row in enumerate(ranked)}
    )
    names = [f"{name}@{k}" for k in ks for name in NAMES]
    ranx.evaluate(qrels, run, names)
    ours = per_user_metrics(hits, counts, ks)
    for name in names:
        theirs = [run.scores[name][f"{user}"] for user in range(len(ranked))]
        np.testing.assert_allclose(ours[name.replace("@", "_")], theirs, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.fixture
def rankings():
    """Hits of 101 users, their counts, and the figures that the metric must give to the bit."""
    _, _, hits, counts = random_rankings(2, users=101)
    return hits, counts, per_user_metrics(hits, counts, (5, 20))


def means(per_user):
    return {name: values.mean() for name, values in per_user.items()}


@pytest.mark.parametrize("cuts", [[], [50], [1, 60], [0, 100], [30, 30, 31], range(101)], ids=str)
@pytest.mark.parametrize("made", [np.asarray, torch.as_tensor], ids=["arrays", "tensors"])
def test_the_metric_is_the_mean_over_users_whatever_the_batches(rankings, cuts, made):
    hits, counts, expected = rankings
    metric = RankingMetrics((5, 20))
    for batch in zip(np.split(hits, cuts), np.split(counts, cuts), strict=True):
        metric.update(*map(made, batch))
    assert metric.compute() == means(expected)
    for name, values in metric.per_user().items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == np.float64


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_the_metric_of_two_ranks_is_that_of_all_users(rankings, cut):
    hits, counts, expected = rankings
    ranks = [RankingMetrics((5, 20)), RankingMetrics((5, 20))]
    for metric, rows in zip(ranks, (slice(0, cut), slice(cut, None)), strict=True):
        for first in range(0, len(hits[rows]), 30):
            metric.update(hits[rows][first : first + 30], counts[rows][first : first + 30])
    own = [means(metric.per_user()) for metric in ranks]
    # what every rank holds, as the ranks gather it; hits have two dimensions, counts one
    held = [{2: torch.cat(metric.hits), 1: torch.cat(metric.relevant)} for metric in ranks]
    for metric in ranks:
        metric.distributed_available_fn = lambda: True
        metric.dist_sync_fn = lambda state, group: [rank[state.ndim] for rank in held]
        assert metric.compute() == means(expected)
        with metric.sync_context(dist_sync_fn=metric.dist_sync_fn):
            for name, values in metric.per_user().items():
                np.testing.assert_array_equal(values, expected[name])
    assert [means(metric.per_user()) for metric in ranks] == own != [means(expected)] * 2


def test_a_metric_starts_anew_after_a_reset(rankings):
    hits, counts, expected = rankings
    metric = RankingMetrics((5, 20))
    metric.update(hits[:7], counts[:7])
    metric.reset()
    assert all(len(values) == 0 for values in metric.per_user().values())
    assert metric(hits, counts) == metric.compute() == means(expected)


@pytest.mark.parametrize(
    ("hits", "relevant", "ks"),
    [
        ([[True, False]], [1], [3]),  # deeper than the ranking
        ([[True, False]], [1], [0]),
        ([[False, False]], [0], [2]),  # nothing relevant
        ([[True, True]], [1], [2]),  # one item twice
    ],
)
def test_impossible_input_is_refused(hits, relevant, ks):
    with pytest.raises(ValueError, match="every"):
        per_user_metrics(np.array(hits), np.array(relevant), ks)
