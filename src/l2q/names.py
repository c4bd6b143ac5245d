"""Names that lie in a file instead of memory, and those of rows that were given none."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from l2q import exchange, processes

CHUNK = 1 << 22  # bytes that are looked at together
TOGETHER = 100_000  # names that are written together
BREAK = ord("\n")


class FiledNames:
    """Names by row, of which the first of several processes has a file and the others know how many there are.

    ``names[row]`` is a name, ``names[2:5]`` a list of some; ``names[mask]``, or an array of ascending rows, the names
    of these. ``text``: (bytes,)
    uint8, UTF-8 with a line break behind each, mapped from the file; None where another process has it. ``ends``:
    behind which byte each ends, (names,).

    It holds 8 bytes a name, and what is looked at.
    """

    def __init__(self, count: int, text: np.ndarray | None = None, ends: np.ndarray | None = None) -> None:
        self._count, self.text, self._ends = count, text, ends

    @classmethod
    def collected(cls, chunks: Iterable[bytes], count: int) -> FiledNames:
        """``chunks`` of lines, of every process those of its rows; the first one writes them all."""
        file = _File() if processes.leads() else None
        exchange.collected(chunks, lambda chunk: file.write(chunk) if file is not None else None)
        return cls(count) if file is None else cls(count, *file.mapped())

    @classmethod
    def of_file(cls, path: Path) -> FiledNames:
        """Lines of a file that stays as it is, each with its break. Raises ValueError for what is no UTF-8."""
        text = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
        ends = [np.empty(0, np.int64)]
        for first in range(0, len(text), CHUNK):
            ends.append(np.flatnonzero(text[first : first + CHUNK] == BREAK) + first + 1)
        names = cls(sum(map(len, ends)), text, np.concatenate(ends))
        if len(text) and text[-1] != BREAK:
            raise ValueError("the last line has no end")
        for chunk in names.lines():
            chunk.decode()
        return names

    @classmethod
    def of_bytes(cls, chunks: Iterable[bytes]) -> FiledNames:
        """Lines that this process has; the last one may lack its break."""
        file = _File()
        for chunk in chunks:
            file.write(chunk)
        text, ends = file.mapped()
        return cls(len(ends), text, ends)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, which: Any) -> Any:
        if self.text is None or self._ends is None:
            if isinstance(which, np.ndarray):
                return FiledNames(int(which.sum()) if which.dtype == bool else len(which))
            raise LookupError("the first process has the names")
        if isinstance(which, slice):
            return [self[row] for row in range(self._count)[which]]
        if not isinstance(which, np.ndarray):
            row = range(self._count)[which]
            first = int(self._ends[row - 1]) if row else 0
            return self.text[first : int(self._ends[row]) - 1].tobytes().decode()
        rows = np.flatnonzero(which) if which.dtype == bool else which
        parts = (rows[first : first + TOGETHER] for first in range(0, len(rows), TOGETHER))
        return FiledNames.of_bytes("".join(f"{self[int(row)]}\n" for row in part).encode() for part in parts)

    def __iter__(self) -> Iterator[str]:
        for chunk in self.lines():
            yield from chunk.decode().split("\n")[:-1]

    def __contains__(self, name: object) -> bool:
        return next(self._rows(name), None) is not None

    def index(self, name: str) -> int:
        """The first row that has it. Raises ValueError where none has."""
        if (row := next(self._rows(name), None)) is None:
            raise ValueError(f"{name!r} is no name")
        return row

    def count(self, name: str) -> int:
        """How many rows have it."""
        return sum(1 for _ in self._rows(name))

    def _rows(self, name: object) -> Iterator[int]:
        """Every row that has it."""
        line, first = f"\n{name}\n".encode(errors="surrogatepass"), 0
        if line.count(b"\n") > 2 or self._ends is None:
            return
        for chunk in self.lines():
            lines = b"\n" + chunk
            at = lines.find(line)
            while at >= 0:
                yield int(np.searchsorted(self._ends, first + at, "right"))
                at = lines.find(line, at + 1)
            first += len(chunk)

    def lines(self) -> Iterator[bytes]:
        """The file in chunks of whole lines."""
        if self.text is None or self._ends is None:
            raise LookupError("the first process has the names")
        first = 0
        while first < len(self.text):
            place = int(np.searchsorted(self._ends, first + CHUNK, "right")) - 1
            end = max(
                int(self._ends[max(place, 0)]), int(self._ends[np.searchsorted(self._ends, first, "right")])
            )
            yield self.text[first:end].tobytes()
            first = end


class RowNumbers(Sequence[str]):
    """The names of ``count`` rows that were given none: their numbers, as words. It holds none of them.

    >>> names = RowNumbers(12)
    >>> names[3], names[9:], names.index("11"), "12" in names
    ('3', ['9', '10', '11'], 11, False)
    """

    def __init__(self, count: int) -> None:
        self._rows = range(count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Any) -> Any:
        found = self._rows[which]
        return str(found) if isinstance(found, int) else [str(row) for row in found]

    def __iter__(self) -> Iterator[str]:
        return map(str, self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.count(name) == 1

    def index(self, name: str, *within: int) -> int:
        """The row that has it. Raises ValueError where none has."""
        if self.count(name) == 0:
            raise ValueError(f"{name!r} is no name")
        return self._rows.index(int(name), *within)

    def count(self, name: str) -> int:
        """1 for a row number without signs and leading zeros, else 0."""
        plain = name.isascii() and name.isdigit() and len(name) < 20 and str(int(name)) == name
        return int(plain and int(name) in self._rows)


class _File:
    """Lines that are written to a file without a name, which goes with the process."""

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="l2q-names-")  # noqa: SIM115
        self._size, self._ends = 0, [np.empty(0, np.int64)]

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == BREAK) + self._size + 1)
        self._size += len(chunk)

    def mapped(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes and where lines end."""
        if self._size and self._size != max((int(ends[-1]) for ends in self._ends if len(ends)), default=0):
            self.write(b"\n")
        self._file.flush()
        text = np.memmap(self._file, np.uint8, "r") if self._size else np.empty(0, np.uint8)
        return text, np.concatenate(self._ends)
