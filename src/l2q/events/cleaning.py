"""From the rows of a table to interactions: what is left out, what is merged, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from l2q import exchange, processes
from l2q.errors import L2QError
from l2q.events import likes, oddities, shares
from l2q.events.columns import Roles
from l2q.events.conditions import Condition, condition
from l2q.events.names import KEPT, Names, names
from l2q.events.rows import Rows, clock_of, counted, read_rows
from l2q.events.table import Table
from l2q.events.vocabulary import meaning
from l2q.interactions import Interactions, Reading

EARLY, LATE = 315_532_800, 4_133_980_800  # seconds from 1970 to 1980 and to 2101
MISSING = ("error", "drop", "keep")
DEDUPE = ("first", "last")


@dataclass
class _Cleaning:
    """Which rows are kept so far, why the others are not, and what is said of them."""

    kept: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def drop(self, reason: str, rows: np.ndarray) -> None:
        count = processes.total(np.count_nonzero(rows & self.kept))
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
            self.kept &= ~rows


def clean(
    table: Table,
    roles: Roles,
    *,
    where: str | None = None,
    min_value: float | None = None,
    missing: str = "error",
    dedupe: str = "first",
    day_first: bool | None = None,
) -> Interactions:
    """The interactions of a table whose columns are known, with ``reading``.

    In this order rows are left out: repeated headers, those that ``where`` leaves out, those without user or item
    (``missing``), those with a value below ``min_value``. Ids follow the sorted names; of a repeated pair the first
    event is kept, or the last (``dedupe``), by time where it is known, else by row.

    Raises L2QError where rows without user or item remain, where values say that events are no likes, and where
    nothing remains.
    """
    for option, given, choices in (
        ("missing", missing, MISSING),
        ("dedupe", dedupe, DEDUPE),
    ):
        if given not in choices:
            raise L2QError(f"{option}={given!r} is none of {', '.join(choices)}")
    value = roles.value
    if min_value is not None and (value is None or not (value.numeric or likes.truth(value.kinds))):
        has = f"{value.name!r} holds texts" if value is not None else "no column of values was found"
        raise L2QError(
            f"{table.where}: min_value={min_value:g} needs numbers to compare with, but {has}; name a column of "
            "numbers with value=COLUMN, or say which events count with where="
        )
    rule, watch = processes.told(
        lambda: (
            condition(table, where) if where and where.strip() else None,
            clock_of(table, roles, day_first),
        )
    )
    rows = processes.agreed(lambda: read_rows(table, roles, rule, watch))
    total = processes.total(len(rows))
    work = _Cleaning(np.ones(len(rows), bool), dict(table.dropped), [*table.notes, *roles.notes])
    header = _repeated_header(table, roles, rows, work)
    if rule is not None:
        work.drop("where= leaves out", ~rows.kept)
        if not processes.anywhere(work.kept.any()):
            raise L2QError(f"{table.where}: where={where!r} leaves no row of {total:,}")
    sides = []
    for position, (role, side) in enumerate((("user", rows.users), ("item", rows.items))):
        present = np.bincount(side.codes[work.kept], minlength=len(side.values)) > 0
        sides.append(names(role, side.values, present, header and header[position]))
    _without(roles, rows, sides, missing, work)
    _values(roles, rows, rule, min_value, work)
    if work.doubts:
        raise L2QError(f"{table.where}: {'; and '.join(work.doubts)}")
    if not processes.anywhere(work.kept.any()):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in work.dropped.items())
        raise L2QError(f"{table.where}: no row of {total:,} remains ({reasons})")
    return _interactions(table, roles, rows, total, sides, dedupe, work)


def _repeated_header(
    table: Table, roles: Roles, rows: Rows, work: _Cleaning
) -> tuple[int | None, int | None] | None:
    """Drops lines of joined files that repeat the header; the codes of the two names in it."""
    texts = all(profile.column.type.upper() == "VARCHAR" for profile in (roles.user, roles.item))
    if not table.header or not texts:
        return None
    codes = []
    for profile, side in ((roles.user, rows.users), (roles.item, rows.items)):
        found = {side.values[code].as_py(): code for code in reversed(side.where(profile.name))}
        # as the first of them is spelled
        spelled = [text for texts in processes.everyone([*reversed(found)]) for text in texts]
        if not spelled:
            return None
        codes.append(found.get(spelled[0], -1))
    both = (rows.users.codes == codes[0]) & (rows.items.codes == codes[1])
    if not processes.anywhere(both.any()):
        return None
    work.drop("repeated header", both)
    alone = []
    for code, side in zip(codes, (rows.users, rows.items), strict=True):
        only = processes.everywhere(np.array_equal(side.codes == code, both))
        alone.append(code if only and code >= 0 else None)
    return alone[0], alone[1]


def _without(roles: Roles, rows: Rows, sides: Sequence[Names], missing: str, work: _Cleaning) -> None:
    """Rows without user or item: refused, dropped or kept."""
    said, kept = [], []
    for role, side, found in zip(("user", "item"), (rows.users, rows.items), sides, strict=True):
        counts = np.bincount(side.codes[work.kept], minlength=len(found.of))
        spelled = counted((text, int(counts[code])) for code, text in found.spelled.items())
        if not spelled:
            continue
        total = sum(spelled.values())
        column = getattr(roles, role).name
        how = ", ".join(
            f"{count:,} {text}" for text, count in sorted(spelled.items(), key=lambda pair: -pair[1])
        )
        said.append(
            f"{total:,} of {processes.total(work.kept.sum()):,} rows have no {role} in {column!r} ({how})"
        )
        kept.append(f"{total:,} rows without {role} are kept ({how})")
        if missing == "drop":
            code = np.zeros(len(found.of), bool)
            code[list(found.spelled)] = True
            work.drop(f"without {role}", code[side.codes])
    if said and missing == "error":
        work.doubts.append(
            f"{' and '.join(said)}; missing=drop leaves them out, missing=keep takes each spelling for a name"
        )
    if kept and missing == "keep":
        work.notes += [f"{note}, those that are empty as {KEPT!r}" for note in kept]


def _values(
    roles: Roles, rows: Rows, rule: Condition | None, min_value: float | None, work: _Cleaning
) -> None:
    """What the values say of events: those below ``min_value`` go, no's among likes are refused, the rest is noted."""
    read = rule.columns if rule else frozenset()
    spoken = min_value is not None
    doubts: list[str] = []
    if roles.value is not None:
        name = roles.value.name
        if min_value is not None and rows.values is not None:
            work.drop(f"without {name}", np.isnan(rows.values))
            work.drop(f"{name} below {min_value:g}", ~(rows.values >= min_value))
        doubt: str | None = None
        note: str | None = None
        if rows.values is not None:
            values = rows.values[work.kept]
            unread, count = processes.total(np.isnan(values).sum()), processes.total(len(values))
            if unread and unread < count:
                work.notes.append(f"{unread:,} of {count:,} rows have no number in {name!r}")
            kinds = roles.value.kinds if likes.truth(roles.value.kinds) else {}
            yes = next((kind for kind in kinds if likes.YES[kind.lower()]), None)
            doubt, note = likes.of_numbers(name, meaning(name).core, values, yes)
        elif rows.kinds is not None:
            doubt, note = likes.of_kinds(name, rows.kinds.counts(work.kept))
        if doubt and not spoken and name not in read:
            doubts.append(doubt)
        if note and not (spoken and doubt is None and rows.values is not None):
            work.notes.append(note)
    for flag, hits in rows.flags:
        count = processes.total(np.count_nonzero(hits & work.kept))
        if count and not spoken and flag.column not in read and "value" not in roles.named:
            expression = f'where="{flag.keep}"'
            doubts.append(
                f"{count:,} rows have {flag.column!r} {flag.what} and would count as likes; {expression} leaves them "
                "out, value=none takes all alike" if not doubts else f"{count:,} rows have {flag.column!r} {flag.what}"
            )  # fmt: skip
        elif count:
            work.notes.append(f"{count:,} rows have {flag.column!r} {flag.what}")
    work.doubts += doubts


