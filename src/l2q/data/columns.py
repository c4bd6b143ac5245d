"""What stands in the columns of a table, over all of its rows: for people who look before they train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from l2q.events.profiles import MISSING, Profile, profiles
from l2q.events.table import Table, named, quoted

EXACT = 2_000_000
"""Rows up to which distinct values are counted one by one."""
SHOWN = 3
"""Examples of a column."""
KINDS = 12
"""Values of a column at most that are counted each for itself."""
BINS = 10


@dataclass(frozen=True)
class ColumnFigures:
    """A column. ``holds``: what its values are, in words. ``role``: what it is taken for, or None. ``distinct`` values,
    ``exact`` or to a few percent. ``missing``: rows without one, however that is spelled."""

    name: str
    holds: str
    role: str | None
    distinct: int
    exact: bool
    missing: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Histogram:
    """How many events have which value of the column ``name``; ``labels`` in their order."""

    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]


def column_figures(table: Table, roles: Mapping[str, str]) -> tuple[ColumnFigures, ...]:
    """Every column of ``table``; ``roles``: the column of every role."""
    looks = profiles(table)
    exact = table.rows <= EXACT
    count = "count(DISTINCT {0})" if exact else "approx_count_distinct({0})"
    parts = []
    for profile in looks:
        name = named(profile.name)
        gone = f"{name} IS NULL"
        if not profile.nested:
            spellings = ", ".join(quoted(text) for text in sorted(MISSING))
            gone += f" OR trim(CAST({name} AS VARCHAR)) IN ({spellings})"
        parts += [f"count(*) FILTER (WHERE {gone})", count.format(name)]
    found = table.connection.execute(f"SELECT {', '.join(parts)} FROM events").fetchone() if parts else ()
    assert found is not None
    called = {column: role for role, column in roles.items()}
    return tuple(
        ColumnFigures(
            profile.name,
            holds(profile),
            called.get(profile.name),
            found[2 * place + 1],
            exact,
            found[2 * place],
            tuple(list(profile.kinds)[:SHOWN]),
        )
        for place, profile in enumerate(looks)
    )


def holds(profile: Profile) -> str:
    """What the values of a column are, in words."""
    if not profile.texts:
        return "nothing"
    if profile.nested:
        return "lists or records"
    if profile.dates:
        return "dates"
    if profile.moments:
        return "times, as numbers"
    if profile.numeric:
        return "numbers with fractions" if profile.fractions else "whole numbers"
    return "texts, long" if profile.prose else "texts"


def histogram(table: Table, column: str) -> Histogram | None:
    """The values of a column over all rows: each for itself where they are few; else of numbers ten equal steps, or
    powers of two where a few are far above the others; else the most frequent texts."""
    name, run = named(column), table.connection.execute
    text = f"trim(CAST({name} AS VARCHAR))"
    counted = f"SELECT {text} AS value, count(*) AS n FROM events WHERE {name} IS NOT NULL GROUP BY 1"
    few = run(f"{counted} ORDER BY n DESC, value LIMIT {KINDS + 1}").fetchall()
    if not few:
        return None
    number = f"TRY_CAST(replace({text}, ',', '.') AS DOUBLE)"
    row = run(
        f"SELECT count({number}), min({number}), max({number}), approx_quantile({number}, 0.5), "
        f"bool_and({number} = floor({number})) FROM events"
    ).fetchone()
    assert row is not None
    known, low, high, middle, whole = row
    numeric = known >= 0.99 * sum(count for _, count in few) and low is not None
    if len(few) <= KINDS:
        if numeric:
            few.sort(key=lambda pair: _number(pair[0]))
        return Histogram(column, tuple(value for value, _ in few), tuple(count for _, count in few))
    if not numeric:
        (rest,) = run(f"SELECT sum(n) FROM ({counted})").fetchone() or (0,)
        shown = few[:KINDS]
        left = int(rest) - sum(count for _, count in shown)
        labels = (*(value for value, _ in shown), "others")
        return Histogram(column, labels, (*(count for _, count in shown), left))
    if (low >= 0 and high > 20 * max(middle, 1)) or (low < 0 < high and high > 100):
        return _by_powers(table, column, number, bool(whole))
    step = (high - low) / BINS
    place = f"least(floor(({number} - {low}) / {step}), {BINS - 1})"
    found = dict(
        run(f"SELECT {place}, count(*) FROM events WHERE {number} IS NOT NULL GROUP BY 1").fetchall()
    )
    labels = tuple(f"{low + step * bin:.4g} to {low + step * (bin + 1):.4g}" for bin in range(BINS))
    return Histogram(column, labels, tuple(int(found.get(bin, 0)) for bin in range(BINS)))


def _by_powers(table: Table, column: str, number: str, whole: bool) -> Histogram:
    place = f"CASE WHEN {number} < 0 THEN -2 WHEN {number} < 1 THEN -1 ELSE floor(log2({number})) END"
    found = dict(
        table.connection.execute(
            f"SELECT {place} AS place, count(*) FROM events WHERE {number} IS NOT NULL GROUP BY 1"
        ).fetchall()
    )
    bins = range(int(min(found)), int(max(found)) + 1)

    def label(bin: int) -> str:
        if bin < 0:
            return "below 0" if bin == -2 else "0" if whole else "0 to 1"
        first = 2**bin
        if whole:
            return f"{first:,}" if not bin else f"{first:,} to {2 * first - 1:,}"
        return f"{first:,} to {2 * first:,}"

    return Histogram(column, tuple(map(label, bins)), tuple(int(found.get(bin, 0)) for bin in bins))


def _number(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("inf")
