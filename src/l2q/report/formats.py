"""Tables of text as Markdown, LaTeX, and on a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from l2q.report.tables import Column, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

MARKS = re.compile(r"`([^`]*)`|\*\*(.+?)\*\*")


def plain(text: str) -> str:
    """Without the marks of names and strong words."""
    return MARKS.sub(lambda found: found[1] if found[1] is not None else found[2], text)


def markdown(table: Table) -> str:
    """A table as GitHub shows it, its title above."""
    lines = [f"| {' | '.join(column.label for column in table.columns)} |"]
    lines.append("|" + "|".join("---:" if column.right else "---" for column in table.columns) + "|")
    lines += [f"| {' | '.join(row)} |" for row in table.rows]
    return "\n\n".join(filter(None, (table.title, "\n".join(lines), table.note)))


SPECIAL = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\dots{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def latex_text(text: str) -> str:
    """With LaTeX's own signs escaped; names in backticks as ``\\texttt``."""

    def escaped(plain: str) -> str:
        return "".join(SPECIAL.get(sign, sign) for sign in plain)

    parts, end = [], 0
    for found in MARKS.finditer(text):
        parts.append(escaped(text[end : found.start()]))
        kind, inner = ("texttt", found[1]) if found[1] is not None else ("textbf", found[2])
        parts.append(f"\\{kind}{{{escaped(inner)}}}")
        end = found.end()
    return "".join([*parts, escaped(text[end:])])


def latex(tables: Sequence[Table]) -> str:
    """``table`` environments for booktabs, to be ``\\input``; the best of a column is bold."""
    parts = ["% \\usepackage{booktabs} \\usepackage[T1]{fontenc}"]
    for table in tables:
        lines = [" & ".join(latex_text(column.label) for column in table.columns) + r" \\", r"\midrule"]
        for number, row in enumerate(table.rows):
            cells = [latex_text(cell) for cell in row]
            for line, column in table.best:
                if line == number:
                    cells[column] = f"\\textbf{{{cells[column]}}}"
            lines.append(" & ".join(cells) + r" \\")
        kinds = "".join("r" if column.right else "l" for column in table.columns)
        caption = latex_text(" ".join(filter(None, (table.title, table.note))))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    *([f"\\caption{{{caption}}}"] if caption else []),
                    f"\\begin{{tabular}}{{{kinds}}}",
                    r"\toprule",
                    *lines,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts) + "\n"


LEAST = 14
"""Characters that a column of words needs where it is wrapped."""
NAME = 32
"""And the first column, before other columns are left out."""


def show(table: Table, console: Console) -> None:
    """On a terminal: as many columns as its width has room for, and which ones it had not."""
    from rich import box
    from rich.table import Table as Shown
    from rich.text import Text

    kept, sizes, left = _fitting(table, console.width)
    shown = Shown(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False, collapse_padding=True)
    headless = not any(column.label for column in table.columns)
    shown.show_header = not headless
    for number, size in zip(kept, sizes, strict=True):
        column = table.columns[number]
        shown.add_column(
            _styled("\n".join(_head(table, number))),
            justify="right" if column.right else "left",
            no_wrap=column.right,
            overflow="fold",
            width=size,
        )
    for line, row in enumerate(table.rows):
        cells = [_styled(_broken(row[number], size)) for number, size in zip(kept, sizes, strict=True)]
        for place, number in enumerate(kept):
            if (line, number) in table.best:
                cells[place].stylize("bold")
        shown.add_row(*cells)
    if table.title:
        console.print(_styled(table.title))
    console.print(shown)
    notes = [table.note] if table.note else []
    if left:
        notes.append(
            "Not shown for want of width: " + ", ".join(plain(column.label) for column in left) + "."
        )
    if notes:
        console.print(Text(" ".join(notes), style="dim"))
    console.print()


def _broken(text: str, width: int) -> str:
    """With names that are wider than a column broken behind a comma or a slash, where there is one.

    >>> _broken("`runs/model=l2q,seed=0`", 16)
    '`runs/model=l2q,\\nseed=0`'
    """
    lines = []
    for word in text.split(" "):
        parts = re.split(r"(?<=[,/])(?=[^\s`])", word)
        found = parts[:1]
        for part in parts[1:]:
            if len(plain(found[-1] + part).replace("`", "")) > width:
                found.append(part)
            else:
                found[-1] += part
        lines.append("\n".join(found))
    return " ".join(lines)


def _width(table: Table, number: int) -> int:
    texts = [*_head(table, number), *(row[number] for row in table.rows)]
    return max(len(plain(text)) for text in texts)


def _least(table: Table, number: int, words: int) -> int:
    """The width that a column must have; what is no number may be wrapped to ``words``."""
    width = _width(table, number)
    return width if table.columns[number].right else min(width, words)


def _head(table: Table, number: int) -> list[str]:
    """A column's label in as many lines as keep it from being wider than the values below."""
    widest = max((len(plain(row[number])) for row in table.rows), default=LEAST)
    label = table.columns[number].label
    return textwrap.wrap(label, max(widest, 8, *map(len, label.split(" "))), break_long_words=False) or [""]


def _fitting(table: Table, width: int) -> tuple[list[int], list[int], list[Column]]:
    """The columns that a width has room for, the width of each, and the columns that it has no room for. Names
    are wrapped before a column of weight 9 goes."""
    kept = table.filled
    left: list[Column] = []
    for name, most in ((NAME, 8), (LEAST, 9)):
        while True:
            sizes = [_least(table, number, name if number == kept[0] else LEAST) for number in kept]
            least = min(kept[1:], key=lambda number: (table.columns[number].weight, -number), default=None)
            room = width - sum(sizes) - 2 * (len(sizes) - 1)
            if room >= 0:
                for place, number in reversed([*enumerate(kept)]):  # what is left goes to whoever is wrapped
                    more = min(room, _width(table, number) - sizes[place])
                    sizes[place], room = sizes[place] + more, room - more
                return kept, sizes, left
            if least is None or len(kept) == 2 or table.columns[least].weight > most:
                break
            kept.remove(least)
            left.append(table.columns[least])
    return kept, sizes, left


def _styled(text: str) -> Text:
    """Names in cyan, strong words bold; what they say is no markup of Rich."""
    from rich.text import Text

    shown, end = Text(), 0
    for found in MARKS.finditer(text):
        shown.append(text[end : found.start()])
        shown.append(
            found[1] if found[1] is not None else found[2], style="cyan" if found[1] is not None else "bold"
        )
        end = found.end()
    shown.append(text[end:])
    return shown
