"""Objectives: hand-worked numbers, and gradients against autograd of the plain formulas."""

import math
from pathlib import Path

import presets
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.autograd import gradcheck
from torch.nn.functional import cosine_similarity, cross_entropy, logsigmoid

from l2q.errors import L2QError
from l2q.kernels import log_sums
from l2q.models.losses import BPR, Batch, Softmax, bpr, hardest, l2, softmax

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


def batch_of(*triplet: torch.Tensor) -> Batch:
    """Items 0 to 6 have 1/28 to 7/28 of the train pairs."""
    users, pos_items, neg_items = triplet
    return Batch(users, pos_items, neg_items, (pos_items + 1) / 28)


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


def test_softmax_by_hand():
    positive = torch.tensor([0.0, LOG2, 5.0])
    negatives = torch.tensor([LOG3, LOG3, -torch.inf])
    # 1 / (1 + 3), 2 / (2 + 3), 1
    assert softmax(positive, negatives).item() == pytest.approx((LOG4 + math.log(5 / 2)) / 3)


def test_softmax_is_cross_entropy():
    scores = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    expected = cross_entropy(scores, torch.zeros(9, dtype=torch.long))
    torch.testing.assert_close(softmax(scores[:, 0], scores[:, 1:].logsumexp(1)), expected)


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
    assert_same_loss_and_gradients(
        lambda X, Y, *E: objective(X, Y, batch_of(users, pos, neg), *E), naive, leaves
    )


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
        lambda X, Y, *E: objective(X, Y, batch_of(users, pos, torch.cat([neg, others])), *E),
        lambda X, Y, *E: plain(X, Y, batch_of(users, pos, chosen), *E),
        leaves,
    )


def similarity(name, x, y):
    return x @ y if name == "inner" else cosine_similarity(x, y, dim=0)


def plain_softmax(batch, options):
    """Of a batch, pair by pair and negative by negative."""
    users, pos, neg, shares = batch
    share = dict(zip(pos.tolist(), shares.tolist(), strict=True))

    def loss(X, Y, E_users, E_items):
        kind, t, count = options["similarity"], options["temperature"], options.get("num_negatives")
        drawn = neg[:count] if count else pos
        squares = E_users[users].square().sum() + E_items[pos].square().sum()
        if count:
            squares = squares + E_items[drawn].square().sum()
        losses = []
        for u, i in zip(users.tolist(), pos.tolist(), strict=True):
            own = {j for v, j in zip(users.tolist(), pos.tolist(), strict=True) if v == u}
            items = [i, *(j for j in drawn.tolist() if j not in own)]
            scores = torch.stack([similarity(kind, X[u], Y[j]) / t for j in items])
            if options.get("correct_popularity"):
                scores = scores - torch.tensor([share[j] for j in items], dtype=X.dtype).log()
            w = options.get("bilateral")
            losses.append(w * scores[1:].logsumexp(0) - scores[0] if w else -scores.log_softmax(0)[0])
        return torch.stack(losses).mean() + options["l2"] / 2 * squares / len(users)

    return loss


SOFTMAX = [
    {},
    {"similarity": "inner", "temperature": 2.0},
    {"correct_popularity": True},
    {"bilateral": 1.2},
    {"bilateral": 0.8, "correct_popularity": True, "similarity": "inner", "temperature": 2.0},
    {"num_negatives": 4},
    {"num_negatives": 4, "similarity": "inner", "temperature": 0.5, "bilateral": 0.8},
]


@pytest.mark.parametrize("block", [1, 15, 1 << 24])
@pytest.mark.parametrize("options", SOFTMAX, ids=lambda options: "-".join(map(str, options)) or "default")
def test_softmax_is_its_formula(tables, options, block, monkeypatch):
    """Users 1 and 3 occur again, and so do items 4 and 0, which users 1 and 3 both have."""
    monkeypatch.setattr(log_sums, "BLOCK", block)
    leaves, triplet = tables
    options = {"l2": 0.1, "similarity": "cosine", "temperature": 0.5} | options
    batch = batch_of(*triplet)
    objective = presets.softmax(**options)
    assert_same_loss_and_gradients(
        lambda X, Y, *E: objective(X, Y, batch, *E), plain_softmax(batch, options), leaves
    )


