"""One table of Parquet that several processes read, each a run of its row groups, and what they tell each other.

Ids follow the sorted names, as where one process reads all. Each process sorts the names of its rows and tells a sample
of them; the samples of all part the names into as many ranges as there are processes, about equally large. A name goes
to the process that has its range, whose ids begin where those of the range before end, and its id comes back. Then the
events of a user go to one process, in the order of their rows, and what the processes make of them is joined.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import numpy as np

from l2q import exchange, processes
from l2q.errors import L2QError
from l2q.events.table import Table, named, quoted
from l2q.names import TOGETHER, FiledNames

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
SAMPLES = 512  # names of a process and side, by which names are parted
NUMBER = "file_row_number"


def recognized(table: Table, recognize: Callable[[], T]) -> T:
    """What the first process finds of a table, for all; each then has its own share of the rows to read."""
    if not processes.are_together():
        return recognize()
    found, columns, notes, views = processes.told(
        lambda: (recognize(), table.columns, table.notes, table.views)
    )
    if not processes.leads():
        for view in views:
            table.connection.execute(view)
        table.columns, table.notes = columns, notes
    table.pieces = processes.agreed(lambda: _pieces(table))
    return found


def _pieces(table: Table) -> list[str]:
    """Statements each of which shows a part of this process's share as the table, in the order of its rows."""
    from pyarrow import ArrowException, parquet

    known = table.parquet
    assert known is not None
    described = table.connection.execute("DESCRIBE source.parquet").fetchall()
    numbered = any(name == NUMBER for name, *_ in described)
    by_rows = not numbered or NUMBER in known.options
    groups: list[tuple[Path, int, int]] = []  # of a file, its first row and the one behind the last
    for file in known.files:
        try:
            metadata = parquet.read_metadata(file)
        except (ArrowException, OSError) as error:
            raise L2QError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        ends = np.cumsum([0, *(sizes if by_rows else [sum(sizes)])]).tolist()
        groups += [(file, first, end) for first, end in pairwise(ends)]
    ends = np.cumsum([0, *(end - first for _, first, end in groups)])
    middles = (ends[:-1] + ends[1:]) / 2
    whose = np.minimum(middles * processes.size() // max(ends[-1], 1), processes.size() - 1)
    share: dict[Path, tuple[int, int]] = {}
    for (file, first, end), process in zip(groups, whose, strict=True):
        if process == processes.rank():
            share[file] = share.get(file, (first, end))[0], end
    casts = ", ".join(
        f"CAST({named(name)} AS {kind}) AS {named(name)}" for name, kind, *_ in described
    )  # a part alone may have a smaller type than the whole

    def shown(file: Path, condition: str) -> str:
        number = f", {NUMBER}=true" if by_rows and NUMBER not in known.options else ""
        scan = f"SELECT {casts} FROM read_parquet([{quoted(str(file))}], {known.options}{number}) WHERE {condition}"
        return f"CREATE OR REPLACE VIEW source.parquet AS {scan}"

    if not share:
        return [shown(known.files[0], "false")]
    return [
        shown(file, f"{NUMBER} >= {first} AND {NUMBER} < {end}" if by_rows else "true")
        for file, (first, end) in share.items()
    ]


def distinct(texts: pa.Array) -> int:
    """How many different ones all processes have, told by hashes of 64 bits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.unique(texts)
    if not processes.are_together():
        return len(found)
    with duckdb.connect(config={"threads": 1}) as connection:
        hashed = connection.from_arrow(pa.table({"name": found})).project("hash(name) AS hashed")
        hashes = hashed.fetchnumpy()["hashed"].astype(np.uint64)
    owners = hashes % np.uint64(processes.size())
    coming = exchange.exchanged([hashes[owners == number] for number in range(processes.size())])
    return processes.total(len(np.unique(np.concatenate(coming))))


def numbered(names: Any, present: np.ndarray) -> tuple[np.ndarray, Any]:
    """The id of every one of ``names`` that is ``present``, (names,) int32, and the names by id. Of one process the
    names are a sorted array; of several, those of its own rows, and the result has those of all (``FiledNames``)."""
    if not processes.are_together():
        return np.cumsum(present, dtype=np.int32) - 1, names[present]
    import pyarrow as pa
    import pyarrow.compute as pc

    places = np.flatnonzero(present)
    own = names.take(pa.array(places))
    order = pc.sort_indices(own)
    own, places = own.take(order), places[order.to_numpy()]
    coming = _sent(own, _parted(own))
    received = pa.concat_arrays(coming).dictionary_encode()
    order = pc.sort_indices(received.dictionary).to_numpy()
    counts = processes.everyone(len(order))
    ids = np.empty(len(order), np.int32)
    ids[order] = np.arange(len(order), dtype=np.int32) + sum(counts[: processes.rank()])
    back = ids[received.indices.to_numpy()]
    answers = exchange.exchanged(np.split(back, np.cumsum([len(part) for part in coming])[:-1]))
    found = np.full(len(names), -1, np.int32)
    found[places] = np.concatenate(answers)
    return found, FiledNames.collected(_lines(received.dictionary.take(pa.array(order))), sum(counts))


def _parted(names: pa.Array) -> list[int]:
    """Where the range of every process begins in sorted ``names``, and where the last one ends."""
    count = len(names)
    chosen: Any = np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64)) if count else []
    samples = [(names[int(place)].as_py(), count / len(chosen)) for place in chosen]
    told = sorted(sample for each in processes.everyone(samples) for sample in each)
    weights = np.cumsum([weight for _, weight in told])
    bounds = [
        told[int(np.searchsorted(weights, weights[-1] * number / processes.size()))][0]
        for number in range(1, processes.size())
    ]
    places = [bisect.bisect_left(names, bound, key=lambda name: name.as_py()) for bound in bounds]
    return [0, *places, count]


def _sent(names: pa.Array, ends: list[int]) -> list[pa.Array]:
    """``exchange.exchanged`` of ranges of texts."""
    import pyarrow as pa

    encoded = names.cast(pa.large_binary())
    _, starts, data = encoded.buffers()
    offsets = np.zeros(1, np.int64)
    if len(names):
        offsets = np.frombuffer(starts, np.int64)[encoded.offset : encoded.offset + len(names) + 1]
    whole = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    ranges = list(pairwise(ends))
    lengths = exchange.exchanged([np.diff(offsets[first : end + 1]) for first, end in ranges])
    texts = exchange.exchanged([whole[offsets[first] : offsets[end]] for first, end in ranges])
    found = []
    for length, text in zip(lengths, texts, strict=True):
        buffers = [None, pa.py_buffer(np.concatenate(([0], np.cumsum(length)))), pa.py_buffer(text)]
        found.append(pa.Array.from_buffers(pa.large_string(), len(length), buffers))
    return found


def _lines(names: pa.Array) -> Iterator[bytes]:
    for first in range(0, len(names), TOGETHER):
        yield "".join(f"{name}\n" for name in names.slice(first, TOGETHER).to_pylist()).encode()


def own(users: int) -> tuple[int, int]:
    """The range of users whose events this process gets: the first one, and the one behind the last."""
    if not processes.are_together():
        return 0, users
    number, size = processes.rank(), processes.size()
    return users * number // size, users * (number + 1) // size


def by_user(
    users: np.ndarray, items: np.ndarray, num_users: int, num_items: int, *beside: np.ndarray | None
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """user * num_items + item of every event of the own users, and what stands ``beside``, in the order of the rows."""
    keys = users.astype(np.int64)
    keys *= num_items
    keys += items
    if not processes.are_together():
        return keys, list(beside)
    size = processes.size()
    ends = np.array([num_users * number // size for number in range(1, size)])
    owners = np.searchsorted(ends, users, "right")
    order = np.argsort(owners, kind="stable")
    cuts = np.cumsum(np.bincount(owners, minlength=size))[:-1]

    def sent(column: np.ndarray) -> np.ndarray:
        return np.concatenate(exchange.exchanged(np.split(column[order], cuts)))

    return sent(keys), [None if column is None else sent(column) for column in beside]
