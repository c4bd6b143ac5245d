"""Trains, measures and exports one recommender: ``python train.py model=l2q_anl dataset=gowalla``.

``python train.py --help`` lists the options; ``-m`` sweeps over comma-separated values.
"""

import hashlib
import logging
import os
import re
import shlex
import sys
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
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


def command_of(config: DictConfig, overrides: list[str]) -> str:
    """The command that gives the same figures: not where files lie, nor a resume, which ends where one run would."""
    resumes = config.fit and (config.trainer.max_epochs or not config.epochs)
    left_out = ("dataset.dir=", "logger=", *(("ckpt_path=",) if resumes else ()))
    said = [word for word in overrides if not word.startswith(left_out)]
    place = Path(OmegaConf.select(config, "dataset.dir", throw_on_missing=False) or "")
    if place.expanduser().is_file():  # which table it was is
        said.append(f"dataset.dir={place.name}")
    return f"python train.py {shlex.join(said)}".rstrip()


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
    from l2q.learning.run import Run

    warnings.showwarning = show_warning
    job = HydraConfig.get()
    # where a set lies is too long to show
    name = re.sub(r"(?<=dataset\.dir=)[^,]*/", "", job.job.override_dirname)
    name = name or f"{config.model.name} {config.dataset.name}"
    group = Path(job.sweep.dir).name if job.mode == RunMode.MULTIRUN else None
    try:
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise L2QError(f"{' and '.join(missing)} has no default: give {missing[0]}=VALUE")
        plain: Any = OmegaConf.to_container(config, resolve=True)
        command = command_of(config, job.overrides.task)
        Run(plain, job.runtime.output_dir, command=command, name=name, group=group)()
    except L2QError as error:  # one line; the other jobs of a sweep go on
        FAILURES.append(f"{name}: {error}")
        logging.getLogger("l2q.file").error(error)
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.argv = [quoted(word) for word in sys.argv]
    main()
    if len(FAILURES) > 1:
        print(f"{len(FAILURES)} jobs failed:", *FAILURES, sep="\n  ", file=sys.stderr)
    sys.exit(2 if FAILURES else 0)
