"""Processes that a fault ends, limits or holds up: forked from one that has imported everything and run nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runs import composed, figures

from faults.frame import REFUSED, RIGHT, TRACEBACK, WRONG, Found
from l2q.errors import L2QError, lacking
from l2q.learning.jobs import Job

PATIENCE = 240.0


@dataclass
class End:
    """How a child ended: its exit code, negative of a signal; what its work gave; what it said on stderr."""

    code: int
    value: Any
    said: str

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said


class Child:
    """A child that does ``work``, which returns what can be pickled. An L2QError, or what the machine lacks, is exit
    code 2 and a line; another error is a traceback and 1."""

    def __init__(self, work: Callable[[], Any]) -> None:
        # pipes, since files of the child may have no room
        (self.out, out), (self.err, err) = _pipe(), _pipe()
        self.pid = os.fork()
        if not self.pid:
            self._work(work, out, err)
        os.close(out)
        os.close(err)

    def _work(self, work: Callable[[], Any], out: int, err: int) -> None:
        code = 3
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(err, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            try:
                os.write(out, pickle.dumps(work()))
                code = 0
            except Exception as error:
                said = str(error) if isinstance(error, L2QError) else lacking(error)
                code = 1 if said is None else 2
                if said is None:
                    traceback.print_exc()
                else:
                    print(f"error: {said}", file=sys.stderr)
            sys.stderr.flush()
        finally:
            os._exit(code)

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, patience: float = PATIENCE) -> End | None:
        """How it ended; None where it did not, and is killed."""
        until = time.monotonic() + patience
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                os.close(self.out)
                os.close(self.err)
                return None
            time.sleep(0.005)
        written, said = _read(self.out), _read(self.err).decode(errors="replace")
        return End(os.waitstatus_to_exitcode(status), pickle.loads(written) if written else None, said)


def _pipe() -> tuple[int, int]:
    """With room for all that a child says."""
    out, into = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 2**20)
    return out, into


def _read(pipe: int) -> bytes:
    with open(pipe, "rb") as file:
        return file.read()


def job(folder: Path, words: list[str]) -> Any:
    """A job as ``train.py`` does it: its state, its reason in a line, its figures and the files of its index."""
    outcome = Job(composed(*words), folder).attempt()
    return outcome.state, outcome.reason, outcome.code, *left_by(folder, outcome.metrics)


def left_by(folder: Path, metrics: dict[str, Any]) -> tuple[Any, Any]:
    return figures(metrics), files_of(folder / "index")


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 by name, without what holds the time or the folder."""
    if not folder.is_dir():
        return {}
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != "manifest.json"
    }


def leftovers(folder: Path) -> list[str]:
    """What a write that was broken off has left."""
    return [
        str(path.relative_to(folder)) for path in folder.rglob(".*") if path.name.endswith((".new", ".old"))
    ]


def of_job(end: End | None, expected: Any) -> Found:
    """What came of a job under a fault."""
    if end is None:
        return Found(WRONG, f"no end in {PATIENCE:.0f} s")
    if end.traceback or end.code in (1, 3):
        return Found(TRACEBACK, " ".join(end.said.split())[-400:])
    if end.code < 0:
        return Found(TRACEBACK, f"it ended by {signal.Signals(-end.code).name}: {end.said[-300:]}")
    if end.code:
        return Found(REFUSED, end.said.strip()[-300:])
    state, reason, _, *result = end.value
    if state != "done":
        one_line = reason and "\n" not in reason
        return Found(REFUSED if one_line else WRONG, f"{state}: {reason}")
    if result != expected:
        return Found(WRONG, f"another result: {str(result)[:150]} instead of {str(expected)[:150]}")
    return Found(RIGHT)
