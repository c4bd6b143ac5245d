"""The search protocol: literal rankings, ties, exclusions; dense and packed give the same bits."""

import sys

import numpy as np
import pytest
import torch

import l2q.retrieval.index
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows
from l2q.retrieval.index import DenseIndex, PackedIndex, similar_items

INF = np.inf
BACK_ENDS = {"dense": DenseIndex, "packed": PackedIndex.from_representations}


def signs(*rows: str) -> np.ndarray:
    return np.array([[1 if sign == "+" else -1 for sign in row] for row in rows], np.int8)


def literal() -> Representations:
    """Two segments, of 3 and 1 values. Products with user 0 (+++ +) and user 1 (--- -):

    item     0     1     2     3     4
    segment 0   3     1    -1     1    -3
    segment 1   1    -1     1     1    -1
    """
    return Representations(
        users=Rows(signs("++++", "----"), np.array([[1, 2], [0.5, 0]], np.float32)),
        items=Rows(
            signs("++++", "++--", "+--+", "-+++", "----"),
            np.array([[1, 1], [1, 1], [4, 1], [1, 0], [0, 3]], np.float32),
        ),
        dims=(3, 1),
        weights=np.array([1, 0.5], np.float32),
    )


@pytest.fixture(params=sorted(BACK_ENDS))
def build(request):
    return BACK_ENDS[request.param]


def test_literal_scores(build):
    scores, items = build(literal()).search(np.array([0, 1]), 5)
    # user 0: 3 + 1, 1 - 1, -4 + 1, 1 + 0, 0 - 3; user 1: segment 0 only: -1.5, -.5, 2, -.5, 0
    np.testing.assert_array_equal(scores, np.array([[4, 1, 0, -3, -3], [2, 0, -0.5, -0.5, -1.5]], np.float32))
    np.testing.assert_array_equal(items, [[0, 3, 1, 2, 4], [2, 4, 1, 3, 0]])
    assert scores.dtype == np.float32
    assert items.dtype == np.int32


def test_users_in_any_order_and_repeated(build):
    _, items = build(literal()).search(np.array([1, 0, 1]), 1)
    np.testing.assert_array_equal(items, [[2], [0], [2]])


def test_exclusion_belongs_to_the_user_id(build):
    exclude = Interactions.from_pairs([0, 0, 1], [0, 1, 2], 2, 5)
    _, items = build(literal()).search(np.array([1, 0]), 2, exclude)
    np.testing.assert_array_equal(items, [[4, 1], [3, 2]])


def test_query_rows_have_their_own_exclusion(build):
    representations = literal()
    index = build(representations)
    query = Rows(representations.users.values[1:], representations.users.scales[1:])
    exclude = Interactions.from_pairs([0], [4], 1, 5)
    scores, items = index.search(query, 2, exclude)
    np.testing.assert_array_equal(items, [[2, 1]])
    np.testing.assert_array_equal(scores, np.array([[2, -0.5]], np.float32))


@pytest.mark.parametrize("k", [5, 9])
def test_padding_where_candidates_run_out(build, k):
    exclude = Interactions.from_pairs([0] * 3 + [1] * 5, [0, 2, 4, 0, 1, 2, 3, 4], 2, 5)
    scores, items = build(literal()).search(np.array([0, 1]), k, exclude)
    np.testing.assert_array_equal(items, [[3, 1] + [-1] * (k - 2), [-1] * k])
    np.testing.assert_array_equal(scores, np.array([[1, 0] + [-INF] * (k - 2), [-INF] * k], np.float32))


@pytest.mark.parametrize("k", [1, 3, 39, 40])
def test_ties_go_to_the_lower_id(build, k):
    item_values = np.tile(signs("+-", "++"), (20, 1))
    representations = Representations(Rows(signs("++")), Rows(item_values), (2,), np.ones(1, np.float32))
    _, items = build(representations).search(np.array([0]), k)
    np.testing.assert_array_equal(items[0], [*range(1, 40, 2), *range(0, 40, 2)][:k])


