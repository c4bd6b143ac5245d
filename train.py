"""Trains, measures and exports one recommender: ``python train.py model=l2q_anl dataset=gowalla``.

``python train.py --help`` lists the options; ``-m`` sweeps over comma-separated values. What a run does is
``l2q.learning.run``; here a configuration is composed and handed over.
"""

import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from l2q.errors import L2QError
from l2q.learning import naming

OmegaConf.register_new_resolver("run_dir", naming.run_dir, use_cache=True)
OmegaConf.register_new_resolver("folder_name", naming.folder_name)
OmegaConf.register_new_resolver("stem", lambda path: Path(str(path)).stem)

FAILURES: list[str] = []


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A line for people, in train.log too."""
    print(f"warning: {message}", file=sys.stderr)
    logging.getLogger("l2q.file").warning(message)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    from l2q.learning.run import Run  # here, since --help needs none of it

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
        command = naming.command(plain, job.overrides.task)
        Run(plain, job.runtime.output_dir, command=command, name=name, group=group)()
    except L2QError as error:  # one line; the other jobs of a sweep go on
        FAILURES.append(f"{name}: {error}")
        logging.getLogger("l2q.file").error(error)
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.argv = [naming.quoted(word) for word in sys.argv]
    main()
    if len(FAILURES) > 1:
        print(f"{len(FAILURES)} jobs failed:", *FAILURES, sep="\n  ", file=sys.stderr)
    sys.exit(2 if FAILURES else 0)
