"""Elasticsearch: mappings, documents and a query, by its documentation; nothing here was run in it.

Codes are ``dense_vector`` fields of ``element_type`` bit, whose ``hamming`` a script scores. Scores must not be
negative there. Those above 0 are the index's; others become small positive numbers in the same order.

Sources: the references of "Dense vector field type", "Script score query", "Bulk API" and "Terms lookup".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from l2q.errors import L2QError
from l2q.exports.codes import QUANTIZE, Codes

MOST_DIMS = 4096
SCRIPT = "double s = {score}; return s > 0 ? s : s == 0 ? 1e-20 : -1e-30 / s"


def write(codes: Codes, folder: Path) -> str:
    codes = codes.one_segment("Elasticsearch")
    (dim,), dims = codes.dims, 8 * codes.items.codes.shape[1]
    if dims > MOST_DIMS:
        raise L2QError(f"Elasticsearch takes codes of 4,096 bits at most, these have {dim:,}; {QUANTIZE}")
    unindexed = {"index": False, "doc_values": False}
    items: dict[str, Any] = {
        "id": {"type": "integer"},
        "name": {"type": "keyword"},
        "code": {"type": "dense_vector", "element_type": "bit", "dims": dims, "index": False},
        "users": {"type": "integer"},
    }
    if codes.items.factors is not None:
        items["scale"] = {"type": "float", "index": False}
    users = {
        "id": {"type": "integer"},
        "name": {"type": "keyword"},
        "code": {"type": "byte", **unindexed},
        "items": {"type": "integer", **unindexed},
    }
    for name, fields in (("items", items), ("users", users)):
        mapping = {"mappings": {"dynamic": "strict", "properties": fields}}
        (folder / f"{name}.json").write_text(json.dumps(mapping, indent=2) + "\n")
    _bulk(folder / "items.ndjson", _items(codes))
    _bulk(folder / "users.ndjson", _users(codes))
    (folder / "rank.json").write_text(json.dumps(_query(codes, dim), indent=2) + "\n")
    return README.format(items=len(codes.items), dim=dim)


def signed(code: np.ndarray) -> list[int]:
    """Bytes from -128 to 127."""
    return code.view(np.int8).tolist()


def _items(codes: Codes) -> Iterator[dict[str, Any]]:
    codes_, factors = codes.items.codes, codes.items.factors
    for row, name in enumerate(codes.items.names):
        scale = {} if factors is None else {"scale": float(factors[row, 0])}
        users = int(codes.item_degrees[row])
        yield {"id": row, "name": name, "code": signed(codes_[row]), **scale, "users": users}


def _users(codes: Codes) -> Iterator[dict[str, Any]]:
    for row, name in enumerate(codes.users.names):
        has = {} if codes.history is None else {"items": codes.history[row].tolist()}
        yield {"id": row, "name": name, "code": signed(codes.users.codes[row]), **has}


def _query(codes: Codes, dim: int) -> dict[str, Any]:
    """For user 0."""
    dot = f"({dim} - 2 * hamming(params.code, 'code'))"
    score = dot if codes.items.factors is None else f"doc['scale'].value * {dot}"
    match: dict[str, Any] = {"match_all": {}}
    if codes.history is not None:
        owned = {"index": "l2q-users", "id": "0", "path": "items"}
        match = {"bool": {"must": match, "must_not": {"terms": {"id": owned}}}}
    code = signed(codes.users.codes[0]) if len(codes.users) else []
    script = {"source": SCRIPT.format(score=score), "params": {"code": code}}
    return {
        "size": 20,
        "_source": ["id", "name"],
        "query": {"script_score": {"query": match, "script": script}},
        "sort": [{"_score": "desc"}, {"id": "asc"}],
    }


def _bulk(path: Path, documents: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for document in documents:
            file.write(json.dumps({"index": {"_id": str(document["id"])}}) + "\n")
            file.write(json.dumps(document, ensure_ascii=False) + "\n")


README = """# Codes for Elasticsearch

Written by Elasticsearch's documentation (8.15 and newer, which have bit vectors). **It was not run in Elasticsearch.**

| file | what |
|---|---|
| `items.json`, `users.json` | mappings of the indexes `l2q-items` and `l2q-users` |
| `items.ndjson` | {items:,} items for `_bulk`: `id`, `name`, `code`, its `scale` if there is one, `users` who have it |
| `users.ndjson` | users: `id`, `name`, `code`, and `items` that they have |
| `rank.json` | the query for user 0 |

```bash
curl -X PUT localhost:9200/l2q-items -H 'Content-Type: application/json' -d @items.json
curl -X PUT localhost:9200/l2q-users -H 'Content-Type: application/json' -d @users.json
curl -X POST localhost:9200/l2q-items/_bulk -H 'Content-Type: application/x-ndjson' --data-binary @items.ndjson
curl -X POST localhost:9200/l2q-users/_bulk -H 'Content-Type: application/x-ndjson' --data-binary @users.ndjson
curl -X POST localhost:9200/l2q-items/_search -H 'Content-Type: application/json' -d @rank.json
```

Split files of more than 100 MB at even lines: the bulk API takes no more at once.

A user's vector is the `code` of its document, {dim} bits as signed bytes: value k is bit k % 8 of byte k // 8, 1 is +1,
0 is -1. For another user, put its `code` into `params.code` and its id into the terms lookup. Every item is scored.
Scores above 0 are those of the index, and lower ones are replaced by small positive numbers in the same order, since
Elasticsearch takes no negative score. Equal scores go by `id`, as in the index.

For a user without train items the index shows the most popular: `match_all`, sorted by `users`, descending, and `id`.
"""
