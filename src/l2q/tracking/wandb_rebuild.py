"""A W&B run made of a run's folder, after the run: its epochs from ``history.csv``, its configuration from
``config.json``, its final values from ``metrics.json``, its index and its checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from l2q import settings
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff
from l2q.files import is_whole, read_json, read_sealed
from l2q.tracking import lineage
from l2q.tracking.wandb_run import RunLogger, wandb_logger

OPTIONS = ("project", "entity", "tags", "notes", "job_type", "log_index")


def rebuild(folder: Path, group: str | None = None, **given: Any) -> Path:
    """Writes an offline run of what is in a run's ``folder``; the new file's folder, for ``wandb sync``.

    Where W&B's own files of this run are still in ``folder``, only the epochs that they lack are written, under the
    same id: all files together are the run. Where there are none, the run gets a new id. ``group`` is the sweep's name.
    Without it, the group of a job in ``outputs/sweeps/NAME`` is NAME. ``given`` are options of
    ``conf/logger/wandb.yaml``; they take the place of those that the run had.

    Raises L2QError where ``folder`` is not a run's, or one of its files is damaged.

        rebuild(Path("outputs/debian/l2q/2026-01-01_12-00-00-000000"), project="second-look")
    """
    config, metrics = _json(folder / "config.json"), _json(folder / "metrics.json", needed=False)
    rows = _rows(folder / "history.csv")
    status = _json(folder / "status.json", needed=False)
    had = config.get("logger") or {}
    had = had.get("wandb", had)  # of several
    had = had if str(had.get("_target_")).endswith("wandb_logger") else {}
    usual = settings.preset("logger/wandb") | {"tags": config.get("tags")}
    options = {key: had.get(key, usual[key]) for key in OPTIONS} | given
    sweep = folder.absolute().parent
    group = group or (sweep.name if sweep.parent.name == "sweeps" else None)
    logger = wandb_logger(folder, str(status.get("name") or ""), group, offline=True, **options)
    if not isinstance(logger, RunLogger):
        raise L2QError("W&B writes nothing: WANDB_MODE=disabled is set, or the folder cannot be written")
    try:
        return _write(logger, folder, config, metrics, rows, status)
    except (KeyError, TypeError, ValueError) as error:
        logger.tracker.finish(error)
        raise L2QError(
            f"{folder}: config.json or metrics.json is not a run's ({type(error).__name__}: {error})"
        ) from error


def _write(
    logger: RunLogger,
    folder: Path,
    config: dict[str, Any],
    metrics: dict[str, Any],
    rows: list[dict[str, float]],
    status: dict[str, Any],
) -> Path:
    tracker = logger.tracker
    model, dataset = config["model"]["name"], config["dataset"]["name"]
    tracker.start(config, _decides(folder, rows))
    if metrics:
        tracker.use(lineage.dataset_piece(dataset, metrics["train"]))
    tracker.replay(rows)
    if (path := lineage.kept_checkpoint(folder)) is not None:
        tracker.made(lineage.of_checkpoint(path, model, dataset))
    if not metrics:
        why = (
            f"{status['state']}: {status.get('reason') or 'no reason is known'}" if "state" in status else ""
        )
        tracker.finish(L2QError(why or "the run left no metrics.json"))
    else:
        if (folder / "index" / "manifest.json").is_file():
            tracker.made(lineage.of_index(folder / "index", metrics))
        figure = folder / "training.png"
        tracker.log_summary(metrics, figure if figure.is_file() else None)
        tracker.finish()
    if tracker.broken:
        raise L2QError(f"{folder}: W&B could not write the run")
    return tracker.place


def _decides(folder: Path, rows: list[dict[str, float]]) -> int | None:
    """The K of the validation Recall@K that chose the epoch."""
    if not any(key.startswith("val/") for row in rows for key in row):
        return None
    manifest = _json(folder / "index" / "manifest.json", needed=False)
    usual = deciding_cutoff(manifest["num_items"]) if "num_items" in manifest else 20
    measured = {int(key.rpartition("_")[2]) for row in rows for key in row if key.startswith("val/recall_")}
    return usual if usual in measured else max(measured, default=None)


def _rows(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            read = [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)
            ]
        if not is_whole(path):
            raise ValueError("it is not as the run has written it")
        return [row | {"epoch": int(row["epoch"]), "step": int(row["step"])} for row in read]
    except (OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error) as error:
        raise L2QError(f"{path} is damaged ({type(error).__name__}: {error})") from error


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if needed:
            raise L2QError(f"{path.parent} is not the folder of a run: it has no {path.name}")
        return {}
    try:
        found = read_sealed(path) if path.name == "metrics.json" else read_json(path)
        if not is_whole(path):
            raise ValueError("it is not as the run has written it")
    except (OSError, ValueError) as error:
        raise L2QError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise L2QError(f"{path} is damaged: it holds no values by name")
    return found
