"""Pairs weigh by their age where later events say that it pays: by hand, by dense matrices, and kept in an index."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from presets import descent, embeddings, l2q_plus

import l2q
from l2q.data import cache
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.fitted.continuation import Known
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.l2q_plus import L2QPlus
from l2q.fitted.new_users import FilterSide
from l2q.fitted.parts import NOWHERE
from l2q.fitted.weights import EQUAL, PairWeights, choose_weights, of_steps, to_steps
from l2q.interactions import Dataset, Interactions, normalize
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index

FILTER = SpectralFilter(gamma_user=0.3, gamma_item=0.4, popularity=0.3, rank=8, tail=0.6)


def timed(drift: bool, num_users: int = 150, each: int = 24) -> Interactions:
    """90 items in six groups. Users have a taste for one group for all of the time, or with ``drift`` for another one
    in each sixth of it, each user with an order of their own."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.random((num_users, each)), axis=1)
    orders = np.argsort(rng.random((num_users, 6)), axis=1)
    group = np.take_along_axis(
        orders, (times * 6).astype(int) if drift else np.zeros(times.shape, int), axis=1
    )
    items = group * 15 + rng.integers(15, size=times.shape)
    users = np.repeat(np.arange(num_users), each)
    events = Interactions.from_pairs(users, items.ravel(), num_users, 90)
    keys, first = np.unique(users * 90 + items.ravel(), return_index=True)
    assert (keys == events.keys).all()
    return replace(events, times=times.ravel()[first], ahead=True)


def model(**changes) -> L2QPlus:
    given = {"halvings": None, "bits": 48, "length": 20, "descent": descent(rounds=1, intruder_rounds=2)}
    return l2q_plus(**given | {"filter": {"rank": 12}, "embeddings": embeddings(weight=0.0)} | changes)


def test_a_weight_is_halved_by_age_in_steps_that_a_byte_keeps():
    train = Interactions.from_pairs([0, 0, 0, 1], [0, 1, 2, 0], 2, 3)
    times = np.array([100.0, 200.0, np.nan, 300.0])
    found = PairWeights(3).of(replace(train, times=times)).weights
    np.testing.assert_array_equal(found, np.exp2([-3, -1.5, -1.5, 0]).astype(np.float32))
    steps = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_steps(of_steps(steps)), steps)
    assert EQUAL.of(replace(train, times=times, weights=found)).weights is None
    np.testing.assert_array_equal(PairWeights(5).of(replace(train, times=np.ones(4))).weights, np.ones(4))
    with pytest.raises(L2QError, match=r"model\.halvings=2 .* no time is known; .*dataset\.time=COLUMN"):
        PairWeights(2).of(train)


def test_a_weight_is_the_rank_of_a_value_to_a_power_in_steps_that_a_byte_keeps():
    train = Interactions.from_pairs([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], 2, 3)
    values = np.array([-3, 5, np.nan, 700, 5], np.float32)  # ranks 1/5, 4/5, as the median 5, 1, 4/5
    found = PairWeights(value_power=2).of(replace(train, values=values)).weights
    shares = np.array([1, 4, 4, 5, 4]) / 5
    np.testing.assert_array_equal(found, np.exp2(np.rint(8 * 2 * np.log2(shares)) / 8).astype(np.float32))
    scaled = PairWeights(value_power=2).of(replace(train, values=np.exp(values / 100)))
    np.testing.assert_array_equal(scaled.weights, found)
    times = np.array([0.0, 50, 50, 100, 100])
    both = PairWeights(4, 2).of(replace(train, times=times, values=values)).weights
    np.testing.assert_array_equal(both, found * np.exp2([-4, -2, -2, 0, 0]).astype(np.float32))
    with pytest.raises(L2QError, match=r"model\.value_power=2 .* no value is known; .*dataset\.value=COLUMN"):
        PairWeights(value_power=2).of(train)


def test_the_graph_has_the_weights_and_their_sums_for_degrees():
    train = PairWeights(4).of(timed(drift=True))
    R = train.to_csr().toarray() * 0
    R[train.users, train.items] = train.weights
    expected = R.sum(1, keepdims=True) ** -0.3 * R * R.sum(0) ** -0.4
    np.testing.assert_allclose(normalize(train, 0.3, 0.4).toarray(), expected, rtol=1e-5)


def test_the_scores_of_known_and_new_users_by_dense_matrices():
    train = PairWeights(4).of(timed(drift=True))
    scores = FILTER(train, seed=0)
    R_hat = normalize(train, 0.3, 0.4).toarray().astype(np.float64)
    U, s, Vt = np.linalg.svd(R_hat, full_matrices=False)
    mu, degrees = 3 * s[7] ** 2, train.item_weights
    factor = 0.6 / (s[7] ** 2 + mu)
    s, V = s[:8], Vt[:8].T
    inside = s**3 / (s**2 + mu) - factor * s**3
    expected = (U[:, :8] * inside @ V.T + factor * R_hat @ R_hat.T @ R_hat) * degrees**0.3
    np.testing.assert_allclose(scores.scores(slice(0, 150)), expected, atol=1e-4 * expected.max())

    side = FilterSide.of(FILTER, scores, 100, 5, by=PairWeights(4), weights=train.weights)
    new = Interactions.from_pairs([0, 0, 1], [3, 7, 12], 2, 90)  # what a new user brings was just now
    r_hat = new.to_csr().toarray() * np.array([[2], [1]]) ** -0.3 * degrees**-0.4
    expected = (r_hat @ V / s * inside @ V.T + factor * r_hat @ R_hat.T @ R_hat) * degrees**0.3
    found = side.scores(new, side.weighed(replace(train, weights=None))).scores(slice(0, 2))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())  # float16


