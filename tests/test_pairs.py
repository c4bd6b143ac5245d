"""Fused pair scores against plain indexing with autograd."""

import pytest
import torch

from l2q.kernels.pairs import pair_scores


def problem(num_pairs, dim, dtype=torch.float32, num_rows=37, num_columns=53):
    """Repeated pairs, popular items, and rows without any pair."""
    generator = torch.Generator().manual_seed(num_pairs + dim)
    X = torch.randn(num_rows, dim, generator=generator, dtype=dtype).requires_grad_()
    Y = torch.randn(num_columns, dim, generator=generator, dtype=dtype).requires_grad_()
    users = torch.randint(0, num_rows - 2, (num_pairs,), generator=generator)
    items = (torch.rand(num_pairs, generator=generator) ** 3 * (num_columns - 4)).long()
    return X, Y, users, items


def test_hand_worked_scores_and_gradients():
    X = torch.tensor([[1.0, 2.0], [3.0, -1.0], [9.0, 9.0]], requires_grad=True)
    Y = torch.tensor([[2.0, 0.5], [-1.0, 4.0]], requires_grad=True)
    scores = pair_scores(X, Y, torch.tensor([0, 1, 0]), torch.tensor([0, 1, 1]))
    assert scores.tolist() == [3.0, -7.0, 7.0]
    scores.backward(torch.tensor([1.0, 10.0, 100.0]))
    assert X.grad.tolist() == [[-98.0, 400.5], [-10.0, 40.0], [0.0, 0.0]]
    assert Y.grad.tolist() == [[1.0, 2.0], [130.0, 190.0]]


@pytest.mark.parametrize("num_pairs", [0, 1, 500])
@pytest.mark.parametrize("dim", [1, 3, 64, 769])
def test_scores_and_gradients_equal_plain_indexing(num_pairs, dim):
    X, Y, users, items = problem(num_pairs, dim)
    weights = torch.randn(num_pairs, generator=torch.Generator().manual_seed(9))
    expected = (X[users] * Y[items]).sum(dim=1)
    scores = pair_scores(X, Y, users, items)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-4)
    gradients = torch.autograd.grad(scores, (X, Y), weights)
    for one, other in zip(gradients, torch.autograd.grad(expected, (X, Y), weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_gradcheck_in_float64():
    X, Y, users, items = problem(40, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda X, Y: pair_scores(X, Y, users, items), (X, Y))


def test_one_table_on_both_sides_gets_both_gradients():
    X, _, users, items = problem(60, 5)
    items = items % len(X)
    gradient = torch.autograd.grad(pair_scores(X, X, users, items).sum(), X)[0]
    expected = torch.autograd.grad((X[users] * X[items]).sum(), X)[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    X, Y, users, items = problem(20_000, 48)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scores = pair_scores(X, Y, users, items)
            results.append((scores, *torch.autograd.grad(scores, (X, Y), scores.detach())))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize(("users", "items", "name"), [([37], [0], "users"), ([0], [-1], "items")])
def test_ids_outside_are_refused(users, items, name):
    X, Y, _, _ = problem(1, 2)
    with pytest.raises(IndexError, match=name):
        pair_scores(X, Y, torch.tensor(users), torch.tensor(items))
