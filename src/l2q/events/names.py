"""Names of users and items as people mean them: one column's codes and the texts behind them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from l2q import processes
from l2q.events.profiles import MISSING
from l2q.events.shares import distinct
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
    sorted; where several processes read a table, those of this one's rows, in any order. ``spelled``: for every code,
    how a missing name is spelled, None where the name is there."""

    of: np.ndarray
    found: np.ndarray | pa.Array
    spelled: dict[int, str]
    notes: list[str]


def names(role: str, values: pa.Array, present: np.ndarray, header: int | None = None) -> Names:
    """The names behind the distinct ``values`` of a column.

    Spaces around a name, no-break ones too, do not count, nor quotes around every one; line breaks within are spaces.
    Whole numbers written as
    ``17.0``, or as ``1.7e4`` among numbers alone, are ``17`` and ``17000``. Letter case and leading zeros count.
    ``present``: which values have rows, the others are in no count. ``header``: the code of a header line that is
    repeated within; it is no name. What is done to all names, and counted, is that of the values of all processes.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    floats = pa.types.is_floating(values.type) or pa.types.is_decimal(values.type)
    texts = values if pa.types.is_string(values.type) else values.cast(pa.string())
    texts = pc.fill_null(texts, "")
    # Where nearly all names are plain there is nothing to mend: most tables.
    odd = pc.match_substring_regex(texts, rf"^{SPACES}|{SPACES}$|[\r\n]|\.|^[+-]?[0-9.]+[eE]")
    trimmed = pc.replace_substring_regex(texts, rf"^{SPACES}|{SPACES}$", "") if anywhere(odd) else texts
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

    def note(before: pa.Array, after: pa.Array, merged: str, changed: str) -> None:
        different = pc.and_(pc.not_equal(before, after), counted)
        if not anywhere(different):
            return
        count = distinct(texts.filter(different))
        first, last = distinct(before.filter(counted)), distinct(after.filter(counted))
        shown = None
        if len(places := np.flatnonzero(different.to_numpy(zero_copy_only=False))):
            shown = " is ".join(repr(side[int(places[0])].as_py()[:40]) for side in (before, after))
        example = next(filter(None, processes.everyone(shown)))
        if last < first:
            notes.append(f"{first:,} {role} names become {last:,} {merged} ({example})")
        else:
            notes.append(f"{count:,} {role} names {changed} ({example})")

    note(texts, trimmed, "without the spaces around them", "lose the spaces around them")
    whole = _lines(trimmed) if anywhere(pc.match_substring_regex(trimmed, r"[\r\n]")) else trimmed
    note(trimmed, whole, "with spaces for line breaks", "hold line breaks, which become spaces")
    bare = _unquoted(whole, counted)
    note(whole, bare, "without the quotes around them", "lose the quotes around them")
    whole = bare
    plain = _whole_numbers(whole, counted, floats) if anywhere(odd) else whole
    if not floats or distinct(plain.filter(counted)) < distinct(whole.filter(counted)):
        note(
            whole, plain, "with whole numbers written as such", "are whole numbers, written without the point"
        )
    if pa.types.is_floating(values.type):
        exact = 2.0 ** (24 if values.type.bit_width < 64 else 53)
        if anywhere(pc.greater_equal(pc.abs(values.filter(counted)), exact)):
            notes.append(
                f"the {role}s are floats, which leave out numbers from {exact:,.0f} on: ids may have run together; "
                "write them as whole numbers or texts"
            )
    cut = pc.match_substring_regex(whole, r"^[0-9]\.[0-9]{2,8}[eE]\+[0-9]{2}$")
    if not floats and anywhere(cut.filter(counted)):
        notes.append(f"some {role} names look like numbers cut short by a spreadsheet, such as 1.23E+12")
    _similar(role, plain.filter(counted), texts.filter(counted), notes)
    final = pc.if_else(missing, pc.if_else(pc.equal(plain, ""), KEPT, plain), plain)
    encoded = final.dictionary_encode()
    if processes.are_together():
        return Names(encoded.indices.to_numpy(), encoded.dictionary, spelled, notes)
    found = name_array(encoded.dictionary.to_pylist())
    order = np.argsort(found)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return Names(rank[encoded.indices.to_numpy()], found[order], spelled, notes)


def anywhere(truths: pa.Array) -> bool:
    """Whether one of them is true in a process."""
    import pyarrow.compute as pc

    return processes.anywhere(pc.any(truths).as_py())


def everywhere(truths: pa.Array) -> bool:
    """Whether there are some, and all are true in all processes."""
    import pyarrow.compute as pc

    return processes.everywhere(pc.all(truths, min_count=0).as_py()) and processes.anywhere(len(truths))


def _lines(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.replace_substring_regex(texts, r"[ \t]*[\r\n]+[ \t]*", " ")


def _unquoted(texts: pa.Array, counted: pa.Array) -> pa.Array:
    """``name`` for ``'name'``, ``="name"``, ``b'name'`` and the like, where every name is written so."""
    import pyarrow.compute as pc

    real = texts.filter(counted)
    first = not len(real) or re.match(_QUOTED, real[0].as_py())  # enough to tell of most tables
    if not processes.everywhere(first) or not everywhere(pc.match_substring_regex(real, _QUOTED)):
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
    all_numbers = everywhere(numbers.filter(counted))
    others = anywhere(pc.and_not(pc.and_not(points, zeros), powers).filter(counted))
    if floats or not others:
        texts = pc.if_else(zeros, pc.replace_substring_regex(texts, r"\.0*$", ""), texts)
    if all_numbers and anywhere(powers.filter(counted)):
        mended = texts.to_pylist()
        for place in np.flatnonzero(powers.to_numpy(zero_copy_only=False)):
            number = float(mended[place])
            if number % 1 == 0 and abs(number) < (1e22 if floats else 2**53):
                mended[place] = str(int(number))
        texts = pa.array(mended, pa.string())
    return texts


def _similar(role: str, texts: pa.Array, written: pa.Array, notes: list[str]) -> None:
    """Notes where letter case, spaces within or the like alone tell many names apart, which is left as it is.
    ``written``: the same names as the table has them."""
    import pyarrow.compute as pc

    count = distinct(texts)
    ways = [("letter case", lambda: pc.utf8_lower(texts))]
    if anywhere(pc.match_substring_regex(texts, r"^0\d")):
        ways.append(("leading zeros", lambda: pc.replace_substring_regex(texts, r"^0+(\d)", r"\1")))
    if anywhere(pc.match_substring_regex(texts, r"\s\s")):
        ways.append(("the spaces within", lambda: pc.replace_substring_regex(texts, r"\s+", " ")))
    if anywhere(pc.match_substring_regex(texts, r"[^\x00-\x7F]")):
        ways.append(("Unicode form", lambda: pc.utf8_normalize(texts, "NFC")))
    for what, way in ways:
        fewer = distinct(way())
        if count - fewer > MUCH * count:
            notes.append(
                f"{count - fewer:,} of {count:,} {role} names differ from another by {what} alone; they are kept apart"
            )
    if anywhere(broken := pc.match_substring(texts, "\ufffd")):
        lost = distinct(written.filter(broken))
        notes.append(f"{lost:,} {role} names hold '\ufffd': letters were lost before this file was written")
