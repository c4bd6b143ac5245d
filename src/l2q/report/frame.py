"""All jobs as a table of pandas: a row each, with what its command says and every figure in full precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2q.errors import L2QError
from l2q.report.rows import Run, bits_of, words_of
from l2q.report.runs import PATH, Unfinished, config_of, folder_of

if TYPE_CHECKING:
    import pandas as pd


def frame(runs: Sequence[Run], unfinished: Sequence[Unfinished] = ()) -> pd.DataFrame:
    """A row for each job. Columns: ``state``, ``reason``, ``folder``, what names the run, its options as
    ``option/KEY``, then its figures by the keys of ``metrics.json``.

        jobs = l2q.report.frame(l2q.report.read("outputs/sweeps/NAME"))
        jobs.groupby("model")["test/packed/recall_20"].agg(["mean", "std"])

    Raises L2QError where pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise L2QError("a table of jobs needs pandas: pip install -e '.[report]'") from error
    rows: list[dict[str, Any]] = []
    for run in runs:
        named = {key: run.get(key) for key in ("model", "dataset", "protocol", "split", "seed")}
        options = {f"option/{key}": value for key, _, value in (w.partition("=") for w in words_of(run))}
        options = {key: value for key, value in options.items() if key.removeprefix("option/") not in named}
        values = {key: value for key, value in run.items() if isinstance(value, str | int | float)}
        folder = folder_of(run) or Path(run.get(PATH, ""))
        row = {"state": "done", "reason": "", "folder": str(folder), **named, "bits": bits_of(run)}
        rows.append(row | options | {key: v for key, v in values.items() if key != PATH and key not in row})
    for job in unfinished:
        config = config_of(job.folder)
        parts: dict[str, Any] = {
            key: config.get(key) if isinstance(config.get(key), dict) else {} for key in ("model", "dataset")
        }
        row = {"state": job.state, "reason": job.reason, "folder": str(job.folder)}
        row |= {key: values.get("name") for key, values in parts.items() if values}
        rows.append(row | {"seed": config.get("seed"), "epochs": job.epoch})
    found = pd.DataFrame(rows)
    first = ["state", "reason", "folder", "model", "dataset", "protocol", "split", "seed", "bits"]
    first = [name for name in first if name in found]
    said = sorted(name for name in found if name.startswith("option/"))
    others = [name for name in found if name not in first and name not in said]
    found = found[[*first, *said, *others]]
    whole = [name for name in ("seed", "bits", "epochs") if name in found]
    return found.astype(dict.fromkeys(whole, "Int64"))
