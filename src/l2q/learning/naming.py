"""What runs are called: their folders, and the command that gives their figures again."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any


def run_dir(fit: bool, ckpt_path: str | None, root: str) -> str:
    """A resumed run goes on in its own folder, the one around ``checkpoints/``; any other gets a new one,
    named by the time; to the microsecond, so that two that start together have one each."""
    checkpoint = Path(ckpt_path or "").resolve()
    if fit and checkpoint.is_file() and checkpoint.parent.name == "checkpoints":
        return str(checkpoint.parents[1])
    return f"{root}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def folder_name(overrides: str) -> str:
    """A job's overrides as a folder's name, paths among them too; file systems take 255 bytes, so the end of a longer
    one is hashed."""
    overrides = overrides.replace(os.sep, "_")
    if len(overrides.encode()) <= 200:
        return overrides
    return f"{overrides[:60]}-{hashlib.sha256(overrides.encode()).hexdigest()[:16]}"


def command(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The command that gives the same figures: not where files lie, nor a resume, which ends where one run would."""
    resumes = config["fit"] and (config["trainer"]["max_epochs"] or not config["epochs"])
    left_out = ("dataset.dir=", "logger=", *(("ckpt_path=",) if resumes else ()))
    said = [word for word in overrides if not word.startswith(left_out)]
    place = Path(config["dataset"].get("dir") or "")
    if place.expanduser().is_file():  # which table it was is
        said.append(f"dataset.dir={place.name}")
    return f"python train.py {shlex.join(said)}".rstrip()


def quoted(word: str) -> str:
    """A path of the command line as Hydra's grammar takes it, whatever signs it has: ``events (1).csv``, or a sweep's
    folder."""
    key, _, value = word.partition("=")
    plain = re.fullmatch(r"[\w./~-]*", value, re.ASCII)
    if key not in ("dataset.dir", "ckpt_path") or plain or not Path(value).expanduser().exists():
        return word
    return f"{key}='" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
