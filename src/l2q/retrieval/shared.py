"""The items of an index shared by several processes, each of which ranks a range of them.

Of p processes number r has the rows from r N / p to (r + 1) N / p, whole tiles of them where they are floats. Its list
of a query is the exact one of its range, best first, among equal scores the lower id first. So

    top_k(u) = the first k of [list of range 0, list of range 1, ...], sorted by descending score without moving equals

is that of one process, ties included: the scores of an item do not depend on the others.

The first process asks. A question is a broadcast of query rows and of what they exclude, 8 k bytes a query come back
from each of the others. They have no names and no rows of users.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from l2q import processes
from l2q.errors import L2QError
from l2q.files import checksum
from l2q.interactions import Interactions
from l2q.representations import Rows

if TYPE_CHECKING:  # who only starts processes does without kernels
    from l2q.retrieval.index import Backend
    from l2q.retrieval.named import Index

FOREVER = timedelta(days=3650)  # that a process waits for a question
KEPT = 3  # indexes that a process has: a service has two at most, and opens another one
Found = tuple[np.ndarray, np.ndarray]


class Question(NamedTuple):
    """What every process is asked. ``checksum`` of the manifest: each must have the same index in the ``folder``.
    ``queries`` are rows of users as they are ``stored``, or rows that somebody made; ``indptr`` and ``items`` are what
    each of them excludes."""

    folder: Path
    checksum: str
    near: bool
    queries: Rows
    stored: bool
    k: int
    indptr: np.ndarray
    items: np.ndarray


@contextmanager
def share_items() -> Iterator[None]:
    """Within it, the processes that torchrun started share the items of every index that is opened from a folder.

    The first process goes in. The others answer its searches until it leaves, and end. Each of them opens the same
    folder and holds its range of the item codes; rankings, scores and ties are those of one process. Where torchrun did
    not start the process, nothing changes.

        with l2q.share_items():
            index = l2q.load_index("index")
            items, scores = index.recommend("ffmpeg", k=10)

    Raises L2QError, in a search, where a process has ended or has another index in the folder.
    """
    if processes.started() == 1:
        yield
        return
    if not processes.join():
        sys.exit(_answer())
    processes.connect(FOREVER)
    group = Group()
    _groups.append(group)
    try:
        yield
    finally:
        _groups.remove(group)
        group.end()
        processes.leave()


_groups: list[Group] = []


def group() -> Group | None:
    """Who shares items with this process, the first one; None: nobody."""
    return _groups[0] if _groups else None


class Group:
    """All processes, as the first one has them."""

    def __init__(self) -> None:
        self._turn = threading.Lock()  # a service opens an index while another thread asks
        self._whole = True  # everything that was asked is answered

    def ask(self, question: Question | None, own: Callable[[], Any]) -> list[Any]:
        """What all processes answer, in the order of their numbers; ``own`` is what this one does for it. Raises
        L2QError with what the first one says that cannot answer, and MemoryError for one that lacks memory."""
        import torch.distributed as dist

        with self._turn:
            if not self._whole:
                raise L2QError("a search by several processes was broken off; start them again")
            self._whole = False
            said: list[Any] = [None] * processes.size()
            with processes.lost():
                dist.broadcast_object_list([question])
                dist.gather_object(_tried(own), said)
            self._whole = True
        for number, answer in enumerate(said):
            if isinstance(answer, MemoryError):
                raise MemoryError
            if isinstance(answer, Exception):
                raise L2QError(f"process {number} of {len(said)}: {answer}") from answer
        return said

    def end(self) -> None:
        """The other processes end, too."""
        if self._whole:  # otherwise connections that close tell them
            with suppress(L2QError):
                self.ask(None, lambda: None)
        self._whole = False


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # the first process says it
        return error


def _answer() -> int:
    """What a process other than the first does, and its exit code."""
    import torch.distributed as dist

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the first one ends all
    ranges: dict[str, Range] = {}
    told: list[Question | None] = [None]
    try:
        processes.connect(FOREVER)
        with processes.lost():
            while True:
                dist.broadcast_object_list(told)
                if (question := told[0]) is None:
                    break
                dist.gather_object(_tried(partial(_found, ranges, question)))
            dist.gather_object(None)
        processes.leave()
    except L2QError as error:
        if processes.rank() == 1:  # once
            print(f"process {processes.rank()} of {processes.size()}: {error}", file=sys.stderr)
        return 2
    return 0


def _found(ranges: dict[str, Range], question: Question) -> Found:
    if question.checksum not in ranges:
        from l2q.retrieval.storage import opened

        index = opened(question.folder, named=False)
        if checksum(index.manifest) != question.checksum:
            raise L2QError(f"index {question.folder} is not the one that the first process has opened")
        if len(ranges) == KEPT:
            del ranges[next(iter(ranges))]
        ranges[question.checksum] = Range(index)
    found = ranges[question.checksum] = ranges.pop(question.checksum)  # the last one asked is the last to go
    return found.search(question)


class Range:
    """This process's range of the items of an ``index``."""

    def __init__(self, index: Index) -> None:
        number, size, unit = processes.rank(), processes.size(), 1
        if "items.codes" not in index.arrays:
            from l2q.retrieval.index import TILE as unit
        units = -(-index.num_items // unit)
        ends = [min(units * n // size * unit, index.num_items) for n in (number, number + 1)]
        self.items = slice(*ends)
        self._backend = some_items(index, self.items) if ends[0] < ends[1] else None

    def search(self, question: Question) -> Found:
        """Its best, by their row numbers among all items."""
        queries, k, indptr = question.queries, question.k, question.indptr
        if self._backend is None:
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int32)
        inside = (question.items >= self.items.start) & (question.items < self.items.stop)
        before = np.concatenate(([0], np.cumsum(inside)))
        exclude = Interactions(
            before[indptr], question.items[inside] - np.int32(self.items.start), self._backend.num_items
        )
        backend: Backend = self._backend.near if question.near else self._backend
        if question.stored:
            found = backend.with_users(queries).search(np.arange(len(queries)), k, exclude)
        else:
            found = backend.search(queries, k, exclude)
        return found[0], np.where(found[1] >= 0, found[1] + np.int32(self.items.start), -1)


class SharedItems:
    """All items as a back end (``l2q.retrieval.index``) of the first process."""

    def __init__(self, group: Group, index: Index) -> None:
        from l2q.retrieval.index import stored

        assert index.folder is not None
        self.num_users, self.num_items = index.num_users, index.num_items
        self._group, self._index, self._range = group, index, Range(index)
        self._users, self._is_near = stored(index.arrays, "users"), False
        self._where = index.folder.absolute(), checksum(index.manifest)

    def item_rows(self, items: np.ndarray) -> Rows:
        some = some_items(self._index, items)
        return (some.near if self._is_near else some).item_rows(np.arange(len(items)))

    @cached_property
    def near(self) -> SharedItems:
        index = copy(self)
        index._is_near = True
        return index

    def with_users(self, users: Rows) -> SharedItems:
        index = copy(self)
        index._users, index.num_users = users, len(users)
        return index

    def search(self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None) -> Found:
        from l2q.kernels.packed import exclusions_of
        from l2q.retrieval.index import rows_of_queries, take

        side, rows = rows_of_queries(self, self._users, users, k, exclude)
        firsts, ends, excluded = exclusions_of(exclude, rows)
        lengths = ends - firsts
        starts = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(starts[-1]) + np.repeat(firsts - starts[:-1], lengths)
        question = Question(
            *self._where,
            self._is_near,
            take(side, rows),
            side is self._users,
            k,
            starts,
            excluded[places],
        )
        found = self._group.ask(question, partial(self._range.search, question))
        scores, items = (np.concatenate(side, axis=1) for side in zip(*found, strict=True))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(items, best, axis=1)


def some_items(index: Index, items: slice | np.ndarray) -> Backend:
    """The items alone, in the form that searches."""
    from l2q.retrieval.index import backend, stored

    none, some = stored(index.arrays, "users", slice(0)), stored(index.arrays, "items", items)
    return backend(none, some, index.dims, index.weights, index.num_items)
