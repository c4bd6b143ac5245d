"""The runs below folders: those that are done, by their ``metrics.json``, and those that are not."""

from __future__ import annotations

import csv
import functools
import itertools
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l2q.errors import L2QError
from l2q.files import is_whole, read_json, read_sealed
from l2q.report.measures import USUAL, Measure, known, part_of
from l2q.report.rows import bits_of, settings_of

METRICS, CONFIG, STATUS = "metrics.json", "config.json", "status.json"
HISTORY, PER_USER = "history.csv", "per_user.npz"
PRUNED = "pruned"
PATH = "report/path"
"""Where ``read`` puts the file that a run was read from, among its metrics."""


def read(
    *folders: str | Path, measures: Sequence[Measure] = USUAL, allow_none: bool = False
) -> list[dict[str, Any]]:
    """Every ``metrics.json`` below ``folders``; where a folder has none, as outputs/results, every JSON file.

        for run in read("outputs/sweeps/NAME"):
            print(run["model"], run["seed"], run["test/packed/recall_20"])

    A file that cannot stand in the table is left out with a warning, and so is a run whose command and seed a
    later file has too: it would count twice. Runs that are not done are not read (see ``unfinished``), nor
    tries (``debug=``), wherever they lie. Raises L2QError where no file is left, unless ``allow_none``.
    """
    paths = [path for folder in folders for path in _metrics_files(Path(folder))]
    if not paths:
        if allow_none:
            return []
        raise L2QError(
            f"{_all(folders)} holds no metrics.json; name a folder of runs, such as outputs/results"
        )
    found: dict[tuple[Any, ...], tuple[Path, dict[str, Any]]] = {}
    others: list[str] = []
    for path in {os.path.realpath(path): path for path in paths}.values():
        row: tuple[Any, ...] = ()
        try:
            run = read_sealed(path)
            why = _lacks(run, measures)
            if not why:
                row = *(run[key] for key in ("dataset", "protocol", "model", "seed")), part_of(run, measures)
                row = *row, bits_of(run), settings_of(run)
            elif why.startswith("has no "):
                others += known(run)
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        except (ValueError, OverflowError) as error:
            why = f"is no metrics file of a run ({error})"
        if why:
            warnings.warn(f"{path} {why}; it is left out", stacklevel=2)
            continue
        if row in found:
            earlier = found[row][0]
            warnings.warn(f"{earlier} has the command and seed of {path}; it is left out", stacklevel=2)
        found[row] = path, run | {PATH: str(path)}
    if not found and not allow_none:
        have = f"; they have {', '.join(dict.fromkeys(others))}: choose with --metric" if others else ""
        label = measures[0].label
        raise L2QError(
            f"{_all(folders)} holds no metrics.json of a run with {label}"
            + (have or "; name a folder of runs")
        )
    return [run for _, run in found.values()]


def _all(folders: Sequence[str | Path]) -> str:
    return " and ".join(map(str, folders))


def _metrics_files(folder: Path) -> list[Path]:
    found = [path for path in sorted(folder.rglob(METRICS)) if not _of_debug(path)]
    done = [path for path in found if _state(path.parent).get("state", "done") == "done"]
    if found:
        return done
    jobs = [path.parent for name in (CONFIG, STATUS) for path in folder.rglob(name)]
    stored = [path for path in sorted(folder.rglob("*.json")) if not _of_debug(path)]
    return [path for path in stored if not any(job in path.parents for job in jobs)]


def _of_debug(path: Path) -> bool:
    """Whether it lies in outputs/debug, whose runs are tries of the code and no results."""
    parts = Path(os.path.realpath(path)).parts
    return ("outputs", "debug") in itertools.pairwise(parts)


def _lacks(run: Any, measures: Sequence[Measure]) -> str:
    """What keeps a file's content out of the table; nothing where it can be used."""
    if not isinstance(run, dict):
        return "is no metrics file of a run"
    if run.get("debug"):
        return f"is a try (debug={run['debug']})"
    kinds: dict[str, Any] = dict.fromkeys(("model", "dataset", "protocol"), str)
    kinds |= {"seed": int, "epochs": int, "item_bytes": int | float, "fit_seconds": int | float}
    wrong = [key for key, kind in kinds.items() if not isinstance(run.get(key), kind)]
    if not isinstance(run.get("command", ""), str):
        wrong.append("command")
    if wrong:
        return f"is no metrics file of a run (no usable {', '.join(wrong)})"
    part = part_of(run, measures)
    keys = [measure.key_in(run, part) for measure in measures]
    if f"{part}/teacher/{measures[0].key}" in run:
        keys += [key for m in measures if m.key not in run and (key := f"{part}/teacher/{m.key}")]
    if not all(isinstance(run.get(key), int | float) for key in keys):
        labels = " and ".join(measure.label for measure in measures)
        return f"has no {labels} of test or validation (see eval.ks, test and protocol)"
    return ""


