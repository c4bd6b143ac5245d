"""Names that a question has: whether the index knows them, and what to say of them before the answer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from l2q.errors import L2QError

if TYPE_CHECKING:
    from l2q.retrieval.named import Index


def check_user(index: Index, name: str) -> None:
    """Raises L2QError for a name that no user has, with the names near it; warns where several have it."""
    _row(index, "users", name, "")


def check_item(index: Index, name: str, advice: str = "") -> None:
    """The same for an item; warns too where no user of train has the item. ``advice`` ends the error's line."""
    row, degrees = _row(index, "items", name, advice), index.arrays["items.degrees"]
    if degrees.any() and not degrees[row]:
        warnings.warn(f"no user of train has {name!r}: a ranking by it means nothing", stacklevel=2)


def split(names: str | None) -> list[str]:
    """``A,B,C`` in parts, without empty ones."""
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _row(index: Index, side: str, name: str, advice: str) -> int:
    try:
        row = index.row(side, name)
    except L2QError as error:
        raise L2QError(f"{error}{advice}") from None
    names = index.user_names if side == "users" else index.item_names
    if (count := names.count(name)) > 1:
        warnings.warn(f"{count} {side} are named {name!r}; the first, row {row}, is taken", stacklevel=3)
    return row
