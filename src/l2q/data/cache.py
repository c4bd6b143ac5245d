"""Data sets in a binary form: the embedded one, and those that were read once."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np

from l2q import processes
from l2q.errors import L2QError
from l2q.files import replaced_file
from l2q.interactions import Dataset, Interactions, Reading, name_array
from l2q.names import CHUNK, FiledNames

BESIDE = {"times": np.float64, "values": np.float32, "counts": np.int32}
"""What is kept of the events behind the pairs, where it is known."""
DAY = 86400
DIGEST = 32


def load_embedded(source: str | Path | IO[bytes], name: str) -> Dataset:
    """The set in an ``.npz`` of ``train_indptr, train_items, test_indptr, test_items, num_items`` and, where
    there are names, ``user_names, item_names``: UTF-8 bytes, one name per line; likewise ``columns``. Times, values and
    counts stand beside the items, ``given`` beside test, the reading as JSON; ``train_ahead`` where it holds. Of
    several processes that read it together none holds the names."""
    with np.load(source, allow_pickle=False) as arrays:
        columns = arrays["columns"].tobytes().decode().split("\n") if "columns" in arrays else ()
        sizes = {"user_names": len(arrays["train_indptr"]) - 1, "item_names": int(arrays["num_items"])}
        user_names, item_names = (
            _names(arrays, what, count) if what in arrays else None for what, count in sizes.items()
        )
        reading = Reading.from_json(json.loads(arrays["reading"].tobytes())) if "reading" in arrays else None

        def part(what: str, given: Interactions | None = None) -> Interactions:
            beside = {
                name: arrays[f"{what}_{name}"].astype(kind, copy=False)
                if f"{what}_{name}" in arrays
                else None
                for name, kind in BESIDE.items()
            }
            return Interactions(
                arrays[f"{what}_indptr"].astype(np.int64),
                arrays[f"{what}_items"].astype(np.int32),
                int(arrays["num_items"]),
                user_names,
                item_names,
                reading=reading,
                given=given,
                ahead=f"{what}_ahead" in arrays,
                **beside,
            )

        given = part("given") if "given_items" in arrays else None
        train, test = part("train"), part("test", given)
    return Dataset(name, train, test, tuple(columns))


def _names(arrays: Any, what: str, count: int) -> np.ndarray | FiledNames:
    if not processes.are_together():
        return name_array(arrays[what].tobytes().decode().split("\n"))
    if not processes.leads():
        return FiledNames(count)
    with arrays.zip.open(f"{what}.npy") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return FiledNames.of_bytes(iter(lambda: file.read(CHUNK), b""))


def read(path: Path, name: str, stamp: bytes) -> Dataset | None:
    """The set in the file, if it was made from what has the ``stamp`` (32 bytes) now; None where it was not, where
    there is none, and where a byte of it is not as it was written."""
    try:
        with path.open("rb") as file:
            if file.read(DIGEST) != hashlib.file_digest(file, "sha256").digest():
                return None
            file.seek(DIGEST)
            if file.read(len(stamp)) != stamp:
                return None
            return load_embedded(file, name)
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        BadZipFile,
    ):  # beside damage, another's file with a digest
        return None


def write(path: Path, dataset: Dataset, stamp: bytes) -> None:
    """For ``read``: a digest of all that follows, the stamp, and the form of ``load_embedded``."""
    arrays: dict[str, Any] = {"num_items": np.array(dataset.train.num_items)}
    parts = {"train": dataset.train, "test": dataset.test}
    if dataset.test.given is not None:
        parts["given"] = dataset.test.given
    for part, pairs in parts.items():
        arrays |= {f"{part}_indptr": pairs.indptr, f"{part}_items": pairs.items}
        beside = {name: getattr(pairs, name) for name in BESIDE}
        arrays |= {f"{part}_{name}": values for name, values in beside.items() if values is not None}
        arrays |= {f"{part}_ahead": np.array(True)} if pairs.ahead else {}
    lines = {"user_names": dataset.user_names, "item_names": dataset.item_names}
    for what, names in (lines | {"columns": dataset.columns or None}).items():
        if isinstance(names, FiledNames):
            arrays[what] = names.text[:-1]  # type: ignore[index]
        elif names is not None:
            arrays[what] = np.frombuffer("\n".join(names).encode(), np.uint8)
    if dataset.train.reading is not None:
        arrays["reading"] = np.frombuffer(json.dumps(dataset.train.reading.to_json()).encode(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent)
        with replaced_file(path) as fresh, fresh.open("w+b") as file:
            file.write(bytes(DIGEST) + stamp)
            np.savez(file, **arrays)
            file.seek(DIGEST)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)
    except OSError as error:
        raise L2QError(
            f"cannot write {path} ({error.strerror}); set L2Q_CACHE to a folder that takes it"
        ) from error


def _tidy(folder: Path) -> None:
    """Removes what processes were writing here that were killed, a day ago or earlier."""
    for left in folder.glob(".*.npz.*.new"):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - DAY:
                left.unlink()
