"""Truncated SVD, the graph filter and rotations, against dense linear algebra on small graphs."""

import numpy as np
import pytest
from scipy import sparse

import l2q.fitted.filter
from l2q.errors import L2QError
from l2q.fitted.baselines import spectral
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.fitted.teacher import TeacherScores
from l2q.interactions import Interactions, normalize
from l2q.kernels.rotations import itq, random_rotation
from l2q.kernels.svd import truncated_svd
from l2q.kernels.top_lists import heads, top_items, top_lists, user_blocks


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


@pytest.mark.parametrize(("tail", "whole"), [(0.0, False), (0.4, False), (0.4, True)])
def test_filter_scores_equal_the_dense_formula(monkeypatch, tail, whole):
    """The tail from user to user, and by products for blocks of users over ranges of users that do not divide."""
    monkeypatch.setattr(l2q.fitted.filter, "_ROWS", 25)
    monkeypatch.setattr(l2q.fitted.filter, "_COLUMNS", 16)
    monkeypatch.setattr(FilterScores, "_whole_products_pay", whole)
    train = graph()
    model = SpectralFilter(gamma_user=0.3, popularity=0.6, rank=12, tail=tail)
    (X, Y), lists = model(train, seed=0).lists(train, length=7)

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

    (_, _), longer = model(train, seed=0).lists(train, length=7, measured=9)
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
        (X, Y), lists = learned.lists(train, 3)
    else:
        (X, Y), lists = scores.lists(train, 3, add=add)
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


def test_top_lists_leave_out_what_is_excluded_and_report_progress():
    scores = np.arange(2100 * 4, dtype=np.float32).reshape(2100, 4)
    exclude = Interactions.from_pairs([0, 0, 0, 2099], [1, 2, 3, 3], 2100, 4)
    seen = []
    lists = top_lists(lambda b: scores[b].copy(), 2100, 4, 2, exclude, lambda *step: seen.append(step))
    assert lists.indices[lists.indptr[0] : lists.indptr[2]].tolist() == [0, 3, 2]
    assert lists.indices[lists.indptr[2099] :].tolist() == [2, 1]
    assert seen == [(1024, 2100, "lists"), (2048, 2100, "lists"), (2100, 2100, "lists")]


@pytest.mark.parametrize(
    ("num_items", "size"),
    [(0, 1024), (4, 1024), (65_536, 1024), (65_537, 1023), (2_000_000, 33), (2**26, 1), (2**28, 1)],
)
def test_a_block_of_scores_takes_at_most_256_mib(num_items, size):
    blocks = list(user_blocks(2100, num_items))
    assert blocks[0] == slice(0, size)
    assert [user for block in blocks for user in range(block.start, block.stop)] == list(range(2100))


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


def test_heads_are_the_first_entries_of_every_row():
    lists = sparse.csr_array(
        (np.arange(7.0), np.array([4, 1, 3, 0, 2, 4, 1]), np.array([0, 3, 3, 4, 7])), shape=(4, 5)
    )
    first = heads(lists, 2)
    assert first.indptr.tolist() == [0, 2, 2, 3, 5]
    assert first.indices.tolist() == [4, 1, 0, 2, 4]
    assert first.data.tolist() == [0, 1, 3, 4, 5]
    assert first.shape == (4, 5)
    assert heads(lists, 9).indices.tolist() == lists.indices.tolist()
