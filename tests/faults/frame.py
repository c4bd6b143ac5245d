"""What every kind of fault has: numbered trials, what came of each, progress, and one line at the end.

A kind is a module with

    FULL, SHORT = 200, 6                     trials of `make faults`, and of a round in `make test`
    CASES = {"training": trial, ...}         by name; trials are dealt out to them in turn

    def trial(setting: Setting) -> Found     one fault, injected; called with ever another random generator

    BATCH = 100                              inputs of a trial that returns a list of what came of each
    SHARES = {"training": 3}                 of several cases, where one is to have more trials than another

and, where something is to be made once, ``prepare(folder) -> Any``, whose result is ``setting.made``; where the trials
together show something, ``finish(made) -> dict[str, Found]``. A kind with ``MINUTES`` instead of ``FULL`` goes on so
long.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from l2q.errors import L2QError, lacking

RIGHT, REFUSED, WRONG, TRACEBACK = "right", "refused by name", "silent wrong", "tracebacks"
OUTCOMES = (RIGHT, REFUSED, WRONG, TRACEBACK)
BAD = (WRONG, TRACEBACK)


@dataclass(frozen=True)
class Found:
    """What came of a trial. ``RIGHT``: as without the fault. ``REFUSED``: one line says what is wrong and where, or a
    warning does. ``WRONG``: other figures or rankings without a word, files that are left, or no end. ``TRACEBACK``:
    an error that nobody meant to raise."""

    outcome: str
    said: str = ""


@dataclass
class Setting:
    """What a trial gets: a generator of its own, an empty folder, what ``prepare`` made, its number."""

    rng: np.random.Generator
    folder: Path
    made: Any
    number: int


@dataclass
class Tally:
    """What came of all trials of a kind, by case."""

    kind: str
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: str, number: int, found: Found | list[Found]) -> None:
        if isinstance(found, list):
            self.counts.setdefault(case, Counter())
            for each in found:
                self.add(case, number, each)
            return
        self.counts.setdefault(case, Counter())[found.outcome] += 1
        if found.outcome in BAD:
            self.bad.append(f"{self.kind}.{case} trial {number}: {found.outcome}: {found.said}")
            print(f"  {self.bad[-1]}", file=sys.stderr, flush=True)

    def line(self, case: str | None = None) -> str:
        """What came of a case, or of all."""
        chosen = list(self.counts.values()) if case is None else [self.counts[case]]
        total = sum(chosen, Counter())
        name = self.kind if case is None else f"{self.kind}.{case}"
        parts = [f"{total[outcome]:,} {outcome}" for outcome in OUTCOMES]
        return f"{name}: {total.total():,} tried, {', '.join(parts)}"


def told(call: Callable[[], Any], same: Callable[[Any], bool], names: tuple[str, ...] = ()) -> Found:
    """What comes of a call of the library. ``same``: whether its result is the one without a fault. ``names``: of these
    one must stand in a refusal."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            result = call()
        except L2QError as error:
            return refusal(str(error), names)
        except Exception as error:
            if (lack := lacking(error)) is not None:
                return refusal(lack, names)
            return Found(TRACEBACK, at(error))
        if same(result):
            return Found(RIGHT)
    said = "; ".join(str(each.message) for each in warned)
    return Found(REFUSED, said) if said else Found(WRONG, "another result, and nothing said")


def refusal(said: str, names: tuple[str, ...] = ()) -> Found:
    if "\n" in said:
        return Found(WRONG, f"refused in several lines: {said}")
    if names and not any(name in said for name in names):
        return Found(WRONG, f"refused without saying which file: {said}")
    return Found(REFUSED, said)


