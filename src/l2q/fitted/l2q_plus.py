"""Our best recipe: codes fitted to the rankings of a float teacher by coordinate descent."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Le
from scipy import sparse

from l2q import processes
from l2q.fitted import Fitted
from l2q.fitted.continuation import Earlier, Known
from l2q.fitted.descent import CoordinateDescent, descend, initial_state, row_minima, with_intruders
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.new_users import FilterSide
from l2q.fitted.parts import (
    NOWHERE,
    Parts,
    found,
    lists_of,
    made_of,
    of_lists,
    of_made,
    of_state,
    of_teacher,
    once,
    own_rows,
    state_of,
    teacher_of,
)
from l2q.fitted.shortcuts import Choice, choose_quickly, strongest
from l2q.fitted.state import State, to_representations
from l2q.fitted.teacher import CosineEmbeddings, Made, Teacher, TeacherIndex, TeacherScores
from l2q.fitted.trials import tail_ends
from l2q.fitted.tuning import choose_teacher
from l2q.fitted.weights import MOST_HALVINGS, MOST_POWER, PairWeights, choose_weights
from l2q.interactions import Interactions
from l2q.kernels import dense, rows
from l2q.kernels.top_lists import MEASURED, heads
from l2q.options import Count, options
from l2q.progress import Progress, progress_bars

AGAIN = 0.5  # of a quick training, for embeddings that start from codes
MOST_BITS = 8192  # the rotation before a fit takes time with their cube


class Lesson(NamedTuple):
    """What codes are fitted to: ``train`` with its ``weights``, the ``teacher`` and its ``scores``, their ``base``
    X (M, r) and Y (N, r), and the ``ranking``, every user's best unseen items with their targets, (M, N). Of several
    processes each has its own rows."""

    train: Interactions
    weights: PairWeights
    teacher: Teacher
    scores: TeacherScores
    base: tuple[np.ndarray, np.ndarray]
    ranking: sparse.csr_array


@options("model")
class L2QPlus:
    """Codes of ``bits`` and one float16 scale an item.

    The teacher is a spectral ``filter`` beside trained ``embeddings`` (``l2q.fitted.teacher``). A filter None and
    a weight None of the embeddings are chosen on a part of train that ``split`` holds out (``tuning.held_out``). The
    codes are fitted to the ``length`` best unseen items of every user by coordinate ``descent``. Users have no scale:
    a positive factor cannot change a ranking. The weight of a pair is halved ``halvings`` times over the time that
    train spans, times the rank of its value to the ``value_power`` (``l2q.fitted.weights``); None are chosen on
    held-out parts of train.
    """

    name: str
    effort: Literal["fast", "best"]
    bits: Annotated[int, Ge(1), Le(MOST_BITS)]
    filter: SpectralFilter | None
    embeddings: CosineEmbeddings
    split: Literal["random", "time", "cluster"] | None
    halvings: Annotated[float, Ge(0), Le(MOST_HALVINGS)] | None
    value_power: Annotated[float, Ge(0), Le(MOST_POWER)] | None
    descent: CoordinateDescent
    length: Count

    @dense.one_thread()
    def fit(
        self, train: Interactions, seed: int, start: Earlier | None = None, parts: Parts = NOWHERE
    ) -> Fitted:
        """``start``: an index of nearly the same events, whose codes and choice of the teacher the fit goes on from.
        ``parts``: where it finds what an earlier call with the same arguments had when it was broken off. The result
        has the same bits for any number of threads. Of several processes the first one has the codes and what is kept
        for new users; all rank by the teacher together."""
        known = None if start is None else Known.of(start, train, self.bits)
        descent = self.descent
        if known is not None:
            descent = descent.again()
        elif self.effort == "fast":
            descent = descent.quick()
        with progress_bars() as progress:
            lesson = self._lesson(train, seed, known, progress, parts)
            train, teacher, base = lesson.train, lesson.teacher, lesson.base
            lists = heads(lesson.ranking, self.length)
            if self.effort == "fast":
                base = strongest(base)
            state = self._descend(base, lists, descent, seed, train, known, progress, parts)
        weight = descent.list_weight(lists)
        beside = teacher.embeddings.weight or 0.0
        side = FilterSide.of(
            teacher.filter, lesson.scores.filter, weight, self.length, beside, lesson.weights, train.weights
        )
        index = TeacherIndex(lesson.scores, lesson.ranking)
        return Fitted(to_representations(state), teacher, index, side)

    @dense.one_thread()
    def teach(self, train: Interactions, seed: int) -> Lesson:
        """The teacher of a fit, without the fit."""
        with progress_bars() as progress:
            return self._lesson(train, seed, None, progress, NOWHERE)

    def _lesson(
        self, train: Interactions, seed: int, known: Known | None, progress: Progress, parts: Parts
    ) -> Lesson:
        weights = self._weights(train, seed, known, parts)
        train = weights.of(train)
        teacher, ended, (svd, learned) = self._teacher(train, seed, known, progress, parts)
        scores = teacher.scores(teacher.filter(train, seed, svd, ended), learned)
        del svd  # the filter has what it needs of it
        return Lesson(train, weights, teacher, scores, *self._ranking(scores, train, progress, parts))

    def _weights(self, train: Interactions, seed: int, known: Known | None, parts: Parts) -> PairWeights:
        if known is not None:
            return known.weights(train, self.halvings, self.value_power)
        if self.halvings is not None and self.value_power is not None:
            return PairWeights(self.halvings, self.value_power)
        return PairWeights(
            **once(
                parts, "weights", lambda: asdict(choose_weights(train, seed, self.halvings, self.value_power))
            )
        )

    def _teacher(
        self, train: Interactions, seed: int, known: Known | None, progress: Progress, parts: Parts
    ) -> tuple[Teacher, bool, Made]:
        """The teacher, whether its tail ends, and what it is made of."""
        there, kept = found(parts, "teacher")
        if there:
            teacher, ended = processes.said(lambda: (kept["teacher"], kept["ended"]))
            return teacher_of(teacher), ended, made_of(kept and kept["made"])
        if self.effort == "best" and known is None:
            teacher = teacher_of(once(parts, "choice", lambda: of_teacher(choose_teacher(
                train, filter=self.filter, embeddings=self.embeddings, how=self.split, seed=seed, parts=parts,
            ))))  # fmt: skip
            ended, made = False, teacher.make(train, seed, progress)
        else:
            choice = self._choice(train, seed, known, progress, parts)
            teacher, ended, made = choice.teacher, choice.ended, choice.make(train, seed, progress)
            del choice  # the directions of the choice
        parts.put("teacher", lambda: {"teacher": of_teacher(teacher), "ended": ended, "made": of_made(made)})
        return teacher, ended, made

    def _choice(
        self, train: Interactions, seed: int, known: Known | None, progress: Progress, parts: Parts
    ) -> Choice:
        if known is None:
            return choose_quickly(
                train,
                filter=self.filter,
                embeddings=self.embeddings,
                how=self.split,
                seed=seed,
                progress=progress,
                parts=parts,
            )
        teacher = known.teacher(self.filter, self.embeddings)
        learned = known.embeddings(self.embeddings.dim) if teacher.embeddings.weight else None
        return Choice(teacher, known.directions(train, teacher.filter), learned, tail_ends(train), AGAIN)

    def _ranking(
        self, scores: TeacherScores, train: Interactions, progress: Progress, parts: Parts
    ) -> tuple[tuple[np.ndarray, np.ndarray], sparse.csr_array]:
        """The base of the scores, and every user's best items by them."""
        there, kept = found(parts, "lists")
        if there:
            norms = own_rows(kept and kept["norms"])
            return scores.filter.base(norms), lists_of(kept and kept["lists"], scores.shape[1])
        norms, base, ranking = scores.ranking(train, self.length, progress, MEASURED)
        parts.put("lists", lambda: {"norms": rows.gathered(norms), "lists": of_lists(ranking)})
        return base, ranking

    def _descend(
        self,
        base: tuple[np.ndarray, np.ndarray],
        lists: sparse.csr_array,
        descent: CoordinateDescent,
        seed: int,
        train: Interactions,
        known: Known | None,
        progress: Progress,
        parts: Parts,
    ) -> State:
        """Where the descent ends."""
        there, kept = found(parts, "rounds")
        if there:
            state = state_of(kept)
        elif known is not None:
            # what the rounds of yesterday's fit held down is not on today's lists, and would rise again in the first
            state = known.state(base, lists)
            state = with_intruders(state, base, row_minima(lists), descent.intruders, train)
        else:
            quick = self.effort == "fast"
            state = initial_state(base, lists, self.bits, descent.itq_iterations, seed, quick)
        reached, total = state, len(descent.plan)
        for reached in descend(base, lists, self.bits, descent, seed, train, state):
            progress(reached.step, total, "rounds")
            parts.put("rounds", partial(of_state, reached), needed=reached.step == total)
        return reached
