"""Whatever holds a table of events, opened as one DuckDB table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from l2q.errors import L2QError
from l2q.events.table import Column, Table, named, quoted

__all__ = ["Column", "Table", "open_table"]


def open_table(
    source: Any,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    query: str | None = None,
) -> Table:
    """The table that ``source`` holds: a path, or a pandas, polars or Arrow table."""
    if isinstance(source, str | Path):
        return _file(Path(source), header, delimiter)
    return _frame(source)


def _file(path: Path, header: bool | None, delimiter: str | None) -> Table:
    if not path.is_file():
        raise L2QError(f"cannot read {path}: No such file or directory")
    table = Table.new(str(path))
    if path.suffix.lower() == ".parquet":
        table.connection.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet({quoted(str(path))})")
    else:
        delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        with path.open() as file:
            first, second = (file.readline().rstrip("\n").split(delimiter) for _ in range(2))
        table.header = header if header is not None else not any(c.isdigit() for c in "".join(first))
        names = first if table.header else [str(n + 1) for n in range(len(first))]
        columns = "{" + ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names) + "}"
        table.connection.execute(
            f"CREATE VIEW events AS SELECT * FROM read_csv({quoted(str(path))}, auto_detect=false, columns={columns}, "
            f"delim={quoted(delimiter)}, header={str(table.header).lower()})"
        )
    return _described(table, [path])


def _frame(source: Any) -> Table:
    import pyarrow as pa

    table = Table.new("the table")
    index: list[str] = []
    if type(source).__module__.startswith("pandas") and source.index.name is not None:
        index = [source.index.name]
        source = source.reset_index()
    arrow = pa.table(source)
    table.connection.register("events", arrow)
    return _described(table, [], index)


def _described(table: Table, files: list[Path], index: list[str] = []) -> Table:  # noqa: B006
    found = table.connection.execute(f"DESCRIBE SELECT * FROM {named('events')}").fetchall()
    table.columns = tuple(Column(name, kind, None, name in index) for name, kind, *_ in found)
    table.lock(files)
    return table
