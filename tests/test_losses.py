"""Objectives: hand-worked numbers, and gradients against autograd of the plain formulas."""

import math
from pathlib import Path

import presets
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.nn.functional import cross_entropy, logsigmoid

from l2q.errors import L2QError
from l2q.models.losses import BPR, SampledSoftmax, bpr, hardest, l2, sampled_softmax

CONF = Path(__file__).parents[1] / "conf" / "objective"
LOG2, LOG3, LOG4 = math.log(2), math.log(3), math.log(4)


@pytest.fixture
def tables():
    """X, Y, E_users, E_items as leaves, and a batch whose rows repeat; 0 and 4 are never a user."""
    generator = torch.Generator().manual_seed(0)
    sizes = ((5, 12), (7, 12), (5, 4), (7, 4))
    leaves = [torch.randn(size, generator=generator).requires_grad_() for size in sizes]
    batch = (
        torch.tensor([1, 1, 3, 2, 1, 3]),
        torch.tensor([0, 4, 4, 6, 2, 0]),
        torch.tensor([4, 3, 3, 1, 0, 2]),
    )
    return leaves, batch


def assert_same_loss_and_gradients(objective, naive, leaves, rtol=1e-5):
    loss = objective(*leaves)
    loss.backward()
    got = [leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    expected = naive(*leaves)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=rtol, atol=1e-6)
    for grad, leaf in zip(got, leaves, strict=True):
        torch.testing.assert_close(grad, leaf.grad, rtol=rtol, atol=1e-6)


def test_bpr_by_hand():
    # softplus of 0, log 3 and -log 3: log 2, log 4, log 4/3
    positive, negative = torch.tensor([2.0, 0.0, LOG3]), torch.tensor([2.0, LOG3, 0.0])
    assert bpr(positive, negative).item() == pytest.approx((LOG2 + LOG4 + LOG4 - LOG3) / 3)
    assert bpr(torch.tensor([0.0]), torch.tensor([200.0])).item() == 200


def test_sampled_softmax_by_hand():
    positive = torch.tensor([0.0, LOG2])
    negatives = torch.tensor([[0.0, LOG2, -torch.inf], [0.0, 0.0, 0.0]])
    # 1 / (1 + 1 + 2), 2 / (2 + 3)
    assert sampled_softmax(positive, negatives).item() == pytest.approx((LOG4 + math.log(5 / 2)) / 2)


def test_sampled_softmax_is_cross_entropy():
    scores = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    expected = cross_entropy(scores, torch.zeros(9, dtype=torch.long))
    torch.testing.assert_close(sampled_softmax(scores[:, 0], scores[:, 1:]), expected)


def test_l2_by_hand():
    E = torch.tensor([[1.0, 2.0], [3.0, 0.0], [7.0, 7.0], [0.0, 0.0]], requires_grad=True)
    loss = l2(E, torch.tensor([0, 1, 0, 3]))
    assert loss.item() == pytest.approx((5 + 9 + 5 + 0) / 2)
    (2 * loss).backward()
    assert E.grad.tolist() == [[4, 8], [6, 0], [0, 0], [0, 0]]


def test_bpr_objective_is_its_formula(tables):
    leaves, (users, pos, neg) = tables

    def naive(X, Y, E_users, E_items):
        margin = (X[users] * (Y[pos] - Y[neg])).sum(1)
        squares = sum(e.square().sum() for e in (E_users[users], E_items[pos], E_items[neg]))
        return -logsigmoid(0.5 * margin).mean() + 0.1 / 2 * squares / 6

    objective = presets.bpr(l2=0.1, temperature=0.5)
    assert_same_loss_and_gradients(lambda X, Y, *E: objective(X, Y, (users, pos, neg), *E), naive, leaves)


def test_the_hardest_candidate_has_the_highest_score():
    X = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    Y = torch.tensor([[1.0, 5.0], [2.0, 4.0], [3.0, 3.0], [3.0, 9.0]])
    users = torch.tensor([0, 1, 0])
    items = torch.tensor([0, 0, 3, 1, 1, 2])  # of users 0, 1, 0 and again: scores 1 5 3, 2 4 3
    assert hardest(X, Y, users, items).tolist() == [1, 0, 3]  # the first among equals
    assert hardest(X, Y, users, items[:3]).tolist() == [0, 0, 3]


