"""Requests a second and their slowest hundredth: the service beside FastAPI over FAISS, on the same machine.

    python benchmarks/serving.py [--json FILE] [--seconds N] [--connections N]

Amazon-Book's size: 91,599 items and 52,643 users, drawn. Ours: 768 bits with scales, each user's 45 train items left
out. FAISS: float32 of d = 64, IndexFlatIP, the best 20 of all items, nothing left out. Both are one process of uvicorn
and are asked for one user a request by wrk (Debian's package), which runs on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

USERS, ITEMS, OWNED, DIM, BITS = 52_643, 91_599, 45, 64, 768
SCRIPT = """
math.randomseed(7)
request = function() return wrk.format("GET", "/recommend?k=20&user=" .. math.random(0, %d)) end
done = function(summary, latency)
  io.write(string.format('{"requests": %%d, "seconds": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status
    + summary.errors.timeout))
end
"""
PEER = """
import sys
import faiss, numpy as np, uvicorn
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

users, items = np.load(sys.argv[1] + "/users.npy"), np.load(sys.argv[1] + "/items.npy")
index = faiss.IndexFlatIP(items.shape[1])
index.add(items)
app = FastAPI()

@app.get("/recommend")
async def recommend(user: int, k: int = 20):
    scores, found = await run_in_threadpool(index.search, users[user : user + 1], k)
    return {"ranking": [{"item": str(i), "score": s} for i, s in zip(found[0].tolist(), scores[0].tolist())]}

config = uvicorn.Config(app, port=int(sys.argv[2]), log_level="error", access_log=False, http="h11")
uvicorn.Server(config).run()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the records here")
    parser.add_argument("--seconds", type=int, default=20, help="of each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="of both in turn")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is absent; apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        (Path(folder) / "ask.lua").write_text(SCRIPT % (USERS - 1))
        records = measure(Path(folder), options)
    for record in records:
        print(json.dumps(record))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


def make(folder: Path) -> None:
    """The index of bits, and the peer's rows."""
    from l2q.interactions import Interactions
    from l2q.representations import Representations, Rows
    from l2q.retrieval.named import Index

    draw = np.random.default_rng(0)
    floats = [draw.standard_normal((rows, DIM)).astype(np.float32) for rows in (USERS, ITEMS)]
    for name, rows in zip(("users", "items"), floats, strict=True):
        np.save(folder / f"{name}.npy", rows)
    wide = np.linalg.qr(draw.standard_normal((BITS, BITS)))[0][:DIM].astype(np.float32)
    sides = []
    for rows in floats:
        turned = rows @ wide
        scales = np.abs(turned).mean(axis=1, keepdims=True).astype(np.float16).astype(np.float32)
        sides.append(Rows(np.where(turned >= 0, 1, -1).astype(np.int8), scales))
    pairs = np.repeat(np.arange(USERS), OWNED), draw.integers(ITEMS, size=USERS * OWNED)
    train = Interactions.from_pairs(*pairs, USERS, ITEMS)
    Index.of(Representations(*sides, (BITS,), np.ones(1, np.float32), "float16"), train).save(
        folder / "index"
    )


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each in its turn, so that what else the machine does meets both."""
    (folder / "peer.py").write_text(PEER)
    commands = {
        "l2q": [sys.executable, "-m", "l2q", "serve", "--index", str(folder / "index"), "--port", "8471"],
        "faiss": [sys.executable, str(folder / "peer.py"), str(folder), "8472"],
    }
    records = []
    for turn in range(options.rounds):
        for port, (name, command) in zip((8471, 8472), commands.items(), strict=True):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as service:
                try:
                    wait(f"http://127.0.0.1:{port}/recommend?user=1")
                    load = os.getloadavg()[0]
                    ask(folder, port, 2, options.connections)  # to warm up
                    record = ask(folder, port, options.seconds, options.connections)
                finally:
                    service.send_signal(signal.SIGTERM)
            record |= {"service": name, "round": turn, "per_second": record["requests"] / record["seconds"]}
            records.append(record | {"load_before": load})
    return records


def wait(url: str) -> None:
    import httpx

    while True:
        try:
            if httpx.get(url, timeout=60).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)


def ask(folder: Path, port: int, seconds: int, connections: int) -> dict[str, Any]:
    """What wrk counted."""
    address = f"http://127.0.0.1:{port}"
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(folder / "ask.lua"), address]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return json.loads(re.findall(r"^\{.*\}$", printed, re.MULTILINE)[-1])


if __name__ == "__main__":
    main()
