"""Tables of databases, copied by a transaction that can only read."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb

from l2q.errors import L2QError
from l2q.events.table import Table, named, quoted

ROWS = 1 << 16  # that are copied at once
SHOWN = 20  # tables that a message lists
# types of PostgreSQL by their number; every other is text: numeric too, since an id may have more digits than a float
POSTGRES = {
    16: "BOOLEAN", 20: "BIGINT", 21: "BIGINT", 23: "BIGINT", 26: "BIGINT", 700: "DOUBLE", 701: "DOUBLE",
    1082: "DATE", 1114: "TIMESTAMP", 1184: "TIMESTAMPTZ",
}  # fmt: skip


@dataclass(frozen=True)
class Address:
    """``kind``: duckdb, sqlite or postgres; ``place``: a path, or what PostgreSQL's library is given; ``shown``: the
    address without a password, for messages."""

    kind: str
    place: str
    table: str | None
    shown: str


def database_of(source: Any) -> Address | None:
    """The address of a database, ``KIND:PATH`` or ``postgres://...``, with ``::TABLE`` behind it; None: it is none.

    database_of("sqlite:shop.db::orders")
    """
    match = (
        re.fullmatch(r"(duckdb|sqlite|postgres|postgresql):(.+)", source, re.S)
        if isinstance(source, str)
        else None
    )
    if match is None:
        return None
    place, mark, name = match[2].rpartition("::")
    if not mark or "/" in name or "@" in name:  # the colons are of an address such as [::1]
        place, name = match[2], ""
    if not match[1].startswith("postgres"):
        return Address(match[1], place.removeprefix("//"), name or None, source)
    if not place.startswith("//"):
        raise L2QError(f"{match[1]}: an address reads postgres://user@host/database, with ::TABLE behind it")
    shown = re.sub(r"(//[^:/@]*):.*@", r"\1@", place)  # up to the last @, which a password may hold too
    shown = re.sub(r"((?:^|[?&])(?:ssl)?password=)[^&]*", r"\1...", shown)
    return Address("postgres", f"postgresql:{place}", name or None, f"postgres:{shown}{name and '::' + name}")


def read_database(table: Table, address: Address, query: str | None) -> str:
    """Copies the table of ``address``, or what ``query`` selects there; the SQL of the copy.

    Raises L2QError, never with a password in it, for a database or query that fails, and where several tables are
    there and none is named, listing them.
    """
    if query is not None and address.table is not None:
        raise L2QError(f"{address.shown}: give a table behind :: or a query, not both")
    if query is not None and not query.strip().rstrip(";"):
        raise L2QError("query= is empty; give a SELECT")
    query = query.strip().rstrip(";") if query else None
    {"duckdb": _duckdb, "sqlite": _sqlite, "postgres": _postgres}[address.kind](table, address, query)
    return "SELECT * FROM source.copied"


def _chosen(address: Address, tables: dict[str, list[str]], wanted: str | None) -> str:
    """The name of the table to read, one of ``tables`` with their columns."""
    if wanted is not None:
        wanted = wanted.removeprefix("public.").removeprefix("main.")
        same = [name for name in tables if wanted.lower() in (name.lower(), name.lower().rpartition(".")[2])]
        exact = [name for name in same if wanted in (name, name.rpartition(".")[2])]
        for found in (exact, same):
            if len(found) == 1:
                return found[0]
        listed = f"; it has {', '.join(list(tables)[:SHOWN])}" if tables else ""
        several = f"{len(same)} tables" if same else "no table"
        raise L2QError(f"{address.shown}: there is {several} {wanted!r}{listed}")
    if len(tables) == 1:
        return next(iter(tables))
    if not tables:
        raise L2QError(f"{address.shown} holds no table")
    said = "; ".join(f"{name} ({', '.join(columns)})" for name, columns in list(tables.items())[:SHOWN])
    more = f" and {len(tables) - SHOWN} more" if len(tables) > SHOWN else ""
    raise L2QError(
        f"{address.shown} holds several tables, name one with ::NAME or give a query: {said}{more}"
    )


def _grouped(rows: list[tuple[str, str]]) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for name, column in rows:
        tables.setdefault(name, []).append(column)
    return tables


def _full(name: str) -> str:
    return ".".join(named(part) for part in name.split(".", 1))


def _existing(address: Address) -> Path:
    path = Path(address.place).expanduser()
    if not path.is_file():
        raise L2QError(f"cannot read {address.shown}: there is no file {address.place}")
    return path


def _duckdb(table: Table, address: Address, query: str | None) -> None:
    path, connection = _existing(address), table.connection
    try:
        connection.execute(f"ATTACH {quoted(str(path))} AS given (READ_ONLY)")
        if query is None:
            found = connection.execute(
                "SELECT CASE WHEN schema_name = 'main' THEN '' ELSE schema_name || '.' END || table_name, column_name "
                "FROM duckdb_columns() WHERE database_name = 'given' AND NOT internal ORDER BY 1, column_index"
            ).fetchall()
            name = _chosen(address, _grouped(found), address.table)
            full = _full(name) if "." in name else f"main.{named(name)}"
            query = f"SELECT * FROM given.{full}"
        else:
            statements = duckdb.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise L2QError("query= must be one SELECT")
        connection.execute("USE given")
        connection.execute(f"CREATE TABLE memory.source.copied AS SELECT * FROM ({query}\n)")
        connection.execute("USE memory.main")
        connection.execute("DETACH given")
    except duckdb.Error as error:
        raise L2QError(f"cannot read {address.shown}: {str(error).splitlines()[0]}") from error


def _sqlite(table: Table, address: Address, query: str | None) -> None:
    path = _existing(address)
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        try:
            connection.execute("PRAGMA query_only = 1")
            if query is None:
                found = connection.execute(
                    "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
                    "WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY 1, c.cid"
                ).fetchall()
                query = f"SELECT * FROM {named(_chosen(address, _grouped(found), address.table))}"
            names, types = _sqlite_types(connection, query)
            cursor = connection.execute(f"SELECT * FROM ({query}\n)")
            _create(table, dict(zip(names, types, strict=True)))
            while rows := cursor.fetchmany(ROWS):
                _insert(table, rows, types)
        finally:
            connection.close()
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise L2QError(f"cannot read {address.shown}: {error}") from error


def _sqlite_types(connection: sqlite3.Connection, query: str) -> tuple[list[str], list[str]]:
    """Names and DuckDB's types of the columns: a column of SQLite may hold values of any type."""
    cursor = connection.execute(f"SELECT * FROM ({query}\n) LIMIT 0")
    names = [column[0] for column in cursor.description]
    distinct = ", ".join(f"group_concat(DISTINCT typeof({named(name)}))" for name in names)
    found = connection.execute(f"SELECT {distinct} FROM ({query}\n)").fetchone()
    types = []
    for kinds in found:
        kinds = set((kinds or "").split(",")) - {"null", ""}
        types.append(
            "BIGINT"
            if kinds == {"integer"}
            else "DOUBLE"
            if kinds and kinds <= {"integer", "real"}
            else "VARCHAR"
        )
    return names, types


