"""The tables that engines of SQL have, and the score as an expression of theirs.

    items(id, name, code, scale, users)      users: how many have the item in train
    users(id, name, code, factor, items)     items: how many the user has in train
    train(user_id, item_id)                  what users have

A table has ``code`` and, where factors are not all one, ``scale`` or ``factor``. With several segments these are
``code_0``, ``code_1``, ... Ids are row numbers. A code is as on disk: value k is bit k % 8 of byte k // 8.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from l2q.exports.codes import Codes, Side

FACTORS = {"users": "factor", "items": "scale"}


def columns(codes: Codes) -> list[str]:
    """What the names of a segment's columns end with."""
    return [""] if len(codes.dims) == 1 else [f"_{s}" for s in range(len(codes.dims))]


def tables(codes: Codes) -> Iterator[tuple[str, pa.Table]]:
    """Every table with its name; codes are binary of a fixed length."""
    for side, rows, counts in (
        ("users", codes.users, codes.user_degrees),
        ("items", codes.items, codes.item_degrees),
    ):
        yield side, _side(side, rows, counts, codes)
    if codes.history is not None:
        owners = codes.history.users.astype(np.int32)
        yield "train", pa.table({"user_id": owners, "item_id": np.asarray(codes.history.items)})


def score(codes: Codes, real: str = "FLOAT", bits: str = "{}") -> str:
    """The score of ``items`` i for ``users`` u, operation by operation that of the index.

    ``real``: the engine's float32. ``bits``: how a code becomes what ``xor`` and ``bit_count`` take.
    """
    terms = []
    for end, dim in zip(columns(codes), codes.dims, strict=True):
        differing = f"bit_count({_xor(real)})".format(*(bits.format(f"{side}.code{end}") for side in "iu"))
        dot = f"({dim} - 2 * {differing})::{real}"
        dot = dot if codes.users.factors is None else f"u.factor{end} * {dot}"
        terms.append(dot if codes.items.factors is None else f"{dot} * i.scale{end}")
    total = "\n       + ".join(terms)
    if not codes.popular:
        return total
    return f"CASE WHEN u.items = 0 THEN i.users::{real} ELSE\n         {total} END"


def ranking(codes: Codes, user: str, k: str, schema: str = "", **dialect: str) -> str:
    """The query: ``k`` items with their scores for the user of a name."""
    unknown = (
        f"\nWHERE NOT EXISTS (SELECT 1 FROM {schema}train t WHERE t.user_id = u.id AND t.item_id = i.id)"
    )
    return (
        f"SELECT i.id, i.name, {score(codes, **dialect)} AS score\n"
        f"FROM {schema}items i,\n"
        f"     (SELECT * FROM {schema}users WHERE users.name = {user} ORDER BY id LIMIT 1) u"
        f"{'' if codes.history is None else unknown}\n"
        f"ORDER BY score DESC, id\n"
        f"LIMIT {k}"
    )


def what_tables_hold(codes: Codes) -> str:
    """For README.md: the columns."""
    end = columns(codes)[-1] and "_0, ..."
    code = f"`code{end}`"
    scale = "" if codes.items.factors is None else f", `scale{end}` (float32)"
    factor = "" if codes.users.factors is None else f", `factor{end}` (float32)"
    lines = [
        "| table | columns |",
        "|---|---|",
        f"| `items` | `id`, `name`, {code}{scale}, `users` (who have it in train) |",
        f"| `users` | `id`, `name`, {code}{factor}, `items` (how many the user has in train) |",
    ]
    if codes.history is not None:
        lines.append("| `train` | `user_id`, `item_id`: what users have |")
    bits = " + ".join(map(str, codes.dims))
    return "\n".join(
        [
            *lines,
            "",
            f"A code has {bits} bits: value k is bit k % 8 of byte k // 8, 1 is +1, 0 is -1. A user's vector is\n"
            "the `code` in `users`. A new user is a new row, from `fold_in` of the index.",
        ]
    )


def _xor(real: str) -> str:
    return "xor({}, {})" if real == "FLOAT" else "{} # {}"


def _side(name: str, side: Side, counts: np.ndarray, codes: Codes) -> pa.Table:
    made = {"id": pa.array(np.arange(len(side), dtype=np.int32)), "name": pa.array(side.names, pa.string())}
    for end, place in zip(columns(codes), codes.slices, strict=True):
        segment = np.ascontiguousarray(side.codes[:, place])
        kind = pa.binary(segment.shape[1])
        made[f"code{end}"] = pa.FixedSizeBinaryArray.from_buffers(
            kind, len(segment), [None, pa.py_buffer(segment)]
        )
    if side.factors is not None:
        for s, end in enumerate(columns(codes)):
            made[f"{FACTORS[name]}{end}"] = pa.array(side.factors[:, s])
    made["items" if name == "users" else "users"] = pa.array(counts.astype(np.int32))
    return pa.table(made)
