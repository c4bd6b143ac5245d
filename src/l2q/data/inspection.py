"""What a table of events is like, before anything is trained on it: figures that a report shows.

    inspect("ratings.csv").users.half

Nothing is refused that can be shown: where ``l2q.read_events`` would refuse the table, the figures go as far as they
can, and ``refusal`` says the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from l2q import settings
from l2q.data.columns import ColumnFigures, Histogram, column_figures, histogram
from l2q.data.core import core
from l2q.data.parts import Parts, is_named, is_run, is_split, open_parts
from l2q.data.splits import cold, split
from l2q.data.tables import READING
from l2q.errors import L2QError
from l2q.events.cleaning import clean
from l2q.events.columns import Roles, recognize
from l2q.events.containers import open_table
from l2q.interactions import Interactions, Reading

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
CORES = (2, 5, 10)
SPLITS = ("time", "last", "random")
LATE = 0.1
"""The share of pairs, the latest, that is compared with all before."""
DATES = (1e8, 1e10)
"""Seconds since 1970 from 1973 to 2286."""
BINS = 20
_ADVICE = re.compile(r"\b(?:(min_value|missing)=([\d.]*\d|drop)|(where)=(?:\"([^\"]*)\"|'([^']*)'))")


@dataclass(frozen=True)
class Degrees:
    """How many pairs each user, or each item, has. ``quantiles`` (``QUANTILES``); ``ones``: those with one pair;
    ``few``: with fewer than five; ``top``: the share of pairs of the top 1 %; ``half``: how many have half of all
    pairs, the largest first; ``shares``: the share of pairs of the largest 0, 5, ..., 100 %; ``counts``: how many have
    1, 2 to 3, 4 to 7, ... pairs."""

    count: int
    mean: float
    quantiles: tuple[float, ...]
    ones: int
    few: int
    top: float
    half: int
    shares: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, degrees: np.ndarray) -> Degrees:
        degrees = np.sort(degrees[degrees > 0])[::-1]
        total, summed = degrees.sum(), np.cumsum(degrees)
        places = np.ceil(np.linspace(0, 1, 21) * len(degrees) - 1e-9).astype(int)
        return cls(
            len(degrees),
            float(degrees.mean()),
            tuple(np.quantile(degrees, QUANTILES, method="lower").tolist()),
            int((degrees == 1).sum()),
            int((degrees < 5).sum()),
            float(summed[-(-len(degrees) // 100) - 1] / total),
            int(np.searchsorted(summed, total / 2) + 1),
            tuple((np.concatenate(([0], summed))[places] / total).tolist()),
            tuple(np.bincount(np.log2(degrees).astype(int)).tolist()),
        )


@dataclass(frozen=True)
class Times:
    """When pairs were. ``labels`` and ``counts``: pairs in every ``step`` of time. Of the latest tenth of pairs, from
    ``late`` on: the share of items, and of users, that never came before, and of pairs with such an item. ``unknown``:
    pairs without a time."""

    first: str
    last: str
    step: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    late: str
    new_items: float
    new_users: float
    new_item_pairs: float
    unknown: int


@dataclass(frozen=True)
class SplitFigures:
    """What a split leaves. ``cold_pairs``: test pairs whose user or item train knows nothing of. ``line`` says how it
    was made, or why it cannot be."""

    name: str
    line: str
    train: int = 0
    test: int = 0
    test_users: int = 0
    cold_users: int = 0
    cold_items: int = 0
    cold_pairs: int = 0


@dataclass(frozen=True)
class CoreFigures:
    """What ``min_events`` leaves of users, items and pairs."""

    min_events: int
    users: int
    items: int
    pairs: int


@dataclass(frozen=True)
class Suggestion:
    """An ``option`` of ``dataset=table``, its ``value``, and why it may help."""

    option: str
    value: str
    why: str


@dataclass(frozen=True)
class Inspection:
    """All of it; what is None or empty is not known. ``taken``: what the figures of pairs leave out of account, where
    the table is refused as it is. ``repeated``: pairs with several events, ``most`` of one. ``options``: those of
    ``dataset=table`` that were given; ``suggestions``: others to think of."""

    source: str
    rows: int
    columns: tuple[ColumnFigures, ...] = ()
    reading: Reading | None = None
    notes: tuple[str, ...] = ()
    refusal: str = ""
    taken: str = ""
    values: Histogram | None = None
    pairs: int = 0
    repeated: int = 0
    most: int = 0
    users: Degrees | None = None
    items: Degrees | None = None
    times: Times | None = None
    splits: tuple[SplitFigures, ...] = ()
    cores: tuple[CoreFigures, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    ready: bool = False  # its name or folder is a data set without dataset=table

    @property
    def density(self) -> float:
        """The share of all pairs of a user and an item that are there."""
        return self.pairs / (self.users.count * self.items.count) if self.users and self.items else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"density": self.density}


def inspect(source: str, options: Mapping[str, Any] | None = None) -> Inspection:
    """What ``source`` is like: anything that ``open_parts`` takes. ``options``: those of a table that are given, of
    which ``split`` is none.

    Raises L2QError only for what is no table at all.
    """
    given = {option: value for option, value in (options or {}).items() if value is not None}
    if is_run(source) or is_named(source) or is_split(source, given):
        return _of_parts(source, open_parts(source, given))
    reading = {option: given.get(option) for option in READING}
    with open_table(
        source, **{option: reading.pop(option) for option in ("header", "delimiter", "encoding", "query")}
    ) as table:
        found, events = Inspection(table.where, table.rows, notes=tuple(table.notes)), None
        named = {role: reading.pop(role) for role in ("user", "item", "time", "value")}
        rules = {option: value for option, value in reading.items() if value is not None}
        roles: Roles | None = None
        try:
            roles = recognize(table, **named)
            found = replace(found, notes=(*table.notes, *roles.notes))
            events = clean(table, roles, **rules)
        except L2QError as error:
            found = replace(found, refusal=str(error))
            if roles is not None:
                events, taken = _regardless(table, roles, rules)
                found = replace(found, taken=taken if events is not None else "")
        chosen = {} if roles is None else {role: profile.name for role, profile in roles.chosen().items()}
        found = replace(
            found,
            columns=column_figures(table, chosen),
            values=histogram(table, chosen["value"]) if "value" in chosen else None,
            options=given,
        )
    if events is None:
        return replace(found, suggestions=tuple(_advice(found.source, [found.refusal])))
    if not found.refusal:
        found = replace(found, reading=events.reading, notes=events.reading.notes if events.reading else ())
    return _with_pairs(found, events, given)


def _regardless(table: Any, roles: Roles, rules: Mapping[str, Any]) -> tuple[Interactions | None, str]:
    """The events of a refused table as far as they can be had, and what was left out of account."""
    roles = replace(roles, value=None, named=roles.named | {"value"})
    kept = {option: value for option, value in rules.items() if option in ("where", "dedupe")}
    said = "every event alike, without the rows that lack a user or an item"
    try:
        return clean(table, roles, missing="drop", **kept), said
    except L2QError:
        return None, ""


def _with_pairs(found: Inspection, events: Interactions, given: Mapping[str, Any]) -> Inspection:
    """The figures of pairs, and what follows from them."""
    found = _counted(found, events)
    usual = settings.preset("dataset/table") | dict(given)
    tried = [_try(events, name, usual) for name in SPLITS]
    auto = _try(events, "auto", usual)
    nothing = events.select(np.zeros(len(events), bool))
    cores = [_core(events, nothing, least) for least in CORES]
    suggestions = [*_advice(found.source, [found.refusal, *found.notes])]
    if not found.refusal:
        suggestions += _split_advice(events, auto, usual)
        suggestions += _core_advice(found, cores, usual)
    return replace(found, splits=tuple(tried), cores=tuple(cores), suggestions=tuple(suggestions))


def _of_parts(source: str, parts: Parts) -> Inspection:
    whole = parts.of.get("all") or _union(list(parts.of.values()))
    train, test = parts.of["train"], parts.of.get("test")
    found = Inspection(
        source, parts.reading.rows, reading=parts.reading, notes=parts.reading.notes, ready=not is_run(source)
    )
    found = _counted(found, whole)
    if test is None:
        return found
    figures = _figures("its own", train, replace(test, given=parts.of.get("given")), parts.reading.split)
    return replace(found, splits=(figures,))


def _union(parts: list[Interactions]) -> Interactions:
    users, items = (np.concatenate([getattr(part, side) for part in parts]) for side in ("users", "items"))
    first = parts[0]
    order = np.lexsort((items, users))
    whole = Interactions.from_pairs(
        users, items, first.num_users, first.num_items, first.user_names, first.item_names
    )
    beside: dict[str, Any] = {}
    for name in ("times", "counts"):
        known = [getattr(part, name) for part in parts]
        if all(values is not None for values in known) and len(order) == len(whole):
            beside[name] = np.concatenate(known)[order]
    return replace(whole, **beside)


def _counted(found: Inspection, events: Interactions) -> Inspection:
    counts = events.counts
    return replace(
        found,
        pairs=len(events),
        repeated=0 if counts is None else int((counts > 1).sum()),
        most=0 if counts is None else int(counts.max(initial=0)),
        users=Degrees.of(events.user_degrees),
        items=Degrees.of(events.item_degrees),
        times=None if events.times is None else _times(events, events.times),
    )


def _times(events: Interactions, times: np.ndarray) -> Times | None:
    known = ~np.isnan(times)
    seen = times[known]
    if not len(seen):
        return None
    first, last = float(seen.min()), float(seen.max())
    dated = DATES[0] < np.quantile(seen, 0.01) and last < DATES[1]
    step, labels, counts = _over_time(seen, first, last, bool(dated))
    cut = float(np.quantile(seen, 1 - LATE, method="higher"))
    late, early = known & (times >= cut), known & (times < cut)
    items, users = np.unique(events.items[late]), np.unique(events.users[late])
    new_items = np.setdiff1d(items, events.items[early])
    new_users = np.setdiff1d(users, events.users[early])
    return Times(
        moment(first, dated),
        moment(last, dated),
        step,
        labels,
        counts,
        moment(cut, dated),
        len(new_items) / len(items),
        len(new_users) / len(users),
        float(np.isin(events.items[late], new_items).mean()),
        int((~known).sum()),
    )


def moment(time: float, dated: Any = True) -> str:
    """A date with its time of day, where there is one; a number, where it is no time since 1970."""
    if not dated:
        return f"{time:.15g}"
    stamp = str(np.datetime64(int(time), "s"))
    return stamp[:10] if stamp.endswith("T00:00:00") else stamp[:16].replace("T", " ")


def _over_time(
    seen: np.ndarray, first: float, last: float, dated: bool
) -> tuple[str, tuple[str, ...], tuple[int, ...]]:
    """Pairs in every day, month or year, or in equal steps of what is no date."""
    if not dated:
        counts, edges = np.histogram(seen, bins=min(BINS, len(np.unique(seen))))
        return "step", tuple(f"{edge:.6g}" for edge in edges[:-1]), tuple(counts.tolist())
    days = (last - first) / 86400
    unit, step = ("D", "day") if days <= 62 else ("M", "month") if days <= 366 * 12 else ("Y", "year")
    stamps = seen.astype("datetime64[s]").astype(f"datetime64[{unit}]")
    begin = stamps.min()
    counts = np.bincount((stamps - begin).astype(np.int64))
    return step, tuple(str(begin + place) for place in range(len(counts))), tuple(counts.tolist())


def _try(events: Interactions, how: str, usual: Mapping[str, Any]) -> SplitFigures:
    if how != "random" and events.times is None and how != "auto":
        return SplitFigures(how, "needs the time of every event, and none is known")
    try:
        train, test = split(
            events,
            how,
            fraction=usual["test_fraction"],
            seed=usual["split_seed"],
            min_events=usual["min_events"],
        )
    except L2QError as error:
        return SplitFigures(how, str(error))
    line = train.reading.split if train.reading is not None else ""
    return _figures(how, train, test, line)


def _figures(name: str, train: Interactions, test: Interactions, line: str) -> SplitFigures:
    known = train.user_degrees + (0 if test.given is None else test.given.user_degrees)
    lost = (known[test.users] == 0) | (train.item_degrees[test.items] == 0)
    new = cold(train, test)
    return SplitFigures(
        name,
        line,
        len(train),
        len(test),
        int(np.count_nonzero(test.user_degrees)),
        new["user"],
        new["item"],
        int(lost.sum()),
    )


def _core(events: Interactions, nothing: Interactions, least: int) -> CoreFigures:
    try:
        kept, _, _ = core(events, nothing, least)
    except L2QError:
        return CoreFigures(least, 0, 0, 0)
    return CoreFigures(least, kept.num_users, kept.num_items, len(kept))


def _advice(source: str, lines: Iterable[str]) -> Iterable[Suggestion]:
    """The options that messages name, the first of each, with what they are about."""
    seen: set[str] = set()
    for line in lines:
        for part in line.removeprefix(f"{source}: ").split("; and "):
            found = _ADVICE.search(part)
            if found is None:
                continue
            option, value = (word for word in found.groups() if word is not None)
            if option not in seen:
                seen.add(option)
                why = part[: found.start()].rpartition("; ")[0] or part
                yield Suggestion(option, value, why.partition("; ")[0])


def _split_advice(events: Interactions, auto: SplitFigures, usual: Mapping[str, Any]) -> Iterable[Suggestion]:
    if usual["split"] not in ("auto", None) or not auto.test:
        return
    if "by time" in auto.line.split(";")[0]:
        yield Suggestion("split", "time", "the default here: test is what comes last, as it is in use")
        return
    why = next((part for part in auto.line.split("; ") if part.startswith("not by time")), "")
    yield Suggestion("split", "random", f"the default here, {why or 'since no time is known'}")


def _core_advice(
    found: Inspection, cores: list[CoreFigures], usual: Mapping[str, Any]
) -> Iterable[Suggestion]:
    """A k-core of five, where much of the catalog has fewer and it keeps most pairs."""
    if usual["min_events"] > 1 or not found.items or found.items.few < 0.25 * found.items.count:
        return
    five = next(each for each in cores if each.min_events == 5)
    if five.pairs >= 0.7 * found.pairs:
        yield Suggestion(
            "min_events",
            "5",
            f"{found.items.few:,} of {found.items.count:,} items have fewer than five users, hardly enough to learn "
            f"from; without such users and items {five.pairs / found.pairs:.0%} of the pairs remain",
        )
