"""A short validation grid for a set that nobody tuned for: which teacher of its codes suits it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from l2q import processes
from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.parts import NOWHERE, Parts, once
from l2q.fitted.teacher import CosineEmbeddings, Teacher, TeacherIndex
from l2q.interactions import Interactions, normalize
from l2q.kernels.svd import SVD, truncated_svd
from l2q.progress import progress_bars

log = logging.getLogger("l2q")
log_tries = logging.getLogger("l2q.file")  # some 40 lines, which nobody waits for

FILTERS: tuple[tuple[dict[str, float], ...], ...] = (
    # a few are all that a popularity without communities has, or a small catalogue
    tuple({"rank": rank} for rank in (4, 8, 16, 32, 64, 128, 256, 512, 768)),
    # what an item's degree weighs in all, popularity - gamma_item, is 0, -.15 or -.3
    tuple(
        {"gamma_item": gamma, "popularity": round(gamma - less, 2)}
        for gamma in (0.3, 0.4, 0.5)
        for less in (0.0, 0.15, 0.3)
    ),
    tuple({"tail": tail} for tail in (0.0, 0.2, 0.4, 0.8, 1.6)),
    tuple({"gamma_user": gamma} for gamma in (0.3, 0.5)),
)
WEIGHTS = (0.0, 0.5, 1.0, 2.0)  # of the embeddings
GAIN = 1.01  # that embeddings must bring to be trained: less is within the noise of a small validation part
HELD, FEWEST = 0.1, 50  # of train is held out; by fewer users than so many nothing can be chosen
ROUNDS = 2  # in the second, every line is tried beside the best of the others
ASKED = 4000  # users decide at first
DRAWS = {
    1: 3,
    2: 2,
}  # parts of one kind, or of each of two: all decide in the end about what is near to the best
TURNS = 4  # through the lines of what is near, or until one turn changes nothing
KEPT = 6  # decompositions at a time


def choose_teacher(
    train: Interactions,
    *,
    embeddings: CosineEmbeddings,
    filter: SpectralFilter | None = None,
    how: str | None = None,
    sample: int = ASKED,
    seed: int = 0,
    parts: Parts = NOWHERE,
) -> Teacher:
    """The teacher with the best Recall + NDCG at 20 (``deciding_cutoff``) on a part of train (``held_out``), one line
    of ``FILTERS`` and ``WEIGHTS`` after the other, twice over, for about ``sample`` users spread over all. Beside a
    cluster part a random one counts as much, by the geometric mean of both: test is known to be no random draw there,
    and not how far from one. Where there are three times as many users, what is near to a best filter without
    embeddings (``near``) is then tried on more parts (``DRAWS``), each drawn anew and with users of its own: one part
    draws lots among filters that are a hundredth apart. A ``filter`` that is given stays, and so does a weight of the
    ``embeddings``, which is 0 unless they bring 1 %. Test plays no part. Every try is logged. Where no user has enough
    items for a validation part, the default filter alone. Tries and embeddings are kept as ``parts``."""
    weight = embeddings.weight
    best = Teacher(filter or SpectralFilter(), replace(embeddings, weight=weight or 0.0))
    if filter is not None and weight is not None:
        return best
    fit, held, how = held_out(train, how, seed, sample, whole=True)
    if not len(held):
        log.warning(nothing_held(how))
        return best
    draws, weight = [(fit, held)], tried_weight(weight, how)
    kinds = (how, "random") if how == "cluster" else (how,)
    draws += [held_out(train, kind, seed, sample)[:2] for kind in kinds[1:]]
    most = min(train.num_users, train.num_items)
    svds: dict[tuple[int, float, float], SVD] = {}
    tried: dict[tuple[Teacher, int], float] = {}  # by a teacher and on how many parts
    known: list[float] = parts.get("tries") or []  # in this order, which follows from what they found

    with progress_bars() as progress:
        learned = None
        if weight != 0:
            learned = once(parts, "embeddings", lambda: embeddings(fit, seed, progress))

        def on_a_part(candidate: Teacher, number: int) -> float:
            fit, held = draws[number]
            gammas = candidate.filter.gamma_user, candidate.filter.gamma_item
            if (svd := svds.get((number, *gammas))) is None:
                rank = min(max(SpectralFilter.rank, candidate.filter.rank), most)
                svd = svds[number, *gammas] = truncated_svd(normalize(fit, *gammas), rank, seed)
                if len(svds) > KEPT:
                    svds.pop(next(iter(svds)))
            index = TeacherIndex(candidate.scores(candidate.filter(fit, seed, svd), learned))
            found = evaluate(index, held, [deciding_cutoff(train.num_items)], fit, memory_mb=256).metrics
            return sum(value for key, value in found.items() if key.startswith(("recall", "ndcg")))

        def measured(candidate: Teacher) -> float:
            values = [on_a_part(candidate, number) for number in range(len(draws))]
            return math.prod(values) ** (1 / len(values))

        def quality(candidate: Teacher) -> float:
            found = tried[candidate, len(draws)]
            return found if candidate.embeddings.weight else GAIN * found

        def best_of(candidates: list[Teacher]) -> Teacher:
            fresh = [one for one in dict.fromkeys(candidates) if (one, len(draws)) not in tried]
            at_hand = known[len(tried) :][: len(fresh)]
            tried.update(((one, len(draws)), value) for one, value in zip(fresh, at_hand, strict=False))
            fresh = fresh[len(at_hand) :]
            # all at once by several processes, which share them
            at_once = max(len(fresh), 1) if processes.are_together() else 1
            for first in range(0, len(fresh), at_once):
                some = fresh[first : first + at_once]
                found = processes.shared(lambda each: [measured(one) for one in each], some)
                for candidate, value in zip(some, found, strict=True):
                    tried[candidate, len(draws)] = value
                    log_tries.info(
                        f"teacher try {len(tried)}: Recall + NDCG {value:.4f} with {candidate.filter}, "
                        f"weight {candidate.embeddings.weight:g} of embeddings"
                    )
                parts.put("tries", lambda: list(tried.values()), needed=False)
            return max(candidates, key=quality)

        lines = FILTERS if filter is None else ()
        grid: list[Callable[[Teacher], list[Teacher]]] = [partial(_filters, line, most) for line in lines]
        if weight is None:
            grid.append(_weights)
        for number, line in enumerate(grid * ROUNDS):
            best = best_of(line(best))
            progress(number + 1, len(grid) * ROUNDS, "choosing the teacher")
        many = np.count_nonzero(train.user_degrees) >= DRAWS[1] * sample
        if filter is None and learned is None and many and how != "time":  # of times there is but one part
            for n in range(1, DRAWS[len(kinds)]):
                draws += [held_out(train, kind, seed + 1000 * n, sample, True, n)[:2] for kind in kinds]
            for turn in range(TURNS):
                before = best
                for place in range(len(near(best.filter))):
                    best = best_of(_filters(near(best.filter)[place], most, best))
                progress(turn + 1, TURNS, f"choosing the teacher on {len(draws)} parts")
                if best == before:
                    break
    said = " and ".join(kinds)
    said = f"{len(draws)} {said} validation parts" if len(draws) > 1 else f"a {said} validation part"
    log.info(
        f"chosen on {said} of train, {len(tried)} tries: {best.filter}, weight {best.embeddings.weight:g} of "
        f"embeddings; Recall + NDCG {tried.get((best, len(draws)), 0):.4f}"
    )
    return best


def near(filter: SpectralFilter) -> tuple[tuple[dict[str, float], ...], ...]:
    """What a filter is compared with in the end: lines, each with the filter itself first.

    >>> [len(line) for line in near(SpectralFilter(rank=768, popularity=0.5, tail=0.0))]
    [2, 5, 3, 2]
    """
    ranks = [int(values["rank"]) for values in FILTERS[0]]
    place = min(range(len(ranks)), key=lambda at: abs(ranks[at] - filter.rank))
    tails = (round(filter.tail + by, 2) for by in (-0.2, 0.2))

    def moved(by: float, *names: str) -> dict[str, float]:
        return {name: round(getattr(filter, name) + by, 2) for name in names}

    lines: tuple[list[dict[str, float]], ...] = (
        [{"rank": rank} for rank in ranks[max(place - 1, 0) : place + 2] if rank != filter.rank],
        [moved(by, "popularity") for by in (-0.1, -0.05, 0.05, 0.1)],
        [moved(by, "gamma_item", "popularity") for by in (-0.1, 0.1)],
        [{"tail": tail} for tail in tails if tail >= 0],
    )
    return tuple(({}, *line) for line in lines)


def held_out(
    train: Interactions, how: str | None, seed: int, most: int, whole: bool = False, first: int = 0
) -> tuple[Interactions, Interactions, str]:
    """What teachers are fitted to, what they are asked for, of about ``most`` users, and how it was drawn. Other users
    are asked with another ``first``.

    "time" takes what came last, of users and items that were there before, and leaves nothing as late to be fitted to;
    "random" a tenth of every user's items, "cluster" some that are unlike the others. A ``whole`` cluster part is
    taken from all users, whoever is asked. None is what ``train.holdout`` says; where it says nothing, "time" where
    what is asked for comes after train and ``FEWEST`` users tell, else "random". Nothing is held out where no user has
    enough items."""
    option, how = "model.split" if how else "dataset.holdout", how or train.holdout
    if how == "time" and train.times is None:
        raise L2QError(f"{option}=time needs the time of every pair, and none is known; leave it out")
    if how == "time" or (how is None and train.ahead and train.times is not None):
        fit, held = latest(train)
        if how is not None or np.count_nonzero(held.user_degrees) >= FEWEST:
            return fit, asked(held, most), "time"
    how = how or "random"
    fit, held = split(train, how, fraction=0.15 if how == "cluster" else HELD, seed=seed)
    held = asked(held, most, first)
    if whole and how == "cluster":
        # what a user turns to next, others have turned to: left in the graph it tells the answer
        return fit, held, how
    # what users who are not asked would give stays in the graph, which should be like the one that codes are fitted to
    return train.select(~np.isin(train.keys, held.keys)), held, how


def tried_weight(weight: float | None, how: str) -> float | None:
    """The weight of embeddings, None where it is to be tried. A cluster part cannot tell: it is drawn by vectors of a
    truncated SVD, from which embeddings start. Where it promised 5 to 7 %, test had nothing (docs/results/l2q-plus.md).
    """
    return 0.0 if weight is None and how == "cluster" else weight


def nothing_held(how: str) -> str:
    return (
        f"no user has enough items for a {how} validation part that would choose the filter: the default one"
    )


def latest(train: Interactions, number: int = 0) -> tuple[Interactions, Interactions]:
    """All before the latest tenth of train, and that tenth; of ``number`` 1 the same with the tenth before it, and so
    forth. Users and items of the later part are known from the earlier one. Nothing is held out where there is no time,
    or one for all."""
    try:
        until = (
            np.inf if not number or train.times is None else np.nanquantile(train.times, 1 - number * HELD)
        )
        known = train if train.times is None else train.select(~(train.times > until))
        fit, held = split(known, "time", fraction=HELD)
    except L2QError:
        return train, train.select(np.zeros(len(train), bool))
    return fit, held.select((fit.user_degrees[held.users] > 0) & (fit.item_degrees[held.items] > 0))


def asked(held: Interactions, most: int, first: int = 0) -> Interactions:
    """Of about ``most`` users, spread over all, the one at place ``first`` ahead."""
    users = np.flatnonzero(held.user_degrees)
    return held.select(np.isin(held.users, users[first :: max(len(users) // max(most, 1), 1)]))


def _filters(line: Sequence[dict[str, float]], most: int, best: Teacher) -> list[Teacher]:
    """``best`` with each of the line's filters; ranks beyond the data's are all the same one."""
    filters = (replace(best.filter, **values) for values in line)  # type: ignore[arg-type]
    return [replace(best, filter=replace(filter, rank=min(filter.rank, most))) for filter in filters]


def _weights(best: Teacher) -> list[Teacher]:
    return [replace(best, embeddings=replace(best.embeddings, weight=weight)) for weight in WEIGHTS]
