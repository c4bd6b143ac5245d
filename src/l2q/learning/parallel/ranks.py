"""The processes of one run. torchrun numbers them by RANK, 0 .. WORLD_SIZE - 1, and ends all of them where one fails.

Rank 0 leads: it reads the command line, has the run's folder, lock, tracker and logs, and writes every file. The others
follow: they wait to be told a configuration, train or fit with it beside rank 0, and end. So a run's files have one
writer, and what a run does before and after its training is what one process does; but for a table that all read.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from l2q import processes
from l2q.errors import L2QError, lacking
from l2q.learning import signals

GO_ON = (
    "checkpoints/last.ckpt holds the last whole epoch, if there was one: the same command in the same folder "
    "(hydra.run.dir=FOLDER) goes on from it"
)
FIT_ON = "the same command in the same folder (hydra.run.dir=FOLDER) goes on from what its checkpoints/ have"
READ_ANEW = "the same command begins anew with reading"
_told: list[bool] = []
"""Whether rank 0 has told the others something, which happens once; in another process: whether all read the data."""
_read: list[bool] = []
"""Whether all have read them together, or know why not."""
_begun: list[bool] = []
"""Whether rank 0 waits for nobody any more."""


def too_few(devices: Any) -> bool:
    """Whether one process is asked for several ``devices``, each of which needs a process."""
    return processes.size() == 1 and isinstance(devices, int) and devices > 1


def torchrun(number: int, words: Sequence[str]) -> None:
    """Puts torchrun in the place of this process, which starts as many on this machine with the same command line."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    sys.stdout.flush()
    os.execv(sys.executable, command + [word for word in words if "trainer.devices=" not in word])


def command() -> str:
    """What starts ``train.py`` as it was started; other numbers of processes go on with its runs, too."""
    return (
        f"torchrun --nproc-per-node={processes.on_this_machine()} train.py"
        if processes.size() > 1
        else "python train.py"
    )


def tell(config: Mapping[str, Any] | None, together: bool = False) -> None:
    """Rank 0 tells the others what to train, and whether all read the data ``together``; None: nothing more."""
    import torch.distributed as dist

    _told.append(True)
    processes.connect()
    with processes.lost(GO_ON):
        dist.broadcast_object_list([None if config is None else dict(config), together])


@contextmanager
def reading(config: Mapping[str, Any], in_parts: Callable[[], bool]) -> Iterator[None]:
    """Within it a run reads its data. Where they are ``in_parts``, all processes do so together, rank 0 as soon as it
    knows what to read; else each for itself, when rank 0 has done so."""
    if processes.size() == 1 or not (in_parts() if processes.leads() else _told):
        yield
        return
    if processes.leads():
        tell(config, together=True)
    try:
        with processes.together(READ_ANEW):
            yield
    except processes.Lost:
        raise
    except L2QError:
        _read.append(True)
        raise
    _read.append(True)


def begin(error: str | None = None) -> None:
    """Waits until every process can begin. Raises L2QError with what keeps the first one that cannot."""
    import torch.distributed as dist

    said: list[str | None] = [None] * processes.size()
    with processes.lost(GO_ON):
        dist.all_gather_object(said, error)
    for number, line in enumerate(said):
        if line:
            raise L2QError(f"process {number} of {processes.size()} cannot begin: {line}")


def dismiss() -> None:
    """For rank 0 at its end: the others end, too, where they still wait."""
    if processes.size() == 1 or not processes.leads() or _begun:
        return
    with suppress(L2QError):  # they have ended
        if not _told:
            tell(None)
        elif _read:
            begin("the first one has refused it")
    processes.leave()


def share(config: Mapping[str, Any]) -> None:
    """Rank 0, before it trains: the others are to train with the same configuration. Raises L2QError where one of them
    cannot begin."""
    if processes.size() > 1 and processes.leads():
        if not _told:
            tell(config)
        _begun.append(True)
        begin()


def follow() -> int:
    """What a process other than rank 0 does, and its exit code."""
    import torch.distributed as dist

    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # rank 0 says what there is to say
    try:
        processes.connect()
        told: list[Any] = [None, False]
        with processes.lost(GO_ON):
            dist.broadcast_object_list(told)
        if told[0] is not None:
            with signals.ignored():  # rank 0 decides when to stop; its connections end the others
                try:
                    _train(*told)
                except processes.Lost as error:  # signals wait until it is said
                    return _lost(error)
    except processes.Lost as error:
        return _lost(error)
    except Exception as error:
        why = str(error) if isinstance(error, L2QError) else lacking(error)
        if why is None:
            raise
        print(f"process {processes.rank()} of {processes.size()}: {why}", file=sys.stderr)
        return 2
    return 0


def _lost(error: processes.Lost) -> int:
    """Said once: by rank 0, or by rank 1 where rank 0 is the one that has died."""
    if processes.rank() == 1 and not processes.first_says():
        print(f"process {processes.rank()} of {processes.size()}: {error}", file=sys.stderr)
    return 2


def _train(config: dict[str, Any], together: bool) -> None:
    from l2q.learning.callbacks.stopping import Diverged  # brings Lightning along
    from l2q.learning.run import Run

    _told[:] = [True] * together
    why, run = None, None
    config["trainer"].pop("profiler", None)  # its file is of rank 0
    try:
        run = Run(config, Path())
    except Exception as error:
        if together and not _read:  # the others wait elsewhere: the end of this process tells them
            raise
        why = lacking(error) or str(error) or type(error).__name__
        if not isinstance(error, L2QError) and lacking(error) is None:
            logging.getLogger("l2q").exception(error)
    try:
        begin(why)
    except L2QError:  # which rank 0 says
        return
    assert run is not None
    with suppress(Diverged):  # rank 0 says it, too
        run.learn()
    processes.leave()
