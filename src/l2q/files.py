"""Files and folders that are replaced whole or not at all, and files that are read whatever they hold.

The new one is written beside the old one, on the same file system, and takes its name in one step when it is complete.
A reader, or a process that is killed, finds the old one or the new one, never a part. After an exception the old one
is still there and nothing is left beside it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from l2q.errors import FULL, L2QError

if TYPE_CHECKING:
    import numpy as np

CHECKSUM, FILES = "sha256", "files"
"""Keys of a sealed JSON file: its own checksum, and those of files beside it by name."""


@contextmanager
def replaced_file(path: str | Path) -> Iterator[Path]:
    """Gives the path to write to; what is there at the end becomes ``path``. Of several processes that write the same
    file at this moment each writes one of its own, and the last to end stays.

    Raises whatever the caller raises while writing, and OSError where the folder cannot be written, or a device or a
    pipe is there, which no file may take the place of.

        with replaced_file("metrics.json") as fresh:
            fresh.write_text(json.dumps(metrics))
    """
    path = Path(os.path.realpath(path))  # a link stays one: what it leads to is replaced
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    fresh, lock = _fresh(path)
    try:
        yield fresh
        os.replace(fresh, path)
    except BaseException as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise
    finally:
        os.close(lock)


@contextmanager
def writing(path: str | Path, needs: int = 0, option: str = "") -> Iterator[None]:
    """Says in one line of L2QError what was to be written where, and why it could not be. ``needs``: how many bytes it
    takes, where the caller knows. ``option``: by which it was named.

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
        said = f"{option} {path}".strip()
        raise L2QError(f"{said} cannot be written: {error.strerror or error}{advice}") from error


def check_output(path: str | Path, *endings: str, option: str = "") -> None:
    """Raises L2QError where something is at ``path`` that is no earlier output, by its ending: the table that was read,
    say. A new file may have any name.

    check_output("report.html", ".html", ".htm", option="--html")
    """
    path = Path(path)
    ours = path.suffix.lower() in endings and path.name != "history.csv"  # a run's own
    if path.exists() and not ours:
        said = f"{option} {path}".strip()
        raise L2QError(
            f"{said} is there already, and is no earlier output; give another name, with {endings[0]}"
        )


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
def replaced_folder(
    folder: str | Path,
    own: Callable[[str], object] | None = None,
    check: Callable[[], object] | None = None,
) -> Iterator[Path]:
    """Gives a new, empty folder to fill; at the end it becomes ``folder``, and what was there is deleted. Of several
    processes that replace the same folder at this moment each fills one of its own, and the last to end stays.

    ``own`` tells by its name which of the files that were there are the caller's to delete; others go on to the new
    folder. None: all are. ``check()`` raises where it must not be replaced, at the start and at the end.

    A folder cannot take the place of a full one in one step: the old one is renamed to ``aside(folder)`` first. A
    process that is killed between the two renames leaves it there, and the next call puts it back before it begins.
    Where ``folder`` is a link, what it leads to is replaced.

    Raises whatever the caller raises while writing, and OSError where the folder above cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    old, check = aside(folder), check or (lambda: None)
    with _alone(folder.parent):
        _put_back(old, folder)  # an earlier replacement was killed between its two renames
        _give_up(old, folder, own)  # or behind the second
        check()
    fresh, lock = _fresh(folder, is_folder=True)
    try:
        for left in fresh.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield fresh
        with _alone(folder.parent):
            check()
            try:
                if folder.exists():
                    os.replace(folder, old)
                os.replace(fresh, folder)
                _give_up(old, folder, own)
            finally:
                _put_back(old, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _fresh(path: Path, is_folder: bool = False) -> tuple[Path, int]:
    """An empty file or a folder beside ``path`` that no other process writes to, and the descriptor of its lock:
    ``.NAME.new``, or, where another one is at that, a name of its own. What a killed process left is locked no more."""
    place, shared = _beside(path, "new"), True
    while True:
        try:
            if is_folder:
                place.mkdir(parents=True, exist_ok=True)
            lock = os.open(place, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o666)
            if _locked(lock, wait=False) and os.path.samestat(os.fstat(lock), os.stat(place)):
                return place, lock
            os.close(lock)
        except (FileNotFoundError, FileExistsError):
            if not shared:
                raise
            # else its writer may have ended at this moment
        place, shared = _beside(path, f"{uuid4().hex[:8]}.new"), False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within it no other process renames in ``folder``, where the file system has locks."""
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:  # who writes there will say it
        yield
        return
    try:
        _locked(lock, wait=True)
        yield
    finally:
        os.close(lock)


