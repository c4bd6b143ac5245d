"""Names of users and items as people mean them: one column's codes and the texts behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from l2q.events.profiles import MISSING
from l2q.interactions import name_array

if TYPE_CHECKING:
    import pyarrow as pa

SPACES = r"[\s\pZ\x{FEFF}\x{200B}\x{0}]+"
_QUOTED = r"""^(?:=?"(.*)"|b?'(.*)'|[“„«](.*)[”“»]|‘(.*)’|`(.*)`)$"""
KEPT = "(missing)"  # the name of those without one, where they are kept
MUCH = 0.02  # share of names that another way of comparing must merge to be worth a note


@dataclass
class Names:
    """The names of one side. ``of``: for every code of the column, its place in ``found``. ``found``: the names,
    sorted. ``spelled``: for every code, how a missing name is spelled, None where the name is there."""

    of: np.ndarray
    found: np.ndarray
    spelled: dict[int, str]
    notes: list[str]


def names(role: str, values: pa.Array, present: np.ndarray, header: int | None = None) -> Names:
    """The names behind the distinct ``values`` of a column.

    Spaces around a name, no-break ones too, do not count, nor quotes around every one; line breaks within are spaces.
    Whole numbers written as
    ``17.0``, or as ``1.7e4`` among numbers alone, are ``17`` and ``17000``. Letter case and leading zeros count.
    ``present``: which values have rows, the others are in no count. ``header``: the code of a header line that is
    repeated within; it is no name.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    floats = pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    texts = values if pa.types.is_string(values.type) else values.cast(pa.string())
    texts = pc.fill_null(texts, "")
    # Where nearly all names are plain there is nothing to mend: most tables.
    odd = pc.match_substring_regex(texts, rf"^{SPACES}|{SPACES}$|[\r\n]|\.|^[+-]?[0-9.]+[eE]")
    trimmed = pc.replace_substring_regex(texts, rf"^{SPACES}|{SPACES}$", "") if pc.any(odd).as_py() else texts
    missing = pc.is_in(trimmed, pa.array(sorted(MISSING)))
    spelled = {
        int(code): trimmed[int(code)].as_py()
        or ("empty" if values[int(code)].is_valid or pa.types.is_string(values.type) else "null")
        for code in np.flatnonzero(missing.to_numpy(zero_copy_only=False))
    }
    real = present.copy()
    real[list(spelled)] = False
    if header is not None:
        real[header] = False
    counted = pa.array(real)
    notes: list[str] = []

    def distinct(some: pa.Array) -> int:
        return len(pc.unique(some.filter(counted)))

    def note(before: pa.Array, after: pa.Array, merged: str, changed: str) -> None:
        different = pc.not_equal(before, after).filter(counted)
        count = int(pc.sum(different).as_py() or 0)
        if not count:
            return
        first, last = distinct(before), distinct(after)
        place = int(
            np.flatnonzero(pc.and_(pc.not_equal(before, after), counted).to_numpy(zero_copy_only=False))[0]
        )
        example = f"{before[place].as_py()[:40]!r} is {after[place].as_py()[:40]!r}"
        if last < first:
            notes.append(f"{first:,} {role} names become {last:,} {merged} ({example})")
        else:
            notes.append(f"{count:,} {role} names {changed} ({example})")

    note(texts, trimmed, "without the spaces around them", "lose the spaces around them")
    whole = _lines(trimmed) if pc.any(pc.match_substring_regex(trimmed, r"[\r\n]")).as_py() else trimmed
    note(trimmed, whole, "with spaces for line breaks", "hold line breaks, which become spaces")
    bare = _unquoted(whole, counted)
    note(whole, bare, "without the quotes around them", "lose the quotes around them")
    whole = bare
    plain = _whole_numbers(whole, counted, floats) if pc.any(odd).as_py() else whole
    if not floats or distinct(plain) < distinct(whole):
        note(
            whole, plain, "with whole numbers written as such", "are whole numbers, written without the point"
        )
    if pa.types.is_floating(values.type):
        exact = 2.0 ** (24 if values.type.bit_width < 64 else 53)
        if (pc.max(pc.abs(values.filter(counted))).as_py() or 0) >= exact:
            notes.append(
                f"the {role}s are floats, which leave out numbers from {exact:,.0f} on: ids may have run together; "
                "write them as whole numbers or texts"
            )
    cut = pc.match_substring_regex(whole, r"^[0-9]\.[0-9]{2,8}[eE]\+[0-9]{2}$")
    if not floats and pc.any(cut.filter(counted)).as_py():
        notes.append(f"some {role} names look like numbers cut short by a spreadsheet, such as 1.23E+12")
    _similar(role, plain.filter(counted), notes)
    final = pc.if_else(missing, pc.if_else(pc.equal(plain, ""), KEPT, plain), plain)
    encoded = final.dictionary_encode()
    found = name_array(encoded.dictionary.to_pylist())
    order = np.argsort(found)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Names(rank[encoded.indices.to_numpy()], found[order], spelled, notes)


