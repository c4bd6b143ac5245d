"""Training of one recommender: fit, choose the epoch, go on from a checkpoint."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import Callback

from l2q import settings
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff
from l2q.interactions import Interactions
from l2q.learning import parallel
from l2q.learning import trainer as trainers
from l2q.learning.callbacks import (
    AnnealingCallback,
    BestCheckpoint,
    EpochProgress,
    FiniteLoss,
    History,
    LastCheckpoint,
    PatienceAfterAnnealing,
    TimeLimit,
    TimeSplit,
    Validation,
    Watched,
)
from l2q.learning.checkpoints import remove
from l2q.learning.configuration import TRAINING, flat
from l2q.learning.datamodule import InteractionsModule
from l2q.learning.parallel.ranks import GO_ON
from l2q.learning.recommender import read_checkpoint
from l2q.learning.signals import held
from l2q.models.initialization import Normal, TeacherFactors
from l2q.processes import leads, lost
from l2q.representations import Representations

log = logging.getLogger("l2q")

# what Lightning says of devices and log intervals hides what a run has to say
for name in ("pytorch_lightning", "matplotlib"):
    logging.getLogger(name).setLevel(logging.WARNING)
for noise in (
    ".*exists and is not empty",
    ".*LeafSpec",
    ".*smaller than the logging interval",
    ".*recommended to use .*sync_dist=True",  # what is logged without it is every process's own, or the same
    ".broadcast_buffers. is deprecated",  # what replaces it does what is not wanted
    ".*requested to overfit but",  # the same batches are the sampler's to give
    "The dirpath has changed",  # of a moved run's last.ckpt, which needs none of what is dropped
):
    warnings.filterwarnings("ignore", noise)


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training gives. ``representations`` are the hard codes, or float rows, of the epoch that the protocol
    takes. ``epochs`` is its number. ``time_split`` has the seconds of all epochs by part (``callbacks.TimeSplit``)."""

    representations: Representations
    epochs: int
    time_split: dict[str, float] = field(default_factory=dict)


