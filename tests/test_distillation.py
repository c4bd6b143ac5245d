"""Distillation: its formula and gradients against plain sums, its start, and runs that go on."""

from dataclasses import replace

import numpy as np
import presets
import pytest
import torch
from runs import EVERY_EPOCH, composed, figures, history_of, run, table
from scipy import sparse
from torch.autograd import gradcheck

from l2q.data.sources import Source
from l2q.errors import L2QError
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.teacher import Teacher
from l2q.learning.parallel.batches import Batches
from l2q.learning.parallel.columns import Columns
from l2q.models.distillation import Distillation
from l2q.models.graph import Graph, Propagation
from l2q.models.initialization import TeacherFactors, before_layers
from l2q.models.losses import Batch

M, N, RANK, D = 5, 7, 3, 4


def drawn(dtype=torch.float64):
    """X, Y, E_users, E_items as leaves; the teacher's base and lists, of which user 3 has none and user 1 two."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(size, generator=generator, dtype=dtype).requires_grad_()
        for size in ((M, D), (N, D), (M, 2), (N, 2))
    ]
    rng = np.random.default_rng(0)
    base = rng.standard_normal((M, RANK)), rng.standard_normal((N, RANK))
    targets = np.zeros((M, N))
    for user, items in enumerate([[6, 0, 2], [1, 3], [2, 4, 5], [], [0, 1, 6]]):
        targets[user, items] = rng.random(len(items)) + 0.5
    kind = np.float64 if dtype == torch.float64 else np.float32
    return leaves, tuple(side.astype(kind) for side in base), sparse.csr_array(targets.astype(kind))


def batch_of(*users: int) -> Batch:
    """Pairs of these users, with the first items."""
    number = len(users)
    return Batch(torch.tensor(users), torch.arange(number) % N, torch.empty(0).long(), torch.ones(number) / N)


def plain(X, Y, base, lists, users, weight):
    """mean_u f_u with every score, one after the other."""
    S, T = torch.from_numpy(base[0] @ base[1].T), torch.from_numpy(lists.toarray())
    errors = []
    for u in users:
        targets = torch.cat([S[u], *[T[u, j : j + 1] for j in lists[[u]].indices]])
        mine = torch.cat([X[u] @ Y.T, *[(X[u] @ Y[j]).unsqueeze(0) for j in lists[[u]].indices]])
        w = torch.tensor([1.0] * N + [weight] * (len(targets) - N), dtype=S.dtype)
        a = ((w * targets * mine).sum() / (w * mine * mine).sum()).detach()
        errors.append((w * (targets - a * mine) ** 2).sum() / (w * targets**2).sum())
    return torch.stack(errors).mean()


@pytest.mark.parametrize("users", [(0, 1, 2, 3, 4, 0), (3, 1, 1)], ids=["all users", "some"])
@pytest.mark.parametrize("weight", [None, 2.5, 0.0])
def test_the_loss_and_its_gradients_are_those_of_plain_sums(users, weight):
    leaves, base, lists = drawn()
    objective = presets.distillation(weight=weight, l2=0.3)
    objective.take(base, lists)
    X, Y, E_users, E_items = leaves
    batch = batch_of(*users)
    loss = objective(X, Y, batch, E_users, E_items)
    loss.backward()
    got = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    w = N / (4 * 3) if weight is None else weight
    squares = E_users[batch.users].square().sum() + E_items[batch.pos_items].square().sum()
    expected = plain(X, Y, base, lists, sorted(set(users)), w) + 0.3 / 2 * squares / len(users)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for grad, leaf in zip(got, leaves, strict=True):
        torch.testing.assert_close(grad, leaf.grad)


def test_a_constant_factor_of_a_user_does_not_count():
    """The least-squares factor makes it so, and the gradient is that of the factor that moves with it."""
    (X, Y, *E), base, lists = drawn()
    objective = presets.distillation()
    objective.take(base, lists)
    batch = batch_of(0, 1, 2, 4)
    lengths = torch.tensor([2.0, 0.1, 30.0, 1.0, 5.0], dtype=X.dtype).unsqueeze(1)
    torch.testing.assert_close(objective(X * lengths, Y, batch, *E), objective(X, Y, batch, *E))
    assert gradcheck(lambda X, Y: objective(X, Y, batch, *E), (X, Y))


def test_rows_of_the_teacher_have_no_error():
    (_, _, *E), (U, V), _ = drawn()
    scores = U @ V.T
    lists = sparse.csr_array(np.where(scores > 0.8, scores, 0))
    objective = presets.distillation()
    objective.take((U, V), lists)
    loss = objective(torch.from_numpy(3 * U), torch.from_numpy(V), batch_of(*range(M)), *E)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_a_user_without_any_score_costs_nothing():
    (X, Y, *E), (U, V), _ = drawn(torch.float32)
    U[2] = 0
    objective = presets.distillation()
    objective.take((U, V), sparse.csr_array((M, N), dtype=np.float32))
    loss = objective(X, Y, batch_of(2), *E)
    loss.backward()
    assert loss.item() == 0
    assert X.grad.isfinite().all()


def teacher(**changes):
    """That of ``l2q_plus`` with a filter of its own and without embeddings."""
    return presets.l2q_plus(
        **{"filter": SpectralFilter(), "embeddings": presets.embeddings(weight=0.0)} | changes
    )


def test_the_teacher_comes_first(communities):
    (X, Y, *E), _, _ = drawn(torch.float32)
    objective = presets.distillation(teacher=teacher(length=6, effort="best"))
    with pytest.raises(L2QError, match=r"^objective: learn_from\(train, seed\) comes before"):
        objective(X, Y, batch_of(0), *E)
    objective.learn_from(communities, 0)
    held = SpectralFilter()(communities, 0)
    _, (U, _), lists = held.ranking(communities, 6)
    np.testing.assert_array_equal(objective.lists.toarray(), lists.toarray())
    torch.testing.assert_close(objective.X_base, torch.from_numpy(U))
    assert objective.list_weight == communities.num_items / 24
    for user in range(communities.num_users):  # nothing that the user has
        assert not set(objective.lists[[user]].indices) & set(communities[user])
    assert not objective.state_dict()  # a checkpoint has no teacher: a run that goes on fits it again


def test_the_teacher_is_that_of_l2q_plus(communities):
    """Chosen as it chooses where nothing is said, embeddings beside the filter among it."""
    model = presets.l2q_plus(bits=16, embeddings=presets.embeddings(weight=None, dim=8, steps=20))
    chosen = model.fit(communities, 0).teacher
    assert isinstance(chosen, Teacher)
    objective = presets.distillation(teacher=model)
    scores = objective.learn_from(communities, 0)
    lesson = model.teach(communities, 0)
    assert lesson.teacher == chosen
    np.testing.assert_array_equal(scores.U, lesson.scores.filter.U)
    heard = objective.lists.toarray()
    assert ((heard > 0).sum(1) <= model.length).all()
    np.testing.assert_array_equal(heard, np.where(heard, lesson.ranking.toarray(), 0))


@pytest.mark.parametrize("layers", [0, 2, 4])
def test_the_mean_of_the_layers_has_the_factors(communities, layers):
    """Of which the base of the filter is made: same ranking, up to each user's factor."""
    scores = SpectralFilter(rank=16, tail=0.0)(communities, 0)
    users, items = TeacherFactors(num_layers=layers)(communities, 24, 0, scores)
    E = torch.from_numpy(np.concatenate([users, items]))
    assert E.shape == (communities.num_users + communities.num_items, 24)
    rows = torch.stack(Propagation(Graph.from_interactions(communities)).layers(E, layers)).mean(0)
    X, Y = rows.split([communities.num_users, communities.num_items])
    torch.testing.assert_close(X.norm(dim=1), torch.ones(len(X)), rtol=1e-4, atol=1e-4)
    assert Y.norm(dim=1).mean().item() == pytest.approx(1, abs=1e-4)
    expected = torch.from_numpy(scores.U * scores.h @ scores.Y.T)
    found = X @ Y.T
    cosines = torch.nn.functional.cosine_similarity(found, expected, dim=1)
    assert cosines.min() > 0.9999


