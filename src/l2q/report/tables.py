"""What a report says, as tables of text; ``formats`` and ``page`` show them."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l2q.errors import L2QError
from l2q.files import read_sealed
from l2q.report.measures import USUAL, Measure
from l2q.report.rows import FLOAT, Block, Row, Run, blocks, measured, models_of
from l2q.report.runs import HISTORY, METRICS, Unfinished, config_of, folder_of, history
from l2q.report.statistics import Comparison, spread

NAME = 24
"""Letters of a run's name at most where it heads a column."""


@dataclass(frozen=True)
class Column:
    """``right``: its values are numbers. Where all of a table is too wide, columns of the least ``weight`` go first;
    one of weight 9 stays."""

    label: str
    right: bool = True
    weight: int = 9


@dataclass(frozen=True)
class Table:
    """Texts may have names in backticks and ``**strong**`` words. ``best``: (row, column) of cells that stand out.
    ``bars``: columns whose values are shown as lengths too, where that can be. ``note``: a sentence below it."""

    title: str
    columns: list[Column]
    rows: list[list[str]]
    note: str = ""
    best: set[tuple[int, int]] = field(default_factory=set)
    bars: Sequence[int] = ()

    @property
    def filled(self) -> list[int]:
        """The columns in which something stands."""
        columns = enumerate(self.columns)
        return [
            n for n, column in columns if not (column.label and self.rows) or any(row[n] for row in self.rows)
        ]


def overview(runs: Sequence[Run], measures: Sequence[Measure] = USUAL) -> Table | None:
    """One line per dataset: what part of LightGCN's figures on test the best row of every 1-bit model has, with bits
    per item. None where fewer than two datasets have a LightGCN to be compared with."""
    compared = [block for block in blocks(runs, measures) if block.part == "test" and block.lightgcn[0]]
    if len(compared) < 2:
        return None
    codes = [model for model in models_of(runs) if model not in FLOAT]
    codes = [model for model in codes if any(run["model"] == model for run in runs)]
    lines = []
    for block in compared:
        reference, bits = block.lightgcn
        texts = " / ".join(measure.text(value) for measure, value in zip(measures, reference, strict=True))
        cells = [block.dataset, f"{texts}, {bits:,} bits"]
        for model in codes:
            rows = [row for row in block.rows if row.model == model]
            best = max(rows, key=lambda row: row.means, default=None)
            cells.append(f"{best.shares(reference)}, {best.bits:,} bits" if best else "")
        lines.append(cells)
    labels = " / ".join(measure.label for measure in measures)
    # a narrow terminal keeps the models that come last, which are the best
    weights = {model: min(5 + place, 9) for place, model in enumerate(codes)}
    columns = [Column(labels, right=False), Column("`lightgcn`")]
    columns += [Column(f"`{model}`", weight=weight) for model, weight in weights.items()]
    return Table("", columns, lines)


