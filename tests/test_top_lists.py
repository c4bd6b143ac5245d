"""The best items of every user as a sparse matrix."""

import numpy as np
import pytest
from scipy import sparse

from l2q.interactions import Interactions
from l2q.kernels.top_lists import heads, top_lists, user_blocks


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
    [(0, 1024), (4, 1024), (65_536, 1024), (65_537, 512), (2_000_000, 32), (2**26, 1), (2**28, 1)],
)
def test_a_block_of_scores_takes_at_most_256_mib(num_items, size):
    blocks = list(user_blocks(2100, num_items))
    assert blocks[0] == slice(0, size)
    assert [user for block in blocks for user in range(block.start, block.stop)] == list(range(2100))


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
