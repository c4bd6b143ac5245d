"""``where=``: one SQL expression over the columns of a table, checked before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from l2q.errors import L2QError
from l2q.events.table import Table, plain_name, quoted

_FUNCTIONS = """~~ !~~ ~~* !~~* ~~~ ~ !~ + - * / // % ^ ** || like_escape not_like_escape ilike_escape not_ilike_escape
    abs ceil ceiling floor round trunc sign sqrt ln log log2 log10 exp pow power greatest least mod isnan isfinite
    lower upper lcase ucase trim ltrim rtrim length len strlen left right substr substring replace regexp_matches
    regexp_full_match regexp_replace regexp_extract contains prefix suffix starts_with ends_with instr position strpos
    split_part string_split concat reverse nfc_normalize strip_accents
    coalesce ifnull nullif if
    year month day hour minute second quarter week dayofweek isodow weekday dayofmonth dayofyear date_part datepart
    date_trunc datetrunc date_diff datediff epoch epoch_ms make_date make_timestamp to_timestamp strptime try_strptime
    strftime date to_years to_months to_days to_hours to_minutes to_seconds to_weeks
    list_contains list_value array_contains struct_extract array_extract list_extract"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Functions and operators that an expression may call: they read their arguments and nothing else."""

_CLASSES = {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "FUNCTION", "CAST", "TYPE", "BETWEEN",
            "CASE", "COLLATE"}  # fmt: skip
_ARITHMETIC = {"+", "-", "*", "/", "//", "%", "^", "**"}
_PATTERNS = {"~~", "!~~", "~~*", "!~~*"}


@dataclass(frozen=True)
class Condition:
    """``sql``: an expression that is true for the rows to keep. ``columns`` that it reads."""

    sql: str
    columns: frozenset[str]


