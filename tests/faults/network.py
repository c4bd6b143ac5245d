"""Servers that cut, stall, lie or send away: a download is whole or refused, and W&B never fails a run."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from runs import table

from faults.children import Child, job, of_job
from faults.frame import REFUSED, RIGHT, WRONG, Found, Setting, told
from faults.kills import fetched, ids
from faults.kills import prepare as prepare

FULL, SHORT = 200, 9
"""Faults of a download that stall take as long as it waits for a server."""


class Server(http.server.BaseHTTPRequestHandler):
    """One that does something wrong with a share of what it is asked."""

    how: str = ""
    rng: Any = None

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        getattr(self, f"_{self.how}")(ids(1 if "test" in self.path else 0))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        getattr(self, f"_{self.how}")(b'{"data": {}}')

    do_PUT = do_POST

    def _send(self, body: bytes, code: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        if length is None or length >= 0:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def _right(self, body: bytes) -> None:
        self._send(body)

    def _cut(self, body: bytes) -> None:
        """It says how much there is, and ends before."""
        self._send(body[: int(self.rng.integers(len(body)))], length=len(body))

    def _cut_unsaid(self, body: bytes) -> None:
        """It does not say how much there is, and ends before."""
        self._send(body[: int(self.rng.integers(len(body)))], length=-1)

    def _too_long(self, body: bytes) -> None:
        self._send(body + b"7 7 7\n", length=len(body) + 6)

    def _short_length(self, body: bytes) -> None:
        self._send(body, length=int(self.rng.integers(len(body))))

    def _other_bytes(self, body: bytes) -> None:
        place = int(self.rng.integers(len(body)))
        self._send(body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :])

    def _page(self, body: bytes) -> None:
        self._send(b"<html>log in</html>")

    def _nothing(self, body: bytes) -> None:
        self._send(b"")

    def _missing(self, body: bytes) -> None:
        self._send(b"no", 404)

    def _broken(self, body: bytes) -> None:
        self._send(b"no", int(self.rng.choice([500, 502, 503, 429])))

    def _redirect(self, body: bytes) -> None:
        self._send(b"", 302, Location=self.path)

    def _away(self, body: bytes) -> None:
        self._send(b"", 302, Location="http://127.0.0.1:9/")

    def _reset(self, body: bytes) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def _noise(self, body: bytes) -> None:
        self.wfile.write(self.rng.bytes(300))
        self.close_connection = True

    def _packed(self, body: bytes) -> None:
        """It says that the content is packed, which it is not."""
        self._send(body, **{"Content-Encoding": "gzip"})

    def _slow(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), len(body) // 5 + 1):
            self.wfile.write(body[start : start + len(body) // 5 + 1])
            time.sleep(0.1)

    def _stall(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:500])
        time.sleep(100)


HOWS = [name[1:] for name in vars(Server) if name.startswith("_") and not name.startswith("__")]
QUICK = tuple(name for name in HOWS if name not in ("send", "stall"))


@contextmanager
def serving(how: str, rng: Any) -> Iterator[str]:
    handler = type("Wrong", (Server,), {"how": how, "rng": rng})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.handle_error = True, lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.socket.close()


def _download(hows: tuple[str, ...]) -> Callable[[Setting], Found]:
    def trial(setting: Setting) -> Found:
        how, cache = hows[int(setting.rng.integers(len(hows)))], setting.folder / "cache"
        with serving("right", setting.rng) as url:
            expected = fetched(url, setting.folder / "right")
        with serving(how, setting.rng) as url:
            found = told(lambda: fetched(url, cache), lambda result: result == expected, (url, "fetched"))
        if found.outcome in (RIGHT, REFUSED):  # and then from a server that is well
            with serving("right", setting.rng) as url:
                again = told(lambda: fetched(url, cache), lambda result: result == expected)
            if again.outcome != RIGHT:
                return Found(WRONG, f"{how}: {found.said}; and from a right one: {again.said}")
            if left := [
                path.name for path in (cache / "fetched").iterdir() if not path.name.endswith(".txt")
            ]:
                return Found(WRONG, f"{how}: left {left}")
        return Found(found.outcome, f"{how}: {found.said}")

    return trial


def _wandb(hows: tuple[str, ...]) -> Callable[[Setting], Found]:
    """A run that is told to a server of W&B's that is none: it ends as without, and its folder is whole."""

    def trial(setting: Setting) -> Found:
        words = ["model=popularity"]

        def work(folder: Any, url: str = "") -> Any:
            logger = ["logger=wandb"] if url else ["logger=none"]
            if url:
                os.environ.update(WANDB_BASE_URL=url, WANDB_API_KEY="0" * 40, WANDB_ERROR_REPORTING="false")
                os.environ["WANDB_MODE"], os.environ["HOME"] = "online", str(setting.folder)
            return job(folder, [*table(folder.parent / "events.csv"), *words, *logger])

        expected, _ = setting.made.of("wandb", work)
        how = hows[int(setting.rng.integers(len(hows)))]
        if how == "closed":
            end = Child(lambda: work(setting.folder / "run", "http://127.0.0.1:9")).end()
        else:
            with serving(how, setting.rng) as url:
                end = Child(lambda: work(setting.folder / "run", url.rstrip("/"))).end()
        found = of_job(end, list(expected[3:]))
        if found.outcome == RIGHT and not (setting.folder / "run" / "metrics.json").exists():
            return Found(WRONG, f"{how}: no metrics")
        if found.outcome == REFUSED:
            return Found(WRONG, f"{how}: W&B failed the run: {found.said}")
        return Found(found.outcome, f"{how}: {found.said}")

    return trial


CASES = {
    "download": _download(QUICK),
    "download_stall": _download(("stall",)),
    "wandb": _wandb(("closed", "broken", "missing", "noise", "page", "nothing", "reset")),
    "wandb_stall": _wandb(("stall",)),
}
SHARES = {"download": 6, "wandb": 2}
