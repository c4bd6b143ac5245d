"""Interactions and their split in the files of other libraries.

A format is a function; a new one is added to ``FORMATS`` and nowhere else.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from l2q.data.parts import Parts
from l2q.errors import L2QError
from l2q.events.profiles import MISSING
from l2q.files import replaced_file, replaced_folder, writing
from l2q.interactions import Interactions

BATCH = 200_000  # rows at a time


def export(parts: Parts, to: str, out: str | Path, *, force: bool = False) -> list[str]:
    """Writes ``parts`` in the format ``to``, one of ``FORMATS``, whole or not at all; what there is to say of it.

    "csv" and "parquet" are one file, whose column ``part`` says which part a row is in; where ``out`` has no such
    ending they are a folder with a file for each part. "lightgcn" and "recbole" are folders.

    Raises L2QError where something is there already, unless ``force`` replaces it, and for what the format has no
    place for. A folder is replaced only if every file in it is one of these formats'.

        export(open_parts("ratings.csv", {"split": "time"}), "recbole", "ratings")
    """
    if to not in FORMATS:
        raise L2QError(f"{to!r} is no format that is written; use {', '.join(FORMATS)}")
    out = Path(out).expanduser()
    one_file = out.suffix == f".{to}"
    if out.suffix in (".csv", ".parquet") and not one_file:
        raise L2QError(f"{out} ends as {out.suffix[1:]} does, but {to} is asked for")
    if "given" in parts.of and to in ("lightgcn", "recbole"):
        raise L2QError(
            f"split=users has a part that is given beside test, and {to} has no place for it; write csv or parquet"
        )
    _free(out, one_file, force)
    with ExitStack() as stack:
        stack.enter_context(writing(out))
        if one_file:
            return FORMATS[to](parts, stack.enter_context(replaced_file(out)), out)
        return FORMATS[to](parts, stack.enter_context(replaced_folder(out, own=_own)), out)


def _free(out: Path, one_file: bool, force: bool) -> None:
    """Raises L2QError where ``out`` cannot be written, or must not be."""
    kind = "file" if one_file else "folder"
    if out.exists() and (out.is_dir() == one_file or not (out.is_dir() or out.is_file())):
        raise L2QError(f"{out} is there already, and is no {kind}; give another name")
    if one_file and out.exists() and not force:
        raise L2QError(f"{out} is there already; --force replaces it")
    if one_file or not out.is_dir():
        return
    held = sorted(path.name for path in out.iterdir())
    others = [name for name in held if not _own(name)]
    if others:
        raise L2QError(f"{out} holds other files ({', '.join(others[:3])}); give a folder of its own")
    if held and not force:
        raise L2QError(f"{out} is there already; --force replaces it")


def _own(name: str) -> bool:
    """Whether a file is one that these formats have."""
    stem, _, ending = name.rpartition(".")
    if ending == "inter":
        return True
    lists = stem in ("user_list", "item_list") and ending in ("txt", "csv")
    return lists or (
        stem in ("all", "train", "given", "valid", "test") and ending in ("txt", "csv", "parquet")
    )


def names_of(part: Interactions, side: str) -> list[str]:
    """The names of a side, "user" or "item"; numbers where the ids are the names."""
    names = getattr(part, f"{side}_names")
    count = part.num_users if side == "user" else part.num_items
    return [str(number) for number in range(count)] if names is None else names.tolist()


def _lightgcn(parts: Parts, fresh: Path, out: Path) -> list[str]:
    """``user item item ...`` of ids from 0, a line a user who has any, and lists ``org_id remap_id`` of the names."""
    said = []
    for side in ("user", "item"):
        names = names_of(parts.first, side)
        spaced = next((name for name in names if not name or name.split() != [name]), None)
        if (broken := _broken(names)) is not None:
            raise L2QError(f"the {side} {broken!r} has a line break, and a list of names has a line for each")
        if spaced is None:
            lines = (f"{name} {number}\n" for number, name in enumerate(names))
            _write(fresh / f"{side}_list.txt", "org_id remap_id\n", lines)
            continue
        said.append(
            f"{side}s such as {spaced!r} have spaces, which divide the columns of {side}_list.txt: they stand in "
            f"{side}_list.csv, with quotes where they need them"
        )
        rows = ([name, number] for number, name in enumerate(names))
        _write_csv(fresh / f"{side}_list.csv", ["org_id", "remap_id"], rows, ",")
    files = {
        "train": parts.of.get("all", parts.of.get("train")),
        **{p: parts.of.get(p) for p in ("valid", "test")},
    }
    for name, part in files.items():
        if part is not None:
            _write(fresh / f"{name}.txt", "", _lines(part))
    if "test" not in parts.of:
        (fresh / "test.txt").touch()
        said.append("test.txt is empty, since nothing is held out; a split makes one")
    if any(part.times is not None or part.values is not None for part in parts.of.values()):
        said.append("times and values have no place in this format and are left out")
    return said


def _lines(part: Interactions) -> Iterator[str]:
    for user in np.flatnonzero(part.user_degrees).tolist():
        yield f"{user} {' '.join(map(str, part[user].tolist()))}\n"


def _recbole(parts: Parts, fresh: Path, out: Path) -> list[str]:
    """Atomic files: NAME.inter, or NAME.train.inter and so forth, tabs between columns with types."""
    first = parts.first
    header = ["user_id:token", "item_id:token"]
    header += ["rating:float"] * (first.values is not None) + ["timestamp:float"] * (first.times is not None)
    name = os.path.basename(os.path.realpath(out))
    for part, pairs in parts.of.items():
        ending = "inter" if part == "all" else f"{part}.inter"
        _write_csv(fresh / f"{name}.{ending}", header, _rows(pairs, ("values", "times")), "\t")
    said = _missing(parts)
    if "all" not in parts.of:
        listed = ", ".join(f"'{part}'" for part in parts.of)
        said.append(f"RecBole reads this split with dataset: {name} and benchmark_filename: [{listed}]")
    return said


def _csv(parts: Parts, fresh: Path, out: Path) -> list[str]:
    """A header of plain names, commas, quotes where a name needs them."""
    first, split = parts.first, "all" not in parts.of
    header = ["user", "item", *_further(first)]
    if fresh.is_dir():
        for part, pairs in parts.of.items():
            _write_csv(fresh / f"{part}.csv", header, _rows(pairs, ("times", "values")), ",")
    else:
        rows = (
            [*row, part] if split else row
            for part, pairs in parts.of.items()
            for row in _rows(pairs, ("times", "values"))
        )
        _write_csv(fresh, [*header, "part"] if split else header, rows, ",")
    return _missing(parts)


def _parquet(parts: Parts, fresh: Path, out: Path) -> list[str]:
    """Columns ``user`` and ``item``, texts, ``time``, float64 seconds, ``value``, float32, and ``part``, as far as they
    are known."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, one_file = parts.first, not fresh.is_dir()
    kinds = {"user": pa.string(), "item": pa.string(), "time": pa.float64(), "value": pa.float32()}
    schema = pa.schema([(name, kinds[name]) for name in ("user", "item", *_further(first))])
    if one_file and "all" not in parts.of:
        schema = schema.append(pa.field("part", pa.string()))
    users, items = (pa.array(names_of(first, side), pa.string()) for side in ("user", "item"))
    with ExitStack() as stack:
        whole = stack.enter_context(pq.ParquetWriter(fresh, schema)) if one_file else None
        for part, pairs in parts.of.items():
            writer = whole or stack.enter_context(pq.ParquetWriter(fresh / f"{part}.parquet", schema))
            for start in range(0, len(pairs), BATCH):
                chosen = slice(start, start + BATCH)
                found: dict[str, Any] = {
                    "user": users.take(pa.array(pairs.users[chosen])),
                    "item": items.take(pa.array(pairs.items[chosen])),
                }
                for name in _further(first):
                    beside = getattr(pairs, f"{name}s")[chosen]
                    found[name] = pa.array(beside, kinds[name], from_pandas=True)
                if "part" in schema.names:
                    found["part"] = pa.array([part] * len(found["user"]), pa.string())
                writer.write_table(pa.table(found, schema=schema))
    return _missing(parts)