def _locked(lock: int, wait: bool) -> bool:
    """Whether nobody else has it; so it is, too, on file systems without locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def aside(folder: str | Path) -> Path:
    """Where the folder that is replaced lies between the two renames."""
    return _beside(Path(os.path.realpath(folder)), "old")


def _beside(path: Path, ending: str) -> Path:
    path = path.absolute()  # "." has no name of its own
    return path.with_name(f".{path.name}.{ending}")


def _give_up(old: Path, folder: Path, own: Callable[[str], object] | None) -> None:
    """Deletes the folder that was replaced, when what is not the caller's is out of it."""
    if own is not None and old.is_dir() and folder.is_dir():
        for path in old.iterdir():
            if not own(path.name) and not os.path.lexists(folder / path.name):
                os.replace(path, folder / path.name)
    shutil.rmtree(old, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises OSError where it cannot be read, and ValueError, nothing else, for all that is no
    JSON, or too deep."""
    text = Path(path).read_text("utf-8")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def checksum(said: Mapping[str, Any]) -> str:
    """SHA-256 of all that a JSON file says, but for the checksum itself; layout and order of keys do not matter."""
    rest = {key: value for key, value in said.items() if key != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def seal(path: str | Path, said: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    """``said`` with the SHA-256 of ``others``, files beside ``path``, as far as they are there, and its own, for
    ``read_sealed`` and ``is_whole``."""
    there = [other for name in others if (other := Path(path).with_name(name)).is_file()]
    sealed = {**said, FILES: {other.name: _sha256(other) for other in there}}
    return sealed | {CHECKSUM: checksum(sealed)}


def read_sealed(path: str | Path) -> Any:
    """What a JSON file with a checksum holds, without it. One of before there were checksums is read as it is. Raises
    as ``read_json``, and ValueError where the checksum is of something else."""
    found = read_json(path)
    if not isinstance(found, dict):
        return found
    if (CHECKSUM in found or FILES in found) and found.get(CHECKSUM) != checksum(found):
        raise ValueError("its checksum does not match")
    return {key: value for key, value in found.items() if key not in (CHECKSUM, FILES)}


def is_whole(path: str | Path, seal: str = "metrics.json") -> bool:
    """Whether a file is as the sealed one beside it says; it is where that says nothing, or cannot be read."""
    path = Path(path)
    try:
        expected = read_json(path.with_name(seal))[FILES].get(path.name)
        return expected is None or expected == _sha256(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_array(path: str | Path, *, mapped: bool = False) -> np.ndarray:
    """What an ``.npy`` file holds, never objects. ``mapped``: read where it is used; the file stays as it is whatever
    is written to the array.

    Memory is taken only for what the file has. Raises OSError where it cannot be read, and ValueError, nothing else,
    for all that is no such file, or does not have as many bytes as its header says.
    """
    import numpy as np

    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            readers: dict[tuple[int, int], Any] = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, fortran_order, dtype = readers[version](file)
            count = math.prod(shape)
            sound = not dtype.hasobject and all(type(size) is int and size >= 0 for size in shape)
        except OSError:
            raise
        except Exception as error:  # what the parser of the header raises is no promise of NumPy's
            raise ValueError(f"no .npy file of numbers: {type(error).__name__}") from error
        if not sound:
            raise ValueError("no .npy file of numbers")
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        if size - start != count * dtype.itemsize:
            raise ValueError(f"{size - start:,} bytes of numbers instead of {count * dtype.itemsize:,}")
        order: Any = "F" if fortran_order else "C"
        if mapped and count * dtype.itemsize:
            return np.asarray(np.memmap(file, dtype, "c", start, shape, order))
        return np.frombuffer(bytearray(file.read()), dtype, count).reshape(shape, order=order)
