"""Columns without names: the layouts that tables without a header have."""

from __future__ import annotations

from l2q.errors import L2QError
from l2q.events.profiles import Profile, determines, listed
from l2q.events.table import Table
from l2q.events.vocabulary import words

EVENTS = words("values", "event") | words("values", "no")
"""Words for kinds of event."""


def by_position(
    table: Table, free: list[Profile], given: dict[str, Profile | None], notes: list[str]
) -> dict[str, Profile]:
    """The columns of a table without a header. Left of them are first users, then items, unless their values say
    otherwise; of the others one may be the time and one the value.

    Known layouts: user item [value] [time] in any order of the last two (MovieLens, Amazon); user time place-on-earth
    item (Gowalla, Brightkite); time user event item (Retailrocket); user item category event time (Taobao); user item
    name plays, and user time artist name track name (Last.fm): of several columns that may be items, the one that
    tells the others.
    """
    if why := wide(free):
        raise L2QError(f"{table.where} has no names of columns, and {why}")
    left = [profile for profile in free if not profile.counted_up or len(free) <= 2]
    found: dict[str, Profile] = {}
    times = [profile for profile in left if profile.dates or profile.moments]
    if times and "time" not in given:
        found["time"] = times[0]
    kinds = [profile for profile in left if is_kind(profile)]
    ids = [profile for profile in left if profile.id_like and not any(profile is kind for kind in kinds)]
    sides = [role for role in ("user", "item") if role not in given]
    if len(ids) < len(sides):
        few = [profile for profile in left if profile.constant and profile.texts and not profile.nested]
        ids = sorted([*ids, *few], key=free.index)[: len(sides)] if len(ids) + len(few) == len(sides) else ids
    if len(ids) < len(sides):
        if lists := [profile for profile in left if profile.nested or profile.lists]:
            raise L2QError(
                f"{table.where}: {listed(lists)} are lists; a row must be one event of one user and one item, or a "
                "user and one list of items"
            )
        raise L2QError(
            f"{table.where} has no names of columns, and {listed(free)} leave none for the {sides[-1]}s; name them "
            "by number: user=1 and item=2"
        )
    said = {profile.role: profile for profile in reversed(ids) if profile.role in sides}
    chosen = dict(said)
    rest = [profile for profile in ids if not any(profile is taken for taken in chosen.values())]
    for role in sides:
        if role not in chosen and rest:
            chosen[role] = rest.pop(0)
    if "item" in sides and "item" not in said:
        chosen["item"], rest = _finest(chosen["item"], rest)
    item = chosen.get("item") or given["item"]
    assert item is not None
    repeated = len(item.kinds) < 0.5 * len(item.texts)
    names = [one for one in rest if determines(item, one) and (repeated or not _is_value(one))]
    others = [one for one in rest if not any(one is name for name in names)]
    values = [one for one in others if _is_value(one)] or [one for one in others if _is_count(one)][:1]
    if not values and not any(profile.numeric for profile in chosen.values()):  # beside ids that are texts
        values = [one for one in others if one.numeric]
    unclear = [one for one in others if not any(one is value for value in values)]
    if unclear:
        raise L2QError(
            f"{table.where} has no names of columns, and several may be users and items: {listed(free)}; name "
            "them by number: user=1 and item=2, or put a header above"
        )
    found |= chosen
    measured = [
        profile
        for profile in left
        if profile.numeric and not any(profile is other for other in (*found.values(), *times, *ids))
    ]
    if any(_on_earth(one, measured) for one in measured):  # check-ins, which have no grade
        measured, values = [], []
    numbers = [one for one in (*values, *measured) if not one.constant or one.kinds.keys() != {"0"}]
    value = kinds or numbers
    if (kinds or len(value) == 1) and "value" not in given:
        found["value"] = value[0]
    elif value and "value" not in given:
        notes.append(
            f"{listed(value)} may each be the value of an event; none is read, value=COLUMN names one"
        )
    order = ", ".join(
        f"{role}s {found[role].name}" for role in ("user", "item", "time", "value") if role in found
    )
    notes.append(f"columns have no names and are told by their values: {order}")
    return found


def wide(columns: list[Profile]) -> str:
    """A sentence if the columns are a matrix of users x items, with a column for each item; "" if not."""
    grades = [one for one in columns if one.numeric or not one.texts]
    values = {kind for one in grades for kind in one.kinds}
    shared = sum(len(one.kinds) for one in grades) >= (0.25 if len(values) < 12 else 0.4) * len(grades) * len(
        values
    )
    what = ""
    if len(grades) >= max(8, 0.7 * len(columns)) and len(values) <= 25 and shared:
        what = f"{len(grades)} of its {len(columns)} columns hold the same few numbers"
    elif columns and len(columns) > max(25, rows := len(columns[0].values)):
        what = f"it has {len(columns)} columns and {rows} rows"
    return what and (
        f"{what}, as in a matrix of users x items; a row must be one event: pandas.melt makes it such, or give "
        "scipy.sparse.csr_array of it to l2q.read_events"
    )


def _finest(item: Profile, rest: list[Profile]) -> tuple[Profile, list[Profile]]:
    """Of several columns of texts or large numbers, the first that tells all others: a track tells its artist."""
    every = [item, *(profile for profile in rest if not _is_value(profile))]
    repeated = [profile for profile in every if len(profile.kinds) < 0.9 * len(profile.texts)]
    for profile in every[:1] if len(every) == 1 or not repeated else every:
        if all(determines(profile, other) for other in every):
            return profile, [other for other in [item, *rest] if other is not profile]
    return item, rest


def is_kind(profile: Profile) -> bool:
    """Whether a column holds kinds of event, such as view and buy."""
    if profile.numeric or not profile.few:
        return False
    said = [kind.lower().replace(" ", "_") for kind in profile.kinds]
    known = sum(word in EVENTS or word.split("_")[0] in EVENTS for word in said)
    return bool(said) and known >= 0.5 * len(said)


def _is_value(profile: Profile) -> bool:
    """Numbers or marks that may be a grade or a count, in a column behind users and items."""
    if profile.numeric:
        ordered = sorted(profile.numbers)
        return ordered[int(0.9 * (len(ordered) - 1))] <= 100 or profile.few
    return profile.few


def _is_count(profile: Profile) -> bool:
    """Whole numbers of which most are small beside the greatest, as numbers of plays are and ids are not."""
    ordered = sorted(profile.numbers)
    return profile.numeric and ordered[0] >= 0 and 4 * ordered[len(ordered) // 2] < ordered[-1]


def _on_earth(profile: Profile, measured: list[Profile]) -> bool:
    """Whether a number is one of a latitude and a longitude beside each other."""
    fractions = [
        one
        for one in measured
        if all("." in text for text in one.texts) and all(abs(n) <= 180 for n in one.numbers)
    ]
    return any(profile is one for one in fractions) and any(
        min(one.decimals, other.decimals) >= 3 or max(one.numbers) < 0 or max(other.numbers) < 0
        for one in fractions
        for other in fractions
        if one is not other and abs(measured.index(one) - measured.index(other)) == 1
    )
