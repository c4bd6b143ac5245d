"""Measures against the options that a sweep varied."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from l2q.learning.configuration import flat
from l2q.report.measures import Measure
from l2q.report.rows import Block, Run, settings_of, words_of
from l2q.report.runs import config_of, folder_of
from l2q.report.statistics import spread
from l2q.report.tables import Column, Table

DEFAULT = "(default)"
NO_OPTIONS = {"dataset", "experiment", "model", "protocol", "recipe", "seed", "test"}  # no single option
LINES = 8


@dataclass(frozen=True)
class Swept:
    """``lines``: for everything else that the commands say, the runs of each value of ``option``."""

    option: str
    part: str
    lines: Mapping[str, Mapping[str, list[Run]]]

    @cached_property
    def values(self) -> list[str]:
        """From small to large; words behind numbers, in their order."""
        return sorted({value for line in self.lines.values() for value in line}, key=_place)

    @property
    def numeric(self) -> bool:
        return all(_number(value) is not None for value in self.values)

    def found(self, line: str, value: str, measure: Measure) -> list[float]:
        """The measure of every seed."""
        values = (measure.of_run(run, self.part) for run in self.lines[line].get(value, ()))
        return [value for value in values if value is not None]


def swept(block: Block) -> list[Swept]:
    """The options of a block that its commands give two values or more, beside the model and the seed.

    What a command leaves out is taken from the run's configuration, or is called ``(default)`` where none was kept.
    """
    said = [dict(word.lstrip("+~").partition("=")[::2] for word in words_of(run)) for run in block.runs]
    given: dict[str, set[str]] = {}
    for words in said:
        for key, value in words.items():
            given.setdefault(key, set()).add(_canonical(value))
    found = []
    for option, values in sorted(given.items()):
        if len(values) < 2 or option in NO_OPTIONS:
            continue
        lines: dict[tuple[str, frozenset[str]], dict[str, list[Run]]] = {}
        for run, words in zip(block.runs, said, strict=True):
            value = _canonical(words[option]) if option in words else _configured(run, option)
            rest = frozenset(
                word for word in settings_of(run) if word.lstrip("+~").partition("=")[0] != option
            )
            lines.setdefault((run["model"], rest), {}).setdefault(value, []).append(run)
        lines = {key: line for key, line in lines.items() if len(line) > 1}
        if lines:
            found.append(Swept(option, block.part, _named(lines)))
    return found


def sweep_table(block: Block, each: Swept) -> Table:
    """A row for each value, a column for each of the first lines: mean +- standard deviation over seeds."""
    measure, lines = block.measures[0], list(each.lines)[:LINES]
    columns = [Column(f"`{each.option}`", right=False)]
    columns += [Column(line, weight=max(8 - number, 2)) for number, line in enumerate(lines)]
    rows = []
    for value in each.values:
        cells = [each.found(line, value, measure) for line in lines]
        rows.append([f"`{value}`", *(spread(cell, measure) if cell else "" for cell in cells)])
    more = len(each.lines) - len(lines)
    note = f"{more} more combinations of the other options are not shown." if more else ""
    return Table(f"{block.title}: {measure.label} against `{each.option}`", columns, rows, note)


def _named(lines: dict[tuple[str, frozenset[str]], Any]) -> dict[str, Any]:
    """By the model, and what not all of the lines' commands say."""
    common = frozenset.intersection(*(rest for _, rest in lines))
    return {
        " ".join(f"`{word.rpartition('.')[2]}`" for word in (model, *sorted(rest - common))): line
        for (model, rest), line in sorted(lines.items(), key=lambda line: (line[0][0], sorted(line[0][1])))
    }


def _configured(run: Run, option: str) -> str:
    values = flat(config_of(folder_of(run)))
    return _canonical(json.dumps(values[option]).strip('"')) if option in values else DEFAULT


def _canonical(value: str) -> str:
    """Numbers in one writing: 1e-3 is 0.001."""
    number = _number(value)
    return value if number is None else f"{number:.12g}"


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _place(value: str) -> tuple[bool, float, str]:
    number = _number(value)
    return number is None, number or 0.0, value
