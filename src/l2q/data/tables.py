"""Tables of events as data sets: one that is split here, or two that are a split already."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from l2q.data.core import core
from l2q.data.layouts import Pair
from l2q.data.splits import described, split
from l2q.errors import L2QError
from l2q.events.read import read_events
from l2q.interactions import Dataset, Interactions, Reading, name_array

READING = (
    *("user", "item", "time", "value", "where", "min_value"),
    *("header", "delimiter", "encoding", "missing", "dedupe", "query", "day_first"),
)
"""The options that ``read_events`` takes."""


def read_table(source: str, name: str, options: Mapping[str, Any]) -> Dataset:
    """A dataset of one table, split as ``options`` say: those of ``READING``, and ``split``, ``test_fraction``,
    ``split_seed``, ``min_events`` (``l2q.data.splits``). With ``test_fraction=0`` all of it is train.

    Raises L2QError for what cannot be read or split, and where nothing is left to test with.
    """
    events = read_events(source, **{option: options[option] for option in READING})
    assert events.reading is not None
    columns = (events.reading.columns["user"], events.reading.columns["item"])
    fraction, how = options["test_fraction"], options["split"]
    if not fraction:
        train, test, left_out = core(
            events, events.select(np.zeros(len(events), bool)), options["min_events"]
        )
        line = "; ".join(filter(None, ["test_fraction=0: all pairs are train, none is test", left_out]))
        return _dataset(name, train, test, replace(events.reading, split=line), columns)
    try:
        train, test = split(
            events, how, fraction=fraction, seed=options["split_seed"], min_events=options["min_events"]
        )
    except L2QError as error:
        raise L2QError(f"{events.reading.source}: {error}") from error
    assert train.reading is not None
    if not len(test) and options["min_events"] > 1:
        raise L2QError(
            f"{events.reading.source}: dataset.min_events={options['min_events']} leaves nothing to test with; give a "
            f"lower number, or dataset.split=random ({train.reading.split})"
        )
    if not len(test):
        raise L2QError(_nothing_to_test(events, options))
    reading = train.reading
    if len(test) < fraction * len(train) / 10 and how in ("auto", "random") and "at random" in reading.split:
        note = (
            f"only {len(test):,} of {len(events):,} pairs are test, since few users, column {columns[0]!r}, have two "
            f"items, column {columns[1]!r}; are these the columns of users and items?"
        )
        reading = replace(reading, notes=(*reading.notes, note))
    return _dataset(name, train, test, reading, columns)


def read_pair(folder: Path, pair: Pair, name: str, options: Mapping[str, Any]) -> Dataset:
    """A dataset of a train and a test table, both read with ``options`` and the same columns, under one numbering.

    Test pairs that train has leave test. Raises L2QError for what cannot be read.
    """
    chosen = {option: options[option] for option in READING}
    chosen |= {option: value for option, value in pair.options.items() if chosen[option] is None}
    train = read_events(pair.train, **chosen)
    assert train.reading is not None
    columns = train.reading.columns
    # the columns of train, whatever those of test look like
    test = read_events(
        pair.test, **chosen | {role: columns.get(role, "none") for role in ("user", "item", "time", "value")}
    )
    assert test.reading is not None
    names = [Path(part).name for part in (pair.train, pair.test)]
    together = _together([train, test])
    known = np.isin(together[1].keys, together[0].keys, assume_unique=True)
    dropped = {
        f"{reason}, in {file}": count
        for file, part in zip(names, (train.reading, test.reading), strict=True)
        for reason, count in part.dropped.items()
    }
    if known.any():
        dropped["test pairs that are in train too"] = int(known.sum())
    notes = [*train.reading.notes]
    told = {_without_figures(note) for note in notes}
    notes += [f"{names[1]}: {note}" for note in test.reading.notes if _without_figures(note) not in told]
    notes += [
        f"{file} is left out: train and test are read, and a run holds out a validation part of its own"
        for file in pair.unused
    ]
    kept = core(together[0], together[1].select(~known), options["min_events"])
    reading = Reading(
        f"{folder}, {names[0]} and {names[1]}",
        columns,
        train.reading.unread,
        train.reading.rows + test.reading.rows,
        dropped,
        train.reading.merged + test.reading.merged,
        tuple(notes),
        described("split of the folder's own", *kept),
    )
    return _dataset(name, kept[0], kept[1], reading, (columns["user"], columns["item"]))


def _dataset(
    name: str, train: Interactions, test: Interactions, reading: Reading, columns: tuple[str, str]
) -> Dataset:
    return Dataset(name, replace(train, reading=reading), replace(test, reading=reading), columns)


def _together(parts: Sequence[Interactions]) -> list[Interactions]:
    """The parts under one numbering, by the sorted names of all."""
    sides = []
    for side in ("user_names", "item_names"):
        names = sorted(set().union(*(getattr(part, side).tolist() for part in parts)))
        sides.append((name_array(names), {name: number for number, name in enumerate(names)}))
    (users, user_numbers), (items, item_numbers) = sides
    found = []
    for part in parts:
        rows = np.array([user_numbers[name] for name in part.user_names.tolist()], np.int64)[part.users]  # type: ignore[union-attr]
        columns = np.array([item_numbers[name] for name in part.item_names.tolist()], np.int64)[part.items]  # type: ignore[union-attr]
        order = np.lexsort((columns, rows))
        pairs = Interactions.from_pairs(rows, columns, len(users), len(items), users, items)
        times, values, counts = (
            None if beside is None else beside[order] for beside in (part.times, part.values, part.counts)
        )
        found.append(replace(pairs, times=times, values=values, counts=counts))
    return found


def _without_figures(note: str) -> str:
    return re.sub(r"\d[\d.,]*", "", note)


def _nothing_to_test(events: Interactions, options: Mapping[str, Any]) -> str:
    assert events.reading is not None
    user, item = events.reading.columns["user"], events.reading.columns["item"]
    line = f"{events.reading.source}: no user, column {user!r}, has two items, column {item!r}, to test with"
    if options["user"] is not None and options["item"] is not None:
        return f"{line}; dataset.test_fraction=0 takes all for train"
    return f"{line}; are these the columns? name them: dataset.user=COLUMN dataset.item=COLUMN"
