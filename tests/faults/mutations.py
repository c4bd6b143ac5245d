"""Ways in which bytes on a disk come to be others: what corruptions and fuzzed inputs do to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Mutation = Callable[[np.random.Generator, bytes], bytes]


def _span(rng: np.random.Generator, size: int, longest: int = 64) -> slice:
    start = int(rng.integers(size))
    return slice(start, min(start + 1 + int(rng.integers(longest)), size))


def flip_bit(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ 1 << int(rng.integers(8))]) + data[place + 1 :]


def other_byte(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + rng.bytes(1) + data[place + 1 :]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def lose(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, len(data))
    return data[: span.start] + data[span.stop :]


def lose_front(rng: np.random.Generator, data: bytes) -> bytes:
    return data[1 + int(rng.integers(len(data))) :]


def zeros(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, len(data), 512)
    return data[: span.start] + bytes(span.stop - span.start) + data[span.stop :]


def noise(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, len(data))
    return data[: span.start] + rng.bytes(span.stop - span.start) + data[span.stop :]


def insert(rng: np.random.Generator, data: bytes) -> bytes:
    place = int(rng.integers(len(data) + 1))
    return data[:place] + rng.bytes(1 + int(rng.integers(16))) + data[place:]


def longer(rng: np.random.Generator, data: bytes) -> bytes:
    return data + rng.bytes(1 + int(rng.integers(512)))


def twice(rng: np.random.Generator, data: bytes) -> bytes:
    span = _span(rng, len(data), 512)
    return data[: span.stop] + data[span] + data[span.stop :]


def swap(rng: np.random.Generator, data: bytes) -> bytes:
    size = 1 + int(rng.integers(max(min(512, len(data) // 2), 1)))
    one, two = sorted(int(rng.integers(max(len(data) - size + 1, 1))) for _ in range(2))
    if two < one + size:
        return data[size:] + data[:size]
    return (
        data[:one]
        + data[two : two + size]
        + data[one + size : two]
        + data[one : one + size]
        + data[two + size :]
    )


def empty(rng: np.random.Generator, data: bytes) -> bytes:
    return b""


def another_digit(rng: np.random.Generator, data: bytes) -> bytes:
    places = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
    if not places:
        return flip_bit(rng, data)
    place = places[int(rng.integers(len(places)))]
    return data[:place] + b"%d" % rng.integers(10) + data[place + 1 :]


def lines(rng: np.random.Generator, data: bytes) -> bytes:
    """Lines that are lost, doubled, or in another order."""
    kept = data.splitlines(keepends=True)
    for _ in range(1 + int(rng.integers(3))):
        if kept:
            line = kept.pop(int(rng.integers(len(kept))))
            for _ in range(int(rng.integers(3))):
                kept.insert(int(rng.integers(len(kept) + 1)), line)
    return b"".join(kept)


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bit, flip_bit, flip_bit, other_byte, cut, lose, lose_front, zeros, noise, insert, longer),
    *(twice, swap, empty, another_digit, another_digit, lines),
)


def mutated(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Other bytes than ``data``, by one of the ways or, now and then, several; and which."""
    found, ways = data, []
    while found == data or rng.random() < 0.1:
        way = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        found = way(rng, found or b"\0")
        ways.append(way.__name__)
        if not data and found == b"":
            found = b"\0"
    return found, "+".join(ways)
