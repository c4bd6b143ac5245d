"""What a run leaves behind: metrics, per-user metrics, packed index, table and plot."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import l2q
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.files import replaced_file, seal
from l2q.fitted.new_users import FilterSide
from l2q.interactions import Dataset, Interactions
from l2q.names import FiledNames
from l2q.representations import Representations
from l2q.retrieval.fold_in import FoldIn, HalfRound
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index
from l2q.retrieval.popular import Served
from l2q.retrieval.storage import compression, opened

VERIFIED_USERS = 2000
KEPT = ("recall_", "ndcg_", "precision_", "hit_rate_", "mrr_")  # of the metrics, in an index's manifest
log = logging.getLogger("l2q.file")  # the table stands on the screen


def measure(
    representations: Representations,
    part: Interactions,
    ks: list[int],
    exclude: Interactions,
    memory_mb: int,
    beyond: Sequence[int] = (),
    filter_side: FilterSide | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Metrics of the float sign products (or float values), and the values of every user. Metrics beside accuracy are
    measured at the cut-offs of ``beyond``. Users with ``part.given`` are folded in, in the way of an index that is
    exported with ``filter_side``."""
    fold_in: FoldIn | HalfRound | None = None
    if part.given is not None and filter_side is not None:
        fold_in = HalfRound(filter_side, representations.items, exclude)
    elif part.given is not None:
        fold_in = FoldIn(representations, exclude, exclude.item_degrees)
    index = Served(DenseIndex(representations), exclude.item_degrees)
    found = evaluate(index, part, ks, exclude, memory_mb, beyond=beyond, fold_in=fold_in)
    return found.metrics | found.beyond, {"users": found.users, **found.per_user}


