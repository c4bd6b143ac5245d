"""What processes that torchrun starts do for ``test_rows.py``: runs of a file of configurations, each in blocks so small
that every process has some; rank 0 leaves their files. With a folder of its own, one process does the same."""

import json
import sys
from pathlib import Path

import l2q.fitted.descent
import l2q.kernels.top_lists
from l2q import processes
from l2q.kernels import dense, svd
from l2q.learning.run import Run


def cut_small() -> None:
    l2q.fitted.descent._ROWS = 16
    l2q.kernels.top_lists.USERS_PER_BLOCK = 16
    dense.SMALL, dense.FAR, dense.DEEP, dense.TILE, dense.SIDES = 1, 1, 1, 2**12, (8, 16)
    svd.WIDTH = 64


def main(folder: Path) -> None:
    cut_small()
    processes.join()
    for name, config in json.loads(Path("cases.json").read_text()).items():
        run = Run(config, folder / name)
        if processes.leads():
            run.dismissing = False
        run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
