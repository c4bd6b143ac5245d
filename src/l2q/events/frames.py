"""Tables in memory: pandas, polars, Arrow, and what gives itself as an Arrow stream."""

from __future__ import annotations

from typing import Any

from l2q.errors import L2QError
from l2q.events.table import Table

INDEX = "index"  # what the index of a pandas table is called that has no name of its own


def read_frame(table: Table, source: Any) -> tuple[str, list[str]]:
    """Holds the frame in ``table.connection``; the SQL that reads it, and which columns are a pandas index."""
    import duckdb
    import pyarrow as pa

    index: list[str] = []
    try:
        if type(source).__module__.partition(".")[0] == "pandas":
            source, index, note = _pandas(source)
            table.notes += note
        elif isinstance(source, duckdb.DuckDBPyRelation):
            source = source.to_arrow_reader()
        elif type(source).__module__.startswith("polars") and hasattr(source, "collect"):
            source = source.collect()
        once = isinstance(source, pa.RecordBatchReader)
        if not once and hasattr(source, "__arrow_c_stream__"):
            # a table can be read again and again where it is, a stream cannot
            again = hasattr(source, "columns") or hasattr(source, "num_rows")
            once = not again
            source = pa.table(source) if again else pa.RecordBatchReader.from_stream(source)
        elif not once:
            raise L2QError(
                f"events of type {type(source).__name__} cannot be read: give a path, the address of a database, a "
                "pandas, polars or Arrow table, or a SciPy sparse matrix"
            )
        if once:
            table.connection.register("stream", source.cast(readable(source.schema)))
            table.connection.execute("CREATE TABLE source.frame AS SELECT * FROM stream")
            table.connection.unregister("stream")
            return "SELECT * FROM source.frame", index
        table.connection.register("frame", _distinct(table, source))
    except (pa.ArrowException, duckdb.Error, ValueError, TypeError) as error:
        raise L2QError(f"cannot read the table: {str(error).splitlines()[0]}") from error
    return "SELECT * FROM frame", index


def _pandas(frame: Any) -> tuple[Any, list[str], list[str]]:
    """The Arrow table of a pandas one, with its index as columns where that holds anything, and what was mended."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(frame, pd.Series):
        frame = frame.to_frame(frame.name if frame.name is not None else "0")
    if not isinstance(frame, pd.DataFrame):
        raise L2QError(f"events of type {type(frame).__name__} cannot be read: give a pandas DataFrame")
    notes: list[str] = []
    frame = frame.copy(deep=False)
    frame.columns = [
        "_".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in frame.columns
    ]
    index: list[str] = []
    added = []
    for level in range(frame.index.nlevels):
        values = frame.index.get_level_values(level)
        if values.name is None and frame.index.nlevels == 1 and pd.api.types.is_integer_dtype(values.dtype):
            continue  # positions, or what is left of them
        name = str(values.name) if values.name is not None else f"{INDEX}{level or ''}"
        if name in frame.columns:
            continue  # the column has it too, as after set_index(drop=False)
        index.append(name)
        added.append(values.to_series(index=frame.index, name=name))
    if added:
        frame = pd.concat([*added, frame], axis=1)
    arrays = []
    for position in range(frame.shape[1]):
        values = frame.iloc[:, position]
        if isinstance(values.dtype, pd.SparseDtype):
            values = values.sparse.to_dense()
        if isinstance(values.dtype, pd.PeriodDtype):
            values = values.dt.to_timestamp()
        try:
            arrays.append(pa.chunked_array(_chunks(pa.array(values, from_pandas=True))))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            text = values.map(str, na_action="ignore").astype(object)
            arrays.append(pa.chunked_array(_chunks(pa.array(text.where(values.notna(), None), pa.string()))))
            notes.append(
                f"column {frame.columns[position]!r} has values of several types, which are read as texts"
            )
    return pa.Table.from_arrays(arrays, names=list(frame.columns)), index, notes


def readable(schema: Any) -> Any:
    """The schema with types that DuckDB has: it has no floats of two bytes."""
    import pyarrow as pa

    fields = [field.with_type(pa.float32()) if pa.types.is_float16(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata)


def _chunks(array: Any) -> list[Any]:
    return array.chunks if hasattr(array, "chunks") else [array]


def _distinct(table: Table, source: Any) -> Any:
    """The Arrow table with names that SQL can tell apart."""
    import pyarrow as pa

    from l2q.events.dialect import apart

    names, notes = apart(list(source.column_names))
    table.notes += notes
    source = source.cast(readable(source.schema)) if hasattr(source, "cast") else pa.table(source)
    return source.rename_columns(list(names))
