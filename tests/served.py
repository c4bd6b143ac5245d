"""Services for tests: made indexes behind an application, asked without a network, or over a socket of a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import uvicorn

T = TypeVar("T")


def asking(app: Any, questions: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
    """What ``questions`` returns, asked of ``app`` itself."""

    async def ask() -> T:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await questions(client)

    return asyncio.run(ask())


def request(app: Any, method: str, url: str, **more: Any) -> httpx.Response:
    return asking(app, lambda client: client.request(method, url, **more))


@contextmanager
def over_a_socket(app: Any) -> Iterator[str]:
    """The address of ``app``, for programs that are no Python."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
