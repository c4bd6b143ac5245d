"""Files that say their columns and types: Parquet, Feather, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb

from l2q.errors import L2QError
from l2q.events.dialect import apart
from l2q.events.encodings import encoding_of
from l2q.events.frames import INDEX, readable
from l2q.events.lines import BLOCK
from l2q.events.table import Parquet, Table, named, quoted

Parts = Sequence[tuple[Path, str, str]]  # path of each, its name in messages, its folder below the source
NUMBERS = ("BOOLEAN", "BIGINT", "UBIGINT", "HUGEINT", "DOUBLE")
LARGEST = 1 << 28  # bytes of an object of JSON
EXACT = 1 << 53  # from here on floats leave out whole numbers


def read_parquet(table: Table, parts: Parts) -> tuple[str, list[str]]:
    """The SQL of Parquet files with the same columns, and which columns are a pandas index."""
    import pyarrow as pa
    from pyarrow import parquet

    schemas = []
    for path, where, _ in parts:
        try:
            schemas.append(parquet.read_schema(path))
        except (pa.ArrowException, OSError, UnicodeError) as error:  # the last of a column's name
            raise L2QError(f"cannot read {where}: {_first_line(error)}") from error
    _same([schema.names for schema in schemas], parts)
    paths = ", ".join(quoted(str(path)) for path, *_ in parts)
    hive = str(any(folder for *_, folder in parts)).lower()
    options = f"union_by_name=true, hive_partitioning={hive}, hive_types_autocast=false"
    ranges = _ranges(schemas[0], parts[0][1]) if len(parts) == 1 else []
    if ranges:
        options += ", file_row_number=true"
    table.parquet = Parquet(tuple(path for path, *_ in parts), options)
    table.connection.execute(
        f"CREATE VIEW source.parquet AS SELECT * FROM read_parquet([{paths}], {options})"
    )
    names, notes = apart(list(schemas[0].names))
    table.notes += notes
    renamed = f" AS renamed({', '.join(map(named, names))})" if notes else ""
    sql, index = _without_positions(f"SELECT * FROM source.parquet{renamed}", schemas[0], parts[0][1])
    for name, start, step in ranges:
        counted = f"{start} + {step} * file_row_number AS {named(name)}, * EXCLUDE (file_row_number)"
        sql, index = f"SELECT {counted} FROM source.parquet", [name]
    return sql, index


def read_arrow(table: Table, parts: Parts, stream: bool) -> tuple[str, list[str]]:
    """The same of Feather and Arrow files, read batch by batch."""
    import pyarrow as pa
    from pyarrow import dataset, ipc

    try:
        if stream:
            for number, (path, *_) in enumerate(parts):
                with pa.memory_map(str(path)) as file, ipc.open_stream(file) as reader:
                    _check(reader)
                with pa.memory_map(str(path)) as file, ipc.open_stream(file) as reader:
                    schema = reader.schema
                    table.connection.register("stream", reader.cast(readable(schema)))
                    into = "INSERT INTO source.frame" if number else "CREATE TABLE source.frame AS"
                    table.connection.execute(f"{into} SELECT * FROM stream")
                    table.connection.unregister("stream")
            return _without_positions("SELECT * FROM source.frame", schema, parts[0][1])
        sets = [dataset.dataset(str(path), format="ipc") for path, *_ in parts]
        for found in sets:
            _check(found.to_batches())
        names = [found.schema.names for found in sets]
    except (pa.ArrowException, OSError, UnicodeError, duckdb.Error) as error:
        raise L2QError(f"cannot read {parts[0][1]}: {_first_line(error)}") from error
    _same(names, parts)
    if any(readable(found.schema) != found.schema for found in sets):
        for number, found in enumerate(sets):
            table.connection.register("stream", found.scanner().to_reader().cast(readable(found.schema)))
            into = "INSERT INTO source.frame BY NAME" if number else "CREATE TABLE source.frame AS"
            table.connection.execute(f"{into} SELECT * FROM stream")
            table.connection.unregister("stream")
        return _without_positions("SELECT * FROM source.frame", sets[0].schema, parts[0][1])
    for number, found in enumerate(sets):
        table.connection.register(f"frame_{number}", found)
    sql = " UNION ALL BY NAME ".join(f"SELECT * FROM frame_{number}" for number in range(len(sets)))
    return _without_positions(sql, sets[0].schema, parts[0][1])


def _check(batches: Iterable[Any]) -> None:
    """Raises what Arrow says of a broken batch: DuckDB would trust its offsets, and read where nothing is."""
    for batch in batches:
        batch.validate(full=True)


def _without_positions(sql: str, schema: Any, where: str) -> tuple[str, list[str]]:
    """The table without the index that pandas kept where that only counts rows; a named one is a column."""
    index: list[str] = []
    kept = _pandas(schema, where)
    own = {column.get("field_name"): column.get("name") for column in kept["columns"]}
    for column in kept["index_columns"]:
        if not isinstance(column, str) or column not in schema.names:
            continue  # a range, kept as its two ends
        if not column.startswith("__index_level_"):
            index.append(column)
        elif own.get(column) in schema.names or str(schema.field(column).type).startswith(("int", "uint")):
            sql = f"SELECT * EXCLUDE ({named(column)}) FROM ({sql})"
        elif INDEX not in schema.names:
            sql = f"SELECT * RENAME ({named(column)} AS {named(INDEX)}) FROM ({sql})"
            index.append(INDEX)
    return sql, index


def _pandas(schema: Any, where: str) -> dict[str, Any]:
    """What pandas says of a table that it wrote. Raises L2QError where that is no JSON of pandas's form."""
    metadata = (schema.metadata or {}).get(b"pandas")
    try:
        said = json.loads(metadata or b"{}")
        said = {key: said.get(key, []) for key in ("columns", "index_columns")}
        for column in said["columns"]:
            hash((column.get("field_name"), column.get("name")))
        for column in said["index_columns"]:
            if isinstance(column, dict) and column.get("name") is not None:
                column["start"], column["step"] = int(column["start"]), int(column["step"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise L2QError(f"cannot read {where}: what pandas wrote of its columns is damaged") from error
    return said


def _ranges(schema: Any, where: str) -> list[tuple[str, int, int]]:
    """Name, start and step of an index that is a range and has a name."""
    ranges = [column for column in _pandas(schema, where)["index_columns"] if isinstance(column, dict)]
    return [
        (str(column["name"]), column["start"], column["step"])
        for column in ranges
        if column.get("name") is not None and column["name"] not in schema.names
    ]


def read_json(table: Table, parts: Parts, encoding: str | None) -> tuple[str, list[Path]]:
    """The SQL of JSON lines or of an array of objects, and the files that it reads. Numbers stay numbers, everything
    else is text; objects within are flattened by one level; a key that an object lacks is missing there."""
    files = [_utf8(table, number, *part, encoding) for number, part in enumerate(parts)]
    kinds = {_json_kind(path, where) for path, (_, where, _) in zip(files, parts, strict=True)}
    if len(kinds) > 1:
        raise L2QError(f"{table.where} mixes JSON lines and arrays of objects; give parts of one kind")
    paths = ", ".join(quoted(str(path)) for path in files)
    hive = any(folder for *_, folder in parts)
    options = (
        f"format='{kinds.pop()}', records=true, hive_partitioning={str(hive).lower()}, hive_types_autocast=false, "
        f"maximum_object_size={LARGEST}, compression='none'"
    )
    scan = f"read_json([{paths}], {options}, sample_size=-1, map_inference_threshold=-1, field_appearance_threshold=0"
    try:
        found = table.connection.execute(f"DESCRIBE SELECT * FROM {scan}, maximum_depth=3)").fetchall()
    except duckdb.Error as error:
        raise L2QError(f"cannot read {table.where}: {_reason(error, files, parts)}") from error
    folders = {piece.partition("=")[0] for *_, folder in parts for piece in folder.split("/") if "=" in piece}
    # a text that looks like a number or a date stays a text
    types = {
        name: kind if _nested(kind) or kind in NUMBERS else "VARCHAR"
        for name, kind, *_ in found
        if name not in folders
    }

    def reading() -> str:
        columns = ", ".join(f"{quoted(name)}: {quoted(_plain(kind))}" for name, kind in types.items())
        return f"SELECT * FROM read_json([{paths}], {options}, columns={{{columns}}})"

    most = ", ".join(
        f"max(abs({named(name)}))" if kind == "DOUBLE" else f"count({named(name)})"
        for name, kind in types.items()
    )
    try:
        counted = table.connection.execute(f"SELECT {most} FROM ({reading()})").fetchall()[0]
    except duckdb.Error as error:
        raise L2QError(f"cannot read {table.where}: {_reason(error, files, parts)}") from error
    for (name, kind), number in zip(list(types.items()), counted, strict=True):
        if kind == "DOUBLE" and (number or 0) >= EXACT:
            types[name] = "VARCHAR"  # ids of so many digits keep them as texts alone
    return reading(), files


def _nested(kind: str) -> bool:
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))


