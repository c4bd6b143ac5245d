"""1-bit graph recommenders: L2Q-GCN and L2Q-GCN-anl, trained, quantized, packed and served.

import l2q

events = l2q.read_events("events.parquet")
train, test = l2q.split(events, "random", fraction=0.2, seed=0)
index = l2q.fit(train, "l2q_plus", bits=768, seed=0)
items, scores = index.recommend("ffmpeg", k=10)
l2q.evaluate(index, test, ks=[20]).metrics["recall_20"]
index.save("index")
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2q.data.sources import load_dataset as load_dataset
    from l2q.data.splits import split as split
    from l2q.errors import L2QError as L2QError
    from l2q.evaluation import Evaluation as Evaluation
    from l2q.evaluation import evaluate as evaluate
    from l2q.events.read import read_events as read_events
    from l2q.exports import export as export
    from l2q.interactions import Dataset as Dataset
    from l2q.interactions import Interactions as Interactions
    from l2q.learning.fit import fit as fit
    from l2q.quantization import quantize as quantize
    from l2q.retrieval.named import Index as Index
    from l2q.retrieval.named import Ranking as Ranking
    from l2q.retrieval.shared import share_items as share_items
    from l2q.retrieval.storage import load_index as load_index

__version__ = "0.1.0"

_HOMES = {
    "Dataset": "l2q.interactions",
    "Evaluation": "l2q.evaluation",
    "Index": "l2q.retrieval.named",
    "Interactions": "l2q.interactions",
    "L2QError": "l2q.errors",
    "Ranking": "l2q.retrieval.named",
    "evaluate": "l2q.evaluation",
    "export": "l2q.exports",
    "fit": "l2q.learning.fit",
    "load_dataset": "l2q.data.sources",
    "load_index": "l2q.retrieval.storage",
    "quantize": "l2q.quantization",
    "read_events": "l2q.events.read",
    "share_items": "l2q.retrieval.shared",
    "split": "l2q.data.splits",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: ``import l2q`` alone takes no time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'l2q' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


LATE: list[str] = []
"""Libraries that were loaded before this package and so read none of the settings below."""

# Settings that NumPy's BLAS and torch read when they load; who loads them before this package does without.
for _name, _value, _reader in (
    # Threads that spin at a barrier take the core from the thread that they wait for: on a busy two-core machine
    # an element-wise operation took 8 ms instead of .5, and a search for the best scores after a product twice as
    # long as it should, with nothing else running.
    ("OMP_WAIT_POLICY", "PASSIVE", "torch"),
    ("OPENBLAS_THREAD_TIMEOUT", "4", "numpy"),  # spin for 2^4 cycles, the least, before sleep
    # Huge pages for torch's large tensors, as NumPy has: a product with the adjacency reads rows at random.
    ("THP_MEM_ALLOC_ENABLE", "1", "torch"),
):
    if _name not in os.environ:
        os.environ[_name] = _value
        if _reader in sys.modules and _reader not in LATE:
            LATE.append(_reader)
