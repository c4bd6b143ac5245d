"""SIGTERM, SIGHUP, SIGINT and SIGUSR1 at any moment: the exit code of the signal, and the same again goes on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import table

from faults.children import Child, job, leftovers, of_job
from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Setting
from faults.kills import FITTED, TRAINED, again, commands
from faults.kills import prepare as prepare
from l2q.learning.jobs import read_status
from l2q.learning.signals import SIGNALS

FULL, SHORT = 200, 3


def _job(case: str, words: list[str]) -> Callable[[Setting], Found]:
    def trial(setting: Setting) -> Found:
        def work(folder: Path) -> Any:
            return job(folder, [*table(folder.parent / "events.csv"), *words])

        expected, seconds = setting.made.of(case, work)
        how = SIGNALS[int(setting.rng.integers(len(SIGNALS)))]
        child = Child(lambda: work(setting.folder / "run"))
        time.sleep(float(setting.rng.uniform(0, seconds)))
        child.send(how)
        end = child.end()
        if end is None:
            return Found(WRONG, f"no end after {how.name}")
        if end.traceback or end.code in (1, 2):
            return Found(TRACEBACK, f"{how.name}: {' '.join(end.said.split())[-300:]}")
        # before the job has begun a signal ends the process as it ends any other
        ended = end.value is None or end.value[2] in (0, 128 + how) or end.code == -how
        state = read_status(setting.folder / "run").get("state")
        if not ended or (end.value and end.value[0] == "interrupted" and state != "interrupted"):
            return Found(WRONG, f"{how.name}: code {end.code}, {end.value and end.value[:3]}, status {state}")
        found = of_job(Child(lambda: work(setting.folder / "run")).end(), list(expected[3:]))
        if left := leftovers(setting.folder):
            return Found(WRONG, f"{how.name}: left {left}")
        return Found(found.outcome, f"{how.name}: {found.said}") if found.outcome != RIGHT else found

    return trial


def _twice(setting: Setting) -> Found:
    """A second signal while the run is being left changes nothing."""

    def work(folder: Path) -> Any:
        return job(folder, [*table(folder.parent / "events.csv"), *TRAINED])

    expected, seconds = setting.made.of("twice", work)
    child = Child(lambda: work(setting.folder / "run"))
    time.sleep(float(setting.rng.uniform(0, seconds)))
    for how in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        child.send(how)
        time.sleep(float(setting.rng.uniform(0, 0.05)))
    end = child.end()
    if end is None or end.traceback:
        return Found(TRACEBACK if end else WRONG, (end.said if end else "no end")[-300:])
    return of_job(Child(lambda: work(setting.folder / "run")).end(), list(expected[3:]))


def _commands(setting: Setting) -> Found:
    """A command ends with the signal's code, says nothing, and is done by the same again."""
    work, how = commands(setting.folder), SIGNALS[int(setting.rng.integers(len(SIGNALS)))]
    expected, seconds = setting.made.of("commands", work)
    child = Child(lambda: work(setting.folder / "out"))
    time.sleep(float(setting.rng.uniform(0, seconds)))
    child.send(how)
    end = child.end()
    if end is None:
        return Found(WRONG, f"no end after {how.name}")
    if end.traceback or "error" in end.said:
        return Found(TRACEBACK, f"{how.name}: {' '.join(end.said.split())[-300:]}")
    # between two commands a signal ends the process as it ends any other
    ended = end.code in (-how, 3) or end.value == expected or end.value[-1] == 128 + how
    if not ended:
        return Found(WRONG, f"{how.name}: code {end.code}, {str(end.value)[:200]}")
    found = again(setting, lambda: work(setting.folder / "out"), expected)
    if left := leftovers(setting.folder):
        return Found(WRONG, f"{how.name}: left {left}")
    return Found(found.outcome, f"{how.name}: {found.said}") if found.outcome != RIGHT else found


CASES = {
    "training": _job("training", TRAINED),
    "fitting": _job("fitting", FITTED),
    "twice": _twice,
    "commands": _commands,
}
