"""Several processes that do one thing, which torchrun numbers by RANK, 0 .. WORLD_SIZE - 1: who this one is, and what
connects them."""

from __future__ import annotations

import atexit
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from l2q.errors import L2QError, lacking

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
R = TypeVar("R")
LONGEST = timedelta(days=1)
"""That a process waits for another one, such as for rank 0 to read a table. One that has died is not waited for: its
connections close."""

_joined: list[int] = []
"""How many processes share what this one does, once it has joined them."""


def join() -> bool:
    """To be called first by a program whose processes share a run; whether this one leads. Without it each is alone."""
    _joined[:] = [started()]
    return rank() == 0


def started() -> int:
    """How many processes torchrun started, whether or not they join; 1 without it."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process."""
    return _number("RANK", 0) if _joined else 0


def size() -> int:
    """How many processes share the run; 1 where torchrun did not start this one."""
    return _joined[0] if _joined else 1


def on_this_machine() -> int:
    """How many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", size())


def leads() -> bool:
    """Whether it is the first."""
    return rank() == 0


def check() -> None:
    """Raises L2QError in one of several processes that have not joined: each would do the same."""
    if not _joined and started() > 1:
        raise L2QError(
            f"WORLD_SIZE={started()}: each of these processes would train the same; start train.py by torchrun, whose "
            "processes share a run, or take WORLD_SIZE out of the environment"
        )


def one_run(how: str) -> None:
    """Raises L2QError where several processes are asked for more than a run."""
    if size() > 1:
        raise L2QError(
            f"{how}: {size()} processes share one run; start them by torchrun for one run at a time"
        )


def _number(name: str, usual: int) -> int:
    value = os.environ.get(name, str(usual))
    if not value.isdecimal():
        raise L2QError(f"{name}={value} is no number of processes; torchrun sets it, leave it out")
    return int(value)


def connect(longest: timedelta = LONGEST) -> None:
    """Connects the processes, once: by gloo between CPUs, by NCCL between GPUs. One waits so long for another."""
    import torch.distributed as dist

    if dist.is_initialized():
        return
    if not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise L2QError(
            f"WORLD_SIZE={size()}, but RANK, MASTER_ADDR or MASTER_PORT is missing; start the processes with torchrun"
        )
    import torch

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with lost():
        store, number, number_of_all = next(dist.rendezvous("env://", timeout=longest))
        # torchrun starts processes again with the same store, which has the addresses of the dead ones
        store = dist.PrefixStore(f"l2q/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=number_of_all, timeout=longest)
    _store[:] = [store]
    atexit.register(leave)  # gloo aborts a process that ends with its threads


_store: list[Any] = []
"""Where processes leave notes for each other, also when their connections are broken: mostly that of torchrun."""
SOON = timedelta(seconds=10)


def _end() -> None:
    """The first process leaves the note that it ends, and says why itself."""
    if leads() and _store:
        with suppress(RuntimeError):
            _store[0].set("ends", "")


def first_says() -> bool:
    """Whether the first process ends by itself, soon: where it has died, another one has to say so."""
    leave()  # the first one may wait for this one alone, and sees by its end that there is something to say
    try:
        _store[0].wait(["ends"], SOON)
    except (RuntimeError, IndexError):  # or the store was its own
        return False
    return True


def leave() -> None:
    """The end of what the processes do together; each goes on alone."""
    import torch.distributed as dist

    _end()
    if dist.is_initialized():
        dist.destroy_process_group()


_jointly: list[bool] = []


@contextmanager
def jointly() -> Iterator[None]:
    """Within it, each process measures something else, and has the figures of all."""
    _jointly.append(True)
    try:
        yield
    finally:
        _jointly.pop()


def measure_jointly() -> bool:
    """Whether what this process measures is a part of what all do."""
    return bool(_jointly)


_together: list[str] = []
"""While all processes make the same calls: what to do where one of them ends."""


@contextmanager
def together(advice: str) -> Iterator[None]:
    """Within it, which all processes enter, they share the work that ``shared`` and ``said`` are given. Each of them
    makes the same calls in the same order, and goes on with the same results."""
    if size() == 1:
        yield
        return
    connect()
    _together.append(advice)
    try:
        yield
    finally:
        _together.clear()


def are_together() -> bool:
    """Whether work is shared here."""
    return bool(_together)


def place() -> tuple[int, int]:
    """The number of this process among those that share work here, and how many they are: (0, 1) of one alone."""
    return (rank(), size()) if _together else (0, 1)


@contextmanager
def _apart() -> Iterator[list[str]]:
    """Within it, this process works on something of its own."""
    before = _together.copy()
    _together.clear()
    try:
        yield before
    finally:
        _together[:] = before


def shared(work: Callable[[Sequence[T]], Sequence[R]], parts: Sequence[T]) -> list[R]:
    """``work(parts)``, a result for each part, of which every process does a run and has all.

    >>> shared(lambda parts: [part**2 for part in parts], [1, 2, 3])
    [1, 4, 9]
    """
    if not _together:
        return list(work(parts))
    import torch.distributed as dist

    ends = [len(parts) * number // size() for number in (rank(), rank() + 1)]
    with _apart() as advice:
        found = list(work(parts[slice(*ends)]))
        everyone: list[list[R]] = [[] for _ in range(size())]
        with lost(*advice):
            dist.all_gather_object(everyone, found)
    return [result for each in everyone for result in each]


def said(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process, while the others wait."""
    if not _together:
        return make()
    import torch.distributed as dist

    with _apart() as advice:
        told = [make() if leads() else None]
        with lost(*advice):
            dist.broadcast_object_list(told)
    return told[0]  # type: ignore[return-value]


