"""Whatever holds a table of events, opened as one DuckDB table."""

from __future__ import annotations

import filecmp
import glob
import re
from pathlib import Path
from typing import Any

import duckdb

from l2q.errors import L2QError
from l2q.events.archives import is_part, kind_of, unpacked
from l2q.events.databases import database_of, read_database
from l2q.events.dialect import dialect
from l2q.events.encodings import encoding_of
from l2q.events.frames import read_frame
from l2q.events.lines import first_lines
from l2q.events.table import Column, Table, named
from l2q.events.text import read_text
from l2q.events.typed import read_arrow, read_json, read_parquet

__all__ = ["Column", "Table", "open_table"]

SHOWN = 20  # tables of a folder that a message lists


def open_table(
    source: Any,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    query: str | None = None,
) -> Table:
    """The table that ``source`` holds, under the name ``events`` in a connection that reads nothing else.

    ``source``: a file of text (CSV and relatives, RecBole, MovieLens, Netflix), JSON lines or an array of objects,
    Parquet, Feather or Arrow; any of them within gzip, zip, zstd, bzip2 or xz; a pattern or a folder of parts of one
    table; a pandas, polars or Arrow table; or the address of a database, ``duckdb:PATH``, ``sqlite:PATH`` or
    ``postgres://...``, each with ``::TABLE`` behind it or a ``query``. What a file is, its content says, not its name.

    ``header``, ``delimiter`` and ``encoding`` decide what is otherwise found in the first lines of a text. ``query``:
    a SELECT, over ``events`` of a file, over the tables of a database; its result is the table.

    Raises L2QError, one line with the file and, where there is one, the line, for what is no table of events.

        with open_table("ratings.csv.gz") as table:
            print(table.columns, table.rows, table.notes)
    """
    address = database_of(source)
    where = address.shown if address else str(source) if isinstance(source, str | Path) else "the table"
    table = Table.new(where)
    try:
        table.connection.execute("CREATE SCHEMA source")
        files: list[Path] = []
        roles: dict[str, str] = {}
        index: list[str] = []
        if address:
            sql, query = read_database(table, address, query), None
        elif isinstance(source, str | Path):
            sql, files, roles, index = _files(table, str(source), header, delimiter, encoding)
        else:
            sql, index = read_frame(table, source)
        _view(table, sql, files)
        table.lock(files)
        if query is not None:
            _select(table, query)
        found = table.connection.execute("DESCRIBE SELECT * FROM events").fetchall()
        table.columns = tuple(Column(name, kind, roles.get(name), name in index) for name, kind, *_ in found)
    except duckdb.Error as error:
        table.close()
        raise L2QError(f"cannot read {where}: {str(error).splitlines()[0]}") from error
    except BaseException:
        table.close()
        raise
    return table


def _files(
    table: Table, source: str, header: bool | None, delimiter: str | None, encoding: str | None
) -> tuple[str, list[Path], dict[str, str], list[str]]:
    """The SQL of files, which it reads, declared roles, and columns that are a pandas index."""
    found = _parts(source)
    parts, kinds = [], set()
    table.partitions = {key for _, folder in found for key in _keys(Path(folder) / "part")}
    try:
        for number, (path, folder) in enumerate(found):
            place = table.folder / f"archive-{number}" / folder
            path, where, kind = unpacked(path, _shown(source, path), place)
            parts.append((path, where, folder))
            kinds.add(kind)
        several = len(parts) > 1
        if several and (
            len(kinds) > 1 or kinds & {"sqlite", "duckdb"} or _differ(parts, kinds, header, delimiter)
        ):
            raise L2QError(_list_of(table.where, parts))
        table.notes += _copies(parts)
        kind = kinds.pop()
        if kind in ("sqlite", "duckdb"):
            address = database_of(f"{kind}:{parts[0][0]}")
            assert address is not None
            return read_database(table, address, None), [], {}, []
        if kind == "parquet":
            sql, index = read_parquet(table, parts)
            return sql, [path for path, *_ in parts], {}, index
        if kind.startswith("arrow"):
            sql, index = read_arrow(table, parts, kind == "arrow stream")
            return sql, [], {}, index
        if kind == "json":
            sql, files = read_json(table, parts, encoding)
            return sql, files, {}, []
        sql, files, roles = read_text(table, parts, header, delimiter, encoding)
        return sql, files, roles, []
    except OSError as error:
        raise L2QError(f"cannot read {error.filename or table.where}: {error.strerror or error}") from error


def is_parquet(source: str) -> bool:
    """Whether a file, a folder or a pattern holds Parquet alone, as it is."""
    try:
        return all(kind_of(path, str(path)) == "parquet" for path, _ in _parts(source))
    except (L2QError, OSError):  # which is said when it is read
        return False


