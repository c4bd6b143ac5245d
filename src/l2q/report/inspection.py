"""What an inspection found, as tables for a terminal and as one page with drawings."""

from __future__ import annotations

import html
import math
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from l2q import settings
from l2q.data.inspection import Degrees, Inspection
from l2q.files import amount
from l2q.learning.expected import MODELS, expected
from l2q.progress import span
from l2q.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Console

    from l2q.report.figures import Drawing

LEVELS = "▁▂▃▄▅▆▇█"
WIDE = 24
"""Characters of the longest bar."""
LINE = 60
"""And of a row of them."""
SHOWN = 18
"""Letters of an example."""


def lead(found: Inspection) -> list[str]:
    """The lines of the reading; of a refused table what is known without it."""
    if found.reading is not None:
        return [line for line in found.reading.lines() if not line.startswith("note: ")]
    lines = [f"{found.source}: {found.rows:,} rows, {len(found.columns)} columns"]
    return lines + ([f"figures below take {found.taken}"] if found.taken else [])


def tables(found: Inspection, drawn: bool = False) -> list[Table]:
    """All that is known, a table each; ``drawn``: with bars of characters, as a terminal has them."""
    made = [
        _columns(found),
        _sizes(found),
        _degrees(found),
        _times(found, drawn),
        _splits(found),
        _cores(found),
        _values(found, drawn),
        _expected(found),
        _notes(found),
        _suggestions(found),
    ]
    return [table for table in made if table is not None]


def _columns(found: Inspection) -> Table | None:
    if not found.columns:
        return None
    about = "" if all(column.exact for column in found.columns) else "about "
    rows = [
        [
            f"`{column.name}`",
            f"**{column.role}s**" if column.role else "",
            column.holds,
            f"{about}{column.distinct:,}",
            f"{column.missing:,}" if column.missing else "",
            ", ".join(_short(text) for text in column.examples),
        ]
        for column in found.columns
    ]
    heads = [Column("column", right=False), Column("taken for", right=False), Column("holds", right=False)]
    heads += [Column("distinct"), Column("missing"), Column("such as", right=False)]
    return Table("Columns", heads, rows)


def _short(text: str) -> str:
    shown = text.replace("`", "'").replace("*", "∗")  # no marks of a table
    shown = " ".join(shown.split())
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"


def _sizes(found: Inspection) -> Table | None:
    if found.users is None or found.items is None:
        return None
    rows = [
        ["users", f"{found.users.count:,}"],
        ["items", f"{found.items.count:,}"],
        ["pairs of a user and an item", f"{found.pairs:,}"],
        ["density", _percent(found.density)],
    ]
    if found.most:
        share = found.repeated / found.pairs
        often = f"{found.repeated:,} ({_percent(share)}), at most {found.most:,} events of one"
        rows.append(["pairs with several events", often if found.repeated else "none"])
    return Table("Pairs", [Column("", right=False), Column("", right=False)], rows)


def _degrees(found: Inspection) -> Table | None:
    if found.users is None or found.items is None:
        return None
    heads = [Column("", right=False)]
    heads += [Column(label) for label in ("least", "10 %", "25 %", "median", "75 %", "90 %", "99 %", "most")]
    sides = {"pairs of a user": found.users, "pairs of an item": found.items}
    rows = [[name, *(f"{value:,.0f}" for value in side.quantiles)] for name, side in sides.items()]
    said = [_tail("user", found.users), _tail("item", found.items)]
    return Table("Users and items", heads, rows, " ".join(said))


def _tail(what: str, side: Degrees) -> str:
    half = f"{side.half:,} {what}{'s have' if side.half > 1 else ' has'} half of all"
    return (
        f"The most active 1 % of {what}s have {_percent(side.top)} of the pairs"
        if what == "user"
        else f"The most popular 1 % of {what}s have {_percent(side.top)} of the pairs"
    ) + f", {half}; {side.ones:,} {what}s ({_percent(side.ones / side.count)}) have one alone."


def _times(found: Inspection, drawn: bool) -> Table | None:
    times = found.times
    if times is None:
        return None
    most = max(range(len(times.counts)), key=lambda place: times.counts[place])
    rows = [["first, last", f"{times.first}, {times.last}"]]
    if len(times.counts) > 1:
        rows.append([f"most in a {times.step}", f"{times.counts[most]:,}, {times.labels[most]}"])
        if drawn:
            rows.append([f"pairs per {_per(times.step, len(times.counts))}", _sparkline(times.counts)])
    if times.unknown:
        rows.append(["pairs without a time", f"{times.unknown:,}"])
    rows.append(["the latest tenth begins", times.late])
    rows.append(
        [
            "new in it",
            f"{_percent(times.new_items)} of its items, which make {_percent(times.new_item_pairs)} of its pairs; "
            f"{_percent(times.new_users)} of its users",
        ]
    )
    return Table("Time", [Column("", right=False), Column("", right=False)], rows)


