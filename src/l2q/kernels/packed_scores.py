"""The scores of one pass over packed codes: a few queries against a few blocks of 16 items.

``l2q.kernels.packed`` has the formula, the layout and the running best K. A pass keeps the counts of its queries in
registers: with codes, one xor, one popcount and one addition for 512 bits of a query. With float rows a group's 16
possible sums are a table that fills one vector. A permutation by four item bits looks up 16 items at once.

The vectors are written down as such in LLVM's language. Processors with narrower vectors, or without a vector popcount,
get the same arithmetic from their own instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_FEATURES = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
_AVX512 = "+avx512f" in (_FEATURES or llvmlite.binding.get_host_cpu_features().flatten())
# Queries x blocks of one pass, by kind of query: as many accumulators as the registers hold.
PASS = {np.dtype(np.uint32): (8 if _AVX512 else 4, 1), np.dtype(np.float32): (2, 4)}
LONE = (1, 4)  # a query left over, or alone: several blocks keep the processor as busy

_I32, _I64, _F32, _MASK = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.IntType(LANES)
_INTS, _FLOATS = ir.VectorType(_I32, LANES), ir.VectorType(_F32, LANES)


def _all(value, vector=_FLOATS):
    return vector([value] * LANES)


def _repeat(builder, count, carried: list, body: Callable[[ir.Value, list], list]) -> list:
    """i = 0; do carried = body(i, carried) while (++i < count)."""
    before, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    index, values = builder.phi(_I64), [builder.phi(value.type) for value in carried]
    results = body(index, values)
    following = builder.add(index, _I64(1))
    for phi, first, next_ in zip([index, *values], [_I64(0), *carried], [following, *results], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next_, builder.block)
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return results


class _Array:
    """An array argument: ``at`` an index, or the 16 of the last axis there as a vector (64-byte aligned)."""

    def __init__(self, context, builder, kind, value):
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data, self.kind = builder, array.data, kind
        self.shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)

    def address(self, *index):
        flat = index[0]
        for size, place in zip(self.shape[1:], index[1:], strict=True):
            flat = self.builder.add(self.builder.mul(flat, size), place)
        return self.builder.gep(self.data, [flat])

    def at(self, *index):
        return self.builder.load(self.address(*index))

    def splat_at(self, *index):
        scalar = self.at(*index)
        vector = ir.VectorType(scalar.type, LANES)
        undefined = ir.Constant(vector, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, _I32(0))
        return self.builder.shuffle_vector(single, undefined, _all(0, _INTS))

    def vector_at(self, *index):
        vector = _FLOATS if self.kind.dtype == types.float32 else _INTS
        address = self.builder.bitcast(self.address(*index, _I64(0)), vector.as_pointer())
        loaded = self.builder.load(address)
        loaded.align = 64
        return loaded


def _call(builder, name: str, result, *operands):
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def _look_up(builder, tables: _Array, row, group, selectors):
    """``tables[row, group, selector & 15]`` in every lane."""
    if _AVX512:
        table = tables.vector_at(row, group)
        return _call(builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, table, selectors)
    found = ir.Constant(_FLOATS, ir.Undefined)
    for lane in map(_I32, range(LANES)):
        selector = builder.and_(builder.extract_element(selectors, lane), _I32(15))
        value = tables.at(row, group, builder.zext(selector, _I64))
        found = builder.insert_element(found, value, lane)
    return found


def _score_pass(shapes: dict[np.dtype, tuple[int, int]]):
    """An intrinsic that scores the queries from ``row`` on against the blocks from ``block`` on, as many as
    ``shapes`` says. Returns whether any score passes its query's limit; only then it writes ``scores``
    (queries x blocks x 16,) and ``passed`` (queries,), one bit an item."""

    @intrinsic
    def score(
        context, queries, factors, words, scales, first_words, dims, limits, row, block, scores, passed
    ):
        arguments = (queries, factors, words, scales, first_words, dims, limits, row, block, scores, passed)
        num_queries, num_blocks = shapes[np.dtype(str(queries.dtype))]
        cells = [(query, place) for query in range(num_queries) for place in range(num_blocks)]

        def generate(context, builder, signature, values):
            opened = [
                _Array(context, builder, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(arguments, values, strict=True)
            ]
            queries, factors, words, scales, first_words, dims, limits, row, block, scores, passed = opened
            rows = [builder.add(row, _I64(query)) for query in range(num_queries)]
            blocks = [builder.add(block, _I64(place)) for place in range(num_blocks)]

            def count_differing(word, counts):
                items = [words.vector_at(block, word) for block in blocks]
                bits = [queries.splat_at(row, word) for row in rows]
                differing = [builder.xor(bits[query], items[place]) for query, place in cells]
                ones = [_call(builder, "llvm.ctpop.v16i32", _INTS, vector) for vector in differing]
                return [builder.add(*pair) for pair in zip(counts, ones, strict=True)]

            def dot_codes(segment, first, count):
                counts = _repeat(
                    builder,
                    count,
                    [_all(0, _INTS) for _ in cells],
                    lambda i, counts: count_differing(builder.add(first, i), counts),
                )
                dim, minus_two = dims.splat_at(segment), _all(-2.0)
                # Fused or not, this is exact: integers below 2^24.
                return [
                    _call(
                        builder,
                        "llvm.fmuladd.v16f32",
                        _FLOATS,
                        builder.sitofp(count, _FLOATS),
                        minus_two,
                        dim,
                    )
                    for count in counts
                ]

            def add_sums(word, dots):
                items = [words.vector_at(block, word) for block in blocks]
                for j in range(8):
                    selectors = [builder.lshr(vector, _all(4 * j, _INTS)) for vector in items]
                    group = builder.add(builder.mul(word, _I64(8)), _I64(j))
                    sums = [
                        _look_up(builder, queries, rows[query], group, selectors[place])
                        for query, place in cells
                    ]
                    dots = [builder.fadd(*pair) for pair in zip(dots, sums, strict=True)]
                return dots

            def dot_values(segment, first, count):
                return _repeat(
                    builder,
                    count,
                    [_all(0.0) for _ in cells],
                    lambda i, dots: add_sums(builder.add(first, i), dots),
                )

            def add_term(segment, totals):
                first = first_words.at(segment)
                count = builder.sub(first_words.at(builder.add(segment, _I64(1))), first)
                dot = dot_values if queries.kind.dtype == types.float32 else dot_codes
                dots = dot(segment, first, count)
                weights = [factors.splat_at(row, segment) for row in rows]
                terms = [
                    builder.fmul(weights[query], dot) for (query, _), dot in zip(cells, dots, strict=True)
                ]
                if isinstance(scales, _Array):
                    sizes = [scales.vector_at(block, segment) for block in blocks]
                    terms = [
                        builder.fmul(term, sizes[place])
                        for (_, place), term in zip(cells, terms, strict=True)
                    ]
                return [builder.fadd(*pair) for pair in zip(totals, terms, strict=True)]

            nothing = [_all(-0.0) for _ in cells]  # -0.0 + x is x, to the bit
            totals = _repeat(builder, factors.shape[1], nothing, add_term)
            bars = [limits.splat_at(row) for row in rows]
            above = [
                builder.fcmp_ordered(">", total, bars[query])
                for (query, _), total in zip(cells, totals, strict=True)
            ]
            anywhere = builder.bitcast(reduce(builder.or_, above), _MASK)
            hit = builder.icmp_unsigned("!=", anywhere, _MASK(0))
            with builder.if_then(hit, likely=False):
                bits = [_I64(0)] * num_queries
                for cell, ((query, place), total, lanes) in enumerate(zip(cells, totals, above, strict=True)):
                    address = scores.address(_I64(LANES * cell))
                    builder.store(total, builder.bitcast(address, _FLOATS.as_pointer())).align = 4
                    lanes = builder.zext(builder.bitcast(lanes, _MASK), _I64)
                    bits[query] = builder.or_(bits[query], builder.shl(lanes, _I64(LANES * place)))
                for query in range(num_queries):
                    builder.store(bits[query], passed.address(_I64(query)))
            return hit

        return types.boolean(*arguments), generate

    return score


score_many = _score_pass(PASS)
score_lone = _score_pass(dict.fromkeys(PASS, LONE))


@intrinsic
def lowest_bit(context, value):
    """Position of the lowest 1 of a value that is not 0."""

    def generate(context, builder, signature, values):
        return builder.cttz(values[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate
