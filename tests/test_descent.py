"""Discrete coordinate descent against naive sums and brute force over flips, in float64."""

import numba
import numpy as np
import pytest
from presets import descent
from scipy import sparse

from l2q.errors import L2QError
from l2q.fitted.descent import descend, fit, fit_codes, fit_rows, half_round, initial_state
from l2q.fitted.state import Packed, Side, State
from l2q.interactions import Interactions

WEIGHT = 6.0
LENGTH = 40  # of lists


def problem(listed: bool, seed=0, shape=(40, 55), rank=7):
    """A base and lists of mixed lengths (none for some rows and columns) whose targets are not the base's."""
    rng = np.random.default_rng(seed)
    X, Y = rng.standard_normal((shape[0], rank)), rng.standard_normal((shape[1], rank))
    chosen = (rng.random(shape) < rng.random((shape[0], 1)) * 0.4) & listed
    chosen[3], chosen[:, 4] = False, False
    users, items = np.nonzero(chosen)
    targets = (X @ Y.T + rng.standard_normal(shape))[chosen]
    return (X, Y), sparse.csr_array((targets, (users, items)), shape=shape)


def naive(users: Side, items: Side, base, lists) -> float:
    scores = (users.scales[:, None] * users.codes) @ (items.scales[:, None] * items.codes).T
    entries = lists.tocoo()
    errors = entries.data - scores[entries.row, entries.col]
    return np.square(base[0] @ base[1].T - scores).sum() + WEIGHT * np.square(errors).sum()


@pytest.mark.parametrize("bits", [16, 37])
@pytest.mark.parametrize("listed", [False, True], ids=["no lists", "lists"])
def test_no_half_round_raises_the_objective(listed, bits):
    base, lists = problem(listed)
    state = initial_state(base, lists, bits, descent().itq_iterations, seed=0)
    values = [naive(state.users, state.items, base, lists)]
    for _ in range(6):
        users = half_round(state.users, *base, lists, state.items, WEIGHT, sweeps=1)
        values.append(naive(users, state.items, base, lists))
        items = half_round(state.items, *base[::-1], lists.T.tocsr(), users, WEIGHT, sweeps=1)
        values.append(naive(users, items, base, lists))
        state = State(0, users, items, lists)
        assert users.scales.min() > 0
        assert items.scales.min() > 0
    assert np.all(np.diff(values) <= 1e-12 * values[0])
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("bits", [16, 37])
@pytest.mark.parametrize("listed", [False, True], ids=["no lists", "lists"])
def test_stops_where_no_single_flip_and_no_scale_is_better(listed, bits):
    base, lists = problem(listed, seed=1)
    state = initial_state(base, lists, bits, descent().itq_iterations, seed=0)
    users = half_round(state.users, *base, lists, state.items, WEIGHT, sweeps=1000)
    best = naive(users, state.items, base, lists)
    for row in range(len(users.codes)):
        for bit in range(bits):
            users.codes[row, bit] *= -1
            assert naive(users, state.items, base, lists) >= best - 1e-9
            users.codes[row, bit] *= -1
        for factor in (0.999, 1.001):
            scales = users.scales.copy()
            scales[row] *= factor
            assert naive(Side(users.codes, scales), state.items, base, lists) > best


def test_takes_the_better_sign_of_a_whole_row():
    """From the opposite of its target, one row with one bit: codes turn, the scale stays positive."""
    side, others = Side(np.int8([[-1]]), np.ones(1)), Side(np.int8([[1], [-1]]), np.array([1.0, 2.0]))
    X, Y = np.ones((1, 1)), np.array([[3.0], [-6.0]])
    side = half_round(side, X, Y, sparse.csr_array((1, 2), dtype=float), others, WEIGHT)
    assert (side.codes.tolist(), side.scales.tolist()) == ([[1]], [3.0])


def test_without_a_weight_a_list_counts_as_a_quarter_of_the_catalogue():
    rng = np.random.default_rng(3)
    base = rng.standard_normal((30, 5)), rng.standard_normal((50, 5))
    scores = base[0] @ base[1].T
    lists = sparse.csr_array(np.where(scores > 2, scores, 0))
    longest = (scores > 2).sum(axis=1).max()
    implied, stated, other = (
        fit(base, lists, 12, descent(rounds=1, intruder_rounds=0, weight=weight)).items.scales
        for weight in (None, 50 / (4 * longest), 50)
    )
    np.testing.assert_array_equal(implied, stated)
    assert not np.array_equal(implied, other)


