"""What stands around every route: a limit of a request's size, headers, and the count of what was answered."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI

from l2q.serving.metrics import Metrics
from l2q.serving.questions import MOST_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Frame:
    """An ASGI application around another."""

    def __init__(self, app: FastAPI, metrics: Metrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"cache-control", b"no-store"),
                ]
            await send(message)

        try:
            if scope["method"] in ("GET", "HEAD"):
                await self.app(scope, receive, noting)
            elif (body := await _body(receive)) is None:
                await _refuse(noting)
            else:
                await self.app(scope, _replayed(body, receive), noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.note(route, status, time.perf_counter() - began)


async def _body(receive: Receive) -> bytes | None:
    """The whole of it; None where it is too large."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MOST_BYTES:
            return None
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


async def _refuse(send: Send) -> None:
    said = f"the request has more than {MOST_BYTES:,} bytes; ask in several requests"
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": said}).encode()})
