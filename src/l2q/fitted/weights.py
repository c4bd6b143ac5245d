"""What a pair weighs in a fit, by its age and by its value.

    w_ui = 2^(-halvings (T - t_ui) / (T - t_0)) q_ui^value_power

t_0 and T are the first and the last time of train; q_ui is the share of its pairs whose value is at most that of
(u, i), so that it does not matter whether values are stars or minutes. What people turn to next follows from what they
and others did lately and liked most. How much each says differs between sets, so both can be chosen on parts of train,
by the filter alone (docs/results/weights.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from l2q.errors import L2QError
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.shortcuts import most_asked
from l2q.fitted.teacher import CosineEmbeddings, Teacher
from l2q.fitted.trials import Trials
from l2q.fitted.tuning import FEWEST, FILTERS, _filters, asked, held_out, latest
from l2q.interactions import Interactions

log = logging.getLogger("l2q")
log_tries = logging.getLogger("l2q.file")

STEPS = 8  # of a halving: weights are 2^(-n / 8), and an index keeps n as one byte
MOST_HALVINGS, MOST_POWER = 31, 8
HALVINGS, POWERS = (2.0, 4.0, 8.0, 16.0), (0.25, 0.5, 1.0)
PARTS = 3  # of train are held out, one after the other
MOST = 500_000  # pairs that are looked at: of more, those of every second, third ... user
SURE = 2.5  # standard errors of the mean over users that weights must bring
DEGREES = FILTERS[1]
RANKS: tuple[dict[str, float], ...] = tuple({"rank": rank} for rank in (64, 256, 512))


@dataclass(frozen=True)
class PairWeights:
    """How often the weight of a pair is halved over the time of train, and the power of its value's rank; with 0 and 0
    all pairs weigh the same."""

    halvings: float = 0.0
    value_power: float = 0.0

    def of(self, train: Interactions) -> Interactions:
        """``train`` with weights. A pair without a time or value has the median one. Raises L2QError where no time, or
        no value, is known.

        >>> from dataclasses import replace
        >>> train = Interactions.from_pairs([0, 0, 1], [0, 1, 1], 2, 2)
        >>> train = replace(train, times=np.array([0.0, 50.0, 100.0]), values=np.float32([5, 1, 5]))
        >>> PairWeights(halvings=2).of(train).weights
        array([0.25, 0.5 , 1.  ], dtype=float32)
        >>> PairWeights(value_power=1).of(train).weights  # a third, to a step of 2^(1/8)
        array([1.        , 0.32421875, 1.        ], dtype=float32)
        """
        if not self.halvings and not self.value_power:
            return replace(train, weights=None)
        halved = np.zeros(len(train))
        if self.halvings:
            times = _known(train.times, "model.halvings", self.halvings, "their age", "time")
            age = times.max() - times
            halved += self.halvings * age / max(age.max(), 1e-300)
        if self.value_power:
            values = _known(train.values, "model.value_power", self.value_power, "their value", "value")
            _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
            halved -= self.value_power * np.log2(np.cumsum(counts) / len(values))[places]
        return replace(train, weights=of_steps(np.minimum(np.rint(STEPS * halved), 255).astype(np.uint8)))


EQUAL = PairWeights()


def _known(found: np.ndarray | None, option: str, value: float, by: str, role: str) -> np.ndarray:
    """All of them, the median where one is missing."""
    if found is None or np.isnan(found).all():
        raise L2QError(
            f"{option}={value:g} weighs pairs by {by}, and no {role} is known; name its column: "
            f"dataset.{role}=COLUMN, or leave {option.removeprefix('model.')} out"
        )
    return np.where(np.isnan(found), np.nanmedian(found), found)


def of_steps(steps: np.ndarray) -> np.ndarray:
    """Weights float32 of the bytes that an index keeps."""
    return np.exp2(-steps.astype(np.float32) / STEPS)


def to_steps(weights: np.ndarray) -> np.ndarray:
    """The bytes that an index keeps of weights."""
    return np.rint(-STEPS * np.log2(weights)).astype(np.uint8)


def choose_weights(
    train: Interactions, seed: int, halvings: float | None = None, value_power: float | None = None
) -> PairWeights:
    """What is None of the two, age before value, by held-out parts of train: its latest events where what is asked for
    comes later, else parts drawn at random, where age plays no part. Weights are taken where they bring ``SURE``
    standard errors over all users and lose in no part."""
    chosen = PairWeights(halvings or 0.0, value_power or 0.0)
    lines: dict[str, Sequence[float]] = {}
    if halvings is None and train.ahead and _vary(train.times):
        lines["halvings"] = HALVINGS
    if value_power is None and _vary(train.values):
        lines["value_power"] = POWERS
    if not lines:
        return chosen
    trials = _Trials(train, seed)
    if not trials.parts:
        log.info(f"{' and '.join(lines)} of model stay 0: fewer than {FEWEST} users have items to hold out")
        return chosen
    for option, line in lines.items():
        chosen = trials.best_of(option, [replace(chosen, **{option: value}) for value in line], chosen)
    return chosen


class _Trials:
    """Recall + NDCG of the filter with pairs weighed, on parts of train that are held out."""

    def __init__(self, train: Interactions, seed: int) -> None:
        self.seed, self.train = seed, train
        every = -(-len(train) // MOST)
        few = train.select(train.users % every == 0)
        most = most_asked(train)
        self.parts = []
        for number in range(PARTS):
            if train.ahead:
                part, held = latest(few, number)
                held = asked(held, most)
            else:
                part, held, _ = held_out(few, "random", seed + number, most)
            if np.count_nonzero(held.user_degrees) >= FEWEST:
                self.parts.append((part, held))
        self.users = sum(np.count_nonzero(held.user_degrees) for _, held in self.parts)
        self._tried: dict[tuple[PairWeights, int], np.ndarray] = {}

    def best_of(self, option: str, candidates: list[PairWeights], before: PairWeights) -> PairWeights:
        """The candidate that brings most, of those that are sure; ``before`` where none is."""
        late = f"{len(self.parts)} {'late' if self.train.ahead else 'random'} parts of train"
        gains = {one: gain for one in candidates if (gain := self._gains(one, before))}
        if not gains:
            tried = ", ".join(f"{getattr(one, option):g}" for one in candidates)
            log.info(f"model.{option} stays 0: each of {tried} loses Recall + NDCG in one of {late}")
            return before
        mean = {one: np.concatenate(gain).mean() for one, gain in gains.items()}
        errors = {one: mean[one] / _error(np.concatenate(gain)) for one, gain in gains.items()}
        sure = [one for one in gains if errors[one] >= SURE]
        best = max(sure or gains, key=lambda one: mean[one])
        value = f"{getattr(best, option):g}"
        decided = f"is {value}: with it" if sure else f"stays 0: with {value}, the best,"
        instead = np.concatenate([self._by_user(before, number) for number in range(len(self.parts))]).mean()
        least = min(gain.mean() for gain in gains[best])
        log.info(
            f"model.{option} {decided} Recall + NDCG is {instead + mean[best]:.4f} instead of {instead:.4f} for "
            f"{self.users:,} users of {late}, by {errors[best]:.1f} standard errors and {least:+.4f} in the part with "
            "the least"
        )
        return best if sure else before

    def _gains(self, weights: PairWeights, before: PairWeights) -> list[np.ndarray] | None:
        """What every part's users gain; None as soon as a part loses, which settles it."""
        gains: list[np.ndarray] = []
        for number in range(len(self.parts)):
            gain = self._by_user(weights, number) - self._by_user(before, number)
            if gain.mean() < 0:
                return None
            gains.append(gain)
        return gains

    def _by_user(self, weights: PairWeights, number: int) -> np.ndarray:
        """Of a part, with the best of a dozen filters: more directions may bring what weights bring."""
        if (weights, number) not in self._tried:
            self._tried[weights, number] = found = self._quality(weights, *self.parts[number])
            log_tries.info(f"{weights}, part {number}: Recall + NDCG {found.mean():.4f}")
        return self._tried[weights, number]

    def _quality(self, weights: PairWeights, part: Interactions, held: Interactions) -> np.ndarray:
        # as fast as in all of train: a part spans less of the time
        weights = replace(weights, halvings=weights.halvings * _span(part) / _span(self.train))
        none = CosineEmbeddings(weight=0.0, dim=1, temperature=1.0, steps=0, negatives=1, learning_rate=1.0)
        users = np.flatnonzero(held.user_degrees)
        trials = Trials(weights.of(part), held, users, None, none.temperature, self.seed)
        best = Teacher(SpectralFilter(), none)
        for line in (RANKS, DEGREES):
            trials(_filters(line, min(part.num_users, part.num_items), best))
            best = trials.best
        return trials.by_user([best])[:, 0]


def _error(gain: np.ndarray) -> float:
    """Of its mean."""
    return max(float(gain.std() / np.sqrt(len(gain))), 1e-12)


def _vary(found: np.ndarray | None) -> bool:
    return found is not None and len(np.unique(found[~np.isnan(found)])) > 1


def _span(train: Interactions) -> float:
    """1 where no time is known, and none is asked for."""
    return float(np.nanmax(train.times) - np.nanmin(train.times)) if _vary(train.times) else 1.0  # type: ignore