def condition(table: Table, where: str) -> Condition:
    """``where`` as an expression over the columns of ``table`` alone: no other table or file, no setting, no second
    statement. A column of texts compares as numbers where it stands beside a number, as a time beside a date.

    Raises L2QError, in one line, for everything else.
    """
    statement = f"SELECT * FROM events WHERE (\n{where}\n)"
    parsed = _parsed(table, statement, where)
    statements = parsed["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    plain = _parsed(table, "SELECT * FROM events WHERE (\ntrue\n)", "true")["statements"][0]["node"]
    rest = {key: _unplaced(value) for key, value in node.items() if key != "where_clause"}
    if rest != {key: _unplaced(value) for key, value in plain.items() if key != "where_clause"}:
        raise L2QError(
            f"where={where!r} is no single condition; write one such as \"rating >= 4 and event = 'buy'\""
        )
    plain_names = [plain_name(column.name).casefold() for column in table.columns]
    names = {
        plain: column.name
        for plain, column in zip(plain_names, table.columns, strict=True)
        if plain_names.count(plain) == 1
    }
    names |= {column.name.casefold(): column.name for column in table.columns}
    texts = {column.name for column in table.columns if column.type.upper() == "VARCHAR"}
    used: set[str] = set()
    for part in _parts(node["where_clause"]):
        _allowed(table, where, part, names, used)
    _compare(table, node, names, texts)
    sql = _text(table, parsed)
    if not sql.upper().startswith("SELECT * FROM EVENTS WHERE ") or not used:
        raise L2QError(f"where={where!r} names no column of the table; it has {_listed(names)}")
    expression = sql[len("SELECT * FROM events WHERE ") :].rstrip("; ")
    try:
        table.connection.execute(f"SELECT TRY_CAST(({expression}) AS BOOLEAN) FROM events LIMIT 0").fetchall()
    except duckdb.Error as error:
        raise L2QError(f"where={where!r}: {first_line(error)}") from error
    return Condition(f"(TRY_CAST(({expression}) AS BOOLEAN) IS TRUE)", frozenset(used))


def first_line(error: Exception) -> str:
    """What DuckDB says, in one line, without its class of error and its hints about code."""
    text = str(error).split("\n\nLINE ")[0].split("\nLINE ")[0]
    text = re.sub(r"^[A-Z][A-Za-z ]*Error: ", "", text)
    return re.sub(r"\s+", " ", text).strip()[:300]


def _parsed(table: Table, statement: str, where: str) -> dict[str, Any]:
    found = table.connection.execute("SELECT json_serialize_sql(CAST(? AS VARCHAR))", [statement]).fetchall()
    parsed = json.loads(found[0][0])
    if parsed.get("error"):
        why = re.sub(r"\s+", " ", str(parsed.get("error_message", "")))
        raise L2QError(f"where={where!r} is no condition in SQL: {why}")
    return parsed


def _text(table: Table, parsed: dict[str, Any]) -> str:
    found = table.connection.execute(
        "SELECT json_deserialize_sql(CAST(? AS JSON))", [json.dumps(parsed)]
    ).fetchall()
    return str(found[0][0])


def _unplaced(value: Any) -> Any:
    """A part of a parsed statement without the places in the text."""
    if isinstance(value, dict):
        return {key: _unplaced(inner) for key, inner in value.items() if not key.startswith("query_location")}
    return [_unplaced(inner) for inner in value] if isinstance(value, list) else value


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every expression within an expression."""
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _allowed(table: Table, where: str, part: dict[str, Any], names: dict[str, str], used: set[str]) -> None:
    kind = part["class"]
    if kind not in _CLASSES:
        what = {
            "SUBQUERY": "another query",
            "WINDOW": "a window",
            "PARAMETER": "a parameter",
            "STAR": "a star",
        }
        raise L2QError(
            f"where={where!r} holds {what.get(kind, kind.lower())}; it takes a condition on the columns of one row"
        )
    if kind == "FUNCTION" and (part["function_name"].lower() not in FUNCTIONS or part.get("schema")):
        raise L2QError(
            f"where={where!r} calls {part['function_name']}(), which is none of the functions on texts, numbers and "
            "dates that a condition takes"
        )
    if kind == "COLUMN_REF":
        path = list(part["column_names"])
        if len(path) > 1 and path[0].casefold() == "events":
            path = path[1:]
        if path[0].casefold() not in names:
            raise L2QError(
                f"where={where!r}: no column {path[0]!r}; the table has {_listed(names)}; a text stands in single "
                f"quotes, as in event = {quoted(path[0])}"
            )
        part["column_names"] = [names[path[0].casefold()], *path[1:]]
        used.add(part["column_names"][0])


def _listed(names: dict[str, str]) -> str:
    return ", ".join(map(plain_name, dict.fromkeys(names.values())))


def _compare(table: Table, part: Any, names: dict[str, str], texts: set[str]) -> None:
    """Puts casts around columns of texts that stand beside numbers, truth values or dates, and takes the spaces
    around them away beside texts."""
    if isinstance(part, list):
        for inner in part:
            _compare(table, inner, names, texts)
        return
    if not isinstance(part, dict):
        return
    if part.get("class") == "CAST":  # what is no number leaves its row out, and is counted with it
        part["try_cast"] = True
    logic = part.get("class") == "CONJUNCTION" or part.get("type") == "OPERATOR_NOT"
    for holder, key in [*(_slots(part) if logic else ()), (part, "where_clause")]:
        inner = holder.get(key) if isinstance(holder, dict) else holder[key]
        if inner and inner.get("class") == "COLUMN_REF" and _column(inner, names) in texts:
            holder[key] = _cast(table, inner, "BOOLEAN")
    arithmetic = part.get("class") == "FUNCTION" and part.get("function_name") in _ARITHMETIC
    pattern = part.get("class") == "FUNCTION" and part.get("function_name") in _PATTERNS
    in_list = part.get("type") in ("COMPARE_IN", "COMPARE_NOT_IN")
    if part.get("class") in ("COMPARISON", "BETWEEN") or in_list or arithmetic or pattern:
        slots = list(_slots(part))
        beside = [kind for holder, key in slots if (kind := _kind(holder[key]))]
        kind = beside[0] if beside else "DOUBLE" if arithmetic else None
        for holder, key in slots:
            inner = holder[key]
            if kind and inner.get("class") == "COLUMN_REF" and _column(inner, names) in texts:
                holder[key] = _cast(table, inner, kind)
    for value in part.values():
        _compare(table, value, names, texts)


def _slots(part: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where the operands of a comparison or of arithmetic stand: holder and key."""
    for key in ("left", "right", "input", "lower", "upper"):
        if isinstance(part.get(key), dict):
            yield part, key
    children = part.get("children") or []
    yield from ((children, position) for position in range(len(children)))
    for argument in part.get("arguments") or []:
        yield argument, "expression"


def _kind(part: dict[str, Any]) -> str | None:
    """The type that a constant asks of the column beside it."""
    if part.get("class") == "CAST":
        text = json.dumps(part.get("type_expr", part.get("cast_type", {}))).upper()
        if "TIMESTAMP" in text or '"DATE"' in text:
            return "TIMESTAMP"
        return (
            "DOUBLE" if any(word in text for word in ("INT", "DOUBLE", "FLOAT", "DECIMAL", "REAL")) else None
        )
    if part.get("class") == "FUNCTION" and part.get("function_name") in _ARITHMETIC:
        return "DOUBLE"
    if part.get("class") != "CONSTANT":
        return None
    kind = part["literal"]["kind"] if "literal" in part else part["value"]["type"]["id"]
    if kind == "BOOLEAN":
        return "BOOLEAN"
    if any(word in kind for word in ("INT", "DEC", "DOUBLE", "FLOAT", "NUM")):
        return "DOUBLE"
    return "VARCHAR" if kind in ("VARCHAR", "STRING") else None


def _column(part: dict[str, Any], names: dict[str, str]) -> str | None:
    return names.get(part["column_names"][-1].casefold())


def _cast(table: Table, column: dict[str, Any], kind: str) -> dict[str, Any]:
    """TRY_CAST(column AS kind), parsed; commas between thousands are no part of a number, spaces around a text none
    of it."""
    text = {"DOUBLE": "replace(x, ',', '')", "VARCHAR": "trim(x)"}.get(kind, "x")
    statement = f"SELECT TRY_CAST({text} AS {kind}) FROM events"
    parsed = _parsed(table, statement, statement)["statements"][0]["node"]["select_list"][0]

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            if value.get("class") == "COLUMN_REF":
                return column
            return {key: put(inner) for key, inner in value.items()}
        return [put(inner) for inner in value] if isinstance(value, list) else value

    return put(parsed)
