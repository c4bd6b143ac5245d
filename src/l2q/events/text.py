"""Text files of one table: CSV and its relatives, brought to where DuckDB reads them without guessing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from l2q.errors import L2QError
from l2q.events.dialect import Dialect, dialect, returns_end_lines
from l2q.events.encodings import encoding_of
from l2q.events.lines import Unclean, check, first_lines, write
from l2q.events.records import Found, Layout
from l2q.events.table import Table, named, quoted

LINE = 2_000_000  # bytes of a line that DuckDB takes unasked


def read_text(
    table: Table,
    files: Sequence[tuple[Path, str, str]],
    header: bool | None,
    delimiter: str | None,
    encoding: str | None,
) -> tuple[str, list[Path], dict[str, str]]:
    """The SQL of a table of strings, the files that it reads, and the roles that its header declares.

    ``files``: the path of every part, its name in messages, and its folder below the source such as ``day=1``. Raises
    L2QError for parts with other columns than the first, and for lines that do not fit.
    """
    found = Found()
    first: Dialect | None = None
    # lines before the events, delimiter, names of the columns, files
    runs: list[tuple[int, str, tuple[str, ...], list[Path]]] = []
    said: dict[str, None] = {}
    for number, (path, where, folder) in enumerate(files):
        name, note = encoding_of(path, where, encoding)
        lines = first_lines(path, name)
        if returns := returns_end_lines(lines):
            lines = [piece for line in lines for piece in line.split("\r")]
            said["carriage returns within lines end them too"] = None
        if not lines and len(files) > 1:
            continue  # Spark writes empty parts
        if first is None:
            layout = first = dialect(where, lines, header, delimiter)
        else:
            layout = _as_first(
                dialect(where, lines, _header(where, first, lines, header), first.delimiter), first, where
            )
        said.update(dict.fromkeys([note, *layout.notes] if note else layout.notes))
        shape = Layout(
            layout.delimiter.encode(),
            layout.fields,
            first.head.encode() if header is not False else b"",
            layout.netflix,
            layout.numbers,
            layout.ruled,
            returns,
        )
        try:
            if name != "utf-8":
                raise Unclean
            check(path, where, shape, layout.skip, found)
            skip, separator, clean = layout.skip, layout.delimiter, path
        except Unclean:
            skip, separator, clean = 0, shape.byte.decode(), table.folder / folder / f"part-{number}.csv"
            clean.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(path, clean, where, shape, layout.skip, name, found)
            except OSError as error:
                raise L2QError(
                    f"cannot write a copy of {where} to {table.folder}: {error.strerror}; TMPDIR names another folder"
                ) from error
        names = layout.names if layout.header and set(layout.names) == set(first.names) else first.names
        if not runs or runs[-1][:3] != (skip, separator, names):
            runs.append((skip, separator, names, []))
        runs[-1][3].append(clean)
    if first is None:
        raise L2QError(f"{table.where} has no events: all parts are empty")
    table.header = first.header
    table.notes += [*said, *_mended(found)]
    for reason, count in (("repeated header", found.headers), ("lines that lack columns", found.short)):
        if count:
            table.dropped[reason] = count
    parts = any(folder for _, _, folder in files)
    sql = " UNION ALL BY NAME ".join(_sql(first, *run, parts, found.longest) for run in runs)
    return sql, [file for run in runs for file in run[3]], first.roles


def _sql(
    layout: Dialect,
    skip: int,
    delimiter: str,
    names: tuple[str, ...],
    files: list[Path],
    parts: bool,
    longest: int,
) -> str:
    columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
    paths = ", ".join(quoted(str(file)) for file in files)
    chosen = (
        f"CASE WHEN regexp_full_match({named(name)}, '[-+]?\\d+,\\d+') THEN replace({named(name)}, ',', '.') "
        f"ELSE {named(name)} END AS {named(name)}"
        for name in layout.decimal_commas
    )
    replaced = ", ".join(chosen)
    order = '"user", item, rating, date' if layout.netflix else "*"
    return (
        f"SELECT {order}{f' REPLACE ({replaced})' if replaced else ''} FROM read_csv([{paths}], auto_detect=false, "
        f"compression='none', "  # whatever the name says
        f"header=false, skip={skip}, delim={quoted(delimiter)}, quote='\"', escape='\"', new_line='\\n', "
        f"columns={{{columns}}}, hive_partitioning={str(parts).lower()}, hive_types_autocast=false"
        + (f", max_line_size={longest + LINE}" if longest > LINE // 2 else "")
        + ")"
    )


def _header(where: str, first: Dialect, lines: list[str], given: bool | None) -> bool | None:
    """Whether a further part begins with the header of the first; None where its own lines tell, such as that the
    columns stand in another order."""
    if given is not None or not first.header:
        return given if given is not None else False
    if not first.head:
        return None
    if first.head in lines[: first.skip + 1]:
        return True
    own = dialect(where, lines, None, first.delimiter)
    return None if own.header and set(own.names) == set(first.names) else False


def _as_first(layout: Dialect, first: Dialect, where: str) -> Dialect:
    if layout.fields != first.fields or (
        layout.header and first.header and set(layout.names) != set(first.names)
    ):
        raise L2QError(
            f"{where} has other columns than the first part: {', '.join(layout.names)} instead of "
            f"{', '.join(first.names)}; give the parts of one table"
        )
    return layout


def _mended(found: Found) -> list[str]:
    """A sentence for each kind of mending that there was."""
    kinds = (
        (found.stray, "line has a quote that encloses no field", "lines have quotes that enclose no field",
         f", taken for text, first {found.first_stray}"),
        (found.short, "line lacks columns and is left out", "lines lack columns and are left out",
         f", first {found.first_short}"),
        (found.long, "line ends in a delimiter too many", "lines end in delimiters too many", ", which is left out"),
        (found.headers, "further line repeats the header and is left out",
         "further lines repeat the header and are left out", ""),
        (found.comments, "line of comment within the events is left out",
         "lines of comment within the events are left out", ""),
        (found.nulls, "byte 0 is left out", "bytes 0 are left out", ""),
        (found.returns, "carriage return within a line is read as a space",
         "carriage returns within lines are read as spaces", ""),
    )  # fmt: skip
    return [f"{count:,} {one if count == 1 else many}{more}" for count, one, many, more in kinds if count]
