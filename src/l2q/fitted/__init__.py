"""Models that are fitted in closed form: train in, representations out, with what belongs to them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from l2q.errors import L2QError
from l2q.representations import Representations

if TYPE_CHECKING:
    from l2q.fitted.continuation import Earlier
    from l2q.fitted.new_users import FilterSide
    from l2q.fitted.parts import Parts
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


def fit(
    model: FittedModel,
    train: Interactions,
    seed: int,
    start: Earlier | None = None,
    parts: Parts | None = None,
) -> Fitted:
    """What ``model`` makes of ``train``; of a ``start``, an index of earlier events, it goes on. Raises L2QError for a
    model that cannot. ``parts``: where a model whose fit takes long keeps what it has, and finds what it had."""
    takes = inspect.signature(model.fit).parameters
    if start is not None and "start" not in takes:
        name = getattr(model, "name", type(model).__name__)
        raise L2QError(f"start: model={name} is fitted from nothing; leave start out, or take model=l2q_plus")
    given = {"start": start, "parts": parts}
    return model.fit(
        train, seed, **{name: value for name, value in given.items() if name in takes and value is not None}
    )
