"""All rows of a table in one pass: codes of users and items, times, values, and which rows a condition keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb
import numpy as np

from l2q import processes
from l2q.errors import L2QError
from l2q.events import likes
from l2q.events.columns import Roles
from l2q.events.conditions import Condition, first_line
from l2q.events.profiles import Profile
from l2q.events.table import Column, Table, named, plain_name, quoted
from l2q.events.times import Clock, clock
from l2q.events.vocabulary import meaning

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 500_000  # rows at a time


@dataclass
class Coded:
    """A column as int32 ``codes``, a row each, of its distinct ``values``, an Arrow array in order of appearance."""

    codes: np.ndarray
    values: pa.Array

    def where(self, text: str) -> list[int]:
        """Codes of the values that are ``text`` but for spaces."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not pa.types.is_string(self.values.type):
            return []
        same = pc.equal(pc.utf8_trim_whitespace(self.values), text.strip())
        return [
            int(code) for code in np.flatnonzero(pc.fill_null(same, False).to_numpy(zero_copy_only=False))
        ]

    def counts(self, kept: np.ndarray) -> dict[str, int]:
        """How many of the rows that are kept have each value, here and in the other processes."""
        counts = np.bincount(self.codes[kept], minlength=len(self.values))
        own = zip(self.values.to_pylist(), counts.tolist(), strict=True)
        stripped = [(text.strip(), count) for text, count in own if text is not None and text.strip()]
        return counted(stripped)