def test_lists_decide_by_their_weight():
    """One bit, base 1 and a listed target of -1 at weight w: b = 1 - w, so a = |1 - w| / (1 + w)."""
    side, others = Side(np.int8([[1]]), np.ones(1)), Side(np.int8([[1]]), np.ones(1))
    lists = sparse.csr_array([[-1.0]])
    for weight, code, scale in ((0.5, 1, 1 / 3), (3.0, -1, 1 / 2)):
        fitted = half_round(side, np.ones((1, 1)), np.ones((1, 1)), lists, others, weight)
        assert fitted.codes.tolist() == [[code]]
        assert fitted.scales[0] == pytest.approx(scale)


def test_a_row_without_base_and_lists_has_scale_zero():
    base, lists = problem(listed=True)
    base[0][3] = 0
    state = initial_state(base, lists, 16, descent().itq_iterations, seed=0)
    scales = half_round(state.users, *base, lists, state.items, WEIGHT).scales
    assert scales[3] == 0
    assert np.delete(scales, 3).min() > 0


def test_the_start_sees_only_the_scores():
    """Another factorization of twice the scores: the same codes, scales up by sqrt(2)."""
    base, lists = problem(listed=False)
    other = tuple(np.hstack([factor, factor]) for factor in base)
    first, second = initial_state(base, lists, 5, 2, 0), initial_state(other, lists, 5, 2, 0)
    for side in ("users", "items"):
        a, b = getattr(first, side), getattr(second, side)
        assert np.array_equal(a.codes, b.codes)
        np.testing.assert_allclose(b.scales, np.sqrt(2) * a.scales, rtol=1e-6)


@pytest.mark.parametrize("bits", [5, 7, 48])
def test_a_quick_start_is_as_near_the_scores_as_the_plain_one(bits):
    base, lists = problem(listed=True, shape=(90, 120))
    errors = []
    for quick in (False, True):
        state = initial_state(base, lists, bits, 3, 0, quick)
        assert state.users.codes.shape == (90, bits)
        users = half_round(state.users, *base, lists, state.items, WEIGHT)
        errors.append(naive(users, state.items, base, lists))
    assert errors[1] < 1.1 * errors[0]


def test_more_bits_than_ranks_recover_the_scores():
    base, _ = problem(listed=False)
    errors = []
    for bits in (7, 64, 512):
        *_, state = descend(base, None, bits, descent(rounds=5, intruder_rounds=0))
        errors.append(
            naive(state.users, state.items, base, state.lists) / np.square(base[0] @ base[1].T).sum()
        )
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def test_intruders_join_the_lists_below_their_targets():
    base, lists = problem(listed=True)
    options = descent(rounds=1, intruder_rounds=1, intruders=9, weight=WEIGHT)
    exclude = Interactions.from_pairs(
        *np.nonzero(np.random.default_rng(5).random(lists.shape) < 0.2), *lists.shape
    )
    before, after, *_ = descend(base, lists, 24, options, exclude=exclude)
    assert before.lists is lists
    scores = before.items.scales.astype(np.float32) * (
        before.users.codes @ before.items.codes.T.astype(np.float32)
    )
    S = base[0] @ base[1].T
    for user in range(lists.shape[0]):
        own = dict(
            zip(
                *(part[slice(*lists.indptr[user : user + 2])] for part in (lists.indices, lists.data)),
                strict=True,
            )
        )
        candidates = [i for i in np.argsort(-scores[user], kind="stable") if i not in exclude[user]][:9]
        floor = min(own.values(), default=np.inf)
        expected = own | {i: min(S[user, i], floor) for i in candidates if i not in own}
        row = slice(*after.lists.indptr[user : user + 2])
        assert len(after.lists.indices[row]) == len(expected)
        for item, target in zip(after.lists.indices[row], after.lists.data[row], strict=True):
            assert target == pytest.approx(expected[item], rel=1e-12)


def same(a: State, b: State) -> bool:
    return all(
        np.array_equal(getattr(getattr(a, side), part), getattr(getattr(b, side), part))
        for side in ("users", "items")
        for part in ("codes", "scales")
    )


def test_resumes_and_repeats_to_the_bit():
    base, lists = problem(listed=True)
    base, lists = tuple(f.astype(np.float32) for f in base), lists.astype(np.float32)
    options = descent(rounds=2, intruder_rounds=1, intruders=5)
    states = list(descend(base, lists, 48, options, seed=3))
    assert [state.step for state in states] == [1, 2, 3, 4]
    for state in states[:-1]:
        *_, resumed = descend(base, lists, 48, options, seed=3, state=state)
        assert same(resumed, states[-1])
    assert not same(states[-1], list(descend(base, lists, 48, options, seed=4))[-1])
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert same(states[-1], list(descend(base, lists, 48, options, seed=3))[-1])
    finally:
        numba.set_num_threads(threads)


