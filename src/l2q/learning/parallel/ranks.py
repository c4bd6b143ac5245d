"""The processes of one run. torchrun numbers them by RANK, 0 .. WORLD_SIZE - 1, and ends all of them where one fails.

Rank 0 leads: it reads the command line, has the run's folder, lock, tracker and logs, and writes every file. The others
follow: they wait to be told a configuration, train with it beside rank 0, and end. So a run's files have one writer,
and what a run does before and after its training is what one process does.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from l2q.errors import L2QError, lacking
from l2q.learning import signals

LONGEST = timedelta(days=1)
"""That a process waits for another one, such as for rank 0 to read a table. One that has died is not waited for: its
connections close."""


_joined: list[int] = []
"""How many processes share what this one does, once it has joined them."""
_told: list[bool] = []
"""Whether rank 0 has told the others something, which happens once."""


def join() -> bool:
    """To be called first by a program whose processes share a run; whether this one leads. Without it each is alone."""
    _joined[:] = [_number("WORLD_SIZE", 1)]
    return rank() == 0


def rank() -> int:
    return _number("RANK", 0) if _joined else 0


def size() -> int:
    """How many processes share the run; 1 where torchrun did not start this one."""
    return _joined[0] if _joined else 1


def on_this_machine() -> int:
    """How many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", size())


def leads() -> bool:
    return rank() == 0


def too_few(devices: Any) -> bool:
    """Whether one process is asked for several ``devices``, each of which needs a process."""
    return size() == 1 and isinstance(devices, int) and devices > 1


def torchrun(processes: int, words: Sequence[str]) -> None:
    """Puts torchrun in the place of this process, which starts as many on this machine with the same command line."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    sys.stdout.flush()
    os.execv(sys.executable, command + [word for word in words if "trainer.devices=" not in word])


def command() -> str:
    """What starts ``train.py`` as it was started; other numbers of processes go on with its runs, too."""
    return f"torchrun --nproc-per-node={on_this_machine()} train.py" if size() > 1 else "python train.py"


def check() -> None:
    """Raises L2QError in one of several processes that have not joined: each would do the same."""
    if not _joined and (started := _number("WORLD_SIZE", 1)) > 1:
        raise L2QError(
            f"WORLD_SIZE={started}: each of these processes would train the same; start train.py by torchrun, whose "
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


def connect() -> None:
    """Connects the processes, once: by gloo between CPUs, by NCCL between GPUs."""
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
        store, number, number_of_all = next(dist.rendezvous("env://", timeout=LONGEST))
        # torchrun starts processes again with the same store, which has the addresses of the dead ones
        store = dist.PrefixStore(f"l2q/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=number, world_size=number_of_all, timeout=LONGEST)


def tell(config: Mapping[str, Any] | None) -> None:
    """Rank 0 tells the others what to train; None: nothing more. Raises L2QError where one of them cannot begin."""
    import torch.distributed as dist

    connect()
    with lost():
        dist.broadcast_object_list([None if config is None else dict(config)])
    if config is not None:
        begin()


def begin(error: str | None = None) -> None:
    """Waits until every process can begin. Raises L2QError with what keeps the first one that cannot."""
    import torch.distributed as dist

    said: list[str | None] = [None] * size()
    with lost():
        dist.all_gather_object(said, error)
    for number, line in enumerate(said):
        if line:
            raise L2QError(f"process {number} of {size()} cannot begin: {line}")


def leave() -> None:
    """The end of what the processes do together; each goes on alone."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def dismiss() -> None:
    """For rank 0 at its end: the others end, too, where they still wait."""
    if size() > 1 and leads() and not _told:
        _told.append(True)
        with suppress(L2QError):  # they have ended
            tell(None)
        leave()


def share(config: Mapping[str, Any]) -> None:
    """Rank 0, before it trains: the others are to train with the same configuration."""
    if size() > 1 and leads():
        _told.append(True)
        tell(config)


def follow() -> int:
    """What a process other than rank 0 does, and its exit code."""
    import torch.distributed as dist

    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # rank 0 says what there is to say
    stopped: list[int] = []
    try:
        connect()
        told: list[Any] = [None]
        with lost():
            dist.broadcast_object_list(told)
        if told[0] is not None:
            with signals.ignored() as stopped:  # rank 0 decides when to stop; its connections end the others
                _train(told[0])
    except Lost as error:
        if rank() == 1 and not stopped:  # said once, should rank 0 be the one that has ended
            print(f"process {rank()} of {size()}: {error}", file=sys.stderr)
        return 2
    except L2QError as error:
        print(f"process {rank()} of {size()}: {error}", file=sys.stderr)
        return 2
    return 0


def _train(config: dict[str, Any]) -> None:
    from l2q.learning.callbacks.stopping import Diverged  # brings Lightning along
    from l2q.learning.run import Run

    why, run = None, None
    config["trainer"].pop("profiler", None)  # its file is of rank 0
    try:
        run = Run(config, Path())
    except Exception as error:
        why = lacking(error) or str(error) or type(error).__name__
        if not isinstance(error, L2QError) and lacking(error) is None:
            logging.getLogger("l2q").exception(error)
    try:
        begin(why)
    except L2QError:  # which rank 0 says
        return
    assert run is not None
    assert run.training is not None
    with suppress(Diverged):  # rank 0 says it, too
        run.training()
    leave()


class Lost(L2QError):
    """A process of the run has ended before the run did."""


@contextmanager
def lost() -> Iterator[None]:
    """Within it, a connection that breaks is an L2QError in one line."""
    try:
        yield
    except RuntimeError as error:  # of torch, whose gloo has no kind of its own
        said = " ".join(str(error).split())
        if size() == 1 or not re.search(_BROKEN, said, re.IGNORECASE):
            raise
        raise Lost(
            f"another of the {size()} processes of this run has ended; checkpoints/last.ckpt holds the last whole "
            "epoch, if there was one: the same command in the same folder (hydra.run.dir=FOLDER) goes on from it"
        ) from error


_BROKEN = (
    r"closed by peer|connection (reset|closed|refused|lost)|broken pipe|timed out|remote process|gloo|nccl"
)