@pytest.mark.parametrize(("drift", "least", "most"), [(True, 2, 31), (False, 0, 0)])
def test_halvings_are_chosen_where_the_latest_events_say_so(drift, least, most, caplog):
    caplog.set_level(logging.INFO, "l2q")
    assert least <= choose_weights(timed(drift), 0).halvings <= most
    said = (
        "is 16: with it Recall + NDCG is"
        if drift
        else "stays 0: each of 2, 4, 8, 16 loses Recall + NDCG in one"
    )
    assert f"model.halvings {said}" in caplog.text


def test_halvings_are_none_where_nothing_can_be_said(caplog):
    caplog.set_level(logging.INFO, "l2q")
    assert choose_weights(timed(drift=True, num_users=15), 0) == EQUAL
    assert "halvings of model stay 0: fewer than 50 users" in caplog.text
    train = timed(drift=True)
    for changes in ({"times": np.ones(len(train))}, {"ahead": False}, {"times": None}):
        assert model()._weights(replace(train, **changes), 0, None, NOWHERE) == EQUAL


@pytest.mark.parametrize(("telling", "chosen"), [(True, {0.5, 1.0}), (False, {0.0})])
def test_a_power_of_values_is_chosen_where_held_out_items_say_so(telling, chosen, caplog):
    """Half of a user's items are of one group, the others of all. Values tell which where they are ``telling``."""
    caplog.set_level(logging.INFO, "l2q")
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(200), 20)
    meant = rng.random(len(users)) < 0.5
    items = np.where(
        meant, users % 6 * 15 + rng.integers(15, size=len(users)), rng.integers(90, size=len(users))
    )
    train = Interactions.from_pairs(users, items, 200, 90)
    values = np.where(train.items // 15 == train.users % 6, 4, 1) + rng.integers(2, size=len(train))
    train = replace(train, values=(values if telling else rng.permutation(values)).astype(np.float32))
    found = choose_weights(train, 0)
    assert found.value_power in chosen
    assert found.halvings == 0
    said = f"is {found.value_power:g}: with it" if telling else "stays 0: each of 0.25, 0.5, 1 loses"
    assert f"model.value_power {said}" in caplog.text
    assert "of 3 random parts of train" in caplog.text
    assert choose_weights(train, 0, value_power=0.25) == PairWeights(0, 0.25)


def test_later_events_are_found_better_with_weights_and_earlier_ones_are_not_missed_without_drift():
    train, held = l2q.split(timed(drift=True, num_users=300, each=36), "time", fraction=0.1)
    assert train.ahead

    def quality(**changes) -> float:
        found = model(**changes).fit(train, 0)
        return sum(evaluate(DenseIndex(found.representations), held, [10], train).metrics.values())

    assert quality() > 1.2 * quality(halvings=0.0)


def test_an_index_keeps_weights_for_new_users_and_for_a_later_fit(tmp_path):
    train = timed(drift=True)
    found = model(halvings=4.0).fit(train, 0)
    index = Index.of(found.representations, train, filter_side=found.filter_side)
    stored = load_index(index.save(tmp_path / "index"))
    assert stored.manifest["filter"]["halvings"] == 4
    np.testing.assert_array_equal(of_steps(stored.arrays["filter.weights"]), PairWeights(4).of(train).weights)
    lists = [train[user][-3:] for user in range(20)]
    expected = found.filter_side.scores(
        Interactions.from_pairs(np.repeat(range(20), 3), np.concatenate(lists), 20, 90),
        PairWeights(4).of(train),
    ).scores(slice(0, 20))
    fold_in = stored.fold_in
    again = stored.filter_side.scores(
        Interactions.from_pairs(np.repeat(range(20), 3), np.concatenate(lists), 20, 90), fold_in._train
    ).scores(slice(0, 20))
    np.testing.assert_array_equal(again, expected)
    known = Known.of(stored, train, 48)
    assert model()._weights(train, 0, known, NOWHERE) == PairWeights(4)
    assert model(halvings=1.0)._weights(train, 0, known, NOWHERE) == PairWeights(1)
    assert model()._weights(replace(train, times=None), 0, known, NOWHERE) == EQUAL
    plain = model(halvings=0.0).fit(train, 0)
    assert plain.filter_side.steps is None


def test_weights_of_another_length_are_refused(tmp_path):
    train = timed(drift=True)
    found = model(halvings=4.0).fit(train, 0)
    side = replace(found.filter_side, steps=found.filter_side.steps[1:])
    folder = Index.of(found.representations, train, filter_side=side).save(tmp_path / "index")
    with pytest.raises(L2QError, match=r"filter\.weights\.npy is uint8 .*expected uint8"):
        load_index(folder)


def test_only_what_ends_before_it_is_asked_goes_ahead(tmp_path):
    table = tmp_path / "events.csv"
    rows = [
        f"u{user},i{(user * 7 + at) % 23},{1_600_000_000 + user * 100 + at}"
        for user in range(40)
        for at in range(9)
    ]
    table.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    events = l2q.read_events(table)
    assert events.ahead
    for how, ahead in {
        "time": True,
        "random": False,
        "last": False,
        "users": False,
        "cluster": False,
    }.items():
        train, test = l2q.split(events, how)
        assert (train.ahead, len(test) > 0) == (ahead, True)
    train, test = l2q.split(events, "time")
    cache.write(tmp_path / "kept.npz", Dataset("kept", train, test), bytes(32))
    assert cache.read(tmp_path / "kept.npz", "kept", bytes(32)).train.ahead
    assert not l2q.read_events(table, time="none").ahead