def counted(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How often each text is there in all processes; texts in order of appearance, those without a row left out."""
    found: dict[str, int] = {}
    for text, count in itertools.chain.from_iterable(processes.everyone(list(pairs))):
        found[text] = found.get(text, 0) + count
    return {text: count for text, count in found.items() if count}


@dataclass(frozen=True)
class Flag:
    """Rows whose ``column`` says that the event is no like. ``sql``: true for them; ``keep``: an expression that
    leaves them out; ``what`` they hold, in words."""

    column: str
    sql: str
    keep: str
    what: str


@dataclass
class Rows:
    """A table's rows, in their order. ``kept``: what the condition keeps. ``times`` in seconds, ``values`` as
    numbers, NaN where there is none; ``kinds`` where values are texts."""

    users: Coded
    items: Coded
    kept: np.ndarray
    times: np.ndarray | None = None
    values: np.ndarray | None = None
    kinds: Coded | None = None
    clock: Clock | None = None
    flags: list[tuple[Flag, np.ndarray]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kept)


def clock_of(table: Table, roles: Roles, day_first: bool | None) -> Clock | None:
    """How the column of times is read; None where there is none. Raises L2QError where an option says otherwise."""
    time = roles.time
    watch = clock(table, time.column, list(time.kinds)[:200], day_first) if time is not None else None
    if day_first is not None and (watch is None or not watch.order):
        has = f"{time.name!r} ({time.example!r})" if time is not None else "no column"
        raise L2QError(
            f"{table.where}: day_first={str(day_first).lower()} is of dates such as 01/12/2010; times are in {has}: "
            "leave it out"
        )
    if watch is None and time is not None and "time" in roles.named:
        raise L2QError(
            f"{table.where}: time= names the column {time.name!r}, which has no times ({time.example!r})"
        )
    return watch


def read_rows(table: Table, roles: Roles, rule: Condition | None = None, watch: Clock | None = None) -> Rows:
    """The columns that ``roles`` name, of every row that this process reads. O(rows), in batches; texts are held once
    each."""
    import pyarrow as pa

    value = roles.value
    numeric = value is not None and (value.numeric or likes.truth(value.kinds))
    flags = _flags(roles)
    parts = {"users": _coded(roles.user.column), "items": _coded(roles.item.column)}
    if watch is not None:
        parts["times"] = f"CAST({watch.sql} AS DOUBLE)"
    if value is not None:
        parts["values" if numeric else "kinds"] = (
            _number(value) if numeric else f"CAST({named(value.name)} AS VARCHAR)"
        )
    if rule is not None:
        parts["kept"] = rule.sql
    parts |= {f"flag{position}": flag.sql for position, flag in enumerate(flags)}
    select = ", ".join(f"{sql} AS {named(name)}" for name, sql in parts.items())
    found: dict[str, list] = {name: [] for name in parts}
    kinds: dict[str, pa.DataType] = {}

    def batches() -> Iterator[pa.RecordBatch]:
        for piece in table.pieces or [""]:
            if piece:
                table.connection.execute(piece)
            reader = table.connection.sql(f"SELECT {select} FROM events").to_arrow_reader(BATCH)
            kinds.update(zip(parts, reader.schema.types, strict=True))
            yield from reader

    try:
        for batch in batches():
            for name, column in zip(parts, batch.columns, strict=True):
                if name in ("users", "items", "kinds"):
                    column = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
                    found[name].append(column)
                elif name in ("times", "values"):
                    number = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
                    found[name].append(number.astype(np.float64 if name == "times" else np.float32))
                else:
                    found[name].append(column.fill_null(False).to_numpy(zero_copy_only=False))
    except (duckdb.Error, pa.ArrowException) as error:
        raise L2QError(f"cannot read {table.where}: {first_line(error)}") from error
    users, items = (_joined(found.pop(name), kinds[name]) for name in ("users", "items"))
    count = len(users.codes)
    plain = {name: _whole(name, found.pop(name)) for name in list(found) if name != "kinds"}
    return Rows(
        users,
        items,
        plain["kept"] if rule is not None else np.ones(count, bool),
        plain.get("times"),
        plain.get("values"),
        _joined(found["kinds"], kinds["kinds"]) if "kinds" in found else None,
        watch,
        [(flag, plain[f"flag{position}"].astype(bool)) for position, flag in enumerate(flags)],
    )


def _whole(name: str, pieces: list[np.ndarray]) -> np.ndarray:
    kind = {"times": np.float64, "values": np.float32}.get(name, bool)
    return np.concatenate(pieces) if pieces else np.empty(0, kind)


def _joined(pieces: list[pa.DictionaryArray], kind: pa.DataType) -> Coded:
    """The pieces of a column of this ``kind`` with one dictionary."""
    import pyarrow as pa

    if not pieces:
        return Coded(np.empty(0, np.int32), pa.array([], kind))
    whole = pa.chunked_array(pieces).unify_dictionaries()
    values = whole.chunk(0).dictionary
    null = len(values)
    codes = np.concatenate([piece.indices.fill_null(null).to_numpy() for piece in whole.chunks]).astype(
        np.int32
    )
    if whole.null_count:
        values = pa.concat_arrays([values, pa.nulls(1, values.type)])
    return Coded(codes, values)


def _coded(column: Column) -> str:
    """Names are texts, but for numbers, of which each is made a text once."""
    kind = column.type.upper()
    if kind in ("DOUBLE", "FLOAT", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER",
                "UBIGINT", "VARCHAR"):  # fmt: skip
        return named(column.name)
    return f"CAST({named(column.name)} AS VARCHAR)"


def _number(value: Profile) -> str:
    """Numbers as people write them: 1,200 or 4,5 or True."""
    name = named(value.name)
    kind = value.column.type.upper()
    if kind not in ("VARCHAR", "BOOLEAN"):
        return f"TRY_CAST({name} AS FLOAT)"
    if likes.truth(value.kinds):
        text = f"lower(trim(CAST({name} AS VARCHAR)))"
        yes, no = (
            ", ".join(quoted(word) for word, number in likes.YES.items() if number == side) for side in (1, 0)
        )
        return f"CASE WHEN {text} IN ({yes}) THEN 1.0 WHEN {text} IN ({no}) THEN 0.0 END::FLOAT"
    thousands = rf"regexp_full_match(trim({name}), '[+-]?[0-9]{{1,3}}(,[0-9]{{3}})+(\.[0-9]+)?')"
    other = f"CASE WHEN {thousands} THEN replace({name}, ',', '') ELSE replace({name}, ',', '.') END"
    return f"coalesce(TRY_CAST({name} AS FLOAT), TRY_CAST({other} AS FLOAT))"


def _flags(roles: Roles) -> list[Flag]:
    """Columns beside the value that tell returns and other no's."""
    found = []
    chosen = {profile.name for profile in roles.chosen().values()}
    if "value" in roles.named and roles.value is None:
        return []
    for profile in roles.profiles:
        if profile.name in chosen or profile.nested or profile.column.type.upper() != "VARCHAR":
            continue
        said, name = meaning(profile.name), named(profile.name)
        if "invoice" in said.core and not profile.numeric:
            marked = sum(text[:1] in "Cc" and text[1:].isdigit() for text in profile.texts)
            plain = sum(text.isdigit() for text in profile.texts)
            if plain and marked and plain + marked > 0.9 * len(profile.texts):
                keep = f"{plain_name(profile.name)} NOT LIKE 'C%'"
                found.append(
                    Flag(profile.name, f"starts_with(upper({name}), 'C')", keep, "with a C before: returns")
                )
        elif "value" in said.roles and profile.few and not profile.numeric and not likes.truth(profile.kinds):
            no = [kind for kind in profile.kinds if likes.is_no(kind)]
            if no and len(no) < len(profile.kinds):
                words = ", ".join(map(quoted, no))
                keep = f"{plain_name(profile.name)} NOT IN ({words})"
                found.append(Flag(profile.name, f"trim({name}) IN ({words})", keep, f"of {words}"))
    return found
