"""The normalised user-item adjacency, built once, and its product with embeddings: one hop and its backward.

    A_hat = D^-1/2 [[0, R], [R^T, 0]] D^-1/2        E^(l+1) = A_hat E^(l)

Nodes 0 .. M-1 are the users, nodes M .. M+N-1 the items. A_hat is symmetric, so the backward of a hop is the
same hop. He et al., "LightGCN", SIGIR 2020.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import torch
from numba import prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from l2q.interactions import Interactions
from l2q.kernels import compiling
from l2q.kernels.sparse import multiply, multiply_kept, use_threads_of_torch

HAS_TRITON = find_spec("triton") is not None  # torch's builds for CUDA on Linux bring it along


@dataclass(frozen=True, eq=False)
class Graph:
    """The edges of users and items, in both directions.

    Node v's neighbours are ``indices[indptr[v]:indptr[v + 1]]``, ascending; ``indptr`` is int64, ``indices`` int32.
    There are no self loops. A node without edges is a row of zeros in A_hat.
    """

    indptr: np.ndarray
    indices: np.ndarray
    num_users: int
    num_items: int

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> Graph:
        """O(edges): the rows of R, shifted by M, above the rows of R^T."""
        num_users, num_items, num_pairs = interactions.num_users, interactions.num_items, len(interactions)
        indices = np.empty(2 * num_pairs, np.int32)
        np.add(interactions.items, np.int32(num_users), out=indices[:num_pairs])
        pointers = _transpose(interactions.indptr, interactions.items, num_items, indices[num_pairs:])
        indptr = np.concatenate([interactions.indptr, num_pairs + pointers[1:]])
        return cls(indptr, indices, num_users, num_items)

    @property
    def num_nodes(self) -> int:
        return self.num_users + self.num_items

    @cached_property
    def values(self) -> np.ndarray:
        """D_v^-1/2 D_w^-1/2 of every edge, float32, beside ``indices``."""
        roots = roots_of(np.diff(self.indptr))
        return edge_values(self.indptr, self.indices, roots, roots)

    def to_torch(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A_hat as a sparse CSR tensor with int32 indices."""
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # "CSR support is in beta"
            return torch.sparse_csr_tensor(
                torch.from_numpy(self.indptr.astype(np.int32)).to(device),
                torch.from_numpy(self.indices).to(device),
                torch.from_numpy(self.values).to(device, dtype),
                size=(self.num_nodes, self.num_nodes),
                check_invariants=False,
            )


def roots_of(degrees: np.ndarray) -> np.ndarray:
    """D_v^-1/2, float32: they are read at random, and twice as many of them as of float64 fit into the cache."""
    return (np.maximum(degrees, 1) ** -0.5).astype(np.float32)


def edge_values(indptr: np.ndarray, indices: np.ndarray, roots: np.ndarray, others: np.ndarray) -> np.ndarray:
    """roots[v] others[w] of every edge e = (v, w), float32, beside ``indices``."""
    values = np.empty(len(indices), np.float32)
    use_threads_of_torch()
    _edge_values(indptr, indices, roots, others, values)
    return values


