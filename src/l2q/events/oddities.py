"""What looks odd in the events of a table: a sentence each, with figures."""

from __future__ import annotations

import numpy as np

from l2q.errors import L2QError
from l2q.events.columns import Roles
from l2q.events.likes import quote
from l2q.events.table import Table, plain_name, quoted
from l2q.events.vocabulary import plain, words
from l2q.interactions import Interactions

ENOUGH = 20  # events below which nothing is odd
SUMS = words("values", "sum")
FEW = 5  # items in all that are hardly a catalog


def judge(table: Table, roles: Roles, events: Interactions, count: int) -> list[str]:
    """What is odd of the ``count`` events. Raises L2QError where every event has its own user, or
    all have one user and one item."""
    users, items, pairs = events.num_users, events.num_items, len(events)
    user, item = roles.user.name, roles.item.name
    if users == items == 1 and not {"user", "item"} <= roles.named:
        raise L2QError(
            f"{table.where}: there is one user in all, column {user!r}, and one item, column {item!r}: this is no "
            "table of events, or user=COLUMN and item=COLUMN name others"
        )
    notes: list[str] = []
    if count < ENOUGH:
        return notes
    bare = not table.header and not {"user", "item"} & roles.named
    odd = []
    if items > 0.95 * count:
        odd = [f"nearly every row has an item of its own ({items:,} in {count:,} rows)"]
    elif min(users, items) <= FEW and count - pairs > 0.3 * count:
        odd = [f"there are {users:,} users and {items:,} items in all"]
    elif events.times is None and roles.value is None and count - pairs > 0.5 * count:
        odd = [f"{count - pairs:,} of {count:,} rows repeat a pair of user and item"]
    if bare and odd:
        raise L2QError(
            f"{table.where} has no names of columns, and with {user!r} as users and {item!r} as items {odd[0]}: name "
            "the columns by number, such as user=1 and item=2"
        )
    if users > 0.99 * count:
        what = f"nearly every event has a user of its own: {users:,} in {count:,} events, column {user!r}"
        if "user" not in roles.named:
            raise L2QError(
                f"{table.where}: {what}, so there is nothing to learn; name the users with user=COLUMN"
            )
        notes.append(what)
    if users == 1:
        notes.append(f"there is one user in all, {events.user_names[0]!r}, column {user!r}")  # type: ignore[index]
    if items > 0.95 * count:
        notes.append(
            f"nearly every event has an item of its own: {items:,} in {count:,} events, column {item!r}"
        )
    if 1 < users <= FEW:
        notes.append(f"there are {users:,} users in all, column {user!r}; are these the users?")
    if items <= FEW:
        notes.append(f"there are {items:,} items in all, column {item!r}; are these the items?")
    for side, names, column in (("user", events.user_names, user), ("item", events.item_names, item)):
        for name in filter(_sums_up, [] if names is None else names):
            notes.append(
                f"{name!r} is taken for {'an item' if side == 'item' else 'a user'}, as if it were no sum of other "
                f"rows; where={_without(column, name)} leaves it out"
            )
    density = pairs / (users * items)
    assert events.counts is not None
    events_of = np.add.reduceat(events.counts, events.indptr[:-1], dtype=np.int64)  # each user has some
    most = int(events_of.argmax())
    if users > FEW and events_of[most] > max(0.1 * count, 10 * np.median(events_of)):
        name = events.user_names[most]  # type: ignore[index]
        notes.append(
            f"one user, {name!r}, has {events_of[most]:,.0f} of {count:,} events; where={_without(user, name)} leaves "
            "out a name that stands for many"
        )
    if density > 0.5 and users > 1 and items > 1:
        notes.append(f"users have {density:.0%} of all items on average; are all of these likes?")
    if count - pairs > 0.01 * count:
        notes.append(
            f"{count - pairs:,} of {count:,} events repeat a pair of user and item ({(count - pairs) / count:.0%})"
        )
    return notes


def _sums_up(name: str) -> bool:
    """Whether a name is that of a row of sums, such as "Grand Total"."""
    if len(name) > 24 or name[-1:].isdigit():  # most ids, at once
        return False
    found = set(plain(name).replace(":", " ").replace("-", " ").split())
    return bool(found) and found <= SUMS


def _without(column: str, name: str) -> str:
    return quote(f"{plain_name(column)} <> {quoted(name)}")
