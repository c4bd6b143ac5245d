"""Random rotations and ITQ's."""

import numpy as np

from l2q.kernels.rotations import itq, itq_rows, random_rotation


def test_rotation_leaves_float_scores_unchanged():
    rng = np.random.default_rng(0)
    R = random_rotation(32, rng)
    np.testing.assert_allclose(R.T @ R, np.eye(32), atol=1e-6)
    users, items = rng.standard_normal((9, 32)), rng.standard_normal((8, 32))
    np.testing.assert_allclose((users @ R) @ (items @ R).T, users @ items.T, atol=1e-5)
    np.testing.assert_array_equal(R, random_rotation(32, np.random.default_rng(0)))


def test_itq_lowers_the_quantization_error_monotonically():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 24)) * np.linspace(3, 0.1, 24)
    errors = []
    for iterations in range(12):
        R = itq(X, iterations, rng=np.random.default_rng(1))
        np.testing.assert_allclose(R.T @ R, np.eye(24), atol=1e-6)
        errors.append(np.square(np.where(X @ R >= 0, 1, -1) - X @ R).sum())
    assert np.all(np.diff(errors) <= 0)
    assert errors[-1] < 0.97 * errors[0]


def test_itq_samples_many_rows():
    X = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    R = itq(X, rng=np.random.default_rng(1), samples=100)
    assert R.dtype == np.float32
    np.testing.assert_array_equal(R, itq(X, rng=np.random.default_rng(1), samples=100))
    np.testing.assert_allclose(R.T @ R, np.eye(8), atol=1e-5)


def test_rows_of_itq_are_those_of_the_singular_vectors():
    """Steps by hand, with zeros beside X and an SVD for the polar factor."""
    X = np.random.default_rng(0).standard_normal((300, 8)) * np.linspace(3, 0.3, 8)
    R = itq_rows(X, 20, 0, rng=np.random.default_rng(1))
    np.testing.assert_allclose(R @ R.T, np.eye(8), atol=1e-6)
    padded = np.hstack([X, np.zeros((300, 12))])
    whole = np.vstack([R, np.zeros((12, 20))])
    for iterations in (1, 2, 3):
        left, _, right = np.linalg.svd(padded.T @ np.where(padded @ whole >= 0, 1, -1))
        whole = left @ right
        found = itq_rows(X, 20, iterations, rng=np.random.default_rng(1))
        np.testing.assert_allclose(found, whole[:8], atol=1e-6)


def test_rows_of_itq_see_a_sample():
    X = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    R = itq_rows(X, 12, rng=np.random.default_rng(1), samples=100)
    assert R.dtype == np.float32
    np.testing.assert_allclose(R @ R.T, np.eye(8), atol=1e-5)
