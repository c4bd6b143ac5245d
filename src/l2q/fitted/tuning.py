"""A short validation grid for a set that nobody tuned for: which teacher of its codes suits it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from l2q.data.splits import split
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
ROUNDS = 2  # in the second, every line is tried beside the best of the others


def choose_teacher(
    train: Interactions,
    *,
    embeddings: CosineEmbeddings,
    filter: SpectralFilter | None = None,
    how: str = "random",
    sample: int = 4000,
    seed: int = 0,
    parts: Parts = NOWHERE,
) -> Teacher:
    """The teacher with the best Recall + NDCG at 20 (``deciding_cutoff``) on a tenth of train, one line of
    ``FILTERS`` and ``WEIGHTS`` after the other, twice over, for about ``sample`` users spread over all. A ``filter``
    that is given stays, and so does a weight of the ``embeddings``, which is 0 unless they bring 1 %. Test plays no
    part. Every try is logged. Where no user has enough items for a validation part, the default filter alone. Tries and
    embeddings are kept as ``parts``."""
    weight = embeddings.weight
    best = Teacher(filter or SpectralFilter(), replace(embeddings, weight=weight or 0.0))
    if filter is not None and weight is not None:
        return best
    _, val = split(train, how, fraction=0.15 if how == "cluster" else 0.1, seed=seed)
    users = np.flatnonzero(val.user_degrees)
    if not len(users):
        log.warning(
            f"no user has enough items for a {how} validation part that would choose the filter: the default one"
        )
        return best
    # what users who are not asked would give stays in the graph, which should be like the one that codes are fitted to
    val = val.select(np.isin(val.users, users[:: max(len(users) // sample, 1)]))
    fit = train.select(~np.isin(train.keys, val.keys))

    most = min(train.num_users, train.num_items)
    svds: dict[tuple[float, float], SVD] = {}
    tried: dict[Teacher, float] = {}
    known: list[float] = parts.get("tries") or []  # in this order, which follows from what they found

    with progress_bars() as progress:
        learned = None
        if weight != 0:
            learned = once(parts, "embeddings", lambda: embeddings(fit, seed, progress))

        def quality(candidate: Teacher) -> float:
            if candidate not in tried and len(tried) < len(known):
                tried[candidate] = known[len(tried)]
            if candidate not in tried:
                gammas = candidate.filter.gamma_user, candidate.filter.gamma_item
                if gammas not in svds:
                    rank = min(max(SpectralFilter.rank, candidate.filter.rank), most)
                    svds[gammas] = truncated_svd(normalize(fit, *gammas), rank, seed)
                index = TeacherIndex(candidate.scores(candidate.filter(fit, seed, svds[gammas]), learned))
                found = evaluate(index, val, [deciding_cutoff(train.num_items)], fit, memory_mb=256).metrics
                tried[candidate] = sum(
                    value for key, value in found.items() if key.startswith(("recall", "ndcg"))
                )
                log_tries.info(
                    f"teacher try {len(tried)}: Recall + NDCG {tried[candidate]:.4f} with {candidate.filter}, "
                    f"weight {candidate.embeddings.weight:g} of embeddings"
                )
                parts.put("tries", lambda: list(tried.values()), needed=False)
            return tried[candidate] if candidate.embeddings.weight else GAIN * tried[candidate]

        lines = FILTERS if filter is None else ()
        grid: list[Callable[[Teacher], list[Teacher]]] = [partial(_filters, line, most) for line in lines]
        if weight is None:
            grid.append(_weights)
        for number, line in enumerate(grid * ROUNDS):
            best = max(line(best), key=quality)
            progress(number + 1, len(grid) * ROUNDS, "choosing the teacher")
    log.info(
        f"chosen on a {how} validation part of train, {len(tried)} tries: {best.filter}, "
        f"weight {best.embeddings.weight:g} of embeddings; Recall + NDCG {tried.get(best, 0):.4f}"
    )
    return best


def _filters(line: Sequence[dict[str, float]], most: int, best: Teacher) -> list[Teacher]:
    """``best`` with each of the line's filters; ranks beyond the data's are all the same one."""
    filters = (replace(best.filter, **values) for values in line)  # type: ignore[arg-type]
    return [replace(best, filter=replace(filter, rank=min(filter.rank, most))) for filter in filters]


def _weights(best: Teacher) -> list[Teacher]:
    return [replace(best, embeddings=replace(best.embeddings, weight=weight)) for weight in WEIGHTS]
