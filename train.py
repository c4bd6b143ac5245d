"""Trains, measures and exports one recommender: ``python train.py model=l2q_anl dataset=gowalla``.

``python train.py --help`` lists the options; ``-m`` sweeps over comma-separated values.
"""

import hashlib
import inspect
import logging
import os
import re
import shlex
import sys
import time
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from l2q.errors import L2QError


def run_dir(fit: bool, ckpt_path: str | None, root: str) -> str:
    """A resumed run goes on in its own folder, the one around ``checkpoints/``; any other gets a new one,
    named by the time; to the microsecond, so that two that start together have one each."""
    checkpoint = Path(ckpt_path or "").resolve()
    if fit and checkpoint.is_file() and checkpoint.parent.name == "checkpoints":
        return str(checkpoint.parents[1])
    return f"{root}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def folder_name(overrides: str) -> str:
    """A job's overrides as a folder's name, paths among them too; file systems take 255 bytes, so the end of a longer
    one is hashed."""
    overrides = overrides.replace(os.sep, "_")
    if len(overrides.encode()) <= 200:
        return overrides
    return f"{overrides[:60]}-{hashlib.sha256(overrides.encode()).hexdigest()[:16]}"


OmegaConf.register_new_resolver("run_dir", run_dir, use_cache=True)
OmegaConf.register_new_resolver("folder_name", folder_name)
OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem)


def build(config: DictConfig, folder: Path, name: str, group: str | None, command: str):
    """Every object of a run, from plain values."""
    from hydra.utils import instantiate

    from l2q.data.sources import Source
    from l2q.learning.datamodule import InteractionsModule
    from l2q.learning.options import TRAINING, check_against, check_options, flat, settle
    from l2q.learning.recommender import Recommender, read_checkpoint
    from l2q.learning.run import Run, describe
    from l2q.models.encoder import Encoder
    from l2q.models.graph import Graph, Propagation
    from l2q.models.initialization import Normal

    if missing := OmegaConf.missing_keys(config):
        raise L2QError(f"{' and '.join(sorted(missing))} has no default: give {sorted(missing)[0]}=VALUE")
    plain: Any = OmegaConf.to_container(config, resolve=True)
    check_options(plain)
    settle(plain)
    protocol = plain["protocol"]
    source = dict(plain["dataset"])
    for group, known, values in (("dataset", Source, source), ("model", Encoder, plain["model"])):
        if unknown := values.keys() - inspect.signature(known).parameters.keys() - {"name"}:
            raise L2QError(
                f"{group}.{min(unknown)}: a {group} has no such option; python train.py --help lists them"
            )
    split = (
        {key: protocol[key] for key in ("split", "fraction", "split_seed")}
        if protocol["name"] == "holdout"
        else {"split": None}
    )
    candidates = plain["objective"].get("candidates", 1)
    data = InteractionsModule(
        source, batch_size=config.batch_size, candidates=candidates, seed=config.seed, **split
    )
    data.prepare_data()
    data.setup()
    assert data.dataset is not None
    check_against(plain, data.dataset)
    describe(plain, data)

    # what can be refused comes first: an initialization may take minutes
    annealing, objective = instantiate(config.annealing), instantiate(config.objective)
    model = dict(config.model)
    quantizer = instantiate(model.pop("quantizer"))
    # what a checkpoint must have been made with: to be measured, and to be gone on with
    identity = {
        "model": model["name"],
        "dataset": config.dataset.name,
        "fingerprint": data.fit.fingerprint,
        "seed": config.seed,
        **flat({"model": plain["model"]}),
    }
    training = flat({key: plain[key] for key in TRAINING})
    # soft codes are training's alone
    training["relaxation"] = identity.pop("model.quantizer.relaxation", None)
    if config.ckpt_path:
        read_checkpoint(Path(config.ckpt_path), identity | (training if config.fit else {}))
    initialization = instantiate(model.pop("initialization"))
    if config.ckpt_path and (config.trainer.max_epochs or not config.fit):
        initialization = Normal()  # the checkpoint brings its own embeddings
    began = time.perf_counter()
    del model["name"]
    encoder = Encoder(
        data.fit,
        Propagation(Graph.from_interactions(data.fit)),
        quantizer,
        initialization,
        seed=config.seed,
        **model,
    )
    start_seconds = time.perf_counter() - began
    recommender = Recommender(
        encoder,
        objective,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        epochs=config.epochs,
        seed=config.seed,
        identity=identity,
        training=training,
    )
    return Run(
        folder,
        config=plain,
        command=command,
        start_seconds=start_seconds,
        data=data,
        recommender=recommender,
        annealing=annealing,
        trainer=instantiate(config.trainer, _partial_=True),
        logger=instantiate(config.logger, _partial_=True)(folder, name, group, plain),
    )


def quoted(word: str) -> str:
    """A path as Hydra's grammar takes it, whatever signs it has: ``events (1).csv``, or a sweep's folder."""
    key, _, value = word.partition("=")
    plain = re.fullmatch(r"[\w./~-]*", value, re.ASCII)
    if key not in ("dataset.dir", "ckpt_path") or plain or not Path(value).expanduser().exists():
        return word
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


FAILURES: list[str] = []


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A line for people, in train.log too."""
    print(f"warning: {message}", file=sys.stderr)
    logging.getLogger("l2q.file").warning(message)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    from l2q.learning import memory, tracking
    from l2q.learning.options import check_added

    memory.keep_freed_memory()
    warnings.showwarning = show_warning
    job = HydraConfig.get()
    sweep = job.mode == RunMode.MULTIRUN
    # where a set lies is too long to show
    name = re.sub(r"(?<=dataset\.dir=)[^,]*/", "", job.job.override_dirname)
    name = name or f"{config.model.name} {config.dataset.name}"
    # where files lie is not what gives a figure, nor is a resume, which ends where one run would have ended
    resumes = config.fit and (config.trainer.max_epochs or not config.epochs)
    left_out = ("dataset.dir=", "logger=", *(("ckpt_path=",) if resumes else ()))
    said = [word for word in job.overrides.task if not word.startswith(left_out)]
    place = Path(OmegaConf.select(config, "dataset.dir") or "")
    if place.expanduser().is_file():  # which table it was is
        said.append(f"dataset.dir={place.name}")
    command = f"python train.py {shlex.join(said)}".rstrip()
    failed = True
    try:
        plain: Any = OmegaConf.to_container(config)
        check_added(job.overrides.task, plain)
        group = Path(job.sweep.dir).name if sweep else None
        build(config, Path(job.runtime.output_dir), name, group, command)()
        failed = False
    except (L2QError, InstantiationException) as error:  # one line; the other jobs of a sweep go on
        if not isinstance(error, L2QError):  # Hydra's wrapping of what a constructor says
            if not isinstance(error.__cause__, L2QError):
                raise
            error = error.__cause__
        FAILURES.append(f"{name}: {error}")
        logging.getLogger("l2q.file").error(error)
        print(f"error: {error}", file=sys.stderr)
    finally:
        tracking.finish(failed)


if __name__ == "__main__":
    sys.argv = [quoted(word) for word in sys.argv]
    main()
    if len(FAILURES) > 1:
        print(f"{len(FAILURES)} jobs failed:", *FAILURES, sep="\n  ", file=sys.stderr)
    sys.exit(2 if FAILURES else 0)
