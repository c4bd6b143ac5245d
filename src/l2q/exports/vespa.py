"""Vespa: a schema, documents and a query, by its documentation; nothing here was run in it.

Codes are ``tensor<int8>`` attributes, whose elementwise ``hamming`` is summed in the rank profile, a tensor a segment.

Sources: the references of "Schemas", "Tensor evaluation" (hamming), "Document JSON format", "Query API" and "Sorting".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from l2q.exports.codes import Codes, Side
from l2q.exports.tables import columns


def write(codes: Codes, folder: Path) -> str:
    (folder / "item.sd").write_text(_schema(codes))
    for kind, side in (("item", codes.items), ("user", codes.users)):
        with (folder / f"{kind}s.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(put, ensure_ascii=False) + "\n" for put in _puts(kind, side, codes))
    (folder / "rank.json").write_text(json.dumps(_query(codes), indent=2) + "\n")
    return README.format(items=len(codes.items), bits=" + ".join(map(str, codes.dims)))


def _schema(codes: Codes) -> str:
    fields, inputs, terms = [], [], []
    for end, dim, place in zip(columns(codes), codes.dims, codes.slices, strict=True):
        kind = f"tensor<int8>(x[{place.stop - place.start}])"
        fields.append(f"field code{end} type {kind} {{\n            indexing: attribute\n        }}")
        inputs.append(f"query(code{end}) {kind}")
        term = f"({dim} - 2 * sum(hamming(query(code{end}), attribute(code{end})), x))"
        if codes.users.factors is not None:
            inputs.append(f"query(factor{end}) double")
            term = f"query(factor{end}) * {term}"
        if codes.items.factors is not None:
            fields.append(f"field scale{end} type float {{\n            indexing: attribute\n        }}")
            term = f"{term} * attribute(scale{end})"
        terms.append(term)
    return SCHEMA.format(
        fields="\n        ".join(fields),
        inputs="\n            ".join(inputs),
        score=" + ".join(terms),
    )


def _puts(kind: str, side: Side, codes: Codes) -> Iterator[dict[str, Any]]:
    """What `vespa feed` takes, a document a line; of users, what a query needs."""
    for row, name in enumerate(side.names):
        fields: dict[str, Any] = {"row": row, "name": name}
        for end, place in zip(columns(codes), codes.slices, strict=True):
            values = side.codes[row, place].view(np.int8).tolist()
            fields[f"code{end}"] = {"values": values} if kind == "item" else values
        if side.factors is not None:
            factor = "scale" if kind == "item" else "factor"
            for s, end in enumerate(columns(codes)):
                fields[f"{factor}{end}"] = float(side.factors[row, s])
        if kind == "item":
            fields["users"] = int(codes.item_degrees[row])
            yield {"put": f"id:l2q:item::{row}", "fields": fields}
        else:
            if codes.history is not None:
                fields["items"] = codes.history[row].tolist()
            yield fields


def _query(codes: Codes) -> dict[str, Any]:
    """For user 0."""
    owned = [] if codes.history is None or not len(codes.users) else codes.history[0].tolist()
    where = f"true and !(row in ({', '.join(map(str, owned))}))" if owned else "true"
    query: dict[str, Any] = {
        "yql": f"select row, name from item where {where}",
        "ranking.profile": "l2q",
        "ranking.sorting": "-[relevance] +row",
        "hits": 20,
    }
    if len(codes.users):
        for s, (end, place) in enumerate(zip(columns(codes), codes.slices, strict=True)):
            query[f"input.query(code{end})"] = codes.users.codes[0, place].view(np.int8).tolist()
            if codes.users.factors is not None:
                query[f"input.query(factor{end})"] = float(codes.users.factors[0, s])
    return query


SCHEMA = """schema item {{
    document item {{
        field row type int {{
            indexing: attribute | summary
            attribute: fast-search
        }}
        field name type string {{
            indexing: attribute | summary
        }}
        field users type int {{
            indexing: attribute | summary
        }}
        {fields}
    }}
    rank-profile l2q {{
        inputs {{
            {inputs}
        }}
        first-phase {{
            expression: {score}
        }}
    }}
}}
"""
README = """# Codes for Vespa

Written by Vespa's documentation. **It was not run in Vespa.**

| file | what |
|---|---|
| `item.sd` | the schema, for `schemas/` of the application: fields and the rank profile `l2q` |
| `items.jsonl` | {items:,} items to feed: `row`, `name`, `code`, its `scale` where it has one, `users` who have it |
| `users.jsonl` | users, a JSON object a line, for the program that asks: `code`, `factor`, `items` that they have |
| `rank.json` | the query for user 0 |

```bash
vespa feed items.jsonl
curl -H 'Content-Type: application/json' --data @rank.json localhost:8080/search/
```

A code has {bits} bits, as signed bytes: value k is bit k % 8 of byte k // 8, 1 is +1, 0 is -1. A query has the user's
`code` and `factor` and, in the YQL, the rows of what the user has. Every item is scored, in float64; the index rounds
to float32, so that scores that differ in float32's last place may change places. Equal scores go by `row`, as in the
index.

For a user without train items the index shows the most popular: `where true`, sorted by `-users +row`.
"""
