"""Packed bits: how rows of signs lie on disk.

The segments of a row lie one after another. Each is filled up with zero bits to whole bytes, so that no byte holds bits
of two segments. Bit order is little: value k of a segment is bit k % 8 of its byte k // 8.
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


def pack(values: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """Signs of (rows, sum of dims) values, as (rows, row_bytes) uint8; sign(0) = +1.

    >>> pack(np.array([[1, -1, 1, 1]]), dims=(4,))
    array([[13]], dtype=uint8)
    """
    check_width(values, sum(dims), "values")
    packed = np.empty((len(values), row_bytes(dims)), np.uint8)
    for dim, start, at in _segments(dims):
        segment = values[:, start : start + dim]
        packed[:, at : at + -(-dim // 8)] = np.packbits(segment >= 0, axis=1, bitorder="little")
    return packed


def unpack(packed: np.ndarray, dims: Sequence[int]) -> np.ndarray:
    """The codes of (rows, row_bytes) packed rows, as (rows, sum of dims) int8 in {-1, +1}.

    >>> unpack(np.array([[13]], np.uint8), dims=(4,))
    array([[ 1, -1,  1,  1]], dtype=int8)
    """
    check_width(packed, row_bytes(dims), "packed rows")
    values = np.empty((len(packed), sum(dims)), np.int8)
    for dim, start, at in _segments(dims):
        segment = packed[:, at : at + -(-dim // 8)]
        values[:, start : start + dim] = np.unpackbits(segment, axis=1, count=dim, bitorder="little")
    values *= 2
    values -= 1
    return values


def _segments(dims: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Per segment: its width, its first column among the values, its first byte."""
    start = at = 0
    for dim in dims:
        yield dim, start, at
        start, at = start + dim, at + -(-dim // 8)


def check_width(array: np.ndarray, width: int, what: str) -> None:
    """Raises L2QError unless the array is (rows, width)."""
    if array.ndim != 2 or array.shape[1] != width:
        raise L2QError(f"{what}: expected (rows, {width}), got {array.shape}; do they belong to other dims?")
