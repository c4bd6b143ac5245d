"""The index on disk: a folder of plain ``.npy`` and text files with a manifest. No pickle.

manifest.json       format, sizes, score and tie rule, files with bytes and SHA-256, metrics; SHA-256 of all that
users.codes.npy     (users, row bytes) uint8, packed as in ``packing``; or users.values.npy, float32
users.scales.npy    (users, segments) float16 or float32; absent where all are one
users.txt           names, one a line in row order; absent where the row number is the name
items.*             the same for items
items.filter.npy    (items, rank) int8, filter.roots.npy (items,) and filter.values.npy (3, rank) float32: for new
                    users of codes fitted to a spectral filter (``l2q.fitted.new_users``); absent for other models, or
                    left out. Without roots it is float16: so were indexes before
filter.weights.npy  (train pairs,) uint8 n: a pair weighs 2^(-n / 8) in that filter; absent where all weigh the same
items.degrees.npy   (items,) int32, train interactions of each item
train.indptr.npy, train.items.npy   train items of every user, left out of a search
lists.*.npy         the items in lists, for approximate rankings (``l2q.retrieval.lists``); absent where none were made
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from l2q.errors import L2QError
from l2q.files import aside, read_array, replaced_folder, writing
from l2q.interactions import LINE_BREAK
from l2q.kernels import packing
from l2q.names import FiledNames
from l2q.retrieval import manifest as manifests
from l2q.retrieval.lists import Lists
from l2q.retrieval.manifest import FORMAT as FORMAT
from l2q.retrieval.manifest import NAME as MANIFEST
from l2q.retrieval.manifest import VERSION as VERSION
from l2q.retrieval.named import Index

_NAMES = 1 << 24  # bytes of names that are read into memory; more stay in their file
PATIENCE_SECONDS = 60.0
"""So long an index is opened anew where it is replaced meanwhile."""
RULES = {
    "bit_order": "little: value k of a segment is bit k % 8 of its byte k // 8; 1 is +1, 0 is -1; "
    "each segment is filled up with zero bits to whole bytes",
    "score": "float32: sum over segments s, ascending, of ((weights[s] * user_scale[s]) * dot[s]) * "
    "item_scale[s]; a scale that is not stored is 1",
    "ties": "equal scores: the lower item id first",
}


def check_replaceable(folder: str | Path) -> None:
    """Raises L2QError where an index must not be written to ``folder``: it is a file, or holds something else."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise L2QError(f"{folder} is a file; give a folder for the index")
    above = next((parent for parent in folder.absolute().parents if parent.exists()), folder)
    if not above.is_dir():
        raise L2QError(f"{folder} lies below {above}, which is a file; give another folder for the index")
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise L2QError(f"{folder} holds something else than an index; give another folder")


