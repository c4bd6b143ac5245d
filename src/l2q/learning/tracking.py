"""Trackers: what a run says to the place where runs are compared, whichever logger of Lightning leads there.

Lightning itself sends the metrics of the epochs. A ``Tracker`` adds the configuration, the epochs before a resume, the
final values, and how the run ended, through the interface that all of Lightning's loggers share. So another logger is
one file in ``conf/logger``: its class as ``_target_``, and its options. W&B can show more and has its own tracker here.
"""

from __future__ import annotations

import inspect
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger

from l2q import settings
from l2q.errors import L2QError

ID_FILE = "wandb_id.txt"


class Tracker:
    """One run as a logger of Lightning keeps it."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def start(self, config: dict[str, Any]) -> None:
        """The configuration, plain values in nested dictionaries; before anything else."""
        self.logger.log_hyperparams(config)

    def replay(self, rows: Sequence[dict[str, float]]) -> None:
        """The epochs before a resume, rows of ``history.csv``. A logger begins anew where a run goes on, so it is told
        them again; one that goes on with its old record tells nothing."""
        for row in rows:
            values = {key: value for key, value in row.items() if "/" in key}
            self.logger.log_metrics(values | {"epoch": row["epoch"] - 1}, step=int(row["step"]) - 1)

    def log_summary(
        self,
        values: dict[str, Any],
        table: tuple[list[str], list[list[Any]]] | None = None,
        figure: Path | None = None,
        step: int = 0,
    ) -> None:
        """What the run came to. Numbers become metrics at the last ``step`` of training; words, such as commit and
        hardware, become hyperparameters below ``run``. ``table`` (titles of columns, rows) and ``figure`` (PNG) are
        shown by trackers that can; the run's folder has both."""
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, Real)}
        words = {key: value for key, value in values.items() if key not in numbers}
        self.logger.log_metrics(numbers, step=step)
        if words:
            self.logger.log_hyperparams({"run": words})

    def finish(self, failed: bool) -> None:
        """Nothing comes after it; a failed run is marked as one."""
        self.logger.finalize("failed" if failed else "success")


class WandbTracker(Tracker):
    """Final values become W&B's summary, beside a table and a figure."""

    logger: WandbLogger

    def replay(self, rows: Sequence[dict[str, float]]) -> None:
        if self.logger.experiment.offline:  # a file that cannot be continued; online, the run itself is
            super().replay(rows)

    def log_summary(
        self,
        values: dict[str, Any],
        table: tuple[list[str], list[list[Any]]] | None = None,
        figure: Path | None = None,
        step: int = 0,
    ) -> None:
        import wandb

        run = self.logger.experiment
        run.summary.update(values)
        if table is not None:
            run.log({"results": wandb.Table(columns=list(table[0]), data=table[1])})
        if figure is not None:
            run.log({"training": wandb.Image(str(figure))})

    def finish(self, failed: bool) -> None:
        self.logger.experiment.finish(exit_code=int(failed))


def tracker(logger: Logger | None) -> Tracker:
    """The tracker that makes the most of ``logger``; None is told everything and keeps nothing."""
    if isinstance(logger, WandbLogger):
        return WandbTracker(logger)
    return Tracker(DummyLogger() if logger is None else logger)


@contextmanager
def tracked(logger: Logger | None, config: dict[str, Any]) -> Iterator[Tracker]:
    """The tracker of one run, from its configuration to its end, which is a failure where an exception passes.

    with tracked(logger, config) as tracker:
        metrics = fit_and_measure()
        tracker.log_summary(metrics)
    """
    it, failed = tracker(logger), True
    try:
        it.start(config)
        yield it
        failed = False
    finally:
        it.finish(failed)


def connect(
    values: Mapping[str, Any], folder: Path, run_name: str, group: str | None = None
) -> Logger | None:
    """The logger of a file in ``conf/logger``: ``_target_`` is a class of Lightning's loggers or a function of this
    module, the other values are its arguments.

    ``save_dir`` and ``folder`` (of the run), ``run_name`` and ``group`` (of the sweep) are filled in where it has such
    an argument and ``values`` do not. Raises L2QError for an option that it does not have, and where its package is
    not installed.

        connect({"_target_": "pytorch_lightning.loggers.CSVLogger"}, Path("outputs/1"), "first")
    """
    offered = {"save_dir": str(folder), "folder": folder, "run_name": run_name, "group": group}
    takes = inspect.signature(settings.locate(values["_target_"])).parameters.keys() - values.keys()
    try:
        return settings.build(
            values, "logger", **{key: value for key, value in offered.items() if key in takes}
        )
    except ModuleNotFoundError as error:
        reason = " ".join(str(error).split())
        raise L2QError(f"logger: {reason}; install it, or give logger=none") from error


def no_logger() -> None:
    """``logger=none``: nothing beside the files of the run's folder."""


def wandb_logger(
    folder: Path,
    run_name: str,
    group: str | None,
    *,
    project: str = "l2q",
    offline: bool | None = None,
) -> Logger | None:
    """The run's W&B logger, its files in ``folder/wandb``. It never asks, never hangs, never fails for want of an
    account or a network.

    ``offline=None`` is offline exactly where no key is configured; a key without a network falls back to
    offline too; WANDB_MODE=disabled is no logger. The run's id is kept in ``folder/checkpoints/wandb_id.txt``: a
    resumed run continues it.
    """
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    if (mode := os.environ.get("WANDB_MODE")) == "disabled":
        return None
    if offline is None:
        offline = mode == "offline" or not _logged_in()
    path = folder / "checkpoints" / ID_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    run_id = path.read_text().strip() if path.exists() else uuid.uuid4().hex[:8]
    path.write_text(run_id + "\n")
    arguments: dict[str, Any] = {
        "project": project,
        "dir": str(folder),
        "name": run_name,
        "group": group,
        "id": run_id,
        "resume": "allow",
        "reinit": "finish_previous",
        "settings": wandb.Settings(init_timeout=30, console="off", x_disable_stats=True),
    }
    try:
        run = wandb.init(mode="offline" if offline else "online", **arguments)
    except wandb.errors.Error as error:
        warnings.warn(f"W&B cannot be reached ({error}); this run is logged offline", stacklevel=2)
        run = wandb.init(mode="offline", **arguments)
    return WandbLogger(experiment=run, save_dir=str(folder), project=project)


def _logged_in() -> bool:
    """Whether there is a key that the server takes; False, with a warning, where it cannot be asked."""
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.Error as error:
        warnings.warn(f"W&B does not take the key ({error}); this run is logged offline", stacklevel=3)
        return False
