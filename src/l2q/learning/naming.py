"""What runs are called: their folders, and the command that gives their figures again."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

PATHS = ("dataset.dir", "ckpt_path", "hydra.run.dir", "hydra.sweep.dir")
TEXTS = tuple(
    f"dataset.{option}"
    for option in ("user", "item", "time", "value", "where", "delimiter", "encoding", "query")
)
ADDRESS = re.compile(r"(duckdb|sqlite|postgres|postgresql):")
"""How the address of a database begins."""


def run_dir(fit: bool, ckpt_path: str | None, root: str) -> str:
    """A resumed run goes on in its own folder, the one around ``checkpoints/``; any other gets a new one,
    named by the time; to the microsecond, so that two that start together have one each. One that torchrun may start
    again is named by torchrun's id, so that it finds its folder then."""
    checkpoint = Path(os.path.realpath(str(ckpt_path or "")))  # which may be a number, and is refused later
    if fit and checkpoint.is_file() and checkpoint.parent.name == "checkpoints":
        return str(checkpoint.parents[1])
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # none: --rdzv-id was not given
    if os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0" and torchrun != "none":
        return f"{root}/{torchrun}"
    return f"{root}/{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def sweep_dir(name: str | None, root: str = "outputs/sweeps") -> str:
    """A sweep's folder: by its name, which brings it back; else by the time."""
    return f"{root}/{name or format(datetime.now(), '%Y-%m-%d_%H-%M-%S-%f')}"


def title(config: Mapping[str, Any]) -> str:
    """What a run without options of its own is called."""
    return f"{config['model']['name']} {config['dataset']['name']}"


def going_on(words: Sequence[str], place: str, folder: str | Path, start: str = "python train.py") -> str:
    """The command that goes on with what was broken off: the same ``words``, in the same folder, by the option
    ``place``."""
    kept = [word for word in words if not word.startswith((f"{place}=", "ckpt_path="))]
    if not any(word.startswith("sweep=") for word in words):
        kept.append(quoted(f"{place}={folder}"))
    return f"{start} {shlex.join(kept)}"


def command(config: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """The command that gives the same figures: not where files lie, nor a resume, which ends where one run would."""
    resumes = config["fit"] and (config["trainer"]["max_epochs"] or not config["epochs"])
    words = ("dataset.dir=", "logger=", "tags=", "keep=", "print_config=", "sweep=", "launcher", "ckpt_path=")
    left_out = words if resumes else words[:-1]
    said = [word for word in overrides if not word.startswith(left_out)]
    place = Path(str(config["dataset"].get("dir") or ""))
    if place.expanduser().is_file():  # which table it was is
        said.append(f"dataset.dir={place.name}")
    return f"python train.py {shlex.join(said)}".rstrip()


def stem(path: str) -> str:
    """What a set of one's own is called: its file or folder, without endings (``events.csv.gz``) and without signs that
    no folder should have: of a pattern, or of a database's address, with its user and options."""
    if ADDRESS.match(path):
        _, mark, table = path.rpartition("::")
        named = table.rpartition(".")[2] if mark and "/" not in table else ""
        path = f"table/{named}" if named else path.split("?")[0].partition(":")[2]
    place = Path(path)
    while place.name and any(mark in place.name for mark in "*?["):  # a pattern: by the folder above it
        place = place.parent
    name = re.sub(
        r"\.(csv|tsv|txt|dat|data|inter|jsonl?|ndjson|parquet)$", "", place.stem, flags=re.IGNORECASE
    )
    if name in ("", ".."):
        name = os.path.basename(os.path.realpath(place))
    return re.sub(r"[:;*?\[\]@|<>\"\x00-\x1f]+", "_", name)


def quoted(word: str) -> str:
    """A path or a text of the command line as Hydra's grammar takes it, whatever signs it has: ``events (1).csv``, a
    sweep's folder, ``rating >= 4 and event = 'buy'``. A text that is quoted for Hydra stays as it is."""
    key, _, value = word.partition("=")
    word_like = re.fullmatch(r"[\w./~-]*[a-zA-Z/][\w./~-]*", value, re.ASCII)  # no number
    plain = word_like is not None and value.lower() not in ("null", "true", "false", "nan", "inf")
    if key in PATHS and (
        plain or not (Path(value).expanduser().exists() or ADDRESS.match(value) or "[" in value)
    ):
        return word
    if key in TEXTS and re.fullmatch(r"[\w.-]*|'([^'\\]|\\.)*'|\"([^\"\\]|\\.)*\"", value, re.ASCII):
        return word
    if key not in (*PATHS, *TEXTS):
        return word
    # backslashes before a quote are read as escapes there, and others as they stand
    return f"{key}='" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + m[2].replace("'", "\\'"), value) + "'"
