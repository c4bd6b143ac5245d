"""Whether events are likes: what the values of events say of it, and what to ask where they say no."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from l2q import processes
from l2q.events.table import plain_name, quoted
from l2q.events.vocabulary import plain, words

NO = words("values", "no")
"""Kinds of event that say no, or that nothing was chosen."""

COUNTS = words("columns", "count")

CODES = words("columns", "code")
"""Words of columns whose whole numbers stand for kinds of event."""

SHELL = frozenset('"$`\\!')
"""Signs that a shell does not leave alone between double quotes."""

_SAID = (
    "true t yes y ja oui si sí sim da да tak evet 是 はい",
    "false f no n nein non não nu нет nie hayır 否 いいえ",
)
YES = {word: number for number, said in zip((1, 0), _SAID, strict=True) for word in said.split()}
"""Truth values as numbers."""


def is_no(kind: str) -> bool:
    if set(kind) & set("👎💔😡✗✘❌"):
        return True
    parts = re.findall(r"[^\W_]+", plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind)))
    if not parts:
        return False
    return "_".join(parts) in NO or parts[0] in NO or (parts[-1] in NO and parts[-1] != "down")


def truth(kinds: Iterable[str]) -> bool:
    """Whether texts are truth values, such as True and False."""
    known = {kind.lower() for kind in kinds}
    return bool(known) and known <= YES.keys()


def of_numbers(
    column: str, core: Iterable[str], values: np.ndarray, yes: str | None = None
) -> tuple[str | None, str | None]:
    """A doubt that refuses and a note, of the numbers of events; NaN where there is none. ``yes``: how 1 is spelled
    where the column has truth values."""
    known = values[~np.isnan(values)]
    total = processes.total(len(known))
    if not total:
        return None, f"{column!r} has no numbers; it is not used"
    name = plain_name(column)
    low = min(processes.everyone(float(known.min(initial=np.inf))))
    high = max(processes.everyone(float(known.max(initial=-np.inf))))
    whole = processes.everywhere(np.array_equal(known, np.floor(known)))
    if whole and 1 < high < 20 and low >= 0 and set(core) & CODES:
        codes, times = np.unique(known, return_counts=True)
        coded: dict[float, int] = {}
        for each in processes.everyone(list(zip(codes.tolist(), times.tolist(), strict=True))):
            coded |= {code: coded.get(code, 0) + count for code, count in each}
        return of_kinds(column, {f"{code:g}": coded[code] for code in sorted(coded)}, str)
    below = processes.total((known < 0).sum())
    if below:
        what = f"{below:,} of {total:,} events have {column!r} below 0 (down to {low:g}): dislikes or returns"
        return (
            f"{what} would count as likes; {_ways(f'{name} > 0')}",
            None,
        )
    zeros = processes.total((known == 0).sum())
    counts = bool(set(core) & COUNTS)
    if zeros and ((high <= 1 and whole) or counts):
        what = f"{zeros:,} of {total:,} events have {column!r} 0"
        like = f"{name} > 0" if counts else f"{name} = {quoted(yes) if yes else 1}"
        return f"{what} and would count as likes; {_ways(like)}", None
    if low == high:
        return None, None
    cut = _cut(high)
    if counts or cut is None:
        return None, f"{column!r} goes from {low:g} to {high:g}; every event counts as a like, whatever it is"
    less = processes.total((known < cut).sum())
    if not less:
        return None, None
    if less == total:  # on another scale
        return None, f"{column!r} goes from {low:g} to {high:g}; every event counts as a like, whatever it is"
    return None, (
        f"{column!r} goes from {low:g} to {high:g}: {less:,} of {total:,} events have less than {cut:g} and count "
        f"as likes all the same; min_value={cut:g} leaves them out"
    )


def of_kinds(
    column: str, kinds: Mapping[str, int], spell: Callable[[str], str] = quoted
) -> tuple[str | None, str | None]:
    """A doubt that refuses and a note, of the kinds of events and how many there are of each. ``spell``: a kind as SQL
    has it."""
    ordered = sorted(kinds.items(), key=lambda pair: -pair[1])
    total = sum(kinds.values())
    name = plain_name(column)
    no = [kind for kind, _ in ordered if is_no(kind) and (len(kind) > 1 or len(kinds) < 3)]
    if {kind.lower() for kind in kinds} == {"f", "m"}:  # women and men
        no = []
    if no:
        count = sum(kinds[kind] for kind in no)
        yes = [kind for kind, _ in ordered if kind not in no]
        some = ", ".join(map(spell, yes if len(yes) < len(no) else no))
        verb = "IN" if len(yes) < len(no) else "NOT IN"
        advice = f"{name} = {spell(yes[0])}" if len(yes) == 1 else f"{name} {verb} ({some})"
        says = ", ".join(repr(kind) for kind in no[:4])
        ways = (
            f"where={quote(advice)}, or value=none to take all alike" if yes else "value=none takes all alike"
        )
        return (
            f"{count:,} of {total:,} events have {column!r} {says} and would count as likes; say which events are: "
            f"{ways}"
        ), None
    if len(ordered) < 2 or len(ordered) > 50:
        return None, None
    shown = ", ".join(f"{kind} {count:,}" for kind, count in ordered[:5])
    shown += f" and {len(ordered) - 5} more" if len(ordered) > 5 else ""
    plain_kinds = [kind for kind, _ in ordered if not set(kind) & SHELL] or [ordered[-1][0]]
    advice = quote(f"{name} = {spell(plain_kinds[-1])}")
    return None, f"events of every {column!r} count alike ({shown}); where={advice} takes one kind"


def _cut(high: float) -> float | None:
    """The least grade of a like on scales up to 5, 10 and 100; None: the numbers are no grades."""
    for most, least in ((1, 0.5), (2, 2), (3, 3), (5, 4), (10, 7)):
        if high <= most:
            return least
    return 70 if 90 <= high <= 100 else None


def _ways(expression: str) -> str:
    return f"say which events are: where={quote(expression)}, min_value=1, or value=none to take all alike"


def quote(expression: str) -> str:
    """An expression as an option has it, so that a shell and Python both read it as it is meant."""
    return f'"{expression}"' if not set(expression) & SHELL else repr(expression)
