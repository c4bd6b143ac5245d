"""Our best recipe: codes fitted to the rankings of a float teacher by coordinate descent."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le

from l2q.fitted import Fitted
from l2q.fitted.descent import CoordinateDescent, fit
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.new_users import FilterSide
from l2q.fitted.teacher import CosineEmbeddings, TeacherIndex
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Interactions
from l2q.kernels.top_lists import MEASURED, heads
from l2q.options import Count, options
from l2q.progress import progress_bars

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
    bits: Annotated[int, Ge(1), Le(MOST_BITS)]
    filter: SpectralFilter | None
    embeddings: CosineEmbeddings
    split: Literal["random", "cluster"]
    descent: CoordinateDescent
    length: Count

    def fit(self, train: Interactions, seed: int) -> Fitted:
        teacher = choose_teacher(
            train, filter=self.filter, embeddings=self.embeddings, how=self.split, seed=seed
        )
        with progress_bars() as progress:
            scores = teacher(train, seed, progress)
            base, ranking = scores.lists(train, self.length, progress, MEASURED)
            lists = heads(ranking, self.length)
            codes = fit(base, lists, self.bits, self.descent, seed, train, progress)
        weight = self.descent.list_weight(lists)
        side = FilterSide.of(teacher.filter, scores.filter, weight, self.length)
        return Fitted(codes, teacher, TeacherIndex(scores, ranking), side)
