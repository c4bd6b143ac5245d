"""Lightning callbacks, a file for each subject."""

from l2q.learning.callbacks.annealing import AnnealingCallback
from l2q.learning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from l2q.learning.callbacks.history import History
from l2q.learning.callbacks.progress import EpochProgress
from l2q.learning.callbacks.pruning import Watched
from l2q.learning.callbacks.stopping import FiniteLoss, PatienceAfterAnnealing, TimeLimit
from l2q.learning.callbacks.time_split import TimeSplit
from l2q.learning.callbacks.validation import Validation, code_statistics

__all__ = [
    "AnnealingCallback",
    "BestCheckpoint",
    "EpochProgress",
    "FiniteLoss",
    "History",
    "LastCheckpoint",
    "PatienceAfterAnnealing",
    "TimeLimit",
    "TimeSplit",
    "Validation",
    "Watched",
    "code_statistics",
]
