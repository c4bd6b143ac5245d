"""Times in the forms that tables have them, as seconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from l2q.events.table import Column, Table, named, quoted

EPOCHS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
FIRST, LAST = 3e8, 4.2e9  # seconds since 1970 that a moment may have: 1979 to 2103
RECENT = (7e8, 2e9)  # seconds since 1970 of events in tables: 1992 to 2033; ids go beyond
DAY = 86400.0

_ZONE = r"\s*(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
_CLOCK = r"(?:[T ]+\d{1,2}(?::\d{2}(?::\d{2}(?:[.,]\d+)?)?)?)?"
_ISO = re.compile(rf"\d{{4}}([-/])\d{{1,2}}\1\d{{1,2}}{_CLOCK}{_ZONE}", re.IGNORECASE)
_PARTS = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})\b(.*)", re.DOTALL)
_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M", " %H:%M:%S.%f")
FORMATS = (
    "%a %b %d %H:%M:%S %z %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%a %b %d %H:%M:%S %Y",
    "%m %d, %Y",
    "%d/%b/%Y:%H:%M:%S %z",
    *(f"{day}{clock}" for day in ("%d %b %Y", "%b %d, %Y", "%B %d, %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y",
                                  "%Y.%m.%d", "%b %d %Y", "%Y年%m月%d日") for clock in _CLOCKS),
)  # fmt: skip
_DIGITS = (("%Y%m%d", 8), ("%Y%m%d%H%M%S", 14))


@dataclass(frozen=True)
class Clock:
    """How a column is read as times. ``sql``: an expression of seconds since 1970, NULL where there is no time.
    ``form``: in words. ``order``: of day and month in forms such as 01/12/2010, "day" or "month" first; "?" where the
    values looked at do not tell."""

    sql: str
    form: str
    order: str = ""


def is_date(text: str) -> bool:
    return bool(_ISO.fullmatch(text)) or _date_format(text) is not None or _parts(text) is not None


def epoch(low: float, high: float, first: float = FIRST, last: float = LAST) -> str | None:
    """The unit of numbers from ``low`` to ``high`` that may be moments since 1970, from ``first`` to ``last``."""
    for unit, scale in EPOCHS.items():
        if first <= low / scale <= high / scale <= last:
            return unit
    return None


def is_day(low: float, high: float) -> bool:
    """Whether whole numbers from ``low`` to ``high`` may be days written as 20140131."""
    return 19000101 <= low <= high <= 21001231


def clock(
    table: Table, column: Column, examples: Sequence[str], day_first: bool | None = None
) -> Clock | None:
    """How ``column`` is read, told by its type and by ``examples`` of it; None: it has no times. ``day_first``: what
    comes first in dates such as 01/12/2010; None: as the rows tell."""
    name = named(column.name)
    kind = column.type.upper()
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return Clock(f"epoch({name})", "dates")
    numbers = [number for text in examples if (number := _number(text)) is not None]
    text = f"trim(CAST({name} AS VARCHAR))"
    if numbers and len(numbers) >= 0.5 * len(examples):
        return _of_numbers(text if kind == "VARCHAR" else name, numbers)
    if kind != "VARCHAR" or not examples:
        return None
    dates = [text for text in examples if is_date(text)]
    if len(dates) < 0.5 * len(examples):
        return None
    if sum(_ISO.fullmatch(date) is not None for date in dates) >= 0.5 * len(dates):
        return Clock(_iso(text), "dates")
    if sum(_parts(date) is not None for date in dates) >= 0.5 * len(dates):
        order = _order(table, name, dates) if day_first is None else "day" if day_first else "month"
        years = {"%Y" if len(parts[3]) == 4 else "%y" for date in dates if (parts := _parts(date))}
        separators = {parts[1] for date in dates if (parts := _parts(date))}
        first = "%d{0}%m{0}" if order == "day" else "%m{0}%d{0}"
        formats = [
            first.format(s) + y + c for s in sorted(separators) for y in sorted(years) for c in _CLOCKS
        ]
        return Clock(f"epoch(try_strptime({text}, [{', '.join(map(quoted, formats))}]))", "dates", order)
    found = dict.fromkeys(form for date in dates if (form := _date_format(date)))
    # A format with a zone gives another type than one without, so each is tried by itself.
    return Clock(
        f"coalesce({', '.join(f'epoch(try_strptime({text}, {quoted(f)}))' for f in found)}, NULL)", "dates"
    )


def _of_numbers(value: str, numbers: list[float]) -> Clock:
    number = f"TRY_CAST({value} AS DOUBLE)"
    ordered = sorted(numbers)
    middle = ordered[len(ordered) // 2]
    whole = all(number == int(number) for number in numbers)
    if unit := epoch(middle, middle):
        seconds = f"{number} / {EPOCHS[unit]!r}"
        # Nulls of other programs, 0 and -1, are no moments.
        return Clock(f"CASE WHEN {number} > 0 THEN {seconds} END", f"{unit} since 1970")
    if (
        whole
        and is_day(middle, middle)
        and is_date(f"{int(middle)}"[:4] + "-" + f"{int(middle)}"[4:6] + "-01")
    ):
        return Clock(f"epoch(try_strptime(CAST(TRY_CAST({value} AS BIGINT) AS VARCHAR), '%Y%m%d'))", "dates")
    if whole and 19000101000000 <= middle <= 21001231235959:
        return Clock(
            f"epoch(try_strptime(CAST(TRY_CAST({value} AS BIGINT) AS VARCHAR), '%Y%m%d%H%M%S'))", "dates"
        )
    if whole and all(1900 <= number <= 2100 for number in numbers):
        return Clock(f"epoch(make_date(TRY_CAST({value} AS INTEGER), 1, 1))", "years")
    return Clock(f"CASE WHEN isfinite({number}) THEN {number} END", "numbers as they are")


def _iso(text: str) -> str:
    """With an offset to UTC, without one, or with the word UTC."""
    tail = r"'[0-9]{2}:[0-9]{2}.*[+-][0-9]{2}:?[0-9]{2}$'"
    colon = rf"regexp_replace({text}, '\s*([+-][0-9]{{2}}):?([0-9]{{2}})$', '\1:\2')"
    hour = r"'.*[T ][0-9]{1,2}'"
    return (
        f"CASE WHEN regexp_full_match({text}, {hour}) THEN epoch(TRY_CAST({text} || ':00' AS TIMESTAMP)) "
        f"WHEN regexp_matches({text}, {tail}) THEN epoch(TRY_CAST({colon} AS TIMESTAMPTZ)) "
        f"ELSE epoch(TRY_CAST(replace({text}, ',', '.') AS TIMESTAMP)) END"
    )


def _order(table: Table, name: str, dates: list[str]) -> str:
    """What comes first in dates such as 13/12/2010: told by numbers above 12, first of some, else of all rows."""
    parts = [found for date in dates if (found := _parts(date))]
    first, second = (max(int(part[position]) for part in parts) for position in (0, 2))
    if parts[0][1] == "." or first > 12:
        return "day"
    if second > 12:
        return "month"
    pattern = r"'^\s*([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]'"
    most = table.connection.execute(
        f"SELECT max(TRY_CAST(regexp_extract({name}, {pattern}, 1) AS INTEGER)), "
        f"max(TRY_CAST(regexp_extract({name}, {pattern}, 2) AS INTEGER)), "
        f"count(DISTINCT regexp_extract({name}, {pattern}, 1)), count(DISTINCT regexp_extract({name}, {pattern}, 2)) "
        "FROM events"
    ).fetchall()
    first, second, firsts, seconds = (value or 0 for value in most[0])
    if max(first, second) <= 12 and 3 * min(firsts, seconds) <= max(firsts, seconds):
        return "day" if firsts > seconds else "month"  # some days of few months
    return "day" if first > 12 else "month" if second > 12 else "?"


def _parts(text: str) -> tuple[str, str, str, str] | None:
    """Number, separator, number and year of a date such as 01/12/2010 8:26."""
    found = _PARTS.fullmatch(text)
    if not found or not (1 <= int(found[1]) <= 31 and 1 <= int(found[3]) <= 31):
        return None
    rest = found[5]
    return (found[1], found[2], found[3], found[4]) if any(_parses(rest, form) for form in _CLOCKS) else None


def _date_format(text: str) -> str | None:
    if len(text) < 8 or not any(letter.isdigit() for letter in text):
        return None
    return next((form for form in FORMATS if _parses(text, form)), None)


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None
