"""How long work shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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
