"""Codes of both sides while they are fitted: a process has its own rows, and what all need travels as bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from l2q import exchange, processes
from l2q.kernels.packing import pack, unpack
from l2q.representations import Representations, Rows


@dataclass(frozen=True, eq=False)
class Side:
    """Users or items: codes (rows, bits) int8 in {-1, +1} and one scale a row (rows,); A = scales * codes. Of several
    processes each has its own rows."""

    codes: np.ndarray
    scales: np.ndarray


@dataclass(frozen=True, eq=False)
class Packed:
    """A side as all processes have it: its ``packed`` codes (rows, ceil(bits / 8)) uint8, of ``bits``, and scales."""

    packed: np.ndarray
    bits: int
    scales: np.ndarray

    @classmethod
    def of(cls, side: Side) -> Packed:
        bits = side.codes.shape[1]
        return cls(exchange.joined(pack(side.codes, (bits,))), bits, exchange.joined(side.scales))

    def rows(self, some: slice) -> np.ndarray:
        """A of some rows."""
        return unpack(self.packed[some], (self.bits,)) * self.scales[some, None]

    def words(self) -> np.ndarray:
        """The codes as whole words of 16 bits, (rows, words), the first code lowest; filled up with zeros."""
        padded = np.zeros((len(self.packed), -(-self.bits // 16) * 2), np.uint8)
        padded[:, : self.packed.shape[1]] = self.packed
        return padded.view("<u2")


@dataclass(frozen=True, eq=False)
class State:
    """Where a fit stands after ``step`` of its steps: plain arrays, enough to go on from. Of several processes each has
    the own rows of both sides and the lists of its users."""

    step: int
    users: Side
    items: Side
    lists: sparse.csr_array


def to_representations(state: State) -> Representations:
    """What ships: both sides' codes and the items' scales as float16, times a common factor that keeps the
    largest at 1,024, far from overflow and underflow. The users' scales are left out: each is a positive
    factor of its user's whole ranking. Of several processes the first one has all rows, the others none."""
    users, items = (Packed.of(side) for side in (state.users, state.items))
    scales = items.scales * (1024 / max(float(items.scales.max()), 1e-30))
    dims, has = (items.bits,), slice(None if processes.place()[0] == 0 else 0)
    return Representations(
        users=Rows(unpack(users.packed[has], dims)),
        items=Rows(
            unpack(items.packed[has], dims), scales[has].astype(np.float16).astype(np.float32)[:, None]
        ),
        dims=dims,
        weights=np.ones(1, np.float32),
        scale_dtype="float16",
    )
