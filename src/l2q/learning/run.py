"""One run from start to end: fit, choose the epoch, measure, export, report."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.fitted.new_users import FilterSide
from l2q.fitted.teacher import TeacherIndex
from l2q.learning import results, tracking
from l2q.learning.callbacks import (
    AnnealingCallback,
    BestCheckpoint,
    EpochProgress,
    FiniteLoss,
    History,
    LastCheckpoint,
    PatienceAfterAnnealing,
    TimeSplit,
    Validation,
)
from l2q.learning.datamodule import InteractionsModule
from l2q.learning.options import flat
from l2q.learning.recommender import Recommender, read_checkpoint
from l2q.models.annealing import Annealing
from l2q.representations import Representations
from l2q.retrieval.storage import load_index

log = logging.getLogger("l2q")

# what Lightning says of devices and log intervals hides what a run has to say
for name in ("pytorch_lightning", "matplotlib"):
    logging.getLogger(name).setLevel(logging.WARNING)
for noise in (
    ".*exists and is not empty",
    ".*LeafSpec",
    ".*smaller than the logging interval",
    "The dirpath has changed",  # of a moved run's last.ckpt, which needs none of what is dropped
):
    warnings.filterwarnings("ignore", noise)


def describe(config: dict[str, Any], data: InteractionsModule) -> None:
    """Says what runs, under which protocol, on what, before anything long starts."""
    assert data.dataset is not None
    train, test, protocol = data.dataset.train, data.dataset.test, config["protocol"]
    known, source = "", config["dataset"]
    if any(source.get(key) for key in ("counts", "fingerprints", "md5")):  # a table has nothing to be held to
        known = ", verified" if source.get("verify", True) else ", not verified"
    how = "final (all of train, nothing monitored)"
    if data.val is not None:
        chooses = "chooses the epoch" if config["epochs"] else "is measured; protocol=final fits it too"
        how = f"holdout ({protocol['split']} {protocol['fraction']:.0%} of train {chooses})"
    users, items = "users", "items"
    if data.dataset.columns:
        users, items = (
            f"{side} (column {column!r})"
            for side, column in zip((users, items), data.dataset.columns, strict=True)
        )
    log.info(
        f"{config['model']['name']} on {data.dataset.name}: {train.num_users:,} {users} x {train.num_items:,} {items}, "
        f"{len(train):,} train and {len(test):,} test interactions{known}; protocol {how}; "
        f"test is {'read once, at the end' if config['test'] else 'not read'}"
    )


def hashed(config: dict[str, Any]) -> str:
    """16 hexadecimal digits of what makes a run's figures: not where files lie, nor that it was gone on with, nor
    who is told."""
    parts = {key: value for key, value in flat(config).items() if key not in ("ckpt_path", "dataset.dir")}
    parts = {key: value for key, value in parts.items() if not key.startswith(("logger", "eval.memory_mb"))}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Run:
    """Calling it fits ``recommender`` (unless ``fit`` is false or there are no epochs), takes the epoch that
    the protocol says, and leaves in ``folder``:

    ``config.json``, ``history.csv``, ``checkpoints/``, ``metrics.json``, ``per_user.npz``, ``training.png``,
    ``index/``. ``config`` is the resolved configuration as plain values: it is recorded, and its entries
    ``fit test ckpt_path eval protocol new_users`` are read. ``command`` goes into the metrics: no figure without
    its command. ``trainer`` builds a Trainer from callbacks and logger. ``l2q.learning.options`` says what the
    configuration must satisfy.
    """

    def __init__(
        self,
        folder: Path,
        *,
        config: dict[str, Any],
        command: str,
        start_seconds: float,
        data: InteractionsModule,
        recommender: Recommender,
        annealing: Annealing,
        trainer: Callable[..., pl.Trainer],
        logger: Any,
    ) -> None:
        self.folder, self.config, self.data, self.recommender = folder, config, data, recommender
        self.command = command
        self.annealing, self.trainer, self.logger = AnnealingCallback(annealing), trainer, logger
        self.checkpoints, self.start_seconds = folder / "checkpoints", start_seconds
        self.config_hash = hashed(config)
        self.time_split: dict[str, float] = {}  # seconds of training by part, over all epochs
        assert data.dataset is not None
        self.dataset = data.dataset
        self.ks, self.memory_mb = config["eval"]["ks"], config["eval"]["memory_mb"]

    def __call__(self) -> dict[str, Any]:
        started = time.perf_counter()
        results.write_json(self.folder / "config.json", self.config | {"config_hash": self.config_hash})
        self._warn_of_idle_annealing()
        epochs = self._fit() if self.config["fit"] else self._load(Path(self.config["ckpt_path"] or ""))
        fitted = time.perf_counter()

        representations = self.recommender.encoder.encode()
        metrics: dict[str, Any] = {
            "command": self.command,
            "model": self.config["model"]["name"],
            "dataset": self.dataset.name,
            "train": self.dataset.train.fingerprint[:12],
            "seed": self.config["seed"],
            "protocol": self.config["protocol"]["name"],
            **({} if self.data.val is None else {"split": self.config["protocol"]["split"]}),
            "epochs": epochs,
            "embedding_dim": self.config["model"]["embedding_dim"],
        }
        if self.data.val is not None:
            found, _ = results.measure(representations, self.data.val, self.ks, self.data.fit, self.memory_mb)
            metrics |= {f"val/{key}": value for key, value in found.items()}
        if self.config["test"]:
            found, per_user = results.measure(
                representations, self.dataset.test, self.ks, self.dataset.train, self.memory_mb
            )
            metrics |= {f"test/{key}": value for key, value in found.items()}
            np.savez_compressed(self.folder / "per_user.npz", allow_pickle=False, **per_user)
        # training takes the codes away from the teacher that they were fitted to
        start = None if epochs else self.recommender.encoder.start
        chosen = {} if start is None else {"teacher": asdict(start.teacher)}
        if start is not None:
            metrics |= self._measure_teacher(TeacherIndex(start.scores, start.lists))
        index = self.folder / "index"
        side = None
        if not epochs and self.config["new_users"] and self._are_fitted(representations):
            side = self._stored_filter() if start is None else start.filter_side
        metrics |= results.export(index, representations, self.dataset, self.config_hash, metrics, side)
        if self.config["test"]:
            packed = results.measure_packed(index, self.dataset.test, self.ks, self.dataset.train)
            metrics |= {f"test/packed/{key}": value for key, value in packed.items()}
        # of all epochs, where this is the last part of a run
        fit_seconds = max(fitted - started, sum(self.time_split.values()))
        metrics |= {
            "start_seconds": self.start_seconds,  # of the initialization: all there is for closed-form models
            "fit_seconds": fit_seconds,
            "total_seconds": self.start_seconds + fit_seconds + time.perf_counter() - fitted,
            **self.time_split,
            **chosen,
            "config_hash": self.config_hash,
            **results.environment(),
        }
        results.write_json(self.folder / "metrics.json", metrics)
        kept = epochs if self.data.val is not None else None
        plot = results.plot(self.folder / "history.csv", self.folder / "training.png", kept)
        results.show(metrics, self.ks, self.folder)
        tracking.log_summary(metrics, results.summary_rows(metrics, self.ks), plot)
        return metrics

    def _are_fitted(self, representations: Representations) -> bool:
        """Whether these are the fitted codes with their scales, to which new users' codes can be fitted too: no
        layers, no rotation and no other quantizer came in between."""
        encoder = self.recommender.encoder
        plain = encoder.num_layers == 0 and not encoder.transforms
        return plain and representations.binary and representations.items.scales is not None

    def _stored_filter(self) -> FilterSide | None:
        """Of the run whose checkpoint this is, from the index beside it."""
        index = Path(self.config["ckpt_path"] or "").resolve().parents[1] / "index"
        side = load_index(index).filter_side if (index / "manifest.json").is_file() else None
        if side is None:
            warnings.warn(
                f"no filter for new users in {index}: their codes will be made from the items' codes alone, which "
                "rank worse",
                stacklevel=2,
            )
        return side

    def _measure_teacher(self, index: TeacherIndex) -> dict[str, float]:
        """What the float teacher itself reaches where its codes are measured: the best that they could be."""
        if self.config["test"]:
            name, part, exclude = "test", self.dataset.test, self.dataset.train
        elif self.data.val is not None:
            name, part, exclude = "val", self.data.val, self.data.fit
        else:
            return {}
        found = evaluate(index, part, self.ks, exclude, self.memory_mb).metrics
        return {f"{name}/teacher/{key}": value for key, value in found.items()}

    def _warn_of_idle_annealing(self) -> None:
        config = self.config
        curve = self.annealing.annealing.curve
        if curve != "constant" and not hasattr(self.recommender.encoder.quantizer, "strength"):
            warnings.warn(
                f"annealing={config['annealing']['name']} has no effect on model={config['model']['name']}, "
                "which quantizes nothing",
                stacklevel=2,
            )

    def _fit(self) -> int:
        """Fits, loads the epoch that the protocol says into the recommender, returns its number."""
        holdout = self.data.val is not None
        every = self.config["protocol"].get("every_n_epochs", 5)
        chooses = deciding_cutoff(self.dataset.train.num_items)  # measured whether or not eval.ks asks for it
        ks = sorted({*self.ks, chooses})
        validation = Validation(self.data.fit, self.data.val, ks, every, self.memory_mb)
        history = History(self.folder, validation)
        callbacks: list[Callback] = [
            self.annealing,
            validation,
            TimeSplit(),
            history,
            FiniteLoss(),
            EpochProgress(),
        ]
        best = None
        if holdout:
            best = BestCheckpoint(
                validation,
                dirpath=self.checkpoints,
                filename="best",
                monitor=f"val/recall_{chooses}",
                mode="max",
                auto_insert_metric_name=False,
                enable_version_counter=False,
            )
            patience = PatienceAfterAnnealing(
                self.annealing,
                validation,
                monitor=f"val/recall_{chooses}",
                mode="max",
                patience=self.config["protocol"]["patience"],
            )
            callbacks += [patience, best]
        # of its own: Lightning writes a "last" beside a monitored best only when the best is written
        last = LastCheckpoint(validation, self.checkpoints)
        trainer = self.trainer(
            callbacks=[*callbacks, last],
            logger=self.logger or False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=self.folder,
        )
        if trainer.max_epochs == 0 and self.config["ckpt_path"]:  # nothing to go on with: its weights
            return self._load(Path(self.config["ckpt_path"]))
        if trainer.max_epochs == 0:  # a closed-form model: its start is the result
            trainer.strategy.connect(self.recommender)
            trainer.save_checkpoint(self.checkpoints / "last.ckpt")
            return 0
        if self.config["ckpt_path"]:
            self._read(Path(self.config["ckpt_path"]))
        trainer.fit(
            self.recommender, datamodule=self.data, ckpt_path=self.config["ckpt_path"], weights_only=True
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        self.time_split = {f"time/{part}": history.total(f"time/{part}") for part in TimeSplit.PARTS}
        if best is not None and best.best_model_path:
            kept, done = self._load(Path(best.best_model_path)), trainer.current_epoch
            why = (
                ""
                if done == trainer.max_epochs
                else f", since {patience.patience} validations brought no better"
            )
            log.info(
                f"epoch {kept} is kept, validation Recall@{chooses} {best.best_model_score:.4f}; "
                f"trained {done} of {trainer.max_epochs} epochs{why}"
            )
            return kept
        return trainer.current_epoch

    def _read(self, path: Path) -> dict[str, Any]:
        checkpoint = read_checkpoint(path, self.recommender.identity)
        found, wanted = checkpoint["state_dict"], self.recommender.state_dict()
        for key in sorted(found.keys() | wanted.keys()):
            shapes = [tuple(state[key].shape) if key in state else "no" for state in (found, wanted)]
            if shapes[0] != shapes[1]:
                raise L2QError(
                    f"ckpt_path: the checkpoint has {shapes[0]} {key}, this run {shapes[1]}; "
                    "give the options that it was trained with"
                )
        return checkpoint

    def _load(self, path: Path) -> int:
        """Takes the weights of a checkpoint; returns how many epochs it was trained."""
        checkpoint = self._read(path)
        self.recommender.load_state_dict(checkpoint["state_dict"])
        return int(checkpoint["epoch"]) + 1 if checkpoint["global_step"] else 0
