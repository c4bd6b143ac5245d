"""DuckDB: a data base file with the tables and a macro that ranks."""

from __future__ import annotations

from pathlib import Path

import duckdb

from l2q.errors import L2QError
from l2q.exports import tables
from l2q.exports.codes import Codes

FILE = "index.duckdb"


def write(codes: Codes, folder: Path) -> str:
    query = tables.ranking(codes, "user_name", "k")
    try:
        with duckdb.connect(str(folder / FILE)) as connection:
            for name, table in tables.tables(codes):
                made = ", ".join(
                    f"{column}::BIT AS {column}" if column.startswith("code") else column
                    for column in table.column_names
                )
                connection.register("given", table)
                connection.execute(f"CREATE TABLE {name} AS SELECT {made} FROM given")
                connection.unregister("given")
            connection.execute(f"CREATE MACRO recommend(user_name, k) AS TABLE\n{query}")
    except duckdb.IOException as error:
        raise L2QError(f"{FILE} cannot be written: {str(error).splitlines()[0]}") from error
    return README.format(holds=tables.what_tables_hold(codes), query=query)


README = """# Codes for DuckDB

The tables of `index.duckdb`; `code` is a BIT, whose string has bit 7 of a byte first.

{holds}

The macro `recommend` ranks:

```sql
FROM recommend('...', 20);  -- id, name, score
```

It is this query. Scores and order of equal ones are those of the index.

```sql
{query};
```
"""
