"""Packed bits: how rows of signs lie on disk (bytes) and in the kernels (32-bit words).

Both layouts put the segments of a row one after another. Each segment is filled up with zero bits, on disk to
whole bytes and in the kernels to whole 32-bit words, so that no unit holds bits of two segments. Bit order
is little: value k of a segment is bit k % 8 of its byte k // 8, and bit k % 32 of its word k // 32.
Bit 1 is +1, bit 0 is -1. Fillings are equal on both sides of a score, so xor cancels them:

    <q_us, q_is> = dim_s - 2 popcount(q_us xor q_is)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from l2q.errors import L2QError


def row_bytes(dims: Sequence[int]) -> int:
    """Bytes of one packed row: sum_s ceil(dim_s / 8)."""
    return sum(-(-dim // 8) for dim in dims)


def row_words(dims: Sequence[int]) -> int:
    """32-bit words of one row in the kernels' layout: sum_s ceil(dim_s / 32)."""
    return sum(-(-dim // 32) for dim in dims)


def pack(values: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Signs of (rows, sum of dims) values, as (rows, row_bytes) uint8; sign(0) = +1.

    >>> pack(np.array([[1, -1, 1, 1]]), dims=(4,))
    array([[13]], dtype=uint8)
    """
    _check_width(values, sum(dims), "values")
    packed = np.empty((len(values), row_bytes(dims)), np.uint8)
    for dim, start, at in _segments(dims, 8):
        segment = values[:, start : start + dim]
        packed[:, at : at + -(-dim // 8)] = np.packbits(segment >= 0, axis=1, bitorder="little")
    return packed


def unpack(packed: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The codes of (rows, row_bytes) packed rows, as (rows, sum of dims) int8 in {-1, +1}.

    >>> unpack(np.array([[13]], np.uint8), dims=(4,))
    array([[ 1, -1,  1,  1]], dtype=int8)
    """
    _check_width(packed, row_bytes(dims), "packed rows")
    values = np.empty((len(packed), sum(dims)), np.int8)
    for dim, start, at in _segments(dims, 8):
        segment = packed[:, at : at + -(-dim // 8)]
        values[:, start : start + dim] = np.unpackbits(segment, axis=1, count=dim, bitorder="little")
    values *= 2
    values -= 1
    return values


def to_words(packed: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Packed rows in the kernels' layout, (rows, row_words) uint32."""
    _check_width(packed, row_bytes(dims), "packed rows")
    words = np.zeros((len(packed), row_words(dims)), "<u4")
    as_bytes = words.view(np.uint8)
    for (dim, _, at), (_, _, word) in zip(_segments(dims, 8), _segments(dims, 32), strict=True):
        size = -(-dim // 8)
        as_bytes[:, 4 * word : 4 * word + size] = packed[:, at : at + size]
    return words.astype(np.uint32, copy=False)


def _segments(dims: Sequence[int], unit: int) -> Iterator[tuple[int, int, int]]:
    """Per segment: its width, its first column among the values, its first unit of ``unit`` bits."""
    start = at = 0
    for dim in dims:
        yield dim, start, at
        start, at = start + dim, at + -(-dim // unit)


def _check_width(array: np.ndarray, width: int, what: str) -> None:
    if array.ndim != 2 or array.shape[1] != width:
        raise L2QError(f"{what}: expected (rows, {width}), got {array.shape}; do they belong to other dims?")