def test_one_new_row_alone_equals_itself_among_others():
    base, lists = problem(listed=True)
    state = initial_state(base, lists, 40, descent().itq_iterations, seed=0)
    whole = half_round(state.users, *base, lists, state.items, WEIGHT)
    A = state.items.codes * state.items.scales[:, None]
    row = Side(state.users.codes[7:8], state.users.scales[7:8])
    alone = fit_rows(row, base[0][7:8], base[1].T @ A, A.T @ A, lists[7:8], Packed.of(state.items), WEIGHT)
    assert np.array_equal(alone.codes, whole.codes[7:8])
    assert alone.scales[0] == pytest.approx(whole.scales[7])


def test_codes_of_embeddings_keep_their_rankings():
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((80, 6)), rng.standard_normal((60, 6))
    exclude = Interactions.from_pairs(np.arange(80), np.arange(80) % 60, 80, 60)
    seen = []
    codes = fit_codes(
        users, items, 192, descent(), length=10, exclude=exclude, progress=lambda *step: seen.append(step)
    )
    scores, exact = (
        codes.items.scales[:, 0] * (codes.users.values @ codes.items.values.T.astype(int)),
        users @ items.T,
    )
    scores[exclude.users, exclude.items] = exact[exclude.users, exclude.items] = -np.inf
    overlap = [
        len(set(np.argsort(-a)[:10]) & set(np.argsort(-b)[:10])) for a, b in zip(scores, exact, strict=True)
    ]
    assert np.mean(overlap) > 9
    assert seen == [(80, 80, "lists")] + [(step, 43, "rounds") for step in range(1, 44)]

    assert codes.binary
    assert codes.users.scales is None
    assert (codes.dims, codes.scale_dtype) == ((192,), "float16")
    assert np.array_equal(codes.items.scales, codes.items.scales.astype(np.float16))
    assert codes.items.scales.max() == 1024


def test_user_norms_do_not_matter():
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((30, 5)), rng.standard_normal((40, 5))
    options = descent(rounds=1)
    stretched = users * 2.0 ** rng.integers(-5, 5, (30, 1))
    expected, found = (fit_codes(side, items, 32, options, LENGTH) for side in (users, stretched))
    assert np.array_equal(expected.items.values, found.items.values)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e30])
def test_a_user_without_scores_leaves_the_others_alone(scale):
    """A direction that no item has: all of the last user's scores are zero, whatever its row's size."""
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((60, 8)), rng.standard_normal((50, 8))
    users[:, 7] = items[:, 7] = 0
    options = descent(rounds=1, intruder_rounds=0)
    alone = fit_codes(users[:-1], items, 48, options, LENGTH)
    users[-1] = np.eye(8)[7] * scale
    together = fit_codes(users, items, 48, options, LENGTH)
    same = (alone.users.values == together.users.values[:-1]).mean()
    assert same > 0.9  # not all: the start's rotation has seen one row more


def test_large_values_do_not_overflow():
    rng = np.random.default_rng(0)
    users, items = rng.standard_normal((30, 5)), rng.standard_normal((40, 5))
    expected, found = (
        fit_codes(users * factor, items * factor, 32, descent(rounds=1), LENGTH) for factor in (1, 2.0**100)
    )
    assert np.array_equal(expected.items.values, found.items.values)


def test_rows_without_any_score_are_refused():
    with pytest.raises(L2QError, match="there is no ranking to keep"):
        fit_codes(np.zeros((4, 3)), np.ones((5, 3)), 8, descent(), LENGTH)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"rounds": 0}, "model.descent.rounds=0 must be a whole number of at least 1"),
        ({"intruder_rounds": -1}, "model.descent.intruder_rounds=-1 must be a whole number of at least 0"),
        ({"intruders": -1}, "descent.intruders=-1"),
        ({"sweeps": 1.5}, "descent.sweeps=1.5"),
        ({"itq_iterations": -1}, "descent.itq_iterations=-1"),
        ({"weight": -1.0}, "descent.weight=-1.0"),
    ],
)
def test_options_that_no_fit_can_have(option, message):
    with pytest.raises(L2QError, match=message):
        descent(**option)


def test_fit_equals_the_last_state():
    base, lists = problem(listed=True)
    options = descent(rounds=1, intruders=5)
    codes = fit(base, lists, 16, options)
    *_, state = descend(base, lists, 16, options)
    assert np.array_equal(codes.users.values, state.users.codes)
    np.testing.assert_allclose(
        codes.items.scales[:, 0] / 1024, state.items.scales / state.items.scales.max(), rtol=1e-3
    )
