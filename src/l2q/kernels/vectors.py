"""Vectors of 64 items in LLVM's language: what the processor has for them, arrays, loops, look-ups.

Processors with narrower vectors get the same arithmetic from their own instructions. Those of ARM were not run.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

LANES = 64
_GIVEN = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
_FEATURES = frozenset((get_host_cpu_features() if _GIVEN is None else _GIVEN).split(","))
AVX512 = "+avx512bw" in _FEATURES
COUNTS = {"+avx512bitalg", "+neon"} & _FEATURES != set()
"""Whether the ones of a vector's bytes are counted by one instruction."""
_SHUFFLES = {
    "+avx512bw": ("llvm.x86.avx512.pshuf.b.512", 64),
    "+avx2": ("llvm.x86.avx2.pshuf.b", 32),
    "+ssse3": ("llvm.x86.ssse3.pshuf.b.128", 16),
    "+neon": ("llvm.aarch64.neon.tbl1.v16i8", 16),
}
_SHUFFLE = next((found for feature, found in _SHUFFLES.items() if feature in _FEATURES), None)

LARGE_TABLES = "+avx512vbmi" in _FEATURES
BITS = 6 if LARGE_TABLES else 4
"""Of an item, that a float query's table looks up at once. Four look-ups, of a unit of ``BITS`` / 2 bytes, fit into a
byte."""
UNIT = BITS // 2

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, SHORTS, INTS, FLOATS = (ir.VectorType(kind, LANES) for kind in (I8, I16, I32, F32))
HALVES, WORDS = ir.VectorType(I16, LANES // 2), ir.VectorType(I32, LANES // 4)


def splat(value, vector=FLOATS):
    return vector([value] * vector.count)


def places_of(*indices):
    return ir.VectorType(I32, len(indices))(list(indices))


def repeat(
    builder,
    count,
    carried: list,
    body: Callable[[ir.Value, list], list],
    going: Callable[[list], ir.Value] | None = None,
) -> list:
    """i = 0; do carried = body(i, carried) while (++i < count and going(carried))."""
    before, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    index, values = builder.phi(I64), [builder.phi(value.type) for value in carried]
    results = body(index, values)
    following = builder.add(index, I64(1))
    again = builder.icmp_signed("<", following, count)
    if going is not None:
        again = builder.and_(again, going(results))
    for phi, first, next_ in zip([index, *values], [I64(0), *carried], [following, *results], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next_, builder.block)
    after = builder.append_basic_block("after")
    builder.cbranch(again, loop, after)
    builder.position_at_end(after)
    return results


def where(builder, condition, values: Callable[[], list], others: list) -> list:
    """condition ? values() : others, of which ``values`` are made where they are asked for."""
    before = builder.block
    made, after = builder.append_basic_block("made"), builder.append_basic_block("joined")
    builder.cbranch(condition, made, after)
    builder.position_at_end(made)
    found = values()
    end = builder.block
    builder.branch(after)
    builder.position_at_end(after)
    joined = []
    for value, other in zip(found, others, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(value, end)
        phi.add_incoming(other, before)
        joined.append(phi)
    return joined


class Array:
    """An array argument: ``at`` an index, or the last axis there as a vector (aligned to the vector's bytes)."""

    def __init__(self, context, builder, kind, value):
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data, self.kind = builder, array.data, kind
        self.shape = cgutils.unpack_tuple(builder, array.shape, kind.ndim)

    def ends_in(self, *sizes: int) -> Array:
        """Says the last axes' sizes, so that steps along the others are known when the code is made."""
        self.shape = [*self.shape[: -len(sizes)], *map(I64, sizes)]
        return self

    def address(self, *index):
        flat = index[0]
        for size, place in zip(self.shape[1:], index[1:], strict=True):
            flat = self.builder.add(self.builder.mul(flat, size), place)
        return self.builder.gep(self.data, [flat])

    def at(self, *index):
        return self.builder.load(self.address(*index))

    def splat_at(self, *index, lanes: int = LANES):
        scalar = self.at(*index)
        undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, I32(0))
        return self.builder.shuffle_vector(single, undefined, places_of(*[0] * lanes))

    def vector_at(self, *index, vector=BYTES):
        address = self.builder.bitcast(self.address(*index, I64(0)), vector.as_pointer())
        loaded = self.builder.load(address)
        loaded.align = min(vector.count, 64)
        return loaded


def call(builder, name: str, result, *operands):
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


def look_up(builder, table, places):
    """The entry of a table of 16 bytes at each of 64 places, 0 to 15; or of 64, by the low six bits of a place."""
    if table.type.count == LANES:
        return call(builder, "llvm.x86.avx512.permvar.qi.512", BYTES, table, places)
    if _SHUFFLE is None:
        found = ir.Constant(BYTES, ir.Undefined)
        for lane in map(I32, range(LANES)):
            place = builder.zext(builder.extract_element(places, lane), I32)
            found = builder.insert_element(found, builder.extract_element(table, place), lane)
        return found
    name, width = _SHUFFLE
    vector = ir.VectorType(I8, width)
    tables = builder.shuffle_vector(table, table, places_of(*(lane % 16 for lane in range(width))))
    parts = []
    for first in range(0, LANES, width):
        part = builder.shuffle_vector(places, places, places_of(*range(first, first + width)))
        parts.append(call(builder, name, vector, tables, part))
    while len(parts) > 1:
        every = places_of(*range(2 * parts[0].type.count))
        parts = [builder.shuffle_vector(*pair, every) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def add(builder, sums: list, more: list) -> list:
    return [builder.add(*pair) for pair in zip(sums, more, strict=True)]


def opened(context, builder, arguments, values) -> list:
    return [
        Array(context, builder, kind, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(arguments, values, strict=True)
    ]


@intrinsic
def lowest_bit(context, value):
    """Position of the lowest 1 of a value that is not 0."""

    def generate(context, builder, signature, values):
        return builder.cttz(values[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate
