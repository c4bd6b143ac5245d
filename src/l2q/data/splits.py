"""Which interactions are held out, for a test or for validation.

A split is a class. Most go user by user and have two things of their own: ``least``, the fewest items of a user who
gives some away, and ``order``, whose smallest values go first. A new one is added to ``SPLITS`` and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from l2q.data.core import core
from l2q.errors import L2QError
from l2q.interactions import Interactions, normalize

MOST_COLD = 0.5
"""The share of test users without train items from which on ``auto`` gives up a cut by time."""


class Split(ABC):
    """Cuts interactions in two: what remains, and what is held out."""

    least: int
    ahead = False
    """Whether what is held out comes later than all that remains."""

    @abstractmethod
    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        """A number for every pair, (nnz,): of each user's items, those with the smallest are held out."""

    def __call__(
        self, interactions: Interactions, fraction: float, seed: int
    ) -> tuple[Interactions, Interactions]:
        """(rest, held out), of the same shape and names. Raises L2QError for a fraction outside 0 .. 1."""
        if not 0 < fraction < 1:
            raise L2QError(f"fraction={fraction} must lie between 0 and 1")
        held = self.held(interactions, fraction, seed)
        return replace(interactions.select(~held), ahead=self.ahead), interactions.select(held)

    def held(self, interactions: Interactions, fraction: float, seed: int) -> np.ndarray:
        """Which pairs are held out, (nnz,) bool."""
        sizes = self.sizes(interactions, fraction, seed)
        by_order = np.lexsort((self.order(interactions, seed), interactions.users))
        degrees = interactions.user_degrees
        rank = np.arange(len(interactions)) - np.repeat(interactions.indptr[:-1], degrees)
        held = np.empty(len(interactions), dtype=bool)
        held[by_order] = rank < np.repeat(sizes, degrees)
        return held

    def sizes(self, interactions: Interactions, fraction: float, seed: int) -> np.ndarray:
        """How many items every user gives, (num_users,) int64.

        A user with n >= ``least`` items gives ``fraction`` * n of them: halves are rounded up, at least 1 goes and at
        least 1 stays. Other users give none. Where users have so few items that this would be more than one and a
        half times ``fraction`` of all pairs, only every second of these users gives, from two and a half times on
        every third, and so forth.
        """
        sizes = _shares(interactions.user_degrees, fraction, self.least)
        givers = np.flatnonzero(sizes)
        every = max(round(sizes.sum() / max(fraction * len(interactions), 1)), 1)
        sizes[np.setdiff1d(givers, givers[::every])] = 0
        return sizes


class Random(Split):
    """Any of a user's items, each as likely as the others."""

    least = 2

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).random(len(interactions))


class Cluster(Split):
    """A corner of a user's taste: one of the user's items is drawn, and is held out with those of the user's own
    items that are nearest to it. Predicting them asks for what a user turns to next rather than for more of the same,
    as a later test does.

    Near is the cosine of ``vectors`` (num_items, dim), by default the right singular vectors of the normalized
    interactions (rank 128); of equally near items the lower id goes first. Users with fewer than 6 items give none.
    """

    least = 6

    def __init__(self, vectors: np.ndarray | None = None) -> None:
        self.vectors = vectors

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        vectors = self.vectors
        if vectors is None:
            from l2q.kernels.svd import truncated_svd  # compiled code, which options alone do not need

            rank = min(128, interactions.num_users, interactions.num_items)
            _, _, vectors = truncated_svd(normalize(interactions), rank, seed)
        degrees, items = interactions.user_degrees, interactions.items
        draws = np.random.default_rng(seed).random(interactions.num_users)
        drawn = np.repeat(
            interactions.indptr[:-1] + (draws * degrees).astype(np.int64), degrees
        )  # (nnz,) places
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosine = np.empty(len(items), dtype=unit.dtype)
        for first in range(0, len(items), 65536):  # two gathered blocks at a time, not two (nnz, dim) arrays
            block = slice(first, first + 65536)
            np.vecdot(unit[items[block]], unit[items[drawn[block]]], out=cosine[block])
        cosine[drawn] = np.inf
        return -cosine


class Last(Split):
    """Leave the last one out: of every user with at least two items the latest. A pair's time is that of its first
    event; among equal times the seed draws. ``fraction`` plays no part."""

    least = 2

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        times = _times(interactions, "last")
        drawn = np.random.default_rng(seed).random(len(interactions))
        latest_first = np.lexsort((drawn, -times))
        order = np.empty(len(interactions))
        order[latest_first] = np.arange(len(interactions))
        return order

    def sizes(self, interactions: Interactions, fraction: float, seed: int) -> np.ndarray:
        return (interactions.user_degrees >= self.least).astype(np.int64)


class Time(Split):
    """One cut for all users: what comes from a moment on is held out, and every remaining pair lies before it.

    The moment leaves about ``fraction`` of the pairs behind it. Pairs of one time stay together, on the side that
    brings the part nearer to ``fraction``. Users and items that are new after the cut stay in the part. Pairs without
    a time remain.
    """

    least = 1
    ahead = True

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        return -_times(interactions, "time")

    def held(self, interactions: Interactions, fraction: float, seed: int) -> np.ndarray:
        latest_first = self.order(interactions, seed)
        ordered = np.sort(latest_first)
        wanted = fraction * len(ordered)
        # after how many of the pairs, latest first, another time begins
        cuts = np.flatnonzero(np.diff(ordered) > 0) + 1
        if not len(cuts):
            raise L2QError(
                "split=time: all events have one time, so there is no later part; use split=random"
            )
        cut = cuts[np.argmin(np.abs(cuts - wanted))]
        return latest_first <= ordered[cut - 1]


class Users(Split):
    """Leave users out: ``fraction`` of those with at least two items are in the held-out part alone, as people are who
    come when the model is made. ``fraction`` of each one's items, the latest where times are known, is to be found;
    the others are ``given`` beside that part (Liang et al. 2018, arXiv 1802.05814: 80 % given, 20 % to be found).
    ``l2q.evaluate`` folds such users in by what is given, and leaves it out of their rankings.
    """

    least = 2

    def order(self, interactions: Interactions, seed: int) -> np.ndarray:
        within = Random() if interactions.times is None else Last()
        return within.order(interactions, seed)

    def __call__(
        self, interactions: Interactions, fraction: float, seed: int
    ) -> tuple[Interactions, Interactions]:
        rest, held = super().__call__(interactions, fraction, seed)
        known = np.isin(rest.users, np.flatnonzero(held.user_degrees))
        return rest.select(~known), replace(held, given=rest.select(known))

    def sizes(self, interactions: Interactions, fraction: float, seed: int) -> np.ndarray:
        able = np.flatnonzero(interactions.user_degrees >= self.least)
        if len(able) < 2:
            return np.zeros(interactions.num_users, np.int64)
        count = min(max(round(fraction * len(able)), 1), len(able) - 1)
        out = np.random.default_rng(seed).permutation(able)[:count]
        sizes = np.zeros(interactions.num_users, np.int64)
        sizes[out] = _shares(interactions.user_degrees[out], fraction, self.least)
        return sizes


SPLITS: dict[str, type[Split]] = {
    "random": Random,
    "cluster": Cluster,
    "last": Last,
    "time": Time,
    "users": Users,
}


def split(
    interactions: Interactions,
    how: str | Split = "random",
    *,
    fraction: float = 0.2,
    seed: int = 0,
    min_events: int = 1,
) -> tuple[Interactions, Interactions]:
    """Cuts ``interactions`` in two, (train, test), both with all users, items and names.

    ``how`` is a name in ``SPLITS`` or a ``Split`` of your own: "random", "last" (every user's latest item), "time" (one
    cut for all), "users" (some users are in test alone) or "cluster". "auto" cuts by time where that leaves something
    to test with, else at random. ``fraction`` is the share of test; ``seed`` fixes what is drawn.

    ``min_events`` above 1 keeps only users and items with so many pairs in train, of the others kept; what leaves
    train leaves test too, and its names leave both. ``reading.split`` of both parts says how it was done, with counts,
    where ``interactions`` has a ``reading``.

    Raises L2QError for an unknown name, a fraction outside 0 .. 1, a seed below 0, events without the times
    that ``how`` needs, and where ``min_events`` leaves nothing.

        train, test = l2q.split(events, "time", fraction=0.2)
    """
    why = ""
    if not isinstance(fraction, int | float | np.number):
        raise L2QError(f"fraction={fraction!r} is no number; give the share of test, such as 0.2")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise L2QError(f"seed={seed!r} must be a whole number of at least 0")
    if how == "auto":
        how, why = _auto(interactions, fraction)
    name = how if isinstance(how, str) else type(how).__name__.lower()
    if isinstance(how, str):
        if how not in SPLITS:
            raise L2QError(f"split={how} is unknown; use {' or '.join(SPLITS)}")
        how = SPLITS[how]()
    train, test = how(interactions, fraction, seed)
    train, test, left_out = core(train, test, min_events)
    return said(train, test, name, fraction, why, left_out)


