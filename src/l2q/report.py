"""Results table from stored metrics.json files: ``python -m l2q report outputs/results``."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from l2q.errors import L2QError

MODELS = ("popularity", "spectral", "lightgcn", "last_layer", "l2q", "l2q_anl", "l2q_plus")


def read(folder: str | Path) -> list[dict[str, Any]]:
    """Every metrics file below ``folder``. Raises L2QError where there is none or one is damaged."""
    paths = sorted(Path(folder).rglob("*.json"))
    if not paths:
        raise L2QError(f"{folder} holds no metrics.json; name a folder of runs, such as outputs/results")
    found = []
    for path in paths:
        try:
            found.append(json.loads(path.read_text()))
            found[-1]["model"], found[-1]["dataset"]
        except (ValueError, KeyError, TypeError) as error:
            raise L2QError(f"{path} is no metrics file of a run ({error!r})") from error
    return found


def markdown(runs: list[dict[str, Any]]) -> str:
    """One table per dataset and protocol: mean +- standard deviation over seeds of test Recall@20 and NDCG@20 from
    the exported files, what part of LightGCN's that is, bits per item row, training time."""
    blocks = []
    for dataset, protocol in sorted({(run["dataset"], run["protocol"]) for run in runs}):
        here = [run for run in runs if (run["dataset"], run["protocol"]) == (dataset, protocol)]
        groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
        for run in here:
            groups.setdefault((run["model"], round(8 * run["item_bytes"])), []).append(run)
        float_runs = [run for (model, _), group in groups.items() if model == "lightgcn" for run in group]
        lines = [
            f"**{dataset}**, protocol `{protocol}`",
            "",
            "| model | bits per item | Recall@20 | NDCG@20 | of LightGCN | seeds | epochs | fit |",
            "|---|---:|---:|---:|---:|---:|---:|---:|",
        ]
        for (model, bits), group in sorted(groups.items(), key=lambda kv: (MODELS.index(kv[0][0]), kv[0][1])):
            recall, ndcg = ([run[f"test/packed/{key}_20"] for run in group] for key in ("recall", "ndcg"))
            share = ""
            if float_runs:
                parts = (
                    statistics.mean(values)
                    / statistics.mean(run[f"test/packed/{key}_20"] for run in float_runs)
                    for values, key in ((recall, "recall"), (ndcg, "ndcg"))
                )
                share = " / ".join(f"{part:.0%}" for part in parts)
            epochs = sorted({run["epochs"] for run in group})
            epochs_text = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
            seconds = statistics.mean(run["fit_seconds"] + run.get("start_seconds", 0) for run in group)
            lines.append(
                f"| `{model}` | {bits:,} | {_spread(recall)} | {_spread(ndcg)} | {share} | {len(group)} | "
                f"{epochs_text} | {seconds:.0f} s |"
            )
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _spread(values: list[float]) -> str:
    text = f"{statistics.mean(values):.4f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.4f}"
