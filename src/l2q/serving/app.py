"""The routes. Each takes the indexes once, when it begins, so that no answer mixes two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
import pydantic_core
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import l2q
from l2q.errors import L2QError, printable
from l2q.serving import questions as q
from l2q.serving.frame import Frame
from l2q.serving.metrics import Metrics
from l2q.serving.names import Unknown
from l2q.serving.page import Page
from l2q.serving.scoring import CHUNK, Busy, Worker
from l2q.serving.served import Lists, Ranked, Served
from l2q.serving.shelf import Shelf

SUGGESTED = 8
REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": q.Refusal, "description": said}
    for status, said in {
        400: "no JSON, or an index that cannot answer this",
        404: "an unknown name or index",
        413: "a request that is too large",
        422: "a value that cannot be used",
        503: "too many questions wait; ask again a second later",
    }.items()
}


def application(shelf: Shelf) -> Frame:
    """The service as an ASGI application."""
    app = FastAPI(
        title="L2Q",
        version=l2q.__version__,
        description="Rankings of an index, by name. Nothing is ever written.",
        docs_url=None,  # these would fetch their scripts from elsewhere
        redoc_url=None,
        responses=REFUSED,
    )
    answers, page, metrics = _Answers(shelf), Page(), Metrics(shelf)

    @app.get("/recommend", response_model=q.Answer)
    async def recommend_to_one(asked: Annotated[q.Who, Query()]) -> Response:
        """The best items for a user of the index, or for a new one by the items that they have."""
        said = {"users": [asked.user]} if asked.user is not None else {"items": [asked.item]}
        return _one(await answers.recommend(asked, **said))

    @app.post("/recommend", response_model=q.Answers)
    async def recommend_to_many(asked: q.ManyWho) -> Response:
        """The same for many users, or many new ones."""
        return _json(await answers.recommend(asked, asked.users, asked.items))

    @app.get("/similar", response_model=q.Answer)
    async def similar_to_one(asked: Annotated[q.What, Query()]) -> Response:
        """The items nearest to an item."""
        return _one(await answers.similar(asked, [asked.item]))

    @app.post("/similar", response_model=q.Answers)
    async def similar_to_many(asked: q.ManyWhat) -> Response:
        """The same for many items."""
        return _json(await answers.similar(asked, asked.items))

    @app.get("/names", response_model=q.Suggestions)
    async def names(
        start: Annotated[str, Query(min_length=1, max_length=1_000)],
        index: Annotated[str | None, Query(max_length=1_000)] = None,
    ) -> Response:
        """Names of users and items that begin so, those with the most events first."""
        of_each: dict[str, list[str]] = {"users": [], "items": []}
        for served in shelf.served if index is None else [_of(shelf, index)]:
            for side, found in of_each.items():
                found += [
                    name for name in getattr(served, side).starting(start, SUGGESTED) if name not in found
                ]
        return _json({side: found[:SUGGESTED] for side, found in of_each.items()})

    @app.get("/health", response_model=q.Health)
    async def health() -> Response:
        """Which indexes are served."""
        indexes = [
            {
                "name": served.name,
                "version": served.version,
                "dataset": served.index.manifest["dataset"],
                "users": served.index.num_users,
                "items": served.index.num_items,
            }
            for served in shelf.served
        ]
        return _json({"status": "ok", "indexes": indexes, "refused": shelf.refused})

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counts and seconds, as Prometheus reads them."""
        return Response(metrics.text(), media_type=Metrics.TYPE)

    @app.get("/", include_in_schema=False)
    async def look(
        name: Annotated[str, Query(max_length=1_000)] = "", k: Annotated[int, Query(ge=1, le=100)] = 10
    ) -> Response:
        return await page.show(shelf.served, answers.rank, name, k)

    _refuse_in_one_line(app)
    return Frame(app, metrics)


Rank = Callable[[Served, str, Sequence[int], int], Awaitable[list[Ranked]]]


