"""``python -m l2q wandb``: runs told to W&B afterwards."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from l2q.errors import L2QError

PLACE = 7
HELP = "offline W&B runs of the folders of runs, for `wandb sync`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="+", metavar="RUN", help="folder of a run that has ended")
    parser.add_argument("--project", help="instead of the run's own")
    parser.add_argument("--entity", help="a user or a team")
    parser.add_argument("--group", help="the sweep; else the name of the folder in outputs/sweeps")


def run(folders: list[str], project: str | None, entity: str | None, group: str | None) -> None:
    """Writes what W&B lacks of each run into an offline file in its folder, and prints the command that sends it."""
    from l2q.tracking.wandb_rebuild import rebuild

    given = {key: value for key, value in {"project": project, "entity": entity}.items() if value is not None}
    wrong = 0
    for folder in folders:
        try:
            place = rebuild(Path(folder), group, **given)
        except L2QError as error:
            if len(folders) == 1:
                raise
            wrong += 1
            print(f"error: {error}", file=sys.stderr)
        else:
            print(f"wandb sync {place.parent}")
    if wrong:
        raise L2QError(f"{wrong} of {len(folders)} runs were not written")