def export(
    folder: Path,
    representations: Representations,
    dataset: Dataset,
    config_hash: str,
    metrics: dict[str, Any],
    filter_side: FilterSide | None = None,
) -> dict[str, float]:
    """Writes the index, has a fresh process that knows only the files rank with plain NumPy, and holds its
    ranking to the float sign products'. Returns what the files weigh."""
    Index.of(
        representations,
        dataset.train,
        dataset=dataset.name,
        config_hash=config_hash,
        metrics={key: value for key, value in metrics.items() if key.rpartition("/")[2].startswith(KEPT)},
        filter_side=filter_side,
    ).save(folder)
    users = np.unique(np.linspace(0, dataset.train.num_users - 1, VERIFIED_USERS).astype(np.int64))
    k = min(20, dataset.train.num_items)
    command = [sys.executable, "-m", "l2q.retrieval.reference", str(folder), "--k", str(k)]
    asked = io.BytesIO()
    np.save(asked, users)
    # by pipes: nothing is left where either process is killed
    done = subprocess.run(
        [*command, "--users", "-", "--out", "-"], input=asked.getvalue(), capture_output=True
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise L2QError(
            f"{folder}: a fresh process cannot rank from the files ({why or f'it ended with code {done.returncode}'})"
        )
    with np.load(io.BytesIO(done.stdout)) as ranking:
        found = ranking["items"]
    scores, expected = DenseIndex(representations).search(users, k, exclude=dataset.train)
    wrong = (found != expected).any(axis=1)
    if not representations.binary:  # float sums round in their own order: the items found must score as high
        X, Y = representations.factors()
        again = np.einsum("ud,ukd->uk", X[users], Y[found])
        # large products may cancel out to a small score, whose rounding is theirs
        sizes = np.einsum("ud,ukd->uk", np.abs(X[users]), np.abs(Y[found]))
        near = np.isclose(again, scores, rtol=1e-4, atol=1e-5 * sizes)
        wrong = ~(near | ((found < 0) & (expected < 0))).all(axis=1)
    if wrong.any():
        raise RuntimeError(
            f"{folder}: {wrong.sum()} of {len(users)} rankings differ from the float products'"
        )
    size = sum(path.stat().st_size for path in folder.iterdir())
    return compression(folder) | {"index_bytes": size}


def measure_packed(
    folder: Path, part: Interactions, ks: list[int], exclude: Interactions
) -> dict[str, float]:
    """Metrics once more, from the exported files; without names where nobody holds them."""
    named = not isinstance(exclude.user_names, FiledNames)
    return evaluate(opened(folder, named=named), part, ks, exclude).metrics


def environment() -> dict[str, Any]:
    """Where a figure comes from: commit, versions, hardware."""
    import torch

    here = Path(__file__).parent

    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True
            ).stdout.strip()
        except OSError:  # none on this machine
            return ""

    commit, dirty = git("rev-parse", "HEAD") or "unknown", git("status", "--porcelain", "-uno")
    names = ("torch", "pytorch-lightning", "numpy", "numba")
    return {
        "git_commit": commit + ("-dirty" if dirty else ""),
        "versions": " ".join([f"l2q=={l2q.__version__}", *(f"{name}=={version(name)}" for name in names)]),
        "python": platform.python_version(),
        "hardware": f"{_processor()}, {os.cpu_count()} cores"
        + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def without_home(values: Any) -> Any:
    """The same values, where paths below the home folder begin with ~: who runs is nobody else's concern."""
    home = os.path.expanduser("~").rstrip("/") + "/"
    if isinstance(values, dict):
        return {key: without_home(value) for key, value in values.items()}
    if isinstance(values, list):
        return [without_home(value) for value in values]
    if isinstance(values, str) and home != "/" and values.startswith(home):
        return "~/" + values.removeprefix(home)
    return values


SEALED = ("config.json", "history.csv", "per_user.npz")
"""Files of a run whose checksums ``metrics.json`` has."""


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """``metrics.json``, with the checksums of what it was measured from and its own."""
    path = folder / "metrics.json"
    write_json(path, seal(path, metrics, SEALED))


def write_json(path: Path, values: dict[str, Any]) -> None:
    with replaced_file(path) as fresh:
        fresh.write_text(json.dumps(values, indent=2) + "\n")


def summary_rows(metrics: dict[str, Any], ks: list[int]) -> tuple[list[str], list[list[Any]]]:
    """The final table: one row per metric, from the float products and from the packed files."""
    part = "test" if f"test/recall_{ks[0]}" in metrics else "val"
    sources = {"float products": "", "packed files": "packed/", "float teacher": "teacher/"}
    sources = {
        title: key
        for title, key in sources.items()
        if key != "teacher/" or f"{part}/teacher/recall_{ks[0]}" in metrics
    }
    rows = []
    for k in ks:
        for label, key in (("Recall", "recall"), ("NDCG", "ndcg")):
            if f"{part}/{key}_{k}" in metrics:
                values = [metrics.get(f"{part}/{source}{key}_{k}") for source in sources.values()]
                rows.append([f"{label}@{k} ({part})", *("" if v is None else f"{v:.4f}" for v in values)])
    return ["metric", *sources], rows


def show(metrics: dict[str, Any], ks: list[int], folder: Path) -> None:
    """The short table at the end of a run."""
    console = Console(markup=False, emoji=False)  # names of sets and folders are no markup
    title = f"{metrics['model']} on {metrics['dataset']}, protocol {metrics['protocol']}"
    if "split" in metrics:
        title += f" ({metrics['split']} split)"
    columns, rows = summary_rows(metrics, ks)
    if rows:
        console.print(title, soft_wrap=True)  # which may be wider than the table
        table = Table()
        for column in columns:
            table.add_column(column, justify="left" if column == "metric" else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        log.info(f"{title}: " + ", ".join(f"{row[0]} {' / '.join(row[1:])}" for row in rows))
    else:
        console.print(f"{title}: nothing was measured, since test is not read and no part of train held out")
    console.print(
        f"{metrics['item_bytes']:.1f} bytes per item, {metrics['user_bytes']:.1f} per user; "
        f"the whole index {metrics['index_bytes'] / 2**20:.1f} MB"
    )
    if metrics["compression"] > 1.01:
        console.print(
            f"{metrics['compression']:.1f}x smaller than float32 of d = {metrics['embedding_dim']}, "
            f"{metrics['compression_d64']:.1f}x than of d = 64"
        )
    split = {key.removeprefix("time/"): value for key, value in metrics.items() if key.startswith("time/")}
    if split:
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in split.items())
        console.print(f"training took {sum(split.values()):.1f} s: {parts}")
    console.print(f"files in {folder}", soft_wrap=True)


def plot(history: Path, path: Path, kept: int | None = None) -> Path | None:
    """Loss, metric and annealing over the epochs as PNG, the epoch that is ``kept`` marked; None without a
    history."""
    if not history.exists():
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    panels = [
        ("train/loss", "training loss", "tab:blue"),
        ("val/recall_20", "validation Recall@20", "tab:green"),
        ("anneal/strength", "annealing strength", "tab:orange"),
    ]
    panels = [panel for panel in panels if any(row.get(panel[0]) for row in rows)]
    figure = Figure(figsize=(4 * max(len(panels), 1), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, label, color) in zip(
        figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False
    ):
        points = [(int(row["epoch"]), float(row[key])) for row in rows if row.get(key)]
        axes.plot(*zip(*points, strict=True), color=color, marker="." if len(points) < 40 else None)
        if kept:
            axes.axvline(kept, color="gray", linestyle=":", label=f"kept: epoch {kept}")
            if key.startswith("val/"):
                axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", title=label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    with replaced_file(path) as fresh, fresh.open("wb") as image:
        figure.savefig(image, dpi=120, format="png")
    return path
