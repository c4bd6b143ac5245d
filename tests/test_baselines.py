"""Models without training, by hand and against dense linear algebra."""

import numpy as np
import pytest

from l2q import settings
from l2q.errors import L2QError
from l2q.fitted import FittedModel
from l2q.interactions import Interactions, normalize
from l2q.retrieval.index import DenseIndex


@pytest.fixture
def train() -> Interactions:
    rng = np.random.default_rng(3)
    return Interactions.from_pairs(rng.integers(0, 20, 150), rng.integers(0, 15, 150), 20, 15)


def model(name, **changes):
    return settings.build(settings.compose(model=name)["model"] | changes, "model")


@pytest.mark.parametrize("name", ["popularity", "spectral", "l2q_plus"])
def test_what_is_fitted_has_a_fit(name):
    assert isinstance(model(name), FittedModel)


def test_popularity_ranks_by_degree(train):
    found = model("popularity").fit(train, 0)
    scores, items = DenseIndex(found.representations).search(np.array([0, 5]), 15)
    expected = np.lexsort((np.arange(15), -train.item_degrees))
    np.testing.assert_array_equal(items, [expected, expected])
    np.testing.assert_array_equal(scores[0], train.item_degrees[expected])
    assert (found.teacher, found.teacher_index, found.filter_side) == (None, None, None)


@pytest.mark.parametrize("gammas", [(0.5, 0.5), (0.3, 0.7)])
def test_spectral_is_the_best_approximation_of_its_rank(train, gammas):
    R_hat = normalize(train, *gammas).toarray()
    U, s, V = np.linalg.svd(R_hat)
    for dim in (4, 15, 20):  # from 15 on the data has no more
        rows = (
            model("spectral", dim=dim, gamma_user=gammas[0], gamma_item=gammas[1])
            .fit(train, 0)
            .representations
        )
        assert rows.dims == (dim,)
        assert (rows.users.values.shape, rows.items.values.shape) == ((20, dim), (15, dim))
        rank = min(dim, 15)
        expected = U[:, :rank] * s[:rank] @ V[:rank]
        np.testing.assert_allclose(rows.users.values @ rows.items.values.T, expected, atol=1e-5)
        assert not rows.users.values[:, rank:].any()
    np.testing.assert_allclose(expected, R_hat, atol=1e-6)  # float32


def test_bad_options_are_named():
    with pytest.raises(L2QError, match=r"^model\.dim=0 must be a whole number of at least 1$"):
        model("spectral", dim=0)
    with pytest.raises(L2QError, match=r"^model\.gamma: there is no such option; did you mean"):
        model("spectral", gamma=0.5)
