"""What a report is made of: its runs, the tables in their order, and the files that it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from l2q.errors import L2QError
from l2q.files import check_output, replaced_file
from l2q.report import formats, tables
from l2q.report.measures import USUAL, Measure
from l2q.report.rows import Block, Row, Run, blocks
from l2q.report.runs import PRUNED, Unfinished, read, unfinished
from l2q.report.statistics import Comparison, baseline, compare
from l2q.report.sweeps import Swept, sweep_table, swept
from l2q.report.tables import Table

ENDINGS = {"csv": (".csv",), "latex": (".tex",), "markdown": (".md", ".markdown"), "html": (".html", ".htm")}


@dataclass(frozen=True)
class Finding:
    """What a block of runs shows. ``base``: the row that the others are compared with."""

    block: Block
    base: Row | None
    comparisons: list[Comparison]
    swept: list[Swept]

    @property
    def results(self) -> Table:
        return tables.results(self.block)

    @property
    def best(self) -> list[Table]:
        """Nothing where there is nothing to choose from."""
        return [tables.best_job(self.block)] if len(self.block.runs) > 1 else []

    @property
    def significance(self) -> list[Table]:
        return [] if self.base is None else tables.significance(self.block, self.base, self.comparisons)

    @property
    def sweeps(self) -> list[Table]:
        return [sweep_table(self.block, each) for each in self.swept]


@dataclass(frozen=True)
class Report:
    """Of ``folders``; ``differences`` between two runs stand at its end, where they were asked for."""

    folders: Sequence[Path]
    runs: list[Run]
    unfinished: list[Unfinished]
    measures: Sequence[Measure] = USUAL
    wanted: str | None = None
    differences: Table | None = None

    @cached_property
    def findings(self) -> list[Finding]:
        """By block. Raises L2QError for a baseline that no block has."""
        found = []
        for block in blocks(self.runs, self.measures):
            base = baseline(block, self.wanted)
            compared = [] if base is None else compare(block, base)
            found.append(Finding(block, base, compared, swept(block)))
        if self.wanted and found and all(each.base is None for each in found):
            rows = [row.name.replace("`", "") for each in found for row in each.block.rows]
            raise L2QError(
                f"--baseline {self.wanted} names no row; there are {'; '.join(dict.fromkeys(rows))}"
            )
        return found

    @property
    def top(self) -> Path | None:
        return self.folders[0] if len(self.folders) == 1 else None

    @property
    def overview(self) -> list[Table]:
        found = tables.overview(self.runs, self.measures)
        return [] if found is None else [found]

    @property
    def pruned(self) -> list[Table]:
        """The jobs that a search gave up: an outcome, nothing that is left to do."""
        jobs = [job for job in self.unfinished if job.state == PRUNED]
        return [tables.pruned_table(jobs, self.measures[0], self.top)] if jobs else []

    @property
    def waiting(self) -> list[Table]:
        """The jobs that are not done."""
        jobs = [job for job in self.unfinished if job.state != PRUNED]
        return [tables.unfinished_table(jobs, self.top)] if jobs else []

    @property
    def short(self) -> list[Table]:
        """The results alone, for a page of Markdown."""
        ends = [] if self.differences is None else [self.differences]
        return [*self.overview, *(each.results for each in self.findings), *self.pruned, *self.waiting, *ends]

    @property
    def all(self) -> list[Table]:
        found = self.overview
        for each in self.findings:
            found += [each.results, *each.significance, *each.sweeps, *each.best]
        return [
            *found,
            *self.pruned,
            *self.waiting,
            *([] if self.differences is None else [self.differences]),
        ]

    def write(self, **files: str | None) -> list[str]:
        """Writes the report as ``csv``, ``latex``, ``markdown`` or ``html``, to the files that are given; returns
        their names. Raises L2QError for one that cannot be written."""
        from l2q.report.frame import frame
        from l2q.report.page import page

        makers = {
            "csv": lambda: frame(self.runs, self.unfinished).to_csv(index=False),
            "latex": lambda: formats.latex(self.all),
            "markdown": lambda: "\n\n".join(map(formats.markdown, self.all)) + "\n",
            "html": lambda: page(self),
        }
        written = []
        for kind, file in files.items():
            if file is None:
                continue
            check_output(file, *ENDINGS[kind], option=f"--{kind}")
            text = makers[kind]()
            try:
                with replaced_file(file) as fresh:
                    fresh.write_text(text, "utf-8")
            except OSError as error:
                raise L2QError(f"--{kind} {file} cannot be written: {error.strerror}") from error
            written.append(file)
        return written


def gather(
    folders: Sequence[str | Path],
    measures: Sequence[Measure] = USUAL,
    baseline: str | None = None,
    diff: tuple[str, str] | None = None,
) -> Report:
    """The report of all runs below ``folders``.

        gather(["outputs/sweeps/NAME"], [Measure.of("ndcg@10")], baseline="lightgcn").write(html="report.html")

    Raises L2QError where there are no runs, or none with these measures.
    """
    differences = tables.difference(*diff, measures) if diff else None
    if not folders and not diff:
        raise L2QError("name a folder of runs, such as outputs/results")
    for folder in folders:
        if not Path(folder).is_dir():
            raise L2QError(f"{folder} is no folder; name a folder of runs, such as outputs/results")
    waiting = unfinished(*folders)
    runs = read(*folders, measures=measures, allow_none=bool(waiting)) if folders else []
    return Report([Path(folder) for folder in folders], runs, waiting, tuple(measures), baseline, differences)