def write(index: Index, folder: str | Path) -> Path:
    """Writes the whole index beside ``folder`` and then puts it in its place. An index that was there is lost only
    when the new one is complete.

    Raises L2QError where a name holds a line break, or the folder cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    _check_finite(str(folder), index.arrays)
    manifest = {key: value for key, value in index.manifest.items() if key != "files"}
    needs = sum(array.nbytes for array in index.arrays.values())
    check = partial(check_replaceable, folder)
    with writing(folder, needs), replaced_folder(folder, manifests.OWN.fullmatch, check) as fresh:
        for name, array in index.arrays.items():
            np.save(fresh / f"{name}.npy", array, allow_pickle=False)
        for side, size in (("users", index.num_users), ("items", index.num_items)):
            if (names := index.names[side]) is not None:
                _write_names(fresh / f"{side}.txt", names, size)
        manifest["files"] = {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(fresh.iterdir())
        }
        _write_manifest(fresh, manifest)
    return folder


def load_index(folder: str | Path, verify: bool = True) -> Index:
    """Opens an index. Sizes, shapes and types are always checked; ``verify`` also reads every file for its
    checksum (``verify=False`` opens a huge index at once).

    Raises L2QError for a folder that is no index, of a newer version, incomplete or damaged.

        index = l2q.load_index("index")
    """
    folder, patience = Path(folder), time.monotonic() + PATIENCE_SECONDS
    while True:
        before = state(folder)
        try:
            index = opened(folder, verify)
        except L2QError:
            replaced = before != state(folder) or (before is None and aside(folder).exists())
            if not replaced or time.monotonic() > patience:
                raise
            time.sleep(0.01)  # it is being replaced at this moment
        else:
            if before == state(folder):
                return index
            if time.monotonic() > patience:
                raise L2QError(f"index {folder} is replaced again and again; open it when it is left alone")


def state(folder: Path) -> tuple[int, ...] | None:
    """Which manifest is there: another one where the folder was replaced."""
    try:
        found = (folder / MANIFEST).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def opened(folder: Path, verify: bool = True, named: bool = True) -> Index:
    """``load_index`` of a folder that nobody replaces meanwhile; not ``named``: who asks by row number needs no names
    in memory."""
    manifest = manifests.read(folder)
    arrays = {}
    names: dict[str, list[str] | FiledNames | None] = {"users": None, "items": None}
    for name, entry in manifest["files"].items():
        path = folder / name
        try:
            if path.parent != folder or not path.is_file():
                raise L2QError(f"index {folder}: {name} is missing; copy or export the index again")
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise L2QError(
                    f"index {folder}: {name} has {size} bytes instead of {entry['bytes']}; it is damaged"
                )
            if verify and _sha256(path) != entry["sha256"]:
                raise L2QError(f"index {folder}: the checksum of {name} does not match; it is damaged")
            if path.suffix == ".npy":
                arrays[path.stem] = read_array(path, mapped=True)
            elif path.stem in names and named:  # opened now: the index may be replaced while this one is open
                names[path.stem] = (
                    path.read_text("utf-8").split("\n")[:-1] if size <= _NAMES else FiledNames.of_file(path)
                )
        except ValueError as error:
            raise L2QError(f"index {folder}: {name} cannot be used ({error}); it is damaged") from error
        except OSError as error:
            raise L2QError(f"index {folder} cannot be read: {name}: {error.strerror or error}") from error
    _check_arrays(folder, manifest, arrays)
    for side, found in names.items():
        if found is not None and len(found) != manifest[f"num_{side}"]:
            rows = manifest[f"num_{side}"]
            raise L2QError(
                f"index {folder}: {side}.txt has {len(found):,} names for {rows:,} rows; it is damaged"
            )
    if verify:
        _check_finite(f"index {folder}", arrays)
    return Index(manifest, arrays, names, folder)


def compression(index: str | Path | Mapping[str, Any]) -> dict[str, float]:
    """What a row costs, counted from the files of codes (or values) and scales, with padding and headers.

        user_bytes, item_bytes   bytes of a row
        compression              float32 rows of the same width d take so many times the bytes
        compression_d64          the same beside rows of d = 64
        item_compression         as ``compression``, of items alone

    d is the width of one segment, which is what a float model of that size stores. ``index`` is a folder or a manifest.
    """
    manifest = index if isinstance(index, Mapping) else manifests.read(Path(index))
    rows = {"users": manifest["num_users"], "items": manifest["num_items"]}
    sizes = {
        side: sum(
            manifest["files"].get(f"{side}.{part}.npy", {"bytes": 0})["bytes"]
            for part in ("codes", "values", "scales")
        )
        for side in rows
    }
    total, count, float_row = sum(sizes.values()), sum(rows.values()), 4 * manifest["dims"][0]
    return {
        "user_bytes": sizes["users"] / max(rows["users"], 1),
        "item_bytes": sizes["items"] / max(rows["items"], 1),
        "compression": count * float_row / total,
        "compression_d64": count * 4 * 64 / total,
        "item_compression": rows["items"] * float_row / sizes["items"],
    }


def _write_names(path: Path, names: Sequence[str], size: int) -> None:
    if len(names) != size:
        raise L2QError(f"{path.name}: {len(names)} names for {size} rows")
    for row, name in enumerate(names):
        if re.search(LINE_BREAK, name):
            raise L2QError(f"{path.name}: the name of row {row} holds a line break: {name!r}")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{name}\n" for name in names)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    manifests.write(folder, manifest)


def _check_arrays(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Every array has the shape and type that the manifest implies, and train the ids."""
    num_users, num_items, dims = manifest["num_users"], manifest["num_items"], manifest["dims"]
    segments = len(dims)
    if (arrays.get("train.indptr", np.empty(0)).shape or (0,))[0] != num_users + 1:
        raise L2QError(f"index {folder}: train.indptr.npy is missing or has another length; it is damaged")
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "items.degrees": ((num_items,), "int32"),
        "train.indptr": ((num_users + 1,), "int64"),
        "train.items": ((int(arrays["train.indptr"].flat[-1]),), "int32"),
    }
    for side, rows in (("users", num_users), ("items", num_items)):
        if f"{side}.codes" in arrays:
            expected[f"{side}.codes"] = ((rows, packing.row_bytes(dims)), "uint8")
        else:
            expected[f"{side}.values"] = ((rows, sum(dims)), "float32")
        if f"{side}.scales" in arrays:
            expected[f"{side}.scales"] = ((rows, segments), manifest["scale_dtype"])
    if "filter" in manifest:
        rank = arrays["filter.values"].shape[-1] if "filter.values" in arrays else 0
        expected["filter.values"] = ((3, rank), "float32")
        if "filter.roots" in arrays:
            expected["filter.roots"] = ((num_items,), "float32")
        expected["items.filter"] = ((num_items, rank), "int8" if "filter.roots" in arrays else "float16")
        if "filter.weights" in arrays:
            expected["filter.weights"] = ((int(arrays["train.indptr"].flat[-1]),), "uint8")
    if any(name.startswith("lists.") for name in arrays):
        lists = arrays["lists.shares"].shape[0] if "lists.shares" in arrays else 0
        expected |= {
            "lists.codes": ((lists, packing.row_bytes(dims)), "uint8"),
            "lists.scales": ((lists, segments), "float32"),
            "lists.indptr": ((lists + 1,), "int64"),
            "lists.items": ((num_items,), "int32"),
            "lists.shares": ((lists, 2), "float32"),
        }
    for name, (shape, dtype) in expected.items():
        if name not in arrays:
            raise L2QError(f"index {folder}: {name}.npy is missing; copy or export the index again")
        array = arrays[name]
        if (array.shape, str(array.dtype)) != (shape, dtype):
            raise L2QError(
                f"index {folder}: {name}.npy is {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
    indptr, items = arrays["train.indptr"], arrays["train.items"]
    fits = len(manifest["weights"]) == segments and indptr[0] == 0 and not (np.diff(indptr) < 0).any()
    if fits and len(items):
        ascends = np.diff(items) > 0
        starts = indptr[1:-1]
        ascends[starts[(starts > 0) & (starts < len(items))] - 1] = True  # from one user to the next
        fits = items.min() >= 0 and items.max() < num_items and bool(ascends.all())
    if not fits:
        raise L2QError(f"index {folder}: weights or train lists do not fit the manifest; it is damaged")
    if (found := Lists.of(arrays)) is not None and not found.whole():
        raise L2QError(f"index {folder}: lists.*.npy do not hold every item once; they are damaged")


def _check_finite(called: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises L2QError where a row's values or scales are no numbers: nothing could be ranked by them."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            row = int(np.argwhere(~finite)[0][0])
            raise L2QError(
                f"{called}: row {row} of {name} holds NaN, infinity or a value beyond {array.dtype}; train or "
                "quantize with smaller values"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
