"""The configuration of a run: its types and ranges, what it comes to, and what of it gives a figure.

A run that cannot end well is refused before anything long starts.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from annotated_types import Lt

from l2q import processes, settings
from l2q.data.splits import SPLITS
from l2q.errors import L2QError
from l2q.interactions import Dataset
from l2q.learning import trainer
from l2q.options import Count, FilePath, OneOf, Positive, Share, Whole, options


@options("protocol")
class Protocol:
    """``final``: all of train, for the committed epochs. ``holdout``: the best epoch by a validation part of train,
    the ``fraction`` that ``split`` draws with ``split_seed``, measured ``every_n_epochs``, until as many measurements
    as ``patience`` brought no better. ``auto``: see ``settle``."""

    name: Literal["holdout", "final", "auto"]
    every_n_epochs: Count
    split: Annotated[str, OneOf(SPLITS)] | None = None
    fraction: Share | None = None
    split_seed: Whole | None = None
    patience: Whole | None = None

    def __post_init__(self) -> None:
        for name in ("split", "fraction", "split_seed", "patience"):
            if self.name != "final" and getattr(self, name) is None:
                raise L2QError(f"protocol.{name} is not given; protocol={self.name} needs it")
        if self.split == "users":
            raise L2QError("protocol.split=users: only a test is of users left out; use dataset.split=users")


@options("eval")
class EvaluationOptions:
    """Cut-offs of the metrics, and memory of a search in MiB."""

    ks: list[Count]
    memory_mb: Count


@options("")
class Configuration:
    """What ``conf/`` composes. Groups whose classes check themselves are mappings here."""

    model: Mapping[str, Any]
    dataset: Mapping[str, Any]
    objective: Mapping[str, Any]
    annealing: Mapping[str, Any]
    protocol: Protocol
    trainer: Mapping[str, Any]
    logger: Mapping[str, Any]
    eval: EvaluationOptions
    seed: Annotated[Whole, Lt(2**32)]
    epochs: Whole
    batch_size: Count
    batches: Literal["pairs", "users"]
    learning_rate: Positive
    schedule: Literal["constant", "cosine"]
    fit: bool
    test: bool
    new_users: bool
    ckpt_path: FilePath | None
    start: str | None
    tags: list[str]
    keep: Literal["best", "last", "all"]
    parallel: Literal["batches", "columns", "edges"]
    callbacks: Mapping[str, Any] = field(default_factory=dict)
    debug: str | None = None


def check(config: dict[str, Any]) -> None:
    """Raises L2QError for a value that no set could make right, or a name that nothing reads."""
    Configuration(**config)
    trainer.check(config["trainer"])
    processes.check()
    if config.get("debug") and config["test"]:
        raise L2QError(f"test=true: debug={config['debug']} leaves test unread; leave one of them out")
    asked, drawn = (config.get("objective") or {}).get("num_negatives"), config["batch_size"]
    if isinstance(asked, int) and asked > drawn:
        raise L2QError(
            f"objective.num_negatives={asked}: a batch draws one item for each of its batch_size={drawn} pairs; "
            f"give at most {drawn}, or a larger batch_size"
        )
    if not config["fit"] and not config["ckpt_path"]:
        raise L2QError("fit=false evaluates a checkpoint: name it with ckpt_path=FILE")


def check_model(config: dict[str, Any]) -> None:
    """As ``check``, for settings without a data set and a tracker, as ``l2q.fit`` has them."""
    check({"dataset": {}, "logger": {}} | config)


def settle(config: dict[str, Any], fitted: bool) -> None:
    """Settles ``test`` and ``protocol=auto`` in place.

    A set without test events is not tested. ``auto`` becomes ``holdout``, whose held-out part chooses the epoch or is
    measured in place of test. A ``fitted`` model has no epochs to choose. Where it reads test, or is to have all
    events, the held-out part would only be missing from train: there ``auto`` becomes ``final``.
    """
    everything, protocol = config["dataset"].get("test_fraction") == 0, config["protocol"]
    if protocol["name"] == "auto":
        needless = (config["test"] or everything) and fitted
        config["protocol"] = (
            {"name": "final", "every_n_epochs": protocol["every_n_epochs"]}
            if needless
            else protocol | {"name": "holdout"}
        )
    config["test"] &= not everything


def check_against(config: dict[str, Any], dataset: Dataset) -> None:
    """Raises L2QError for what this set cannot give. Cut-offs beyond its catalogue leave ``eval.ks``, with a
    warning; where none of the usual ones remains, the whole catalogue is one."""
    ks, num_items = config["eval"]["ks"], dataset.train.num_items
    kept = [k for k in ks if k <= num_items]
    if not kept and ks == settings.defaults()["eval"]["ks"]:  # nobody asked for what so few items cannot give
        kept = [num_items]
    if not kept:
        raise L2QError(
            f"eval.ks={ks}: give a list of cut-offs from 1 to {num_items}, the size of the catalogue, such as "
            f"eval.ks=[{min(10, num_items)}]"
        )
    if kept != ks:
        config["eval"]["ks"] = kept
        warnings.warn(f"eval.ks={ks} becomes {kept}: {dataset.name} has {num_items} items", stacklevel=2)
    if config["test"] and not len(dataset.test):
        raise L2QError(f"{dataset.name} has no test interactions: give it some, or test=false")


NO_FIGURES = (
    "logger",
    "eval.memory_mb",
    "tags",
    "keep",
    "parallel",
    "trainer.enable_progress_bar",
    "trainer.profiler",
    "trainer.detect_anomaly",
)
"""Options whose names begin so change no figure. They say which logger is told, what is shown and what is kept, and
how several processes share the work: but for the order of float32 sums their figures are those of one."""

# what training does depends on these options and on the model's
TRAINING = (
    "seed",
    "batch_size",
    "batches",
    "learning_rate",
    "schedule",
    "epochs",
    "objective",
    "annealing",
    "protocol",
)


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            found[key] = value
    return found


def hashed(config: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that stand for all options that make a run's figures. Options that change none are left
    out: where files lie, the checkpoint of a resume, and ``NO_FIGURES``."""
    left_out = ("ckpt_path", "dataset.dir", *NO_FIGURES)
    parts = {key: value for key, value in flat(config).items() if not key.startswith(left_out)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