def run(
    module: ModuleType,
    *,
    seed: int,
    folder: Path,
    count: int | None = None,
    minutes: float = 0,
    cases: list[str] | None = None,
    quiet: bool = False,
) -> Tally:
    """All trials of a kind, or of some of its ``cases``: ``count`` of them, or as many as there are in ``minutes``.
    ``seed`` and the number of a trial make it again."""
    kind = module.__name__.rpartition(".")[2]
    tally, started = Tally(kind), time.monotonic()
    shares = getattr(module, "SHARES", {})
    names = [name for name in module.CASES if cases is None or name in cases]
    dealt = [name for share in range(1, 9) for name in names if share <= shares.get(name, 1)]
    if count is not None:
        count = -(-count // getattr(module, "BATCH", 1))
    bar = Bar(tally, count, minutes * 60, quiet)
    with Worker(module, folder, seed) as worker:
        for number in itertools.count():
            if number == count or (count is None and time.monotonic() - started > minutes * 60):
                break
            case = dealt[number % len(dealt)]
            tally.add(case, number, worker.ask(case, number))
            bar.at(number + 1)
        for case, found in (worker.ask("", -1) if hasattr(module, "finish") else {}).items():
            tally.add(case, count or 0, found)
            tally.noted.append(f"{kind}.{case}: {found.said}")
    tally.seconds = time.monotonic() - started
    return tally


class Worker:
    """A process that does trials, one after the other. Where a trial ends it, or does not end, the next trial has
    another."""

    LIMIT = 300.0
    """Seconds that a trial may take, on a busy machine."""

    def __init__(self, module: ModuleType, folder: Path, seed: int) -> None:
        self.module, self.folder, self.seed = module, folder, seed
        self.process: Any = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ask(self, case: str, number: int) -> Any:
        """What came of a trial; of the trials together, where ``case`` is empty."""
        if self.process is None:
            context = multiprocessing.get_context("fork")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=self._work, args=(other, number))
            self.process.start()
            other.close()
        self.pipe.send((case, number))
        try:
            if self.pipe.poll(self.LIMIT):
                return self.pipe.recv()
            found = Found(WRONG, f"no end in {self.LIMIT:.0f} s")
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            found = Found(
                TRACEBACK, f"the process ended by {signal.Signals(-code).name if code < 0 else code}"
            )
        self.stop()
        return found

    def stop(self) -> None:
        if self.process is not None:
            self.pipe.close()
            self.process.join(10)
            self.process.kill()
            self.process = None

    def _work(self, pipe: Any, number: int) -> None:
        folder, module = self.folder / f"from-{number}", self.module
        folder.mkdir()
        with silent():
            made = module.prepare(folder) if hasattr(module, "prepare") else None
            with suppress(EOFError, KeyboardInterrupt):
                while True:
                    case, number = pipe.recv()
                    if not case:
                        pipe.send(module.finish(made))
                        continue
                    rng = np.random.default_rng([self.seed, number, *case.encode()])
                    with emptied(folder / f"{case}-{number}") as place:
                        pipe.send(tried(module.CASES[case], Setting(rng, place, made, number)))


def tried(trial: Callable[[Setting], Found], setting: Setting) -> Found:
    try:
        return trial(setting)
    except Exception as error:  # of a trial that expected none
        return Found(TRACEBACK, at(error))


def at(error: BaseException) -> str:
    """An error and its place, in a line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({where.filename}:{where.lineno})"


@contextmanager
def silent() -> Iterator[None]:
    """What runs say of themselves goes nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def emptied(place: Path) -> Iterator[Path]:
    """A folder, gone at the end."""
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Bar:
    """How far it is and how long it takes, every few seconds on stderr."""

    EVERY = 5.0

    def __init__(self, tally: Tally, count: int | None, seconds: float, quiet: bool) -> None:
        self.tally, self.count, self.seconds, self.quiet = tally, count, seconds, quiet
        self.started = self.last = time.monotonic()

    def at(self, done: int) -> None:
        now = time.monotonic()
        if self.quiet or (now - self.last < self.EVERY and done != self.count):
            return
        self.last = now
        spent = now - self.started
        left = self.seconds - spent if self.count is None else spent / done * (self.count - done)
        of = "" if self.count is None else f" of {self.count:,}"
        said = f"{self.tally.kind}: {done:,}{of}, {max(left, 0):,.0f} s left, {len(self.tally.bad)} bad"
        print(said, file=sys.stderr, flush=True)
