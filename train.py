"""Trains, measures and exports one recommender: ``python train.py model=l2q_anl dataset=gowalla``.

``python train.py --help`` lists the options; ``-m`` sweeps over comma-separated values. What a run does is
``l2q.learning.run``, how it is done again and gone on with ``l2q.learning.jobs``; here a configuration is composed.
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.l2q_command_line import SEE, one_line
from l2q import processes
from l2q.errors import lacking, print_anything, printable
from l2q.learning import naming
from l2q.learning.parallel import ranks
from l2q.learning.signals import Interrupted, interruptible, piped
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
    if ranks.too_few(devices := values["trainer"]["devices"]):
        forget()
        ranks.torchrun(devices, sys.argv)
    show(config, values)
    job = HydraConfig.get()
    command = naming.command(values, job.overrides.task)
    name = job.job.override_dirname or naming.title(values)
    SWEEP.folder = Path(job.runtime.output_dir)
    SWEEP.run([Job(values, SWEEP.folder, command, name, before=SWEEP.before)], InTurn())


def ended() -> int:
    """Says how it ended and how to go on; the exit code."""
    several = len(SWEEP.jobs) > 1
    if several:
        print(f"compare them: python -m l2q report {SWEEP.folder}", SWEEP.summary(), sep="\n")
    for _, outcome in [] if several else SWEEP.failed:
        tell(outcome.reason)
    if SWEEP.closing:
        print(SWEEP.closing)
    return 2 if SWEEP.failed else 0


def forget() -> None:
    """Takes away what a command line that was refused has left."""
    if SWEEP.before and not SWEEP.jobs:
        SWEEP.before.restore()


def tell(reason: object) -> None:
    said = str(reason)
    if "there is no such option" in said and SEE not in said:
        said += (" " if said.endswith("?") else "; ") + SEE
    print(f"error: {printable(said)}", file=sys.stderr)


if __name__ == "__main__":
    print_anything()
    if not processes.join():
        sys.exit(ranks.follow())
    words = sys.argv[1:]
    sys.argv = [naming.quoted(word) for word in sys.argv]
    sys.argv[1:] = sorted(
        sys.argv[1:], key=lambda word: word not in ("-m", "--multirun")
    )  # as argparse wants it
    try:
        with piped(), one_line(words), interruptible():
            if {"-h", "--help"}.isdisjoint(words):
                main()
            else:
                from hydra_plugins.l2q_help import text

                print(text(sys.argv[1:]))
            code = ended()
    except Refused as error:
        tell(error)
        forget()
        code = 2
    except Exception as error:
        if (lack := lacking(error)) is None:
            raise
        tell(lack)
        code = 2
    except Interrupted as signal:
        code = signal.code
        if SWEEP.folder:
            print(f"\nbroken off by {signal}", file=sys.stderr)
    if SWEEP.folder and SWEEP.folder.exists() and (code > 128 or not SWEEP.named):
        why = "to go on" if code else "the same sweep again, or more of it"
        print(f"{why}: {naming.going_on(words, SWEEP.place, SWEEP.folder, ranks.command())}", file=sys.stderr)
    if code <= 128:  # a signal reaches the others, too
        ranks.dismiss()
    sys.exit(code)
