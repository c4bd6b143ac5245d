"""Lightning's trainer as a run has it: which of its options are taken, and which are refused, each with the reason.

Every parameter of ``pytorch_lightning.Trainer`` is either an argument of ``taken`` or a key of ``REFUSED``. A parameter
that Lightning adds is refused as unknown until somebody decides.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from l2q import settings
from l2q.errors import L2QError
from l2q.options import Count, NotNegative, Whole, checked

Batches = Count | Annotated[float, Gt(0), Le(1)]
"""So many batches of an epoch, or a share of them."""


@checked("trainer")
def taken(
    max_epochs: Whole,
    accelerator: Literal["auto", "cpu", "gpu", "cuda"],
    min_epochs: Whole | None = None,
    max_time: str | Mapping[str, int] | None = None,
    limit_train_batches: Batches | None = None,
    overfit_batches: Whole | Annotated[float, Ge(0), Le(1)] = 0.0,
    accumulate_grad_batches: Count = 1,
    gradient_clip_val: NotNegative | None = None,
    gradient_clip_algorithm: Literal["norm", "value"] | None = None,
    deterministic: bool | Literal["warn"] | None = None,
    detect_anomaly: bool = False,
    log_every_n_steps: Whole | None = None,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    enable_progress_bar: bool | None = None,
) -> None:
    """The options that a run takes. They mean what Lightning says, but for these:

    ``max_time`` ends after the epoch in which it is over, since a checkpoint holds whole epochs. ``overfit_batches``
    are the same batches in every epoch, their negatives with them. ``log_every_n_steps`` is for callbacks that log
    single steps. ``profiler`` writes ``fit-profile.txt`` into the run's folder. ``enable_progress_bar=false`` shows
    neither bar nor lines.
    """
    if gradient_clip_algorithm is not None and gradient_clip_val is None:
        raise L2QError(
            "trainer.gradient_clip_algorithm clips nothing without trainer.gradient_clip_val; give both"
        )
    units = {"weeks", "days", "hours", "minutes", "seconds"}
    parts = set(max_time) if isinstance(max_time, Mapping) else set()
    if parts - units or (isinstance(max_time, str) and not re.fullmatch(r"\d+(:\d\d){3}", max_time)):
        raise L2QError(
            f"trainer.max_time={max_time} must be DAYS:HOURS:MINUTES:SECONDS with two digits each, such as 00:12:00:00"
        )
    if accelerator in ("gpu", "cuda") and not has_gpu():
        raise L2QError(
            f"trainer.accelerator={accelerator}: torch finds no GPU here; give trainer=cpu, or install a torch for it"
        )


@dataclass(frozen=True)
class Refused:
    """An option that a run does not take: what to do instead, and the values that change nothing."""

    instead: str
    harmless: tuple[Any, ...] = (None,)


VALIDATION = "a run is validated on all users after every protocol.every_n_epochs; set that"
TORCHRUN = "start a run's processes with torchrun --nproc-per-node=N train.py, and leave it out"
WHOLE = "a run trains whole epochs, which its checkpoints hold; give trainer.max_epochs or trainer.limit_train_batches"

REFUSED = {
    "devices": Refused(
        "a process trains on one device; give train.py their number, or start a run's processes with torchrun "
        "--nproc-per-node=N train.py",
        (1, "1"),
    ),
    "strategy": Refused("what processes share is parallel=batches, columns or edges; " + TORCHRUN, ("auto",)),
    "num_nodes": Refused(TORCHRUN, (1,)),
    "use_distributed_sampler": Refused("parallel=batches has its own; leave it out", (True,)),
    "sync_batchnorm": Refused("there is no batch normalization in our models; leave it out", (False,)),
    "precision": Refused(
        "training computes in float32, and what it ships has bits already; leave it out",
        (None, 32, "32", "32-true"),
    ),
    "logger": Refused("choose with logger=wandb, csv, tensorboard, many or none"),
    "callbacks": Refused("choose with callbacks=NAME, a file of conf/callbacks"),
    "plugins": Refused("a run has nothing that they plug into; leave it out"),
    "default_root_dir": Refused("a run's folder is hydra.run.dir; set that"),
    "enable_checkpointing": Refused(
        "a stopped run needs its checkpoints; keep=best, last or all says what stays", (None, True)
    ),
    "enable_model_summary": Refused("give callbacks=model_summary", (None, False)),
    "fast_dev_run": Refused("give debug=fdr", (False, 0)),
    "barebones": Refused(
        "it would leave out what a run reports; give trainer.profiler=simple to see times", (False,)
    ),
    "max_steps": Refused(WHOLE, (-1,)),
    "min_steps": Refused(WHOLE),
    "limit_val_batches": Refused(VALIDATION),
    "val_check_interval": Refused(VALIDATION),
    "check_val_every_n_epoch": Refused(VALIDATION, (1,)),
    "num_sanity_val_steps": Refused("debug=fdr does everything once before a long run; give that", (None, 0)),
    "limit_test_batches": Refused("test is read whole, or not at all with test=false"),
    "limit_predict_batches": Refused("a run predicts nothing; see `python -m l2q batch`"),
    "reload_dataloaders_every_n_epochs": Refused(
        "every epoch draws its batches anew from seed and epoch; leave it out", (0,)
    ),
    "inference_mode": Refused(
        "evaluation reads the exported values, without gradients; leave it out", (True,)
    ),
    "benchmark": Refused("it chooses among convolutions, and there are none; leave it out"),
    "enable_autolog_hparams": Refused(
        "loggers are told a run's configuration; choose with logger=NAME", (True,)
    ),
    "model_registry": Refused("what a run ships is its folder index/; leave it out"),
}


def check(values: Mapping[str, Any]) -> None:
    """Raises L2QError for an option of ``trainer`` that a run does not take, and for a value that it cannot have."""
    values = {key: value for key, value in values.items() if key != "_target_"}
    for name, refused in REFUSED.items():
        value = values.pop(name, refused.harmless[0])
        which = name == "devices" and isinstance(value, list) and len(value) == 1  # [1] is the second GPU
        if which:
            _check_device(value[0], values.get("accelerator", "auto"))
        elif not any(type(value) is type(same) and value == same for same in refused.harmless):
            raise L2QError(f"trainer.{name}={value}: {refused.instead}")
    taken(**values)


def _check_device(number: Any, accelerator: Any) -> None:
    """Raises L2QError where the GPU of this number is none of the machine's, or is not used."""
    import torch

    if accelerator == "cpu" or not has_gpu():
        why = "trainer.accelerator=cpu uses no GPU" if accelerator == "cpu" else "torch finds no GPU here"
        raise L2QError(f"trainer.devices=[{number}]: {why}; leave it out")
    count = max(torch.cuda.device_count(), 1)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise L2QError(
            f"trainer.devices=[{number}]: there are {count} GPUs; give the number of one, [0] is the first"
        )


