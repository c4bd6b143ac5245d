"""``manifest.json`` of an index: read, held to its own checksum and to what an index needs, and written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from l2q.errors import L2QError
from l2q.files import CHECKSUM, aside, checksum, read_json, replaced_file

FORMAT, VERSION = "l2q-index", 1
NAME = "manifest.json"
OWN = re.compile(
    r"manifest\.json|(users|items)\.((codes|values|scales|filter|degrees)\.npy|txt)"
    r"|filter\.(values|roots|weights)\.npy|train\.(indptr|items)\.npy"
    r"|lists\.(codes|scales|indptr|items|shares)\.npy"
)
"""Names of an index's files. Others in its folder are not its own, and are left alone."""
OPTIONS_OF_A_FILTER = ("gamma_user", "gamma_item", "popularity", "factor", "weight", "length")


def _count(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) > 0 and all(map(is_one, value))


def _mapping_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_one, value.values()))


def _file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("bytes"), int)
        and isinstance(value.get("sha256"), str)
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _sha256(value: Any) -> bool:
    return _text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None


NEEDED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "dataset": ("a name", _text),
    "config_hash": ("a text", _text),
    "num_users": ("a count", _count),
    "num_items": ("a count", _count),
    "dims": ("a list of widths", _list_of(lambda value: _count(value, 1))),
    "weights": ("a list of numbers", _list_of(_number)),
    "scale_dtype": ("float16 or float32", lambda value: value in ("float16", "float32")),
    "metrics": ("numbers by name", _mapping_of(lambda value: isinstance(value, int | float))),
    "files": ("bytes and SHA-256 by name", _mapping_of(_file)),
}
"""What is read of a manifest: what it must be, and whether it is."""


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the index in ``folder``. Raises L2QError for a folder that is no index, of another version, or
    damaged. Manifests of before there were checksums have none; they are read as they are."""
    path = folder / NAME
    try:
        manifest = read_json(path)
        kind, version = manifest["format"], manifest["version"]
    except OSError as error:
        if not folder.exists() and aside(folder).exists():
            raise L2QError(
                f"index {folder} was being replaced when that was broken off; the one before is whole: "
                f"rename {aside(folder)} to {folder}, or save the new one again"
            ) from error
        advice = f"; {folder / 'index'} is one" if (folder / "index" / NAME).is_file() else ""
        raise L2QError(
            f"{folder} is no index: {path} cannot be read ({error.strerror or error}){advice}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise L2QError(f"{folder} is no index, or a damaged one: {path} cannot be used ({error})") from error
    if kind != FORMAT:
        raise L2QError(f"{folder} is no index: {path} says format {kind!r}, expected {FORMAT!r}")
    if version != VERSION:
        raise L2QError(
            f"index {folder}: {NAME} says format version {version!r}, this l2q reads version {VERSION}; open it with "
            "the l2q that wrote it, or save it anew"
        )
    sealed = CHECKSUM in manifest or any(map(_sha256, manifest.values()))  # its name may be what is damaged
    if sealed and manifest.get(CHECKSUM) != checksum(manifest):
        raise L2QError(f"index {folder}: the checksum of {NAME} does not match; it is damaged")
    for key, (what, fits) in NEEDED.items():
        if not fits(manifest.get(key)):
            found = f"{key} is not {what}" if key in manifest else f"{key} is missing"
            raise L2QError(f"index {folder}: {NAME} cannot be used ({found}); it is damaged")
    if "filter" in manifest:
        options = manifest["filter"]
        if not isinstance(options, dict) or not all(_number(options.get(key)) for key in OPTIONS_OF_A_FILTER):
            raise L2QError(f"index {folder}: {NAME} cannot be used (filter lacks options); it is damaged")
    return manifest


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """With the checksum of what it says."""
    manifest = {key: value for key, value in manifest.items() if key != CHECKSUM}
    said = json.dumps({**manifest, CHECKSUM: checksum(manifest)}, indent=2, ensure_ascii=False) + "\n"
    with replaced_file(folder / NAME) as fresh:
        fresh.write_text(said, "utf-8")
