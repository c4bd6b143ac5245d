"""Training shared by columns and edges: every process has its columns of all embeddings, and the edges of some nodes.

The nodes are parted into p ranges of about as many edges each. A product Y = A_hat X of a process's columns needs the
edges of all nodes. They come to it: whoever has a range sends its edges around a ring, a piece at a time, and each
process multiplies its columns with a piece while the next one comes in. A row of Y is summed in one piece, in the order
in which one process sums it, so that a product has the bits of ``parallel=columns``.

What travels are the ids of neighbors, 4 bytes each; the values of A_hat follow from degrees, which all have. With P
pairs, and E entries in the rows of a batch's nodes, a process sends in a step of L layers

    (p - 1) / p (4 (2 (L - 1) 2 P + 2 E) + 4 nodes)      bytes

since the last hop forward and the first one backward need the rows of the batch alone. To send embeddings instead, all
rows for a product with the own edges, would cost 4 d bytes a node and hop, where this costs 8 a pair: more, unless a
node has more than d / 2 pairs on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numba import prange
from torch import Tensor

from l2q import processes
from l2q.data.sampling import TripletSampler
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.kernels import compiling
from l2q.kernels.sparse import even_runs, lines, multiply, use_threads_of_torch
from l2q.learning.datamodule import TripletLoader
from l2q.learning.parallel.columns import Columns
from l2q.learning.parallel.drawing import PartSampler
from l2q.learning.trainer import has_gpu
from l2q.models.graph import Graph, Propagation, edge_values, roots_of

PIECE = 1 << 22  # entries that travel together, about: a process holds two such pieces beside its own edges


@dataclass(frozen=True, eq=False)
class GraphPart(Graph):
    """The graph, of which this process has the edges of some nodes.

    ``indptr`` is that of all nodes, and ``indices`` has the neighbors of the own ones. The pieces of all processes, one
    after the other and as many of each, begin at the nodes ``bounds`` (pieces + 1,).
    """

    bounds: np.ndarray

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> GraphPart:
        """O(edges) work; memory for the own ones."""
        num_users, size = interactions.num_users, processes.size()
        degrees = np.concatenate([interactions.user_degrees, interactions.item_degrees])
        indptr = _places(degrees)
        pieces = size * max(-(-int(indptr[-1]) // (size * PIECE)), 1)
        bounds = even_runs(degrees, row_cost=1, chunks=pieces)
        bounds[0], bounds[-1] = 0, len(degrees)
        first, end = (
            int(bounds[number * pieces // size]) for number in (processes.rank(), processes.rank() + 1)
        )
        start = indptr[first]
        indices = np.empty(indptr[end] - start, np.int32)
        users = interactions.items[start : max(min(indptr[end], indptr[num_users]), start)]
        np.add(users, np.int32(num_users), out=indices[: len(users)])
        items = max(first - num_users, 0), max(end - num_users, 0)
        _users_of(
            interactions.indptr,
            interactions.items,
            items[0],
            indptr[max(first, num_users) : max(end, num_users)] - start,
            indices,
        )
        return cls(indptr, indices, num_users, interactions.num_items, bounds)

    @property
    def own(self) -> tuple[int, int]:
        """The first node whose edges are here, and the one behind the last."""
        pieces = (len(self.bounds) - 1) // processes.size()
        first = processes.rank() * pieces
        return int(self.bounds[first]), int(self.bounds[first + pieces])


@compiling.njit(cache=True)
def _users_of(indptr, items, first, places, users):
    """The users of the items from ``first`` on, ascending, each item's from its place on."""
    places = places.copy()
    for user in range(len(indptr) - 1):
        for e in range(indptr[user], indptr[user + 1]):
            item = items[e] - first
            if 0 <= item < len(places):
                users[places[item]] = user
                places[item] += 1


@compiling.njit(parallel=True, cache=True)
def _of_rows(bounds, starts, places, indices, found):
    """The entries of some rows, each row's from its place on."""
    for chunk in prange(len(bounds) - 1):
        for row in range(bounds[chunk], bounds[chunk + 1]):
            for e in range(places[row + 1] - places[row]):
                found[places[row] + e] = indices[starts[row] + e]


@compiling.njit(parallel=True, cache=True)
def _count_kept(bounds, indptr, indices, slots, lengths):
    """How many entries of every row have a slot."""
    for chunk in prange(len(bounds) - 1):
        for row in range(bounds[chunk], bounds[chunk + 1]):
            count = 0
            for e in range(indptr[row], indptr[row + 1]):
                count += slots[indices[e]] >= 0
            lengths[row] = count


@compiling.njit(parallel=True, cache=True)
def _kept(bounds, indptr, indices, slots, places, found):
    """Their slots, each row's from its place on."""
    for chunk in prange(len(bounds) - 1):
        for row in range(bounds[chunk], bounds[chunk + 1]):
            place = places[row]
            for e in range(indptr[row], indptr[row + 1]):
                if slots[indices[e]] >= 0:
                    found[place] = slots[indices[e]]
                    place += 1


