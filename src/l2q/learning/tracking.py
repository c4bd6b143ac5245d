"""Weights & Biases: never asks, never hangs, never fails for want of an account or a network."""

from __future__ import annotations

import os
import uuid
import warnings
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger, WandbLogger

ID_FILE = "wandb_id.txt"


def no_logger(folder: Path, name: str, group: str | None, config: dict[str, Any]) -> None:
    """``logger=none``: nothing beside the files of the run's folder."""


def wandb_logger(
    folder: Path,
    name: str,
    group: str | None,
    config: dict[str, Any],
    *,
    project: str = "l2q",
    offline: bool | None = None,
) -> Logger | None:
    """The run's W&B logger, its files in ``folder/wandb``.

    ``offline=None`` is offline exactly where no key is configured; a key without a network falls back to
    offline too; WANDB_MODE=disabled is no logger. The run's id is kept in ``folder/checkpoints/wandb_id.txt``: a
    resumed run continues it.
    """
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
        "name": name,
        "group": group,
        "id": run_id,
        "resume": "allow",
        "config": config,
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
    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.Error as error:
        warnings.warn(f"W&B does not take the key ({error}); this run is logged offline", stacklevel=3)
        return False


def finish(failed: bool) -> None:
    """Closes the current run, marked failed where its job failed."""
    if wandb.run is not None:
        wandb.finish(exit_code=int(failed))


def log_summary(values: dict[str, Any], table: tuple[list[str], list[list[Any]]], plot: Path | None) -> None:
    """Final values, table and figure of the current run; nothing without one."""
    if wandb.run is None:
        return
    wandb.run.summary.update(values)
    wandb.run.log({"results": wandb.Table(columns=list(table[0]), data=table[1])})
    if plot is not None:
        wandb.run.log({"training": wandb.Image(str(plot))})
