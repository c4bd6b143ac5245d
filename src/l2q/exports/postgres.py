"""PostgreSQL: a script that makes the tables, fills them and adds a function that ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from l2q.errors import L2QError
from l2q.exports import tables
from l2q.exports.codes import Codes

FILE = "load.sql"
BATCH = 4096  # rows that are text at a time


def write(codes: Codes, folder: Path) -> str:
    query = tables.ranking(codes, "user_name", "k", schema="l2q.", real="real")
    with (folder / FILE).open("w", encoding="utf-8", newline="\n") as script:
        script.write(BEGIN)
        for name, table in tables.tables(codes):
            script.write(_create(name, table))
            script.write(f"COPY l2q.{name} FROM stdin;\n")
            for batch in table.to_batches(BATCH):
                script.writelines(_lines(batch))
            script.write("\\.\n")
            script.write(KEYS[name])
        script.write(FUNCTION.format(query=query))
    said = README.format(holds=tables.what_tables_hold(codes), query=query)
    if len(codes.dims) == 1:
        said += NEAR.format(query=query.replace("l2q.items i,", CANDIDATES))
    return said


def _create(name: str, table: pa.Table) -> str:
    kinds = {pa.int32(): "integer", pa.string(): "text", pa.float32(): "real"}
    columns = [
        f"{field.name} bit({8 * field.type.byte_width})"
        if pa.types.is_fixed_size_binary(field.type)
        else f"{field.name} {kinds[field.type]}"
        for field in table.schema
    ]
    return f"\nCREATE TABLE l2q.{name} ({', '.join(columns)});\n"


def _lines(batch: pa.RecordBatch) -> Iterator[str]:
    """Rows as COPY reads them: tabs between values, codes in hexadecimal digits."""
    values = []
    for column in batch.columns:
        if pa.types.is_fixed_size_binary(column.type):
            values.append([f"x{code.hex()}" for code in column.to_pylist()])
        elif pa.types.is_string(column.type):
            values.append([_escaped(name) for name in column.to_pylist()])
        else:  # nine digits give a float32 back
            form = ".9g" if pa.types.is_floating(column.type) else "d"
            values.append([format(number, form) for number in column.to_pylist()])
    return ("\t".join(row) + "\n" for row in zip(*values, strict=True))


def _escaped(name: str) -> str:
    if "\0" in name:
        raise L2QError(f"the name {name!r} holds a zero byte, which PostgreSQL cannot store; rename it")
    return name.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


BEGIN = """\\set ON_ERROR_STOP on
SET client_encoding = 'UTF8';
BEGIN;
SET LOCAL client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS l2q;
DROP TABLE IF EXISTS l2q.items, l2q.users, l2q.train;
DROP FUNCTION IF EXISTS l2q.recommend(text, integer);
"""
KEYS = {
    "items": "ALTER TABLE l2q.items ADD PRIMARY KEY (id);\n",
    "users": "ALTER TABLE l2q.users ADD PRIMARY KEY (id);\nCREATE INDEX ON l2q.users USING hash (name);\n",
    "train": "ALTER TABLE l2q.train ADD PRIMARY KEY (user_id, item_id);\n",
}
FUNCTION = """
CREATE FUNCTION l2q.recommend(user_name text, k integer) RETURNS TABLE (id integer, name text, score real)
LANGUAGE sql STABLE AS $ranking$
{query}
$ranking$;
COMMIT;
ANALYZE l2q.items, l2q.users;
"""
CANDIDATES = """(SELECT * FROM l2q.items
      ORDER BY code <~> (SELECT code FROM l2q.users WHERE users.name = user_name ORDER BY id LIMIT 1)
      LIMIT candidates) i,"""
NEAR = """
With the extension pgvector, an index finds the candidates of the smallest Hamming distance, and these alone are scored.
The index knows no scales, so that rankings lose items; more candidates lose fewer, up to 1,000:

```sql
CREATE EXTENSION IF NOT EXISTS vector;
CREATE INDEX ON l2q.items USING hnsw (code bit_hamming_ops);
CREATE OR REPLACE FUNCTION l2q.recommend_near(user_name text, k integer, candidates integer DEFAULT 1000)
RETURNS TABLE (id integer, name text, score real) LANGUAGE sql STABLE SET hnsw.ef_search = 1000 AS $ranking$
{query}
$ranking$;
```
"""
README = """# Codes for PostgreSQL

`load.sql` makes tables in the schema `l2q`, in one transaction; those of an earlier export are replaced. It needs
PostgreSQL 14 or newer:

```bash
psql DATABASE -f load.sql
```

{holds}

The function `l2q.recommend` ranks:

```sql
SELECT * FROM l2q.recommend('...', 20);  -- id, name, score
```

It is this query, which reads every item. Scores and order of equal ones are those of the index.

```sql
{query};
```
"""