class EdgePropagation(Propagation):
    """Products with A_hat that all processes make at the same time, each for its columns."""

    graph: GraphPart

    def __init__(self, graph: GraphPart) -> None:
        super().__init__(graph)
        self.degrees = np.diff(graph.indptr)
        self.roots = roots_of(self.degrees)

    def __reduce__(self):
        return EdgePropagation, (self.graph,)

    @property
    def _own_indptr(self) -> np.ndarray:
        first, end = self.graph.own
        return self.graph.indptr[first : end + 1] - self.graph.indptr[first]

    def hop(self, X: Tensor, rows: Tensor | None = None) -> Tensor:
        """As of ``Propagation``; ``rows`` ascend."""
        bounds, indptr, indices = self.graph.bounds, self._own_indptr, self.graph.indices
        if rows is None:
            return self._summed(self.degrees, bounds, indices, self.roots, self.roots, X)
        chosen = rows.numpy()
        if len(chosen) and (np.diff(chosen) <= 0).any():
            raise ValueError("rows must ascend")
        first, end = self.graph.own
        own = chosen[slice(*np.searchsorted(chosen, (first, end)))] - first
        lengths = self.degrees[first:end][own]
        places = _places(lengths)
        found = np.empty(places[-1], np.int32)
        use_threads_of_torch()
        _of_rows(even_runs(lengths, row_cost=1), indptr[own], places, indices, found)
        cuts = np.searchsorted(chosen, bounds)
        return self._summed(self.degrees[chosen], cuts, found, self.roots[chosen], self.roots, X)

    def hop_from(self, rows: Tensor, G: Tensor) -> Tensor:
        slots = np.full(self.graph.num_nodes, -1, np.int32)
        slots[rows.numpy()] = np.arange(len(rows), dtype=np.int32)
        first, end = self.graph.own
        indptr, indices, bounds = self._own_indptr, self.graph.indices, self.graph.bounds
        runs, own = even_runs(np.diff(indptr), row_cost=1), np.empty(end - first, np.int32)
        use_threads_of_torch()
        _count_kept(runs, indptr, indices, slots, own)
        places = _places(own)
        found = np.empty(places[-1], np.int32)
        _kept(runs, indptr, indices, slots, places, found)
        del slots
        return self._summed(self._told(own), bounds, found, self.roots, self.roots[rows.numpy()], G)

    def _told(self, own: np.ndarray) -> np.ndarray:
        """What every process knows of its nodes, for all of them."""
        found, bounds, size = np.empty(self.graph.num_nodes, own.dtype), self.graph.bounds, processes.size()
        ends = bounds[:: (len(bounds) - 1) // size]
        for number in range(size):
            part = found[ends[number] : ends[number + 1]]
            if number == processes.rank():
                part[:] = own
            if len(part):
                dist.broadcast(torch.from_numpy(part), number)
        return found

    def _summed(
        self,
        lengths: np.ndarray,
        cuts: np.ndarray,
        own: np.ndarray,
        roots: np.ndarray,
        others: np.ndarray,
        X: Tensor,
    ) -> Tensor:
        """Y (rows, d), y_t = sum_e roots[t] others[c_e] x_(c_e) over the entries c of row t, ``lengths`` in number. The
        rows of pieces begin at ``cuts``; ``own`` are the entries of this process's pieces."""
        values = X.detach().contiguous().numpy()
        indptr = _places(lengths)
        Y = lines(len(lengths), values)
        rank, size = processes.rank(), processes.size()
        pieces = (len(cuts) - 1) // size
        start = indptr[cuts[rank * pieces]]
        for piece in range(pieces):
            owner, number = rank, rank * pieces + piece
            entries = own[indptr[cuts[number]] - start : indptr[cuts[number + 1]] - start]
            while True:
                first, end = cuts[owner * pieces + piece], cuts[owner * pieces + piece + 1]
                before = (owner - 1) % size  # whose edges the neighbor in the ring has now
                coming = entries[:0]
                moving: Sequence[Any] = ()
                if before != rank:
                    number = before * pieces + piece
                    coming = np.empty(indptr[cuts[number + 1]] - indptr[cuts[number]], np.int32)
                    moving = _moved(entries, coming)
                rows = indptr[first : end + 1] - indptr[first]
                of_edges = edge_values(rows, entries, roots[first:end], others)
                multiply(rows[:-1], rows[1:], entries, of_edges, values, Y[first:end])
                for request in moving:
                    request.wait()
                if before == rank:
                    break
                owner, entries = before, coming
        return torch.from_numpy(Y)


def _places(lengths: np.ndarray) -> np.ndarray:
    """Where rows begin that lie one behind the other, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _moved(entries: np.ndarray, coming: np.ndarray) -> Sequence[Any]:
    """Sends ``entries`` to the next process of the ring, and receives what is ``coming`` from the one before."""
    rank, size = processes.rank(), processes.size()
    moving = []
    if len(entries):
        moving.append(dist.isend(torch.from_numpy(entries), (rank + 1) % size))
    if len(coming):
        moving.append(dist.irecv(torch.from_numpy(coming), (rank - 1) % size))
    return moving


class Edges(Columns):
    """``parallel=edges``."""

    part: GraphPart

    def check(self, config: Mapping[str, Any]) -> None:
        super().check(config)
        if config["trainer"]["accelerator"] != "cpu" and has_gpu():
            raise L2QError(
                "parallel=edges multiplies with the graph on CPUs; give trainer=cpu, or parallel=columns"
            )

    def propagation(self, train: Interactions) -> Propagation:
        self.part = GraphPart.from_interactions(train)
        return EdgePropagation(self.part)

    def loader(self, sampler: TripletSampler) -> TripletLoader:
        return TripletLoader(PartSampler(sampler, self.part.own, self.part.indptr, self.part.indices))
