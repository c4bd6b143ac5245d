"""A short validation grid for a set that nobody tuned for: which teacher of its codes suits it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np

from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.parts import NOWHERE, Parts, once
from l2q.fitted.teacher import CosineEmbeddings, Teacher
from l2q.fitted.trials import Trials, alike, log_try, weighed
from l2q.interactions import Interactions
from l2q.progress import progress_bars

log = logging.getLogger("l2q")

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
HELD, FEWEST = 0.1, 50  # of train is held out; by fewer users than so many nothing can be chosen
ROUNDS = 2  # in the second, every line is tried beside the best of the others
ASKED = 4000  # users decide at first
# From so many times as many users on, about all of them, or so many, decide about what is near to the best.
MANY, MOST = 3, 32_000


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
    and not how far from one. Where there are ``MANY`` times as many users, about ``MOST`` of them then decide between
    the best filter without embeddings and what is ``near`` to it: for ``sample`` users alone, filters that are a
    hundredth apart draw lots. A ``filter`` that is given stays, and so does a weight of the ``embeddings``, which is 0
    unless they bring 1 %. Test plays no part. Every try is logged. Where no user has enough items for a validation
    part, the default filter alone. Tries and embeddings are kept as ``parts``."""
    weight = embeddings.weight
    best = Teacher(filter or SpectralFilter(), replace(embeddings, weight=weight or 0.0))
    if filter is not None and weight is not None:
        return best
    fit, held, how = held_out(train, how, seed, sample, whole=True)
    if not len(held):
        log.warning(nothing_held(how))
        return best
    weight = tried_weight(weight, how)
    many = filter is None and weight == 0 and np.count_nonzero(train.user_degrees) >= MANY * sample
    drawn, kinds = MOST if many else sample, [how, "random"] if how == "cluster" else [how]
    if many:
        fit, held, _ = held_out(train, how, seed, drawn, whole=True)
    draws = [(fit, held), *(held_out(train, kind, seed, drawn)[:2] for kind in kinds[1:])]
    most = min(train.num_users, train.num_items)
    tried: dict[tuple[Teacher, int], float] = {}  # by a teacher and by how many users
    known: list[float] = parts.get("tries") or []  # in this order, which follows from what they found

    with progress_bars() as progress:
        learned = None
        if weight != 0:
            learned = once(parts, "embeddings", lambda: embeddings(fit, seed, progress))
        trials = [
            Trials(fit, held, _some(held, sample), learned, embeddings.temperature, seed, whole=True)
            for fit, held in draws
        ]

        def quality(candidate: Teacher) -> float:
            return weighed(candidate, tried[candidate, len(trials[0].asked)])

        def best_of(candidates: list[Teacher], said: str = "") -> Teacher:
            users = len(trials[0].asked)
            groups = alike([one for one in candidates if (one, users) not in tried])
            for number, group in enumerate(groups):
                found = known[len(tried) : len(tried) + len(group)]
                whole = len(found) == len(group)
                if not whole:
                    means = [each.by_user(group).mean(axis=0) for each in trials]
                    found = np.exp(np.mean(np.log(np.maximum(means, 1e-12)), axis=0)).tolist()
                for candidate, value in zip(group, found, strict=True):
                    tried[candidate, users] = value
                    log_try(len(tried), candidate, value)
                if not whole:
                    parts.put("tries", lambda: list(tried.values()), needed=False)
                if said:
                    progress(number + 1, len(groups), said)
            return max(candidates, key=quality)

        lines = FILTERS if filter is None else ()
        grid: list[Callable[[Teacher], list[Teacher]]] = [partial(_filters, line, most) for line in lines]
        if weight is None:
            grid.append(_weights)
        for number, line in enumerate(grid * ROUNDS):
            best = best_of(line(best))
            progress(number + 1, len(grid) * ROUNDS, "choosing the teacher")
        more = [each.asking(_some(held, MOST)) for each, (_, held) in zip(trials, draws, strict=True)]
        if many and len(more[0].asked) > len(trials[0].asked):
            trials = more
            best = best_of(_filters(near(best.filter), most, best), "choosing by more users")
            best = best_of(_filters(ranks_near(best.filter), most, best), "choosing the rank")
    said = f"{' and '.join(kinds)} validation parts" if len(kinds) > 1 else f"a {how} validation part"
    log.info(
        f"chosen on {said} of train by {len(trials[0].asked):,} users, {len(tried)} tries: {best.filter}, weight "
        f"{best.embeddings.weight:g} of embeddings; Recall + NDCG {tried.get((best, len(trials[0].asked)), 0):.4f}"
    )
    return best


def near(filter: SpectralFilter) -> list[dict[str, float]]:
    """What a filter of its rank is compared with by many users, itself first: another tail, popularity, and exponent of
    the items, which the popularity goes along with.

    >>> len(near(SpectralFilter(tail=0.0))), len(near(SpectralFilter(tail=0.4)))
    (30, 45)
    """
    found = []
    for gamma, popularity, tail in product((0.0, -0.1, 0.1), (0.0, -0.1, -0.05, 0.05, 0.1), (0.0, -0.2, 0.2)):
        values = {
            "gamma_item": filter.gamma_item + gamma,
            "popularity": filter.popularity + gamma + popularity,
            "tail": filter.tail + tail,
        }
        if filter.tail + tail >= 0:
            found.append({name: round(value, 2) for name, value in values.items()})
    return found


def ranks_near(filter: SpectralFilter) -> list[dict[str, float]]:
    """Its own rank and those beside it.

    >>> ranks_near(SpectralFilter(rank=768))
    [{'rank': 768}, {'rank': 512}]
    """
    ranks = [int(values["rank"]) for values in FILTERS[0]]
    place = min(range(len(ranks)), key=lambda at: abs(ranks[at] - filter.rank))
    beside = [rank for rank in ranks[max(place - 1, 0) : place + 2] if rank != filter.rank]
    return [{"rank": rank} for rank in (filter.rank, *beside)]


def held_out(
    train: Interactions, how: str | None, seed: int, most: int, whole: bool = False
) -> tuple[Interactions, Interactions, str]:
    """What teachers are fitted to, what they are asked for, of about ``most`` users, and how it was drawn.

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
    held = asked(held, most)
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


def asked(held: Interactions, most: int) -> Interactions:
    """Of about ``most`` users, spread over all."""
    return held.select(np.isin(held.users, _some(held, most)))


def _some(held: Interactions, most: int) -> np.ndarray:
    """About ``most`` users of it, spread over all."""
    users = np.flatnonzero(held.user_degrees)
    return users[:: max(len(users) // max(most, 1), 1)]


def _filters(line: Sequence[dict[str, float]], most: int, best: Teacher) -> list[Teacher]:
    """``best`` with each of the line's filters; ranks beyond the data's are all the same one."""
    filters = (replace(best.filter, **values) for values in line)  # type: ignore[arg-type]
    return [replace(best, filter=replace(filter, rank=min(filter.rank, most))) for filter in filters]


def _weights(best: Teacher) -> list[Teacher]:
    return [replace(best, embeddings=replace(best.embeddings, weight=weight)) for weight in WEIGHTS]
