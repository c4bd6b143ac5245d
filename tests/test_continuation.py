"""A fit that goes on from an index of earlier events: by name, with the same teacher, about as good."""

from dataclasses import replace

import numpy as np
import pytest
from presets import descent, embeddings, l2q_plus
from scipy import sparse

from l2q.data.splits import split
from l2q.evaluation import evaluate
from l2q.fitted import l2q_plus as recipe
from l2q.fitted.continuation import Known
from l2q.fitted.descent import row_minima
from l2q.interactions import Interactions
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index

BITS = 48


@pytest.fixture(scope="module")
def train(communities: Interactions) -> Interactions:
    """The last users and items are there since today."""
    return named(communities)


def named(train: Interactions) -> Interactions:
    names = [np.array([f"{side}{row}" for row in range(90)]) for side in "ui"]
    return replace(train, user_names=names[0], item_names=names[1])


def model(**changes):
    return l2q_plus(bits=BITS, length=20, embeddings=embeddings(steps=40), **changes)


@pytest.fixture(scope="module")
def index(train) -> Index:
    """Of the users before the last five, in another order."""
    order = np.random.default_rng(1).permutation(85)
    kept = train.users < 85
    rows = np.argsort(order)
    yesterday = Interactions.from_pairs(rows[train.users[kept]], train.items[kept], 85, 90)
    yesterday = replace(yesterday, user_names=train.user_names[order], item_names=train.item_names)
    found = model().fit(yesterday, 0)
    return Index.of(found.representations, yesterday, filter_side=found.filter_side)


def test_rows_are_found_by_name_and_new_ones_are_mapped(train, index):
    known = Known.of(index, train, BITS)
    assert (known.users[85:] == -1).all()
    assert [index.names["users"][row] for row in known.users[:85]] == train.user_names[:85].tolist()
    rng = np.random.default_rng(0)
    base = rng.standard_normal((90, 6)), rng.standard_normal((90, 6))
    state = known.state(base, sparse.csr_array((90, 90)))
    codes = index.representations.users.values[known.users[:85]]
    np.testing.assert_array_equal(state.users.codes[:85], codes)
    W = np.linalg.lstsq(base[0][:85], codes.astype(float), rcond=None)[0]
    agree = (state.users.codes[85:] > 0) == (base[0][85:] @ W > 0)
    assert agree.mean() > 0.98


def test_a_fit_that_goes_on_is_about_as_good_with_the_same_teacher(train, index):
    part, held = split(train, fraction=0.2, seed=2)
    quality = {}
    for start in (None, index):
        found = model().fit(part, 0, start)
        metrics = evaluate(DenseIndex(found.representations), held, [20], part).metrics
        quality[start is None] = metrics["recall_20"] + metrics["ndcg_20"]
    assert quality[False] > 0.93 * quality[True]
    chosen = index.manifest["filter"]
    assert (found.teacher.filter.rank, found.teacher.filter.tail) == (chosen["rank"], chosen["tail"])


def test_what_the_codes_want_is_on_the_lists_before_the_first_round(train, index, monkeypatch):
    begun = []

    def descend(base, lists, bits, options, seed, exclude, state):
        begun.append((lists, state))
        yield state

    monkeypatch.setattr(recipe, "descend", descend)
    replace(model(), descent=descent(intruders=7), length=5).fit(train, 0, index)
    ((lists, state),) = begun
    more = np.diff(state.lists.indptr) - np.diff(lists.indptr)
    assert 0 < more.max() <= 7
    both, floors = state.lists.toarray(), row_minima(lists)
    for user in range(90):
        new = np.setdiff1d(both[user].nonzero()[0], lists[[user]].indices)
        assert (both[user, new] <= floors[user]).all()  # below all that the list wants
        assert not np.isin(new, train[user]).any()