def _lines(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.replace_substring_regex(texts, r"[ \t]*[\r\n]+[ \t]*", " ")


def _unquoted(texts: pa.Array, counted: pa.Array) -> pa.Array:
    """``name`` for ``'name'``, ``="name"``, ``b'name'`` and the like, where every name is written so."""
    import pyarrow.compute as pc

    real = texts.filter(counted)
    if not len(real) or not re.match(_QUOTED, real[0].as_py()):
        return texts
    if not pc.all(pc.match_substring_regex(real, _QUOTED)).as_py():
        return texts
    return pc.if_else(counted, pc.replace_substring_regex(texts, _QUOTED, r"\1\2\3\4\5"), texts)


def _whole_numbers(texts: pa.Array, counted: pa.Array, floats: bool) -> pa.Array:
    """``17.0`` as ``17``, unless other names have points too, as versions do; ``1.7e4`` where all are numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    zeros = pc.match_substring_regex(texts, r"^[+-]?[0-9]+\.0*$")
    points = pc.match_substring_regex(texts, r"\.")
    # programs write 1.7E4 or 1e+20; 12e4 is a code
    powers = pc.match_substring_regex(texts, r"^[+-]?[0-9]+(\.[0-9]*[eE][+-]?|[eE][+-])[0-9]+$")
    numbers = pc.match_substring_regex(texts, r"^[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$")
    all_numbers = pc.all(numbers.filter(counted)).as_py()
    others = pc.any(pc.and_not(pc.and_not(points, zeros), powers).filter(counted)).as_py()
    if floats or not others:
        texts = pc.if_else(zeros, pc.replace_substring_regex(texts, r"\.0*$", ""), texts)
    if all_numbers and pc.any(powers.filter(counted)).as_py():
        mended = texts.to_pylist()
        for place in np.flatnonzero(powers.to_numpy(zero_copy_only=False)):
            number = float(mended[place])
            if number % 1 == 0 and abs(number) < (1e22 if floats else 2**53):
                mended[place] = str(int(number))
        texts = pa.array(mended, pa.string())
    return texts


def _similar(role: str, texts: pa.Array, notes: list[str]) -> None:
    """Notes where letter case, spaces within or the like alone tell many names apart, which is left as it is."""
    import pyarrow.compute as pc

    count = len(pc.unique(texts))
    ways = [("letter case", lambda: pc.utf8_lower(texts))]
    if pc.any(pc.match_substring_regex(texts, r"^0\d")).as_py():
        ways.append(("leading zeros", lambda: pc.replace_substring_regex(texts, r"^0+(\d)", r"\1")))
    if pc.any(pc.match_substring_regex(texts, r"\s\s")).as_py():
        ways.append(("the spaces within", lambda: pc.replace_substring_regex(texts, r"\s+", " ")))
    if pc.any(pc.match_substring_regex(texts, r"[^\x00-\x7F]")).as_py():
        ways.append(("Unicode form", lambda: pc.utf8_normalize(texts, "NFC")))
    for what, way in ways:
        fewer = len(pc.unique(way()))
        if count - fewer > MUCH * count:
            notes.append(
                f"{count - fewer:,} of {count:,} {role} names differ from another by {what} alone; they are kept apart"
            )
    if lost := pc.sum(pc.match_substring(texts, "\ufffd")).as_py():
        notes.append(f"{lost:,} {role} names hold '\ufffd': letters were lost before this file was written")
