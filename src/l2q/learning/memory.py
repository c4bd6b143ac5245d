"""How this process holds memory and waits for threads while it trains."""

import ctypes
import gc
import platform
import warnings
from functools import cache

import l2q

# names of <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Lets the C library keep freed memory for the next step; False where it is not glibc.

    By default glibc gives every large block back to the system when it is freed. A training step frees all that it
    allocates, so the pages of each step would be zeroed and mapped anew. At d = 256 that is half the time of a step.
    The setting holds for the whole process. Its price is memory that stays with the process between steps.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    trimmed = mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(trimmed and mallopt(M_MMAP_THRESHOLD, 2**30))


def prepare() -> None:
    """Before a fit: frees what the one before left. Lightning's trainer, its loops and the module point at each other,
    so their tensors stay until the garbage collector comes by. In a process of many objects that is ever more rarely.
    """
    gc.collect()
    _prepare_process()


@cache
def _prepare_process() -> None:
    """Keeps freed memory, and warns of libraries that were loaded before ``l2q`` could set their threads. Does
    nothing when it is called again."""
    keep_freed_memory()
    if l2q.LATE:
        late = " and ".join(l2q.LATE)
        warnings.warn(
            f"{late} came before l2q: threads spin where they wait, which slows a fit down on a busy machine; "
            "import l2q first, or set OMP_WAIT_POLICY=PASSIVE and OPENBLAS_THREAD_TIMEOUT=4",
            stacklevel=4,
        )
