"""Sparse matrix times dense matrix on the CPU: the inner loop of propagation, of pair gradients and of the SVD.

    Y[t] = sum over e in starts[t] .. ends[t] - 1 of values[e] X[columns[e]]

One thread sums a row of Y, in one order. So the result has the same bits for any number of threads.
"""

from __future__ import annotations

import sys

import numba
import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from l2q.kernels import compiling

LINE = 64  # bytes of a line of the cache
AHEAD = 128  # entries; 32 to 256 are within 15 % of each other, at 60 million entries of 256 bytes


def multiply(starts, ends, columns, values, X: np.ndarray, Y: np.ndarray | None = None) -> np.ndarray:
    """Y (rows, d), of X's dtype; ``columns`` int32, X C-contiguous. It is written into ``Y``, where one is given.

    >>> indptr, columns, values = np.array([0, 2, 3]), np.int32([0, 1, 1]), np.ones(3)
    >>> multiply(indptr[:-1], indptr[1:], columns, values, np.array([[1.0, 2.0], [10.0, 20.0]]))
    array([[11., 22.],
           [10., 20.]])
    """
    values = values.astype(X.dtype, copy=False)
    Y = lines(len(starts), X) if Y is None else Y
    bounds = even_runs(ends - starts, row_cost=1)  # 1: to write the row
    # a selection of rows has the entries of other rows between its own: those are not asked for ahead
    ahead = AHEAD if np.array_equal(starts[1:], ends[:-1]) else 0
    use_threads_of_torch()
    _multiply(bounds, starts, ends, columns, values, X, Y, ahead)
    return Y


def multiply_kept(starts, ends, columns, values, slots: np.ndarray, X: np.ndarray) -> np.ndarray:
    """As ``multiply`` for adjoining rows, with a part of the rows of X at hand.

    Column c is row ``slots[c]`` of X. Where ``slots[c]`` is -1 the column is zero, and its entries are skipped.
    """
    values = values.astype(X.dtype, copy=False)
    Y = lines(len(starts), X)
    bounds = even_runs(ends - starts, row_cost=1)  # 1: to write the row
    use_threads_of_torch()
    _multiply_kept(bounds, starts, ends, columns, values, slots, X, Y, AHEAD)
    return Y


def use_threads_of_torch() -> None:
    """One number of threads for both libraries: torch's, in a process that has it loaded."""
    if (torch := sys.modules.get("torch")) is not None:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def lines(rows: int, X: np.ndarray) -> np.ndarray:
    """Memory for Y (rows, d) that starts at a line of the cache, since Y is the X of the next product.

    NumPy's memory starts 16 bytes behind a line. A row of 64 columns then lies on five lines instead of four.
    """
    size = rows * X.shape[1] * X.itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(X.dtype).reshape(rows, X.shape[1])


def even_runs(lengths: np.ndarray, row_cost: int, chunks: int = 64) -> np.ndarray:
    """Bounds (chunks + 1,) of runs of rows of about equal work, for threads to share.

    A row costs its ``lengths`` entries, and as much as ``row_cost`` entries beside them. Lengths follow a power law,
    so runs of equally many rows would not have equal work.

    >>> even_runs(np.array([8, 1, 1, 1, 1]), row_cost=0, chunks=2)
    array([0, 1, 5])
    """
    work = np.concatenate(([0], np.cumsum(lengths + row_cost)))
    return np.searchsorted(work, np.linspace(0, work[-1], chunks + 1))


@compiling.njit(parallel=True, cache=True)
def _multiply(bounds, starts, ends, columns, values, X, Y, ahead):
    for chunk in prange(len(bounds) - 1):
        for t in range(bounds[chunk], bounds[chunk + 1]):
            _sum_row(starts[t], ends[t], columns, values, X, Y[t], ahead)


