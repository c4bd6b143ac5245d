import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2q.errors import L2QError
from l2q.kernels.packing import pack, row_bytes, unpack

segment_dims = st.lists(st.integers(1, 130), min_size=1, max_size=4)


def signs(rows, dims, seed=0):
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), size=(rows, sum(dims)))


def test_layout_by_hand():
    values = np.array([[+1, -1, +1] + [-1] * 8 + [+1] + [-1] * 4, [-1] * 3 + [+1] * 13], np.int8)
    # segment of 3: bits 101 -> 5; segment of 13: only value 8 is set -> bytes 0, 1
    np.testing.assert_array_equal(pack(values, (3, 13)), [[5, 0, 1], [0, 255, 31]])


def test_bits_are_little_endian_and_filled_per_segment():
    values = -np.ones((1, 33 + 2), np.int8)
    values[0, [31, 32, 34]] = 1
    np.testing.assert_array_equal(pack(values, (33, 2)), [[0, 0, 0, 1 << 7, 1, 2]])


def test_zero_counts_as_plus_one():
    np.testing.assert_array_equal(pack(np.array([[0.0, -0.0, -1.0, 2.0]], np.float32), (4,)), [[0b1011]])


@settings(max_examples=60, deadline=None)
@given(segment_dims, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_unpack_inverts_pack_and_filling_is_zero(dims, rows, seed):
    values = signs(rows, dims, seed)
    packed = pack(values, dims)
    assert packed.shape == (rows, row_bytes(dims))
    np.testing.assert_array_equal(unpack(packed, dims), values)
    assert np.bitwise_count(packed).sum() == (values == 1).sum()


@settings(max_examples=60, deadline=None)
@given(segment_dims, st.integers(0, 2**32 - 1))
def test_dot_is_dim_minus_twice_the_xor_popcount(dims, seed):
    values = signs(2, dims, seed)
    left, right = pack(values, dims)
    dot = sum(dims) - 2 * int(np.bitwise_count(left ^ right).sum())
    assert dot == values[0].astype(int) @ values[1].astype(int)


@pytest.mark.parametrize(
    ("call", "array"),
    [(pack, np.ones((2, 9), np.int8)), (unpack, np.ones((2, 3), np.uint8)), (unpack, np.ones(2, np.uint8))],
)
def test_foreign_widths_are_refused(call, array):
    with pytest.raises(L2QError, match=r"expected \(rows, "):
        call(array, (10,))
