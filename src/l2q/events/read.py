"""The one way from a table of events to interactions."""

from __future__ import annotations

from typing import Any

from scipy import sparse

from l2q import processes
from l2q.errors import L2QError
from l2q.events import shares
from l2q.events.cleaning import clean
from l2q.events.columns import recognize
from l2q.events.containers import open_table
from l2q.events.matrices import of_matrix
from l2q.interactions import Interactions


def read_events(
    source: Any,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    value: str | int | None = None,
    where: str | None = None,
    min_value: float | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    missing: str = "error",
    dedupe: str = "first",
    query: str | None = None,
    day_first: bool | None = None,
) -> Interactions:
    """Which user has which items, by name, from a table of events: a file or a folder of parts (CSV, JSON lines,
    Parquet, packed or not), a pandas, polars or Arrow table, a database, or a SciPy sparse matrix of users x items
    (rows and columns are the names, entries that are not zero the events, and their values).

    Columns are found by their names and values. ``user``, ``item``, ``time`` and ``value`` name them, or give their
    numbers from 1; "none" as ``time`` or ``value``: there is none to read. ``where`` keeps the rows for which an SQL
    expression over the columns is true, ``min_value`` those with at least that value. ``missing``: rows without user
    or item are an "error", or "drop" or "keep" them. ``dedupe``: of a repeated pair the "first" or the "last" event
    counts. ``header``, ``delimiter``, ``encoding`` and ``query`` say how the source is read (see ``open_table``), and
    ``day_first`` how dates such as 01/12/2010 are, where no row tells.

    The result's ``reading`` says what was found, left out and merged, and what looks odd. Raises L2QError, in one
    line that names the option that settles it, for what cannot be read, where columns are in doubt, and where values
    say that events are no likes.

        events = l2q.read_events("ratings.csv", min_value=4)
        print(*events.reading.lines(), sep="\\n")
    """
    if min_value is not None and not isinstance(min_value, int | float):
        raise L2QError(f"min_value={min_value!r} is no number")
    for option, given in (
        ("where", where),
        ("delimiter", delimiter),
        ("encoding", encoding),
        ("query", query),
    ):
        if given is not None and not isinstance(given, str):
            raise L2QError(f"{option}={given!r} is no text")
    for option, truth in (("header", header), ("day_first", day_first)):
        if truth not in (None, True, False):
            raise L2QError(f"{option}={truth!r} is neither True nor False")
    if sparse.issparse(source):
        others = (user, item, time, where, header, delimiter, encoding, query, day_first)
        if any(option is not None for option in others):
            raise L2QError("a sparse matrix has users for rows and items for columns, and no other names")
        return of_matrix(source, value, min_value)
    with processes.agreed(
        lambda: open_table(source, header=header, delimiter=delimiter, encoding=encoding, query=query)
    ) as table:
        roles = shares.recognized(
            table, lambda: recognize(table, user=user, item=item, time=time, value=value)
        )
        return clean(
            table,
            roles,
            where=where,
            min_value=min_value,
            missing=missing,
            dedupe=dedupe,
            day_first=day_first,
        )