def without_effect(values: Mapping[str, Any]) -> list[str]:
    """The options that somebody gave for training, where nothing is trained."""
    usual = settings.preset("trainer/default") | {"max_epochs": 0, "accelerator": values.get("accelerator")}
    return [f"trainer.{key}" for key, value in values.items() if value not in (None, usual.get(key))]


def has_gpu() -> bool:
    """Whether torch finds one here."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def make_trainer(
    values: Mapping[str, Any],
    folder: Path | None,
    callbacks: Sequence[Any],
    logger: Any,
    files: Any,
    placed: Mapping[str, Any],
) -> Any:
    """The trainer of ``values`` that ``check`` has let through, with files in ``folder``, and checkpoints by ``files``.
    ``placed`` says on which devices, where there are several (``parallel.way``). ``max_time`` and
    ``enable_progress_bar`` are callbacks, which the caller adds."""
    names = {"_target_", "devices", *inspect.signature(taken).parameters} - {
        "max_time",
        "enable_progress_bar",
    }
    values = {key: value for key, value in values.items() if key in names} | dict(placed)
    if word := values.get("profiler"):
        values["profiler"] = _profiler(word, folder)
    with one_line():
        return settings.build(
            values,
            "trainer",
            plugins=[files],
            callbacks=list(callbacks),
            logger=logger or False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=folder,
        )


def callbacks(values: Mapping[str, Any]) -> list[Any]:
    """Those of ``conf/callbacks``: each a class of Lightning's callbacks as ``_target_``, and its options."""
    from pytorch_lightning.callbacks import Callback

    found = []
    for name, one in values.items():
        if not isinstance(one, Mapping) or "_target_" not in one:
            raise L2QError(f"callbacks.{name} has no _target_; name a class of a callback")
        with one_line():
            found.append(settings.build(one, f"callbacks.{name}"))
        if not isinstance(found[-1], Callback):
            raise L2QError(f"callbacks.{name}._target_={one['_target_']} is no callback of Lightning's")
    return found


def _profiler(word: str, folder: Path | None) -> Any:
    from pytorch_lightning import profilers

    kinds = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
    return getattr(profilers, kinds[word])(dirpath=folder, filename="profile")


@contextmanager
def one_line() -> Iterator[None]:
    """What Lightning finds wrong with how it is used, as an error in one line."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except MisconfigurationException as error:
        raise L2QError("trainer: " + " ".join(str(error).split())) from error
