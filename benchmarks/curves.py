"""Pictures of trainings: what annealing does and quality against seconds, on the embedded set; what parts add; and
quality against seconds of the rows of the tables.

    python benchmarks/curves.py --runs outputs/curves --annealing docs/annealing.png --seconds docs/seconds.png
    python benchmarks/curves.py --parts docs/parts.png       # of the stored metrics of outputs/ablations
    python benchmarks/curves.py --rows docs/rows.png         # of the stored metrics of outputs/results

Each training of the first line is one call of `train.py`, on one thread, that leaves test unread; those that
`--runs` has already are not run again. Seconds are those of training, validation left out; beside other work they are
upper bounds.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

TRAIN = Path(__file__).parents[1] / "train.py"
EVERY = ["test=false", "protocol.patience=1000", "logger=none"]
BPR = ["protocol.every_n_epochs=2"]
SOFTMAX = [
    "objective=softmax", "objective.correct_popularity=true", "objective.temperature=0.15", "batches=users",
    "batch_size=4096", "learning_rate=2e-3", "initialization=spectral", "model.initialization.std=0.03",
    "model.popularity=0.05", "epochs=6", "protocol.every_n_epochs=1",
]  # fmt: skip
DISTILLED = ["experiment=distilled", "protocol.every_n_epochs=5"]
ANNEALING = {
    "none: hard from the start": "none",
    "linear": "linear",
    "hashnet": "hashnet",
    "two_phase": "two_phase",
}
SECONDS = {
    "lightgcn, BPR": ["model=lightgcn", "protocol.every_n_epochs=5"],
    "lightgcn, softmax": ["model=lightgcn", *SOFTMAX],
    "l2q_anl, BPR": ["model=l2q_anl", *BPR],
    "l2q_anl, distilled": DISTILLED,
}
PARTS = {
    "debian, distilled, 864 bits": "debian_l2q_anl_distilled",
    "debian, BPR, 864 bits": "debian_l2q_anl",
    "debian, softmax over whole users, 864 bits": "debian_l2q_anl_softmax",
    "Gowalla, BPR, 384 bits": "gowalla_l2q_anl",
}
OUTPUTS = Path(__file__).parents[1] / "outputs"
# Recall@20 on test of the 1-bit model and of its float teacher, by the authors' logs; the epoch was chosen on test
BIGEAR = {"gowalla": (0.1867, 0.1885), "yelp2018": (0.0682, 0.0711), "movielens_1m": (0.2679, 0.2738)}
BIGEAR_SECONDS = 2 * 3600, 6 * 3600  # of a GPU
COLORS = {"lightgcn": "tab:blue", "l2q_anl": "tab:orange", "l2q": "tab:green", "l2q_plus": "tab:red"}
LEAST = -20  # per cent, that are drawn
RECIPE = "the recipe, by seed"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("outputs/curves"))
    parser.add_argument("--annealing", type=Path, help="the picture of what annealing does")
    parser.add_argument("--seconds", type=Path, help="the picture of quality against seconds")
    parser.add_argument("--parts", type=Path, help="the picture of what parts add")
    parser.add_argument("--rows", type=Path, help="the picture of the rows of three sets")
    options = parser.parse_args()
    if options.annealing:
        draw_annealing(options.runs, options.annealing)
    if options.seconds:
        draw_seconds(options.runs, options.seconds)
    if options.parts:
        draw_parts(options.parts)
    if options.rows:
        draw_rows(options.rows)


def trained(folder: Path, words: list[str]) -> tuple[list[dict[str, str]], float]:
    """The epochs of a training, and the seconds before the first."""
    if not (folder / "metrics.json").exists():
        one = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        command = [sys.executable, str(TRAIN), *words, *EVERY, f"hydra.run.dir={folder}"]
        subprocess.run(command, check=True, env=os.environ | one)
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((folder / "metrics.json").read_text())["start_seconds"]


def series(rows: list[dict[str, str]], key: str) -> tuple[list[int], list[float]]:
    """Epochs that have it, and the values."""
    there = [row for row in rows if row.get(key)]
    return [int(row["epoch"]) for row in there], [float(row[key]) for row in there]


def draw_annealing(runs: Path, path: Path) -> None:
    panels = {
        "strength t": "anneal/strength",
        "signs that changed\nsince two epochs before": "codes/flip_ratio",
        "spread of the items' scales": "codes/scale_spread",
        "Recall@20 of hard codes,\nvalidation": "val/recall_20",
    }
    figure, axes = plt.subplots(2, 2, figsize=(8, 5.5), sharex=True, layout="constrained")
    for name, curve in ANNEALING.items():
        rows, _ = trained(runs / f"annealing_{curve}", ["model=l2q_anl", f"annealing={curve}", *BPR])
        for axis, key in zip(axes.flat, panels.values(), strict=True):
            drawn = "steps-post" if key == "anneal/strength" else "default"
            axis.plot(*series(rows, key), label=name, linewidth=1.5, drawstyle=drawn)
    for axis, title in zip(axes.flat, panels, strict=True):
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    figure.savefig(path, dpi=150)


def draw_seconds(runs: Path, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, words in SECONDS.items():
        rows, start = trained(runs / name.replace(", ", "_"), words)
        parts = [key for key in rows[0] if key.startswith("time/") and key != "time/evaluate"]
        spent = list(accumulate((sum(float(row[key] or 0) for key in parts) for row in rows), initial=start))
        epochs, values = series(rows, "val/recall_20")
        axis.plot([spent[epoch] for epoch in epochs], values, marker=".", label=name)
    axis.set_xscale("log")
    axis.minorticks_off()
    ticks = [5, 10, 20, 50, 100]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.set_xlabel("seconds of training on one thread, the start included")
    axis.set_ylabel("Recall@20, validation")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


def draw_parts(path: Path) -> None:
    """Of every recipe: how far one other option moves validation Recall@20, seed by seed."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 8.5), sharex=True, layout="constrained")
    for axis, (title, folder) in zip(axes.flat, PARTS.items(), strict=True):
        changes = changes_of(folder)
        ordered = sorted(changes, key=lambda name: np.mean(changes[name]))
        for place, name in enumerate(ordered):
            mean, ends = np.mean(changes[name]), np.maximum([min(changes[name]), max(changes[name])], LEAST)
            color = "tab:blue" if name != RECIPE else "black"
            axis.plot(ends, [place, place], color=color, linewidth=2, alpha=0.5)
            face = "white" if len(changes[name]) == 1 else color
            axis.plot(max(mean, LEAST), place, "o", color=color, markerfacecolor=face, markersize=5)
            if mean < LEAST:
                axis.annotate(
                    f"{mean:.0f} %", (LEAST, place), (6, 0), textcoords="offset points", va="center"
                )
        axis.axvline(0, color="tab:gray", linewidth=1)
        axis.set_yticks(range(len(ordered)), ordered, fontsize=8)
        axis.set_xlim(LEAST - 1, 6)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(axis="x", alpha=0.3)
    said = "change of validation Recall@20, %: means, with bars from seed to seed; hollow: one seed"
    figure.supxlabel(said, fontsize=9)
    figure.savefig(path, dpi=130)


