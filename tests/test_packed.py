import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.codegen import get_host_cpu_features
from oracles import top_k_reference

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import packed
from l2q.kernels.packed import PackedItems, top_k
from l2q.kernels.packing import pack

MODES = ("scaled", "hamming", "asymmetric", "asymmetric, no scales")


def signs(rng, rows, dim):
    return rng.choice(np.array([-1, 1], np.int8), size=(rows, dim))


def problem(seed, mode, dims, num_queries, num_items, num_excluded=0, kind="random"):
    """Queries, factors, codes, scales, exclusions; ``kind`` makes ties, zeros and opposite signs likely."""
    rng = np.random.default_rng(seed)
    codes = signs(rng, num_items, sum(dims))
    scales = rng.uniform(-1, 2, (num_items, len(dims))).astype(np.float32)
    factors = rng.uniform(-1, 2, (num_queries, len(dims))).astype(np.float32)
    if kind == "ties":
        codes = codes[rng.integers(0, min(3, num_items), num_items)] if num_items else codes
        scales[:] = rng.choice(np.float32([0.5, 0.5, 1]), scales.shape)
    if kind == "zeros":
        scales[rng.random(scales.shape) < 0.7] = 0
        scales[rng.random(scales.shape) < 0.3] = -0.0
        factors[rng.random(factors.shape) < 0.3] = -0.0
    if kind in ("positive", "long and short"):
        scales = np.abs(scales) ** (8 if kind == "long and short" else 1)
    if mode == "hamming":
        factors[:] = 1
    queries = signs(rng, num_queries, sum(dims))
    if mode.startswith("asymmetric"):
        queries = rng.choice(np.float32([-1.5, 0, 0.1, 3]), queries.shape) * rng.random(
            queries.shape, np.float32
        )
        if kind == "zeros":
            queries[rng.random(num_queries) < 0.3] = 0
        if kind == "one large":
            queries[np.arange(num_queries), rng.integers(0, sum(dims), num_queries)] = 1000
        queries *= np.float32({"least": 1e-44, "largest": 2e35}.get(kind, 1))
    pairs = rng.integers(0, [max(num_queries, 1), max(num_items, 1)], (num_excluded, 2))
    exclude = (
        Interactions.from_pairs(pairs[:, 0], pairs[:, 1], num_queries, num_items) if num_excluded else None
    )
    return queries, factors, codes, scales if mode in ("scaled", "asymmetric") else None, exclude


def kernel(queries, factors, codes, dims, scales, k, exclude=None):
    if queries.dtype == np.int8:
        queries = pack(queries, dims)
    found = top_k(queries, factors, PackedItems.from_packed(pack(codes, dims), dims, scales), k, exclude)
    # in whatever order items lie
    longest = PackedItems.longest_first(pack(codes, dims), dims, scales)
    assert_same(top_k(queries, factors, longest, k, exclude), found)
    return found


def assert_same(found, expected):
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])  # to the bit, but for the sign of zero
    assert (found[0].dtype, found[1].dtype) == (np.float32, np.int32)


def test_scores_by_hand():
    # <q, q_i> = 3, 1, -3, 1 of 3 bits; then one segment of 1 bit: +1, +1, -1, -1.
    queries = np.array([[1, 1, 1, 1]], np.int8)
    codes = np.array([[1, 1, 1, 1], [1, -1, 1, 1], [-1, -1, -1, -1], [1, 1, -1, -1]], np.int8)
    scales = np.array([[0.5, 1], [2, 0.25], [1, 4], [2, -1]], np.float32)
    factors = np.array([[2, 1]], np.float32)
    # 2*3*.5 + 1 = 4; 2*1*2 + .25 = 4.25; 2*-3*1 - 4 = -10; 2*1*2 + 1 = 5
    scores, items = kernel(
        queries, factors, codes, (3, 1), scales, 5, Interactions.from_pairs([0], [1], 1, 4)
    )
    np.testing.assert_array_equal(items, [[3, 0, 2, -1, -1]])
    np.testing.assert_array_equal(scores, [[5, 4, -10, -np.inf, -np.inf]])


