"""Where the embeddings start: each is called with (train, dim, seed) and returns both sides of E^(0)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from scipy import sparse

from l2q.data.interactions import Interactions
from l2q.errors import check_whole
from l2q.models.coordinate_descent import CoordinateDescent, fit
from l2q.models.new_users import FilterSide
from l2q.models.spectral import spectral
from l2q.models.teacher import Teacher, TeacherScores
from l2q.models.top_lists import LENGTH, MEASURED, heads


@dataclass(frozen=True)
class Normal:
    """Independent N(0, std^2) entries."""

    std: float = 0.01

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        nodes = rng.standard_normal((train.num_users + train.num_items, dim), dtype=np.float32) * self.std
        return nodes[: train.num_users], nodes[train.num_users :]


@dataclass(frozen=True)
class Popularity:
    """score(u, i) = degree of i, for every user: the first column holds it, the others are zero."""

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        users = np.zeros((train.num_users, dim), dtype=np.float32)
        items = np.zeros((train.num_items, dim), dtype=np.float32)
        users[:, 0] = 1
        items[:, 0] = train.item_degrees
        return users, items


@dataclass(frozen=True)
class Spectral:
    """Truncated SVD of the normalized interactions: U sqrt(s) and V sqrt(s) (``l2q.models.spectral``); a
    width beyond the rank of the data is filled up with zeros."""

    gamma_user: float = 0.5
    gamma_item: float = 0.5

    def __call__(self, train: Interactions, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rank = min(dim, train.num_users, train.num_items)
        sides = spectral(train, rank, seed, self.gamma_user, self.gamma_item)
        users, items = (np.pad(side, ((0, 0), (0, dim - rank))) for side in sides)
        return users, items


class Start(tuple[np.ndarray, np.ndarray]):
    """Both sides of E^(0); the teacher, its scores and every user's best items by them, whose first the codes were
    fitted to; and what an index keeps of the teacher's filter for users who come later."""

    teacher: Teacher
    scores: TeacherScores
    lists: sparse.csr_array
    filter_side: FilterSide


@dataclass(frozen=True)
class FittedCodes:
    """Codes of ``dim`` bits fitted to the scores of a teacher by coordinate descent.

    Row scales of the quantizer give them back to the bit: items are codes times their scales, users plain
    codes, since a user's scale cannot change a ranking.
    """

    teacher: Teacher = field(default_factory=Teacher)
    descent: CoordinateDescent = field(default_factory=CoordinateDescent)
    length: int = LENGTH

    def __post_init__(self) -> None:
        check_whole("initialization.length", self.length, 1)

    def __call__(self, train: Interactions, dim: int, seed: int) -> Start:
        with steps() as progress:
            scores = self.teacher(train, seed, progress)
            base, ranking = scores.lists(train, self.length, progress, MEASURED)
            lists = heads(ranking, self.length)
            codes = fit(base, lists, replace(self.descent, bits=dim), seed, train, progress)
        assert codes.items.scales is not None
        start = Start((codes.users.values.astype(np.float32), codes.items.values * codes.items.scales))
        weight = self.descent.list_weight(lists)
        start.teacher, start.scores, start.lists = self.teacher, scores, ranking
        start.filter_side = FilterSide.of(self.teacher.filter, scores.filter, weight, self.length)
        return start


SILENCE = 30  # seconds


@contextmanager
def steps() -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar with the time left for ``progress(done, total, label)`` calls; where the output is no terminal,
    which shows the bar at the end alone, also a line every half minute."""
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        tasks: dict[str, TaskID] = {}
        said = time.perf_counter()

        def progress(done: int, total: int, label: str) -> None:
            nonlocal said
            if label not in tasks:
                tasks[label] = bar.add_task(label, total=total)
            bar.update(tasks[label], completed=done)
            if not bar.console.is_terminal and time.perf_counter() - said > SILENCE:
                said = time.perf_counter()
                task = bar.tasks[tasks[label]]
                left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} seconds left"
                bar.console.print(f"{label}: {done} of {total}{left}")

        yield progress
