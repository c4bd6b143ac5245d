"""Evaluation against known answers, naive loops and forced edge cases."""

from collections import defaultdict
from dataclasses import replace
from math import log2

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.interactions import Interactions, name_array
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex, PackedIndex
from l2q.retrieval.named import Index


class TableIndex:
    """An index from a table of scores (num_users, num_items): sorts a whole row, knows no chunks."""

    def __init__(self, scores):
        self.scores = np.array(scores, dtype=np.float32)
        self.num_users, self.num_items = self.scores.shape
        self.searched = []

    def search(self, users, k, exclude=None):
        self.searched.append(users)
        scores = self.scores[users]
        if exclude is not None:
            for row, user in enumerate(users):
                scores[row, exclude[user]] = -np.inf
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
        best = np.take_along_axis(scores, items, axis=1)
        return best, np.where(np.isneginf(best), -1, items)


def rows(*items, num_items):
    users = np.repeat(np.arange(len(items)), [len(row) for row in items])
    return Interactions.from_pairs(
        users, np.concatenate([np.array(row, int) for row in items]), len(items), num_items
    )


def random_problem(seed=0, users=57, items=40):
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=(users, items), p=[0.7, 0.2, 0.1])
    kind[5][kind[5] == 2] = 0  # a user without test items
    train, test = (rows(*(np.flatnonzero(row == which) for row in kind), num_items=items) for which in (1, 2))
    return train, test, rng.integers(0, 6, size=(users, items))  # few values: many ties


def checkerboard():
    """Users and items of the same parity belong together; one item of each user is held out."""
    users, items = np.nonzero((np.add.outer(np.arange(6), np.arange(8)) % 2) == 0)
    held_out = items // 2 == users % 4
    parity = (-1) ** np.arange(8)
    codes = np.outer(parity, np.ones(3)).astype(np.int8)
    return (
        Interactions.from_pairs(users[~held_out], items[~held_out], 6, 8),
        Interactions.from_pairs(users[held_out], items[held_out], 6, 8),
        Representations(Rows(codes[:6]), Rows(codes), dims=(3,), weights=np.ones(1, np.float32)),
    )


@pytest.mark.parametrize("build", [DenseIndex, PackedIndex.from_representations])
def test_checkerboard_is_recommended_perfectly(build):
    train, test, representations = checkerboard()
    metrics = evaluate(build(representations), test, (1, 2), exclude=train).metrics
    assert metrics == {
        **{"recall_1": 1.0, "ndcg_1": 1.0, "precision_1": 1.0, "hit_rate_1": 1.0, "mrr_1": 1.0},
        **{"recall_2": 1.0, "ndcg_2": 1.0, "precision_2": 0.5, "hit_rate_2": 1.0, "mrr_2": 1.0},
    }


def test_hand_worked():
    """User 0 ranks 3 2 1 0 and has {2, 0}; user 1 ranks 0 1 2 3, 0 excluded, and has {1}; user 2 has none."""
    index = TableIndex([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 1, 1]])
    test = rows([0, 2], [1], [], num_items=4)
    exclude = rows([], [0], [1], num_items=4)
    found = evaluate(index, test, (1, 2), exclude)
    assert found.users.tolist() == [0, 1]
    assert found.per_user["recall_1"].tolist() == [0.0, 1.0]
    assert found.per_user["recall_2"].tolist() == [0.5, 1.0]
    assert found.per_user["mrr_2"].tolist() == [0.5, 1.0]
    assert found.metrics == pytest.approx(
        {
            **{"recall_1": 1 / 2, "ndcg_1": 1 / 2, "precision_1": 1 / 2, "hit_rate_1": 1 / 2, "mrr_1": 1 / 2},
            **{"recall_2": 3 / 4, "precision_2": 1 / 2, "hit_rate_2": 1.0, "mrr_2": 3 / 4},
            "ndcg_2": ((1 / log2(3)) / (1 + 1 / log2(3)) + 1) / 2,
        },
        rel=1e-15,
    )


def test_ndcg_of_a_user_with_fewer_test_items_than_k():
    """Both test items on top: exactly 1, since the ideal holds two ones and not four."""
    index = TableIndex([[0, 3, 2, 1]])
    assert evaluate(index, rows([1, 2], num_items=4), [4]).metrics["ndcg_4"] == 1.0


def test_naive_loop_with_exclusions():
    train, test, scores = random_problem()
    k = 7
    expected = defaultdict(list)
    for user in range(test.num_users):
        if len(test[user]) == 0:
            continue
        candidates = [item for item in range(test.num_items) if item not in train[user]]
        ranking = sorted(candidates, key=lambda item: (-scores[user, item], item))[:k]
        ranks = [rank for rank, item in enumerate(ranking, start=1) if item in test[user]]
        ideal = sum(1 / log2(rank + 1) for rank in range(1, min(k, len(test[user])) + 1))
        expected["recall_7"].append(len(ranks) / len(test[user]))
        expected["ndcg_7"].append(sum(1 / log2(rank + 1) for rank in ranks) / ideal)
        expected["precision_7"].append(len(ranks) / k)
        expected["hit_rate_7"].append(float(bool(ranks)))
        expected["mrr_7"].append(1 / min(ranks) if ranks else 0.0)

    found = evaluate(TableIndex(scores), test, [k], exclude=train)
    assert found.per_user.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found.per_user[name], values, rtol=1e-12, err_msg=name)
        assert found.metrics[name] == pytest.approx(np.mean(values), rel=1e-12)