def test_all_equal_scores_from_zero_scales(build):
    representations = literal()
    zero = Rows(representations.items.values, np.zeros((5, 2), np.float32))
    changed = Representations(representations.users, zero, representations.dims, representations.weights)
    _, items = build(changed).search(np.array([0, 1]), 3)
    np.testing.assert_array_equal(items, [[0, 1, 2]] * 2)


@pytest.mark.parametrize("dims", [(1,), (63,), (64,), (65,), (130,), (7, 64, 65), (256, 256, 256)])
def test_back_ends_agree_with_a_plain_loop(build, dims):
    rng = np.random.default_rng(sum(dims))
    segments, num_users, num_items = len(dims), 9, 57

    def side(rows):
        values = rng.choice(np.array([-1, 1], np.int8), (rows, sum(dims)))
        return Rows(values, rng.choice(np.float32([0, 0.3, 0.7, 1.1]), (rows, segments)))

    weights = rng.random(segments).astype(np.float32)
    representations = Representations(side(num_users), side(num_items), dims, weights)
    exclude = Interactions.from_pairs(
        rng.integers(num_users, size=200), rng.integers(num_items, size=200), num_users, num_items
    )
    scores, items = build(representations).search(np.arange(num_users), num_items, exclude)
    offsets = representations.offsets
    for user in range(num_users):
        expected = {}
        for item in set(range(num_items)) - set(exclude[user].tolist()):
            total = np.float32(0)
            for s in range(segments):
                part = slice(offsets[s], offsets[s + 1])
                dot = np.float32(
                    representations.users.values[user, part].astype(int)
                    @ representations.items.values[item, part].astype(int)
                )
                scale = weights[s] * representations.users.scales[user, s]
                total += scale * dot * representations.items.scales[item, s]
            expected[item] = total
        order = sorted(expected, key=lambda item: (-expected[item], item))
        np.testing.assert_array_equal(items[user, : len(order)], order)
        np.testing.assert_array_equal(scores[user, : len(order)], [expected[item] for item in order])
        assert (items[user, len(order) :] == -1).all()


@pytest.mark.parametrize("kind", ["random", "ties", "zeros"])
def test_back_ends_agree_at_every_width(kind):
    """Dense and packed to the bit, d from 1 to 130: ties and zero scales forced, k above what is left, users who
    have everything."""
    rng = np.random.default_rng(11)
    for dim in range(1, 131):
        dims = (dim, 1 + 37 * dim % 130)[: 1 + dim % 2]

        def side(rows, dims=dims):
            codes = rng.choice(np.array([-1, 1], np.int8), (rows, sum(dims)))
            if kind == "ties":
                codes = codes[rng.integers(3, size=rows)]
            pool = {"random": rng.random(64), "ties": [0.5, 1], "zeros": [0, 0, -0.0, 0.7]}[kind]
            return Rows(codes, rng.choice(np.float32(pool), (rows, len(dims))))

        representations = Representations(side(5), side(40), dims, rng.random(len(dims)).astype(np.float32))
        pairs = rng.integers(5, size=120), rng.integers(40, size=120)
        owned = [
            np.concatenate([one, other]) for one, other in zip(pairs, ([4] * 40, range(40)), strict=True)
        ]
        exclude = Interactions.from_pairs(*owned, 5, 40)
        dense, packed = (
            make(representations).search(np.arange(5), 50, exclude) for make in BACK_ENDS.values()
        )
        np.testing.assert_array_equal(dense[1], packed[1])
        np.testing.assert_array_equal(dense[0], packed[0])
        assert (packed[1][4] == -1).all()