def test_bpr_counts_the_hardest_of_its_candidates(tables):
    leaves, (users, pos, neg) = tables
    others = torch.tensor([2, 6, 0, 5, 3, 1])
    X, Y = leaves[:2]
    chosen = torch.where(((X[users] * Y[others]).sum(1) > (X[users] * Y[neg]).sum(1)), others, neg)
    assert 0 < (chosen != neg).sum() < 6
    objective, plain = (
        presets.bpr(l2=0.1, temperature=0.5, candidates=2),
        presets.bpr(l2=0.1, temperature=0.5),
    )
    assert_same_loss_and_gradients(
        lambda X, Y, *E: objective(X, Y, (users, pos, torch.cat([neg, others])), *E),
        lambda X, Y, *E: plain(X, Y, (users, pos, chosen), *E),
        leaves,
    )


def test_sampled_softmax_objective_is_its_formula(tables):
    leaves, (users, pos, neg) = tables
    shared = neg[:4]  # 4 3 3 1: rows 1 and 2 have item 4 as their positive

    def naive(X, Y, E_users, E_items):
        losses = []
        for u, i in zip(users, pos, strict=True):
            items = [i] + [j for j in shared if j != i]
            losses.append(-torch.stack([2 * X[u] @ Y[j] for j in items]).log_softmax(0)[0])
        squares = sum(e.square().sum() for e in (E_users[users], E_items[pos], E_items[shared]))
        return torch.stack(losses).mean() + 0.1 / 2 * squares / 6

    objective = presets.sampled_softmax(l2=0.1, temperature=2.0, num_negatives=4)
    assert_same_loss_and_gradients(lambda X, Y, *E: objective(X, Y, (users, pos, neg), *E), naive, leaves)


def test_a_row_without_a_foreign_negative_costs_nothing(tables):
    leaves, _ = tables
    only = torch.tensor([4])
    loss = presets.sampled_softmax(l2=0.0)(*leaves[:2], (only, only, only), *leaves[2:])
    loss.backward()
    assert loss.item() == 0
    assert all(leaf.grad.count_nonzero() == 0 for leaf in leaves)


@pytest.mark.parametrize(("scales", "divisor"), [("none", 4), ("row", 1), (None, 1)])
@pytest.mark.parametrize("objective", [presets.bpr, presets.sampled_softmax])
def test_codes_without_scales_are_divided_by_the_root_of_their_width(objective, scales, divisor):
    X = torch.ones(1, 16)
    Y = torch.stack([torch.ones(16), torch.ones(16)])
    Y[1, :4] = -1  # scores 16 and 8
    batch = (torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    loss = objective(l2=0.0, temperature=0.5, scales=scales)(X, Y, batch, X, Y)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5 * 8 / divisor)), rel=1e-5)


@pytest.mark.parametrize("objective", [presets.bpr, presets.sampled_softmax])
def test_the_temperature_is_learned_on_request(objective):
    X, Y = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    batch = (torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    learned = objective(l2=0.0, temperature=0.5, learn_temperature=True)
    learned(X, Y, batch, X, Y).backward()
    (parameter,) = learned.parameters()
    # d/d log t of softplus(-2 t) = -2 t sigmoid(-2 t), t = 1/2
    assert parameter.grad.item() == pytest.approx(-1 / (1 + math.e))
    assert list(objective().parameters()) == []
    assert not objective().state_dict()


@pytest.mark.parametrize("name", ["bpr", "sampled_softmax"])
@pytest.mark.parametrize(
    ("quantizer", "by_width"), [({"scales": "none"}, True), ({"scales": "row"}, False), ({}, False)]
)
def test_conf_options_build_their_objectives(name, quantizer, by_width):
    config = OmegaConf.create(
        {"model": {"name": "l2q", "quantizer": quantizer}, "objective": OmegaConf.load(CONF / f"{name}.yaml")}
    )
    objective = instantiate(config.objective)
    assert type(objective) is {"bpr": BPR, "sampled_softmax": SampledSoftmax}[name]
    assert objective.l2 == 1e-3
    assert objective.temperature.by_width is by_width
    assert objective.temperature(16).item() == (0.25 if by_width else 1)


def test_candidates_are_a_whole_number():
    with pytest.raises(L2QError, match=r"^objective\.candidates=0 must be a whole number of at least 1$"):
        presets.bpr(candidates=0)


@pytest.mark.parametrize(("option", "value"), [("l2", -1.0), ("temperature", 0.0), ("num_negatives", 0)])
def test_a_bad_value_is_one_clear_line(option, value):
    with pytest.raises(L2QError, match=rf"^objective\.{option}={value} must be [^\n]+$"):
        presets.sampled_softmax(**{option: value})
