"""One training by several processes, which torchrun, SLURM or Kubernetes starts: who they are (``ranks``), and the ways
to share the work (``batches``, ``columns``, ``edges``). One process uses ``one``, and none of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2q.learning.parallel.one import One


def way(config: Mapping[str, Any]) -> One:
    """How the processes of this run share the work, by ``config["parallel"]``."""
    from l2q import processes
    from l2q.learning.parallel.one import One  # brings Lightning along, as the others do

    if processes.size() == 1:
        return One()
    if config["parallel"] == "columns":
        from l2q.learning.parallel.columns import Columns

        return Columns()
    if config["parallel"] == "edges":
        from l2q.learning.parallel.edges import Edges

        return Edges()
    from l2q.learning.parallel.batches import Batches

    return Batches()