def _create(table: Table, types: dict[str, str]) -> None:
    columns = ", ".join(f"{named(name)} {kind}" for name, kind in types.items())
    table.connection.execute(f"CREATE TABLE source.copied ({columns})")


def _insert(table: Table, rows: list[tuple], types: list[str]) -> None:
    import pyarrow as pa

    arrow = {"BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string()}
    columns = [
        pa.array([_text(value) for value in values] if kind == "VARCHAR" else values, arrow[kind])
        for values, kind in zip(zip(*rows, strict=True), types, strict=True)
    ]
    table.connection.register(
        "batch", pa.Table.from_arrays(columns, names=[str(n) for n in range(len(types))])
    )
    table.connection.execute("INSERT INTO source.copied SELECT * FROM batch")
    table.connection.unregister("batch")


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return None if value is None else str(value)


def _postgres(table: Table, address: Address, query: str | None) -> None:
    try:
        import psycopg
    except ImportError as error:
        raise L2QError("a table of PostgreSQL needs psycopg: pip install -e '.[postgres]'") from error
    try:
        psycopg.conninfo.conninfo_to_dict(address.place)
    except psycopg.Error:  # its sentence quotes the address
        raise L2QError(
            f"cannot read {address.shown}: the address is broken; write postgres://user:password@host/database, "
            "with %-codes for special letters, such as %40 for @"
        ) from None
    to = table.folder / "copied.csv"
    try:
        with psycopg.connect(address.place, autocommit=False) as connection:
            connection.read_only = True
            if query is None:
                found = connection.execute(
                    "SELECT CASE WHEN table_schema = 'public' THEN '' ELSE table_schema || '.' END || table_name, "
                    "column_name FROM information_schema.columns "
                    "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, ordinal_position"
                ).fetchall()
                name = _chosen(address, _grouped(found), address.table)
                query = f"SELECT * FROM {_full(name) if '.' in name else 'public.' + named(name)}"
            # the extended protocol takes one statement: what passes here can end neither bracket nor transaction
            described = connection.execute(
                f"SELECT * FROM ({query}\n) AS events LIMIT 0".encode(), binary=True
            )
            columns = {
                column.name: POSTGRES.get(column.type_code, "VARCHAR")
                for column in described.description or ()
            }
            with connection.cursor() as cursor, to.open("wb") as out:
                copy = f"COPY (SELECT * FROM ({query}\n) AS events) TO STDOUT (FORMAT csv, ENCODING 'UTF8')"
                with cursor.copy(copy.encode()) as blocks:
                    for block in blocks:
                        out.write(block)
    except (psycopg.Error, UnicodeError) as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        raise L2QError(f"cannot read {address.shown}: {reason}") from None
    _create(table, columns)
    texts = ", ".join(f"{quoted(str(n))}: 'VARCHAR'" for n in range(len(columns)))
    table.connection.execute(
        f"INSERT INTO source.copied SELECT * FROM read_csv({quoted(str(to))}, auto_detect=false, header=false, "
        f"delim=',', quote='\"', escape='\"', allow_quoted_nulls=false, max_line_size={1 << 26}, columns={{{texts}}})"
    )
    to.unlink()
