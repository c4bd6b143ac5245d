"""Trains, measures and exports one recommender: ``python train.py model=l2q_anl dataset=gowalla``.

``python train.py --help`` lists the options; ``-m`` sweeps over comma-separated values. What a run does is
``l2q.learning.run``, how it is done again and gone on with ``l2q.learning.jobs``; here a configuration is composed.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from l2q.learning import naming
from l2q.learning.signals import Interrupted, interruptible
from l2q.sweeps.sweep import SWEEP, Refused, plain, refused, show

OmegaConf.register_new_resolver("run_dir", naming.run_dir, use_cache=True)
OmegaConf.register_new_resolver("sweep_dir", naming.sweep_dir, use_cache=True)
OmegaConf.register_new_resolver("stem", lambda path: naming.stem(str(path)))


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """One run; the jobs of a sweep go another way (``hydra_plugins.l2q_sweeps``)."""
    from l2q.learning.jobs import Job
    from l2q.sweeps.launchers import InTurn

    with refused():
        values = plain(config)
    show(config, values)
    job = HydraConfig.get()
    command = naming.command(values, job.overrides.task)
    name = job.job.override_dirname or naming.title(values)
    SWEEP.folder = Path(job.runtime.output_dir)
    SWEEP.run([Job(values, SWEEP.folder, command, name)], InTurn())


def ended() -> int:
    """Says how it ended and how to go on; the exit code."""
    several = len(SWEEP.jobs) > 1
    if several:
        print(f"compare them: python -m l2q report {SWEEP.folder}", SWEEP.summary(), sep="\n")
    for _, outcome in [] if several else SWEEP.failed:
        print(f"error: {outcome.reason}", file=sys.stderr)
    if SWEEP.closing:
        print(SWEEP.closing)
    return 2 if SWEEP.failed else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.argv = [naming.quoted(word) for word in sys.argv]
    try:
        with interruptible():
            main()
        code = ended()
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except Interrupted as signal:
        code = signal.code
        print(f"\nbroken off by {signal}", file=sys.stderr)
    if SWEEP.folder and (code > 128 or not SWEEP.named):
        why = "to go on" if code else "the same sweep again, or more of it"
        print(f"{why}: {naming.going_on(words, SWEEP.place, SWEEP.folder)}", file=sys.stderr)
    sys.exit(code)
