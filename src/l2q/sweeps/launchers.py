"""Ways to do the jobs of a sweep. Each gives the outcome of every job, in the jobs' order, whatever happens to one.

A new way is a class with ``__call__(jobs)``, and a file in ``conf/launcher`` that names it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress
from pathlib import Path
from typing import Any

from l2q.errors import L2QError
from l2q.learning.jobs import Job, Outcome, read_status
from l2q.learning.signals import Interrupted
from l2q.options import Count, options

log = logging.getLogger("l2q")
GRACE = 30  # seconds that jobs have to leave when the sweep is interrupted


@options("launcher")
class InTurn:
    """One job after the other, in this process."""

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        outcomes = []
        for number, job in enumerate(jobs):
            _say(number, jobs)
            outcomes.append(_here(job))
        return _with_others(jobs, outcomes)


@options("launcher")
class Joblib:
    """``jobs`` at a time in processes of their own on this machine, by joblib. ``threads`` of each; None: the cores
    shared out evenly. A process that dies fails its job alone."""

    jobs: Count
    threads: Count | None

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            from joblib import parallel_config
            from joblib.externals.loky import get_reusable_executor
        except ImportError as error:
            raise L2QError("launcher=joblib needs joblib; install it: pip install -e '.[sweep]'") from error
        threads = self.threads or max((os.cpu_count() or 1) // self.jobs, 1)
        outcomes: list[Outcome | None] = [None] * len(jobs)
        with _threads(threads), parallel_config("loky", inner_max_num_threads=threads):
            executor = get_reusable_executor(max_workers=self.jobs, timeout=60, reuse=False)
            running: dict[int, Any] = {}
            try:
                for number, job in enumerate(jobs):
                    _say(number, jobs)
                    running[number] = executor.submit(_attempt, job, threads)
                for number, future in running.items():
                    outcomes[number] = _outcome(future, jobs[number])
            except Interrupted:
                _leave([process.pid for process in executor._processes.values()], list(running.values()))
                raise
            finally:
                executor.shutdown(wait=False, kill_workers=True)
        return _with_others(jobs, [outcome for outcome in outcomes if outcome is not None])


@options("launcher")
class Slurm:
    """A job of SLURM for each, by submitit (the extra ``sweep``). ``partition`` None is the cluster's own. ``minutes``
    is the time limit of a job. SLURM sends a signal before its end: the job is queued again and goes on from its last
    whole epoch. ``cluster`` "local" runs the same in processes of this machine."""

    partition: str | None
    minutes: Count
    cpus: Count
    memory_gb: Count
    cluster: str | None

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        try:
            import submitit
        except ImportError as error:
            raise L2QError("launcher=slurm needs submitit; install it: pip install -e '.[sweep]'") from error
        folder = Path(jobs[0].folder).parent / ".slurm"
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        if self.cluster is None and executor.cluster != "slurm":
            raise L2QError(
                "launcher=slurm: there is no SLURM here; launcher.cluster=local takes processes of this machine"
            )
        limits: dict[str, Any] = {
            "timeout_min": self.minutes,
            "cpus_per_task": self.cpus,
            "mem_gb": self.memory_gb,
        }
        if self.partition:
            limits["slurm_partition"] = self.partition
        executor.update_parameters(**limits)
        running = [executor.submit(Requeued(job, self.cpus)) for job in jobs]
        print(f"jobs with {executor.cluster}: {len(jobs)}; their output is in {folder}", flush=True)
        outcomes = []
        for job, submitted in zip(jobs, running, strict=True):
            try:
                outcomes.append(submitted.result())
            except Exception as error:  # of submitit, and whatever its job raised
                outcomes.append(_died(job, f"{type(error).__name__}: {str(error).splitlines()[-1]}"))
        return _with_others(jobs, outcomes)


class Requeued:
    """A job as submitit calls it; ``checkpoint`` is what submitit asks for when SLURM is about to end it."""

    def __init__(self, job: Job, threads: int) -> None:
        self.job, self.threads = job, threads

    def __call__(self) -> Outcome:
        return _attempt(self.job, self.threads)

    def checkpoint(self) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _here(job: Job, wait: bool = False) -> Outcome:
    """In this process, which ends with an interrupted job."""
    outcome = job.attempt(wait)
    if outcome.state == "interrupted":
        raise Interrupted(outcome.code - 128)
    return outcome


def _with_others(jobs: Sequence[Job], outcomes: list[Outcome]) -> list[Outcome]:
    """The outcomes, with those of jobs that another process was at: of several jobs these are waited for at the end."""
    if len(jobs) == 1:
        return outcomes
    busy = [job.name for job, outcome in zip(jobs, outcomes, strict=True) if outcome.state == "busy"]
    if busy:
        print(f"waiting for another process with {', '.join(busy)}", flush=True)
    return [
        _here(job, wait=True) if outcome.state == "busy" else outcome
        for job, outcome in zip(jobs, outcomes, strict=True)
    ]


_left: list[Outcome] = []  # how the job ended at which a signal told this process to leave


def _attempt(job: Job, threads: int) -> Outcome:
    """In a process of its own."""
    import numba
    import torch

    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    if _left:  # the sweep's next job is not this process's any more
        return _left[0]
    try:
        outcome = job.attempt()
        if outcome.state == "interrupted":
            _left.append(outcome)
        return outcome
    except BaseException as error:  # a bug of ours ends this job, not the sweep
        logging.getLogger("l2q").exception(f"{job.name} failed")
        return Outcome("failed", reason=f"{type(error).__name__}: {error}", code=1)


def _outcome(future: Any, job: Job) -> Outcome:
    try:
        return future.result()
    except Interrupted:
        raise
    except Exception as error:  # the process is gone, killed for memory say
        return _died(job, f"its process ended without a word ({type(error).__name__})")


def _died(job: Job, reason: str) -> Outcome:
    known = read_status(job.folder)
    if known.get("state") == "done":  # another process had it
        return Outcome("done", reused=True)
    job._write("failed", reason)
    return Outcome("failed", reason=reason, code=1)


def _say(number: int, jobs: Sequence[Job]) -> None:
    if len(jobs) > 1:
        print(f"job {number + 1} of {len(jobs)}: {jobs[number].name}", flush=True)


class _threads:
    """Variables of the environment that libraries of new processes take their number of threads from."""

    NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

    def __init__(self, threads: int) -> None:
        self.threads = str(threads)

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, self.threads))

    def __exit__(self, *_: Any) -> None:
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _leave(processes: Sequence[int], running: Sequence[Any]) -> None:
    """Asks processes to leave the jobs that they are at, and waits for these."""
    for future in running:
        future.cancel()
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    wait(running, timeout=GRACE)
