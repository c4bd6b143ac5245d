"""Sparse matrix times dense matrix on the CPU, the one inner loop of propagation and of pair gradients.

    Y[t] = sum over e in starts[t] .. ends[t] - 1 of values[e] X[columns[e]]

One thread sums a row of Y, in one order, so the result has the same bits for any number of threads.
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

LINE = 64  # bytes of a line of the cache
AHEAD = 128  # entries; 32 to 256 are within 15 % of each other, at 60 million entries of 256 bytes


def multiply(starts, ends, columns, values, X: np.ndarray) -> np.ndarray:
    """Y (rows, d), of X's dtype; ``columns`` int32, X C-contiguous."""
    values = values.astype(X.dtype, copy=False)
    Y = _empty(len(starts), X)
    bounds = _balanced(ends - starts)
    # between the entries of a selection of rows lie those of others, which nobody will want
    ahead = AHEAD if np.array_equal(starts[1:], ends[:-1]) else 0
    use_threads_of_torch()
    _multiply(bounds, starts, ends, columns, values, X, Y, ahead)
    return Y


def multiply_kept(starts, ends, columns, values, slots: np.ndarray, X: np.ndarray) -> np.ndarray:
    """As ``multiply`` for adjoining rows, with the rows of X found through ``slots``: column c is row slots[c] of X,
    or zero, and skipped, where slots[c] is -1."""
    values = values.astype(X.dtype, copy=False)
    Y = _empty(len(starts), X)
    bounds = _balanced(ends - starts)
    use_threads_of_torch()
    _multiply_kept(bounds, starts, ends, columns, values, slots, X, Y, AHEAD)
    return Y


def use_threads_of_torch() -> None:
    """One number of threads for both libraries: torch's, in a process that has it loaded."""
    if (torch := sys.modules.get("torch")) is not None:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _empty(rows: int, X: np.ndarray) -> np.ndarray:
    """Memory for Y (rows, d), to be the X of the next product: it starts at a line of the cache. NumPy's starts 16
    bytes behind one, and to gather its rows of 64 columns is to read five lines for four."""
    size = rows * X.shape[1] * X.itemsize
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(X.dtype).reshape(rows, X.shape[1])


def _balanced(lengths: np.ndarray, chunks: int = 64) -> np.ndarray:
    """Bounds of ``chunks`` runs of rows of about equal work: lengths follow a power law, so equal numbers of
    rows would not do. A row costs its entries and one more for writing it."""
    work = np.concatenate(([0], np.cumsum(lengths + 1)))
    return np.searchsorted(work, np.linspace(0, work[-1], chunks + 1))


@njit(parallel=True, cache=True)
def _multiply(bounds, starts, ends, columns, values, X, Y, ahead):
    for chunk in prange(len(bounds) - 1):
        for t in range(bounds[chunk], bounds[chunk + 1]):
            _sum_row(starts[t], ends[t], columns, values, X, Y[t], ahead)


@njit(parallel=True, cache=True)
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
    """y = sum over e in start .. end - 1 of values[e] X[columns[e]], by blocks of y that stay in registers for the
    whole sum. The rows of X that entries ``ahead`` of these will read are asked for meanwhile: they lie anywhere,
    and a core that waits for each of them has too few on the way to use the memory's whole bandwidth."""
    first = min(start + ahead, len(columns) - (end - start))
    columns, later, values = columns[start:end], columns[first : first + end - start], values[start:end]
    j = 0
    while j + 64 <= len(y):
        _sum_block(64, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 64
    while j + 16 <= len(y):
        _sum_block(16, columns, later, values, X, j, y)  # type: ignore[call-arg]
        j += 16
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
