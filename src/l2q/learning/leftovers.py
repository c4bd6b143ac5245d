"""What a run that was refused before it began leaves behind: nothing."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from l2q.learning.jobs import LOCK, LOG, STATUS

BEGUN = "config.json"  # the first that a run writes, once nothing refuses it
OURS = (STATUS, LOCK, LOG, ".hydra", "multirun.yaml", "search.lock")  # of what comes before


@dataclass(frozen=True)
class Before:
    """What stood in a run's ``folder`` before: ``files`` by name and time, and which folders were ``missing``, the
    innermost first."""

    folder: Path
    files: dict[str, int]
    missing: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Before:
        """To be asked before anything is made."""
        files = {path.name: _time(path) for path in folder.iterdir()} if folder.is_dir() else {}
        places = (folder, *folder.parents)
        return cls(folder, files, tuple(place for place in places if not place.exists()))

    @property
    def begun(self) -> bool:
        """Whether a run has begun since."""
        return _time(self.folder / BEGUN) != self.files.get(BEGUN, 0)

    def restore(self) -> None:
        """Takes away what is new, where no run has begun; what somebody else put there stays."""
        if self.begun:
            return
        for name in OURS:
            path = self.folder / name
            if name not in self.files and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif name not in self.files:
                path.unlink(missing_ok=True)
        with suppress(OSError):  # one that holds something else
            for place in self.missing:
                place.rmdir()


def _time(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
