"""The page at the root: rankings of a name, of one index or of two side by side, and what the runs measured."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from l2q.report.measures import Measure
from l2q.retrieval.storage import compression
from l2q.serving.served import Ranked, Served

LENGTHS = (10, 20, 50)
EXAMPLES = 8
OWNED = 200
"""Items of a user that are listed at most."""
Rank = Callable[[Served, str, Sequence[int], int], Awaitable[list[Ranked]]]


class Page:
    """Works without its script, which only suggests names. Nothing is fetched from elsewhere, and a browser is told to
    fetch nothing."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        style, script = ((here / name).read_text("utf-8") for name in ("page.css", "page.js"))
        found = Environment(
            loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        found.globals |= {"style": Markup(style), "script": Markup(script), "lengths": LENGTHS}
        found.filters["score"] = _score
        self._template = found.get_template("page.html")
        self._headers = {
            "Content-Security-Policy": (
                f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
                "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
            ),
            "Referrer-Policy": "no-referrer",
        }

    async def show(self, indexes: Sequence[Served], rank: Rank, name: str, k: int) -> Response:
        """The page for ``name``, of a user, an item or both; "" is none yet. A name that nobody has is 404."""
        name = name.strip()
        parts = [await _part(indexes, rank, side, name, k) for side in ("users", "items")] if name else []
        parts = [part for part in parts if part["columns"]]
        part, measured = _measured(indexes)
        text = self._template.render(
            name=name,
            k=k,
            parts=parts,
            indexes=[_described(served) for served in indexes],
            part=part,
            measured=measured,
            near={} if parts else _near(indexes, name),
        )
        status = 404 if name and not parts else 200
        return Response(text, status, self._headers, media_type="text/html; charset=utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _score(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


async def _part(indexes: Sequence[Served], rank: Rank, side: str, name: str, k: int) -> dict[str, Any]:
    """A user's recommendations ("users"), or what is similar to an item, of each index that knows the name."""
    columns, owned = [], None
    for served in indexes:
        if (row := getattr(served, side).find(name)) is None:
            continue
        ((items, scores),) = await rank(served, side, [row], k)
        top = float(scores[0]) if len(scores) else 0.0
        rows = [
            {"item": served.items[item], "score": score, "share": max(score / top, 0) if top > 0 else 0}
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
        ]
        popular = side == "users" and served.popular(np.array([row]))[0]
        columns.append({"index": served.name, "row": _row(served), "popular": popular, "rows": rows})
        if side == "users" and owned is None:
            owned = [served.items[item] for item in served.index.exclude[row].tolist()]
    both = _mark(columns) if len(columns) == 2 else None
    missing = [served.name for served in indexes if getattr(served, side).find(name) is None]
    return {
        "side": side,
        "columns": columns,
        "both": both,
        "missing": missing,
        "owned": (owned or [])[:OWNED],
        "owned_count": len(owned or []),
    }


def _mark(columns: list[dict[str, Any]]) -> int:
    """Gives each row its place in the other list, None where it is not there. Returns how many are in both."""
    places = [{row["item"]: place for place, row in enumerate(column["rows"], 1)} for column in columns]
    for column, there in zip(columns, reversed(places), strict=True):
        for row in column["rows"]:
            row["there"] = there.get(row["item"])
    return len(places[0].keys() & places[1].keys())


def _row(served: Served) -> str:
    kind = "bits" if "items.codes" in served.index.arrays else "float32 values"
    return f"{' + '.join(map(str, served.index.dims))} {kind}"


def _described(served: Served) -> dict[str, str]:
    sizes = compression(served.index.manifest)
    return {
        "name": served.name,
        "data": served.index.manifest["dataset"] or "-",
        "users x items": f"{len(served.users):,} x {len(served.items):,}",
        "row": _row(served),
        "bytes per item": f"{sizes['item_bytes']:,.0f}",
        **({} if served.exact == 1 else {"exact Top-20": f"{served.share:.1%}"}),
        "version": served.version,
    }


def _measured(indexes: Sequence[Served]) -> tuple[str, list[tuple[str, list[str], int | None]]]:
    """The part of the data, and of each metric on it the label, the values of the indexes, and which of them is the
    best; None where nothing tells. Of runs that read test, those on test."""
    metrics = [served.index.manifest["metrics"] for served in indexes]
    keys = list(dict.fromkeys(key for each in metrics for key in each))
    part = "test" if any(key.startswith("test/") for key in keys) else "val"
    found = []
    for key in (key for key in keys if re.fullmatch(rf"{part}/\w+", key)):
        measure = Measure(key.removeprefix(f"{part}/"))
        values = [each.get(key) for each in metrics]
        known = [value for value in values if value is not None]
        best = (min if measure.less_is_better else max)(known)
        alone = len(known) > 1 and known.count(best) == 1
        texts = ["" if value is None else measure.text(value) for value in values]
        found.append((measure.label, texts, values.index(best) if alone else None))
    return "validation" if part == "val" else part, found


def _near(indexes: Sequence[Served], name: str) -> dict[str, list[str]]:
    """Names to go on with: those near to one that nobody has, or those with the most events."""
    found = {}
    for side in ("users", "items"):
        names = getattr(indexes[0], side)
        found[side] = names.near(name, EXAMPLES) if name else names.starting("", EXAMPLES)
    return found
