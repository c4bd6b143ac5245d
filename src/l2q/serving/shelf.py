"""The indexes that are served now, and how another one takes the place of one of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from l2q.errors import L2QError, lacking, printable
from l2q.retrieval import storage
from l2q.serving.served import KERNELS, Served

LOOK_SECONDS = 1.0
"""How often the folders are looked at."""
AGAIN_SECONDS = 10.0
"""How long it takes until an index that could not be opened is tried again."""


class Shelf:
    """``served`` is replaced as a whole: who took it goes on with the indexes that were there then.

    A thread looks whether the manifest of a folder is another one. ``reload`` makes it open all of them anew. An index
    that cannot be used is said, and the one before stays.
    """

    def __init__(self, folders: Sequence[str], exact: float = 1.0) -> None:
        self._exact = exact
        self._folders = dict(zip(titles(folders), map(Path, folders), strict=True))
        self.served = tuple(Served.open(name, folder, exact) for name, folder in self._folders.items())
        self.reloads = {"done": 0, "refused": 0}
        self.refused = ""  # why the last one was, until one is done
        self._wake, self._all, self._closed = threading.Event(), False, False
        self._next_try = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def watch(self) -> None:
        """Begins to look at the folders."""
        self._thread.start()

    def reload(self) -> None:
        """Opens all indexes anew, soon and elsewhere. Takes no time, so that a signal may call it."""
        self._all = True
        self._wake.set()

    def close(self) -> None:
        """Ends the looking."""
        self._closed = True
        self._wake.set()

    def _watch(self) -> None:
        while not self._closed:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            every, self._all = self._all, False
            for place, old in enumerate(self.served):
                state = storage.state(self._folders[old.name])
                changed = state not in (old.state, None) and time.monotonic() >= self._next_try
                if (every or changed) and not self._closed:
                    self._replace(place, old)

    def _replace(self, place: int, old: Served) -> None:
        try:
            new = Served.open(old.name, self._folders[old.name], self._exact)
            if "fold_in" in vars(old.index):  # it was asked for: the next who asks need not wait
                with suppress(L2QError), KERNELS:
                    _ = new.index.fold_in
        except Exception as error:
            said = str(error) if isinstance(error, L2QError) else lacking(error) or repr(error)
            if said != self.refused:
                print(f"not reloaded: {printable(said)}", file=sys.stderr, flush=True)
            self.refused, self._next_try = said, time.monotonic() + AGAIN_SECONDS
            self.reloads["refused"] += 1
            return
        self.served = (*self.served[:place], new, *self.served[place + 1 :])
        self.refused = ""
        self.reloads["done"] += 1
        print(f"reloaded: {printable(old.name)}, version {new.version}", file=sys.stderr, flush=True)


def titles(folders: Sequence[str]) -> list[str]:
    """Short names of folders: the parts of their paths that are not the same in all; of a single one the last part
    that is not "index". Raises L2QError for a folder given twice.

    >>> titles(["outputs/debian/l2q_plus/1/index", "outputs/debian/spectral/2/index"])
    ['l2q_plus/1', 'spectral/2']
    """
    paths = [Path(os.path.realpath(folder)) for folder in folders]
    if len(set(paths)) < len(paths):
        raise L2QError(f"--index {folders[-1]} is given twice; give another index to compare with")
    parts = [list(path.parts) for path in paths]
    if len(parts) == 1:
        return [next((part for part in reversed(parts[0]) if part != "index"), "index")]
    while len({each[0] for each in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [each[1:] for each in parts]
    while len({each[-1] for each in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [each[:-1] for each in parts]
    return ["/".join(each) for each in parts]
