"""How a text file lays out its table, decided on its first lines by rules that can be told.

The delimiter is the one that gives nearly every line the same number of fields: a tab before ``::``, then whichever of
``,`` ``;`` ``|`` comes first in the lines, then the separator of Hive, then spaces. The first line is a header where
its cells do not look like the values below (see ``header_by``).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from l2q.errors import L2QError
from l2q.events.foreign import RULE, is_prose, no_table, without_rules
from l2q.events.headers import RECBOLE, header_by, is_value, known_names, names_of_index, second_header

DELIMITERS = ("\t", "::", ",", ";", "|", "\x01", " ")
WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "spaces": " ", "comma": ",", "semicolon": ";", "pipe": "|"}
SAID = {"\t": "a tab", " ": "spaces", "\x01": "the byte 1"}
SPACES = re.compile(r'("[^"]*")|[ \t]+')
RECBOLE_ROLES = {"user_id": "user", "item_id": "item", "timestamp": "time", "rating": "value"}


@dataclass(frozen=True)
class Dialect:
    """``fields`` a line, ``skip`` lines of the file before its first event, ``names`` and declared ``roles`` of the
    columns (a name without one is missing there), ``netflix``: lines ``movie:`` with the events of the movie below."""

    delimiter: str
    fields: int
    skip: int
    header: bool
    names: tuple[str, ...]
    head: str = ""  # the header's line
    roles: dict[str, str] = field(default_factory=dict)
    decimal_commas: tuple[str, ...] = ()  # columns of numbers such as 4,5
    numbers: tuple[int, ...] = ()  # columns of numbers and dates, counted from 0
    netflix: bool = False
    ruled: bool = False  # lines such as +---+---+ are drawn between its lines
    notes: tuple[str, ...] = ()


def dialect(
    where: str, lines: list[str], header: bool | None = None, delimiter: str | None = None
) -> Dialect:
    """The layout of a file from its first ``lines``, without line ends; ``header`` and ``delimiter`` decide where they
    are given. Raises L2QError for what is no table."""
    notes: list[str] = []
    skip, comment, given = 0, "", WORDS.get(delimiter or "", delimiter)
    while skip < len(lines):
        line = lines[skip]
        if separator := re.fullmatch(r'"?sep=(.)"?', line.strip("\r")):
            given = given or separator[1]
        elif line.startswith("%%MatrixMarket"):
            raise L2QError(f"{where} is a Matrix Market file; give scipy.io.mmread of it to l2q.read_events")
        elif line[:1] in ("#", "%"):
            comment = line
        elif line.strip():
            break
        skip += 1
    body = lines[skip:]
    if why := no_table(body):
        raise L2QError(f"{where} is {why}")
    ruled = any(map(RULE.fullmatch, body))
    skip, body = without_rules(skip, body)
    if not body:
        raise L2QError(
            f"{where} has no events: " + ("the file is empty" if not lines else "no line holds one")
        )
    if (
        re.fullmatch(r"\d+:\s*", body[0])
        and len(body) > 1
        and re.fullmatch(r"\d+,\d+(\.\d+)?,[\d-]+\s*", body[1])
    ):
        return Dialect(
            ",", 4, skip, False, ("user", "rating", "date", "item"), netflix=True,
            roles={"user": "user", "item": "item", "rating": "value", "date": "time"},
            notes=("lines such as '1:' name the movie of the lines below, as in the Netflix Prize",),
        )  # fmt: skip

    given = given or _delimiter(where, body)
    rows = _cells(body, given)
    sizes = Counter(len(row) for row in rows[1:] or rows)
    fields = max(sizes, key=lambda size: (sizes[size], size))
    if fields < 2:
        raise L2QError(
            f"{where}: no line has two fields with {SAID.get(given, repr(given))} between them; delimiter= names "
            "what stands between them"
        )
    if _is_lightgcn(body, given, sizes):
        raise L2QError(
            f"{where}: its lines have {min(sizes)} to {max(sizes)} numbers, so a line is a user with all items, as in "
            "train.txt of LightGCN; give the folder of train.txt and test.txt as dataset.dir"
        )
    if _is_uneven(sizes):
        raise L2QError(
            f"{where}: its lines have {min(sizes)} to {max(sizes)} fields between {SAID.get(given, repr(given))}, as "
            "lists of items have: write a line for each item, with its user; delimiter= names another mark"
        )
    titles = _titles(body, given, fields)
    if titles and header is not False:
        notes.append(
            f"above the table {'a line is' if titles == 1 else f'{titles} lines are'} left out: {body[0][:60]!r}"
        )
        skip, body = skip + titles, body[titles:]
        rows = _cells(body, given)
    above = _cells([comment.lstrip("#% ")], given)
    commented = [cell.strip() for cell in above[0]] if above else []
    first = [cell.strip() for cell in rows[0]]
    # "# user item" above events, and no remark that a spreadsheet has filled up with commas
    titled = len(commented) == fields and sum(map(bool, commented)) > 1 and not any(map(is_value, commented))
    if header is None and titled and first != commented and not known_names(first):
        header, first, why, drop = True, commented, "", 0
    else:
        found, why = header_by(first, rows[1:], fields)
        if header is None:
            header = found
            if why:
                notes.append(why)
        drop = 1 if header or why.startswith("the first line numbers") else 0
        if not known_names(first) and delimiter is None and given != "\t" and is_prose(rows):
            raise L2QError(
                f"{where} looks like text for people ({body[0][:40]!r}); delimiter= says that it is a table"
            )
        if drop and header and (second := second_header(first, rows, body)):
            notes.append(f"the second line, {second[:60]}, says more of the columns and is left out")
            drop = 2
        if drop and header and (named := names_of_index(first, rows[drop:])):
            first, drop = named, drop + 1
    names = tuple(f"column{number + 1}" for number in range(fields))
    roles: dict[str, str] = {}
    if header:
        if len(first) == fields - 1 and not any(row[-1].strip() for row in rows[1:] if len(row) == fields):
            first = [*first, ""]  # the lines below end in a delimiter
        elif len(first) == fields - 1:  # as R writes them
            first = ["", *first]
            notes.append(
                "the header has a name less than there are columns: the first column has row names, 'column1'"
            )
        while len(first) > fields and not first[-1]:
            first.pop()
        if len(first) != fields:
            raise L2QError(
                f"{where}:{skip + 1}: the header has {len(first)} names, but the lines below have {fields} fields; "
                "delimiter= names what stands between fields"
            )
        typed = [RECBOLE.fullmatch(name) for name in first]
        if all(typed):
            first = [match[1] for match in typed if match]
            roles = {name: RECBOLE_ROLES[name] for name in first if name in RECBOLE_ROLES}
        names, renamed = apart(first)
        notes += renamed
    below = rows[drop:]
    commas = tuple(
        name
        for column, name in enumerate(names)
        if given != "," and _decimal_commas([row[column] for row in below if len(row) == fields])
    )
    if commas:
        notes.append(f"decimal commas are read as points: {', '.join(map(repr, commas))}")
    for column, name in enumerate(names):
        values = [row[column].strip() for row in below if len(row) == fields and "," in row[column]]
        if (
            given != ","
            and values
            and all(re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+", value) for value in values)
        ):
            notes.append(
                f"commas in {name!r} stand between thousands: {values[0]!r} is {values[0].replace(',', '')}"
            )
    of = [
        [row[column] for row in below if len(row) == fields and row[column].strip()]
        for column in range(fields)
    ]
    numbers = tuple(
        n for n, values in enumerate(of) if values and sum(map(is_value, values)) > 0.9 * len(values)
    )
    return Dialect(
        given,
        fields,
        skip + drop,
        header,
        names,
        body[0] if drop else "",
        roles,
        commas,
        numbers,
        ruled=ruled,
        notes=tuple(notes),
    )


def _titles(body: list[str], delimiter: str, fields: int) -> int:
    """How many lines stand above the table, with one field that is not empty or none."""
    for count, line in enumerate(body[:10]):
        cells = next(iter(_cells([line], delimiter)), [])
        if (
            sum(bool(cell.strip()) for cell in cells) > 1
            or (fields == 2 and len(cells) == 2)
            or delimiter == " "
        ):
            return count
    return 0


def apart(names: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """Names that differ by more than their case, as SQL wants them, and a note for each that had to change; a column
    without a name is called by its number: ``column1``."""
    taken: set[str] = set()
    kept: list[str] = []
    notes: list[str] = []
    for number, name in enumerate(names, 1):
        fresh = name or f"column{number}"
        count = 1
        while fresh.lower() in taken:
            count += 1
            fresh = f"{name or f'column{number}'}_{count}"
        if name and fresh != name:
            notes.append(f"a second column named {name!r} is called {fresh!r}")
        taken.add(fresh.lower())
        kept.append(fresh)
    return tuple(kept), notes


def _decimal_commas(values: list[str]) -> bool:
    values = [value.strip() for value in values if value.strip()]
    return bool(
        values
        and all(re.fullmatch(r"[-+]?\d+(,\d+)?", value) for value in values)
        and any("," in value for value in values)
        and not all(re.fullmatch(r"[-+]?[1-9]\d{0,2}(,\d{3})+", value) for value in values if "," in value)
    )


def _cells(lines: list[str], delimiter: str) -> list[list[str]]:
    """Fields of lines, quotes read where they make the number of fields a line more even."""
    if delimiter == " ":
        lines, delimiter = [SPACES.sub(lambda match: match[1] or "\t", line.strip()) for line in lines], "\t"
    plain = [line.split(delimiter) for line in lines if line.strip()]
    if not any('"' in line for line in lines):
        return plain
    stand = "\x1f" if len(delimiter) > 1 else delimiter
    alike = [line.replace(delimiter, stand) + "\n" for line in lines]
    ways = [plain]
    for escape in ("\\", None):
        with suppress(csv.Error):
            reader = csv.reader(alike, delimiter=stand, skipinitialspace=True, escapechar=escape)
            ways.append([row for row in reader if row])
    return max(reversed(ways), key=_evenness)  # of equal ones, quotes as RFC 4180 wants them


def _evenness(rows: list[list[str]]) -> float:
    """Share of the rows that have the commonest number of fields, 0 where that is one."""
    sizes = Counter(map(len, rows))
    size, count = max(sizes.items(), key=lambda found: (found[1], found[0]))
    return count / len(rows) if size > 1 else 0.0


def _delimiter(where: str, lines: list[str]) -> str:
    even = {d: _evenness(_cells(lines, d)) for d in DELIMITERS if any(d in line for line in lines)}
    even = {d: share for d, share in even.items() if share > 0}
    if not even:
        raise L2QError(f"{where}: a line is one field; delimiter= names what stands between fields")
    good = [d for d, share in even.items() if share >= 0.95 * max(even.values())]
    for delimiter in ("\t", "::"):
        cells = [cell for row in _cells(lines, delimiter) for cell in row[:-1]] if delimiter in good else []
        # a comma and a tab between fields are one delimiter
        marked = [d for d in good if d in ",;|" and delimiter == "\t" and all(c.endswith(d) for c in cells)]
        if cells:
            return marked[0] if marked else delimiter
    marks = [d for d in good if d in ",;|"]
    if marks:
        first = Counter(min(marks, key=lambda d: line.find(d) % 2**31) for line in lines if line.strip())
        return first.most_common(1)[0][0]
    return good[0]


def _is_uneven(sizes: Counter[int]) -> bool:
    return len(sizes) > 2 and sizes.most_common(1)[0][1] < 0.5 * sum(sizes.values())


def returns_end_lines(lines: list[str]) -> bool:
    """Whether carriage returns within lines are ends of lines too, as where files of several systems were joined: the
    number of fields is more even so."""
    if not any("\r" in line.strip("\r") for line in lines):
        return False
    apart = [piece for line in lines for piece in line.split("\r")]

    def even(some: list[str]) -> float:
        return max(
            (_evenness(_cells(some, d)) for d in DELIMITERS if any(d in line for line in some)), default=0.0
        )

    return even(apart) > even(lines)


def _is_lightgcn(lines: list[str], delimiter: str, sizes: Counter[int]) -> bool:
    return (
        delimiter == " "
        and _is_uneven(sizes)
        and all(re.fullmatch(r"[\d ]+", x.strip()) for x in lines if x.strip())
    )
