"""The lines above a table: titles, names of columns, what says more of them."""

from __future__ import annotations

import re
from collections import Counter

from l2q.events.vocabulary import meaning

NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")
DATE = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?|\d{4}-\d\d|\d{1,2}:\d\d(:\d\d.*)?|\d{1,2}[- ]\w{3}[- ]\d{2,4}"
)
MISSING = {"", "na", "n/a", "nan", "null", "none", "\\n", "-", "?"}
RECBOLE = re.compile(r"([^:]+):(token|float|token_seq|float_seq)")


def header_by(first: list[str], below: list[list[str]], fields: int) -> tuple[bool, str]:
    """Whether the first line holds names, and a sentence where that is worth one.

    No header: a cell that is a number or date above such values, or a number above anything, or two equal cells, or a
    cell that comes again below. Header: a word above numbers or dates, words that columns of events are called by, a
    cell without digits or a mark that all values below have (``what`` above ``item07``), or cells that never come
    again above values that do. Where nothing tells, the line is an event.
    """
    if known_names(first) and any([cell.strip() for cell in row] == first for row in below):
        return True, ""  # it comes again within, as in joined files
    columns = [[row[column].strip() for row in below if len(row) == fields] for column in range(len(first))] if (
        len(first) == fields
    ) else []  # fmt: skip
    columns = [[value for value in column if value.lower() not in MISSING] for column in columns]
    if first in ([str(n) for n in range(fields)], [str(n + 1) for n in range(fields)]) and any(
        column and not any(map(is_value, column)) for column in columns
    ):
        return False, "the first line numbers the columns and is no event"
    if all(RECBOLE.fullmatch(cell) for cell in first):
        return True, ""
    if any(map(is_value, first)):
        return False, ""
    filled = [cell.lower() for cell in first if cell]
    if len(set(filled)) < len(filled) and not known_names(first):
        return False, ""
    if any(cell and cell in column for cell, column in zip(first, columns, strict=bool(columns))):
        return False, ""
    for cell, column in zip(first, columns, strict=bool(columns)):
        if column and sum(map(is_value, column)) > 0.9 * len(column) and cell.lower() not in MISSING:
            return True, ""
    if known_names(first):
        return True, ""
    named = f"the first line, {', '.join(first)[:60]}, is taken for names; header=false takes it for an event"
    for cell, column in zip(first, columns, strict=bool(columns)):
        if (
            cell
            and column
            and (set.intersection(*map(_kinds, column)) if len(column) > 1 else set()) - _kinds(cell)
        ):
            return True, named
    counts = [Counter(column) for column in columns]
    if any(len(count) and 2 * sum(n > 1 for n in count.values()) > len(count) for count in counts):
        return True, named  # values come again and again, the cells of the first line do not
    if not columns and len(first) == fields - 1:
        return True, ""
    return (
        False,
        f"the first line, {', '.join(first)[:60]}, is taken for an event; header=true takes it for names",
    )


def second_header(first: list[str], rows: list[list[str]], body: list[str]) -> str:
    """The line below the header where it says units or types: words above numbers, of which none comes again."""
    if len(rows) < 12 or len(first) != len(rows[1]) or not body[1].strip():
        return ""
    second = [cell.strip() for cell in rows[1]]
    below = [
        [row[column].strip() for row in rows[2:] if len(row) == len(first)] for column in range(len(first))
    ]
    numbers = [sum(map(is_value, values)) > 0.9 * len(values) for values in below]
    words = any(
        number
        and cell.lower() not in MISSING
        and re.search(r"[^\W\d]", cell)
        and (" " in cell or not re.search(r"\d", cell))
        for cell, number in zip(second, numbers, strict=True)
    )
    new = not any(cell in values for cell, values in zip(second, below, strict=True) if cell)
    return ", ".join(second) if words and new and not any(map(is_value, second)) else ""


def names_of_index(first: list[str], below: list[list[str]]) -> list[str]:
    """The header with the names that pandas writes a line below it, of the columns that have none above."""
    second = [cell.strip() for cell in below[0]] if below else []
    blank = [not name for name in first]
    if not any(blank) or all(blank) or [bool(cell) for cell in second] != blank or any(map(is_value, second)):
        return []
    return [name or cell for name, cell in zip(first, second, strict=True)]


def known_names(cells: list[str]) -> bool:
    """Whether cells are what columns of events are called: one says "user" or "item" of an id, or most say anything."""
    known = 0
    for cell in cells:
        said = meaning(cell) if cell and not re.search(r"\d", cell) and len(cell) < 40 else None
        if said and said.id and said.roles.keys() & {"user", "item"}:
            return True
        known += bool(said and (said.roles or said.id or said.name or said.never))
    return 2 * known > sum(map(bool, cells))


def is_value(cell: str) -> bool:
    cell = cell.strip()
    return bool(NUMBER.fullmatch(cell) or DATE.fullmatch(cell))


def _kinds(cell: str) -> set[str]:
    """The kinds of characters in a value that names of columns seldom have: digits, and each mark."""
    return set(re.sub(r"[^\W\d]|[\s_]", "", re.sub(r"\d", "9", cell)))