def _interactions(
    table: Table,
    roles: Roles,
    rows: Rows,
    total: int,
    sides: Sequence[Names],
    dedupe: str,
    work: _Cleaning,
) -> Interactions:
    """Pairs of sorted names, and beside them time, value and number of their events."""
    own = int(np.count_nonzero(work.kept))
    events = processes.total(own)
    chosen = work.kept if own < len(rows) else slice(None)
    ids, found = [], []
    for side, known in zip((rows.users, rows.items), sides, strict=True):
        every = known.of[side.codes[chosen]]
        present = np.bincount(every, minlength=len(known.found)) > 0
        numbers, names_of_all = shares.numbered(known.found, present)
        found.append(names_of_all)
        ids.append(numbers[every])
        work.notes += known.notes
    times = rows.times[chosen] if rows.times is not None else None
    if times is not None and roles.time is not None:
        unread = processes.total(np.isnan(times).sum())
        if unread == events:
            times = None
        if unread:
            work.notes.append(
                f"{unread:,} of {events:,} rows have no time that can be read in {roles.time.name!r}"
            )
        if times is not None and rows.clock and rows.clock.form != "numbers as they are":
            work.notes += _far(times, events, roles.time.name)
        if rows.clock and rows.clock.order == "?":
            work.notes.append(
                f"{roles.time.name!r} may have the day or the month first, and no row tells: months are taken as "
                "first; day_first=true takes days, day_first=false says that this is right"
            )
    values = rows.values[chosen] if rows.values is not None else None
    if values is not None and processes.everywhere(np.isnan(values).all()):
        values = None
    sizes = len(found[0]), len(found[1])
    keys, (times, values) = shares.by_user(ids[0], ids[1], *sizes, times, values)
    kept, counts = _unique(keys, times, dedupe)
    users, items = np.divmod(keys[kept], sizes[1])
    indptr = np.zeros(sizes[0] + 1, np.int64)
    first, end = shares.own(sizes[0])
    np.cumsum(exchange.joined(np.bincount(users - first, minlength=end - first)), out=indptr[1:])
    result = Interactions(
        indptr,
        exchange.joined(items.astype(np.int32)),
        sizes[1],
        found[0],
        found[1],
        None if times is None else exchange.joined(times[kept]),
        None if values is None else exchange.joined(values[kept].astype(np.float32)),
        exchange.joined(counts.astype(np.int32)),
        ahead=times is not None,
    )
    notes = processes.told(lambda: oddities.judge(table, roles, result, events))
    reading = Reading(
        table.where,
        {role: profile.name for role, profile in roles.chosen().items()},
        roles.unread,
        total + sum(table.dropped.values()),
        work.dropped,
        events - len(result),
        tuple(dict.fromkeys(work.notes + notes)),
    )
    return replace(result, reading=reading)


