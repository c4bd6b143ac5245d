"""Whatever holds events, as parts: a table split here, what is split already, and the very split of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from l2q import settings
from l2q.data import layouts
from l2q.data.core import core
from l2q.data.lightgcn import FILES
from l2q.data.sources import HOW, OPTIONS, Source, load_dataset
from l2q.data.splits import split
from l2q.data.tables import READING
from l2q.errors import L2QError
from l2q.events.databases import database_of
from l2q.events.read import read_events
from l2q.files import is_whole, read_json, read_sealed
from l2q.interactions import Dataset, Interactions, Reading

PARTS = ("all", "train", "given", "valid", "test")
SPLITTING = ("split", "test_fraction", "split_seed", "min_events")


@dataclass(frozen=True)
class Parts:
    """Interactions under one numbering, by what they are for. ``of``: "all" alone, where nothing is held out; else
    "train", "test" and, of a run that held one out, "valid"; "given" beside the test of a split by users."""

    name: str
    of: dict[str, Interactions]
    reading: Reading

    @property
    def first(self) -> Interactions:
        """Any part, for what all have: users, items and their names."""
        return next(iter(self.of.values()))


def open_parts(source: str, options: Mapping[str, Any] | None = None) -> Parts:
    """The parts of what ``source`` names: a run's folder, a set of ``conf/dataset`` by its name, a folder that is split
    already, or any table that ``l2q.read_events`` takes by an address.

    ``options``: those of a table that are given (``conf/dataset/table.yaml`` has all); ``split``, by default "none",
    is how a table is split. Raises L2QError for what cannot be read, and for an option that has no effect there.
    """
    given = {option: value for option, value in (options or {}).items() if value is not None}
    if unknown := given.keys() - set(OPTIONS):
        raise L2QError(f"{min(unknown)}: there is no such option; there are {', '.join(OPTIONS)}")
    path = Path(source).expanduser()
    if is_run(path):
        _refuse(given, f"{source}, a run's folder, whose split is the run's")
        return of_run(path)
    if is_split(source, given):
        return _of_dataset(Source(_stem(source), dir=source, verify=False, **given).load())
    if is_named(source):
        _refuse(given, f"{source}, which is split already")
        return _of_dataset(load_dataset(source))
    events = read_events(source, **{option: given[option] for option in READING if option in given})
    assert events.reading is not None
    return Parts(_stem(source), *_split(events, events.reading, given))


def _split(
    events: Interactions, reading: Reading, given: Mapping[str, Any]
) -> tuple[dict[str, Interactions], Reading]:
    usual = settings.preset("dataset/table") | {"split": "none"} | dict(given)
    if usual["split"] == "none":
        for option in ("test_fraction", "split_seed"):
            if option in given:
                raise L2QError(
                    f"{option}={given[option]} has no effect without a split; name one: split=time"
                )
        nothing = events.select(np.zeros(len(events), bool))
        every, _, left_out = core(events, nothing, usual["min_events"])
        return {"all": every}, replace(reading, split=left_out)
    if usual["split"] not in HOW:
        raise L2QError(f"split={usual['split']} is unknown; use none or {' or '.join(HOW)}")
    train, test = split(
        events,
        usual["split"],
        fraction=usual["test_fraction"],
        seed=usual["split_seed"],
        min_events=usual["min_events"],
    )
    assert train.reading is not None
    return _parts_of(train, test), train.reading


def _parts_of(
    train: Interactions, test: Interactions, valid: Interactions | None = None
) -> dict[str, Interactions]:
    parts = {"train": train, "given": test.given, "valid": valid, "test": test}
    return {name: part for name, part in parts.items() if part is not None and (len(part) or name == "train")}


def _of_dataset(dataset: Dataset, valid: Interactions | None = None) -> Parts:
    train, test = dataset.train, dataset.test
    pairs = len(train) + len(test)
    return Parts(dataset.name, _parts_of(train, test), train.reading or Reading(dataset.name, {}, rows=pairs))


def is_run(source: str | Path) -> bool:
    """Whether a folder is one that a run has left."""
    return (Path(source).expanduser() / "config.json").is_file()


def of_run(folder: Path) -> Parts:
    """The train, validation and test part that the run in ``folder`` had: its data are read and split once more, as
    its ``config.json`` says. Raises L2QError where they are no longer what the run was given."""
    try:
        config = read_json(folder / "config.json")
        values, protocol = dict(config["dataset"]), config["protocol"]
        if not is_whole(folder / "config.json"):
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise L2QError(f"{folder / 'config.json'} is no configuration of a run") from error
    dataset = Source(**values).load()
    try:
        trained_on = read_sealed(folder / "metrics.json").get("train")
    except (FileNotFoundError, AttributeError):  # a run that is not done
        trained_on = None
    except (OSError, ValueError) as error:
        raise L2QError(f"{folder / 'metrics.json'} is damaged ({error})") from error
    if trained_on and not dataset.train.fingerprint.startswith(trained_on):
        raise L2QError(
            f"{folder}: {values.get('dir') or dataset.name} has other pairs now than when the run read it; its split "
            "cannot be made again"
        )
    if protocol["name"] != "holdout":
        return _of_dataset(dataset)
    rest, valid = split(
        dataset.train, protocol["split"], fraction=protocol["fraction"], seed=protocol["split_seed"]
    )
    whole = _of_dataset(dataset)
    held = f"{protocol['fraction']:.0%} of it, by split={protocol['split']}, are the run's validation part"
    reading = replace(whole.reading, split="; ".join(filter(None, [whole.reading.split, held])))
    return Parts(whole.name, _parts_of(rest, dataset.test, valid), reading)


def is_split(source: str, given: Mapping[str, Any]) -> bool:
    """Whether a folder holds a train and a test part."""
    path = Path(source).expanduser()
    if database_of(source) is not None or not path.is_dir():
        return False
    if any((path / file).is_file() for file in FILES):
        return True
    forced = isinstance(given.get("user"), int) and isinstance(given.get("item"), int)
    return layouts.pair(path, forced) is not None


def is_named(source: str) -> bool:
    """Whether this is a set of ``conf/dataset``, and no path."""
    there = Path(source).expanduser().exists()
    return not there and source != "table" and source in settings.choices("dataset")


def _refuse(given: Mapping[str, Any], where: str) -> None:
    for option, value in given.items():
        if (option, value) != ("split", "none"):
            said = f"{value:g}" if isinstance(value, float) else value
            raise L2QError(f"{option}={said} has no effect on {where}; leave it out")


def _stem(source: str) -> str:
    """A name for a set from a path."""
    address = database_of(source)
    last = re.split(r"[/\\:]", str(source if address is None else address.shown).rstrip("/\\"))[-1]
    return re.sub(r"[^\w.-]+", "_", last.split(".")[0]).strip("_") or "events"
