"""How long a fit will take and how much memory, from what was measured."""

from __future__ import annotations

from typing import NamedTuple


class Cost(NamedTuple):
    """What something takes: a ``start``, and more for every thousand ``rows``, users and items, and for every million
    train ``pairs``."""

    start: float
    rows: float
    pairs: float

    def of(self, rows: int, pairs: int) -> float:
        return self.start + self.rows * rows / 1e3 + self.pairs * pairs / 1e6


class Model(NamedTuple):
    """Seconds of a fit, or of an epoch of a trained model, MiB of memory at most where they were measured,
    and what they come from."""

    seconds: Cost
    memory: Cost | None
    how: str


# To be filled again when a model gets faster: l2q.fit with its default settings on three sets, in a process of its own,
# compiled code warm, gives the three numbers of each Cost. Processor seconds stay what they are on a busy machine.
#   2026-11-29, l2q_plus: debian 66 s, 1,465 MiB; movielens_1m 52 s, 1,400 MiB; gowalla 164 s, 3,812 MiB.
#   l2q_anl, an epoch, from outputs/results: debian 3.2 s, gowalla 16.9 s, yelp2018 39.5 s, amazon_book 84.8 s.
MODELS = {
    "l2q_plus": Model(Cost(24, 1.84, 11.5), Cost(524, 39.6, 601), "three sets, in seconds of one core"),
    "l2q_anl": Model(
        Cost(0, 0, 30), None, "four sets and two cores, 21 to 36 seconds an epoch and million pairs"
    ),
}


def expected(model: str, rows: int, pairs: int) -> tuple[float, float | None, str]:
    """Seconds, of a trained model those of an epoch, MiB, and where both come from.

    >>> [round(number) for number in expected("l2q_plus", 21_819, 128_776)[:2]]
    [66, 1465]
    """
    found = MODELS[model]
    memory = None if found.memory is None else found.memory.of(rows, pairs)
    return found.seconds.of(rows, pairs), memory, found.how
