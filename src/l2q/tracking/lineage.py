"""Where an index comes from: the data set and the checkpoint that a run used, and what it made of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l2q.interactions import Dataset

OF_AN_INDEX = (
    "model",
    "dataset",
    "train",
    "seed",
    "epochs",
    "item_bytes",
    "user_bytes",
    "index_bytes",
    "config_hash",
)


@dataclass(frozen=True)
class Piece:
    """Something that runs use and make. ``kind`` is dataset, checkpoint or index. ``name`` is shared by all its
    versions, ``reference`` tells them apart: two runs that name the same one have the same piece. ``folder`` holds the
    files that belong to a tracker; without it they stay where they are."""

    kind: str
    name: str
    reference: str
    metadata: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None


def dataset_piece(name: str, fingerprint: str, **metadata: Any) -> Piece:
    """A data set by its name and the fingerprint of its train part (``Interactions.fingerprint``)."""
    # 12 digits, as metrics.json has them
    return Piece(
        "dataset",
        _plain(name),
        f"l2q://dataset/{fingerprint[:12]}",
        {"name": name, "fingerprint": fingerprint[:12]} | metadata,
    )


def of_dataset(dataset: Dataset) -> Piece:
    train, test = dataset.train, dataset.test
    return dataset_piece(
        dataset.name,
        train.fingerprint,
        train_fingerprint=train.fingerprint,
        test_fingerprint=test.fingerprint,
        users=train.num_users,
        items=train.num_items,
        train_interactions=len(train),
        test_interactions=len(test),
    )


def of_checkpoint(path: Path, model: str, dataset: str, **metadata: Any) -> Piece:
    """By the SHA-256 of its file, so that it is the same one in the run that wrote it and in those that took it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = _plain(f"{dataset}-{model}-checkpoint")
    metadata = {"file": path.name, "sha256": digest, "bytes": path.stat().st_size} | metadata
    return Piece("checkpoint", name, f"l2q://checkpoint/{digest}", metadata)


def of_index(folder: Path, metrics: Mapping[str, Any]) -> Piece:
    """By its manifest, which names every file with its checksum. Of a run's ``metrics`` those that tell indexes of one
    name apart belong to it."""
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    name = _plain(f"{metrics['dataset']}-{metrics['model']}-index")
    metadata = {
        key: value
        for key, value in metrics.items()
        if key in OF_AN_INDEX or key.startswith(("test/recall_", "test/ndcg_"))
    }
    return Piece("index", name, f"l2q://index/{digest}", metadata, folder)


def kept_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that a run's figures belong to: the best by validation, else the last; None where nothing was
    trained."""
    files = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    return next((path for path in files if path.is_file()), None)


def _plain(name: str) -> str:
    """With letters, digits, dots, dashes and underscores alone, as W&B wants names of artifacts."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:120].strip("-") or "unnamed"