def _per(step: str, count: int) -> str:
    each = -(-count // LINE)
    return step if each == 1 else f"{each} {step}s"


def _sparkline(counts: Sequence[int]) -> str:
    """A character for each count, or for several in a row, at most ``LINE``."""
    each = -(-len(counts) // LINE)
    sums = [sum(counts[start : start + each]) for start in range(0, len(counts), each)]
    most = max(sums)
    return "".join(
        " " if not count else LEVELS[min(int(count / most * len(LEVELS)), len(LEVELS) - 1)] for count in sums
    )


def _splits(found: Inspection) -> Table | None:
    if not found.splits:
        return None
    heads = [Column("split", right=False), Column("train"), Column("test"), Column("test users")]
    heads += [Column("new users"), Column("new items"), Column("of test lost")]
    rows, said = [], []
    for each in found.splits:
        if not each.train:
            said.append(f"{each.name}: {each.line}.")
            continue
        lost = _percent(each.cold_pairs / each.test) if each.test else ""
        counts = (each.train, each.test, each.test_users, each.cold_users, each.cold_items)
        rows.append([f"`{each.name}`", *(f"{count:,}" for count in counts), lost])
    said.append(
        "New users and items are in test alone; lost are test pairs with one of them, which nothing can learn."
    )
    return Table("What a split leaves", heads, rows, " ".join(said))


def _cores(found: Inspection) -> Table | None:
    if not found.cores:
        return None
    rows = [
        [
            f"`{each.min_events}`",
            f"{each.users:,}",
            f"{each.items:,}",
            f"{each.pairs:,}",
            _percent(each.pairs / found.pairs),
        ]
        for each in found.cores
    ]
    heads = [
        Column("min_events", right=False),
        Column("users"),
        Column("items"),
        Column("pairs"),
        Column("of all"),
    ]
    return Table("What is left without rare users and items", heads, rows)


def _values(found: Inspection, drawn: bool) -> Table | None:
    values = found.values
    if values is None:
        return None
    most, total = max(values.counts), sum(values.counts)
    heads = [Column(f"`{values.name}`", right=False), Column("events"), Column("share")]
    rows = [
        [_short(label) or "(empty)", f"{count:,}", _percent(count / total)]
        for label, count in zip(values.labels, values.counts, strict=True)
    ]
    if drawn:
        heads.append(Column("", right=False))
        for row, count in zip(rows, values.counts, strict=True):
            row.append("█" * round(WIDE * count / most) or ("▏" if count else ""))
    return Table("Values", heads, rows, bars=(1,))


def _expected(found: Inspection) -> Table | None:
    if found.users is None or found.items is None:
        return None
    rows, said = [], []
    weights = (found.times is not None) + (found.values is not None)
    for model in MODELS:
        seconds, memory, how = expected(model, found.users.count + found.items.count, found.pairs, weights)
        epochs = int(settings.compose(model=model.split()[0])["epochs"])
        what = f"{epochs} epochs take at most about" if epochs else "a fit takes about"
        seconds *= max(epochs, 1)
        time = span(seconds) if seconds >= 1.5 else "a second"
        room = f", and {amount(memory * 2**20)} of memory" if memory else ""
        rows.append([f"`{model}`", f"{what} {time}{room}"])
        said.append(f"{model} on {how}")
    note = f"Estimated from measurements of the default settings: {'; '.join(said)}."
    return Table("Expected", [Column("", right=False), Column("", right=False)], rows, note)


def _notes(found: Inspection) -> Table | None:
    if not found.notes:
        return None
    rows = [[f"{number}", note] for number, note in enumerate(found.notes, 1)]
    return Table("What looks odd or was mended", [Column("", right=False), Column("", right=False)], rows)


def _suggestions(found: Inspection) -> Table | None:
    if not found.suggestions:
        return None
    rows = [[f"`dataset.{each.option}={_hydra(each.value)}`", each.why] for each in found.suggestions]
    return Table("Options to think of", [Column("", right=False), Column("", right=False)], rows)


def command(found: Inspection) -> str:
    """The command that trains on the table, with the options that were given; of a refused one with those that settle
    it, where they are known. Nothing where nobody can tell."""
    if found.ready and found.source in settings.choices("dataset"):
        return f"python train.py model=l2q_plus dataset={found.source}"
    settles = {each.option: each.value for each in found.suggestions} if found.refusal else {}
    if (found.refusal and not settles) or not (found.columns or found.ready):
        return ""
    given = {"dir": found.source} | dict(found.options) | settles
    words = [shlex.quote(f"dataset.{option}={_hydra(value)}") for option, value in given.items()]
    return " ".join(["python train.py model=l2q_plus dataset=table", *words])


def _hydra(value: Any) -> str:
    """A value as Hydra's command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9_./-]*[A-Za-z0-9_./]", value):
        return str(value)
    return '"' + re.sub(r'(\\*)"', r"\1\1\"", value) + '"'


def _percent(share: float) -> str:
    """12.3 %, 0.53 %, 0.002 %."""
    percent = 100 * share
    if percent >= 1 or not percent:
        return f"{percent:.0f} %" if percent in (0, 100) else f"{min(percent, 99.9):.1f} %"
    digits = min(max(1 - math.floor(math.log10(percent)), 2), 6)
    return f"{float(f'{percent:.1g}') if percent < 0.1 else percent:.{digits}f}".rstrip("0") + " %"


def show(found: Inspection, console: Console) -> None:
    """On a terminal, with the refusal at the end, where it is read."""
    from rich.text import Text

    from l2q.report import formats

    for line in lead(found):
        console.print(Text(line), soft_wrap=False)
    console.print()
    for table in tables(found, drawn=True):
        formats.show(table, console)
    words = command(found)
    if found.refusal:
        said = Text("Refused as it is: ", style="bold red").append(found.refusal, style="not bold default")
        console.print(said)
    if words:
        console.print(Text(f"Try: {words}" if found.refusal else words, style="bold"), soft_wrap=True)


def drawings(found: Inspection) -> list[Drawing]:
    """Pairs over time, how they are shared out, and values."""
    from l2q.report.figures import INK, SERIES, Drawing, css, new_axes, to_svg

    made = []
    if found.times is not None and len(found.times.counts) > 1:
        figure, axes = new_axes()
        places = range(len(found.times.counts))
        axes.bar(places, found.times.counts, color=SERIES[0], width=0.9)
        every = -(-len(places) // 5)
        axes.set_xticks(list(places)[::every], found.times.labels[::every])
        axes.yaxis.set_major_formatter("{x:,.0f}")
        made.append(Drawing(f"pairs per {found.times.step}", to_svg(figure, axes), []))
    if found.users is not None and found.items is not None:
        sides = {"users": found.users, "items": found.items}
        figure, axes = new_axes()
        for number, side in enumerate(sides.values()):
            axes.plot(range(0, 101, 5), [100 * share for share in side.shares], color=SERIES[number])
        axes.plot([0, 100], [0, 100], color=INK, linestyle=":", linewidth=1)
        axes.set_xlabel("% of users or items, those with most pairs first")
        legend = [(name, css(SERIES[number]), "solid") for number, name in enumerate(sides)]
        made.append(
            Drawing(
                "% of pairs that they have",
                to_svg(figure, axes),
                [*legend, ("all alike", css(INK), "dotted")],
            )
        )
        figure, axes = new_axes()
        for number, side in enumerate(sides.values()):
            places = range(len(side.counts))
            axes.bar(
                [place + 0.4 * number - 0.2 for place in places], side.counts, color=SERIES[number], width=0.4
            )
        most = max(len(side.counts) for side in sides.values())
        axes.set_xticks(range(most), [f"{2**place:,}" for place in range(most)])
        if most > 8:
            axes.set_xticks(range(0, most, 2), [f"{2**place:,}" for place in range(0, most, 2)])
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel("pairs, from this many to the next")
        made.append(Drawing("users and items by their pairs", to_svg(figure, axes), legend))
    if found.values is not None:
        values = found.values
        figure, axes = new_axes(height=0.55 + 0.24 * len(values.counts))
        places = range(len(values.counts))
        axes.barh(places, values.counts, color=SERIES[2], height=0.8)
        axes.set_yticks(places, [_short(label) for label in values.labels])
        axes.set_ylim(len(values.counts) - 0.5, -0.5)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("events")
        made.append(Drawing(f"`{values.name}`", to_svg(figure, axes), []))
    return made


def page(found: Inspection) -> str:
    """One page of HTML that needs no other file and no network."""
    import l2q
    from l2q.report.page import drawings_html, table_html, text_html, whole

    lines = "".join(f"<p>{html.escape(line)}</p>" for line in lead(found))
    parts = [f"<h1>{html.escape(found.source)}</h1>", lines]
    if found.refusal:
        parts.append(f'<div class="best"><h3>Refused as it is</h3><p>{html.escape(found.refusal)}</p></div>')
    if words := command(found):
        parts.append(f'<p class="source"><code>{html.escape(words)}</code></p>')
    parts.append(drawings_html(drawings(found)))
    for table in tables(found):
        headed = any(column.label for column in table.columns)
        if headed:
            parts.append(f"<h2>{text_html(table.title)}</h2>{table_html(table, titled=False)}")
            continue
        rows = "".join(f"<dt>{text_html(name)}</dt><dd>{text_html(value)}</dd>" for name, value in table.rows)
        note = f'<p class="note">{text_html(table.note)}</p>' if table.note else ""
        parts.append(f'<h2>{text_html(table.title)}</h2><div class="best"><dl>{rows}</dl></div>{note}')
    parts.append(f"<footer><p>Made by l2q {html.escape(l2q.__version__)}.</p></footer>")
    return whole(f"{found.source} · l2q inspect", "\n".join(filter(None, parts)))
