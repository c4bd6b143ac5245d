"""Trained embeddings, and the scores that they and a filter give together."""

import numpy as np
import pytest
import torch
from presets import embeddings

from l2q.errors import L2QError
from l2q.fitted import teacher as module
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.teacher import CosineEmbeddings, Teacher
from l2q.interactions import Interactions
from l2q.models.losses import softmax


@pytest.fixture
def train() -> Interactions:
    """Three communities of 30 users and 20 items; user 0 has nothing, item 0 nobody."""
    rng = np.random.default_rng(1)
    users = np.repeat(np.arange(1, 90), 8)
    items = (users % 3) * 20 + np.maximum(rng.integers(20, size=len(users)), 1)
    return Interactions.from_pairs(users, items, 90, 60)


def test_the_softmax_has_the_loss_and_the_gradient_of_the_plain_one():
    generator = torch.Generator().manual_seed(0)
    sides = [
        torch.randn(rows, 5, generator=generator, dtype=torch.float64).requires_grad_() for rows in (7, 7, 4)
    ]
    items, negatives = torch.tensor([3, 1, 8, 3, 5, 0, 2]), torch.tensor([3, 9, 0, 4])
    X, P, Q = sides
    scores = (X @ Q.T).masked_fill(items.unsqueeze(1) == negatives, -torch.inf)
    plain = softmax((X * P).sum(1), scores.logsumexp(1))
    rows, columns = module._same(items, negatives, 10)
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (3, 0), (5, 2)]
    found = module._Softmax.apply(X, P, Q, rows, columns)
    torch.testing.assert_close(found, plain)
    for ours, expected in zip(
        torch.autograd.grad(2 * found, sides), torch.autograd.grad(2 * plain, sides), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_embeddings_are_of_unit_length_seeded_and_learn_who_likes_what(train):
    seen = []
    options = embeddings(dim=8, steps=60)
    X, Y = options(train, 0, lambda *step: seen.append(step))
    assert (X.shape, Y.shape) == ((90, 8), (60, 8))
    np.testing.assert_allclose(np.linalg.norm(X[1:], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(Y, axis=1), 1, atol=1e-6)
    assert (X[0] == 0).all()  # a user without items has no direction
    assert seen[-1] == (60, 60, "embeddings")
    for again, first in zip(options(train, 0), (X, Y), strict=True):
        np.testing.assert_array_equal(again, first)
    assert not np.array_equal(options(train, 1)[0], X)
    own = (np.arange(90) % 3)[:, None] == np.arange(60) // 20
    cosines = (X @ Y.T)[1:]
    assert cosines[own[1:]].mean() > cosines[~own[1:]].mean() + 0.5


def test_training_lowers_the_full_softmax_loss(train):
    """All 60 items are negatives, so the loss over all pairs is what the steps lower."""

    def loss(steps: int) -> float:
        X, Y = embeddings(dim=8, temperature=0.15, steps=steps)(train, 0)
        scores = X.astype(np.float64) @ Y.T / 0.15
        chosen = scores[train.users, train.items]
        return float((np.log(np.exp(scores).sum(axis=1))[train.users] - chosen).mean())

    losses = [loss(steps) for steps in (0, 40, 160)]
    assert losses[0] > losses[1] > losses[2]


def test_a_set_smaller_than_the_dimension_and_without_pairs():
    train = Interactions.from_pairs([0, 1], [0, 1], 3, 2)
    X, Y = embeddings(steps=3)(train, 0)
    assert (X.shape, Y.shape) == ((3, 2), (2, 2))
    assert np.isfinite(X).all()
    assert np.isfinite(Y).all()


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_teacher_scores_by_the_formula(train, weight):
    filter_, learned = SpectralFilter(rank=6), embeddings(weight=weight, dim=8, temperature=0.3, steps=20)
    scores = Teacher(filter_, learned)(train, 3)
    S = filter_(train, 3).scores(slice(0, 90)).astype(np.float64)
    S /= np.linalg.norm(S, axis=1, keepdims=True)
    if weight:
        X, Y = (side.astype(np.float64) for side in learned(train, 3))
        E = np.exp(X @ Y.T / 0.6)
        S += weight * E / np.linalg.norm(E, axis=1, keepdims=True)
    users = np.array([5, 0, 88])
    found = scores.scores(users)
    found, expected = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (found, S[users]))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert scores.shape == (90, 60)

    _, (X, Y), lists = scores.ranking(train, 5)
    _, (base, _), _ = filter_(train, 3).ranking(train, 5)
    np.testing.assert_array_equal(X, base)
    S[train.users, train.items] = -np.inf
    for user in range(90):
        row = slice(*lists.indptr[user : user + 2])
        best = np.argsort(-S[user], kind="stable")[:5]
        assert lists.indices[row].tolist() == best.tolist()
        target, own = S[user, best], (X[user] @ Y.T)[best]
        np.testing.assert_allclose(lists.data[row], target * (own @ target) / (target @ target), rtol=1e-3)


def test_without_weight_nothing_is_trained(train, monkeypatch):
    monkeypatch.setattr(CosineEmbeddings, "__call__", None)
    for weight in (None, 0.0):
        assert Teacher(SpectralFilter(), embeddings(weight=weight))(train, 0).X is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 0}, "model.embeddings.dim=0 must be a whole number of at least 1"),
        ({"steps": 2.5}, "model.embeddings.steps=2.5 must be a whole number of at least 0"),
        ({"temperature": 0.0}, "embeddings.temperature=0.0 must be a number of at least 0.02"),
        ({"temperature": 0.01}, "embeddings.temperature=0.01 must be a number of at least 0.02"),
        ({"learning_rate": -1}, "embeddings.learning_rate=-1 must be a number above 0"),
        ({"weight": -0.1}, "embeddings.weight=-0.1 must be a number of at least 0 or null"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(L2QError, match=words):
        embeddings(**options)