def results(block: Block) -> Table:
    """Mean +- standard deviation over seeds of every measure, what part of the best LightGCN row's that is and of the
    best float row's (by the first measure), bits per item row, training time. A row holds the seeds of one command.

    Figures are those of the exported files on test; of runs that left test unread, those on their validation part.
    ``teacher`` is the float teacher that codes of ``l2q_plus`` were fitted to. Where our LightGCN is missing or below
    97 % of the ``PUBLISHED`` Recall@20, parts are of the published figures.
    """
    lightgcn, lightgcn_bits = block.lightgcn
    title = block.title
    if lightgcn and lightgcn == block.published:
        title += "; of LightGCN as published, {:.4f} / {:.4f} with {:,} bits".format(*lightgcn, lightgcn_bits)
    columns = [Column("model", right=False), Column("bits per item", weight=8)]
    columns += [
        Column(measure.label, weight=9 - number // 2) for number, measure in enumerate(block.measures)
    ]
    columns += [Column("of LightGCN", weight=3), Column("of the best float", weight=2)]
    columns += [Column("seeds", weight=7), Column("epochs", weight=4), Column("fit", weight=5)]
    lines = []
    for row in block.rows:
        epochs = sorted({run["epochs"] for run in row.runs})
        seconds = statistics.mean(run["fit_seconds"] + run.get("start_seconds", 0) for run in row.runs)
        trained = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
        size, took = f"{row.bits:,}", f"{seconds:.0f} s"
        if not row.bits:  # a teacher has no size and no time of its own
            size = trained = took = ""
        shares = (row.shares(reference) if reference else "" for reference in (lightgcn, block.best_float))
        found = (spread(row.values(measure), measure) for measure in block.measures)
        lines.append([row.name, size, *found, *shares, str(len(row.runs)), trained, took])
    bars = range(2, 2 + len(block.measures))
    return Table(title, columns, lines, best=_best(block.rows, block.measures), bars=bars)


def _best(rows: Sequence[Row], measures: Sequence[Measure]) -> set[tuple[int, int]]:
    """The cells of each measure's best row; there is none where there is nothing to be better than."""
    found = set()
    indexes = [row for row in rows if row.model != "teacher"]
    for number, measure in enumerate(measures if len(indexes) > 1 else ()):
        choose = min if measure.less_is_better else max
        best = choose(row.means[number] for row in indexes)
        found |= {(rows.index(row), 2 + number) for row in indexes if row.means[number] == best}
    return found


def significance(block: Block, base: Row, comparisons: Sequence[Comparison]) -> list[Table]:
    """A table for each measure: the difference to the baseline, its interval, effect and corrected p values."""
    found = []
    for measure in block.measures:
        here = [each for each in comparisons if each.measure == measure]
        if not here:
            continue
        columns = [Column("model", right=False), Column("bits per item", weight=4), Column("difference")]
        columns += [
            Column("95 % interval", weight=7),
            Column("d_z", weight=6),
            Column("t-test"),
            Column("Wilcoxon"),
        ]
        columns += [Column("verdict", right=False), Column("seeds", weight=3)]
        lines = [
            [
                each.row.name,
                f"{each.row.bits:,}",
                f"{each.paired.difference:+.4f}",
                f"{each.paired.low:+.4f} to {each.paired.high:+.4f}",
                f"{each.paired.effect:+.2f}",
                p_value(each.t_test),
                p_value(each.wilcoxon),
                each.verdict,
                str(each.seeds[0]),
            ]
            for each in here
        ]
        title = f"{block.title}: {measure.label} against {base.name}, {base.bits:,} bits"
        note = (
            f"Paired over {here[0].paired.users:,} users, each averaged over a row's seeds "
            f"({here[0].seeds[1]} of the baseline). p values are corrected by Holm for {len(comparisons)} comparisons. "
            "Verdict: both tests below 0.05."
        )
        found.append(Table(title, columns, lines, note if measure == comparisons[-1].measure else ""))
    return found


def p_value(value: float) -> str:
    """Two digits; of what is below 0.0001 one.

    >>> p_value(0.5), p_value(0.0312), p_value(3.2e-9), p_value(0.0)
    ('0.50', '0.031', '3e-09', '<1e-300')
    """
    if value >= 0.0995:
        return f"{value:.2f}"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.0e}" if value > 1e-300 else "<1e-300"


def best_job(block: Block) -> Table:
    """The run of a block that validation chooses, with its command; where no run has a validation part, the best on
    test, which is said, since a choice by test is no choice."""
    measure = block.measures[0]
    values = [measure.of_run(run, "val") for run in block.runs]
    trained = [not measured(run) for run in block.runs]  # a checkpoint measured again is none of its own
    kept = trained if any(trained) else [True] * len(trained)
    candidates = [
        (value, run)
        for value, run, keep in zip(values, block.runs, kept, strict=True)
        if keep and value is not None
    ]
    alike = [
        (measure.of_run(run, "test") or 0.0, run) for run, keep in zip(block.runs, kept, strict=True) if keep
    ]
    choose = min if measure.less_is_better else max
    _, best = choose(candidates or alike, key=lambda candidate: candidate[0])
    lines = [["model", f"`{best['model']}`, seed {best['seed']}"]]
    parts = {"val": ", validation", "test": ", test"} if measure.key not in best else {block.part: ""}
    for part, words in parts.items():
        if (value := measure.of_run(best, part)) is not None:
            lines.append([f"{measure.label}{words}", measure.text(value)])
    folder = folder_of(best)
    lines += [["command", f"`{best['command']}`"]] if best.get("command") else []
    lines += [["folder", f"`{folder}`"]] if folder else []
    others = sum(kept) - len(candidates)
    if not candidates:
        how = "No run has a validation part. This is the best on test: settings must not be chosen by it."
    else:
        on = " on validation" if measure.key not in best else ""
        how = f"Chosen by {measure.label}{on} among {len(candidates)} of {sum(kept)} runs"
        how += f"; {others} without a validation part cannot be chosen." if others else "."
    columns = [Column("", right=False), Column("", right=False)]
    return Table(f"Best of {block.title}", columns, lines, how)


def unfinished_table(jobs: Sequence[Unfinished], top: Path | None = None) -> Table:
    """The jobs that are not done: how far they are, and why. ``top``: folders are named from there."""
    columns = [Column("unfinished job", right=False), Column("state", right=False), Column("epoch")]
    columns += [Column("reason", right=False)]
    names, note = short_names([job.folder for job in jobs], top)
    lines = [
        [f"`{name}`", job.state, _epoch(job), job.reason or job.where]
        for name, job in zip(names, jobs, strict=True)
    ]
    return Table("", columns, lines, note)


