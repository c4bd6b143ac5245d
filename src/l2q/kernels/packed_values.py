"""Float queries over packed codes: an upper bound of every item's score, and the exact score of what passes it.

An item's dot product with values v is -sum |v_j| plus 2 |v_j| for each j where the item's bit has the sign of v_j. With
a step z, groups g of 4 or 6 values, and the item's bits n in a group, the whole numbers

    Q_g(n) = round(sum over j in g whose bit has v_j's sign of 2 |v_j| / z)

fit into bytes, and the dot product lies within (groups z / 2) of z sum_g Q_g - sum |v_j|. Times the factor f of the
query and the scale a of the item, whatever their signs:

    f a <q, q_i>  <=  a (f z sum_g Q_g - f sum |v_j|)  +  |a| |f| (groups z / 2 + margin)

The margin is for rounding: of the dot product in float32, (additions) u sum |v_j| with u = 2^-24; of its terms and of
this bound, a few u for every segment. z is the least for which four groups fit into a byte, and all of them into 16
bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from l2q.kernels import compiling
from l2q.kernels.best_keys import NO_ITEM, is_among, offer, take_in, worst
from l2q.kernels.packed_scores import TOGETHER, exact_dots
from l2q.kernels.vectors import BITS, LANES, UNIT, lowest_bit

_ROUNDING = 2.0**-24
_HALF = 0.5 + 1e-3  # the sums that are rounded to Q have errors of float32
_BYTE, _SHORT = 252.0, 65000.0  # less than 255 and 65,535 by what the rounding of Q may add
_MOST_WAITING = 4096
_LARGE, _TINY = 2.0**125, 2.0**-126


@compiling.njit(parallel=True, nogil=True, cache=True)
def prepare(values, factors, dims, firsts, exact, tables, lines):
    """Fills what is looked up for queries ``values`` (n, sum of dims):

    ``exact`` (n, row bytes, 2, 16) float32, the signed sums of four values; ``tables`` (n, units, 4, 2**BITS) uint8, Q,
    zeros as it comes; ``lines`` (n, segments, 3) float32: f z, -f sum |v|, |f| (groups z / 2 + margin). ``firsts`` (2,
    segments + 1): the first byte and the first unit of each segment.
    """
    segments = len(dims)
    unit = 8 * UNIT
    for row in prange(len(values)):
        column = 0
        for segment in range(segments):
            width, byte, start = dims[segment], firsts[0, segment], firsts[1, segment]
            for group in range(2 * (firsts[0, segment + 1] - byte)):
                _signed_sums(values, row, column, width, exact, byte, group)
            total, largest = 0.0, 0.0
            for first in range(0, width, unit):
                of_unit = 0.0
                for place in range(first, min(first + unit, width)):
                    of_unit += abs(np.float64(values[row, column + place]))
                total += of_unit
                largest = max(largest, of_unit)
            groups = -(-width // BITS)
            step = max(2 * largest / _BYTE, 2 * total / (_SHORT - groups / 2))
            factor = np.float64(factors[row, segment])
            additions = width // 4 + 1
            half = groups * step * _HALF + (additions + 4 * segments + 32) * _ROUNDING * total
            half *= 1 + (4 * segments + 32) * _ROUNDING
            usable = abs(factor) * (total + half) < _LARGE  # not so where a value is infinite
            lines[row, segment, 0] = factor * step if usable else 0.0
            lines[row, segment, 1] = -factor * total if usable else 0.0
            lines[row, segment, 2] = abs(factor) * half + _TINY if usable else np.inf
            if usable and step > 0:
                per_step = np.float32(2 / step)
                for group in range(groups):
                    _steps(values, row, column, width, per_step, tables, start, group)
            column += width


@njit(forceinline=True)
def _value(values, row, column, width, place):
    return values[row, column + place] if place < width else np.float32(0)


@njit(forceinline=True)
def _signed_sums(values, row, column, width, exact, byte, group):
    """((v_0 b_0 + v_1 b_1) + v_2 b_2) + v_3 b_3 of four values; beyond the segment v = 0."""
    first = 4 * group
    a = _value(values, row, column, width, first)
    b = _value(values, row, column, width, first + 1)
    c = _value(values, row, column, width, first + 2)
    d = _value(values, row, column, width, first + 3)
    for n in range(16):
        total = a if n & 1 else -a
        total += b if n & 2 else -b
        total += c if n & 4 else -c
        total += d if n & 8 else -d
        exact[row, byte + group // 2, group % 2, n] = total


@njit(forceinline=True)
def _steps(values, row, column, width, per_step, tables, start, group):
    """Q of one group. A value adds its steps where the bit has its sign."""
    first, none = BITS * group, np.float32(0)
    a = _value(values, row, column, width, first) * per_step
    b = _value(values, row, column, width, first + 1) * per_step
    c = _value(values, row, column, width, first + 2) * per_step
    d = _value(values, row, column, width, first + 3) * per_step
    e = _value(values, row, column, width, first + 4) * per_step if BITS > 4 else none
    f = _value(values, row, column, width, first + 5) * per_step if BITS > 4 else none
    for n in range(2**BITS):
        total = np.float32(0.5)
        total += max(a, none) if n & 1 else max(-a, none)
        total += max(b, none) if n & 2 else max(-b, none)
        total += max(c, none) if n & 4 else max(-c, none)
        total += max(d, none) if n & 8 else max(-d, none)
        total += max(e, none) if n & 16 else max(-e, none)
        total += max(f, none) if n & 32 else max(-f, none)
        tables[row, start + group // 4, group % 4, n] = np.uint8(np.int32(total))


# Items whose bound passed wait. The K-th best of their lower bounds rises meanwhile, and most of them fall below it
# before anything is scored exactly. Where items lie in another order than that of their ids, ``ids`` has the id of
# every place; None: the place is the id.


@njit(forceinline=True)
def id_of(place, ids):
    """Of the item that lies in a place."""
    return place if ids is None else np.int64(ids[place])


@njit
def room(rows, k):
    """For the items that wait, of each of ``rows`` queries: items, bounds, how many, and the best K lower bounds."""
    size = min(2 * k, _MOST_WAITING) + 4 * LANES
    return (
        np.empty((rows, size), np.int64),
        np.empty((rows, size), np.float32),
        np.zeros(rows, np.int64),
        np.full((rows, k), NO_ITEM),
    )


@njit(forceinline=True)
def wait(
    items, bounds, sizes, lows, place, limit, passed, totals, first_total, first_item, num_items, excluded, start, end,
    lines, scales, row, ids=None,
):  # fmt: skip
    """Takes in the items whose bit is set, of which the bound was above the query's limit; returns the new limit."""
    lowest = worst(lows, place)
    while passed:
        lane = lowest_bit(passed)  # type: ignore[call-arg, var-annotated]
        passed &= passed - 1
        item, bound = first_item + lane, totals[first_total + lane]
        if bound <= limit or item >= num_items or is_among(id_of(item, ids), excluded, start, end):
            continue
        size = sizes[place]
        items[place, size], bounds[place, size] = item, bound
        sizes[place] = size + 1
        spread = np.float32(0)
        for segment in range(lines.shape[1]):
            half = lines[row, segment, 2]
            if scales is not None:
                half *= abs(scales[item // LANES, segment, item % LANES])
            spread += half
        low = bound - np.float32(2.001) * spread - np.float32(1e-6) * abs(bound) - np.float32(_TINY)
        if low > lowest:  # not so where it is no number
            lowest = take_in(lows, place, low, item)
            limit = max(limit, lowest)
    return limit


@njit
def keep_above(items, bounds, sizes, place, limit):
    """Drops what has fallen below the limit. One that equals it may win by its id."""
    left = 0
    for at in range(sizes[place]):
        if not bounds[place, at] < limit:
            items[place, left], bounds[place, left] = items[place, at], bounds[place, at]
            left += 1
    sizes[place] = left


@njit
def settle(
    items, bounds, sizes, place, limit, exact, factors, planes, scales, firsts, row, heaps, heap, ids=None
):
    """Scores exactly what waits for a query, and offers it to the heap; returns the heap's K-th best score."""
    keep_above(items, bounds, sizes, place, limit)
    dots, scores, some = (
        np.empty(TOGETHER, np.float32),
        np.empty(TOGETHER, np.float32),
        np.empty(TOGETHER, np.int64),
    )
    threshold = worst(heaps, heap)
    for start in range(0, sizes[place], TOGETHER):
        count = min(TOGETHER, sizes[place] - start)
        for which in range(TOGETHER):
            some[which] = items[place, start + min(which, count - 1)]
        _exact_scores(exact, factors, planes, scales, firsts, row, some, dots, scores)
        for which in range(count):
            if scores[which] >= threshold:
                threshold = offer(heaps, heap, scores[which], id_of(some[which], ids))
    sizes[place] = 0
    return threshold


@njit
def _exact_scores(exact, factors, planes, scales, firsts, row, items, dots, scores):
    """Scores of one query and ``items`` (``TOGETHER``,), operation by operation as ``l2q.kernels.packed`` has it."""
    scores[:] = np.float32(-0.0)
    for segment in range(factors.shape[1]):
        byte = firsts[0, segment]
        exact_dots(exact, planes, row, byte, firsts[0, segment + 1] - byte, items, dots)  # type: ignore[call-arg]
        for place in range(TOGETHER):
            term = factors[row, segment] * dots[place]
            if scales is not None:
                term *= scales[items[place] // LANES, segment, items[place] % LANES]
            scores[place] += term
