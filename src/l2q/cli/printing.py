"""Answers on stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from l2q.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

    from l2q.retrieval.named import Ranking


def print_table(table: Table) -> None:
    """With the text of cells as it is: names are no markup ("Alien [uncut]", ":smile:")."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def print_json(answer: dict[str, Any], indent: int | None = None) -> None:
    """One object, in the letters that names have, but for those that a terminal obeys."""
    said = json.dumps(answer, indent=indent, ensure_ascii=False)
    print("".join(letter if printable(letter) == letter else f"\\u{ord(letter):04x}" for letter in said))


def print_ranking(ranking: Ranking, title: str, asked: dict[str, Any], as_json: bool) -> None:
    """A table below ``title``, or ``asked`` and the ranking as JSON."""
    from rich.table import Table

    ranked = [(name, float(score)) for name, score in zip(ranking.items, ranking.scores, strict=True)]
    if as_json:
        print_json({**asked, "ranking": [{"item": name, "score": score} for name, score in ranked]})
        return
    table = Table("rank", "item", "score", title=printable(title))
    for rank, (name, score) in enumerate(ranked, 1):
        table.add_row(str(rank), printable(name), f"{score:,.0f}" if abs(score) >= 1000 else f"{score:.4g}")
    print_table(table)