def everyone(value: T) -> list[T]:
    """The ``value`` of every process, by their numbers; of one that is alone, its own.

    >>> everyone(3)
    [3]
    """
    if not _together:
        return [value]
    import torch.distributed as dist

    found: list[T] = [value] * size()
    with lost():
        dist.all_gather_object(found, value)
    return found


def total(count: int | np.integer) -> int:
    """The sum over the processes."""
    return sum(everyone(int(count)))


def anywhere(truth: object) -> bool:
    """Whether it is true in a process."""
    return any(everyone(bool(truth)))


def everywhere(truth: object) -> bool:
    """Whether it is true in all processes."""
    return all(everyone(bool(truth)))


def agreed(make: Callable[[], T]) -> T:
    """What ``make`` gives here, as soon as it has given something in all processes. What is wrong in one of them is an
    L2QError in all, so that none waits for another; ``make`` itself talks to nobody."""
    if not _together:
        return make()
    why, bug = None, None
    try:
        with _apart():
            found = make()
    except Exception as error:
        why = str(error) if isinstance(error, L2QError) else lacking(error)
        if why is None:
            bug, why = error, f"{type(error).__name__}: {error}"
    for number, line in enumerate(everyone(why)):
        if line is not None:
            if bug is not None:
                raise bug
            raise L2QError(line if number == 0 else f"process {number} of {size()}: {line}")
    return found


def told(make: Callable[[], T]) -> T:
    """What ``make`` gives in the first process; what is wrong there is an L2QError in all."""
    if not _together:
        return make()
    found = agreed(lambda: make() if leads() else None)
    return said(lambda: found)  # type: ignore[return-value]


class Lost(L2QError):
    """A process of the run has ended before the run did."""


@contextmanager
def lost(advice: str | None = None) -> Iterator[None]:
    """Within it, a connection that breaks is an L2QError in one line, which ends with ``advice``, or that of
    ``together``."""
    advice = advice or (_together or ["start them again"])[0]
    try:
        yield
    except RuntimeError as error:  # of torch, whose gloo has no kind of its own
        said = " ".join(str(error).split())
        if size() == 1 or not re.search(_BROKEN, said, re.IGNORECASE):
            raise
        _end()
        traceback.clear_frames(error.__traceback__)  # of torch, which would keep the connections open
        raise Lost(f"another of the {size()} processes of this run has ended; {advice}") from error


_BROKEN = (
    r"closed by peer|connection (reset|closed|refused|lost)|broken pipe|timed out|remote process|gloo|nccl"
)
