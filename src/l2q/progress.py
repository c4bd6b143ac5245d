"""How work that takes long shows how far it is: bars with the time left, or lines where the output is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from l2q import processes

Progress = Callable[[int, int, str], None]
"""``progress(done, total, label)``: how much of the step ``label`` is done."""

SILENCE = 30  # seconds between two lines
WIDE = 110  # columns that a whole bar needs, with counts, two times and two values


class Bars:
    """A bar for every label, where the output is a terminal; elsewhere only what ``print`` is given is shown.

    ``unit``: what is counted, said behind the counts. ``stderr``: stdout is left to a command's results. ``shown``
    false: no bar anywhere. In a narrow terminal the bar takes what the rest leaves, and the time so far is left out.
    """

    def __init__(self, unit: str = "", stderr: bool = False, shown: bool = True) -> None:
        # here, since kernels that serve an index import this module, and show nothing
        from rich import get_console
        from rich import progress as rich
        from rich.console import Console
        from rich.table import Column

        console = Console(stderr=True) if stderr else get_console()
        self.shown = shown and console.is_terminal
        narrow = console.width < WIDE
        bar = rich.BarColumn(None, table_column=Column(ratio=1)) if narrow else rich.BarColumn()
        left = rich.TimeRemainingColumn(elapsed_when_finished=False, table_column=Column(no_wrap=True))
        words = [rich.TextColumn("{task.description}"), bar, rich.MofNCompleteColumn(), unit]
        times = [left, "left"] if narrow else [rich.TimeElapsedColumn(), "left", left]
        columns: list[Any] = [one for one in (*words, *times, "{task.fields[values]}") if one]
        self._rich = rich.Progress(*columns, console=console, disable=not self.shown, expand=narrow)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Bars:
        self._rich.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def start(self) -> None:
        self._rich.start()

    def stop(self) -> None:
        """Leaves the bars as they are; calling it again does nothing."""
        self._rich.stop()

    def update(self, label: str, done: float, total: int, values: str | None = None) -> None:
        """Moves the bar of ``label``, which is new at its first call. ``values`` are shown behind it until others
        are given."""
        if label not in self._tasks:
            self._tasks[label] = self._rich.add_task(label, total=total, values="")
        fields: dict[str, Any] = {} if values is None else {"values": values}
        self._rich.update(self._tasks[label], completed=done, total=total, **fields)

    def left(self, label: str) -> float | None:
        """Seconds that ``label`` will still take; None as long as nobody can tell."""
        return self._rich.tasks[self._rich.task_ids.index(self._tasks[label])].time_remaining

    def print(self, line: str) -> None:
        """A line above the bars, or in their place."""
        self._rich.console.print(line, soft_wrap=True)


@contextmanager
def progress_bars(stderr: bool = False) -> Iterator[Progress]:
    """A bar with the time left for every label that ``progress(done, total, label)`` is called with.

    Where the output is no terminal there is a line every half minute instead, and at the end one for each label.
    ``stderr``: stdout is left to a command's results.

        with progress_bars() as progress:
            for number, block in enumerate(blocks, 1):
                work(block)
                progress(number, len(blocks), "lists")
    """
    if not processes.leads():  # the first one says how far all are
        yield lambda done, total, label: None
        return
    with Bars(stderr=stderr) as bars:
        said = before = time.perf_counter()
        began: dict[str, float] = {}  # a label begins where the one before it has ended
        ends: dict[str, str] = {}

        def progress(done: int, total: int, label: str) -> None:
            nonlocal said, before
            now = time.perf_counter()
            bars.update(label, done, total)
            took = now - began.setdefault(label, before)
            before = now
            ends[label] = f"{label}: {done:,} of {total:,} in {span(took)}"
            if not bars.shown and now - said > SILENCE:
                said, left = now, bars.left(label)
                bars.print(
                    f"{label}: {done:,} of {total:,}" + (f", {span(left)} left" if left is not None else "")
                )

        yield progress
        if not bars.shown:
            for line in ends.values():
                bars.print(line)


def span(seconds: float) -> str:
    """Seconds as people say them: ``40 seconds``, ``12.5 minutes``."""
    return f"{seconds:.0f} seconds" if seconds < 60 else f"{seconds / 60:.1f} minutes"