def pruned_table(jobs: Sequence[Unfinished], measure: Measure, top: Path | None = None) -> Table:
    """The jobs that a search gave up, the best first: how far they came, and the best validation till then."""
    names, note = short_names([job.folder for job in jobs], top)
    choose = min if measure.less_is_better else max
    found: list[tuple[float | None, list[str]]] = []
    for name, job in zip(names, jobs, strict=True):
        key = f"val/{measure.key}"
        best = choose((row[key] for row in history(job.folder / HISTORY) if key in row), default=None)
        found.append((best, [f"`{name}`", _epoch(job), "" if best is None else measure.text(best)]))
    sign = 1 if measure.less_is_better else -1
    found.sort(key=lambda one: (one[0] is None, sign * (one[0] or 0.0)))
    columns = [
        Column("pruned job", right=False),
        Column("epoch"),
        Column(f"best {measure.label}, validation"),
    ]
    said = "Given up by the search at a validation, for being behind the others; no failure."
    return Table("", columns, [line for _, line in found], " ".join(filter(None, [said, note])))


def _epoch(job: Unfinished) -> str:
    return "" if job.epoch is None else f"{job.epoch}" + (f" of {job.epochs}" if job.epochs else "")


JOB = re.compile(r"(\w[\w./-]*=[^,]*(?:,\w[\w./-]*=[^,]*)*)-[0-9a-f]{8}")
"""The folder of a job of a sweep: what is swept, and the start of its identity."""


def short_names(folders: Sequence[Path], top: Path | None = None) -> tuple[list[str], str]:
    """What tells folders apart, and a sentence on what all of them share. Of jobs of one sweep these are the options
    that differ; of others the path from ``top``.

    ``[s/model=l2q,seed=0-5f3a1c2b, s/model=l2q,seed=1-6a3a1c2b]`` are ``seed=0`` and ``seed=1``, and "All: model=l2q."
    """
    inside = [
        folder.relative_to(top)
        if top is not None and folder != top and folder.is_relative_to(top)
        else folder
        for folder in folders
    ]
    found = [JOB.fullmatch(folder.name) for folder in inside]
    if len({folder.parent for folder in inside}) > 1 or not all(found):
        return [str(folder) for folder in inside], ""
    pairs = [dict(word.partition("=")[::2] for word in match[1].split(",")) for match in found if match]
    common = {key: value for key, value in pairs[0].items() if all(each.get(key) == value for each in pairs)}
    if len(pairs) == 1:
        common = {}
    lasts = Counter(key.rpartition(".")[2] for key in {key for each in pairs for key in each})
    names = [
        ",".join(
            f"{key.rpartition('.')[2] if lasts[key.rpartition('.')[2]] == 1 else key}={value}"
            for key, value in each.items()
            if key not in common
        )
        for each in pairs
    ]
    if len(set(names)) < len(names) or not all(names):
        return [str(folder) for folder in inside], ""
    note = f"All: {', '.join(f'`{key}={value}`' for key, value in common.items())}." if common else ""
    return names, note


def difference(first: str | Path, second: str | Path, measures: Sequence[Measure] = USUAL) -> Table:
    """Where the configurations of two runs differ, and what they reached, by their folders.

    Raises L2QError for a folder without a configuration.
    """
    from l2q.learning.configuration import flat

    configs, metrics = [], []
    for place in (first, second):
        path = Path(place)
        folder = path.parent if path.name == METRICS else path
        config = config_of(folder)
        if not config:
            raise L2QError(f"--diff {place}: it holds no config.json; name the folder of a run")
        configs.append(flat(config))
        try:
            found = read_sealed(folder / METRICS)
            metrics.append(found if isinstance(found, dict) else {})
        except FileNotFoundError:
            metrics.append({})
        except (OSError, ValueError) as error:
            raise L2QError(f"--diff {place}: {folder / METRICS} is damaged ({error})") from error
    ours, theirs = configs
    same = "config_hash", "ckpt_path"
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if key not in same]
    absent = object()
    keys = [key for key in keys if ours.get(key, absent) != theirs.get(key, absent)]
    lines = [[f"`{key}`", *(_value(config, key) for config in configs)] for key in sorted(keys)]
    for part, word in (("val", "validation"), ("test", "test")):
        for measure in measures:
            values = [measure.of_run(run, part) for run in metrics]
            if measure.key_in(metrics[0] or metrics[1], part) != measure.key and any(
                v is not None for v in values
            ):
                texts = ["" if value is None else measure.text(value) for value in values]
                lines.append([f"{measure.label}, {word}", *texts])
    number = f"{len(keys)} option{'s differ' if len(keys) != 1 else ' differs'}."
    names = [os.path.basename(os.path.realpath(place)) for place in (first, second)]
    if max(map(len, names)) > NAME or names[0] == names[1]:
        names = ["first", "second"]
        number += f" first: `{first}`, second: `{second}`"
    columns = [Column("option", right=False), *(Column(f"`{name}`", right=False) for name in names)]
    return Table(
        "Difference of two runs", columns, lines, number if keys else "The configurations are the same."
    )


def _value(config: dict[str, Any], key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False).strip('"') if key in config else "(absent)"
