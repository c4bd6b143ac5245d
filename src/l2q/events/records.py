"""Records of lines whose quotes or number of fields are odd.

A quote opens a field only at its begin. If it closes on its line, or on a later one such that the record has the right
number of fields, it is a quote; if it never closes, or all lines up to there are records by themselves, it is text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from l2q.errors import L2QError
from l2q.events.foreign import FOOT

TEXT_LINES = 1000  # lines that a quoted text may have, and
TEXT_BYTES = 1 << 24
_SPACES = re.compile(rb'" +(.?)', re.DOTALL)
STAND_IN = b"\x1f"  # for a delimiter of several characters


@dataclass
class Found:
    """What the lines of the files came to: counts, and the first line of each kind."""

    lines: int = 0
    short: int = 0
    first_short: str = ""
    long: int = 0  # with empty fields at the end
    stray: int = 0
    first_stray: str = ""
    headers: int = 0
    comments: int = 0
    nulls: int = 0
    returns: int = 0
    longest: int = 0  # bytes of a line


@dataclass(frozen=True)
class Layout:
    """``delimiter`` of the file, ``fields`` a line, ``head``: the header's line."""

    delimiter: bytes
    fields: int
    head: bytes = b""
    netflix: bool = False
    numbers: tuple[int, ...] = ()  # columns of numbers and dates
    ruled: bool = False  # it has lines such as +---+---+
    returns: bool = False  # carriage returns within lines end them

    @property
    def byte(self) -> bytes:
        """The delimiter after ``alike``, one byte."""
        if self.delimiter == b" ":
            return b"\t"
        return self.delimiter if len(self.delimiter) == 1 else STAND_IN


def alike(block: bytes, layout: Layout, movie: bytes) -> tuple[bytes, bytes]:
    """The block with one byte between fields, without lines that are drawn for people."""
    if layout.ruled:
        block = FOOT.sub(b"", re.sub(rb"(?m)^[ \t]*[-+=|: ]*(--|==)[-+=|: ]*$", b"", block))
    if layout.netflix:
        pieces = re.split(rb"(?m)^(\d+):[ \t]*\n", block)
        out = [_with_movie(pieces[0], movie)]
        for movie, events in zip(pieces[1::2], pieces[2::2], strict=True):
            out.append(
                b"\n" + re.sub(rb"(?<!\n)\n", b"," + movie + b"\n", events)
            )  # an empty line keeps the count
        return b"".join(out), movie
    if layout.delimiter == b" ":
        block = re.sub(rb"[ \t]+(?=\n)|(?m:^)[ \t]+", b"", block)
        return re.sub(rb'("[^"\n]*")|[ \t]+', lambda match: match[1] or b"\t", block), movie
    if len(layout.delimiter) > 1:
        block = block.replace(STAND_IN, b" ").replace(layout.delimiter, STAND_IN)
    return block, movie


def _with_movie(events: bytes, movie: bytes) -> bytes:
    return re.sub(rb"(?<=[^\n])\n", b"," + movie + b"\n", events)


def ends_of(block: bytes) -> np.ndarray:
    return np.flatnonzero(np.frombuffer(block, np.uint8) == 10)


