"""What W&B keeps of a run on disk: ``wandb/offline-run-TIME-ID/run-ID.wandb`` in the run's folder.

The file is a log in LevelDB's format: a head of seven bytes, then blocks of 32 KiB that hold chunks of records. A chunk
has a checksum (4 bytes), its length (2), and whether it is a whole record (1), its first, a middle or its last part
(2, 3, 4). Records are messages of ``wandb.proto``. ``wandb leet inspect`` shows them.
"""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEAD, BLOCK, CHUNK = 7, 32768, 7


@dataclass
class Told:
    """What earlier files say of a run: its ``name`` and ``group``, the ``epochs`` that they hold, how many rows in all
    (``steps``, as W&B numbers them), and whether they hold an ``error``."""

    files: list[Path] = field(default_factory=list)
    name: str = ""
    group: str = ""
    epochs: set[int] = field(default_factory=set)
    steps: int = 0
    error: bool = False


def told(folder: Path, run_id: str, *, offline: bool = False) -> Told:
    """Of the run ``run_id`` in a run's ``folder``; ``offline``: by files that wait for ``wandb sync`` alone."""
    start = "offline-run" if offline else "*run"
    # by the time in the folders' names; a second one of the same second has a number behind the id
    files = sorted(folder.glob(f"wandb/{start}-*-{run_id}*/run-{run_id}.wandb"), key=_started)
    found = Told(files)
    for path in files:
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.name = found.name or record.run.display_name
                found.group = found.group or record.run.run_group
            elif kind == "history":
                row = values(record.history.item)
                found.steps = max(found.steps, record.history.step.num + 1)
                if isinstance(epoch := row.get("epoch"), int):
                    found.epochs.add(epoch)
            elif kind == "summary":
                found.error |= bool(values(record.summary.update).get("error"))
    return found


def records(path: Path) -> Iterator[Any]:
    """The records of a file, up to the place where a killed process left it."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    content, position, record = path.read_bytes(), HEAD, b""
    while position + CHUNK <= len(content):
        if (left := BLOCK - position % BLOCK) < CHUNK:  # no room for a chunk's head: filled up
            position += left
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        chunk = content[position + CHUNK : position + CHUNK + length]
        position += CHUNK + length
        if len(chunk) < length or kind not in (1, 2, 3, 4):
            return
        record = chunk if kind in (1, 2) else record + chunk
        if kind in (1, 4):
            try:
                yield wandb_internal_pb2.Record.FromString(record)  # type: ignore[attr-defined]
            except DecodeError:
                return


def await_end(path: Path, seconds: float) -> None:
    """Returns when the file is whole, which its last record says, or after ``seconds``. W&B's own ``finish`` returns
    before its service, which is another process, has written what it still holds."""
    patience = time.monotonic() + seconds
    while path.exists() and time.monotonic() < patience:
        if any(record.WhichOneof("record_type") == "exit" for record in records(path)):
            return
        time.sleep(0.02)


def values(items: Any) -> dict[str, Any]:
    """The keys and values of a record's items; nested keys are joined by dots."""
    found = {}
    for item in items:
        try:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        except ValueError:
            continue
    return found


def _started(path: Path) -> tuple[str, int]:
    match = re.search(r"run-(\d{8}_\d{6})-", path.parent.name)
    number = path.parent.name.partition(path.stem)[2].strip("-")
    return match[1] if match else "", int(number) if number.isdigit() else 0
