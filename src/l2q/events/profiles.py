"""What the values of a table's columns look like, told by its first rows."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import duckdb

from l2q.errors import L2QError
from l2q.events import times
from l2q.events.conditions import first_line
from l2q.events.table import Column, Table, named
from l2q.events.vocabulary import role_of_word

ROWS = 10_000  # that are looked at
LONG = 200  # characters of a text that are looked at

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "Null", "(null)", "<null>", "none",
     "None", "NONE", "\\N", "NaT", "-", "?", "undefined", "unknown", "Unknown", "UNKNOWN", "(not set)",
     "00000000-0000-0000-0000-000000000000"]
)  # fmt: skip
"""Spellings of a value that is missing."""

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_ASIN = re.compile(r"B0[0-9A-Z]{6,8}|\d{9}[\dX]")
_AMAZON_USER = re.compile(r"A(?=.*\d)[0-9A-Z]{8,27}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.\w+")
_PREFIX = re.compile(r"([^\W\d_]+)[ _:#/.-]?\d+")
_LETTERS = (
    ("u", "bcghimnpstvw"),
    ("c", "ip"),
)  # of users such as u12, and of items that may stand beside them
_NESTED = ("STRUCT", "MAP", "UNION", "VARIANT")


@dataclass
class Profile:
    """A column with the values of the first rows, as stripped texts, None where they are missing."""

    column: Column
    values: list[str | None]
    numbered: bool = True  # False: further down the numbers are no row numbers
    hint: str | None = None  # "user" or "item", told by the values of another column

    @property
    def name(self) -> str:
        return self.column.name

    @cached_property
    def texts(self) -> list[str]:
        """The values that are not missing."""
        return [value for value in self.values if value is not None]

    @cached_property
    def kinds(self) -> Counter[str]:
        return Counter(self.texts)

    @property
    def example(self) -> str:
        return next(iter(self.kinds), "nothing")

    @property
    def nested(self) -> bool:
        kind = self.column.type.upper()
        return kind.endswith("]") or kind.startswith(_NESTED)

    @cached_property
    def numbers(self) -> list[float]:
        return [float(text.replace(",", "")) for text in self.texts if _NUMBER.fullmatch(text)]

    @cached_property
    def numeric(self) -> bool:
        """All but a hundredth are numbers."""
        return bool(self.texts) and len(self.numbers) >= 0.99 * len(self.texts)

    @cached_property
    def fractions(self) -> float:
        """The share of numbers with a fraction, of a numeric column."""
        if not self.numeric:
            return 0.0
        return sum(number % 1 != 0 for number in self.numbers) / len(self.numbers)

    @cached_property
    def measured(self) -> bool:
        """Numbers with fractions: no names of anything. Two long numbers with a point between them are a name, such as
        Google Analytics gives to a browser."""
        return self.fractions > 0.01 and not (
            self.column.type.upper() == "VARCHAR"
            and all(re.fullmatch(r"\d{5,}\.\d{5,}", text) for text in self.texts)
        )

    @cached_property
    def decimals(self) -> int:
        """Digits behind the point of most numbers."""
        lengths = sorted(len(text.partition(".")[2]) for text in self.texts)
        return lengths[len(lengths) // 2]

    @cached_property
    def dates(self) -> bool:
        """The values are dates by their type or as people write them."""
        kind = self.column.type.upper()
        if kind.startswith("TIMESTAMP") or kind == "DATE":
            return True
        some = list(self.kinds)[:50]
        return bool(some) and not self.numeric and sum(map(times.is_date, some)) >= 0.5 * len(some)

    @cached_property
    def moments(self) -> bool:
        """Numbers that can hardly be anything but moments since 1970, or days such as 20140131."""
        if not self.numeric or not self.numbers or len(self.numbers) < 2:
            return False
        ordered = sorted(self.numbers)
        low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
        if times.is_day(low, high) and len(self.kinds) > 1:
            return all(times.is_date(f"{n:.0f}"[:4] + "-" + f"{n:.0f}"[4:6] + "-" + f"{n:.0f}"[6:])
                       and 1 <= int(f"{n:.0f}"[4:6]) <= 12 and 1 <= int(f"{n:.0f}"[6:]) <= 31
                       for n in ordered[:: max(1, len(ordered) // 50)])  # fmt: skip
        if (unit := times.epoch(low, high, *times.RECENT)) is None:
            return False
        scale = times.EPOCHS[unit]
        days = sum(number % (times.DAY * scale) == 0 for number in self.numbers) >= 0.9 * len(self.numbers)
        return days or len(self.kinds) > 0.3 * len(self.texts)

    @property
    def constant(self) -> bool:
        """One value alone, in so many rows that this tells something."""
        return len(self.kinds) <= 1 and len(self.values) >= 20

    @cached_property
    def each_its_own(self) -> bool:
        """Nearly every row has a value of its own, as row numbers have."""
        return len(self.texts) >= 20 and len(self.kinds) > 0.99 * len(self.texts)

    @cached_property
    def counted_up(self) -> bool:
        """Row numbers: each is the one before plus one."""
        if (
            not self.numbered
            or not self.numeric
            or len(self.numbers) < 3
            or len(self.numbers) < len(self.values)
        ):
            return False
        numbers = self.numbers[:ROWS]
        steps = {second - first for first, second in itertools.pairwise(numbers)}
        return steps == {1.0}

    @property
    def few(self) -> bool:
        """So few values that they may be kinds or grades."""
        return len(self.kinds) <= 25 and (len(self.kinds) <= 3 or len(self.kinds) <= 0.2 * len(self.texts))

    @cached_property
    def prose(self) -> bool:
        """Long texts, or lists within a text."""
        long = sum(len(text) > 60 and " " in text for text in self.texts)
        return bool(self.texts) and long > 0.2 * len(self.texts)

    @cached_property
    def role(self) -> str | None:
        """ "user" or "item" where the values themselves say so: user07, movie:12, an ASIN, an address of mail."""
        some = list(self.kinds)[:500]
        for pattern, role in ((_AMAZON_USER, "user"), (_ASIN, "item"), (_EMAIL, "user")):
            if len(some) > 1 and sum(pattern.fullmatch(text) is not None for text in some) >= 0.97 * len(
                some
            ):
                numbers_alone = all(text.isdigit() and text[0] != "0" for text in some)
                return None if numbers_alone else role
        return self.said or self.hint

    @cached_property
    def said(self) -> str | None:
        """The role that the word before the number of every value tells, as in user07."""
        some = list(self.kinds)[:500]
        if not some:
            return None
        prefixes = Counter(found[1] if (found := _PREFIX.fullmatch(text)) else "" for text in some)
        prefix, count = prefixes.most_common(1)[0]
        return role_of_word(prefix) if prefix and count >= 0.95 * len(some) else None

    @property
    def letter(self) -> str:
        """The one letter before the number of every value, as in u12; "" where there is none."""
        some = list(self.kinds)[:500]
        found = {match[1].lower() if (match := _PREFIX.fullmatch(text)) else "" for text in some}
        return next(iter(found)) if len(found) == 1 and all(len(letter) == 1 for letter in found) else ""

    @cached_property
    def lists(self) -> bool:
        """Texts that are lists: several ids each, not always as many, which come again in other rows."""
        if len(self.texts) > 1 and all(re.fullmatch(r"\[.*\]", text, re.DOTALL) for text in self.texts):
            return True
        some = [re.findall(r"[^\s,;|\[\](){}'\"]+", text) for text in self.texts[:1000]]
        ids = [one for each in some for one in each]
        several = sum(len(each) > 1 for each in some)
        return (
            2 * several > len(some)
            and len({len(each) for each in some}) > 1
            and len(ids) > 2.5 * len(some)
            and not self.dates
            and 3 * len(set(ids)) < 2 * len(ids)
            and sum(any(sign.isdigit() for sign in one) for one in ids) > 0.9 * len(ids)
        )

    @property
    def id_like(self) -> bool:
        """The values may name users or items."""
        return not (
            self.nested
            or self.lists
            or self.dates
            or self.moments
            or self.measured
            or self.constant
            or self.prose
            or not self.texts
        )


def profiles(table: Table) -> list[Profile]:
    """A profile of every column, from the first ``ROWS`` rows; where those are of one user or one item, as in a table
    that is sorted by it, from as many others too."""
    columns = ", ".join(f"left(CAST({named(column.name)} AS VARCHAR), {LONG})" for column in table.columns)
    try:
        rows = table.connection.execute(f"SELECT {columns} FROM events LIMIT {ROWS}").fetchall()
    except duckdb.Error as error:  # such as texts that are no Unicode
        raise L2QError(f"cannot read {table.where}: {first_line(error)}") from error
    if len(rows) == ROWS and any(len(set(column)) == 1 for column in zip(*rows, strict=True)):
        some = f"SELECT {columns} FROM events USING SAMPLE reservoir({ROWS} ROWS) REPEATABLE (0)"
        rows += table.connection.execute(some).fetchall()
    found = [
        Profile(column, [_present(row[position]) for row in rows])
        for position, column in enumerate(table.columns)
    ]
    for place, profile in enumerate(found):
        if len(rows) >= ROWS and profile.counted_up:
            number = f"TRY_CAST({named(profile.name)} AS DOUBLE)"
            query = f"SELECT max({number}) - min({number}) + 1 = count(*) FROM events"
            if not table.connection.execute(query).fetchall()[0][0]:
                found[place] = Profile(profile.column, profile.values, numbered=False)
    _by_letters(found)
    return found


def _by_letters(found: list[Profile]) -> None:
    """Hints of two columns of which one has ids such as u12 and the other such as b7."""
    lettered = [profile for profile in found if profile.letter]
    for user, items in _LETTERS:
        sides = [[one for one in lettered if one.letter in letters] for letters in (user, items)]
        if len(sides[0]) == len(sides[1]) == 1:
            sides[0][0].hint, sides[1][0].hint = "user", "item"
            return


def determines(one: Profile, other: Profile) -> bool:
    """Whether every value of ``one`` stands beside one value of ``other`` alone, as a song beside its artist."""
    pairs = {pair for pair in zip(one.values, other.values, strict=True) if None not in pair}
    return len(pairs) == len({first for first, _ in pairs})


def listed(profiles: Sequence[Profile], most: int = 8) -> str:
    """Columns with a value of each, for messages."""
    shown = [f"{profile.name!r} ({profile.example[:30]!r})" for profile in profiles[:most]]
    return ", ".join(shown) + (f" and {len(profiles) - most} more" if len(profiles) > most else "")


def _present(value: str | None) -> str | None:
    value = value.strip() if value is not None else None
    return None if value is None or value in MISSING else value