def odd_lines(block: bytes, ends: np.ndarray, separator: int, fields: int) -> np.ndarray:
    """Numbers of the lines that do not have ``fields`` fields, quoted if at all as RFC 4180 wants it."""
    text = np.frombuffer(block, np.uint8)
    wanted = fields - 1
    if b'"' in block and _all_quoted(text, ends, separator, fields):
        return np.empty(0, np.int64)
    marks = np.flatnonzero(text == separator)
    if b'"' not in block:
        if len(marks) == wanted * len(ends):
            grid = marks.reshape(-1, wanted)
            starts = np.concatenate(([-1], ends[:-1]))
            if (grid[:, 0] > starts).all() and (grid[:, -1] < ends).all():
                return np.empty(0, np.int64)
        counts = np.diff(np.searchsorted(marks, ends), prepend=0)
        return np.flatnonzero(counts != wanted)
    quotes = np.flatnonzero(text == 34)
    lines_at = np.cumsum(text == 10, dtype=np.int32)
    quotes_at = np.cumsum(text == 34, dtype=np.int32)
    line = lines_at[quotes]
    upto = quotes_at[ends]
    before_line = np.concatenate(([0], upto[:-1]))  # quotes before each line
    opens = (np.arange(len(quotes)) - before_line[line]) % 2 == 0
    before = np.where(quotes > 0, text[quotes - 1], 10)
    after = text[quotes + 1]  # there is one: the block ends in a line end
    edge_before = (before == separator) | (before == 10)
    fine = np.where(opens, edge_before | (before == 34), (after == separator) | (after == 10) | (after == 34))
    lines = len(ends)
    begins = np.bincount(line[edge_before], minlength=lines) > 0  # lines with a quote where a field begins
    if b' "' in block:  # DuckDB takes spaces before a quote for nothing
        spaced = re.finditer(rb'(?:^|(?<=[\n%b])) +"' % re.escape(bytes([separator])), block)
        begins[np.searchsorted(ends, [match.start() for match in spaced])] = True
    wrong = begins & ((np.bincount(line[~fine], minlength=lines) > 0) | (np.diff(upto, prepend=0) % 2 == 1))
    at = lines_at[marks]
    inside = begins[at] & ((quotes_at[marks] - before_line[at]) % 2 == 1)
    counts = np.bincount(at[~inside], minlength=lines)
    return np.flatnonzero(wrong | (counts != wanted))


def _all_quoted(text: np.ndarray, ends: np.ndarray, separator: int, fields: int) -> bool:
    """Whether every line is ``"...","..."`` with no quote within."""
    quotes = np.flatnonzero(text == 34)
    if len(quotes) != 2 * fields * len(ends):
        return False
    grid = quotes.reshape(len(ends), 2 * fields)
    closing, opening = grid[:, 1:-1:2], grid[:, 2::2]
    starts = np.concatenate(([0], ends[:-1] + 1))
    return bool(
        (grid[:, 0] == starts).all()
        and (grid[:, -1] + 1 == ends).all()
        and (closing + 2 == opening).all()
        and (text[closing + 1] == separator).all()
    )


def heads(block: bytes, head: bytes) -> list[int]:
    """Where a line equals the header."""
    places, at = [], block.find(head + b"\n")
    while at >= 0:
        if at == 0 or block[at - 1] == 10:
            places.append(at)
        at = block.find(head + b"\n", at + 1)
    return places


def mend(
    block: bytes, where: str, layout: Layout, number: int, last: bool, found: Found
) -> tuple[bytes, bytes, int]:
    """The block with its odd lines mended, what is left for the next block, and how many lines were used."""
    separator = layout.byte
    ends = ends_of(block)
    starts = np.concatenate(([0], ends[:-1] + 1))
    odd = odd_lines(block, ends, separator[0], layout.fields)
    head = alike(layout.head + b"\n", layout, b"")[0][:-1] if layout.head else b""
    repeated = np.searchsorted(starts, heads(block, head)) if head else np.empty(0, np.int64)
    again = set(repeated.tolist())
    out: list[bytes] = []
    copied = 0  # the bytes before are dealt with
    following = 0  # so are the lines before
    for line in np.union1d(odd, repeated).tolist():
        if line < following:
            continue
        text = block[starts[line] : ends[line]]
        out.append(block[copied : starts[line]])
        used = 1
        if line in again:
            found.headers += 1
        elif text.strip():
            record = _record(block, starts, ends, line, layout, last)
            if record is None:  # its end is in the next block
                found.lines += line
                return b"".join(out), block[starts[line] :], line
            used, cells, stray = record
            place = f"{where}:{number + line}"
            if len(cells) != layout.fields:
                cells = _ragged(text, cells, place, layout, found)
            elif stray:
                found.stray += 1
                found.first_stray = found.first_stray or place
            if cells:
                out.append(_joined(cells, separator))
                found.longest = max(found.longest, len(out[-1]))
        following = line + used
        copied = int(ends[following - 1]) + 1
    out.append(block[copied:])
    found.lines += len(ends)
    found.longest = max(found.longest, int(np.diff(ends, prepend=-1).max(initial=0)))
    return b"".join(out), b"", len(ends)


