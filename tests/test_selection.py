"""The best K of dense scores, against a stable sort."""

import numpy as np
import pytest

from l2q.kernels.selection import offer, sort_heaps, top_items


def test_top_items_breaks_ties_by_lower_id():
    items, values = top_items(np.array([[1.0, 3, 3, 2, 3], [-np.inf, 0, -np.inf, 0, -np.inf]]), 3)
    assert items.tolist() == [[1, 2, 4], [1, 3, -1]]
    assert values.tolist() == [[3, 3, 3], [0, 0, -np.inf]]


def test_top_items_equals_a_stable_sort():
    scores = np.random.default_rng(0).integers(0, 50, (40, 300)).astype(np.float32)
    items, values = top_items(scores, 60)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :60]
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


SCORES = {
    "ties": lambda rng, n: rng.integers(0, 3, n),
    "zeros": lambda rng, n: rng.choice([0.0, -0.0], n),
    "rising": lambda rng, n: np.arange(n),
    "falling": lambda rng, n: -np.arange(n),
    "random": lambda rng, n: rng.standard_normal(n),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("tile", [1, 37, 64, 1000])
def test_tiles_of_items_give_the_ranking_of_a_stable_sort(tile, kind, dtype):
    """Blocks of 64 scores, whole and in part; k up to more than there are; excluded items are -inf."""
    rng = np.random.default_rng(0)
    for num_items in (1, 63, 64, 65, 200):
        scores = SCORES[kind](rng, num_items).astype(dtype)
        scores[rng.random(num_items) < 0.1] = -np.inf
        expected = np.argsort(-scores, kind="stable")
        expected = expected[scores[expected] > -np.inf]
        for k in (1, 2, 40, 150, 300):
            best, items = np.full((1, k), -np.inf, dtype), np.full((1, k), -1, np.int32)
            for first in range(0, num_items, tile):
                offer(scores[first : first + tile], first, best[0], items[0])
            sort_heaps(best, items)
            left = expected[:k]
            assert items[0].tolist() == left.tolist() + [-1] * (k - len(left))
            assert best[0].tolist() == scores[left].tolist() + [-np.inf] * (k - len(left))
            same = top_items(scores[None], k)
            np.testing.assert_array_equal(same[0], items)
            np.testing.assert_array_equal(same[1], best)