def _further(part: Interactions) -> list[str]:
    return [name for name in ("time", "value") if getattr(part, f"{name}s") is not None]


def _rows(part: Interactions, order: tuple[str, str]) -> Iterator[list[str]]:
    """Cells of every pair, users ascending: both names, then what is known, in an order."""
    users, items = names_of(part, "user"), names_of(part, "item")
    for start in range(0, len(part), BATCH):
        chosen = slice(start, start + BATCH)
        columns = [
            [users[number] for number in part.users[chosen].tolist()],
            [items[number] for number in part.items[chosen].tolist()],
        ]
        beside = (getattr(part, name) for name in order)
        columns += [_texts(values[chosen]) for values in beside if values is not None]
        yield from map(list, zip(*columns, strict=True))


def _texts(numbers: np.ndarray) -> list[str]:
    """The shortest texts that give the same numbers again; none for NaN."""
    distinct, which = np.unique(numbers, return_inverse=True)
    texts = ["" if np.isnan(number) else str(number).removesuffix(".0") for number in distinct]
    return [texts[place] for place in which.tolist()]


def _write(path: Path, header: str, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(header)
        file.writelines(lines)


def _write_csv(path: Path, header: list[str], rows: Any, delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _broken(names: list[str]) -> str | None:
    return next((name for name in names if "\n" in name or "\r" in name), None)


def _missing(parts: Parts) -> list[str]:
    """Names that readers of tables take for none."""
    found = [name for side in ("user", "item") for name in names_of(parts.first, side) if name in MISSING]
    if not found:
        return []
    shown = ", ".join(map(repr, found[:3]))
    return [f"{shown} may be taken for a missing name where this is read; here missing=keep reads it"]


FORMATS: dict[str, Callable[[Parts, Path, Path], list[str]]] = {
    "lightgcn": _lightgcn,
    "recbole": _recbole,
    "parquet": _parquet,
    "csv": _csv,
}