def _record(
    block: bytes, starts: np.ndarray, ends: np.ndarray, line: int, layout: Layout, last: bool
) -> tuple[int, list[bytes], bool] | None:
    """How many lines the record of ``line`` has, its fields, and whether a quote in it is text. None: to tell, the
    lines after the block are wanted."""
    separator, fields = layout.byte, layout.fields
    text = block[starts[line] : ends[line]]
    plain = text.split(separator)
    if b'"' not in text:
        return 1, plain, False
    for backslash in (True, False) if b'\\"' in text else (False,):
        cells = split(text, separator, backslash)
        if cells is not None and len(cells) == fields:
            return 1, cells, False
    some = split(text, separator, False, open_is_text=True)  # quoted fields beside a quote that is text
    if some is not None and len(some) == fields:
        plain = some
    alone = len(plain) == fields
    complete = True  # whether all further lines of the text are records by themselves
    until = min(line + TEXT_LINES, len(ends))
    for further in range(line + 1, until):
        below = block[starts[further] : ends[further]]
        closes = b'"' in below
        if closes:
            cells = split(block[starts[line] : ends[further]], separator, False)
            if cells is not None and len(cells) == fields:
                complete = complete and _is_record(below, layout)
                if not (alone and complete):
                    return further - line + 1, cells, False
                break
        complete = complete and (not below.strip() or _is_record(below, layout))
        if alone and complete and further - line > 20:
            break  # a text of so many lines, each a record, is none
    else:
        if until == len(ends) and not last and ends[-1] - starts[line] < TEXT_BYTES:
            return None
    return 1, plain, alone


def _is_record(text: bytes, layout: Layout) -> bool:
    """Whether a line has the right number of fields, and numbers and dates where the others have them."""
    cells = text.split(layout.byte)
    number = rb'[\s"]*([-+.]?\d[-\d.,:/TZ eE+]*[\s"]*)?'
    return len(cells) == layout.fields and all(
        re.fullmatch(number, cells[column]) for column in layout.numbers
    )


def split(text: bytes, separator: bytes, backslash: bool, open_is_text: bool = False) -> list[bytes] | None:
    """The fields of a record with quotes; ``backslash``: that a quote behind one is text. None: a quote is open, unless
    ``open_is_text``.

    A quote opens where a field begins, after spaces at most, and closes before a separator or the end.
    """
    cells: list[bytes] = []
    at = 0
    while True:
        start = at
        while text[start : start + 1] == b" ":
            start += 1
        if text[start : start + 1] != b'"':
            end = text.find(separator, at)
            if end < 0:
                return [*cells, text[at:]]
            cells.append(text[at:end])
            at = end + 1
            continue
        end = start + 1
        while True:
            end = text.find(b'"', end)
            if end < 0:
                break
            behind = text[end + 1 : end + 2]
            if behind == b" " and (spaces := _SPACES.match(text, end)) and spaces[1] in (b"", separator):
                behind = spaces[1]
            if backslash and text[end - 1 : end] == b"\\":
                end += 1
            elif behind == b'"':
                end += 2
            elif behind in (b"", separator):
                break
            else:
                end += 1  # a quote within the text
        if end < 0:
            if not open_is_text:
                return None
            end = text.find(separator, at)
            if end < 0:
                return [*cells, text[at:]]
            cells.append(text[at:end])
            at = end + 1
            continue
        cell = text[start + 1 : end].replace(b'""', b'"')
        cells.append(cell.replace(b'\\"', b'"') if backslash else cell)
        if not behind:
            return cells
        at = text.find(separator, end) + 1


def _ragged(text: bytes, cells: list[bytes], place: str, layout: Layout, found: Found) -> list[bytes]:
    """The fields to keep of a line that has not as many as the others; none drops the line."""
    if text[:1] in (b"#", b"%") and len(cells) < layout.fields:
        found.comments += 1
        return []
    if len(cells) < layout.fields:
        found.short += 1
        found.first_short = found.first_short or place
        return []
    if any(cell.strip() for cell in cells[layout.fields :]):
        raise L2QError(
            f"{place}: {len(cells)} fields where the other lines have {layout.fields}; put texts that hold the "
            "delimiter into quotes, or name another with delimiter="
        )
    found.long += 1
    return cells[: layout.fields]


def _joined(cells: list[bytes], separator: bytes) -> bytes:
    """A clean line."""
    return (
        separator.join(
            b'"' + cell.replace(b'"', b'""') + b'"'
            if b'"' in cell or b"\n" in cell or separator in cell
            else cell
            for cell in cells
        )
        + b"\n"
    )
