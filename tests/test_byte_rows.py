import numba
import numpy as np
import pytest

from l2q.kernels.byte_rows import ByteRows


@pytest.mark.parametrize("dtype", [np.int8, np.float16])
def test_products_and_pairs_are_those_of_the_floats(dtype):
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (1500, 70)).astype(dtype)  # several tiles, the last one not whole
    factors = rng.random(1500, np.float32)
    X = rng.standard_normal((9, 70)).astype(np.float32)
    values = codes.astype(np.float64)
    if dtype == np.int8:
        values = np.sign(values) * values**2
    values *= factors[:, None]
    rows = ByteRows(codes, factors)
    some = np.array([3, 1499, 3])
    np.testing.assert_allclose(rows.rows(some), values[some], rtol=1e-6)
    size = np.abs(X) @ np.abs(values).T
    assert (np.abs(rows.products(X) - X @ values.T) <= 1e-5 * size).all()
    users, items = rng.integers(0, 9, 5000), rng.integers(0, 1500, 5000)
    error = np.abs(rows.of_pairs(X, users, items) - np.vecdot(X[users], values[items]))
    assert (error <= 1e-5 * size[users, items]).all()


def test_any_number_of_threads_has_the_same_bits():
    rng = np.random.default_rng(1)
    rows = ByteRows(rng.integers(-127, 128, (3000, 40)).astype(np.int8), rng.random(3000, np.float32))
    X = rng.standard_normal((5, 40)).astype(np.float32)
    usual, found = numba.get_num_threads(), []
    for threads in (1, usual):
        numba.set_num_threads(threads)
        found.append(rows.products(X))
    np.testing.assert_array_equal(*found)
    assert ByteRows(rows.codes[:0], rows.factors[:0]).products(X).shape == (5, 0)