@dataclass(frozen=True)
class Unfinished:
    """A run's folder without results that count. ``state``: waiting, running, failed, interrupted, ``PRUNED`` by a
    search; ``unfinished`` where no ``status.json`` says more. ``epoch``: the last one that its history has, of
    ``epochs``."""

    folder: Path
    state: str
    reason: str = ""
    where: str = ""
    epoch: int | None = None
    epochs: int | None = None


def unfinished(*folders: str | Path) -> list[Unfinished]:
    """The runs below ``folders`` that are not done, by folder. A damaged ``status.json`` is left out with a warning."""
    places = {
        os.path.realpath(path.parent): path.parent
        for folder in folders
        for name in (CONFIG, STATUS)
        for path in Path(folder).rglob(name)
        if not _of_debug(path)
    }
    found = []
    for place in sorted(places.values()):
        known = _state(place)
        default = "done" if (place / METRICS).exists() else "unfinished"
        state, reason = str(known.get("state", default)), str(known.get("reason") or "")
        if state == "done" and (place / METRICS).exists():
            continue
        where = ""
        if state == "running":
            where = f"process {known.get('process')} on {known.get('host')}"
            if _is_gone(known):
                state, reason = "interrupted", f"{where} is gone"
        elif state == "done":
            state, reason = "unfinished", f"status.json says done, but there is no {METRICS}"
        rows = history(place / HISTORY)
        epoch = rows[-1].get("epoch") if rows else None
        epochs = config_of(place).get("epochs")
        found.append(
            Unfinished(
                place,
                state,
                " ".join(reason.split()),
                where,
                None if epoch is None else int(epoch),
                epochs if isinstance(epochs, int) and epochs else None,
            )
        )
    return found


def _state(folder: Path) -> dict[str, Any]:
    return _object(folder / STATUS)


def _is_gone(status: dict[str, Any]) -> bool:
    """Whether a process of this machine, which said that it runs, does not; of others nobody can tell."""
    process = status.get("process")
    if status.get("host") != platform.node() or not isinstance(process, int) or process < 1:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def _object(path: Path) -> dict[str, Any]:
    """What a JSON file of a run holds; nothing where it is absent, or damaged, which is said once."""
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            why = "it holds no object"
        elif not _as_written(path):
            why = "it is not as the run has written it"
        else:
            return found
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        return {}
    except (OSError, ValueError) as error:
        why = str(error)
    _warn_once(path, f"cannot be read ({why}); it is left out")
    return {}


def _as_written(path: Path) -> bool:
    """Whether a file of a run that is done is as its ``metrics.json`` says."""
    if path.name == STATUS or _state(path.parent).get("state", "done") != "done":
        return True
    return is_whole(path)


def _warn_once(path: Path, what: str) -> None:
    _warn_once_of(path, path.stat().st_mtime_ns if path.exists() else 0, what)


@functools.cache  # the same file is asked several times in one report
def _warn_once_of(path: Path, changed: int, what: str) -> None:
    warnings.warn(f"{path} {what}", stacklevel=4)


def folder_of(run: dict[str, Any]) -> Path | None:
    """The folder of a run that was read from one; None of a stored metrics file on its own."""
    path = Path(run.get(PATH, ""))
    return path.parent if path.name == METRICS else None


def config_of(folder: Path | None) -> dict[str, Any]:
    """A run's configuration; empty where it kept none."""
    return {} if folder is None else _object(folder / CONFIG)


def history(path: Path) -> list[dict[str, float]]:
    """The epochs of a run, by ``history.csv``: what each row has a number for. Empty where there is no such file, or
    one without epochs, which is said once."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [
                {key: float(value) for key, value in row.items() if key and value}
                for row in csv.DictReader(file)
            ]
        if not _as_written(path):
            raise ValueError("it is not as the run has written it")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        _warn_once(path, f"cannot be read ({error}); its curves are left out")
        return []
    return [row for row in rows if "epoch" in row]


def per_user(run: dict[str, Any], key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(users, values) of a run's test metric, as ``per_user.npz`` has them; None where it lacks them."""
    folder = folder_of(run)
    path = None if folder is None else folder / PER_USER
    if path is None or not path.exists():
        return None
    try:
        if not _as_written(path):
            raise ValueError("it is not as the run has written it")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            users, values = found["users"], found[key].astype(np.float64)
        if users.ndim != 1 or users.shape != values.shape or not np.isfinite(values).all():
            raise ValueError("users and values do not go together")
    except KeyError:
        return None
    except Exception as error:  # zipfile, zlib, NumPy: each has its own
        _warn_once(path, f"cannot be read ({error}); it is left out")
        return None
    order = np.argsort(users, kind="stable")
    return users[order], values[order]
