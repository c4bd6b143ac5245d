"""Users of whom train knows nothing: those who bring items along are folded in, others get what is popular."""

from dataclasses import replace

import numpy as np
import pytest

import l2q
from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows
from l2q.retrieval.fold_in import FoldIn
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index
from l2q.retrieval.popular import Served, popular


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(0)
    pairs = {(user, 10 * (user % 3) + item) for user in range(90) for item in rng.integers(25, size=9)}
    users, items = np.array(sorted(pairs)).T
    return Interactions.from_pairs(users, items, 90, 45)


@pytest.fixture(scope="module")
def parts(events):
    return split(events, "users", fraction=0.3, seed=1)


def by_hand(index, fold_in, train, test, k):
    """Recall@k and NDCG@k, user by user, from the definitions; ties by the lower id."""
    items = index.representations.items.values
    recalls, gains = [], []
    for user in np.flatnonzero(test.user_degrees):
        given = test.given[user]
        row, owned = (fold_in([given]).values[0], given) if len(given) else (None, train[user])
        if row is None:
            row = index.representations.users.values[user]
        scores = items.astype(np.float64) @ row
        scores[owned] = -np.inf
        ranked = np.lexsort((np.arange(len(scores)), -scores))[:k]
        wanted = set(test[user].tolist())
        hits = [int(item in wanted) for item in ranked.tolist()]
        recalls.append(sum(hits) / len(wanted))
        best = sum(1 / np.log2(place + 2) for place in range(min(k, len(wanted))))
        gains.append(sum(hit / np.log2(place + 2) for place, hit in enumerate(hits)) / best)
    return np.mean(recalls), np.mean(gains)


@pytest.fixture(scope="module")
def index(parts):
    """Rows of whole numbers, so that scores are exact in any order."""
    rng = np.random.default_rng(2)
    users, items = (Rows(rng.integers(-3, 4, size=(rows, 6)).astype(np.float32)) for rows in (90, 45))
    return Index.of(Representations(users, items, (6,), np.ones(1, np.float32)), parts[0])


def whole(lists):
    """Query rows of whole numbers, another for every list."""
    return Rows(np.float32([[sum(items), len(items), -min(items), 3, max(items) % 5, 1] for items in lists]))


@pytest.mark.parametrize("memory_mb", [512, 0.002])
@pytest.mark.parametrize("also_known", [False, True])
def test_figures_of_users_left_out_are_those_of_their_fold_in(events, parts, index, memory_mb, also_known):
    train, test = parts
    if also_known:  # test has users of train too
        known = Interactions.from_pairs(
            [*test.users, *(user for user in range(90) if len(train[user]))],
            [*test.items, *(44 - train[user][0] // 2 for user in range(90) if len(train[user]))],
            90,
            45,
        )
        test = replace(known, given=test.given)
    found = evaluate(index, test, [5], memory_mb=memory_mb, fold_in=whole).metrics
    recall, ndcg = by_hand(index, whole, train, test, 5)
    assert found["recall_5"] == pytest.approx(recall, abs=1e-12)
    assert found["ndcg_5"] == pytest.approx(ndcg, abs=1e-12)


def test_an_index_folds_in_by_itself_and_another_is_asked_how(parts):
    train, test = parts
    index = l2q.fit(train, "spectral", seed=0)
    own = FoldIn(index.representations, train, train.item_degrees)
    dense = DenseIndex(index.representations)
    expected = evaluate(dense, test, [5, 20], train, fold_in=own).metrics
    assert l2q.evaluate(index, test, [5, 20]).metrics == pytest.approx(expected)
    with pytest.raises(
        L2QError, match=r"^users of the interactions are to be folded in, and the index cannot"
    ):
        evaluate(dense, test, [5], train)


def test_codes_are_folded_in_as_new_users_are(parts):
    train, test = parts
    index = l2q.fit(train, "l2q_plus", bits=32, seed=0)
    found = l2q.evaluate(index, test, [10])
    for user in found.users[:9]:
        asked = index.recommend(items=test.given[user], k=10).items
        hits = len({int(item) for item in asked} & set(test[user].tolist()))
        place = found.users.tolist().index(user)
        assert found.per_user["recall_10"][place] == pytest.approx(hits / len(test[user]))
        assert not {int(item) for item in asked} & set(test.given[user].tolist())


def test_popular_items_are_those_with_the_most_users_then_the_lower_id():
    degrees = np.array([3, 0, 5, 3, 5, 1, 3], np.int32)
    order = [2, 4, 0, 3, 6, 5, 1]
    for k in range(1, 9):
        assert popular(degrees, k).tolist() == order[:k]


def test_a_user_without_train_items_is_shown_what_is_popular(events):
    train = events.select(~np.isin(events.users, (3, 7)))
    best = np.argsort(-train.item_degrees, kind="stable")[:5].tolist()
    for model, more in (("popularity", {}), ("spectral", {"model": {"dim": 8}}), ("l2q_plus", {"bits": 32})):
        index = l2q.fit(train, model, seed=0, **more)
        with pytest.warns(
            UserWarning, match=r"^the user '3' has no train items: the most popular items come"
        ):
            ranking = index.recommend(3, k=5)
        assert ranking.items == [str(item) for item in best]
        assert ranking.scores.tolist() == train.item_degrees[best].tolist()
        with pytest.warns(UserWarning, match=r"^2 of 3 users, such as '3' has no train items"):
            three = index.recommend([3, 0, 7], k=5)
        assert three[0].items == three[2].items == ranking.items
        assert three[1].items == index.recommend(0, k=5).items


@pytest.mark.filterwarnings("error")
def test_a_user_with_train_items_and_an_index_without_any_are_as_before(events, index):
    rows = np.flatnonzero(index.exclude.user_degrees)
    plain = index.index.search(rows, 5, index.exclude)
    for ours, theirs in zip(index.search(rows, 5, index.exclude), plain, strict=True):
        assert ours.tolist() == theirs.tolist()
    rng = np.random.default_rng(0)
    other = l2q.quantize(rng.normal(size=(20, 64)), rng.normal(size=(30, 64)))  # brings no train items
    for ours, theirs in zip(other.search(np.arange(20), 5, other.exclude),
                            other.index.search(np.arange(20), 5), strict=True):  # fmt: skip
        assert ours.tolist() == theirs.tolist()
    assert len(other.recommend(0, k=3).items) == 3


def test_what_is_measured_of_such_users_is_what_they_are_shown(events):
    train = events.select(events.users >= 20)
    test = events.select(events.users < 20)
    index = l2q.fit(train, "spectral", seed=0)
    best = set(np.argsort(-train.item_degrees, kind="stable")[:10].tolist())
    expected = [len(best & set(test[user].tolist())) / len(test[user]) for user in range(20)]
    assert l2q.evaluate(index, test, [10]).per_user["recall_10"].tolist() == pytest.approx(expected)
    dense = Served(DenseIndex(index.representations), train.item_degrees)
    assert evaluate(dense, test, [10], train).per_user["recall_10"].tolist() == pytest.approx(expected)
