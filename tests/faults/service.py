"""A service that is asked, asked wrongly, and has its index replaced meanwhile: every answer is that of one of the
indexes, every wrong question is told so in a line, and memory stays flat."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

import l2q
from faults.frame import RIGHT, TRACEBACK, WRONG, Found, Setting

FULL, SHORT, BATCH = 10_000, 400, 50
USERS, ITEMS, K = 300, 400, 10
REPLACED = 1000
"""Questions and wrong questions between two replacements of the index."""
GROWTH = 40.0
"""MiB that memory may grow behind the first third: two indexes are open while one takes the other's place."""


@dataclass
class Service:
    process: Any
    client: httpx.Client
    folder: Path
    indexes: list[l2q.Index]
    expected: dict[str, Any]
    asked: int = 0
    memory: list[float] = field(default_factory=list)


def prepare(folder: Path) -> Service:
    indexes = [_index(seed) for seed in (0, 1)]
    versions = []
    for index in indexes:
        manifest = json.loads((index.save(folder / "index") / "manifest.json").read_text())
        versions.append(manifest["sha256"])
    indexes[0].save(folder / "index")
    expected = {}
    for version, index in zip(versions, indexes, strict=True):
        users, items = (
            [f"{side}{row}" for row in range(size)] for side, size in (("u", USERS), ("i", ITEMS))
        )
        expected[version] = {
            **{user: index.recommend(user, k=K).items for user in users},
            **{item: index.similar(item, k=K).items for item in items},
        }
    command = [sys.executable, "-m", "l2q", "serve", "--index", str(folder / "index"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found is not None
    return Service(process, httpx.Client(base_url=found[0], timeout=60), folder / "index", indexes, expected)


def _index(seed: int) -> l2q.Index:
    rng = np.random.default_rng(seed)
    from l2q.interactions import Interactions, name_array

    train = Interactions.from_pairs(
        rng.integers(USERS, size=3000),
        rng.integers(ITEMS, size=3000),
        USERS,
        ITEMS,
        name_array([f"u{row}" for row in range(USERS)]),
        name_array([f"i{row}" for row in range(ITEMS)]),
    )
    return l2q.fit(train, "l2q_plus", bits=64, seed=seed, model={"embeddings": {"weight": 0.0}})


def finish(service: Service) -> dict[str, Found]:
    """Memory over the questions, and how the service ends."""
    service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(60)
    third = service.memory[len(service.memory) // 3 :] or [0.0]
    growth = third[-1] - third[0]
    said = f"{growth:+.1f} MiB behind the first third, {third[-1]:,.0f} MiB at the end"
    return {
        "memory": Found(RIGHT if growth < GROWTH else WRONG, said),
        "end": Found(RIGHT if code in (0, 143) else WRONG, f"exit code {code} after SIGTERM"),
    }


def _trial(one: Any) -> Any:
    """A batch: every ``REPLACED`` the index is replaced by the other one, while the questions go on."""

    def trial(setting: Setting) -> list[Found]:
        service: Service = setting.made
        found = []
        for _ in range(BATCH):
            service.asked += 1
            if service.asked % REPLACED == 0:
                service.indexes[service.asked // REPLACED % 2].save(service.folder)
            found.append(one(service, setting.rng))
        status = Path(f"/proc/{service.process.pid}/status")
        if status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            service.memory.append(int(line.split()[1]) / 1024)
        return found

    return trial


def _question(service: Service, rng: np.random.Generator) -> Found:
    route, side, size = [("recommend", "user", USERS), ("similar", "item", ITEMS)][int(rng.integers(2))]
    names = [f"{side[0]}{row}" for row in rng.integers(size, size=int(rng.integers(1, 6)))]
    if rng.random() < 0.5:
        answered = service.client.get(f"/{route}", params={side: names[0], "k": K})
        names = names[:1]
    else:
        answered = service.client.post(f"/{route}", json={f"{side}s": names, "k": K})
    if answered.status_code != 200:
        return Found(TRACEBACK, f"{answered.status_code}: {answered.text[:200]}")
    content = answered.json()
    right = next((all_ for sha, all_ in service.expected.items() if sha.startswith(content["version"])), None)
    rankings = content.get("rankings") or [content["ranking"]]
    got = [
        [entry["item"] for entry in (ranking["ranking"] if isinstance(ranking, dict) else ranking)]
        for ranking in rankings
    ]
    if right is None or got != [right[name] for name in names]:
        return Found(WRONG, f"{names}: {answered.text[:200]}")
    return Found(RIGHT)


def _wrong_question(service: Service, rng: np.random.Generator) -> Found:
    text = bytes(rng.integers(32, 127, size=int(rng.integers(1, 30)), dtype=np.uint8)).decode()
    route = ["/recommend", "/similar"][int(rng.integers(2))]
    word = {"/recommend": "user", "/similar": "item"}[route]
    first = f"{word[0]}1"
    bad_k = ["0", "-3", "x", "1e9", "1001", ""][int(rng.integers(6))]
    bad_json = ["x", [], {}, -1, 1.5, text + "x"][int(rng.integers(6))]
    no_names = [None, 3.5, True, [], {}][int(rng.integers(5))]
    asks: list[dict[str, Any]] = [
        {"method": "GET", "url": route, "params": {word: "?" + text}},
        {"method": "GET", "url": route, "params": {word: first, "k": bad_k}},
        {"method": "POST", "url": route, "content": text.encode()},
        {"method": "POST", "url": route, "content": rng.bytes(int(rng.integers(1, 400)))},
        {"method": "POST", "url": route, "json": {f"{word}s": [first], "k": bad_json}},
        {"method": "POST", "url": route, "json": {f"{word}s": no_names}},
        {"method": ["PUT", "DELETE", "PATCH", "OPTIONS"][int(rng.integers(4))], "url": route},
        {"method": "GET", "url": "/x/../" + "".join(filter(str.isalnum, text)) + "y"},
    ]
    ask = asks[int(rng.integers(len(asks)))]
    answered = service.client.request(**ask)
    if answered.status_code >= 500:
        return Found(TRACEBACK, f"{ask}: {answered.status_code} {answered.text[:200]}")
    if answered.status_code < 400:
        return Found(WRONG, f"{ask}: taken, {answered.text[:200]}")
    lines = list(answered.json().values())
    if len(lines) != 1 or not lines[0] or len(lines[0].splitlines()) != 1:
        return Found(WRONG, f"{ask}: {answered.text[:200]}")
    return Found(RIGHT)


CASES = {"question": _trial(_question), "malformed": _trial(_wrong_question)}
