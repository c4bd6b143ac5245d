"""Truncated singular value decomposition, against the dense one."""

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.interactions import Interactions, normalize
from l2q.kernels.svd import truncated_svd


def graph(num_users, num_items, density) -> Interactions:
    pairs = np.nonzero(np.random.default_rng(0).random((num_users, num_items)) < density)
    return Interactions.from_pairs(*pairs, num_users, num_items)


def test_svd_is_orthonormal_signed_and_close_where_the_block_is_narrow():
    train = graph(900, 700, 0.02)
    U, s, V = truncated_svd(normalize(train), 20, seed=1, power_iterations=12)
    exact = np.linalg.svd(normalize(train).toarray(), compute_uv=False)[:20]
    np.testing.assert_allclose(s, exact, rtol=2e-3)
    assert s[0] == pytest.approx(1, abs=1e-5)  # the normalised adjacency of a connected graph
    assert np.all(np.diff(s) <= 0)
    np.testing.assert_allclose(U.T @ U, np.eye(20), atol=5e-6)
    np.testing.assert_allclose(V.T @ V, np.eye(20), atol=5e-6)
    np.testing.assert_allclose(normalize(train) @ V, U * s, atol=2e-2)
    assert np.all(V[np.abs(V).argmax(axis=0), np.arange(20)] > 0)


def test_svd_is_seeded_and_checks_its_rank():
    R_hat = normalize(graph(400, 300, 0.03))
    first, again, other = (truncated_svd(R_hat, 10, seed) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    with pytest.raises(L2QError, match="rank=301 must lie between 1 and 300"):
        truncated_svd(R_hat, 301, 0)


def test_svd_of_a_matrix_of_lower_rank():
    train = Interactions.from_pairs([0, 1, 2, 3] * 2, [0, 0, 1, 1, 2, 2, 3, 3], 5, 5)  # two blocks: rank 2
    U, s, V = truncated_svd(normalize(train), 4, seed=0)
    np.testing.assert_allclose(s, [1, 1, 0, 0], atol=1e-3)
    assert np.isfinite(U).all()
    assert np.isfinite(V).all()
    np.testing.assert_allclose((U * s) @ V.T, normalize(train).toarray(), atol=1e-5)
