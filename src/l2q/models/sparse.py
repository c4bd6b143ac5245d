"""Sparse matrix times dense matrix on the CPU, the one inner loop of propagation and of pair gradients.

    Y[t] = sum over e in starts[t] .. ends[t] - 1 of values[e] X[columns[e]]

One thread sums a row of Y, in one order, so the result has the same bits for any number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array


def multiply(starts, ends, columns, values, X: np.ndarray) -> np.ndarray:
    """Y (rows, d), of X's dtype; ``columns`` int32, X C-contiguous."""
    values = values.astype(X.dtype, copy=False)
    Y = np.empty((len(starts), X.shape[1]), X.dtype)
    bounds = _balanced(ends - starts)
    use_threads_of_torch()
    _multiply(bounds, starts, ends, columns, values, X, Y)
    return Y


def multiply_kept(starts, ends, columns, values, slots: np.ndarray, X: np.ndarray) -> np.ndarray:
    """As ``multiply``, with the rows of X found through ``slots``: column c is row slots[c] of X, or zero,
    and skipped, where slots[c] is -1."""
    values = values.astype(X.dtype, copy=False)
    Y = np.empty((len(starts), X.shape[1]), X.dtype)
    bounds = _balanced(ends - starts)
    use_threads_of_torch()
    _multiply_kept(bounds, starts, ends, columns, values, slots, X, Y)
    return Y


def use_threads_of_torch() -> None:
    """One number of threads for both libraries: torch's."""
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _balanced(lengths: np.ndarray, chunks: int = 64) -> np.ndarray:
    """Bounds of ``chunks`` runs of rows of about equal work: lengths follow a power law, so equal numbers of
    rows would not do. A row costs its entries and one more for writing it."""
    work = np.concatenate(([0], np.cumsum(lengths + 1)))
    return np.searchsorted(work, np.linspace(0, work[-1], chunks + 1))


@njit(parallel=True, cache=True)
def _multiply(bounds, starts, ends, columns, values, X, Y):
    for chunk in prange(len(bounds) - 1):
        for t in range(bounds[chunk], bounds[chunk + 1]):
            _sum_row(columns[starts[t] : ends[t]], values[starts[t] : ends[t]], X, Y[t])


@njit(parallel=True, cache=True)
def _multiply_kept(bounds, starts, ends, columns, values, slots, X, Y):
    for chunk in prange(len(bounds) - 1):
        first, last = bounds[chunk], bounds[chunk + 1]
        longest = 0
        for t in range(first, last):
            longest = max(longest, ends[t] - starts[t])
        kept, weights = np.empty(longest, np.int32), np.empty(longest, X.dtype)
        for t in range(first, last):
            count = 0
            for e in range(starts[t], ends[t]):
                kept[count], weights[count] = slots[columns[e]], values[e]
                count += kept[count] >= 0
            _sum_row(kept[:count], weights[:count], X, Y[t])


@njit(inline="always")
def _sum_row(columns, values, X, y):
    """y = sum of values[e] X[columns[e]], by blocks of y that stay in registers for the whole sum."""
    j = 0
    while j + 64 <= len(y):
        _sum_block(64, columns, values, X, j, y)  # type: ignore[call-arg]
        j += 64
    while j + 16 <= len(y):
        _sum_block(16, columns, values, X, j, y)  # type: ignore[call-arg]
        j += 16
    while j < len(y):
        _sum_block(1, columns, values, X, j, y)  # type: ignore[call-arg]
        j += 1


@intrinsic(prefer_literal=True)
def _sum_block(typing_context, width, columns, values, X, j, y):
    """y[j : j + width] = sum of values[e] X[columns[e], j : j + width].

    As a loop in Python this would load and store y for every entry; as one LLVM vector of ``width`` elements
    the sum has registers of its own, which halves the time at 64 columns.
    """

    def emit(context, builder, signature, arguments):
        def data(argument):
            return make_array(signature.args[argument])(context, builder, arguments[argument]).data

        element = context.get_value_type(X.dtype)
        vector = ir.VectorType(element, width.literal_value)
        align = X.dtype.bitwidth // 8
        count = make_array(columns)(context, builder, arguments[1]).nitems
        row_length = builder.extract_value(make_array(X)(context, builder, arguments[3]).shape, 1)
        column_data, value_data, X_data, y_data, start = data(1), data(2), data(3), data(5), arguments[4]

        def block(base, offset):
            return builder.bitcast(builder.gep(base, [builder.add(offset, start)]), vector.as_pointer())

        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        with cgutils.for_range(builder, count) as loop:
            column = builder.sext(builder.load(builder.gep(column_data, [loop.index])), start.type)
            value = builder.load(builder.gep(value_data, [loop.index]))
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), width.literal_value), None)
            undefined = ir.Constant(ir.VectorType(element, 1), ir.Undefined)
            single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
            factor = builder.shuffle_vector(single, undefined, lanes)
            row = builder.load(block(X_data, builder.mul(column, row_length)), align=align)
            product = builder.fmul(factor, row, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        builder.store(builder.load(total), block(y_data, ir.Constant(start.type, 0)), align=align)
        return context.get_dummy_value()

    return types.void(width, columns, values, X, j, y), emit
