"""The lines of a text file, checked one by one before DuckDB reads them, and written anew where something is mended.

A file is clean if it is UTF-8 with ``\\n`` at the end of lines and every line has the same number of fields, quoted as
RFC 4180 wants it: DuckDB then reads it where it is. Every other file is written to a temporary one, by blocks: its
encoding and line ends are made those, and its odd lines are mended (see ``records``).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from l2q.errors import L2QError
from l2q.events.records import Found, Layout, alike, ends_of, heads, mend, odd_lines

BLOCK = 1 << 23  # bytes
LONGEST = 1 << 28  # bytes of a line
SHORT = 0.1  # share of lines that may lack fields


class Unclean(Exception):
    """The file has to be written anew."""


def check(path: Path, where: str, layout: Layout, skip: int, found: Found) -> None:
    """Raises Unclean unless DuckDB can read the file where it is, from line ``skip`` on."""
    if len(layout.delimiter) > 1 or layout.netflix or layout.ruled:
        raise Unclean
    separator = layout.delimiter[0]
    with path.open("rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            raise Unclean
        file.seek(0)
        rest = b""
        while block := file.read(BLOCK):
            if b"\r" in block or b"\0" in block or codecs.BOM_UTF8 in block:
                raise Unclean
            block, rest = _whole_lines(rest + block, where)
            skip = _check_block(block, layout, separator, skip, found)
        if rest:
            _check_block(rest + b"\n", layout, separator, skip, found)


def _check_block(block: bytes, layout: Layout, separator: int, skip: int, found: Found) -> int:
    block, skip = _without_head(block, skip)
    ends = ends_of(block)
    odd = odd_lines(block, ends, separator, layout.fields)
    if len(odd):
        lengths = ends[odd] - np.where(odd > 0, ends[odd - 1], -1)
        if (lengths > 1).any():
            raise Unclean
    if layout.head and heads(block, layout.head):
        raise Unclean
    if len(ends):
        found.longest = max(found.longest, int(np.diff(ends, prepend=-1).max()))
    return skip


def write(path: Path, to: Path, where: str, layout: Layout, skip: int, encoding: str, found: Found) -> None:
    """The events of a file as clean lines, with ``layout.byte`` between fields. Counts in ``found`` what was mended.

    Raises L2QError, with file and line, for lines with too many fields, and where many have too few.
    """
    number = 1  # of the first line of the block
    rest = b""
    fresh = Found()
    with to.open("wb") as out:
        movie = b""
        blocks = _blocks(path, where, encoding, fresh, layout.returns)
        for block, last in _with_last(blocks):
            left = skip
            block, skip = _without_head(block, skip)
            number += left - skip
            block, movie = alike(block, layout, movie)
            block = rest + block
            clean, rest, count = mend(block, where, layout, number, last, fresh)
            number += count
            out.write(clean)
    if fresh.short > max(1, SHORT * fresh.lines):
        raise L2QError(
            f"{fresh.first_short}: fewer than {layout.fields} fields, as in {fresh.short:,} lines of "
            f"{fresh.lines:,}; delimiter= names what stands between fields"
        )
    for name, value in vars(fresh).items():
        before = getattr(found, name)
        together = max(before, value) if name == "longest" else before + value
        setattr(found, name, together if isinstance(value, int) else before or value)


def first_lines(path: Path, encoding: str, size: int = 1 << 20) -> list[str]:
    """The first lines of a file, without line ends; what is not in the encoding is replaced."""
    with path.open("rb") as file:
        head = file.read(size)
        more = bool(file.read(1))
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head, not more)
    text = text.replace("\ufeff", "").replace("\0", "").replace("\r\n", "\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n")
    if more and len(lines) > 1:
        lines.pop()
    while lines and not lines[-1].strip():
        lines.pop()
    return lines[:2000]


def _blocks(path: Path, where: str, encoding: str, found: Found, returns: bool) -> Iterator[bytes]:
    """The file as UTF-8 in whole lines that end in ``\\n``, without bytes 0."""
    decoder = codecs.getincrementaldecoder(encoding)()
    plain = encoding in ("utf-8", "utf-8-sig")
    with path.open("rb") as file:
        ends = _line_end(file.read(1 << 20), encoding)
        file.seek(0)
        rest, first, lines = b"", True, 0
        while True:
            read = file.read(BLOCK)
            try:
                ascii = plain and read and read.isascii() and not decoder.getstate()[0]
                block = read if ascii else decoder.decode(read, not read).encode()
            except UnicodeError as error:
                line = lines + 1 + read[: getattr(error, "start", 0)].count(b"\n")
                raise L2QError(
                    f"{where}:{line}: the text is not {encoding}; encoding= names what it is in"
                ) from error
            if plain and not block and read:
                continue
            lines += block.count(b"\n")
            if first and block:
                block, first = block.removeprefix(codecs.BOM_UTF8), False
            block = block.replace(b"\n" + codecs.BOM_UTF8, b"\n")  # of joined files
            if b"\0" in block:
                found.nulls += block.count(b"\0")
                block = block.replace(b"\0", b"")
            block = rest + block
            held = block.endswith(b"\r") and bool(read)  # its \n may follow
            rest = b"\r" if held else b""
            block = block[:-1] if held else block
            if b"\r" in block:
                block = block.replace(b"\r\n", b"\n")
                if returns or ends == b"\r":
                    block = block.replace(b"\r", b"\n")
                elif b"\r" in block:
                    found.returns += block.count(b"\r")
                    block = block.replace(b"\r", b" ")
            if not read:
                if block:
                    yield block if block.endswith(b"\n") else block + b"\n"
                return
            block, tail = _whole_lines(block, where)
            rest = tail + rest
            if block:
                yield block


def _line_end(head: bytes, encoding: str) -> bytes:
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return b"\r" if "\r" in text and "\n" not in text else b"\n"


def _whole_lines(block: bytes, where: str) -> tuple[bytes, bytes]:
    cut = block.rfind(b"\n") + 1
    if not cut and len(block) > LONGEST:
        raise L2QError(f"{where} has a line of more than {LONGEST >> 20} MiB: it is no table of text")
    return block[:cut], block[cut:]


def _with_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    before: bytes | None = None
    for block in blocks:
        if before is not None:
            yield before, False
        before = block
    if before is not None:
        yield before, True


def _without_head(block: bytes, skip: int) -> tuple[bytes, int]:
    cut = 0
    while skip and cut < len(block):
        cut = block.index(b"\n", cut) + 1
        skip -= 1
    return block[cut:], skip
