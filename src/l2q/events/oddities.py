"""What looks odd in the events of a table: a sentence each, with figures."""

from __future__ import annotations

from l2q.errors import L2QError
from l2q.events.columns import Roles
from l2q.events.table import Table
from l2q.interactions import Interactions

ENOUGH = 20  # events below which nothing is odd
FEW = 5  # items in all that are hardly a catalog


def judge(table: Table, roles: Roles, events: Interactions, count: int, notes: list[str]) -> None:
    """Adds to ``notes`` what is odd of the ``count`` events. Raises L2QError where every event has its own user, or
    all have one user and one item."""
    users, items, pairs = events.num_users, events.num_items, len(events)
    user, item = roles.user.name, roles.item.name
    if users == items == 1 and not {"user", "item"} <= roles.named:
        raise L2QError(
            f"{table.where}: there is one user in all, column {user!r}, and one item, column {item!r}: this is no "
            "table of events, or user=COLUMN and item=COLUMN name others"
        )
    if count < ENOUGH:
        return
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
    if items <= FEW:
        notes.append(f"there are {items:,} items in all, column {item!r}; are these the items?")
    density = pairs / (users * items)
    if density > 0.5 and users > 1 and items > 1:
        notes.append(f"users have {density:.0%} of all items on average; are all of these likes?")
    if count - pairs > 0.01 * count:
        notes.append(
            f"{count - pairs:,} of {count:,} events repeat a pair of user and item ({(count - pairs) / count:.0%})"
        )