def _far(times: np.ndarray, events: int, column: str) -> list[str]:
    """Notes of some times that lie where others do not: sentinels, or numbers in another unit."""
    found = []
    for far, what in ((times < EARLY, "before 1980"), (times >= LATE, "after 2100")):
        count = processes.total(far.sum())
        if 0 < count < events:
            found.append(
                f"{count:,} of {events:,} rows have a time {what} in {column!r}, in another unit or in place of "
                "none; where= leaves rows out"
            )
    return found


def _unique(keys: np.ndarray, times: np.ndarray | None, dedupe: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the event of every pair stands, pairs ascending, and how many events each has. O(n) beside one sort."""
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(keys)
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    counts = np.diff(np.append(starts, len(keys)))
    # The sort keeps no order among equal keys; the least or greatest row of each is found again.
    kept = (np.minimum if dedupe == "first" else np.maximum).reduceat(order, starts)
    if times is not None and len(starts) < len(keys):
        several = np.repeat(counts > 1, counts)
        rows = order[several]
        when = times[rows]
        # Rows without a time come after all others for "first", before them for "last".
        when = np.where(np.isnan(when), np.inf if dedupe == "first" else -np.inf, when)
        sign = 1 if dedupe == "first" else -1
        best = np.lexsort((sign * rows, sign * when, ordered[several]))
        groups = np.concatenate(([0], np.cumsum(counts[counts > 1])[:-1])).astype(np.int64)
        kept[counts > 1] = rows[best[groups]]
    return kept, counts