def test_an_odd_number_of_layers_is_refused():
    with pytest.raises(L2QError, match=r"^model\.num_layers=3: initialization=teacher .* give an even one"):
        TeacherFactors(num_layers=3)


def test_a_start_from_a_teacher_that_is_not_there(communities):
    with pytest.raises(L2QError, match=r"^initialization=teacher: .* give objective=distillation"):
        TeacherFactors(num_layers=2)(communities, 8, 0)


def test_fewer_columns_are_the_first_ones_turned(communities):
    whole = SpectralFilter(rank=16)(communities, 0)  # whose tail has no room
    users, items = TeacherFactors(num_layers=0)(communities, 5, 0, whole)
    roots = np.sqrt(whole.h[:5])
    U, V = whole.U[:, :5] * roots, whole.Y[:, :5] * roots
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    np.testing.assert_allclose(users @ users.T, U @ U.T, atol=1e-5)  # a rotation keeps products
    np.testing.assert_allclose(users @ items.T * np.linalg.norm(V, axis=1).mean(), U @ V.T, atol=1e-5)


def test_columns_beyond_the_rank_have_the_tail(communities):
    """With a column for every direction the start has the whole filter, its three hops included."""
    scores = SpectralFilter(rank=4, tail=3.0)(communities, 0)
    every = min(communities.num_users, communities.num_items)
    users, items = TeacherFactors(num_layers=0)(communities, every + 3, 0, scores)
    expected = scores.scores(np.arange(communities.num_users))
    known = communities.user_degrees > 0  # another user is the mean of the others
    found = (users @ items.T)[known]
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected[known], axis=1)
    assert ((found * expected[known]).sum(1) / lengths).min() > 0.9999
    enough = SpectralFilter(rank=every // 2, tail=0.05)(communities, 0)  # nearly all is within the rank
    users, items = TeacherFactors(num_layers=0)(communities, every, 0, enough)
    assert np.linalg.matrix_rank(users @ items.T, tol=1e-4) == every // 2


def test_before_layers_of_nothing():
    from l2q.interactions import Interactions

    train = Interactions.from_pairs([0, 1], [0, 0], num_users=2, num_items=1)
    assert before_layers(train, torch.zeros(3, 2), 2).tolist() == [[0, 0]] * 3


WORDS = [
    "experiment=distilled",
    "annealing=none",
    "objective.teacher.length=5",
    "objective.teacher.filter={rank:12}",
    "objective.teacher.embeddings.weight=0",
    "model.embedding_dim=32",
    "batch_size=100000",
    "learning_rate=0.01",
    "epochs=6",
    EVERY_EPOCH,
    "protocol.patience=1000",
]


def test_a_run_goes_on_and_is_measured_again(tmp_path):
    words = [*WORDS, *table(tmp_path / "events.csv")]
    whole = run(tmp_path / "whole", *words)
    run(tmp_path / "short", *words, "trainer.max_epochs=3")
    again = run(tmp_path / "short", *words, f"ckpt_path={tmp_path}/short/checkpoints/last.ckpt")
    assert figures(again) == figures(whole)
    losses = [float(row["train/loss"]) for row in history_of(tmp_path / "whole")]
    assert losses[-1] < losses[0]
    best = f"ckpt_path={tmp_path}/whole/checkpoints/best.ckpt"
    measured = run(tmp_path / "measured", *words, "fit=false", best)
    assert measured["test/packed/recall_20"] == whole["test/packed/recall_20"]


def test_a_training_does_not_go_on_with_a_teacher_that_another_hold_out_chose(tmp_path, monkeypatch):
    words = [*WORDS, *table(tmp_path / "events.csv")]
    run(tmp_path / "run", *words, "trainer.max_epochs=1")
    loaded = Source.load

    def load(self):
        dataset = loaded(self)
        return replace(dataset, train=replace(dataset.train, holdout="random"))

    monkeypatch.setattr(Source, "load", load)
    with pytest.raises(L2QError, match="holdout"):
        run(tmp_path / "run", *words, f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt")


@pytest.mark.parametrize("more", [["model=lightgcn"], ["model=l2q"], ["batches=pairs", "batch_size=64"]])
def test_other_models_and_batches_learn_from_it_too(tmp_path, more):
    words = [word for word in WORDS if not any(word.startswith(new.partition("=")[0] + "=") for new in more)]
    metrics = run(tmp_path / "run", *words, *more, *table(tmp_path / "events.csv"))
    losses = [float(row["train/loss"]) for row in history_of(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert metrics["epochs"] >= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": -1.0}, r"objective\.weight=-1\.0 must be a number of at least 0"),
    ],
)
def test_options_out_of_range(values, said):
    with pytest.raises(L2QError, match=said):
        presets.distillation(**values)


@pytest.mark.parametrize("way", [Batches, Columns])
def test_several_processes_are_refused(way):
    with pytest.raises(L2QError, match=r"^objective=distillation is trained by one process"):
        way().check(composed(*WORDS))


def test_it_is_what_conf_says():
    assert isinstance(presets.distillation(), Distillation)