@pytest.mark.parametrize("options", SOFTMAX, ids=lambda options: "-".join(map(str, options)) or "default")
def test_softmax_has_the_gradients_of_differences(tables, options):
    leaves, triplet = tables
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    objective = presets.softmax(**{"l2": 0.1, "learn_temperature": True} | options).double()
    parameter = objective.temperature.log_temperature

    def loss(t, *wide):
        with torch.no_grad():
            parameter.copy_(t)
        return torch.func.functional_call(
            objective, {"temperature.log_temperature": t}, (*wide[:2], batch_of(*triplet), *wide[2:])
        )

    assert gradcheck(loss, (parameter.detach().clone().requires_grad_(), *wide))


@pytest.mark.parametrize("options", [{}, {"bilateral": 1.1}, {"num_negatives": 2}])
def test_a_user_without_a_foreign_item_in_the_batch_costs_nothing(tables, options):
    leaves, _ = tables
    users, items = torch.tensor([4, 4]), torch.tensor([4, 2])
    objective = presets.softmax(l2=0.0, **options)
    loss = objective(*leaves[:2], batch_of(users, items, items), *leaves[2:])
    loss.backward()
    assert loss.item() == 0
    assert all(leaf.grad is None or leaf.grad.count_nonzero() == 0 for leaf in leaves)


def test_items_drawn_uniformly_have_no_popularity_to_correct():
    with pytest.raises(
        L2QError, match=r"^objective\.correct_popularity=true needs objective\.num_negatives=null, .*$"
    ):
        presets.softmax(correct_popularity=True, num_negatives=8)


def uniform_softmax(temperature: float = 1.0, **changes) -> Softmax:
    """Of inner products times ``temperature``, as BPR's are; with one negative it is BPR's."""
    return presets.softmax(similarity="inner", num_negatives=1, temperature=1 / temperature, **changes)


@pytest.mark.parametrize(("scales", "divisor"), [("none", 4), ("row", 1), (None, 1)])
@pytest.mark.parametrize("objective", [presets.bpr, uniform_softmax])
def test_codes_without_scales_are_divided_by_the_root_of_their_width(objective, scales, divisor):
    X = torch.ones(1, 16)
    Y = torch.stack([torch.ones(16), torch.ones(16)])
    Y[1, :4] = -1  # scores 16 and 8
    batch = batch_of(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    loss = objective(l2=0.0, temperature=0.5, scales=scales)(X, Y, batch, X, Y)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5 * 8 / divisor)), rel=1e-5)


@pytest.mark.parametrize("objective", [presets.bpr, uniform_softmax])
def test_the_temperature_is_learned_on_request(objective):
    X, Y = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    batch = batch_of(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]))
    learned = objective(l2=0.0, temperature=0.5, learn_temperature=True)
    learned(X, Y, batch, X, Y).backward()
    (parameter,) = learned.parameters()
    # d/d log t of softplus(-2 t) = -2 t sigmoid(-2 t), t = 1/2
    assert parameter.grad.item() == pytest.approx(-1 / (1 + math.e))
    assert list(objective().parameters()) == []
    assert not objective().state_dict()


@pytest.mark.parametrize("name", ["bpr", "softmax"])
@pytest.mark.parametrize(
    ("quantizer", "by_width"), [({"scales": "none"}, True), ({"scales": "row"}, False), ({}, False)]
)
def test_conf_options_build_their_objectives(name, quantizer, by_width):
    config = OmegaConf.create(
        {"model": {"name": "l2q", "quantizer": quantizer}, "objective": OmegaConf.load(CONF / f"{name}.yaml")}
    )
    objective = instantiate(config.objective, **({} if name == "bpr" else {"similarity": "inner"}))
    assert type(objective) is {"bpr": BPR, "softmax": Softmax}[name]
    assert objective.l2 == {"bpr": 1e-3, "softmax": 1e-5}[name]
    assert objective.temperature.by_width is by_width
    factor = {"bpr": 1, "softmax": 1 / 0.12}[name]
    assert objective.temperature(16).item() == pytest.approx(factor * (0.25 if by_width else 1))


def test_cosines_do_not_grow_with_the_width():
    assert presets.softmax(scales="none", temperature=0.5).temperature(16).item() == pytest.approx(2)


def test_candidates_are_a_whole_number():
    with pytest.raises(L2QError, match=r"^objective\.candidates=0 must be a whole number of at least 1$"):
        presets.bpr(candidates=0)


@pytest.mark.parametrize(("option", "value"), [("l2", -1.0), ("temperature", 0.0), ("num_negatives", 0)])
def test_a_bad_value_is_one_clear_line(option, value):
    with pytest.raises(L2QError, match=rf"^objective\.{option}={value} must be [^\n]+$"):
        presets.softmax(**{option: value})
