"""Parts of a fit that are kept as soon as they are whole, so that a fit that is broken off goes on from the last of
them: the choice of the teacher, what it is made of, its lists, and where the descent stands.

A part is plain: arrays, numbers and words, in tuples, lists and mappings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy import sparse

from l2q import processes
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.state import Side, State
from l2q.fitted.teacher import CosineEmbeddings, Made, Teacher
from l2q.kernels import rows

T = TypeVar("T")


class Parts(Protocol):
    """Where parts are kept by name (``l2q.learning.fit_files``)."""

    def get(self, name: str) -> Any:
        """The part as it was kept; None where it is not there."""

    def wants(self, name: str, needed: bool = True) -> bool:
        """Whether ``put`` keeps it."""

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        """Keeps what ``make`` gives in the place of what had this name. One that is not ``needed`` may be left out
        where keeping it takes too much of the time."""


class Nowhere:
    """Nothing is kept."""

    def get(self, name: str) -> Any:
        return None

    def wants(self, name: str, needed: bool = True) -> bool:
        return False

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        pass


NOWHERE = Nowhere()


class OfAll:
    """The parts that the first of several processes has: what it finds, all go on with."""

    def __init__(self, own: Parts) -> None:
        self.own = own

    def get(self, name: str) -> Any:
        return processes.said(lambda: self.own.get(name))

    def wants(self, name: str, needed: bool = True) -> bool:
        return processes.said(lambda: self.own.wants(name, needed))

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        if self.wants(name, needed):  # all make it, each of its own rows
            part = make()
            self.own.put(name, lambda: part)


def found(parts: Parts, name: str) -> tuple[bool, Any]:
    """Whether a part was kept, and, in the first process alone, the part: its rows are shared out (``own_rows``)."""
    part = (parts.own if isinstance(parts, OfAll) else parts).get(name)
    return processes.said(lambda: part is not None), part


def own_rows(whole: np.ndarray | None) -> np.ndarray:
    """Of an array of the first process."""
    size = processes.said(lambda: len(whole))  # type: ignore[arg-type]
    return rows.scattered(whole, [0, *(run.stop for run in rows.runs(size))])


def once(parts: Parts, name: str, make: Callable[[], T]) -> T:
    """The part that was kept, or what ``make`` gives, which is kept."""
    found = parts.get(name)
    if found is None:
        found = make()
        parts.put(name, lambda: found)
    return found


def of_teacher(teacher: Teacher) -> dict[str, Any]:
    return asdict(teacher)


def teacher_of(part: Mapping[str, Any]) -> Teacher:
    return Teacher(SpectralFilter(**part["filter"]), CosineEmbeddings(**part["embeddings"]))


def of_made(made: Made) -> tuple[Any, ...]:
    (U, s, V), learned = made
    return (rows.gathered(U), s, rows.gathered(V)), learned


def made_of(part: tuple[Any, ...] | None) -> Made:
    (U, s, V), learned = ((None, None, None), None) if part is None else part
    s, learned = processes.said(lambda: (s, learned))
    return (own_rows(U), s, own_rows(V)), learned


def of_lists(lists: sparse.csr_array) -> tuple[np.ndarray, ...]:
    lengths = rows.gathered(np.diff(lists.indptr))
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(lists.indptr.dtype)
    return rows.gathered(lists.data), rows.gathered(lists.indices), indptr


def lists_of(part: tuple[np.ndarray, ...] | None, num_items: int) -> sparse.csr_array:
    data, indices, indptr = (None, None, None) if part is None else part
    lengths = own_rows(None if indptr is None else np.diff(indptr))
    ends = np.cumsum([0, *processes.everyone(int(lengths.sum()))]).tolist()
    data, indices = (rows.scattered(array, ends) for array in (data, indices))
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(lengths.dtype)
    return sparse.csr_array((data, indices, indptr), shape=(len(lengths), num_items))


def of_state(state: State) -> dict[str, Any]:
    """With codes as packed bits."""
    sides = [
        (rows.gathered(np.packbits(side.codes > 0, axis=1)), rows.gathered(side.scales))
        for side in (state.users, state.items)
    ]
    return {
        "step": state.step,
        "bits": state.items.codes.shape[1],
        "sides": sides,
        "lists": of_lists(state.lists),
    }


def state_of(part: Mapping[str, Any] | None) -> State:
    part = part or {"sides": [(None, None)] * 2, "lists": None}
    step, bits, num_items = processes.said(lambda: (part["step"], part["bits"], len(part["sides"][1][1])))
    users, items = (
        Side(
            np.unpackbits(own_rows(packed), axis=1, count=bits).view(np.int8) * np.int8(2) - np.int8(1),
            own_rows(scales),
        )
        for packed, scales in part["sides"]
    )
    return State(step, users, items, lists_of(part["lists"], num_items))
