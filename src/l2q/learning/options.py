"""What a configuration must satisfy, asked before anything long starts: a run that cannot end well fits nothing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from l2q.errors import L2QError, check_whole
from l2q.interactions import Dataset

# the least of every whole number; groups differ in what they have, so an absent one is fine
WHOLE = {
    "seed": 0,
    "batch_size": 1,
    "epochs": 0,
    "eval.memory_mb": 1,
    "model.embedding_dim": 1,
    "model.num_layers": 0,
    "objective.candidates": 1,
    "objective.num_negatives": 1,
    "protocol.every_n_epochs": 1,
    "protocol.patience": 0,
    "protocol.split_seed": 0,
    "trainer.max_epochs": 0,
}
NUMBERS = (
    "annealing.end",
    "dataset.test_fraction",
    "learning_rate",
    "model.initialization.std",
    "model.quantizer.clip",
    "model.residual",
    "objective.l2",
    "objective.temperature",
    "protocol.fraction",
)
CONSTRUCTED = ("dataset", "model", "annealing", "objective", "trainer", "logger")
DEFAULT_KS = [10, 20, 50]  # as conf/config.yaml has them
SWITCHES = ("fit", "test", "new_users", "dataset.verify")


def check_added(overrides: list[str], config: dict[str, Any]) -> None:
    """Raises L2QError for ``+key=value``, which Hydra proposes for a name that it does not know, where nothing would
    read it. What is a class's argument may be added: the class knows its own."""
    for override in overrides:
        key = override.partition("=")[0].removeprefix("+")
        if override.startswith("+") and not key.startswith("+") and key.partition(".")[0] not in CONSTRUCTED:
            known = get_close_matches(key, [name for name in flat(config) if name != key], 1, 0.8)
            meant = f"did you mean {known[0]}?" if known else "python train.py --help lists them"
            raise L2QError(f"{override}: there is no option {key}; {meant}")


def check_options(config: dict[str, Any]) -> None:
    """Raises L2QError for a value that no set could make right."""

    every = flat(config)

    def given(*names: str) -> Iterator[tuple[str, Any]]:
        yield from ((name, every[name]) for name in names if name in every)

    for name, value in given(*WHOLE):
        check_whole(name, value, WHOLE[name])
    for name, value in given(*NUMBERS):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise L2QError(f"{name}={value} must be a number")
    for name, value in given(*SWITCHES):
        if not isinstance(value, bool):  # "no" is a word to Hydra, and true to Python: test would be read
            raise L2QError(f"{name}={value} must be true or false")
    if not 0 <= (fraction := config["dataset"].get("test_fraction", 0)) < 1:
        raise L2QError(f"dataset.test_fraction={fraction} must be at least 0 and below 1")
    if config["seed"] >= 2**32:
        raise L2QError(f"seed={config['seed']} must be below 2^32")
    if not isinstance(config["ckpt_path"], str | None):
        raise L2QError(f"ckpt_path={config['ckpt_path']} must be the name of a file")
    if not config["fit"] and not config["ckpt_path"]:
        raise L2QError("fit=false evaluates a checkpoint: name it with ckpt_path=FILE")


def settle(config: dict[str, Any]) -> None:
    """What ``test`` and ``protocol=auto`` come to. Where all events are train there is no test. A part of train that
    is held out chooses epochs, and is measured where test is left unread: a run without epochs that reads test, or is
    to be fitted to all there is, would only lose it."""
    everything, protocol = config["dataset"].get("test_fraction") == 0, config["protocol"]
    if protocol["name"] == "auto":
        needless = (config["test"] or everything) and not config["epochs"]
        config["protocol"] = {"name": "final"} if needless else protocol | {"name": "holdout"}
    config["test"] &= not everything


# beside the model's, the options on which it depends what training does
TRAINING = ("seed", "batch_size", "learning_rate", "schedule", "epochs", "objective", "annealing", "protocol")


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            found[key] = value
    return found


def check_against(config: dict[str, Any], dataset: Dataset) -> None:
    """Raises L2QError for what this set cannot give. Cut-offs beyond its catalogue leave ``eval.ks``, with a
    warning; where none of the defaults remains, the whole catalogue is one."""
    ks, num_items = config["eval"]["ks"], dataset.train.num_items
    whole = isinstance(ks, list) and all(type(k) is int for k in ks)
    kept = [k for k in ks if k <= num_items] if whole else []
    if not kept and ks == DEFAULT_KS:  # nobody asked for what a catalogue of fewer than ten items cannot give
        kept = [num_items]
    if not kept or min(kept) < 1:
        raise L2QError(
            f"eval.ks={ks}: give a list of cut-offs from 1 to {num_items}, the size of the catalogue, such as "
            f"eval.ks=[{min(10, num_items)}]"
        )
    if kept != ks:
        config["eval"]["ks"] = kept
        warnings.warn(f"eval.ks={ks} becomes {kept}: {dataset.name} has {num_items} items", stacklevel=2)
    if config["test"] and not len(dataset.test):
        raise L2QError(f"{dataset.name} has no test interactions: give it some, or test=false")
