"""Models that are fitted in closed form: train in, representations out, with what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from l2q.representations import Representations

if TYPE_CHECKING:
    from l2q.fitted.new_users import FilterSide
    from l2q.fitted.teacher import Teacher, TeacherIndex
    from l2q.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit gives. Of codes also ``teacher``, whose scores they were fitted to, with ``teacher_index``, those
    scores behind the search protocol; and ``filter_side``, what codes of users who come later are fitted to."""

    representations: Representations
    teacher: Teacher | None = None
    teacher_index: TeacherIndex | None = None
    filter_side: FilterSide | None = None


@runtime_checkable
class FittedModel(Protocol):
    """A model without epochs: ``fit(train, seed)`` is all of it."""

    def fit(self, train: Interactions, seed: int) -> Fitted: ...
