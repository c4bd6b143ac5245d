"""Which columns of a table are users, items, times and values, and why; a refusal where that is in doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from l2q.errors import L2QError
from l2q.events.baskets import unfold
from l2q.events.positions import by_position, is_kind, wide
from l2q.events.profiles import Profile, listed, profiles
from l2q.events.table import Table
from l2q.events.vocabulary import ROLES, Meaning, meaning

CLOSE = 0.4  # strengths of names that differ by this or less are equally good


@dataclass
class Roles:
    """The columns of a table by what they are. ``named``: the roles that the caller named. ``kinds``: further columns
    that look like kinds of event or grades, which are not read. ``notes``: why, where it is not plain."""

    user: Profile
    item: Profile
    time: Profile | None = None
    value: Profile | None = None
    named: frozenset[str] = frozenset()
    profiles: list[Profile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def chosen(self) -> dict[str, Profile]:
        found = {"user": self.user, "item": self.item, "time": self.time, "value": self.value}
        return {role: profile for role, profile in found.items() if profile is not None}

    @property
    def unread(self) -> tuple[str, ...]:
        read = {profile.name for profile in self.chosen().values()}
        return tuple(profile.name for profile in self.profiles if profile.name not in read)


def recognize(
    table: Table,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    time: str | int | None = None,
    value: str | int | None = None,
) -> Roles:
    """The columns of ``table``: those that are named, by name or by number from 1, then those that the source
    declares, then those that names and values tell. "none" for ``time`` or ``value``: there is none to read.

    Raises L2QError, with the columns that it may be and a value of each, where users and items cannot be told, and
    where values contradict the name, such as items that are times.
    """
    looks = profiles(table)
    if unfold(table, looks, None if item is None else _called(table, looks, item)):
        looks = profiles(table)
    if not any(profile.values for profile in looks):
        raise L2QError(f"{table.where} has no interactions: it has no rows")
    asked = {"user": user, "item": item, "time": time, "value": value}
    given = {role: _named(table, looks, role, name) for role, name in asked.items() if name is not None}
    named = frozenset(given)
    for profile in looks:
        role = profile.column.role
        if role in ROLES and role not in given and profile not in given.values():
            given[role] = profile
    one = given.get("user")
    if one is not None and one is given.get("item"):
        raise L2QError(f"{table.where}: users and items are in one column, {one.name!r}; name two")
    notes: list[str] = []
    _possible(table, given, notes)
    free = [profile for profile in looks if not any(profile is taken for taken in given.values())]
    if len(looks) < 2:
        raise L2QError(
            f"{table.where} has one column, {looks[0].name!r}: users and items are two; if another character "
            "stands between columns, name it with delimiter="
        )
    header = table.header and not _numbered([profile.name for profile in looks])
    if header or {"user", "item"} <= given.keys():
        found = _by_name(table, free, given, notes)
    else:
        found = by_position(table, free, given, notes)
    _further(free, given, found, notes, header)
    for role in ("time", "value"):
        if role in given and given[role] is None and (unread := found.pop(role, None)):
            notes.append(f"{unread.name!r} is not read ({role}=none)")
    graded = given.get("value")
    if graded is not None and (graded.nested or (len(graded.kinds) > 50 and not graded.numeric)):
        raise L2QError(
            f"{table.where}: value= names the column {graded.name!r}, which has neither numbers nor kinds of event "
            f"({graded.example[:40]!r})"
        )
    chosen = {**found, **{role: profile for role, profile in given.items() if profile is not None}}
    return Roles(**chosen, named=named, profiles=looks, notes=notes)


def _numbered(names: list[str]) -> bool:
    """Whether the names of columns only count them: 0, 1, 2 of pandas, _c0 of Spark, column_1 of Polars, V1 of R."""
    found = [re.fullmatch(r"(_c|c|col_?|column_?|v|x|f|field_?)?(\d+)", name.lower()) for name in names]
    numbers = [int(one[2]) for one in found if one]
    return (
        len(numbers) == len(names)
        and numbers[0] < 2
        and numbers == [numbers[0] + n for n in range(len(names))]
    )


def _named(table: Table, looks: list[Profile], role: str, name: str | int) -> Profile | None:
    """The column that an option names; None for "none"."""
    text = str(name).strip()
    exact = [profile for profile in looks if profile.name == str(name)]
    if not exact:
        exact = [profile for profile in looks if profile.name.strip().casefold() == text.casefold()]
    if len(exact) == 1:
        return exact[0]
    if text.lower() == "none" and role in ("time", "value"):
        return None
    if not exact and text.isdigit() and 1 <= int(text) <= len(looks):
        return looks[int(text) - 1]
    has = ", ".join(repr(profile.name) for profile in looks)
    raise L2QError(
        f"{table.where} has {'no' if not exact else 'several'} column {text!r} for {role}=; it has {has}"
    )


def _called(table: Table, looks: list[Profile], item: str | int) -> str:
    found = _named(table, looks, "item", item)
    return found.name if found else ""


def _possible(table: Table, given: dict[str, Profile | None], notes: list[str]) -> None:
    """Refuses users and items that can be none, even where they are named; numbers that might be times are a doubt
    that the caller's word settles, where the column's name does not say otherwise."""
    for role in ("user", "item"):
        profile = given.get(role)
        if profile is None or not (why := _contradiction(profile)):
            continue
        if profile.moments and meaning(profile.name).roles.get(role, 0) >= 2:
            notes.append(f"{profile.name!r} is taken for the {role}s, though its numbers look like times")
            continue
        if profile.measured and profile.decimals < 3:  # versions, sizes
            notes.append(f"{profile.name!r} is taken for the {role}s, though its numbers have fractions")
            continue
        raise L2QError(
            f"{table.where}: {role}= names the column {profile.name!r}, which has {why}; name one with {role}s"
        )


def _contradiction(profile: Profile) -> str | None:
    """What the values are that can be no users or items."""
    if profile.nested or profile.lists:
        return f"lists or records ({profile.example[:40]!r}); a row is one event of one user and one item"
    if profile.dates or profile.moments:
        return f"dates or times ({profile.example!r})"
    if profile.measured:
        example = next(text for text in profile.texts if float(text.replace(",", "")) % 1)
        return f"numbers with fractions ({example!r})"
    return None


def _by_name(
    table: Table, free: list[Profile], given: dict[str, Profile | None], notes: list[str]
) -> dict[str, Profile]:
    """Users and items by the names of columns; where names say nothing, by their values."""
    meanings = {profile.name: meaning(profile.name) for profile in free}
    ranked: dict[str, list[tuple[float, Profile]]] = {}
    for role in ("user", "item"):
        if role in given:
            continue
        scored = []
        for profile in free:
            strength = meanings[profile.name].roles.get(role, 0.0)
            if not strength and profile.role == role and _unknown(profile, meanings[profile.name]):
                strength = 1.8
            if strength > 0 and not (profile.column.index and profile.counted_up and strength < 2):
                scored.append((strength, profile))
        scored = [pair for pair in scored if not pair[1].constant] or scored
        # Of two that say the same, the one that comes again: customer_unique_id, not the customer_id of an order.
        ranked[role] = sorted(scored, key=lambda pair: (-pair[0], pair[1].each_its_own))
    found = _best_pair(ranked)
    for role, profile in found.items():
        strength = next(score for score, other in ranked[role] if other is profile)
        partner = found.get("item" if role == "user" else "user")
        _not_contradicted(table, role, profile, strength)
        rivals = [
            other
            for score, other in ranked[role]
            if other is not profile
            and other is not partner
            and strength - score <= CLOSE
            and not _same(meanings[profile.name], meanings[other.name])
            and not _contradiction(other)
            and not other.constant
        ]
        if rivals:
            if why := wide(free):
                raise L2QError(f"{table.where}: {why}")
            raise L2QError(
                f"{table.where}: {listed([profile, *rivals])} may each be the {role}s; name the column with "
                f"{role}=COLUMN"
            )
        if not meanings[profile.name].roles.get(role):
            notes.append(f"{profile.name!r} is taken for the {role}s by its values ({profile.example!r})")
        elif strength < 2:
            notes.append(f"{profile.name!r} is taken for the {role}s, for want of a better column")
    missing = [role for role in ("user", "item") if role not in found and role not in given]
    if missing:
        left = [
            profile
            for profile in free
            if _unknown(profile, meanings[profile.name])
            and profile.id_like
            and not profile.counted_up
            and not any(profile is other for other in found.values())
        ]
        if len(left) != len(missing):
            raise L2QError(_which(table, missing, left, free))
        item = found.get("item") or given.get("item")
        if missing == ["user"] and "item" not in given and item and _stands_before(table, item, left[0]):
            # Which package needs which: the first may be the one that chooses.
            raise L2QError(
                f"{table.where}: is {item.name!r} ({item.example[:30]!r}) the item, and {left[0].name!r} "
                f"({left[0].example[:30]!r}) the user, or the other way round? name them with user=COLUMN and "
                "item=COLUMN"
            )
        found |= dict(zip(missing, left, strict=True))
        if len(missing) == 2:
            notes.append(
                f"no name or value says which column is which: {left[0].name!r} is taken for the users and "
                f"{left[1].name!r} for the items, in their order; user= and item= say otherwise"
            )
        else:
            notes.append(
                f"{left[0].name!r} is taken for the {missing[0]}s, since no other column may be them"
            )
    return found


def _stands_before(table: Table, one: Profile, other: Profile) -> bool:
    order = [column.name for column in table.columns]
    return order.index(one.name) < order.index(other.name)


def _best_pair(ranked: dict[str, list[tuple[float, Profile]]]) -> dict[str, Profile]:
    """The best column of each side; of a column that may be both, the side that makes the better pair."""
    if set(ranked) != {"user", "item"} or not all(ranked.values()):
        return {role: scored[0][1] for role, scored in ranked.items() if scored}
    pairs = [
        (first + second, user, item)
        for first, user in ranked["user"]
        for second, item in ranked["item"]
        if user is not item
    ]
    if not pairs:
        role = max(ranked, key=lambda role: ranked[role][0][0])
        return {role: ranked[role][0][1]}
    _, user, item = max(pairs, key=lambda pair: pair[0])
    return {"user": user, "item": item}


def _not_contradicted(table: Table, role: str, profile: Profile, strength: float) -> None:
    other = "item" if role == "user" else "user"
    why = _contradiction(profile)
    if why is None and profile.said == other:
        why = f"values that say {other} ({profile.example!r})"
    if why is None and role == "user" and profile.counted_up and len(profile.texts) >= 20:
        why = f"a number of its own in every row ({', '.join(profile.texts[:3])}, ...)"
    if why:
        raise L2QError(
            f"{table.where}: by its name the column {profile.name!r} holds the {role}s, but it has {why}; name the "
            f"columns with user=COLUMN and item=COLUMN"
        )


def _same(one: Meaning, other: Meaning) -> bool:
    """Whether two names mean one thing, such as artist_id and artist_name."""

    def bare(core: Iterable[str]) -> set[str]:
        return {word for word in core if word not in ("name", "title")}

    return bare(one.core) == bare(other.core)


def _unknown(profile: Profile, said: Meaning) -> bool:
    return (
        not said.never and not profile.column.index and all(strength < 1 for strength in said.roles.values())
    )


def _which(table: Table, missing: list[str], left: list[Profile], free: list[Profile]) -> str:
    if why := wide(free):
        return f"{table.where}: {why}"
    what = " and the ".join(f"{role}s" for role in missing)
    option = " and ".join(f"{role}=COLUMN" for role in missing)
    them = "it" if len(missing) == 1 else "them"
    lists = [profile for profile in free if profile.nested or profile.lists]
    if left:
        may = f"{listed(left)} may be" if len(left) > len(missing) else f"{listed(left)} alone may be"
    else:
        may = f"none of {listed(free)} looks like" if free else "no column is left for"
    why = (
        f" ({lists[0].name!r} holds lists or records; a row is one event of one user and one item)"
        if lists
        else ""
    )
    return f"{table.where}: cannot tell which column holds the {what}: {may} {them}{why}; name {them} with {option}"


def _further(
    free: list[Profile],
    given: dict[str, Profile | None],
    found: dict[str, Profile],
    notes: list[str],
    header: bool,
) -> None:
    """Adds time and value, where they are not given, to what is found."""
    left = [profile for profile in free if not any(profile is taken for taken in found.values())]
    if not header and "time" in found | given and "value" in found | given:
        return
    if given.get("time") is None and "time" not in found:
        months = any(meaning(one.name).core[-1:] in (("month",), ("year",)) for one in left)
        scored = [
            (score, profile)
            for profile in left
            if (score := _time(profile)) and not (months and score < 1 and max(profile.numbers) <= 31)
        ]
        if scored:
            found["time"] = max(scored, key=lambda pair: pair[0])[1]
            left.remove(found["time"])
        elif header and (unread := [one for one in left if meaning(one.name).roles.get("time", 0) >= 2.4]):
            notes.append(f"{unread[0].name!r} has no times that can be read ({unread[0].example!r})")
    if given.get("value") is None and "value" not in found and header:
        scored = [(score, profile) for profile in left if (score := _value(profile))]
        if scored:
            found["value"] = max(scored, key=lambda pair: pair[0])[1]


def _time(profile: Profile) -> float:
    said = meaning(profile.name)
    strength = said.roles.get("time", 0.0)
    if profile.dates or profile.moments:
        return strength or (0.5 if not said.roles and not said.never else 0.0)
    if not profile.numeric:
        # moments, but for some words such as "soon"
        rest = Profile(profile.column, [text for text in profile.texts if re.fullmatch(r"\d+(\.\d+)?", text)])
        return strength if 2 * len(rest.values) > len(profile.texts) and rest.moments else 0.0
    # Numbers alone: hours of a day or months are no order in time.
    return strength - 1.5 if strength >= 2.3 and not profile.constant else 0.0


def _value(profile: Profile) -> float:
    said = meaning(profile.name)
    strength = said.roles.get("value", 0.0)
    if profile.nested or profile.dates or profile.moments or profile.prose or not profile.texts:
        return 0.0
    if not profile.numeric and (
        not profile.few or any(sign in text for text in profile.kinds for sign in "$€£¥")
    ):
        return 0.0
    return strength or (1.0 if not said.roles and not said.never and is_kind(profile) else 0.0)
