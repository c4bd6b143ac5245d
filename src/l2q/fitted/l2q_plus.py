"""Our best recipe: codes fitted to the rankings of a float teacher by coordinate descent."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from l2q.fitted import Fitted
from l2q.fitted.continuation import Earlier, Known
from l2q.fitted.descent import CoordinateDescent, fit
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.new_users import FilterSide
from l2q.fitted.shortcuts import Choice, choose_quickly, tail_ends
from l2q.fitted.teacher import CosineEmbeddings, TeacherIndex
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Interactions
from l2q.kernels.top_lists import MEASURED, heads
from l2q.options import Count, options
from l2q.progress import Progress, progress_bars

AGAIN = 0.5  # of a quick training, for embeddings that start from codes
MOST_BITS = 8192  # the rotation before a fit takes time with their cube


@options("model")
class L2QPlus:
    """Codes of ``bits`` and one float16 scale an item.

    The teacher is a spectral ``filter`` beside trained ``embeddings`` (``l2q.fitted.teacher``). A filter None and
    a weight None of the embeddings are chosen on a validation part of train, drawn by ``split``. The codes are fitted
    to the ``length`` best unseen items of every user by coordinate ``descent``. Users have no scale: a positive factor
    cannot change a ranking.
    """

    name: str
    effort: Literal["fast", "best"]
    bits: Annotated[int, Ge(1), Le(MOST_BITS)]
    filter: SpectralFilter | None
    embeddings: CosineEmbeddings
    split: Literal["random", "cluster"]
    descent: CoordinateDescent
    length: Count

    def fit(self, train: Interactions, seed: int, start: Earlier | None = None) -> Fitted:
        """``start``: an index of nearly the same events, whose codes and choice of the teacher the fit goes on from."""
        known = None if start is None else Known.of(start, train, self.bits)
        descent, state = self.descent, None
        with progress_bars() as progress:
            if self.effort == "best" and known is None:
                teacher = choose_teacher(
                    train, filter=self.filter, embeddings=self.embeddings, how=self.split, seed=seed
                )
                scores = teacher(train, seed, progress)
            else:
                choice = self._choice(train, seed, known, progress)
                teacher, scores = choice.teacher, choice.scores(train, seed, progress)
                descent = descent.quick() if known is None else descent.again()
            base, ranking = scores.lists(train, self.length, progress, MEASURED)
            lists = heads(ranking, self.length)
            if known is not None:
                state = known.state(base, lists)
            codes = fit(base, lists, self.bits, descent, seed, train, progress, state)
        weight = descent.list_weight(lists)
        beside = teacher.embeddings.weight or 0.0
        side = FilterSide.of(teacher.filter, scores.filter, weight, self.length, beside)
        return Fitted(codes, teacher, TeacherIndex(scores, ranking), side)

    def _choice(self, train: Interactions, seed: int, known: Known | None, progress: Progress) -> Choice:
        if known is None:
            return choose_quickly(
                train,
                filter=self.filter,
                embeddings=self.embeddings,
                how=self.split,
                seed=seed,
                progress=progress,
            )
        teacher = known.teacher(self.filter, self.embeddings)
        learned = known.embeddings(self.embeddings.dim) if teacher.embeddings.weight else None
        return Choice(teacher, known.directions(train, teacher.filter), learned, tail_ends(train), AGAIN)