class _Answers:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._scoring = Worker()
        self._folding = Worker()  # what new users need takes seconds to make, once

    async def recommend(
        self,
        asked: q.Question,
        users: Sequence[Any] | None = None,
        items: Sequence[Sequence[Any]] | None = None,
    ) -> dict[str, Any]:
        served = _of(self._shelf, asked.index)
        lists, unknown = _lists(served, asked)
        if users is not None:
            rows = np.array([served.users.row(name) for name in users], np.int64)
            heads: list[dict[str, Any]] = [{"user": str(name)} for name in users]
            for head, popular in zip(heads, served.popular(rows), strict=True):
                if popular:
                    head["popular"] = True
            found = await self._users(served, rows, asked.k, lists)
        else:
            assert items is not None
            owned = [[served.items.row(name) for name in names] for names in items]
            heads = [{"items": list(map(str, names))} for names in items]
            found = await self._new(served, owned, asked.k, lists)
        share = {} if served.exact == 1 or lists.only is not None else {"exact": served.share}
        return share | _answer(served, heads, found, unknown)

    async def similar(self, asked: q.Question, items: Sequence[Any]) -> dict[str, Any]:
        served = _of(self._shelf, asked.index)
        lists, unknown = _lists(served, asked)
        rows = np.array([served.items.row(name) for name in items], np.int64)
        found = await self._similar(served, rows, asked.k, lists)
        return _answer(served, [{"item": str(name)} for name in items], found, unknown)

    async def rank(self, served: Served, side: str, rows: Sequence[int], k: int) -> list[Ranked]:
        """For the page: by rows of "users", or what is similar to rows of "items"."""
        ranked = self._users if side == "users" else self._similar
        return await ranked(served, np.array(rows, np.int64), k, Lists())

    async def _users(self, served: Served, rows: np.ndarray, k: int, lists: Lists) -> list[Ranked]:
        found: list[Ranked] = []
        for part in (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)):
            if lists.empty:
                found += await self._scoring.recommend(served, part, k)
            else:
                found += await self._scoring.do(partial(served.recommend, part, k, lists))
        return found

    async def _new(self, served: Served, owned: list[list[int]], k: int, lists: Lists) -> list[Ranked]:
        if "fold_in" not in vars(served.index):
            await self._folding.do(lambda: served.index.fold_in)
        found: list[Ranked] = []
        for part in (owned[start : start + CHUNK] for start in range(0, len(owned), CHUNK)):
            found += await self._scoring.do(partial(served.recommend_new, part, k, lists))
        return found

    async def _similar(self, served: Served, rows: np.ndarray, k: int, lists: Lists) -> list[Ranked]:
        found: list[Ranked] = []
        for part in (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)):
            found += await self._scoring.do(partial(served.similar, part, k, lists))
        return found


def _of(shelf: Shelf, name: str | None) -> Served:
    served = shelf.served
    for each in served:
        if name is None or each.name == name:
            return each
    raise Unknown(f"no index is named {name[:100]!r} here; give {' or '.join(each.name for each in served)}")  # type: ignore[index]


def _lists(served: Served, asked: q.Question) -> tuple[Lists, list[str]]:
    unknown: dict[str, None] = {}

    def rows(names: Sequence[Any]) -> np.ndarray:
        found = [(str(name), served.items.find(name)) for name in names]
        unknown.update((name, None) for name, row in found if row is None)
        return np.unique(np.array([row for _, row in found if row is not None], np.int64))

    only = None if asked.only is None else rows(asked.only)
    return Lists(rows(asked.exclude), only), list(unknown)


def _answer(
    served: Served, heads: list[dict[str, Any]], found: list[Ranked], unknown: list[str]
) -> dict[str, Any]:
    names = served.items
    rankings = [
        head
        | {
            "ranking": [
                {"item": names[row], "score": score}
                for row, score in zip(items.tolist(), scores.tolist(), strict=True)
            ]
        }
        for head, (items, scores) in zip(heads, found, strict=True)
    ]
    said = {"index": served.name, "version": served.version}
    return said | ({"unknown": unknown} if unknown else {}) | {"rankings": rankings}


def _one(answer: dict[str, Any]) -> Response:
    (ranking,) = answer.pop("rankings")
    return _json(answer | ranking)


def _json(answer: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = pydantic_core.to_json(answer, inf_nan_mode="null")
    return Response(text, status, headers, media_type="application/json")


def _refused(said: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": " ".join(printable(said).split())}, status, headers)


def _refuse_in_one_line(app: FastAPI) -> None:
    @app.exception_handler(L2QError)
    async def unusable(request: Request, error: L2QError) -> Response:
        return _refused(str(error), 404 if isinstance(error, Unknown) else 400)

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        return _refused("too many questions wait; ask again in a second", 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _refused(_line(error.errors()[0]), 422)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> Response:
        said = {
            404: "there is nothing here; /openapi.json lists the routes",
            405: f"{request.method} is not for this route; /openapi.json lists the routes",
        }.get(error.status_code, str(error.detail))
        return _refused(said, error.status_code, dict(error.headers or {}))


def _line(error: Any) -> str:
    """What the first thing wrong with a question is. The value itself is not repeated but for a short one."""
    place = ".".join(str(part) for part in error["loc"][1:] if not isinstance(part, int) or part < 10**6)
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{place[:100]}: there is no such option; /openapi.json lists those that there are"
    if error["type"] == "json_invalid":
        return f"the request is no JSON: {error['ctx']['error']}"
    if not place:
        return said if error["type"] == "value_error" else "send a JSON object, as application/json"
    given = f"={error['input']}" if isinstance(error.get("input"), str | int | float) else ""
    return f"{place}{given if len(given) < 50 else ''}: {said[:1].lower()}{said[1:]}"
