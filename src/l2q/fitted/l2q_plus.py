"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import sparse

from l2q.errors import check_whole
from l2q.fitted.descent import CoordinateDescent, fit
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.new_users import FilterSide
from l2q.fitted.teacher import CosineEmbeddings, Teacher, TeacherScores
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Interactions
from l2q.kernels.top_lists import LENGTH, MEASURED, heads
from l2q.progress import steps


class Start(tuple[np.ndarray, np.ndarray]):
    """Both sides of E^(0); the teacher, its scores and every user's best items by them, whose first the codes were
    fitted to; and what an index keeps of the teacher's filter for users who come later."""

    teacher: Teacher
    scores: TeacherScores
    lists: sparse.csr_array
    filter_side: FilterSide


@dataclass(frozen=True)
class FittedCodes:
    """Codes of ``dim`` bits fitted to the scores of a teacher by coordinate descent.

    Row scales of the quantizer give them back to the bit: items are codes times their scales, users plain
    codes, since a user's scale cannot change a ranking.
    """

    teacher: Teacher = field(default_factory=Teacher)
    descent: CoordinateDescent = field(default_factory=CoordinateDescent)
    length: int = LENGTH

    def __post_init__(self) -> None:
        check_whole("initialization.length", self.length, 1)

    def __call__(self, train: Interactions, dim: int, seed: int) -> Start:
        with steps() as progress:
            scores = self.teacher(train, seed, progress)
            base, ranking = scores.lists(train, self.length, progress, MEASURED)
            lists = heads(ranking, self.length)
            codes = fit(base, lists, replace(self.descent, bits=dim), seed, train, progress)
        assert codes.items.scales is not None
        start = Start((codes.users.values.astype(np.float32), codes.items.values * codes.items.scales))
        weight = self.descent.list_weight(lists)
        start.teacher, start.scores, start.lists = self.teacher, scores, ranking
        start.filter_side = FilterSide.of(self.teacher.filter, scores.filter, weight, self.length)
        return start


@dataclass(frozen=True)
class TunedCodes:
    """``FittedCodes`` of a teacher. ``filter`` or the weight of ``embeddings`` None: as ``choose_teacher`` picks it
    on train alone."""

    filter: SpectralFilter | None = None
    embeddings: CosineEmbeddings = field(default_factory=CosineEmbeddings)
    split: str = "random"
    descent: CoordinateDescent = field(default_factory=CoordinateDescent)
    length: int = LENGTH

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        teacher = choose_teacher(
            train, filter=self.filter, embeddings=self.embeddings, split=self.split, seed=seed
        )
        return FittedCodes(teacher, self.descent, self.length)(train, dim, seed)
