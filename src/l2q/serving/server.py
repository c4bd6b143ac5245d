"""The process: a socket, signals, and an end that answers what it took."""

from __future__ import annotations

import gc
import ipaddress
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn

from l2q.errors import L2QError, printable
from l2q.serving.app import application
from l2q.serving.shelf import Shelf

PATIENCE_SECONDS = 10
"""How long requests that are being answered may take at the end."""
IN_FRONT = (
    "has neither TLS nor passwords nor rate limits of its own: let only a proxy that has them reach it "
    "(docs/how-to/serve.md)"
)


def serve(folders: Sequence[str], host: str, port: int, exact: float = 1.0) -> None:
    """Answers until SIGTERM or SIGINT; then what was asked before is answered first. SIGHUP opens the indexes anew.
    Raises L2QError for what is no index, and for an address that cannot be had."""
    listening = _socket(host, port)
    with listening:
        shelf = Shelf(folders, exact)
        config = uvicorn.Config(
            application(shelf),
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            http="h11",  # its heads have 64 KiB at most; httptools reads on for as long as anybody sends
            ws="none",
            timeout_graceful_shutdown=PATIENCE_SECONDS,
        )
        server = uvicorn.Server(config)
        # What is there by now stays, or goes when nobody has it any more. A full collection would look at all of it, .1
        # to .2 s, in which no request is answered.
        gc.collect()
        gc.freeze()

        def leave(*_: object) -> None:
            server.should_exit = True

        # these hold until uvicorn has its own, and when it sends itself the signal once more at its end
        before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: shelf.reload())
        try:
            shelf.watch()
            listening.listen(2048)  # who reads the line below may ask at once
            names = " and ".join(printable(served.name) for served in shelf.served)
            shown = f"[{host}]" if ":" in host else host
            print(f"{names}: http://{shown}:{listening.getsockname()[1]}  (Ctrl+C ends it)", flush=True)
            for served in shelf.served:
                if served.exact < 1:
                    print(
                        f"{printable(served.name)} is approximate: {served.share:.1%} of the exact Top-20 where it was "
                        "measured",
                        flush=True,
                    )
            if not loopback(listening.getsockname()[0]):
                print(
                    f"warning: {host} can be reached from elsewhere, and the service {IN_FRONT}",
                    file=sys.stderr,
                )
            server.run(sockets=[listening])
        finally:
            shelf.close()
            gc.unfreeze()
            for number, handler in before.items():
                signal.signal(number, handler)


def loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(address).is_loopback


def _socket(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise L2QError(f"--port {port} is none; give one of 1 .. 65535, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise L2QError(
            f"--host {host!r} is no address of this machine; give 127.0.0.1, or leave it out"
        ) from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        said = error.strerror or error
        raise L2QError(f"--port {port} of {host} cannot be had: {said}; give another --port") from error
    return made
