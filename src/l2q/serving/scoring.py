"""Scoring beside the event loop: a thread of its own, and what waits together is searched together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numba
import numpy as np

from l2q.serving.served import KERNELS, Lists, Ranked, Served

CHUNK = 64
"""Users of one search at most. A large question goes in such parts, and the small ones that wait come in between."""
MOST_WAITING = 2048
"""Questions that wait at most."""
T = TypeVar("T")


class Busy(Exception):
    """More questions wait than are answered in a reader's time."""


@dataclass(eq=False)
class _Task:
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future
    work: Callable[[], Any] | None = None  # None: the search of ``rows``, which may be joined with others
    served: Served | None = None
    rows: np.ndarray | None = None
    k: int = 0


class Worker:
    """A thread that answers one task after the other. The kernels let the event loop go on meanwhile.

    Searches for known users of one index that wait at the same time are one search, of as many items as the longest
    asks for: a ranking of k items is the beginning of a longer one. ``joined=1`` joins none.
    """

    def __init__(self, joined: int = CHUNK) -> None:
        self._joined = joined
        self._waiting: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, daemon=True
        )  # a long task does not keep the process
        self._thread.start()

    async def recommend(self, served: Served, rows: np.ndarray, k: int) -> list[Ranked]:
        """``served.recommend`` without lists, for at most ``CHUNK`` users."""
        return await self._put(served=served, rows=rows, k=k)

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns. Raises Busy where too many wait already."""
        return await self._put(work=work)

    def close(self) -> None:
        """Ends the thread when it has done what waits."""
        self._waiting.put(None)

    async def _put(self, **task: Any) -> Any:
        if self._waiting.qsize() >= MOST_WAITING:
            raise Busy
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.put(_Task(loop, done, **task))
        return await done

    def _run(self) -> None:
        # a core is left to the event loop
        numba.set_num_threads(max(numba.get_num_threads() - 1, 1))
        task = self._waiting.get()
        while task is not None:
            batch, task = self._more(task)
            answers: list[tuple[asyncio.Future, Any, BaseException | None]]
            try:
                with KERNELS:
                    found = _answers(batch)
            except BaseException as error:
                answers = [(each.done, None, error) for each in batch]
            else:
                answers = [(each.done, answer, None) for each, answer in zip(batch, found, strict=True)]
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                batch[0].loop.call_soon_threadsafe(_settle, answers)
            if task is _NOTHING:
                task = self._waiting.get()

    def _more(self, first: _Task) -> tuple[list[_Task], _Task | None]:
        """The tasks that are searched together, and the next one: ``_NOTHING`` where none waits."""
        batch, users = [first], 0 if first.rows is None else len(first.rows)
        while True:
            try:
                task = self._waiting.get_nowait()
            except Empty:
                return batch, _NOTHING
            if (
                task is None
                or task.rows is None
                or first.rows is None
                or (task.served, task.loop) != (first.served, first.loop)
                or users + len(task.rows) > self._joined
            ):
                return batch, task
            batch.append(task)
            users += len(task.rows)


_NOTHING: Any = object()


def _answers(batch: list[_Task]) -> list[Any]:
    if batch[0].work is not None:
        return [batch[0].work()]
    served = batch[0].served
    assert served is not None
    rows = np.concatenate([task.rows for task in batch if task.rows is not None])
    rankings = iter(served.recommend(rows, max(task.k for task in batch), Lists()))
    found = []
    for task in batch:
        mine = [next(rankings) for _ in task.rows]  # type: ignore[union-attr]
        found.append([(items[: task.k], scores[: task.k]) for items, scores in mine])
    return found


def _settle(answers: list[tuple[asyncio.Future, Any, BaseException | None]]) -> None:
    for done, answer, error in answers:
        if done.done():  # who asked is gone
            continue
        if error is None:
            done.set_result(answer)
        else:
            done.set_exception(error)
