"""The scores of one pass over packed codes: a few queries against a few blocks of 64 items.

``l2q.kernels.packed`` has the formula, the layout and the running best K. A vector holds one byte of each of 64 items:
eight values of their codes.

- Codes, where the processor counts the ones of a vector's bytes: one xor, one count and one addition for 512 bits of a
  query. The counts are added as bytes, 31 at a time, before they are widened.
- Codes elsewhere: a query's four bits meet an item's four bits in a table of 16 counts. A byte shuffle looks up all
  items at once, so that 256 bits cost two shuffles and two additions. The items' halves of bytes are cut out once for
  all queries of the pass.
- Float rows: the signed sums of every four values, as whole numbers of steps, in such tables; of every six values where
  the processor looks up 64 places. They give an upper bound of the score (``l2q.kernels.packed_values``), and what
  passes the bound is scored exactly.

The vectors are written down as such in LLVM's language. Processors with narrower vectors get the same arithmetic from
their own instructions.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from l2q.kernels.vectors import (
    AVX512,
    BITS,
    BYTES,
    COUNTS,
    F32,
    FLOATS,
    HALVES,
    I8,
    I64,
    INTS,
    LANES,
    LARGE_TABLES,
    SHORTS,
    UNIT,
    WORDS,
    Array,
    add,
    call,
    look_up,
    opened,
    places_of,
    repeat,
    splat,
    where,
)

# Queries x blocks of one pass: as many sums as the registers hold.
CODES_PASS = (8 if COUNTS else 2, 1)
VALUES_PASS = (2, 2) if AVX512 else (2, 1)
LONE = (1, 2)  # a query left over, or alone: several blocks keep the processor as busy
SINGLE = (1, 1)  # a short list of a query alone
TOGETHER = 8  # items that are scored exactly at once
_WHOLE_BYTES = 31  # whose counts, 8 at most, fit into a byte


class _Pass:
    """What the passes share: some queries from ``row`` on against some blocks from ``block`` on."""

    def __init__(self, context, builder, shape, planes, row, block):
        self.builder, self.planes = builder, planes.ends_in(LANES)
        self.rows = [builder.add(row, I64(query)) for query in range(shape[0])]
        self.blocks = [builder.add(block, I64(place)) for place in range(shape[1])]
        self.cells = [(query, place) for query in range(shape[0]) for place in range(shape[1])]

    def items(self, byte) -> list:
        return [self.planes.vector_at(block, byte) for block in self.blocks]

    def differing(self, queries, byte, start) -> list:
        """Counts of one byte's ones in query xor item, by the processor; ``queries`` has the byte four times."""
        builder = self.builder
        items = [builder.bitcast(vector, WORDS) for vector in self.items(byte)]
        bits = [queries.splat_at(row, start, lanes=16) for row in self.rows]  # an operand that spreads itself
        differing = [builder.xor(bits[query], items[place]) for query, place in self.cells]
        return [
            call(builder, "llvm.ctpop.v64i8", BYTES, builder.bitcast(vector, BYTES)) for vector in differing
        ]

    def looked_up(self, tables, byte, start) -> list:
        """Counts of one byte's ones in query xor item, from each query's two tables."""
        return self.sums(tables, self.nibbles(byte), start)

    def nibbles(self, byte) -> list[list]:
        """Both halves of a byte, of the items of every block."""
        items, builder = self.items(byte), self.builder
        return [
            [builder.and_(vector, splat(15, BYTES)) for vector in items],
            [builder.lshr(vector, splat(4, BYTES)) for vector in items],
        ]

    def sixths(self, byte) -> list[list]:
        """Three bytes as four places of six bits; what is above them is not looked at."""
        builder = self.builder
        first, second, third = (self.items(builder.add(byte, I64(place))) for place in range(3))

        def across(low, high, bits):
            shifts = splat(bits, BYTES), splat(8 - bits, BYTES)
            return builder.or_(builder.lshr(low, shifts[0]), builder.shl(high, shifts[1]))

        return [
            first,
            [across(*pair, 6) for pair in zip(first, second, strict=True)],
            [across(*pair, 4) for pair in zip(second, third, strict=True)],
            [builder.lshr(vector, splat(2, BYTES)) for vector in third],
        ]

    def sums(self, tables, places: list[list], start) -> list:
        """The entries of each query's tables from ``start`` on, at the places of the items, added up."""
        builder, size = self.builder, 2**BITS if len(places) > 2 else 16
        tables.ends_in(len(places), size)
        sums: list = []
        for table, at in enumerate(places):
            entries = [
                tables.vector_at(row, start, I64(table), vector=ir.VectorType(I8, size)) for row in self.rows
            ]
            found = [look_up(builder, entries[query], at[place]) for query, place in self.cells]
            sums = add(builder, sums, found) if sums else found
        return sums

    def counts(self, queries, byte, start, count, most=None) -> list:
        """Differing bits of ``count`` bytes, (64,) 16-bit, of every cell. With ``most``, a limit of each query, the
        counting ends where every item of every cell has more; behind the counts there is whether it did not."""
        builder = self.builder
        one = self.differing if queries.kind.ndim == 2 else self.looked_up
        whole = I64(_WHOLE_BYTES) if most is None else self.part_of(count)

        def add_whole(part, counts):
            done = builder.mul(part, whole)
            left = builder.sub(count, done)
            length = builder.select(builder.icmp_signed("<", left, whole), left, whole)
            first = builder.add(byte, done), builder.add(start, done)
            sums = repeat(
                builder,
                length,
                [splat(0, BYTES) for _ in self.cells],
                lambda i, sums: add(builder, sums, one(queries, *(builder.add(at, i) for at in first))),
            )
            return add(builder, counts, [builder.zext(vector, SHORTS) for vector in sums])

        parts = builder.udiv(builder.add(count, builder.sub(whole, I64(1))), whole)
        nothing = [splat(0, SHORTS) for _ in self.cells]
        if most is None:
            return repeat(builder, parts, nothing, add_whole)
        bars = [most.splat_at(row) for row in self.rows]

        def add_and_look(part, carried):
            counts = add_whole(part, carried[:-1])
            few = [
                builder.bitcast(builder.icmp_unsigned("<=", counts[cell], bars[query]), I64)
                for cell, (query, _) in enumerate(self.cells)
            ]
            return [*counts, builder.icmp_unsigned("!=", reduce(builder.or_, few), I64(0))]

        yes = ir.IntType(1)(1)
        return repeat(builder, parts, [*nothing, yes], add_and_look, lambda carried: carried[-1])

    def part_of(self, count):
        """Bytes after which counts are looked at: a third of ``count``, if a byte holds their counts."""
        builder = self.builder
        third = builder.udiv(builder.add(count, I64(2)), I64(3))
        return builder.select(builder.icmp_signed("<", third, I64(_WHOLE_BYTES)), third, I64(_WHOLE_BYTES))

    def steps(self, tables, byte, start, count) -> list:
        """Sums of the tables' entries over ``count`` units, (64,) 16-bit, of every cell. The last unit's tables are 0
        for what is beyond the segment."""
        builder = self.builder

        def add_unit(unit, carried):
            first = builder.add(byte, builder.mul(unit, I64(UNIT)))
            if LARGE_TABLES:
                places = self.sixths(first)
            else:
                places = self.nibbles(first) + self.nibbles(builder.add(first, I64(1)))
            sums = self.sums(tables, places, builder.add(start, unit))
            pairs = [builder.bitcast(vector, HALVES) for vector in sums]
            odd = [builder.lshr(vector, splat(8, HALVES)) for vector in pairs]
            return add(builder, carried, pairs + odd)

        sums = repeat(builder, count, [splat(0, HALVES) for _ in 2 * self.cells], add_unit)
        order = places_of(*(lane // 2 + lane % 2 * (LANES // 2) for lane in range(LANES)))
        found = []
        for both, odd in zip(sums[: len(self.cells)], sums[len(self.cells) :], strict=True):
            even = builder.sub(both, builder.shl(odd, splat(8, HALVES)))  # modulo 2^16, which holds the sum
            found.append(builder.shuffle_vector(even, odd, order))
        return found

    def floats(self, numbers: list) -> list:
        return [
            self.builder.sitofp(self.builder.zext(vector, INTS), FLOATS) for vector in numbers
        ]  # exact: below 2^16

    def passing(self, totals, limits, comparison, scores, passed):
        """Whether any total is above its query's limit. ``passed`` gets a bit for each item of every cell, ``scores``
        the totals of cells with any."""
        builder = self.builder
        bars = [limits.splat_at(row) for row in self.rows]
        found = []
        for cell, (query, _) in enumerate(self.cells):
            above = comparison(">", totals[cell], bars[query])
            found.append(builder.bitcast(above, I64))
            builder.store(found[-1], passed.address(I64(cell)))
        for cell, (bits, total) in enumerate(zip(found, totals, strict=True)):
            with builder.if_then(builder.icmp_unsigned("!=", bits, I64(0)), likely=False):
                address = scores.address(I64(LANES * cell))
                builder.store(total, builder.bitcast(address, FLOATS.as_pointer())).align = 4
        return builder.icmp_unsigned("!=", reduce(builder.or_, found), I64(0))


def _code_pass(shape: tuple[int, int]):
    """An intrinsic: exact scores of queries with codes. Returns whether any score passes its query's limit. It writes
    ``passed`` (queries x blocks,), 64 bits each, and ``scores`` (queries x blocks x 64,) where any bit is set.

    With ``most`` (queries,) uint16, or None, there is one segment, and an item with more differing bits does not pass.
    """

    @intrinsic
    def score(
        context, queries, factors, planes, scales, firsts, dims, limits, most, row, block, scores, passed
    ):
        arguments = (queries, factors, planes, scales, firsts, dims, limits, most, row, block, scores, passed)

        def generate(context, builder, signature, values):
            queries, factors, planes, scales, firsts, dims, limits, most, row, block, scores, passed = opened(
                context, builder, arguments, values
            )
            run = _Pass(context, builder, shape, planes, row, block)

            def terms(segment, counts):
                counts = run.floats(counts)
                dim, minus_two = dims.splat_at(segment), splat(-2.0)
                weights = [factors.splat_at(row, segment) for row in run.rows]
                sizes = []
                if isinstance(scales, Array):
                    sizes = [scales.vector_at(block, segment, vector=FLOATS) for block in run.blocks]
                found = []
                for (query, place), number in zip(run.cells, counts, strict=True):
                    # Fused or not, this is exact: integers below 2^24.
                    dot = call(builder, "llvm.fmuladd.v64f32", FLOATS, number, minus_two, dim)
                    term = builder.fmul(weights[query], dot)
                    found.append(builder.fmul(term, sizes[place]) if sizes else term)
                return found

            def add_term(segment, totals):
                first = firsts.at(segment)
                count = builder.sub(firsts.at(builder.add(segment, I64(1))), first)
                added = terms(segment, run.counts(queries, first, first, count))
                return [builder.fadd(*pair) for pair in zip(totals, added, strict=True)]

            def result(totals):
                return run.passing(totals, limits, builder.fcmp_ordered, scores, passed)

            if isinstance(most, Array):
                *counts, few = run.counts(queries, I64(0), I64(0), firsts.at(I64(1)), most)
                found = where(builder, few, lambda: [result(terms(I64(0), counts))], [ir.IntType(1)(0)])
                return found[0]
            nothing = [splat(-0.0) for _ in run.cells]  # -0.0 + x is x, to the bit
            return result(repeat(builder, factors.shape[1], nothing, add_term))

        return types.boolean(*arguments), generate

    return score


def _value_pass(shape: tuple[int, int]):
    """An intrinsic: upper bounds of the scores of float queries. Returns whether any passes its query's limit, and
    writes ``passed`` as ``_code_pass`` does. A bound that is no number passes."""

    @intrinsic
    def score(context, tables, lines, planes, scales, firsts, limits, row, block, scores, passed):
        arguments = (tables, lines, planes, scales, firsts, limits, row, block, scores, passed)

        def generate(context, builder, signature, values):
            tables, lines, planes, scales, firsts, limits, row, block, scores, passed = opened(
                context, builder, arguments, values
            )
            run = _Pass(context, builder, shape, planes, row, block)

            def add_term(segment, totals):
                byte, start = firsts.at(I64(0), segment), firsts.at(I64(1), segment)
                count = builder.sub(firsts.at(I64(1), builder.add(segment, I64(1))), start)
                steps = run.floats(run.steps(tables, byte, start, count))
                slope, offset, half = (
                    [lines.splat_at(row, segment, I64(part)) for row in run.rows] for part in range(3)
                )
                sizes = []
                if isinstance(scales, Array):
                    sizes = [scales.vector_at(block, segment, vector=FLOATS) for block in run.blocks]
                added = []
                for (query, place), number, total in zip(run.cells, steps, totals, strict=True):
                    middle = call(builder, "llvm.fmuladd.v64f32", FLOATS, number, slope[query], offset[query])
                    if sizes:
                        size = call(builder, "llvm.fabs.v64f32", FLOATS, sizes[place])
                        total = call(builder, "llvm.fmuladd.v64f32", FLOATS, middle, sizes[place], total)
                        added.append(call(builder, "llvm.fmuladd.v64f32", FLOATS, half[query], size, total))
                    else:
                        added.append(builder.fadd(builder.fadd(total, middle), half[query]))
                return added

            tiny = [splat(2.0**-126) for _ in run.cells]  # for what is lost below the least normal number
            totals = repeat(builder, lines.shape[1], tiny, add_term)
            return run.passing(totals, limits, builder.fcmp_unordered, scores, passed)

        return types.boolean(*arguments), generate

    return score


score_many, score_lone, score_single = map(_code_pass, (CODES_PASS, LONE, SINGLE))
bound_many, bound_lone, bound_single = map(_value_pass, (VALUES_PASS, LONE, SINGLE))


@intrinsic
def exact_dots(context, exact, planes, row, byte, count, items, dots):
    """<q_us, q_is> of one query and ``TOGETHER`` items, group by group: eight chains of additions, since one waits."""
    arguments = (exact, planes, row, byte, count, items, dots)

    def generate(context, builder, signature, values):
        exact, planes, row, byte, count, items, dots = opened(context, builder, arguments, values)
        exact.ends_in(2, 16)
        planes.ends_in(LANES)
        bases = []
        for place in range(TOGETHER):
            item = items.at(I64(place))
            block, lane = builder.lshr(item, I64(6)), builder.and_(item, I64(LANES - 1))
            bases.append(planes.address(block, byte, lane))

        def add_byte(i, sums):
            offset, at = builder.mul(i, I64(LANES)), builder.add(byte, i)
            added = []
            for base, total in zip(bases, sums, strict=True):
                bits = builder.zext(builder.load(builder.gep(base, [offset])), I64)
                for half, place in enumerate((builder.and_(bits, I64(15)), builder.lshr(bits, I64(4)))):
                    total = builder.fadd(total, exact.at(row, at, I64(half), place))
                added.append(total)
            return added

        for place, total in enumerate(repeat(builder, count, [F32(0.0)] * TOGETHER, add_byte)):
            builder.store(total, dots.address(I64(place)))
        return context.get_dummy_value()

    return types.void(*arguments), generate


def table_of_counts() -> np.ndarray:
    """For a query's byte: the differing bits beside every four bits of an item, (256, 2, 16) uint8."""
    byte, half, item = np.ogrid[:256, :2, :16]
    return np.bitwise_count((byte >> 4 * half & 15) ^ item).astype(np.uint8)