def test_users_without_test_items_are_neither_searched_nor_counted():
    train, test, scores = random_problem()
    index = TableIndex(scores)
    found = evaluate(index, test, [3], exclude=train)
    assert 5 not in found.users
    assert np.concatenate(index.searched).tolist() == found.users.tolist()
    assert found.users.tolist() == [user for user in range(test.num_users) if len(test[user])]


def test_padding_is_never_a_hit():
    """User 1 has one candidate left. The key of (1, -1) is that of user 0's last item, a test item."""
    index = TableIndex(np.zeros((2, 3)))
    test, exclude = rows([2], [0], num_items=3), rows([], [1, 2], num_items=3)
    found = evaluate(index, test, [1, 2, 3], exclude)
    hits = [found.per_user[f"precision_{k}"] * k for k in (1, 2, 3)]  # hits@K: at rank 3, and at rank 1
    np.testing.assert_allclose(hits, [[0, 1], [0, 1], [1, 1]])


def test_chunks_do_not_change_the_result():
    train, test, scores = random_problem()
    seen = []
    index = TableIndex(scores)
    small = evaluate(
        index, test, [5], train, memory_mb=0.0025, progress=lambda done, total: seen.append((done, total))
    )
    whole = evaluate(TableIndex(scores), test, [5], train)
    assert [len(users) for users in index.searched] == [8] * 7  # 0.0025 MiB of 40 scores of 8 bytes
    assert seen == [(done, 56) for done in range(8, 57, 8)]
    assert small.per_user.keys() == whole.per_user.keys()
    for name, values in whole.per_user.items():
        np.testing.assert_array_equal(small.per_user[name], values)
    assert small.metrics == whole.metrics


def test_chunk_is_halved_when_memory_runs_out():
    class Small(TableIndex):
        def search(self, users, k, exclude=None):
            if len(users) > limit:
                raise MemoryError
            return super().search(users, k, exclude)

    train, test, scores = random_problem()
    limit = 10
    index = Small(scores)
    expected = evaluate(TableIndex(scores), test, [5], train).metrics
    assert evaluate(index, test, [5], train).metrics == expected
    assert max(len(users) for users in index.searched) <= 10
    limit = 0
    with pytest.raises(L2QError, match="memory ran out where one user was ranked"):
        evaluate(index, test, [5], train)


def test_train_items_that_an_index_keeps_are_left_out():
    train, test, representations = checkerboard()
    assert evaluate(DenseIndex(representations), test, [1]).metrics["recall_1"] < 1  # which keeps none
    index = Index.of(representations, train)
    assert evaluate(index, test, [1, 2]).metrics == evaluate(index, test, [1, 2], train).metrics
    assert evaluate(index, test, [1]).metrics["recall_1"] == 1
    nothing = train.select(np.zeros(len(train), bool))
    assert evaluate(index, test, [1], exclude=nothing).metrics["recall_1"] < 1


def names(mark, number):
    return name_array([f"{mark}{row}" for row in range(number)])


def test_rows_of_other_names_are_refused():
    train, test, representations = checkerboard()
    users, items = names("u", 6), names("i", 8)
    index = Index.of(representations, replace(train, user_names=users, item_names=items))
    expected = evaluate(index, test, [2]).metrics  # without names of its own
    for same in (names("u", 6), None):
        asked = replace(test, user_names=same, item_names=names("i", 8))
        assert evaluate(index, asked, [2]).metrics == expected
    for side, other in (("user", users[::-1]), ("user", names("v", 6)), ("item", items[::-1])):
        asked = replace(test, **{f"{side}_names": other})
        with pytest.raises(
            L2QError, match=f"^the {side}s of the interactions are named otherwise .* l2q.split$"
        ):
            evaluate(index, asked, [2])
        with pytest.raises(L2QError, match=f"^the {side}s of the interactions are named otherwise"):
            evaluate(index, asked, [2], train)
    unnamed = Index.of(representations, train)
    assert evaluate(unnamed, replace(test, user_names=users), [2]).metrics == expected


def test_figures_are_the_means_of_the_users():
    train, test, scores = random_problem()
    found = evaluate(TableIndex(scores), test, [1, 7], train, memory_mb=0.0025)
    assert found.metrics.keys() == found.per_user.keys()
    for name, values in found.per_user.items():
        assert (values.dtype, values.shape) == (np.float64, found.users.shape)
        assert found.metrics[name] == values.mean()
        assert type(found.metrics[name]) is float


@pytest.mark.parametrize("ks", [[], [0], [20, 41]])
def test_cut_off_outside_the_catalogue(ks):
    train, test, scores = random_problem()
    with pytest.raises(L2QError, match=r"eval\.ks=\[.*\]: give cut-offs from 1 to 40"):
        evaluate(TableIndex(scores), test, ks, train)


def test_index_of_another_set():
    _, test, scores = random_problem()
    with pytest.raises(L2QError, match="57 users x 39 items, the data 57 x 40"):
        evaluate(TableIndex(scores[:, 1:]), test, [5])


def test_nothing_held_out():
    with pytest.raises(L2QError, match="no held-out interactions"):
        evaluate(TableIndex(np.zeros((2, 3))), rows([], [], num_items=3), [1])


@pytest.mark.parametrize(
    ("num_items", "expected"), [(1, 1), (3, 1), (12, 3), (79, 19), (80, 20), (10**6, 20)]
)
def test_the_cutoff_that_decides_leaves_most_of_a_small_catalogue_out(num_items, expected):
    assert deciding_cutoff(num_items) == expected
