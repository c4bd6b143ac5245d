"""The index on disk: a folder of plain ``.npy`` and text files with a manifest. No pickle.

manifest.json       format, sizes, score and tie rule, files with bytes and SHA-256, metrics
users.codes.npy     (users, row bytes) uint8, packed as in ``packing``; or users.values.npy, float32
users.scales.npy    (users, segments) float16 or float32; absent where all are one
users.txt           names, one a line in row order; absent where the row number is the name
items.*             the same for items
items.filter.npy    (items, rank) float16, filter.values.npy (3, rank) float32: for new users of codes fitted
                    to a spectral filter (``l2q.fitted.new_users``); absent for other models, or left out
items.degrees.npy   (items,) int32, train interactions of each item
train.indptr.npy, train.items.npy   train items of every user, left out of a search
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l2q.errors import L2QError
from l2q.files import aside, replaced_file, replaced_folder
from l2q.interactions import LINE_BREAK
from l2q.kernels import packing
from l2q.retrieval.named import Index

if TYPE_CHECKING:
    pass

FORMAT, VERSION = "l2q-index", 1
MANIFEST = "manifest.json"
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
    folder = Path(folder).absolute()
    check_replaceable(folder)
    manifest = {key: value for key, value in index.manifest.items() if key != "files"}
    try:
        with replaced_folder(folder) as fresh:
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
    except OSError as error:
        raise L2QError(f"cannot write the index to {folder}: {error.strerror or error}") from error
    return folder


def load_index(folder: str | Path, verify: bool = True) -> Index:
    """Opens an index. Sizes, shapes and types are always checked; ``verify`` also reads every file for its
    checksum (``verify=False`` opens a huge index at once).

    Raises L2QError for a folder that is no index, of a newer version, incomplete or damaged.

        index = l2q.load_index("index")
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    arrays = {}
    names: dict[str, list[str] | None] = {"users": None, "items": None}
    try:
        for name, entry in manifest["files"].items():
            path = folder / name
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
                arrays[path.stem] = _open_array(path)
            elif path.stem in names:  # read now: the index may be replaced while this one is open
                names[path.stem] = path.read_text("utf-8").split("\n")[:-1]
        _check_arrays(folder, manifest, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise L2QError(
            f"index {folder}: {MANIFEST} or a file in it cannot be used ({error}); it is damaged"
        ) from error
    except OSError as error:
        raise L2QError(f"index {folder} cannot be read: {error.strerror or error}") from error
    return Index(manifest, arrays, names, folder)


def compression(index: str | Path | Mapping[str, Any]) -> dict[str, float]:
    """What a row costs, counted from the files of codes (or values) and scales, with padding and headers.

        user_bytes, item_bytes   bytes of a row
        compression              float32 rows of the same width d take so many times the bytes
        compression_d64          the same beside rows of d = 64
        item_compression         as ``compression``, of items alone

    d is the width of one segment, which is what a float model of that size stores. ``index`` is a folder or a manifest.
    """
    manifest = index if isinstance(index, Mapping) else _read_manifest(Path(index))
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
    path.write_text("".join(f"{name}\n" for name in names), "utf-8", newline="\n")


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    with replaced_file(folder / MANIFEST) as fresh:
        fresh.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
        kind, version = manifest["format"], manifest["version"]
    except OSError as error:
        if not folder.exists() and aside(folder).exists():
            raise L2QError(
                f"index {folder} was being replaced when that was broken off; the one before is whole: "
                f"rename {aside(folder)} to {folder}, or save the new one again"
            ) from error
        advice = f"; {folder / 'index'} is one" if (folder / "index" / MANIFEST).is_file() else ""
        raise L2QError(
            f"{folder} is no index: {path} cannot be read ({error.strerror or error}){advice}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise L2QError(f"{folder} is no index, or a damaged one: {path} cannot be used ({error})") from error
    if kind != FORMAT:
        raise L2QError(f"{folder} is no index: {path} says format {kind!r}, expected {FORMAT!r}")
    if version != VERSION:
        raise L2QError(f"index {folder} has format version {version}, this l2q reads version {VERSION}")
    return manifest


def _open_array(path: Path) -> np.ndarray:
    header_only = path.stat().st_size <= 128  # an empty array, which cannot be mapped
    # copy-on-write: the file stays as it is, and kernels compiled for writable arrays take the array
    return np.asarray(np.load(path, mmap_mode=None if header_only else "c", allow_pickle=False))


def _check_arrays(folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Every array has the shape and type that the manifest implies, and train the ids."""
    num_users, num_items, dims = manifest["num_users"], manifest["num_items"], manifest["dims"]
    segments = len(dims)
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "items.degrees": ((num_items,), "int32"),
        "train.indptr": ((num_users + 1,), "int64"),
        "train.items": ((int(arrays["train.indptr"][-1]),), "int32"),
    }
    for side, rows in (("users", num_users), ("items", num_items)):
        if f"{side}.codes" in arrays:
            expected[f"{side}.codes"] = ((rows, packing.row_bytes(dims)), "uint8")
        else:
            expected[f"{side}.values"] = ((rows, sum(dims)), "float32")
        if f"{side}.scales" in arrays:
            expected[f"{side}.scales"] = ((rows, segments), manifest["scale_dtype"])
    if "filter" in manifest:
        rank = arrays["filter.values"].shape[-1]
        expected["filter.values"] = ((3, rank), "float32")
        expected["items.filter"] = ((num_items, rank), "float16")
    for name, (shape, dtype) in expected.items():
        array = arrays[name]
        if (array.shape, str(array.dtype)) != (shape, dtype):
            raise L2QError(
                f"index {folder}: {name}.npy is {array.dtype} {array.shape}, expected {dtype} {shape}"
            )
    indptr, items = arrays["train.indptr"], arrays["train.items"]
    in_range = not len(items) or (items.min() >= 0 and items.max() < num_items)
    if len(manifest["weights"]) != segments or indptr[0] != 0 or (np.diff(indptr) < 0).any() or not in_range:
        raise L2QError(f"index {folder}: weights or train lists do not fit the manifest; it is damaged")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
