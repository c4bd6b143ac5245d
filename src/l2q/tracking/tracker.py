"""Trackers: what a run says to the place where runs are compared, whichever logger of Lightning leads there.

Lightning itself sends the metrics of the epochs. A ``Tracker`` adds the configuration, the epochs before a resume, the
final values, and how the run ended, through the interface that all of Lightning's loggers share. So another logger is
one file in ``conf/logger``: its class as ``_target_``, and its options. A logger that can show more brings a tracker of
its own, as the one of ``l2q.tracking.wandb_run`` does.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from l2q import settings
from l2q.errors import L2QError
from l2q.tracking.lineage import Piece

Init = TypeVar("Init", bound=Callable[..., None])


class Tracker:
    """One run as a logger of Lightning keeps it."""

    def __init__(self, logger: Logger) -> None:
        self.logger = logger

    def start(self, config: dict[str, Any], decides: int | None = None) -> None:
        """The configuration, plain values in nested dictionaries; before anything else. ``decides`` is the K of the
        validation Recall@K that chooses the epoch; None where nothing is validated."""
        self.logger.log_hyperparams(config)

    def use(self, piece: Piece) -> None:
        """What the run is made of: the data set, a checkpoint. Kept by trackers that know lineage."""

    def made(self, piece: Piece) -> None:
        """What the run made: a checkpoint, the index. Kept by trackers that know lineage."""

    def replay(self, rows: Sequence[dict[str, float]]) -> None:
        """The epochs before a resume, rows of ``history.csv``. Most loggers begin anew where a run goes on, so they are
        told these epochs again. A tracker whose logger goes on with its old record leaves them out."""
        for row in rows:
            values = {key: value for key, value in row.items() if "/" in key}
            self.logger.log_metrics(values | {"epoch": row["epoch"] - 1}, step=int(row["step"]) - 1)

    def log_epoch(self, row: dict[str, float]) -> None:
        """An epoch that just ended, a row of ``history.csv``. Lightning has told its logger most of it already; a
        tracker that wants whole rows takes them here."""

    def log_summary(self, values: dict[str, Any], figure: Path | None = None, step: int = 0) -> None:
        """What the run came to. Numbers become metrics at the last ``step`` of training; words, such as commit and
        hardware, become hyperparameters below ``run``. ``figure`` (PNG) is shown by trackers that can; the run's
        folder has it."""
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, Real)}
        words = {key: value for key, value in values.items() if key not in numbers}
        self.logger.log_metrics(numbers, step=step)
        if words:
            self.logger.log_hyperparams({"run": words})

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing comes after it; a run that failed is marked as one, with the reason."""
        if error is not None:
            self.logger.log_hyperparams({"run": {"error": reason(error)}})
        self.logger.finalize("success" if error is None else "failed")


class Several(Tracker):
    """Trackers of several loggers, each told everything."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def start(self, config: dict[str, Any], decides: int | None = None) -> None:
        for one in self.trackers:
            one.start(config, decides)

    def use(self, piece: Piece) -> None:
        for one in self.trackers:
            one.use(piece)

    def made(self, piece: Piece) -> None:
        for one in self.trackers:
            one.made(piece)

    def replay(self, rows: Sequence[dict[str, float]]) -> None:
        for one in self.trackers:
            one.replay(rows)

    def log_epoch(self, row: dict[str, float]) -> None:
        for one in self.trackers:
            one.log_epoch(row)

    def log_summary(self, values: dict[str, Any], figure: Path | None = None, step: int = 0) -> None:
        for one in self.trackers:
            one.log_summary(values, figure, step)

    def finish(self, error: BaseException | None = None) -> None:
        with ExitStack() as stack:  # each of them, whatever another one raises
            for one in reversed(self.trackers):
                stack.callback(one.finish, error)


def tracker(logger: Logger | Sequence[Logger] | None) -> Tracker:
    """The tracker for ``logger``: its own where it brings one, else the one that suits every logger. For None there is
    a tracker that keeps nothing."""
    if isinstance(logger, Sequence):
        return Several([tracker(one) for one in logger])
    own = getattr(logger, "tracker", None)
    if isinstance(own, Tracker):
        return own
    return Tracker(DummyLogger() if logger is None else logger)


def reason(error: BaseException) -> str:
    """Why a run failed, in a line."""
    said = " ".join(str(error).split())[:500]
    if isinstance(error, L2QError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def tracked(
    logger: Logger | Sequence[Logger] | None, config: dict[str, Any], decides: int | None = None
) -> Iterator[Tracker]:
    """The tracker of one run, from its configuration to its end, which is a failure where an exception passes.
    ``decides``: see ``Tracker.start``.

    with tracked(logger, config) as tracker:
        metrics = fit_and_measure()
        tracker.log_summary(metrics)
    """
    it = tracker(logger)
    try:
        it.start(config, decides)
        yield it
    except BaseException as error:
        it.finish(error)
        raise
    it.finish()


def refusals_told(init: Init) -> Init:
    """For the constructor of a run, which may refuse a job before the job has a tracker. Where the job is one of a
    sweep, the logger is told of a failed run. A single run's logger is not: whoever started it reads the screen."""

    @functools.wraps(init)
    def telling(
        self: Any,
        config: dict[str, Any],
        folder: str | Path,
        *,
        name: str = "run",
        group: str | None = None,
        **more: Any,
    ) -> None:
        try:
            init(self, config, folder, name=name, group=group, **more)
        except Exception as error:
            if group is not None:
                _tell(config, Path(folder), name, group, error)
            raise

    return telling  # type: ignore[return-value]


def _tell(config: dict[str, Any], folder: Path, name: str, group: str, error: Exception) -> None:
    try:
        logger = connect(config["logger"], folder, name, group)
        if logger is not None:
            folder.mkdir(parents=True, exist_ok=True)
            it = tracker(logger)
            it.start(config)
            it.finish(error)
    except Exception as other:  # the refusal is what counts; what was refused may be the logger itself
        logging.getLogger("l2q.file").warning(f"the logger was not told of the refusal: {reason(other)}")


def connect(
    values: Mapping[str, Any], folder: Path, run_name: str, group: str | None = None
) -> Logger | list[Logger] | None:
    """The logger of a file in ``conf/logger``: ``_target_`` is a class of Lightning's loggers or a function of this
    module, the other values are its arguments. Without a ``_target_`` there are several, each below a name.

    ``save_dir`` and ``folder`` (of the run), ``run_name`` and ``group`` (of the sweep) are filled in where it has such
    an argument and ``values`` do not. Raises L2QError for an option that it does not have, and where its package is
    not installed.

        connect({"_target_": "pytorch_lightning.loggers.CSVLogger"}, Path("outputs/1"), "first")
    """
    if "_target_" not in values:
        found = {name: connect(one, folder, run_name, group) for name, one in values.items()}
        return [one for one in found.values() if isinstance(one, Logger)]
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