def _parts(source: str) -> list[tuple[Path, str]]:
    """The files of a path, a pattern or a folder in the order of their names, each with its folder below it."""
    path = Path(source).expanduser()
    if not source.strip():
        raise L2QError("the path of the table is empty; give a file, a folder, or the address of a database")
    try:
        if path.is_file():
            return [(path, "")]
        if path.is_dir():
            if (path / "_delta_log").is_dir():
                raise L2QError(
                    f"{source} is a Delta table; give deltalake.DeltaTable(...).to_pyarrow_table() of it"
                )
            names = [found.relative_to(path) for found in path.rglob("*") if found.is_file()]
            parts = [(path / name, _hive(name)) for name in names if is_part(name.as_posix())]
            if not parts:
                raise L2QError(f"{source} is a folder without a table of events")
        elif any(mark in source for mark in "*?["):
            found = [Path(name) for name in glob.glob(str(path), recursive=True)]
            parts = [(name, _hive(name)) for name in found if name.is_file() and is_part(name.name)]
            if not parts:
                raise L2QError(f"no file fits the pattern {source}")
        elif re.match(r"\w+://", source):
            shown = re.sub(r"//[^/]*@", "//", source)  # without a password
            raise L2QError(
                f"{shown} is an address that is not read; export the table as CSV or Parquet, or download it, and give "
                "the file"
            )
        else:
            raise L2QError(f"cannot read {source}: there is no such file or folder")
    except OSError as error:
        raise L2QError(f"cannot read {source}: {error.strerror}") from error
    parts = [(name, folder) for name, folder in parts if name.stat().st_size] or parts[:1]
    return sorted(
        parts, key=lambda part: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", str(part[0]))]
    )


def _hive(name: Path) -> str:
    """``day=1/shop=2`` of a path of Hive."""
    return "/".join(part for part in name.parts[:-1] if "=" in part)


def _keys(path: Path) -> set[str]:
    return {part.partition("=")[0] for part in path.parts[:-1] if "=" in part}


def _shown(source: str, path: Path) -> str:
    return source if Path(source).expanduser() == path else str(path)


def _columns(
    path: Path, where: str, kind: str, header: bool | None = None, delimiter: str | None = None
) -> list[str]:
    """The columns of a file, for a comparison; none of what is no table."""
    try:
        if kind == "parquet":
            from pyarrow import parquet

            return list(parquet.read_schema(path).names)
        if kind == "text":
            name, _ = encoding_of(path, where)
            return list(dialect(where, first_lines(path, name), header, delimiter).names)
    except (L2QError, OSError, ValueError):
        return []
    return []


def _differ(parts: list, kinds: set[str], header: bool | None, delimiter: str | None) -> bool:
    """Whether files of text or Parquet are several tables rather than parts of one."""
    kind = next(iter(kinds))
    if kind not in ("text", "parquet"):
        return False
    found = [_columns(path, where, kind, header, delimiter) for path, where, _ in parts]
    sizes = {len(names) for names in found}
    named_alike = {tuple(sorted(names)) for names in found if names[:1] != ["column1"]}
    return 0 in sizes or len(sizes) > 1 or len(named_alike) > 1


def _copies(parts: list) -> list[str]:
    """A note for every file that holds the same as one before."""
    first: dict[int, list] = {}
    notes = []
    for path, where, _ in parts:
        alike = first.setdefault(path.stat().st_size, [])
        same = next((name for other, name in alike if filecmp.cmp(path, other, shallow=False)), None)
        if same is None:
            alike.append((path, where))
        else:
            notes.append(f"{Path(where).name} holds the same as {Path(same).name}: its events count twice")
    return notes


def _list_of(where: str, parts: list) -> str:
    said = []
    for path, name, _ in parts[:SHOWN]:
        columns = _columns(path, name, kind_of(path, name))
        said.append(f"{Path(name).name} ({', '.join(columns) if columns else 'no table of columns'})")
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return f"{where} holds several tables, give one of them: {'; '.join(said)}{more}"


def _view(table: Table, sql: str, files: list[Path]) -> None:
    """Makes ``events`` of the source's SQL, with types that ids can be read from."""
    connection = table.connection
    found = connection.execute(f"DESCRIBE {sql}").fetchall()
    above = {key for file in files for key in _keys(file)} - table.partitions
    chosen: list[str] = []
    for name, kind, *_ in found:
        column = named(name)
        if name in above and table.partitions:
            continue  # DuckDB takes folders above the source for partitions too
        if kind.startswith("STRUCT") and not kind.endswith("]"):
            fields = connection.execute(f"DESCRIBE SELECT unnest({column}) FROM ({sql}) LIMIT 0").fetchall()
            chosen += [f"{column}.{named(field)} AS {named(f'{name}.{field}')}" for field, *_ in fields]
        elif kind == "BLOB":
            chosen.append(f"{_text_of(table, sql, name)} AS {column}")
        elif kind == "UUID" or kind.startswith("ENUM"):
            chosen.append(f"{column}::VARCHAR AS {column}")
        else:
            chosen.append(column)
    connection.execute(f"CREATE VIEW events AS SELECT {', '.join(chosen)} FROM ({sql})")


def _text_of(table: Table, sql: str, name: str) -> str:
    """Bytes as the text that they are, or else as hexadecimal digits."""
    column = named(name)
    wrong = table.connection.execute(
        f"SELECT count(*) FROM ({sql}) WHERE {column} IS NOT NULL AND TRY(decode({column})) IS NULL"
    ).fetchone()
    if wrong and wrong[0]:
        table.notes.append(f"column {name!r} has bytes, which are read as hexadecimal digits")
        return f"lower(hex({column}))"
    return f"decode({column})"


def _select(table: Table, query: str) -> None:
    """Makes ``events`` the result of a query over it."""
    try:
        statements = duckdb.extract_statements(query)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise L2QError(f"query= must be one SELECT over the table events of {table.where}")
        table.connection.execute(f"CREATE TABLE result AS SELECT * FROM ({query}\n)")
    except duckdb.Error as error:
        texts = "; columns of a text are texts: CAST(column AS DOUBLE)" if "VARCHAR" in str(error) else ""
        raise L2QError(f"query= of {table.where}: {str(error).splitlines()[0]}{texts}") from error
    table.connection.execute("DROP VIEW events")
    table.connection.execute("ALTER TABLE result RENAME TO events")