def said(
    train: Interactions, test: Interactions, name: str, fraction: float, why: str = "", left_out: str = ""
) -> tuple[Interactions, Interactions]:
    """Both parts with ``reading.split``, where they have a reading: how they were made, by the split ``name``, and what
    of test is new. ``why`` it was this split; what ``min_events`` ``left_out``."""
    if train.reading is None:
        return train, test
    made = {
        "random": f"split at random: {fraction:.0%} of each user's items are test",
        "last": "split by time: the latest item of each user is test",
    }.get(name, f"split by {name}: {fraction:.0%} are test")
    if test.given is not None:
        out, given = int(np.count_nonzero(test.user_degrees)), len(test.given)
        made = f"split by users: {out:,} are in test alone, folded in by {given:,} given pairs"
    if name == "time" and train.times is not None and test.times is not None and len(test):
        made = f"split by time: test begins at {_moment(test.times.min())}"
        if unknown := int(np.isnan(train.times).sum()):
            made += f", and {_count(unknown, 'pair')} without a time stay in train"
    line = described(made, train, test, why, left_out)
    reading = replace(train.reading, split=line)
    return replace(train, reading=reading), replace(test, reading=reading)


def described(made: str, train: Interactions, test: Interactions, *more: str) -> str:
    """What a split came to, in a line: how it was ``made``, the pairs, what is new in test, and ``more``."""
    line = f"{made}; {len(train):,} train and {len(test):,} test pairs"
    new = [_count(count, side) for side, count in cold(train, test).items() if count]
    line += f"; new in test: {', '.join(new)}" if new else ""
    return line + "".join(f"; {one}" for one in more if one)


def cold(train: Interactions, test: Interactions) -> dict[str, int]:
    """How many "user"s and "item"s of test train knows nothing of; a user with given items is known."""
    given = 0 if test.given is None else test.given.user_degrees
    users = (test.user_degrees > 0) & (train.user_degrees + given == 0)
    items = (test.item_degrees > 0) & (train.item_degrees == 0)
    return {"user": int(users.sum()), "item": int(items.sum())}


def _auto(interactions: Interactions, fraction: float) -> tuple[str, str]:
    """The split by time or at random, and why it is not by time."""
    if interactions.times is None:
        return "random", ""
    try:
        train, test = Time()(interactions, fraction, 0)
    except L2QError:
        return "random", "not by time, since all events have one"
    new, users = cold(train, test)["user"], int(np.count_nonzero(test.user_degrees))
    if new > MOST_COLD * users:
        return "random", f"not by time, since {new:,} of {users:,} test users would have no train items"
    return "time", ""


def _shares(degrees: np.ndarray, fraction: float, least: int) -> np.ndarray:
    """``fraction`` of each degree, halves rounded up, at least 1, leaving at least 1; 0 of those below ``least``."""
    # the small term mends products such as .29 * 50 = 14.4999...
    sizes = np.clip(np.floor(fraction * degrees + 0.5 + 1e-9).astype(np.int64), 1, degrees - 1)
    sizes[degrees < least] = 0
    return sizes


def _times(interactions: Interactions, name: str) -> np.ndarray:
    if interactions.times is None:
        raise L2QError(
            f"split={name} needs the time of every event, and none is known; name its column: dataset.time=COLUMN, "
            "or time=COLUMN of l2q.read_events"
        )
    return interactions.times


def _moment(time: float) -> str:
    """A date, where the number can be seconds since 1970; else the number."""
    if 1e8 < time < 1e10:  # 1973 to 2286
        return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"
    return f"{time:.15g}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
