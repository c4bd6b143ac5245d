"""Logarithms of summed exponentials against the plain ones of the whole matrix."""

import pytest
import torch
from torch.autograd import gradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from l2q.kernels.log_sums import log_sums

ROWS, COLUMNS = torch.tensor([6, 0, 3, 0, 6, 3, 3]), torch.tensor([1, 4, 4, 0, 1, 2, 3])
BLOCKS = [1, 5, 13, 1 << 24]  # scores at once: a row, a row, two rows, all


def tables(dtype: torch.dtype, factor: float = 1.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((7, 4), (5, 4), (5,))
    return tuple(
        (factor * torch.randn(size, generator=generator, dtype=dtype)).requires_grad_() for size in sizes
    )


def plain(X, Y, bias):
    scores = X @ Y.T + bias
    return scores.index_put((ROWS, COLUMNS), torch.tensor(-torch.inf, dtype=scores.dtype)).logsumexp(1)


@pytest.mark.parametrize("block", BLOCKS)
def test_sums_and_gradients_are_those_of_the_whole_matrix(block):
    leaves = tables(torch.float64)
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    found, expected = log_sums(*leaves, ROWS, COLUMNS, block), plain(*leaves)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found @ weights, leaves), torch.autograd.grad(expected @ weights, leaves)
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_are_those_of_differences(block):
    assert gradcheck(lambda *leaves: log_sums(*leaves, ROWS, COLUMNS, block), tables(torch.float64))


def test_large_scores_do_not_overflow():
    leaves = tables(torch.float32, factor=30.0)
    assert plain(*leaves).max() > 1000
    torch.testing.assert_close(log_sums(*leaves, ROWS, COLUMNS, 13), plain(*leaves))


@pytest.mark.parametrize("block", BLOCKS)
def test_a_row_without_columns_is_minus_infinity_and_has_no_gradient(block):
    X, Y, bias = tables(torch.float64)
    sums = log_sums(X, Y, bias, torch.full((5,), 2), torch.arange(5), block)
    assert sums[2] == -torch.inf
    assert sums[[0, 1, 3, 4, 5, 6]].isfinite().all()
    kept = torch.where(sums.isinf(), 0, sums).sum()
    gradients = torch.autograd.grad(kept, (X, Y, bias))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0][2].tolist() == [0] * 4


class _Matrices(TorchDispatchMode):
    """Keeps what any operation returns with at least so many numbers."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.made = size, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.numel() >= self.size:
            self.made.append(made)
        return made

    @property
    def memories(self) -> dict[int, int]:
        """Bytes by address; what is kept shares no address with what came later."""
        storages = [made.untyped_storage() for made in self.made]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}


@pytest.mark.parametrize(("block", "memories"), [(1000, 2 * [4000]), (4000, [16000])])
def test_no_more_than_a_block_of_scores_is_in_memory(block, memories):
    """One block of forward and one of backward, or one for both where all scores fit."""
    X, Y, bias = (side.requires_grad_() for side in (torch.ones(100, 2), torch.ones(40, 2), torch.zeros(40)))
    none = torch.empty(0, dtype=torch.long)
    with _Matrices(25 * 40) as matrices:
        log_sums(X, Y, bias, none, none, block).sum().backward()
    assert list(matrices.memories.values()) == memories
    torch.testing.assert_close(bias.grad, torch.full((40,), 100 / 40))
