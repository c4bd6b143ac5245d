"""Rows that are a user with a list of items, as a row for each item."""

from __future__ import annotations

import re

from l2q.events.profiles import Profile
from l2q.events.table import Column, Table, named, quoted
from l2q.events.vocabulary import meaning

_DICTIONARY = re.compile(r"\{[^,]*[\"'\w]\s*:\s")  # names and their values, such as {'a': 1}


def unfold(table: Table, looks: list[Profile], item: str | None) -> bool:
    """Makes ``events`` a row for every element of the one column of ``looks`` that lists items, where there is one:
    that which is named ``item``, or called by a word for items while no other is, or the second of two columns beside
    users that come once each. A list of records becomes their fields. False: nothing is unfolded."""
    lists = [one for one in looks if one.lists or one.column.type.endswith("[]")]
    lists = [one for one in lists if not all(map(_DICTIONARY.match, one.texts))]
    chosen = [one for one in lists if one.name == item] if item is not None else _items(looks, lists)
    if len(chosen) != 1:
        return False
    found, before = chosen[0], table.rows
    column, kind = named(found.name), found.column.type
    source = ".".join(
        map(named, table.connection.execute("SELECT current_database(), 'main', 'events'").fetchall()[0])
    )
    if kind.endswith("[]"):
        elements = column
    elif all(re.fullmatch(r"\[.*\]|\{.*\}|\(.*\)", text, re.DOTALL) for text in found.texts):
        elements = (
            f"coalesce(TRY_CAST({column} AS JSON)::VARCHAR[], "
            f"list_transform(string_split(trim({column}, '[](){{}}, '), ','), lambda x: trim(x, ' ''\"')))"
        )
    else:
        counts = {mark: sum(mark in text for text in found.texts) for mark in ";|,"}
        mark = next((mark for mark, count in counts.items() if 2 * count > len(found.texts)), "")
        pattern = rf"\s*[{mark}]\s*" if mark else r"\s+"
        elements = f"regexp_split_to_array(trim({column}, ' {{}}'), {quoted(pattern)})"
    rows = f"SELECT * EXCLUDE ({column}), unnest({elements}) AS {column} FROM {source}"
    rest = ", ".join(named(one.name) for one in looks if one is not found)
    table.views.append(f"CREATE TEMP VIEW unfolded AS {rows}")
    table.connection.execute(table.views[-1])
    if kind.startswith("STRUCT"):
        fields = table.connection.execute(
            f"DESCRIBE SELECT unnest({column}) FROM unfolded LIMIT 0"
        ).fetchall()
        inner = ", ".join(f"{column}.{named(name)} AS {named(f'{found.name}.{name}')}" for name, *_ in fields)
    else:
        inner = column
    table.views.append(f"CREATE TEMP VIEW events AS SELECT {rest}, {inner} FROM unfolded")
    table.connection.execute(table.views[-1])
    table.__dict__.pop("rows")
    roles = {old.name: old for old in table.columns}
    described = table.connection.execute("DESCRIBE SELECT * FROM events").fetchall()
    table.columns = tuple(
        Column(name, kind, old.role, old.index) if (old := roles.get(name)) else Column(name, kind)
        for name, kind, *_ in described
    )
    table.notes.append(f"{before:,} rows list {table.rows:,} events in {found.name!r}: each element is one")
    return True


def _items(looks: list[Profile], lists: list[Profile]) -> list[Profile]:
    """The columns of ``lists`` that may be the items."""
    if any(meaning(one.name).roles.get("item", 0) >= 2 for one in looks if one not in lists):
        return []
    called = [one for one in lists if meaning(one.name).roles.get("item", 0) >= 2]
    if called:
        return called
    records = [one for one in lists if one.column.type.startswith("STRUCT")]
    pair = len(looks) == 2 and all(one.each_its_own for one in looks if one not in lists)
    return records or (lists if pair else [])
