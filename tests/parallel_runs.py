"""What processes that torchrun starts do for ``test_parallel.py``: trainings of a file of configurations, one after the
other; rank 0 leaves their files and representations."""

import json
import sys
from pathlib import Path

import numpy as np

from l2q import processes
from l2q.learning.run import Run

processes.join()
processes.connect()
for name, config in json.loads(Path(sys.argv[1]).read_text()).items():
    Path(f"{name}-two").mkdir(exist_ok=True)
    run = Run(config, Path(f"{name}-two"))
    assert run.training is not None
    found = run.training()
    if processes.leads():
        np.savez(f"{name}-two.npz", *found.representations.factors())
processes.leave()
