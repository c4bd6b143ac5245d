"""One run from start to end: fit, measure, export, report."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from l2q import processes, settings
from l2q.data.sources import Source
from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.events.databases import database_of
from l2q.files import replaced_file
from l2q.fitted import Fitted, FittedModel, fit
from l2q.fitted.parts import NOWHERE, OfAll, Parts
from l2q.interactions import Dataset, Interactions
from l2q.kernels import compiling
from l2q.learning import memory, results, trainer
from l2q.learning.configuration import check, check_against, hashed, settle
from l2q.learning.expected import of_a_fit
from l2q.learning.fit_files import FitFiles, identity_of
from l2q.learning.parallel import ranks
from l2q.learning.training import Trained, Training
from l2q.retrieval.popular import Served
from l2q.retrieval.storage import load_index
from l2q.tracking import lineage
from l2q.tracking import tracker as tracking

log = logging.getLogger("l2q")


def closed_form(config: Mapping[str, Any]) -> FittedModel | None:
    """The model of a configuration, where it is fitted rather than trained: one whose class has a ``fit``."""
    values = config["model"]
    if "_target_" not in values:
        return None
    model = settings.build(values, "model")
    if not isinstance(model, FittedModel):
        raise L2QError(f"model._target_={values['_target_']} has no fit(train, seed)")
    name = config["model"]["name"]
    if config["epochs"]:
        raise L2QError(
            f"epochs={config['epochs']}: model={name} is fitted at once, without epochs; leave epochs out"
        )
    if config["ckpt_path"]:
        raise L2QError(
            f"ckpt_path={config['ckpt_path']}: model={name} is fitted at once, and goes on by its folder: leave "
            "ckpt_path out, and give hydra.run.dir=FOLDER of the run that was broken off"
        )
    idle = trainer.without_effect(config["trainer"]) + ["callbacks"] * bool(config.get("callbacks"))
    if idle:
        has = "has" if len(idle) == 1 else "have"
        warnings.warn(
            f"{' and '.join(idle)} {has} no effect on model={name}, which is fitted at once", stacklevel=2
        )
    return model


def expected(train: Interactions, config: Mapping[str, Any]) -> str | None:
    """What a run will take, in a line, before it begins; None where there is nothing that was measured to say it by.
    Of a trained model its steps: seconds are estimated from the first of them on."""
    if not config["fit"]:
        return None
    if not config["epochs"]:
        model, rows, goes_on = config["model"], train.num_users + train.num_items, bool(config.get("start"))
        weights = int(model.get("halvings", 0) is None and train.ahead and train.times is not None)
        weights += int(model.get("value_power", 0) is None and train.values is not None)
        threads = torch.get_num_threads()
        return of_a_fit(model, rows, len(train), goes_on, threads, weights, train.holdout)
    steps = -(-len(train) // config["batch_size"])
    line = (
        f"expected: at most {config['epochs']:,} epochs of {steps:,} steps of {config['batch_size']:,} pairs"
    )
    if (
        config["model"]["name"] == "l2q_anl"
        and config["objective"]["_target_"].endswith(".BPR")
        and processes.size() == 1
    ):
        line += "; experiment=distilled takes 40, and had a higher NDCG on every set (docs/results/paper-models.md)"
    return line


class Run:
    """One run of a ``config``, plain values as ``conf/`` composes them. Making it refuses what cannot end well and
    brings the data; calling it fits, measures and leaves in ``folder``:

    ``config.json``, ``metrics.json``, ``per_user.npz``, ``index/``, and of trained models ``history.csv``,
    ``checkpoints/``, ``training.png``. ``command`` goes into the metrics: no figure without its command. ``name`` and
    ``group`` are the tracker's; ``watch`` is told every validation of a training (``callbacks.Watched``).
    """

    @tracking.refusals_told
    def __init__(
        self,
        config: dict[str, Any],
        folder: str | Path,
        *,
        command: str = "",
        name: str = "run",
        group: str | None = None,
        watch: Callable[[int, Mapping[str, float]], str | None] | None = None,
    ) -> None:
        memory.prepare()
        compiling.tell(lambda: log.info("compiling kernels, as the first run on a machine has to"))
        check(config)
        self.told = deepcopy(config)  # what the other processes are told, where there are some
        self.config, self.folder, self.command = config, Path(folder), command
        self.model = closed_form(config)
        settle(config, fitted=self.model is not None)
        protocol = config["protocol"]
        source: Source = settings.build(
            {"_target_": f"{Source.__module__}.{Source.__name__}"} | config["dataset"], "dataset"
        )
        # an earlier index finds its rows by name, in every process
        with ranks.reading(self.told, lambda: source.in_parts and not config.get("start")):
            self.dataset: Dataset = source.load()
        if (address := database_of(str(config["dataset"].get("dir")))) is not None:
            config["dataset"]["dir"] = address.shown  # no file or tracker needs the password
        check_against(config, self.dataset)
        self.rest: Interactions = self.dataset.train
        self.val: Interactions | None = None
        if protocol["name"] == "holdout":
            self.rest, self.val = split(
                self.dataset.train,
                protocol["split"],
                fraction=protocol["fraction"],
                seed=protocol["split_seed"],
            )
            if not len(self.val):
                raise L2QError(
                    f"{self.dataset.name} has no user with enough items for a validation part; use protocol=final"
                )
        reading = self.dataset.train.reading
        said = [] if reading is None else reading.lines()
        for line in filter(None, [*said, expected(self.rest, config)]):
            log.info(line, extra={"hanging": True})
        self._describe()
        self.start = load_index(config["start"]) if config.get("start") else None
        if self.start is not None and self.model is None:
            raise L2QError(
                f"start={config['start']}: model={config['model']['name']} is trained; leave start out"
            )
        self.training: Training | None = None
        self.of_teacher: dict[str, float] = {}
        if self.model is None:
            self.training = Training(
                config,
                self.rest,
                self.val,
                self.folder if processes.leads() else None,  # who writes
                dataset=self.dataset.name,
                watch=watch,
            )
        self.name, self.group = name, group
        self.config_hash = hashed(config)
        self.ks, self.memory_mb = config["eval"]["ks"], config["eval"]["memory_mb"]
        self.beyond = [deciding_cutoff(self.dataset.train.num_items)]

    def __call__(self) -> dict[str, Any]:
        """Runs; returns what ``metrics.json`` holds."""
        self.folder.mkdir(parents=True, exist_ok=True)
        logger = tracking.connect(self.config["logger"], self.folder, self.name, self.group)
        decides = None if self.val is None else deciding_cutoff(self.rest.num_items)
        with tracking.tracked(logger, self.config, decides) as tracker:
            return self._run(logger, tracker)

    def _run(self, logger: Any, tracker: tracking.Tracker) -> dict[str, Any]:
        started = time.perf_counter()
        shown = results.without_home(self.config)
        results.write_json(self.folder / "config.json", shown | {"config_hash": self.config_hash})
        model = self.config["model"]["name"]
        tracker.use(lineage.of_dataset(self.dataset))
        if self.config["ckpt_path"]:
            tracker.use(lineage.of_checkpoint(Path(self.config["ckpt_path"]), model, self.dataset.name))
        parts: FitFiles | None = None
        if self.training is None:
            parts = FitFiles(
                self.folder / "checkpoints",
                identity_of(self.config, self.dataset.name, self.rest, self.start),
            )
        ranks.share(self.told)
        found = self.learn(logger, parts or NOWHERE)
        processes.leave()
        if parts is not None:
            started -= parts.seconds  # before it was broken off
        metrics = self._report(found, started, self.fitted)
        if self.training is not None and (path := lineage.kept_checkpoint(self.folder)):
            tracker.made(lineage.of_checkpoint(path, model, self.dataset.name, epochs=metrics["epochs"]))
        tracker.made(lineage.of_index(self.folder / "index", metrics))
        kept = metrics["epochs"] if self.val is not None else None
        plot = results.plot(self.folder / "history.csv", self.folder / "training.png", kept)
        results.show(metrics, self.ks, self.folder)
        step = 0 if self.training is None else self.training.recommender.global_step
        tracker.log_summary(metrics, plot, step)
        # last: up to here a run that is stopped goes on from what it kept
        if self.training is not None:
            self.training.tidy()
        if parts is not None:
            parts.tidy()
        return metrics

    def learn(self, logger: Any = None, parts: Parts = NOWHERE) -> Fitted | Trained:
        """What all processes of a run do together, files of which are the first one's: ``parts`` of a fit, too. The
        one fork between models that are fitted at once and models that are trained."""
        if self.training is not None:
            trained = self.training(logger)
            self.fitted = time.perf_counter()
            return trained
        assert self.model is not None
        with processes.together(ranks.FIT_ON):
            found = fit(self.model, self.rest, self.config["seed"], self.start, OfAll(parts))
            self.fitted = time.perf_counter()
            self.of_teacher = self._measure_teacher(found)
        return found

    def _report(self, found: Fitted | Trained, started: float, fitted: float) -> dict[str, Any]:
        representations, dataset, config = found.representations, self.dataset, self.config
        epochs, time_split = (found.epochs, found.time_split) if isinstance(found, Trained) else (0, {})
        reading = dataset.train.reading
        if reading is not None:  # which table it was, not where it lies
            reading = replace(reading, source=Path(reading.source).name)
        metrics: dict[str, Any] = {
            "command": self.command,
            "model": config["model"]["name"],
            "dataset": dataset.name,
            "train": dataset.train.fingerprint[:12],
            **({} if reading is None else {"reading": reading.lines()}),
            "seed": config["seed"],
            **{key: config[key] for key in ("debug", "tags") if config.get(key)},
            "protocol": config["protocol"]["name"],
            **({} if self.val is None else {"split": config["protocol"]["split"]}),
            **(
                {
                    "processes": processes.size(),
                    "parallel": "rows" if self.training is None else config["parallel"],
                }
                if processes.size() > 1
                else {}
            ),
            "epochs": epochs,
            "embedding_dim": representations.dims[0],
        }
        if self.val is not None:
            values, _ = results.measure(representations, self.val, self.ks, self.rest, self.memory_mb)
            metrics |= {f"val/{key}": value for key, value in values.items()}
        side = found.filter_side if isinstance(found, Fitted) and config["new_users"] else None
        if config["test"]:
            values, per_user = results.measure(
                representations, dataset.test, self.ks, dataset.train, self.memory_mb, self.beyond, side
            )
            metrics |= {f"test/{key}": value for key, value in values.items()}
            with replaced_file(self.folder / "per_user.npz") as fresh, fresh.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **per_user)
        chosen = {}
        if isinstance(found, Fitted):
            metrics |= self.of_teacher
            chosen = {} if found.teacher is None else {"teacher": asdict(found.teacher)}
        index = self.folder / "index"
        metrics |= results.export(index, representations, dataset, self.config_hash, metrics, side)
        if config["test"]:
            packed = results.measure_packed(index, dataset.test, self.ks, dataset.train)
            metrics |= {f"test/packed/{key}": value for key, value in packed.items()}
        start_seconds = 0.0 if self.training is None else self.training.start_seconds
        # of all epochs, where this is the last part of a run
        fit_seconds = max(fitted - started, sum(time_split.values()))
        metrics |= {
            "start_seconds": start_seconds,  # of the initialization
            "fit_seconds": fit_seconds,
            "total_seconds": start_seconds + fit_seconds + time.perf_counter() - fitted,
            **time_split,
            **chosen,
            "config_hash": self.config_hash,
            **results.environment(),
        }
        results.write_metrics(self.folder, metrics)
        return metrics

    def _measure_teacher(self, found: Fitted) -> dict[str, float]:
        """What the float teacher itself reaches where its codes are measured: the best that they could be."""
        if found.teacher_index is None or (self.config["test"] and self.dataset.test.given is not None):
            return {}  # the teacher folds nobody in
        if self.config["test"]:
            name, part, exclude = "test", self.dataset.test, self.dataset.train
        elif self.val is not None:
            name, part, exclude = "val", self.val, self.rest
        else:
            return {}
        beyond = self.beyond if name == "test" else []
        index = Served(
            found.teacher_index, exclude.item_degrees
        )  # of new users, what their codes' index shows
        values = evaluate(index, part, self.ks, exclude, self.memory_mb, beyond=beyond)
        measured = values.metrics | values.beyond
        return {f"{name}/teacher/{key}": value for key, value in measured.items()}

    def _describe(self) -> None:
        """Says what runs, under which protocol, on what, before anything long starts."""
        config, dataset = self.config, self.dataset
        train, test, protocol = dataset.train, dataset.test, config["protocol"]
        known, source = "", config["dataset"]
        if any(
            source.get(key) for key in ("counts", "fingerprints", "md5")
        ):  # a table has nothing to be held to
            known = ", verified" if source.get("verify", True) else ", not verified"
        how = "final (all of train, nothing monitored)"
        if self.val is not None:
            chooses = "chooses the epoch" if self.model is None else "is measured; protocol=final fits it too"
            chooses = chooses if config["fit"] else "is measured"
            how = f"holdout ({protocol['split']} {protocol['fraction']:.0%} of train {chooses})"
        read = "read once, at the end"
        if not config["fit"]:
            read = f"read for {config['ckpt_path']}, which is measured as it is, beside the run that wrote it"
        users, items = "users", "items"
        if dataset.columns:
            users, items = (
                f"{side} (column {column!r})"
                for side, column in zip((users, items), dataset.columns, strict=True)
            )
        log.info(
            f"{config['model']['name']} on {dataset.name}: {train.num_users:,} {users} x {train.num_items:,} {items}, "
            f"{len(train):,} train and {len(test):,} test interactions{known}; protocol {how}; "
            f"test is {read if config['test'] else 'not read'}"
        )
