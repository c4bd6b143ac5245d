"""What processes that torchrun starts do for ``test_parallel.py``: runs of a file of configurations, one after the
other; rank 0 leaves their files and representations, ``NAME-PROCESSES``."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import l2q.kernels.rows
import l2q.kernels.top_lists
from l2q import processes
from l2q.fitted import Fitted
from l2q.fitted.parts import NOWHERE
from l2q.kernels import dense
from l2q.learning.fit_files import FitFiles, identity_of
from l2q.learning.parallel import drawing, edges
from l2q.learning.run import Run


def in_small_blocks(patch: pytest.MonkeyPatch) -> None:
    """Of which every process has some, however small the set."""
    patch.setattr(l2q.kernels.top_lists, "USERS_PER_BLOCK", 16)
    for name, value in {"WIDTH": 16, "UNIT": 16, "DEEPEST": 48}.items():
        patch.setattr(l2q.kernels.rows, name, value)
    patch.setattr(edges, "PIECE", 50)
    patch.setattr(drawing, "BLOCK", 20)
    for name, value in {"SMALL": 1, "FAR": 1, "DEEP": 1, "TILE": 2**12, "SIDES": (16, 16)}.items():
        patch.setattr(dense, name, value)


def learn(name: str, config: dict) -> None:
    """What a run does between its beginning and its report; a fit keeps what it has in the run's folder."""
    folder = Path(f"{name}-{processes.size()}")
    folder.mkdir(exist_ok=True)
    run = Run(config, folder)
    parts = NOWHERE
    if run.training is None and processes.leads():
        parts = FitFiles(
            folder / "checkpoints", identity_of(run.config, run.dataset.name, run.rest, run.start)
        )
    found = run.learn(parts=parts)
    if processes.leads():
        arrays = list(found.representations.factors())
        if isinstance(found, Fitted) and found.filter_side is not None:
            side = found.filter_side
            arrays += [side.codes, side.roots, side.values, np.array(list(run.of_teacher.values()))]
        np.savez(f"{folder}.npz", *arrays)


if __name__ == "__main__":
    processes.join()
    processes.connect()
    if "small" in sys.argv:
        in_small_blocks(pytest.MonkeyPatch())
    for case, settings in json.loads(Path(sys.argv[1]).read_text()).items():
        learn(case, settings)
    processes.leave()