@compiling.njit(parallel=True, cache=True)
def _multiply_kept(bounds, starts, ends, columns, values, slots, X, Y, ahead):
    for chunk in prange(len(bounds) - 1):
        first, last = bounds[chunk], bounds[chunk + 1]
        if first == last:
            continue
        kept = np.empty(ends[last - 1] - starts[first], np.int32)
        weights = np.empty(len(kept), X.dtype)
        kept_ends = np.empty(last - first, np.int64)
        count = 0
        for t in range(first, last):
            for e in range(starts[t], ends[t]):
                kept[count], weights[count] = slots[columns[e]], values[e]
                count += kept[count] >= 0
            kept_ends[t - first] = count
        start = 0
        for t in range(first, last):
            _sum_row(start, kept_ends[t - first], kept[:count], weights, X, Y[t], ahead)
            start = kept_ends[t - first]


@njit(inline="always")
def _sum_row(start, end, columns, values, X, y, ahead):
    """y = sum over e in start .. end - 1 of values[e] X[columns[e]].

    A block of y stays in registers for the whole sum. Meanwhile the rows of X are prefetched that the entries
    ``ahead`` of these will read. Such rows lie anywhere in memory: a core that waits for each of them does not use the
    memory's whole bandwidth.
    """
    first = min(start + ahead, len(columns) - (end - start))
    columns, later, values = columns[start:end], columns[first : first + end - start], values[start:end]
    j = 0
    while j + 64 <= len(y):
        _sum_block(64, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 64
    while j + 16 <= len(y):
        _sum_block(16, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 16
    while j + 8 <= len(y):
        _sum_block(8, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 8
    while j + 4 <= len(y):
        _sum_block(4, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 4
    while j < len(y):
        _sum_block(1, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 1


@intrinsic(prefer_literal=True)
def _sum_block(typing_context, width, columns, later, values, X, j, y):
    """y[j : j + width] = sum of values[e] X[columns[e], j : j + width]; X[later[e], j : j + width] is prefetched.

    As a loop in Python this would load and store y for every entry; as one LLVM vector of ``width`` elements
    the sum has registers of its own, which halves the time at 64 columns.
    """

    def emit(context, builder, signature, arguments):
        def data(argument):
            return make_array(signature.args[argument])(context, builder, arguments[argument]).data

        element, lanes = context.get_value_type(X.dtype), width.literal_value
        vector, byte, number = ir.VectorType(element, lanes), ir.IntType(8), ir.IntType(32)
        align = X.dtype.bitwidth // 8
        count = make_array(columns)(context, builder, arguments[1]).nitems
        row_length = builder.extract_value(make_array(X)(context, builder, arguments[4]).shape, 1)
        column_data, later_data, value_data, X_data, y_data = (data(i) for i in (1, 2, 3, 4, 6))
        start = arguments[5]
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [byte.as_pointer()],
            ir.FunctionType(ir.VoidType(), [byte.as_pointer(), number, number, number]),
        )

        def block(base, offset, kind=vector):
            return builder.bitcast(builder.gep(base, [builder.add(offset, start)]), kind.as_pointer())

        def block_of_X(indices, index, kind=vector):
            column = builder.sext(builder.load(builder.gep(indices, [index])), start.type)
            return block(X_data, builder.mul(column, row_length), kind)

        total = cgutils.alloca_once_value(builder, ir.Constant(vector, None))
        with cgutils.for_range(builder, count) as loop:
            for offset in range(0, lanes * align, LINE) if lanes > 1 else ():
                line = builder.gep(block_of_X(later_data, loop.index, byte), [number(offset)])
                # 0: to read; 2: into the second level, whose queue is longer than the first's; 1: data
                builder.call(prefetch, [line, number(0), number(2), number(1)])
            value = builder.load(builder.gep(value_data, [loop.index]))
            undefined = ir.Constant(ir.VectorType(element, 1), ir.Undefined)
            single = builder.insert_element(undefined, value, number(0))
            everywhere = ir.Constant(ir.VectorType(number, lanes), None)
            factor = builder.shuffle_vector(single, undefined, everywhere)
            row = builder.load(block_of_X(column_data, loop.index), align=align)
            product = builder.fmul(factor, row, flags=["contract"])
            builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        builder.store(builder.load(total), block(y_data, ir.Constant(start.type, 0)), align=align)
        return context.get_dummy_value()

    return types.void(width, columns, later, values, X, j, y), emit