def draw_rows(path: Path) -> None:
    """Every stored row of the trained and fitted models: means over seeds, as floats or as codes."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for axis, (name, (bits, floats)) in zip(axes, BIGEAR.items(), strict=True):
        rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for file in sorted((OUTPUTS / "results" / name).glob("*.json")):
            run = json.loads(file.read_text())
            if run["model"] in COLORS:
                point = run["start_seconds"] + run["fit_seconds"], run["test/packed/recall_20"]
                rows.setdefault((run["model"], file.stem.rpartition("_seed")[0]), []).append(point)
        for (model, _), points in rows.items():
            face = "white" if model == "lightgcn" else COLORS[model]
            axis.plot(*np.mean(points, axis=0), "o", color=COLORS[model], markerfacecolor=face)
        axis.plot(BIGEAR_SECONDS, [bits, bits], color="black", linewidth=2)
        axis.plot(BIGEAR_SECONDS, [floats, floats], color="black", linewidth=1, linestyle="dashed")
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(*zip((60, "1 min"), (600, "10 min"), (3600, "1 h"), (18000, "5 h"), strict=True))
        axis.set_xlim(20, 4e4)
        axis.set_title(name, fontsize=10, loc="left")
        axis.grid(alpha=0.3)
    for model, color in COLORS.items():
        face = "white" if model == "lightgcn" else color
        axes[0].plot([], [], "o", color=color, markerfacecolor=face, label=model)
    axes[0].plot([], [], color="black", linewidth=2, label="BiGeaR++, one bit, published")
    axes[0].plot([], [], color="black", linewidth=1, linestyle="dashed", label="its float teacher")
    figure.legend(loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    axes[0].set_ylabel("Recall@20, test")
    figure.supxlabel("time, the start included: ours of one or two threads, theirs of a GPU", fontsize=9)
    figure.savefig(path, dpi=130)


def changes_of(folder: str) -> dict[str, list[float]]:
    """How far Recall@20 is from that of ``base.json`` with the same seed, %, by the options that differ. Widths, which
    hold the bits equal, are left out."""
    runs = [json.loads(path.read_text()) for path in sorted((OUTPUTS / "ablations" / folder).glob("*.json"))]
    base = json.loads((OUTPUTS / "ablations" / folder / "base.json").read_text())
    usual = set(base["command"].split())
    found: dict[str, dict[int, float]] = {}
    for run in runs:
        changed = (
            word for word in run["command"].split() if word not in usual and not word.startswith("seed=")
        )
        pairs = [word.split("=", 1) for word in changed]
        names = [f"{key.rpartition('.')[2]}={value}" for key, value in pairs if key != "model.embedding_dim"]
        found.setdefault(", ".join(names) or RECIPE, {})[run["seed"]] = run["val/recall_20"]
    seeds = found[RECIPE]
    return {
        name: [100 * (value / seeds[seed] - 1) for seed, value in values.items() if seed in seeds]
        if name != RECIPE
        else [100 * (value / np.mean(list(seeds.values())) - 1) for value in values.values()]
        for name, values in found.items()
    }


if __name__ == "__main__":
    main()