def _plain(kind: str) -> str:
    """A type with texts instead of dates within."""
    for guessed in ("TIMESTAMP WITH TIME ZONE", "TIMESTAMP", "DATE", "TIME", "UUID", "JSON"):
        kind = kind.replace(guessed, "VARCHAR")
    return kind


def _utf8(table: Table, number: int, path: Path, where: str, folder: str, encoding: str | None) -> Path:
    import codecs

    name, note = encoding_of(path, where, encoding)
    with path.open("rb") as file:
        if name == "utf-8" and file.read(3) != codecs.BOM_UTF8:
            return path
    if note:
        table.notes.append(note)
    fresh = table.folder / folder / f"part-{number}.json"
    fresh.parent.mkdir(parents=True, exist_ok=True)
    decoder = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()
    with path.open("rb") as file, fresh.open("wb") as out:
        try:
            while block := file.read(BLOCK):
                out.write(decoder.decode(block).removeprefix("\ufeff").encode())
        except UnicodeError as error:
            raise L2QError(f"{where} is not {name}; encoding= names what it is in") from error
    return fresh


def _json_kind(path: Path, where: str) -> str:
    with path.open("rb") as file:
        head = file.read(1 << 20)
        more = bool(file.read(1))
    text = head.lstrip()
    if text[:1] == b"[":
        if text[1:].lstrip()[:1] == b"[":
            raise L2QError(f"{where} is an array of arrays, without names; write an object for each event")
        if text[1:].strip() == b"]":
            raise L2QError(f"{where} has no events: the array is empty")
        return "array"
    line = text.split(b"\n", 1)[0].strip()
    try:
        whole = json.loads(line)
    except (ValueError, RecursionError):  # of braces within braces
        if b"'" in line and b'"' not in line.replace(b"'", b"", 2)[:20]:
            raise L2QError(
                f"{where}:1: a line is written in Python, not JSON; write it with json.dumps"
            ) from None
        if not more:
            _refuse_object(head, where)
        if b"\n" in text:
            return "unstructured"
        raise L2QError(f"{where}:1 is no JSON: {line[:40].decode(errors='replace')!r}") from None
    if whole == {} and text.strip() == line:
        raise L2QError(f"{where} has no events: the object is empty")
    if isinstance(whole, dict) and text.strip() == line:
        _refuse_object(line, where)
    return "newline_delimited"


def _refuse_object(text: bytes, where: str) -> None:
    """An object that holds a table within is none by itself."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(whole, dict) and whole and all(isinstance(value, dict | list) for value in whole.values()):
        raise L2QError(
            f"{where} is one object, with {', '.join(map(repr, list(whole)[:5]))}; a table is a line or an element of "
            "an array for each event, as pandas writes with to_json(orient='records')"
        )


def _reason(error: duckdb.Error, files: list[Path], parts: Parts) -> str:
    """DuckDB's sentence, with the names of files as the user knows them."""
    text = _first_line(error)
    for path, (_, where, _) in zip(files, parts, strict=True):
        text = text.replace(str(path), where)
    return text.partition(" Try ")[0].rstrip(".")


def _first_line(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "a name of a column is no UTF-8"
    return (str(error).splitlines() or ["broken"])[0].split(": ", 1)[-1]


def _same(columns: list[list[str]], parts: Parts) -> None:
    for names, (_, where, _) in zip(columns, parts, strict=True):
        if sorted(names) != sorted(columns[0]):
            raise L2QError(
                f"{where} has other columns than {parts[0][1]}: {', '.join(names)} instead of "
                f"{', '.join(columns[0])}; give the parts of one table"
            )