def test_asymmetric_by_hand():
    queries = np.array([[1, -2, 4, 8, 0.5]], np.float32)
    codes = np.array([[1, 1, 1, 1, 1], [-1, -1, 1, 1, -1]], np.int8)
    scores, items = kernel(queries, np.float32([2]), codes, (5,), np.float32([[1], [3]]), 2)
    np.testing.assert_array_equal(items, [[1, 0]])
    np.testing.assert_array_equal(scores, [[2 * 12.5 * 3, 2 * 11.5]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_every_width(mode, segments):
    for dim in range(1, 131):
        dims = tuple(1 + (dim - 1 + 37 * s) % 130 for s in range(segments))
        queries, factors, codes, scales, exclude = problem(dim, mode, dims, 1 + dim % 9, 70, 50)
        expected = top_k_reference(queries, factors, codes, dims, scales, 6, exclude)
        assert_same(kernel(queries, factors, codes, dims, scales, 6, exclude), expected)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    mode=st.sampled_from(MODES),
    kind=st.sampled_from(
        ["random", "positive", "long and short", "ties", "zeros", "one large", "least", "largest"]
    ),
    dims=st.lists(st.integers(1, 130), min_size=1, max_size=4),
    num_queries=st.sampled_from([0, 1, 2, 5, 8, 9, 70, 131]),
    num_items=st.sampled_from([0, 1, 15, 16, 17, 64, 65, 300]),
    k=st.sampled_from([1, 2, 7, 20, 400]),
    excluded_share=st.sampled_from([0, 0.1, 0.9, 3]),
)
def test_equals_reference(seed, mode, kind, dims, num_queries, num_items, k, excluded_share):
    num_excluded = int(excluded_share * num_queries * num_items)
    queries, factors, codes, scales, exclude = problem(
        seed, mode, dims, num_queries, num_items, num_excluded, kind
    )
    expected = top_k_reference(queries, factors, codes, dims, scales, k, exclude)
    assert_same(kernel(queries, factors, codes, dims, scales, k, exclude), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_queries", [1, 130, 1100])
@pytest.mark.parametrize("dims", [(130, 1000), (1130,)])
@pytest.mark.parametrize("kind", ["random", "positive", "long and short"])
def test_many_tiles_and_parts(mode, num_queries, dims, kind):
    """142 bytes an item: a tile holds 28 blocks of 64 items. 1,100 queries are more than go together."""
    queries, factors, codes, scales, exclude = problem(
        1, mode, dims, num_queries, 4000, 900 * min(num_queries, 130), kind
    )
    expected = top_k_reference(queries[:3], factors[:3], codes, dims, scales, 30, exclude)
    found = kernel(queries, factors, codes, dims, scales, 30, exclude)
    assert_same([part[:3] for part in found], expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_queries", [1, 2, 5])
@pytest.mark.parametrize("dims", [(130, 1000), (1130,)])
@pytest.mark.parametrize("kind", ["positive", "ties", "long and short"])
@pytest.mark.parametrize("one_thread", [0, 300_000])
def test_threads_share_what_is_left_of_a_few_queries(mode, num_queries, dims, kind, one_thread, monkeypatch):
    """Behind the first tile one thread goes on, or all do, whatever is left."""
    monkeypatch.setattr(packed, "ONE_THREAD", one_thread)
    queries, factors, codes, scales, exclude = problem(2, mode, dims, num_queries, 4000, 900, kind)
    if scales is not None:
        scales = np.abs(scales)
    expected = top_k_reference(queries, factors, codes, dims, scales, 30, exclude)
    assert_same(kernel(queries, factors, codes, dims, scales, 30, exclude), expected)
    assert numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS


@pytest.mark.parametrize("mode", ["scaled", "asymmetric"])
@pytest.mark.parametrize("dims", [(256,), (100, 156)])
@pytest.mark.parametrize("num_queries", [1, 9])
def test_a_search_of_the_longest_first_ends_before_the_short_ones(mode, dims, num_queries):
    """Items that grow after it was noted how far the last blocks reach would be found, if they were looked at."""
    queries, factors, codes, scales, _ = problem(4, mode, dims, num_queries, 40_000, 0, "long and short")
    factors = np.abs(factors) + np.float32(0.5)
    if mode == "scaled":
        queries = pack(queries, dims)
    items = PackedItems.longest_first(pack(codes, dims), dims, scales)
    expected = top_k(queries, factors, items, 5)
    items.scales[-40:] *= 1e6
    assert_same(top_k(queries, factors, items, 5), expected)
    items.scales[0] *= 2
    assert (top_k(queries, factors, items, 5)[0] > expected[0]).any()


@pytest.mark.parametrize("num_queries", [1, 9])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_pass_ends_where_counts_rule_its_items_out(num_queries, threads):
    """Told half of how far the items reach, it ends too early: what it loses shows that it ends early at all."""
    rng = np.random.default_rng(5)
    codes, queries = signs(rng, 40_000, 256), pack(signs(rng, num_queries, 256), (256,))
    items = PackedItems.longest_first(pack(codes, (256,)), (256,), np.ones((40_000, 1), np.float32))
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        expected = top_k(queries, np.float32([1]), items, 20)
        items.reach[:] = 0.5  # a bound of 128, which is above every K-th best score
        found = top_k(queries, np.float32([1]), items, 20)
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert (expected[0] < 128).all()
    assert (found[0] != expected[0]).any(axis=1).all()


@pytest.mark.parametrize("order", [1, -1])
def test_sorted_catalogue(order):
    """Every item a new best, and none but the first k."""
    scales = np.sort(np.arange(1, 501, dtype=np.float32))[::order, None]
    codes = np.ones((500, 8), np.int8)
    scores, items = kernel(np.ones((9, 8), np.int8), np.float32([1]), codes, (8,), scales, 3)
    np.testing.assert_array_equal(items, [[499, 498, 497] if order == 1 else [0, 1, 2]] * 9)
    np.testing.assert_array_equal(scores, [[4000, 3992, 3984]] * 9)


@pytest.mark.parametrize("values", [np.ones((5, 40), np.int8), np.full((5, 40), 0.3, np.float32)])
@pytest.mark.parametrize("order", ["equal", "rising", "falling", "rising and equal"])
def test_more_items_than_can_wait(values, order):
    """Every bound is above the K-th best, or equal to it."""
    codes = np.ones((3000, 40), np.int8)
    places = np.arange(3000)
    scales = {"equal": 0 * places, "rising": places, "falling": -places, "rising and equal": places // 700}[
        order
    ]
    scales = (1 + 1e-6 * scales[:, None]).astype(np.float32)
    expected = top_k_reference(values, np.float32([0.7]), codes, (40,), scales, 30)
    assert_same(kernel(values, np.float32([0.7]), codes, (40,), scales, 30), expected)


def test_wide_segments():
    dims = (20_000, 8)
    for mode in MODES:
        queries, factors, codes, scales, exclude = problem(3, mode, dims, 3, 130, 20)
        expected = top_k_reference(queries, factors, codes, dims, scales, 9, exclude)
        assert_same(kernel(queries, factors, codes, dims, scales, 9, exclude), expected)


def test_infinite_values_rank_by_their_sign():
    queries = np.float32([[np.inf, 1, 1], [1, 2, 3]])
    codes = np.int8([[1, 1, 1], [-1, 1, 1], [1, -1, -1]])
    scores, items = kernel(queries, np.float32([1]), codes, (3,), None, 2)
    np.testing.assert_array_equal(items, [[0, 2], [0, 1]])
    np.testing.assert_array_equal(scores, [[np.inf, np.inf], [6, 4]])


INSTRUCTIONS = {
    "none": ("generic", ""),
    "avx2": ("haswell", "+avx2,+fma,+popcnt,+ssse3"),
    "avx512": (
        "skylake-avx512",
        "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd,+avx2,+fma,+popcnt,+ssse3",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_other_processors(name, tmp_path):
    """The tests above, by the instructions of processors that have fewer."""
    cpu, features = INSTRUCTIONS[name]
    here = get_host_cpu_features().split(",")
    if not set(filter(None, features.split(","))) <= set(here):
        pytest.skip(f"this processor has no {name}")
    given = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", __file__]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_all_tied_goes_by_id_and_everything_excluded_is_empty():
    codes = np.ones((100, 5), np.int8)
    exclude = Interactions.from_pairs([0] * 3 + [1] * 100, [0, 2, 99, *range(100)], 2, 100)
    scores, items = kernel(codes[:2], np.float32([1]), codes, (5,), None, 4, exclude)
    np.testing.assert_array_equal(items, [[1, 3, 4, 5], [-1] * 4])
    np.testing.assert_array_equal(scores, [[5] * 4, [-np.inf] * 4])


def test_negative_zero_ties_with_zero():
    scales = np.float32([[-0.0], [0.0], [-0.0], [0.0]])
    scores, items = kernel(
        np.ones((1, 4), np.int8), np.float32([1]), np.ones((4, 4), np.int8), (4,), scales, 4
    )
    np.testing.assert_array_equal(items, [[0, 1, 2, 3]])
    assert not np.signbit(scores).any()


def test_rows_choose_the_exclusions():
    codes = np.ones((4, 8), np.int8)
    exclude = Interactions.from_pairs([0, 1, 2], [0, 1, 2], 3, 4)
    items = PackedItems.from_packed(pack(codes, (8,)), (8,))
    _, found = top_k(pack(codes[:2], (8,)), np.float32([1]), items, 3, exclude, rows=np.array([2, 1]))
    np.testing.assert_array_equal(found, [[0, 1, 3], [0, 2, 3]])


@pytest.mark.parametrize("mode", MODES)
def test_float64_agrees_beyond_the_rounding_bound(mode):
    dims, k = (96, 64, 33), 25
    queries, factors, codes, given, _ = problem(7, mode, dims, 9, 3000)
    scales = np.ones((3000, 3), np.float32) if given is None else given
    floats = queries.dtype == np.float32
    exact, size = np.zeros((9, 3000)), np.zeros((9, 3000))
    start = 0
    for s, dim in enumerate(dims):
        left, right = (
            queries[:, start : start + dim].astype(float),
            codes[:, start : start + dim].astype(float),
        )
        scale = factors[:, s, None].astype(float) * scales[:, s].astype(float)
        exact += scale * (left @ right.T)
        largest = np.abs(left) @ np.abs(right).T if floats else np.abs(left @ right.T)
        size += np.abs(scale) * largest
        start += dim
    roundings = len(dims) + 1 + (-(-max(dims) // 4) + 3 if floats else 0)
    bound = roundings * 2.0**-24 / (1 - roundings * 2.0**-24) * size
    found, items = kernel(queries, factors, codes, dims, given, k)
    for row in range(9):
        mine = items[row]
        assert (np.abs(found[row] - exact[row, mine]) <= bound[row, mine]).all()
        low, high = exact[row] - bound[row], exact[row] + bound[row]
        surely_out_of_order = high[mine][:, None] < low[mine]
        assert not np.triu(surely_out_of_order).any()
        assert low[np.setdiff1d(np.arange(3000), mine)].max() <= high[mine].min()
        assert (low[mine][:-1] > high[mine][1:]).mean() > (
            0 if mode == "hamming" else 0.8
        )  # the bound is tight


def test_codes_of_any_memory_order_and_read_only():
    rng = np.random.default_rng(0)
    codes = signs(rng, 40, 24)
    packed = np.asfortranarray(pack(codes, (24,)))
    packed.setflags(write=False)
    scales = np.asfortranarray(rng.random((40, 1), np.float32))
    found = top_k(packed, np.float32([1]), PackedItems.from_packed(packed, (24,), scales), 5)
    assert_same(found, top_k_reference(codes, np.float32([1]), codes, (24,), scales, 5))


@pytest.mark.parametrize("segments", [1, 3])
def test_the_longest_lie_first(segments):
    rng = np.random.default_rng(0)
    dims, scales = (8,) * segments, rng.lognormal(size=(1000, segments)).astype(np.float32)
    scales[::7], scales[3::7] = 0, scales[5]
    codes = rng.integers(256, size=(1000, segments), dtype=np.uint8)
    items = PackedItems.longest_first(codes, dims, scales)
    lengths = np.abs(scales).sum(axis=1)
    order = sorted(
        range(1000), key=lambda row: (-(int(np.float32(8 * lengths[row]).view(np.uint32)) >> 16), row)
    )
    np.testing.assert_array_equal(items.ids, order)
    np.testing.assert_array_equal(items.planes.transpose(0, 2, 1).reshape(-1, segments)[:1000], codes[order])
    np.testing.assert_array_equal(items.scales.transpose(0, 2, 1).reshape(-1, segments)[:1000], scales[order])


def test_bytes_of_the_layout():
    items = PackedItems.from_packed(np.zeros((128, 33), np.uint8), (256, 8), np.zeros((128, 2), np.float32))
    assert items.nbytes == 128 * (33 + 8)


def test_what_a_user_can_mend():
    items = PackedItems.from_packed(np.zeros((3, 2), np.uint8), (16,))
    with pytest.raises(L2QError, match="k is 0"):
        top_k(np.zeros((1, 2), np.uint8), np.float32([1]), items, 0)
    with pytest.raises(L2QError, match=r"queries: expected \(rows, 16\), got \(1, 15\)"):
        top_k(np.zeros((1, 15), np.float32), np.float32([1]), items, 1)
    with pytest.raises(
        L2QError, match="a segment of 65,536 bits cannot be searched packed; at most 65,528 can"
    ):
        PackedItems.from_packed(np.zeros((3, 8192), np.uint8), (65_536,))
    with pytest.raises(L2QError, match=r"item scales: expected \(3, 1\), got \(3,\)"):
        PackedItems.from_packed(np.zeros((3, 2), np.uint8), (16,), np.ones(3, np.float32))
