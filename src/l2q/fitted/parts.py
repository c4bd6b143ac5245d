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
from l2q.fitted.descent import Side, State
from l2q.fitted.filter import SpectralFilter
from l2q.fitted.teacher import CosineEmbeddings, Teacher

T = TypeVar("T")


class Parts(Protocol):
    """Where parts are kept by name (``l2q.learning.fit_files``)."""

    def get(self, name: str) -> Any:
        """The part as it was kept; None where it is not there."""

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        """Keeps what ``make`` gives in the place of what had this name. One that is not ``needed`` may be left out
        where keeping it takes too much of the time."""


class Nowhere:
    """Nothing is kept."""

    def get(self, name: str) -> Any:
        return None

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        pass


NOWHERE = Nowhere()


class OfAll:
    """The parts that the first of several processes has: what it finds, all go on with."""

    def __init__(self, own: Parts) -> None:
        self.own = own

    def get(self, name: str) -> Any:
        return processes.said(lambda: self.own.get(name))

    def put(self, name: str, make: Callable[[], Any], needed: bool = True) -> None:
        self.own.put(name, make, needed)


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


def of_lists(lists: sparse.csr_array) -> tuple[np.ndarray, ...]:
    return lists.data, lists.indices, lists.indptr


def lists_of(part: tuple[np.ndarray, ...], shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array(part, shape=shape)


def of_state(state: State) -> dict[str, Any]:
    """With codes as packed bits."""
    sides = [(np.packbits(side.codes > 0, axis=1), side.scales) for side in (state.users, state.items)]
    return {
        "step": state.step,
        "bits": state.items.codes.shape[1],
        "sides": sides,
        "lists": of_lists(state.lists),
    }


def state_of(part: Mapping[str, Any]) -> State:
    users, items = (
        Side(np.unpackbits(bits, axis=1, count=part["bits"]).view(np.int8) * np.int8(2) - np.int8(1), scales)
        for bits, scales in part["sides"]
    )
    shape = len(users.codes), len(items.codes)
    return State(part["step"], users, items, lists_of(part["lists"], shape))
