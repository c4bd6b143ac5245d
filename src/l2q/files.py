"""Files and folders that are replaced whole or not at all.

The new one is written beside the old one, on the same file system, and takes its name in one step when it is complete.
A reader, or a process that is killed, finds the old one or the new one, never a part. After an exception the old one
is still there and nothing is left beside it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from l2q.errors import L2QError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replaced_file(path: str | Path, *, many_writers: bool = False) -> Iterator[Path]:
    """Gives the path to write to; what is there at the end becomes ``path``.

    ``many_writers``: other processes may write the same file at this moment. Each then writes one of its own, and the
    last to end stays. Otherwise the file being written has one name, ``.NAME.new``, so that what a killed process left
    is written over by the next.

    Raises whatever the caller raises while writing, and OSError where the folder cannot be written.

        with replaced_file("metrics.json") as fresh:
            fresh.write_text(json.dumps(metrics))
    """
    path = Path(os.path.realpath(path))  # a link stays one: what it leads to is replaced
    fresh = _beside(path, f"{uuid4().hex[:8]}.new" if many_writers else "new")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def writing(path: str | Path, needs: int = 0) -> Iterator[None]:
    """Says in one line of L2QError what was to be written where, and why it could not be. ``needs``: how many bytes it
    takes, where the caller knows.

    with writing(path, array.nbytes), replaced_file(path) as fresh:
        np.save(fresh, array)
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            room = f"{path} takes {amount(needs)}" if needs else ""
            try:
                above = next(parent for parent in Path(path).absolute().parents if parent.exists())
                left = f"{amount(shutil.disk_usage(above).free)} are left there"
            except OSError:
                left = ""
            found = ", ".join(filter(None, [room, left]))
            advice = f" ({found}); make room, or write to another disk"
        else:
            advice = ""
        raise L2QError(f"{path} cannot be written: {error.strerror or error}{advice}") from error


def amount(size: float) -> str:
    """Bytes, for people.

    >>> amount(3 * 2**20 + 2**19)
    '3.5 MiB'
    """
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while size >= 1024 and unit != "TiB":
        size, unit = size / 1024, next(units)
    return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"


@contextmanager
def replaced_folder(folder: str | Path) -> Iterator[Path]:
    """Gives a new, empty folder to fill; at the end it becomes ``folder``, and what was there is deleted.

    A folder cannot take the place of a full one in one step: the old one is renamed to ``aside(folder)`` first. A
    process that is killed between the two renames leaves it there, and the next call puts it back before it begins.

    Raises whatever the caller raises while writing, and OSError where the folder above cannot be written.
    """
    folder = Path(folder)
    fresh, old = _beside(folder, "new"), aside(folder)
    try:
        _put_back(old, folder)  # an earlier replacement was killed between its two renames
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        if folder.exists():
            os.replace(folder, old)
        os.replace(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        _put_back(old, folder)
        shutil.rmtree(fresh, ignore_errors=True)


def aside(folder: str | Path) -> Path:
    """Where the folder that is replaced lies between the two renames."""
    return _beside(Path(folder), "old")


def _beside(path: Path, ending: str) -> Path:
    path = path.absolute()  # "." has no name of its own
    return path.with_name(f".{path.name}.{ending}")


def _put_back(old: Path, folder: Path) -> None:
    if old.exists() and not folder.exists():
        os.replace(old, folder)
