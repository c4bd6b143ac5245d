"""What columns are called: the words for users, items, times and values in the habits and languages of tables."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROLES = ("user", "item", "time", "value")

_LISTS = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Lower case without accents."""
    parts = unicodedata.normalize("NFKD", text).casefold()
    return "".join(part for part in parts if not unicodedata.combining(part))


def words(group: str, name: str) -> frozenset[str]:
    """A list of ``words.toml``, without accents."""
    return frozenset(plain(word) for word in _LISTS[group][name].split())


@dataclass(frozen=True)
class Meaning:
    """What a name says. ``roles``: the strength of every role that it may have. ``core``: its words without those
    that say "id". ``id``: it says so. ``name``: it says that the column holds names or titles. ``never``: the column
    is known to be neither user nor item, such as a price or an invoice."""

    roles: Mapping[str, float]
    core: tuple[str, ...]
    id: bool = False
    name: bool = False
    never: bool = False


def _strengths() -> dict[str, dict[str, float]]:
    """For every word, how strongly it says each role."""
    found: dict[str, dict[str, float]] = {}
    for role in ROLES:
        for strength in _LISTS[role]:
            for word in words(role, strength):
                known = found.setdefault(word, {})
                known[role] = max(float(strength), known.get(role, 0))
    return found


WORDS = _strengths()
_ATTRIBUTES, _DOCUMENTS, _NAMES, _IDS, _KINDS, _DURATIONS = (
    words("columns", name) for name in ("attribute", "document", "name", "id", "kind", "duration")
)
_KNOWN = WORDS.keys() | _ATTRIBUTES | _DOCUMENTS | _NAMES | _IDS


@cache
def meaning(column: str) -> Meaning:
    """What the name of a column says.

    >>> dict(meaning("CustomerID").roles), dict(meaning("book_rating").roles)
    ({'user': 3.0}, {'value': 3.0})
    """
    parts = list(_parts(column))
    core = tuple(part for part in parts if part not in _IDS)
    is_id = len(core) < len(parts)
    if not core:
        return Meaning({}, core, is_id)
    head = next((word for word in reversed(core) if word in WORDS), None)
    roles = dict(WORDS[head]) if head else {}
    named = bool(_NAMES & set(core))
    attribute = bool(_ATTRIBUTES & set(core))
    document = bool(_DOCUMENTS & set(core))
    if head == "type" or head == "kind" or head == "status":
        others = set(core) - {head}
        roles = {"value": 2.6 if others & _KINDS else roles["value"]} if others <= _KINDS | _DOCUMENTS else {}
        return Meaning(roles, core, is_id, named, True)
    if attribute:
        kept = {"time": roles["time"]} if core[-1] == head and "time" in roles and "user" not in roles else {}
        return Meaning(kept, core, is_id, named, True)
    if "time" in roles and set(core) & _DURATIONS:
        roles = {"time": 2.0, "value": 1.5}
    if len(roles) > 1 and len(core) > 1:  # a word with two meanings goes with the word before it
        before = [WORDS[word] for word in core if word != head and word in WORDS]
        if shared := {role for known in before for role in known} & roles.keys():
            roles = {role: max(2.5, roles[role]) for role in shared}
    if is_id and head and not (roles.keys() & {"user", "item"}):
        kept = roles if "time" in roles or not _says_id(parts) else {}
        return Meaning(kept, core, is_id, named, bool(kept) or document)
    if named and not set(core) & _KINDS:
        roles = {role: strength - 1 for role, strength in roles.items() if role in ("user", "item")}
        if not head and core[-1] in ("title", "titel", "titre", "titulo", "titolo"):
            roles = {"item": 0.5}
    if core[-1] not in _KNOWN and not core[-1].isdigit():  # of a product: its weight, its tempo
        roles = {role: strength - 0.5 for role, strength in roles.items()}
    if "item" in roles:
        if document and "user" not in roles:
            roles["item"] -= 2
        if "parent" in core:
            roles["item"] += 0.5 if "asin" in core else -1
    roles = {role: strength for role, strength in roles.items() if strength > 0}
    return Meaning(roles, core, is_id, named, document and not roles)


def role_of_word(word: str) -> str | None:
    """The role that a word alone tells without doubt: "user" for ``customer``, "item" for ``movie``."""
    roles = WORDS.get(plain(word), {})
    sure = [role for role in ("user", "item") if roles.get(role, 0) >= 3]
    return sure[0] if len(sure) == 1 and len(roles) == 1 else None


def _says_id(parts: list[str]) -> bool:
    return bool({"id", "ids", "uuid", "guid", "key", "no", "nr", "number", "hash"} & set(parts))


def _parts(column: str) -> Iterator[str]:
    """The words of ``snake_case``, ``camelCase``, ``written apart`` or ``runtogether``."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", column)
    apart = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", plain(apart).replace("_", " "))
    for word in re.findall(r"\w+", apart):
        yield from _pieces(word)


def _pieces(word: str) -> list[str]:
    """A word that is known, or the known words that make it up, or itself."""
    if word in _KNOWN or (len(word) < 3 and word.isascii()):
        return [word]
    for end in ("s", "es"):
        if word.endswith(end) and word.removesuffix(end) in _KNOWN:
            return [word.removesuffix(end)]
    for cut in range(len(word) - 1, 0, -1):
        first, last = word[:cut], word[cut:]
        long = (cut > 2 or first == "id") and len(last) > 1
        if first in _KNOWN and last in _KNOWN and (long or not word.isascii()):
            return [first, last]
    for cut in range(3, len(word) - 2):  # three words, such as reviewprofilename
        rest = _pieces(word[cut:]) if word[:cut] in _KNOWN else []
        if len(rest) > 1:
            return [word[:cut], *rest]
    return [word]
