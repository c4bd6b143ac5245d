"""Parquet: the tables as files, and a query for DuckDB over them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from l2q.exports import tables
from l2q.exports.codes import Codes


def write(codes: Codes, folder: Path) -> str:
    query = tables.ranking(codes, "$name", "$k", bits="{}::BIT")
    for name, table in tables.tables(codes):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        query = query.replace(f" {name} ", f" '{name}.parquet' ")
    (folder / "rank.sql").write_text(f"{query};\n")
    return README.format(holds=tables.what_tables_hold(codes), query=query)


README = """# Codes for any reader of Parquet

A file a table, `NAME.parquet`; `code` is binary of a fixed length.

{holds}

`rank.sql` ranks by DuckDB, without a load: scores and order of equal ones are those of the index.

```python
import duckdb

query = open("rank.sql").read()
print(duckdb.execute(query, {{"name": "...", "k": 20}}).fetchall())  # id, name, score
```
"""
