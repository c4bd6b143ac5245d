"""A table of events, opened: a DuckDB connection that reads this table and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import duckdb

from l2q import processes
from l2q.errors import L2QError

OUR_FAULT = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.InternalException,
    duckdb.NotImplementedException,
    duckdb.ParserException,
    duckdb.SyntaxException,
)
"""What DuckDB says of a statement. The rest it says of the data, or of the machine."""
MEMORY = 0.5  # share of the machine's memory that DuckDB may take; what is more goes to temporary files


@dataclass(frozen=True)
class Column:
    """A column of a table. ``type``: DuckDB's name of its type; text files have VARCHAR alone. ``role``: "user",
    "item", "time" or "value" where the source itself declares it. ``index``: a pandas index."""

    name: str
    type: str
    role: str | None = None
    index: bool = False


@dataclass(frozen=True)
class Parquet:
    """The files behind the view ``source.parquet``, and with which options of DuckDB they are read."""

    files: tuple[Path, ...]
    options: str


@dataclass
class Table:
    """A table of events that is open for reading, until ``close`` or the end of a ``with``.

    ``where``: what messages call it. ``connection`` holds it under the name ``events``; after ``lock`` it reads no
    other file, reaches no network, writes nothing and keeps its settings. ``header``: False where the source has no
    names of columns, which are then ``column1``, ``column2``, ``column3``. ``notes``: what was decided or looks odd, a
    sentence each. ``dropped``: rows of the source that are left out already, by reason.

        with open_table("ratings.csv") as table:
            table.connection.execute("SELECT count(*) FROM events").fetchone()
    """

    where: str
    connection: duckdb.DuckDBPyConnection = field(repr=False)
    folder: Path = field(repr=False)
    columns: tuple[Column, ...] = ()
    header: bool = True
    notes: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=set, repr=False)  # columns that are folders, ``day=1``
    parquet: Parquet | None = None
    views: list[str] = field(default_factory=list, repr=False)  # that unfold rows into events
    pieces: list[str] = field(default_factory=list, repr=False)
    """What this process reads of a table that several share, one after the other (``shares``); none: all of it."""

    @classmethod
    def new(cls, where: str) -> Table:
        """A table without events yet, with a private folder for temporary files."""
        folder = Path(tempfile.mkdtemp(prefix="l2q-events-"))
        connection = duckdb.connect(
            config={
                "temp_directory": str(folder / "spill"),
                "memory_limit": f"{int(memory() * MEMORY / processes.on_this_machine() / 2**20)}MiB",
                "python_enable_replacements": False,  # a name in SQL is never a variable of Python
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "preserve_insertion_order": True,
            }
        )
        table = cls(where, connection, folder)
        weakref.finalize(
            table, shutil.rmtree, folder, ignore_errors=True
        )  # at the latest when the program ends
        return table

    @cached_property
    def rows(self) -> int:
        found = self.connection.execute("SELECT count(*) FROM events").fetchone()
        assert found is not None
        return int(found[0])

    def lock(self, files: Sequence[str | Path] = ()) -> None:
        """From here on ``connection`` reads ``files`` and writes only what it spills from memory."""
        paths = ", ".join(quoted(str(file)) for file in files)
        self.connection.execute(f"SET allowed_paths = [{paths}]")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, duckdb.Error) and not isinstance(error, OUR_FAULT):
            said = re.sub(r"^[A-Z][A-Za-z ]*Error: ", "", " ".join(str(error).split()))
            raise L2QError(f"cannot read {self.where}: {said[:300]}") from error


def memory() -> int:
    """Bytes of memory that this process may use: of the machine, or of its control group."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            most = min(most, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return most


def quoted(text: str) -> str:
    """A string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """A name of SQL."""
    return '"' + name.replace('"', '""') + '"'


def plain_name(name: str) -> str:
    """A column as an expression may name it without quotes: ``Book_Rating`` for ``Book-Rating``, ``_3d`` for ``3d``,
    ``_like`` for a word that SQL keeps for itself."""
    plain = re.sub(r"\W+", "_", name).strip("_") or "_"
    if plain[0].isdigit() or plain.lower() in _reserved():
        return f"_{plain}"
    return name if name.isidentifier() else plain


@cache
def _reserved() -> frozenset[str]:
    """The words that name no column in SQL without quotes."""
    words = (
        "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category IN ('reserved', 'type_function')"
    )
    return frozenset(word for (word,) in duckdb.connect().execute(words).fetchall())