class Training:
    """Builds a recommender for ``train`` from a ``config`` (``l2q.learning.configuration``); calling it trains.

    ``val`` None: nothing is monitored, and the last epoch is taken; else the best one on it. Files go below
    ``folder``: ``history.csv`` and ``checkpoints/``. None: there are none, and the best epoch is kept in memory.
    ``dataset`` is the name that a checkpoint is held to. ``watch`` is told every validation (``callbacks.Watched``).
    ``logger`` is Lightning's, or None.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        train: Interactions,
        val: Interactions | None,
        folder: Path | None,
        *,
        dataset: str = "",
        watch: Callable[[int, Mapping[str, float]], str | None] | None = None,
    ) -> None:
        self.config, self.train, self.val, self.folder = config, train, val, folder
        self.way = way = parallel.way(config)
        way.check(config)
        self.watch = watch
        self.checkpoints = (folder or Path()) / "checkpoints"
        self.files = way.files(in_memory=folder is None)
        # what can be refused comes first: an initialization may take minutes
        self.more_callbacks = trainers.callbacks(config.get("callbacks", {}))
        longest = config["trainer"].get("max_time")
        self.limit = None if longest is None else TimeLimit(longest)
        self.whole = False  # nothing is left to train
        self.annealing = AnnealingCallback(settings.build(config["annealing"], "annealing"))
        objective = settings.build(config["objective"], "objective")
        model = dict(config["model"])
        quantizer = settings.build(model.pop("quantizer"), "model.quantizer")
        # a checkpoint is measured if its identity is this one, and gone on with if its training options are these, too
        identity = {
            "model": model["name"],
            "dataset": dataset,
            "fingerprint": train.fingerprint,
            "seed": config["seed"],
            **flat({"model": config["model"]}),
        }
        training = flat({key: config[key] for key in TRAINING})
        # soft codes are training's alone
        training["relaxation"] = identity.pop("model.quantizer.relaxation", None)
        if train.holdout and hasattr(objective, "learn_from"):
            training["holdout"] = train.holdout  # by which its teacher is chosen
        # nor does training see how long the rows are that it ends with: another length needs no new one
        training["popularity"] = identity.pop("model.popularity", None)
        if config["ckpt_path"]:
            goes_on = training if config["fit"] else {}
            read_checkpoint(Path(config["ckpt_path"]), identity | goes_on)
        initialization = settings.build(model.pop("initialization"), "model.initialization")
        if config["ckpt_path"]:
            initialization = Normal(std=0.0)  # the checkpoint brings its own embeddings
        del model["name"]
        began = time.perf_counter()
        if config["fit"] and hasattr(objective, "learn_from"):
            scores = objective.learn_from(train, config["seed"])
            if isinstance(initialization, TeacherFactors):
                initialization = partial(initialization, scores=scores)
        model, initialization = way.own(model, quantizer, objective, initialization)
        encoder = settings.build(
            {"_target_": f"{way.encoder.__module__}.{way.encoder.__name__}"} | model,
            "model",
            train=train,
            propagation=way.propagation(train),
            quantizer=quantizer,
            initialization=initialization,
            seed=config["seed"],
        )
        self.start_seconds = time.perf_counter() - began
        self.recommender = way.recommender(
            encoder,
            objective,
            learning_rate=config["learning_rate"],
            schedule=config["schedule"],
            epochs=config["epochs"],
            seed=config["seed"],
            identity=identity,
            training=training,
        )
        self.data = InteractionsModule(
            train,
            batch_size=config["batch_size"],
            by_users=config["batches"] == "users",
            candidates=getattr(objective, "candidates", 1),
            seed=config["seed"],
            loader=way.loader,
        )

    def __call__(self, logger: Any = None) -> Trained:
        """Trains, or with ``fit=false`` takes the weights of the checkpoint."""
        self._warn_of_idle_annealing()
        if not self.config["fit"]:
            return self._result(self._load(Path(self.config["ckpt_path"])), {})
        return self._result(*self._fit(logger))

    def _result(self, epochs: int, time_split: dict[str, float]) -> Trained:
        with lost(GO_ON):  # several processes have a part of the rows each
            return Trained(self.recommender.encoder.encode(), epochs, time_split)

    def _warn_of_idle_annealing(self) -> None:
        config = self.config
        curve = self.annealing.annealing.curve
        if curve != "constant" and not hasattr(self.recommender.encoder.quantizer, "strength"):
            warnings.warn(
                f"annealing={config['annealing']['name']} has no effect on model={config['model']['name']}, "
                "which quantizes nothing",
                stacklevel=2,
            )

    def _fit(self, logger: Any) -> tuple[int, dict[str, float]]:
        """Fits, loads the epoch that the protocol says into the recommender; its number and the time split."""
        config, protocol = self.config, self.config["protocol"]
        ks, memory_mb = config["eval"]["ks"], config["eval"]["memory_mb"]
        chooses = deciding_cutoff(self.train.num_items)  # measured whether or not eval.ks asks for it
        validation = Validation(
            self.train,
            self.val,
            sorted({*ks, chooses}),
            protocol["every_n_epochs"],
            memory_mb,
            self.way.evaluate,
        )
        history = History(self.folder, validation)
        callbacks: list[Callback] = [
            self.annealing,
            validation,
            TimeSplit(),
            history,
            FiniteLoss(self.way.lowest),
            EpochProgress(
                validation, shown=leads() and config["trainer"].get("enable_progress_bar") is not False
            ),
            *self.more_callbacks,
        ]
        if self.limit:
            callbacks.append(self.limit)
        best = None
        if self.val is not None:
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
                patience=protocol["patience"],
            )
            callbacks += [patience, best]
        if self.watch:  # behind patience, which may end the training by itself
            callbacks.append(Watched(validation, self.watch))
        # of its own: Lightning writes a "last" beside a monitored best only when the best is written
        last = LastCheckpoint(validation, self.checkpoints, self.way.decided)
        trainer = trainers.make_trainer(
            config["trainer"], self.folder, [*callbacks, last], logger, self.files, self.way.trainer()
        )
        ckpt_path = config["ckpt_path"]
        if trainer.max_epochs == 0 and ckpt_path:  # nothing to go on with: its weights
            return self._load(Path(ckpt_path)), {}
        if trainer.max_epochs == 0:  # the initialization is the result
            trainer.strategy.connect(self.recommender)
            trainer.save_checkpoint(self.checkpoints / "last.ckpt")
            return 0, {}
        if ckpt_path:
            self._read(Path(ckpt_path))
        # a short epoch that is not on disk yet is finished and written first
        with held(lambda: last.behind), trainers.one_line(), lost(GO_ON):
            trainer.fit(self.recommender, datamodule=self.data, ckpt_path=ckpt_path, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        done = trainer.current_epoch
        tired = best is not None and patience.wait_count >= max(patience.patience, 1)
        self.whole = tired or done >= config["epochs"]
        ended = f"trained {done} of {trainer.max_epochs} epochs"
        if done < trainer.max_epochs:
            ended += f", since {self._stopped_by(patience.patience if tired else None)}"
        time_split = {f"time/{part}": history.total(f"time/{part}") for part in TimeSplit.PARTS}
        if best is not None and best.best_model_path:
            kept = self._load(Path(best.best_model_path))
            score = f"validation Recall@{chooses} {best.best_model_score:.4f}"
            log.info(f"epoch {kept} is kept, {score}; {ended}")
            return kept, time_split
        if best is not None:
            every = protocol["every_n_epochs"]
            ended += f"; none of them was validated, since protocol.every_n_epochs={every}"
        if best is not None or done < trainer.max_epochs:
            log.info(f"epoch {done}, the last one, is kept; {ended}")
        return done, time_split

    def tidy(self) -> None:
        """Leaves the checkpoints that ``keep`` names, where nothing is left to train."""
        unwanted = {"best": "last.ckpt", "last": "best.ckpt"}.get(self.config["keep"])
        both = all((self.checkpoints / name).is_file() for name in ("best.ckpt", "last.ckpt"))
        if self.whole and unwanted and both:
            remove(self.checkpoints / unwanted)

    def _stopped_by(self, patience: int | None) -> str:
        if self.limit is not None and self.limit.over:
            return f"trainer.max_time={self.config['trainer']['max_time']} is over"
        return "a callback stopped it" if patience is None else f"{patience} validations brought no better"

    def _read(self, path: Path) -> dict[str, Any]:
        checkpoint = self.recommender.own(read_checkpoint(path, self.recommender.identity, self.files))
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
