"""The spectral model and the graph filter, against dense linear algebra on small graphs."""

import numpy as np
import pytest

import l2q.fitted.filter
from l2q.fitted.baselines import spectral
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.fitted.teacher import TeacherScores
from l2q.interactions import Interactions, normalize
from l2q.kernels.top_lists import heads


def graph(num_users=60, num_items=45, density=0.2, seed=0) -> Interactions:
    pairs = np.nonzero(np.random.default_rng(seed).random((num_users, num_items)) < density)
    return Interactions.from_pairs(*pairs, num_users, num_items)


def dense(train: Interactions) -> np.ndarray:
    return train.to_csr(np.float64).toarray()


def test_normalize_by_hand():
    train = Interactions.from_pairs([0, 0, 1], [0, 1, 0], 3, 2)  # degrees 2, 1, 0 and 2, 1
    np.testing.assert_allclose(
        normalize(train, 1.0, 0.5).toarray(), [[2**-1.5, 0.5], [2**-0.5, 0], [0, 0]], rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(60, 45), (45, 60)])
def test_spectral_start_equals_a_dense_svd(shape):
    train = graph(*shape)
    R_hat = normalize(train).toarray().astype(np.float64)
    U, s, V_T = np.linalg.svd(R_hat, full_matrices=False)
    users, items = spectral(train, 8, seed=0)
    np.testing.assert_allclose(users @ items.T, (U[:, :8] * s[:8]) @ V_T[:8], atol=2e-6)
    np.testing.assert_allclose((users**2).sum(axis=0), s[:8], rtol=1e-5)
    assert users.dtype == items.dtype == np.float32


@pytest.mark.parametrize(("tail", "whole"), [(0.0, False), (0.4, False), (0.4, True)])
def test_filter_scores_equal_the_dense_formula(monkeypatch, tail, whole):
    """The tail from user to user, and by products for blocks of users over ranges of users that do not divide."""
    monkeypatch.setattr(l2q.fitted.filter, "_ROWS", 25)
    monkeypatch.setattr(l2q.fitted.filter, "_COLUMNS", 16)
    monkeypatch.setattr(FilterScores, "_whole_products_pay", whole)
    train = graph()
    model = SpectralFilter(gamma_user=0.3, popularity=0.6, rank=12, tail=tail)
    (X, Y), lists = model(train, seed=0).ranking(train, length=7)[1:]

    degrees = train.item_degrees
    R_hat = np.diag(train.user_degrees**-0.3) @ dense(train) @ np.diag(degrees**-0.5)
    U, s, V_T = np.linalg.svd(R_hat)
    s, mu = s[:12], 3 * s[11] ** 2
    h, c = s**3 / (s**2 + mu), tail / (s[11] ** 2 + mu)
    low = (U[:, :12] * h) @ V_T[:12]
    S = (low + c * (R_hat @ R_hat.T @ R_hat - (U[:, :12] * s**3) @ V_T[:12])) @ np.diag(degrees**0.6)
    norms = np.linalg.norm(S, axis=1, keepdims=True)
    np.testing.assert_allclose(X @ Y.T, low @ np.diag(degrees**0.6) / norms, atol=1e-5)

    S = np.where(dense(train) > 0, -np.inf, S / norms)
    for user in range(train.num_users):
        best = np.argsort(-S[user])[:7]
        row = slice(*lists.indptr[user : user + 2])
        assert lists.indices[row].tolist() == best.tolist()
        target, base = S[user, best], (X @ Y.T)[user, best]
        np.testing.assert_allclose(lists.data[row], target * (base @ target) / (target @ target), rtol=2e-4)

    (_, _), longer = model(train, seed=0).ranking(train, length=7, measured=9)[1:]
    assert np.diff(longer.indptr).max() == 9
    first = heads(longer, 7)
    np.testing.assert_array_equal(first.indptr, lists.indptr)
    np.testing.assert_array_equal(first.indices, lists.indices)
    np.testing.assert_array_equal(first.data, lists.data)


@pytest.mark.parametrize("rank", [30, 768])
def test_where_the_data_has_fewer_directions_than_the_rank_there_is_no_tail(rank):
    half = graph(60, 20, 0.4)  # every item twice: 40 columns, 20 directions
    twice = np.concatenate([half.items, half.items + 20])
    train = Interactions.from_pairs(np.tile(half.users, 2), twice, 60, 40)
    found = SpectralFilter(rank=rank, tail=0.4)(train, seed=0).scores(slice(0, 60))
    degrees = train.item_degrees
    R_hat = np.diag(train.user_degrees**-0.3) @ dense(train) @ np.diag(degrees**-0.5)
    U, s, V_T = np.linalg.svd(R_hat, full_matrices=False)
    h = s[:20] ** 3 / (s[:20] ** 2 + 3 * s[19] ** 2)
    expected = (U[:, :20] * h) @ V_T[:20] @ np.diag(degrees**0.5)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("density", "pays"), [(0.3, True), (0.004, False)])
def test_products_with_all_interactions_pay_in_dense_data(density, pays):
    assert SpectralFilter(rank=12)(graph(600, 300, density), seed=0)._whole_products_pay is pays


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_users_of_whom_the_base_knows_nothing_keep_their_targets(added, teacher):
    """Two components, a base of rank 1: it is the larger one's, and the tail alone scores the smaller one."""
    rng = np.random.default_rng(0)
    blocks = rng.random((40, 20)) < 0.7, rng.random((20, 10)) < 0.7
    users, items = np.nonzero(np.block([[blocks[0], np.zeros((40, 10))], [np.zeros((20, 20)), blocks[1]]]))
    train = Interactions.from_pairs(users, items, 60, 30)
    scores = SpectralFilter(rank=1, tail=0.4)(train, seed=0)
    add = (lambda S, norms, block: S / norms[:, None]) if added else None
    if teacher:  # embeddings that say the same of all items change no more than the length of a user's scores
        one = np.ones((60, 1), np.float32), np.zeros((30, 1), np.float32)
        learned = TeacherScores(scores, *one, weight=1e-9) if added else TeacherScores(scores)
        (X, Y), lists = learned.ranking(train, 3)[1:]
    else:
        (X, Y), lists = scores.ranking(train, 3, add=add)[1:]
    small = np.arange(40, 60)
    np.testing.assert_allclose(X[small] @ Y.T, 0, atol=1e-6)
    S = scores.scores(small)
    S /= np.linalg.norm(S, axis=1, keepdims=True)
    for user, row in zip(small, S, strict=True):
        listed = slice(*lists.indptr[user : user + 2])
        np.testing.assert_allclose(lists.data[listed], 0.1 * row[lists.indices[listed]], rtol=1e-4, atol=1e-7)
        assert lists.data[listed][0] > 0.01


def test_a_user_without_items_is_scored_as_the_mean_of_the_others():
    whole = graph()
    train = whole.select(whole.users != 5)
    scores = SpectralFilter(rank=12, tail=0)(train, seed=0)
    rows = np.delete(scores.scores(slice(0, 60)), 5, axis=0)
    np.testing.assert_allclose(scores.scores(slice(5, 6))[0], rows.mean(axis=0), atol=1e-5)
