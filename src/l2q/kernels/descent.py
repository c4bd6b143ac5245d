"""The inner loop of the coordinate descent (``l2q.fitted.descent`` has the equations).

The bits of a row take turns. For each bit the rows of its list are summed as vectors: 16 bits at once.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from l2q.kernels import compiling

LANES = 16  # bits of one code word, and elements of one vector of the kernel


@compiling.njit(parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def descend_rows(
    bounds, indptr, indices, targets, words, other_scales, squares, weight, G, B, GQ, codes, scales, sweeps
):
    """Fits ``codes`` (rows, bits) in place and writes their ``scales`` (rows,).

    ``bounds``: runs of rows that threads share. ``indptr``, ``indices``, ``targets``: the rows' lists, ids of the other
    side's rows with targets t. Of the other side: ``words`` (rows, ceil(bits / 16)) uint16 are its codes,
    ``other_scales`` its scales a, ``squares`` w a^2, ``G`` (bits, bits) = A^T A. ``B`` (rows, bits) is the base's part
    of b, ``GQ`` (rows, bits) G q; both are overwritten.
    """
    bits = codes.shape[1]
    blocks = words.shape[1]
    for chunk in prange(len(bounds) - 1):
        longest = 0
        for row in range(bounds[chunk], bounds[chunk + 1]):
            longest = max(longest, indptr[row + 1] - indptr[row])
        longest = (longest + 3) // 4 * 4
        listed = np.zeros((blocks, longest), np.uint16)  # the listed rows' words, by word
        dots = np.zeros(longest, np.int32)  # <q, q_j>
        factors = np.zeros(longest, G.dtype)  # w a_j^2
        pulls = np.zeros(longest, G.dtype)  # w a_j^2 <q, q_j>, and before that w t_j a_j
        lanes = np.empty(LANES, G.dtype)
        for row in range(bounds[chunk], bounds[chunk + 1]):
            q, b, g = codes[row], B[row], GQ[row]
            first = indptr[row]
            length = indptr[row + 1] - first
            padded = (length + 3) // 4 * 4
            own_kappa = G.dtype.type(0)
            for j in range(length):
                other = indices[first + j]
                for word in range(blocks):
                    listed[word, j] = words[other, word]
                factors[j] = squares[other]
                own_kappa += squares[other]
                pulls[j] = weight * targets[first + j] * other_scales[other]
            factors[length:padded], pulls[length:padded], dots[:padded] = 0, 0, 0
            total = pulls[:padded].sum()
            for block in range(blocks):
                start = block * LANES
                width = min(LANES, bits - start)
                _sum_masked(listed[block], pulls, padded, lanes)
                word = np.uint16(0)
                for lane in range(width):
                    b[start + lane] += 2 * lanes[lane] - total
                    word |= np.uint16(np.uint16(q[start + lane] > 0) << np.uint16(lane))
                for j in range(length):
                    dots[j] += width - 2 * np.int32(_popcount(np.uint16(listed[block, j] ^ word)))

            for sweep in range(sweeps + 1):
                along, square = G.dtype.type(0), G.dtype.type(0)
                for k in range(bits):
                    along += b[k] * q[k]
                    square += g[k] * q[k]
                for j in range(length):
                    pulls[j] = factors[j] * dots[j]
                    square += pulls[j] * dots[j]
                if along < 0:  # -q is better
                    along = -along
                    for k in range(bits):
                        q[k], g[k] = -q[k], -g[k]
                    for j in range(length):
                        dots[j], pulls[j] = -dots[j], -pulls[j]
                scale = along / square if square > 0 else G.dtype.type(0)
                if sweep == sweeps or scale == 0:
                    break
                total, flipped = pulls[:padded].sum(), False
                for block in range(blocks):
                    start = block * LANES
                    stop = min(start + LANES, bits)
                    k = start
                    _sum_masked(listed[block], pulls, padded, lanes)
                    while k < stop:
                        old = q[k]
                        gamma = g[k] + 2 * lanes[k - start] - total
                        if scale * (G[k, k] + own_kappa - old * gamma) + b[k] * old < 0:
                            flipped = True
                            q[k] = -old
                            for m in range(bits):
                                g[m] -= 2 * old * G[k, m]
                            shift = np.uint16(k - start)
                            for j in range(length):
                                sign = np.int32((listed[block, j] >> shift) & 1) * 2 - 1
                                dots[j] -= 2 * old * sign
                                pulls[j] = factors[j] * dots[j]
                            total = pulls[:padded].sum()
                            _sum_masked(listed[block], pulls, padded, lanes)
                        k += 1
                if not flipped:
                    break
            scales[row] = scale


@compiling.njit(parallel=True, cache=True)
def unlisted(top, indptr, indices):
    """Which entries of ``top`` (users, count) are items, not -1, and not on the list of their user."""
    new = top >= 0
    for user in prange(len(top)):
        for place in range(top.shape[1]):
            for e in range(indptr[user], indptr[user + 1]):
                new[user, place] &= indices[e] != top[user, place]
    return new


@intrinsic
def _sum_masked(typing_context, words, values, count, out):
    """out[l] = sum over j < count of the values[j] whose words[j] has bit l; ``count`` is a multiple of four.

    The descent asks for the sum with the other values subtracted: that is 2 out[l] - sum_j values[j]. Each word costs
    one masked addition of a whole vector. Four independent sums keep the processor busy.
    """

    def emit(context, builder, signature, arguments):
        word_data, value_data, out_data = (
            make_array(signature.args[place])(context, builder, arguments[place]).data for place in (0, 1, 3)
        )
        count = arguments[2]
        element = context.get_value_type(values.dtype)
        vector, integer = ir.VectorType(element, LANES), ir.IntType(32)
        undefined, spread = (
            ir.Constant(vector, ir.Undefined),
            ir.Constant(ir.VectorType(integer, LANES), None),
        )
        flags = ["reassoc", "nsz"]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(4)]
        zero, four = ir.Constant(count.type, 0), ir.Constant(count.type, 4)
        for total in sums:  # allocas are hoisted out of the caller's loops, their start is not
            builder.store(ir.Constant(vector, None), total)
        with cgutils.for_range_slice(builder, zero, count, four) as (j, _):
            for place, total in enumerate(sums):
                at = builder.add(j, ir.Constant(count.type, place))
                mask = builder.bitcast(
                    builder.load(builder.gep(word_data, [at])), ir.VectorType(ir.IntType(1), LANES)
                )
                value = builder.load(builder.gep(value_data, [at]))
                value = builder.insert_element(undefined, value, ir.Constant(integer, 0))
                value = builder.shuffle_vector(value, undefined, spread)
                before = builder.load(total)
                added = builder.fadd(before, value, flags=flags)
                builder.store(builder.select(mask, added, before), total)
        first, second, third, fourth = map(builder.load, sums)
        halves = builder.fadd(first, second, flags=flags), builder.fadd(third, fourth, flags=flags)
        target = builder.bitcast(out_data, vector.as_pointer())
        builder.store(builder.fadd(*halves, flags=flags), target, align=values.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(words, values, count, out), emit


@intrinsic
def _popcount(typing_context, word):
    """How many bits of a word are 1."""

    def emit(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return word(word), emit
