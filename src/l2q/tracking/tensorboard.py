"""TensorBoard: Lightning's logger, with one file and one history, whatever happens to the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger

from l2q.options import checked
from l2q.tracking.tracker import Tracker


class OneFile(TensorBoardLogger):
    """Stays open when the training has ended, since a run goes on to tell what it came to. Files are named by the
    second: one that is opened again might take the place of the one before."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.tracker = Closing(self)

    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self.experiment.flush()
            self.save()


class Closing(Tracker):
    """Closes the file when the run has ended."""

    logger: OneFile

    def finish(self, error: BaseException | None = None) -> None:
        super().finish(error)
        self.logger.experiment.close()


@checked("logger")
def tensorboard_logger(folder: Path, name: str) -> Logger:
    """TensorBoard's file of the run in ``folder``, below ``name``; needs the extra ``tensorboard``.

    A run that goes on tells all its epochs again (``Tracker.replay``). TensorBoard would show them twice, so what an
    earlier process wrote is taken away first.
    """
    logger = OneFile(folder, name, version="", default_hp_metric=False)
    for path in (folder / name).glob("events.out.*"):
        path.unlink()
    return logger
