"""What a pair weighs in a fit, by its age.

    w_ui = 2^(-halvings (T - t_ui) / (T - t_0)),    t_0 and T: the first and the last time of train

What people turn to next follows from what they and others did lately. How fast the past fades differs between sets, so
``halvings`` are chosen on the latest events of train, by the filter alone (docs/results/weights.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.shortcuts import ASKED, SCORES, Trials
from l2q.fitted.teacher import CosineEmbeddings, Teacher
from l2q.fitted.tuning import FILTERS, _filters
from l2q.interactions import Interactions

log = logging.getLogger("l2q")
log_tries = logging.getLogger("l2q.file")

STEPS = 8  # of a halving: weights are 2^(-n / 8), and an index keeps n as one byte
TRIED = (0.0, 2.0, 4.0, 8.0, 16.0)
LATEST, WINDOWS = 0.1, 3  # of train, and so many times at most
FEWEST, ENOUGH = 50, 400  # users: of fewer nothing can be said, and more are not asked for
SURE = 2.5  # standard errors of the mean over users that weights must bring
DEGREES = FILTERS[1]
RANKS: tuple[dict[str, float], ...] = tuple({"rank": rank} for rank in (64, 256, 512))


def weighed(train: Interactions, halvings: float) -> Interactions:
    """``train`` with weights by age; with 0 halvings none. A pair without a time has the median age. Raises L2QError
    where no time is known.

    >>> from dataclasses import replace
    >>> train = Interactions.from_pairs([0, 0, 1], [0, 1, 1], 2, 2)
    >>> weighed(replace(train, times=np.array([0.0, 50.0, 100.0])), 2).weights
    array([0.25, 0.5 , 1.  ], dtype=float32)
    """
    if not halvings:
        return replace(train, weights=None)
    times = train.times
    if times is None or np.isnan(times).all():
        raise L2QError(
            f"model.halvings={halvings:g} weighs pairs by their age, and no time is known; name its column: "
            "dataset.time=COLUMN, or leave halvings out"
        )
    age = np.nanmax(times) - np.where(np.isnan(times), np.nanmedian(times), times)
    share = age / max(age.max(), 1e-300)
    return replace(
        train, weights=of_steps(np.minimum(np.rint(STEPS * halvings * share), 255).astype(np.uint8))
    )


def of_steps(steps: np.ndarray) -> np.ndarray:
    """Weights float32 of the bytes that an index keeps."""
    return np.exp2(-steps.astype(np.float32) / STEPS)


def to_steps(weights: np.ndarray) -> np.ndarray:
    """The bytes that an index keeps of weights."""
    return np.rint(-STEPS * np.log2(weights)).astype(np.uint8)


def choose_halvings(train: Interactions, seed: int) -> float:
    """By the latest events of train; 0 where too few users have such, and where weights bring less than ``SURE``
    standard errors."""
    none = CosineEmbeddings(weight=0.0, dim=1, temperature=1.0, steps=0, negatives=1, learning_rate=1.0)
    tried: dict[float, list[np.ndarray]] = {halvings: [] for halvings in TRIED}
    share, asked = 1.0, 0
    for part, held in _windows(train):
        users = np.flatnonzero(held.user_degrees)
        users = users[:: max(len(users) // max(min(ASKED, SCORES // train.num_items), 1), 1)]
        held = held.select(np.isin(held.users, users))
        share, asked = _span(part) / _span(train), asked + len(users)
        for halvings in TRIED:
            trials = Trials(weighed(part, halvings * share), held, users, None, none.temperature, seed)
            best = Teacher(SpectralFilter(), none)
            for line in (RANKS, DEGREES):
                trials(_filters(line, min(part.num_users, part.num_items), best))
                best = trials.best
            tried[halvings].append(trials.by_user([best])[:, 0])
        if asked >= ENOUGH:
            break
    if asked < FEWEST:
        log.info(
            f"all pairs weigh the same: only {asked:,} users have late events in train, and earlier ones"
        )
        return 0.0
    by_user = {halvings: np.concatenate(found) for halvings, found in tried.items()}
    for halvings, found in by_user.items():
        log_tries.info(f"weights halved {halvings:g} times: Recall + NDCG {found.mean():.4f}")
    chosen = max(by_user, key=lambda halvings: by_user[halvings].mean())
    gain = by_user[chosen] - by_user[0.0]
    sure = gain.mean() / max(gain.std() / np.sqrt(len(gain)), 1e-12)
    on = f"for {asked:,} users with late events in train"
    if sure < SURE:
        log.info(
            f"all pairs weigh the same: weights by age bring nothing sure {on} ({sure:.1f} standard errors)"
        )
        return 0.0
    log.info(
        f"pairs weigh by their age, halved {chosen:g} times over the time of train: Recall + NDCG "
        f"{by_user[chosen].mean():.4f} instead of {by_user[0.0].mean():.4f} {on} ({sure:.1f} standard errors)"
    )
    return chosen


def _windows(train: Interactions) -> Iterator[tuple[Interactions, Interactions]]:
    """The latest tenth of train and all before it, then the tenth before that, and a third one. Users and items of a
    later part are known from the earlier one."""
    assert train.times is not None
    for number in range(WINDOWS):
        until = np.nanquantile(train.times, 1 - number * LATEST)
        try:
            part, held = split(train.select(~(train.times > until)), "time", fraction=LATEST)
        except L2QError:  # one time for all
            return
        yield part, held.select((part.user_degrees[held.users] > 0) & (part.item_degrees[held.items] > 0))


def _span(train: Interactions) -> float:
    assert train.times is not None
    return float(np.nanmax(train.times) - np.nanmin(train.times))
