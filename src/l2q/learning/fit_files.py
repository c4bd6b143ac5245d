"""Parts of a fit as files, from which the same command goes on: each replaced in one step, with a checksum and with
what it belongs to. A part that is damaged or of another fit is made anew."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.learning import checkpoints
from l2q.learning.configuration import flat

if TYPE_CHECKING:
    from l2q.fitted.continuation import Earlier

log = logging.getLogger("l2q")
log_file = logging.getLogger("l2q.file")

VERSION = 1
"""Of the parts. Those of another version are made anew."""
NAMES = ("weights", "embeddings", "tries", "choice", "teacher", "lists", "rounds")
SHARE = 50  # a part that is not needed is written when so many times as long has passed as writing it took


def identity_of(
    config: Mapping[str, Any], dataset: str, train: Interactions, start: Earlier | None
) -> dict[str, Any]:
    """What makes a fit this one, plain values by name."""
    earlier, timed = None, train.holdout == "time"
    if start is not None:  # whose rows are found by name
        said = [start.manifest, *(None if names is None else list(map(str, names)) for names in (
            train.user_names, train.item_names,
        ))]  # fmt: skip
        earlier = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
    return {
        "version": VERSION,
        "dataset": dataset,
        "fingerprint": train.fingerprint,
        "times": _digest(train.times) if train.ahead or timed or config["model"].get("halvings") else None,
        "values": None if config["model"].get("value_power") == 0 else _digest(train.values),
        "holdout": train.holdout,  # by which a teacher is chosen
        "seed": config["seed"],
        "start": earlier,
        **flat({"model": config["model"]}),
    }


def _digest(values: np.ndarray | None) -> str | None:
    return None if values is None else hashlib.sha256(values.tobytes()).hexdigest()


class FitFiles:
    """``folder`` holds ``NAME.ckpt`` for every part. ``seconds`` is how long the fit took before it was broken off."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity
        self.began = time.perf_counter()
        self.seconds = 0.0
        self.spent = 0.0  # on writing
        self._written: dict[str, float] = {}
        self._costs: dict[str, float] = {}
        self._works = True
        if found := [name for name in NAMES if self._path(name).exists()]:
            log.info(f"the fit goes on with what it had, {', '.join(found)}, in {folder}")

    def get(self, name: str) -> Any:
        path = self._path(name)
        if not path.exists():
            return None
        why = ""
        try:
            content = checkpoints.load(path)
            if content["l2q"] != self.identity:
                why = "is of another fit"
            elif checkpoints.CHECKSUM not in content:  # none of ours is without
                why = "is damaged"
        except L2QError:
            why = "is damaged"
        if why:
            log.warning(f"{path} {why}: it is made anew")
            with suppress(OSError):
                path.unlink()
            return None
        self.seconds = max(self.seconds, content["seconds"])
        log_file.info(f"taken from {path}")
        return _from_tensors(content["part"])

    def wants(self, name: str, needed: bool = True) -> bool:
        passed = time.perf_counter() - self._written.get(name, -float("inf"))
        return self._works and (needed or passed >= SHARE * self._costs.get(name, 0.0))

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        began = time.perf_counter()
        if not self.wants(name, needed):
            return
        seconds = self.seconds + began - self.began
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoints.save(
                {"l2q": self.identity, "seconds": seconds, "part": _to_tensors(make())}, self._path(name)
            )
        except (L2QError, OSError) as error:  # the fit itself needs none of it
            self._works = False
            log.warning(f"{error}; the fit goes on, and begins again where it is broken off")
        self._written[name] = time.perf_counter()
        self._costs[name] = self._written[name] - began
        self.spent += self._costs[name]

    def tidy(self) -> None:
        """Deletes them: the index has all of it."""
        for name in NAMES:
            for path in (self._path(name), self.folder / f".{name}.ckpt.new"):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        assert name in NAMES
        return self.folder / f"{name}.ckpt"


def _to_tensors(value: Any) -> Any:
    """With tensors in the place of arrays, on the same memory."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {key: _to_tensors(inner) for key, inner in value.items()}
    return type(value)(map(_to_tensors, value)) if isinstance(value, list | tuple) else value


def _from_tensors(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, Mapping):
        return {key: _from_tensors(inner) for key, inner in value.items()}
    return type(value)(map(_from_tensors, value)) if isinstance(value, list | tuple) else value
