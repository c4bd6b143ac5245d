"""The k-core of a split: users and items with enough events to learn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions, name_array


def core(train: Interactions, test: Interactions, min_events: int) -> tuple[Interactions, Interactions, str]:
    """Both parts without the users and items that have fewer than ``min_events`` pairs in train, and what left.

    A user who leaves takes pairs from items, and the other way round, so this goes on until nothing leaves. Test is
    never counted, or it would settle what it is measured on; its pairs of users and items that leave, leave with them.
    Of users without train items (``given``) the given pairs are counted. Remaining ids are renumbered in order.

    Raises L2QError for a number below 1, and where no train pair is left.
    """
    if min_events < 1:
        raise L2QError(f"min_events={min_events} must be a whole number of at least 1")
    if min_events == 1:
        return train, test, ""
    given = test.given
    users, items = np.ones(train.num_users, bool), np.ones(train.num_items, bool)
    pairs, brought = (train.users, train.items), (given.users, given.items) if given is not None else None
    while True:
        user_degrees = np.bincount(pairs[0], minlength=len(users))
        if brought is not None:
            user_degrees += np.bincount(brought[0], minlength=len(users))
        next_users = users & (user_degrees >= min_events)
        next_items = items & (np.bincount(pairs[1], minlength=len(items)) >= min_events)
        if (next_users == users).all() and (next_items == items).all():
            break
        users, items = next_users, next_items
        pairs = _within(pairs, users, items)
        brought = None if brought is None else _within(brought, users, items)
    if not len(pairs[0]):
        raise L2QError(f"min_events={min_events} leaves no train pair; give a lower number")
    kept = [_kept(part, users, items) for part in (train, test)]
    if given is not None:
        kept[1] = replace(kept[1], given=_kept(given, users, items))
    gone = [len(before) - len(after) for before, after in zip((train, test), kept, strict=True)]
    left_out = (
        f"min_events={min_events} leaves out {int((~users).sum()):,} users and {int((~items).sum()):,} items "
        f"with {gone[0]:,} train and {gone[1]:,} test pairs"
    )
    return kept[0], kept[1], left_out


def _within(
    pairs: tuple[np.ndarray, np.ndarray], users: np.ndarray, items: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    inside = users[pairs[0]] & items[pairs[1]]
    return pairs[0][inside], pairs[1][inside]


def _kept(part: Interactions, users: np.ndarray, items: np.ndarray) -> Interactions:
    """The pairs of the users and items where the masks are true, under new ids; names that were ids become names."""
    inside = part.select(users[part.users] & items[part.items])
    new_ids = np.cumsum(items) - 1
    names = [
        name_array([str(number) for number in np.flatnonzero(mask)]) if given is None else given[mask]
        for mask, given in ((users, part.user_names), (items, part.item_names))
    ]
    return replace(
        inside,
        indptr=np.concatenate(([0], np.cumsum(inside.user_degrees[users]))),
        items=new_ids[inside.items].astype(np.int32),
        num_items=int(items.sum()),
        user_names=names[0],
        item_names=names[1],
    )