def _transpose(indptr, items, num_items, users):
    """Puts the compressed rows of R^T, users ascending, into ``users``. Returns where each item's row starts.

    A first counting sort goes by 1,024 ranges of items, a second one by the items within each range. One sort by item
    alone would miss the cache at every edge as soon as the items outgrow it; the ranges do not. Both sorts use all
    cores.
    """
    shift, chunks = max(int(num_items - 1).bit_length() - 10, 0), 32
    bounds = np.searchsorted(indptr, np.arange(chunks + 1) * len(items) // chunks)
    bounds[chunks] = len(indptr) - 1
    # NumPy asks for huge pages, memory from within a kernel has small ones
    pairs = np.empty((len(items), 2), np.int32)
    pointers = np.full(num_items + 1, len(items))
    use_threads_of_torch()
    _sort_by_item(indptr, items, shift, bounds, pairs, pointers, users)
    return pointers


@compiling.njit(parallel=True, cache=True)
def _sort_by_item(indptr, items, shift, bounds, pairs, pointers, users):
    num_items, chunks = len(pointers) - 1, len(bounds) - 1
    num_ranges = ((num_items - 1) >> shift) + 1
    places = np.zeros((chunks, num_ranges), np.int64)  # where a chunk of users writes in a range
    for chunk in prange(chunks):
        for e in range(indptr[bounds[chunk]], indptr[bounds[chunk + 1]]):
            places[chunk, items[e] >> shift] += 1
    starts, total = np.empty(num_ranges + 1, np.int64), 0
    for r in range(num_ranges):
        starts[r] = total
        for chunk in range(chunks):
            places[chunk, r], total = total, total + places[chunk, r]
    starts[num_ranges] = total

    for chunk in prange(chunks):
        for user in range(bounds[chunk], bounds[chunk + 1]):
            for e in range(indptr[user], indptr[user + 1]):
                place = places[chunk, items[e] >> shift]
                places[chunk, items[e] >> shift] = place + 1
                pairs[place, 0], pairs[place, 1] = items[e], user

    for r in prange(num_ranges):
        first, last = r << shift, min((r + 1) << shift, num_items)
        ends = np.zeros(last - first, np.int64)
        for place in range(starts[r], starts[r + 1]):
            ends[pairs[place, 0] - first] += 1
        start = starts[r]
        for i in range(last - first):
            pointers[first + i] = start
            start, ends[i] = start + ends[i], start
        for place in range(starts[r], starts[r + 1]):
            i = pairs[place, 0] - first
            users[ends[i]] = pairs[place, 1]
            ends[i] += 1


@compiling.njit(parallel=True, cache=True)
def _edge_values(indptr, indices, roots, others, values):
    for chunk in prange(64):
        first, last = chunk * len(roots) // 64, (chunk + 1) * len(roots) // 64
        for node in range(first, last):
            for e in range(indptr[node], indptr[node + 1]):
                values[e] = roots[node] * others[indices[e]]


class Propagation:
    """Products with A_hat, differentiable in E (num_nodes, d).

    ``backend`` is one of

    - ``numba`` (CPU) and ``triton`` (GPU): the same bits every time, for any number of threads;
    - ``torch`` (any device): on a GPU other bits from call to call;
    - None: chosen by the device of E.

    There are as many threads as torch has. A propagation holds no parameter and no buffer, so it does not appear in the
    ``state_dict`` of the module that holds it.

    >>> train = Interactions.from_pairs([0, 1], [0, 0], num_users=2, num_items=1)
    >>> Propagation(Graph.from_interactions(train))(torch.eye(3))
    tensor([[0.0000, 0.0000, 0.7071],
            [0.0000, 0.0000, 0.7071],
            [0.7071, 0.7071, 0.0000]])
    """

    def __init__(self, graph: Graph, backend: str | None = None):
        self.graph = graph
        self.backend = backend
        self._products: dict[tuple[torch.device, torch.dtype], Callable[[Tensor], Tensor]] = {}

    def __reduce__(self):
        return Propagation, (self.graph, self.backend)

    def __call__(self, E: Tensor) -> Tensor:
        """A_hat E, (num_nodes, d)."""
        return _Layers.apply(E, self, 1, 1, None)[0]

    def rows(self, E: Tensor, rows: Tensor) -> Tensor:
        """(A_hat E)[rows] for distinct ``rows``, (len(rows), d), at the cost of their edges only."""
        return _Layers.apply(E, self, 1, 1, rows)[0]

    def layers(self, E: Tensor, num_layers: int, rows: Tensor | None = None) -> tuple[Tensor, ...]:
        """E^(0), ..., E^(num_layers), each (num_nodes, d), or only their distinct ``rows``, (len(rows), d).

        With ``rows``, the last hop computes those rows only, and the first backward hop starts from them only. A step
        then costs 2 L - 2 whole products instead of 2 L. The gradients of all layers meet in one buffer.
        """
        if num_layers == 0:
            return (E if rows is None else E[rows],)
        if rows is None:
            return (E, *_Layers.apply(E, self, 1, num_layers, None))
        return _Layers.apply(E, self, 0, num_layers, rows)

    def hop(self, X: Tensor, rows: Tensor | None = None) -> Tensor:
        """A_hat X, or (A_hat X)[rows]; not recorded by autograd."""
        if self._backend(X) != "numba":
            whole = self._product(X)(X)
            return whole if rows is None else whole[rows]
        graph = self.graph
        selected = slice(None) if rows is None else rows.numpy()
        starts, ends = graph.indptr[:-1][selected], graph.indptr[1:][selected]
        product = multiply(starts, ends, graph.indices, graph.values, X.detach().contiguous().numpy())
        return torch.from_numpy(product)

    def hop_from(self, rows: Tensor, G: Tensor) -> Tensor:
        """A_hat[rows]^T G = A_hat times the matrix with G in ``rows`` and zero elsewhere, (num_nodes, d)."""
        if self._backend(G) != "numba":
            spread = G.new_zeros((self.graph.num_nodes, G.shape[1]))
            spread[rows] = G
            return self._product(G)(spread)
        graph = self.graph
        slots = np.full(graph.num_nodes, -1, dtype=np.int32)
        slots[rows.numpy()] = np.arange(len(rows), dtype=np.int32)
        edges = graph.indptr[:-1], graph.indptr[1:], graph.indices, graph.values
        return torch.from_numpy(multiply_kept(*edges, slots, G.detach().contiguous().numpy()))

    def _backend(self, X: Tensor) -> str:
        return self.backend or ("numba" if X.device.type == "cpu" else "triton" if HAS_TRITON else "torch")

    def _product(self, X: Tensor) -> Callable[[Tensor], Tensor]:
        """The product with A_hat for tensors such as X."""
        key, graph = (X.device, X.dtype), self.graph
        if key not in self._products:
            if self._backend(X) == "triton":
                from l2q.kernels.sparse_cuda import Product

                self._products[key] = Product(graph.indptr, graph.indices, graph.values, *key)
            else:
                self._products[key] = graph.to_torch(*key).matmul
        return self._products[key]


class _Layers(torch.autograd.Function):
    """Layers first .. last of E (of ``rows``), and the backward by Horner's rule,

    dE = A_hat (... A_hat (A_hat G_last + G_(last-1)) ...) + G_0,        A_hat^T = A_hat.
    """

    @staticmethod
    def forward(ctx, E, propagation, first, last, rows):
        if rows is not None and not rows.is_cuda and len(rows) and torch.bincount(rows).max() > 1:
            raise ValueError("rows must be distinct")
        ctx.propagation, ctx.first, ctx.last, ctx.rows, ctx.shape = propagation, first, last, rows, E.shape
        ctx.set_materialize_grads(False)
        X, outputs = E, []
        for layer in range(last + 1):
            if layer > 0:
                X = propagation.hop(X, rows if layer == last else None)
            if layer >= first:
                outputs.append(X if rows is None or layer == last > 0 else X[rows])
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *outputs):
        hop, hop_from, rows = ctx.propagation.hop, ctx.propagation.hop_from, ctx.rows
        gradients = dict(enumerate(outputs, start=ctx.first))
        total = None  # the gradient that has come down to a layer, None while it is zero
        for layer in range(ctx.last, -1, -1):
            G = gradients.get(layer)
            if G is None:
                total = total if total is None or layer == 0 else hop(total)
            elif rows is None:
                total = hop(G if total is None else total.add_(G))
            elif total is None and layer > 0:
                total = hop_from(rows, G)
            else:
                total = G.new_zeros(ctx.shape) if total is None else total
                total[rows] += G
                total = total if layer == 0 else hop(total)
        return total, None, None, None, None