@pytest.mark.parametrize("library", [torch, None], ids=["torch", "numpy"])
def test_float_values_rank_as_in_float64(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "torch", library)
    rng = np.random.default_rng(3)
    users, items = rng.standard_normal((40, 12)), rng.standard_normal((300, 12))
    representations = Representations(
        Rows(users.astype(np.float32)), Rows(items.astype(np.float32)), (12,), np.ones(1, np.float32)
    )
    scores, found = DenseIndex(representations).search(np.arange(40), 10)
    exact = users @ items.T
    np.testing.assert_array_equal(found, np.argsort(-exact, axis=1)[:, :10])
    np.testing.assert_allclose(scores, np.sort(exact, axis=1)[:, :-11:-1], rtol=1e-5)


def test_chunks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(4)
    representations = Representations(
        Rows(rng.choice(np.array([-1, 1], np.int8), (50, 8))),
        Rows(rng.choice(np.array([-1, 1], np.int8), (70, 8))),
        (8,),
        np.ones(1, np.float32),
    )
    whole = DenseIndex(representations)
    monkeypatch.setattr("l2q.retrieval.index._CACHE_BYTES", 1000)  # of three queries
    tiny = DenseIndex(representations)
    assert (tiny._chunk, whole._chunk > 50) == (3, True)
    for one, other in zip(whole.search(np.arange(50), 20), tiny.search(np.arange(50), 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_tiles_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(4)

    def side(rows):
        codes = rng.choice(np.array([-1, 1], np.int8), (rows, 14))
        return Rows(codes, rng.choice(np.array([0.5, 1, 2], np.float32), (rows, 2)))

    representations = Representations(side(30), side(70), (8, 6), np.array([1, 0.25], np.float32))
    excluded = Interactions.from_pairs(*np.nonzero(rng.random((30, 70)) < 0.4), 30, 70)
    users = np.array([7, 3, 3, 29, 0])
    whole = DenseIndex(representations).search(users, 50, excluded)
    monkeypatch.setattr(l2q.retrieval.index, "TILE", 16)  # does not divide 70
    for one, other in zip(whole, DenseIndex(representations).search(users, 50, excluded), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (whole[1] == -1).any()  # some users have fewer than 50 items left


def test_chunk_is_halved_when_memory_runs_out(monkeypatch):
    index = DenseIndex(literal())
    expected = index.search(np.array([0, 1, 0, 1, 0]), 3)
    search, sizes = DenseIndex._search, []

    def scarce(self, side, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise MemoryError
        search(self, side, rows, *rest)

    monkeypatch.setattr(DenseIndex, "_search", scarce)
    found = index.search(np.array([0, 1, 0, 1, 0]), 3)
    np.testing.assert_array_equal(found[1], expected[1])
    assert sizes == [5, 2, 2, 1]


def test_a_chunk_that_ran_out_of_memory_between_two_tiles_is_ranked_anew(monkeypatch):
    users, rank, calls = np.array([0, 1, 0]), l2q.retrieval.index._rank, []
    exclude = Interactions.from_pairs([0, 1, 1], [3, 0, 4], 2, 5)
    expected = DenseIndex(literal()).search(users, 4, exclude)

    def scarce(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise MemoryError
        rank(*arguments)

    monkeypatch.setattr(l2q.retrieval.index, "TILE", 2)
    monkeypatch.setattr(l2q.retrieval.index, "_rank", scarce)
    for one, other in zip(DenseIndex(literal()).search(users, 4, exclude), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(calls) == 2 + 3 * 3  # a tile, the failure, three tiles of one user after the other


def test_no_users(build):
    scores, items = build(literal()).search(np.array([], np.int64), 3)
    assert scores.shape == items.shape == (0, 3)


def test_similar_items_of_codes(build):
    """By the roots of both items' scales and the segments' weights."""
    # item 0 (+++ +, scales 1 1) with the others: 1 - .5, -2 + .5, 1 + 0, 0 - .5 x root 3
    # item 4 (--- -, scales 0 3): .5 x root 3 times -1, 1, -1, 0
    scores, items = similar_items(build(literal()), np.array([0, 4]), 5)
    np.testing.assert_array_equal(items, [[3, 1, 4, 2, -1], [1, 3, 0, 2, -1]])
    half = np.sqrt(3) / 2
    np.testing.assert_allclose(scores[:, :4], [[1, 0.5, -half, -1.5], [half, 0, -half, -half]], rtol=1e-6)
    assert (scores[:, 4] == -INF).all()


@pytest.mark.parametrize("scaled", [True, False])
def test_similar_items_are_those_of_a_naive_loop(build, scaled):
    rng = np.random.default_rng(0)
    dims, weights = (13, 8, 20), np.float32([0.25, 1, 0.5])
    scales = rng.choice(np.float32([0.25, 1, 4, 9]), (50, 3))
    rows = Rows(rng.choice(np.int8([-1, 1]), (50, 41)), scales if scaled else None)
    rows.values[1::5], scales[1::5] = rows.values[::5], scales[::5]  # equal items: the lower row first
    index = build(Representations(rows, rows, dims, weights))
    recommended = index.search(np.arange(50), 7)[1]
    scores, items = similar_items(index, np.arange(50), 7)
    roots = np.sqrt(scales) if scaled else np.ones_like(scales)
    parts = np.split(rows.values.astype(int), np.cumsum(dims)[:-1], axis=1)
    for i in range(50):
        near = {
            j: float(sum(weights[s] * roots[i, s] * (p[i] @ p[j]) * roots[j, s] for s, p in enumerate(parts)))
            for j in range(50)
            if j != i
        }
        nearest = sorted(near, key=lambda j: (-near[j], j))[:7]
        np.testing.assert_array_equal(items[i], nearest)
        np.testing.assert_array_equal(scores[i], [near[j] for j in nearest])
    np.testing.assert_array_equal(index.search(np.arange(50), 7)[1], recommended)  # by the scales themselves


def test_similar_items_of_float_values_is_cosine():
    items = Rows(np.array([[2, 0], [3, 3], [0, 5], [0, 0], [1, 0.1]], np.float32))
    representations = Representations(items, items, (2,), np.ones(1, np.float32))
    scores, found = similar_items(DenseIndex(representations), np.array([0]), 4)
    np.testing.assert_array_equal(found[0], [4, 1, 2, 3])
    np.testing.assert_allclose(scores[0], [1 / np.sqrt(1.01), np.sqrt(0.5), 0, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("users", "k", "exclude", "message"),
    [
        ([0], 0, None, "k is 0"),
        ([2], 1, None, "user ids 2 .. 2"),
        ([-1], 1, None, "user ids -1"),
        ([0], 1, Interactions.from_pairs([0], [0], 2, 4), "2 users x 4 items"),
    ],
)
def test_bad_questions(build, users, k, exclude, message):
    with pytest.raises(L2QError, match=message):
        build(literal()).search(np.array(users), k, exclude)


def test_float_users_against_packed_items():
    users = Rows(np.array([[0.5, -1, 2, 0.25]], np.float32))
    items = Rows(signs("+++-", "+-+-", "----"), np.array([[1], [1], [-2]], np.float32))
    representations = Representations(users, items, (4,), np.ones(1, np.float32))
    for build in BACK_ENDS.values():  # .5 - 1 + 2 - .25, .5 + 1 + 2 - .25, -2 (-.5 + 1 - 2 - .25): all exact
        scores, found = build(representations).search(np.array([0]), 3)
        np.testing.assert_array_equal(scores, np.array([[3.5, 3.25, 1.25]], np.float32))
        np.testing.assert_array_equal(found, [[2, 1, 0]])


def test_packed_index_refuses_float_items():
    values = Rows(np.ones((2, 4), np.float32))
    with pytest.raises(L2QError, match="float"):
        PackedIndex.from_representations(Representations(values, values, (4,), np.ones(1, np.float32)))
