"""What a configuration must satisfy, asked before anything long starts: a run that cannot end well fits nothing."""

from __future__ import annotations

import warnings
from typing import Any

from l2q.data.interactions import Dataset
from l2q.errors import L2QError


def check_options(config: dict[str, Any]) -> None:
    """Raises L2QError for a value that no set could make right."""
    for name in (
        "seed",
        "batch_size",
        "epochs",
        "learning_rate",
        "eval.memory_mb",
        "protocol.every_n_epochs",
    ):
        group, _, key = name.rpartition(".")
        value = (config[group] if group else config).get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise L2QError(f"{name}={value} must be a number")
    every = config["protocol"].get("every_n_epochs", 1)
    if every < 1:
        raise L2QError(f"protocol.every_n_epochs={every} must be at least 1")
    if not config["fit"] and not config["ckpt_path"]:
        raise L2QError("fit=false evaluates a checkpoint: name it with ckpt_path=FILE")


def check_against(config: dict[str, Any], dataset: Dataset) -> None:
    """Raises L2QError for what this set cannot give. Cut-offs beyond its catalogue leave ``eval.ks``, with a
    warning, where others remain."""
    ks, num_items = config["eval"]["ks"], dataset.train.num_items
    whole = isinstance(ks, list) and all(type(k) is int for k in ks)
    kept = [k for k in ks if k <= num_items] if whole else []
    if not kept or min(kept) < 1:
        raise L2QError(
            f"eval.ks={ks}: give a list of cut-offs from 1 to {num_items}, the size of the catalogue"
        )
    if kept != ks:
        config["eval"]["ks"] = kept
        warnings.warn(f"eval.ks={ks} becomes {kept}: {dataset.name} has {num_items} items", stacklevel=2)
    if config["test"] and not len(dataset.test):
        raise L2QError(f"{dataset.name} has no test interactions: give it some, or test=false")
