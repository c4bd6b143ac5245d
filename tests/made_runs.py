"""Folders as runs leave them, with figures that a test can work out."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {"popularity": 0.2, "lightgcn": 0.5, "l2q": 0.4, "l2q_anl": 0.51}
USERS = 200


def metrics(model: str, recall: float, seed: int, item_bytes: float = 1024.0) -> dict[str, Any]:
    """As ``metrics.json`` has them."""
    return {
        "model": model,
        "dataset": "toy",
        "protocol": "holdout",
        "seed": seed,
        "epochs": 10 + seed,
        "item_bytes": item_bytes,
        "fit_seconds": 3.0,
        "start_seconds": 1.0,
        "test/packed/recall_20": recall,
        "test/packed/ndcg_20": recall / 2,
    }


def make_run(
    folder: Path,
    model: str = "l2q",
    seed: int = 0,
    *words: str,
    recall: float | None = None,
    config: dict[str, Any] | None = None,
) -> Path:
    """A run that is done, with validation, every user's metrics and the history of three epochs. ``words`` end its
    command; a model's users differ from seed to seed."""
    folder.mkdir(parents=True)
    mean = MODELS.get(model, 0.3) if recall is None else recall
    size = 1024.0 if model == "lightgcn" else 32.0
    values = metrics(model, mean, seed, size) | {"split": "random", "epochs": 3}
    values |= {"val/recall_20": mean - 0.01, "val/ndcg_20": mean / 3, "test/packed/recall_5": mean / 4}
    values |= {"test/packed/ndcg_10": mean / 3, "test/packed/recall_50": mean * 1.1, "test/coverage_20": 0.25}
    values["command"] = " ".join(["python train.py", f"model={model}", f"seed={seed}", *words])
    (folder / "metrics.json").write_text(json.dumps(values))
    configured = {"model": {"name": model}, "dataset": {"name": "toy"}, "seed": seed, "epochs": 3}
    (folder / "config.json").write_text(json.dumps(configured | (config or {})))
    rng = np.random.default_rng([seed, len(model)])
    common = np.random.default_rng(0).normal(0, 0.1, USERS)  # what a user finds easy, all models do
    per_user = {
        f"{key}_20": mean * share + common + rng.normal(0, 0.05, USERS)
        for key, share in (("recall", 1), ("ndcg", 0.5))
    }
    np.savez_compressed(folder / "per_user.npz", allow_pickle=False, users=np.arange(USERS), **per_user)
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "train/loss", "val/recall_20", "anneal/strength"])
        for epoch in (1, 2, 3):
            writer.writerow([epoch, 1 / epoch, mean * epoch / 3, epoch / 3 if model == "l2q_anl" else ""])
    return folder


def make_unfinished(folder: Path, state: str | None = None, **status: Any) -> Path:
    """A run's folder without results; ``state`` and ``status`` stand in its ``status.json``."""
    make_run(folder)
    (folder / "metrics.json").unlink()
    if state:
        (folder / "status.json").write_text(json.dumps({"state": state, "reason": ""} | status))
    return folder


def make_sweep(folder: Path, seeds: int = 3) -> Path:
    """All of ``MODELS`` with every seed."""
    for model in MODELS:
        for seed in range(seeds):
            recall = MODELS[model] + 0.01 * seed
            make_run(folder / f"model={model},seed={seed}", model, seed, recall=recall)
    return folder
