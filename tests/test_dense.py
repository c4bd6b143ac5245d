"""Dense products: against NumPy's, and the same bits whatever the number of threads."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from l2q.kernels import dense


def threads_of_blas() -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """All but the least products are made in tiles, of a few rows."""
    monkeypatch.setattr(dense, "SMALL", 1000)
    monkeypatch.setattr(dense, "SIDES", (16, 64))
    monkeypatch.setattr(dense, "TILE", 2**18)


RNG = np.random.default_rng(0)
LONG, WIDE = (RNG.standard_normal(shape, dtype=np.float32) for shape in ((3001, 77), (77, 150)))
S = (LONG.T @ LONG + np.eye(77)).astype(np.float64)
CALLS = {
    "product": (lambda: dense.product(LONG, WIDE), lambda: LONG @ WIDE),
    "long sums": (lambda: dense.product(LONG.T, LONG + 1), lambda: LONG.T @ (LONG + 1)),
    "float64": (lambda: dense.product(S, S), lambda: S @ S),
    "few": (lambda: dense.product(LONG[:3], WIDE[:, :2]), lambda: LONG[:3] @ WIDE[:, :2]),
    "none": (lambda: dense.product(LONG[:0], WIDE), lambda: LONG[:0] @ WIDE),
    "gram": (lambda: dense.gram(LONG), lambda: LONG.T @ LONG),
    "solve": (
        lambda: dense.solve_lower(np.linalg.cholesky(S), LONG),
        lambda: np.linalg.solve(np.linalg.cholesky(S), LONG.T).T.astype(np.float32),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_as_numpy_and_with_the_same_bits_for_any_number_of_threads(name, threads):
    call, expected = CALLS[name]
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(call())
        assert count in threads_of_blas()  # as before
    np.testing.assert_allclose(found[0], expected(), rtol=2e-4, atol=1e-3)
    assert found[0].dtype == expected().dtype
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


def test_one_thread_of_blas_until_the_last_caller_leaves(threads):
    threads(2)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with dense.one_thread():
            inside.set()
            leave.wait()

    other = threading.Thread(target=stay)
    assert 2 in threads_of_blas()
    with dense.one_thread():
        other.start()
        inside.wait()
    assert threads_of_blas() == {1}
    with pytest.raises(ZeroDivisionError), dense.one_thread():
        1 / 0  # noqa: B018
    assert threads_of_blas() == {1}
    leave.set()
    other.join()
    assert 2 in threads_of_blas()


def test_what_a_tile_raises_is_raised():
    with pytest.raises(ValueError, match="mismatch"):
        dense.product(LONG, WIDE[:-1])
