"""The normalised user-item adjacency, built once, and its product with embeddings: one hop and its backward.

    A_hat = D^-1/2 [[0, R], [R^T, 0]] D^-1/2        E^(l+1) = A_hat E^(l)

Users come first (0 .. M-1), then items (M .. M+N-1). A_hat is symmetric, so the backward of a hop is the
same hop. He et al., "LightGCN", SIGIR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from torch.autograd.function import once_differentiable

from l2q.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Graph:
    """Neighbours of node v: ``indices[indptr[v]:indptr[v + 1]]``, ascending; ``indptr`` int64,
    ``indices`` int32. No self loops. The weight of an edge, D_v^-1/2 D_w^-1/2, is a product, so it is never
    stored; a node without edges has no neighbours and ``scales`` 0."""

    indptr: np.ndarray
    indices: np.ndarray
    num_users: int
    num_items: int

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> Graph:
        """O(edges): the rows of R, shifted by M, above the rows of R^T."""
        transposed = interactions.to_csr(np.int8).tocsc()
        num_users, num_edges = interactions.num_users, len(interactions)
        return cls(
            indptr=np.concatenate([interactions.indptr, num_edges + transposed.indptr[1:].astype(np.int64)]),
            indices=np.concatenate([interactions.items + np.int32(num_users), transposed.indices]),
            num_users=num_users,
            num_items=interactions.num_items,
        )

    @property
    def num_nodes(self) -> int:
        return self.num_users + self.num_items

    @cached_property
    def degrees(self) -> np.ndarray:
        return np.diff(self.indptr)

    @cached_property
    def scales(self) -> np.ndarray:
        """D^-1/2 as float32, 0 where the degree is 0."""
        return np.where(self.degrees > 0, np.maximum(self.degrees, 1) ** -0.5, 0).astype(np.float32)

    def to_torch(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """A_hat as a sparse CSR tensor with int32 indices."""
        indptr = torch.from_numpy(self.indptr.astype(np.int32))
        values = np.repeat(self.scales, self.degrees) * self.scales[self.indices]
        return torch.sparse_csr_tensor(
            indptr.to(device),
            torch.from_numpy(self.indices).to(device),
            torch.from_numpy(values).to(device, dtype),
            size=(self.num_nodes, self.num_nodes),
            check_invariants=False,
        )


class Propagation:
    """Products with A_hat, differentiable in E (num_nodes, d).

    ``backend``: ``numba`` (CPU; the same bits for any number of threads), ``torch`` (any device), or None,
    which chooses by the device of E. Threads as torch has. No parameter and no buffer: a module may
    hold it without its appearing in a ``state_dict``.
    """

    def __init__(self, graph: Graph, backend: str | None = None):
        self.graph = graph
        self.backend = backend
        self._matrices: dict[tuple[torch.device, torch.dtype], Tensor] = {}

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

        With rows the last hop computes those rows only, the first backward hop starts from them only, and the
        gradients of the layers meet in one buffer: 2 L - 2 whole products for a step instead of 2 L.
        """
        if rows is None:
            return (E, *_Layers.apply(E, self, 1, num_layers, None))
        return _Layers.apply(E, self, 0, num_layers, rows)

    def hop(self, X: Tensor, rows: Tensor | None = None) -> Tensor:
        """A_hat X, or (A_hat X)[rows]; not recorded by autograd."""
        if self._backend(X) == "torch":
            product = self._matrix(X) @ X
            return product if rows is None else product[rows]
        X = X.contiguous()
        graph = self.graph
        nodes = np.arange(graph.num_nodes) if rows is None else rows.numpy()
        Y = torch.empty((len(nodes), X.shape[1]), dtype=X.dtype)
        use_threads_of_torch()
        bounds = balanced_chunks(graph.degrees[nodes])
        _hop(bounds, nodes, graph.indptr, graph.indices, graph.scales, X.numpy(), Y.numpy())
        return Y

    def hop_from(self, rows: Tensor, G: Tensor) -> Tensor:
        """A_hat[rows]^T G = A_hat times the matrix with G in ``rows`` and zero elsewhere, (num_nodes, d)."""
        if self._backend(G) == "torch":
            spread = G.new_zeros((self.graph.num_nodes, G.shape[1]))
            spread.index_add_(0, rows, G)
            return self._matrix(G) @ spread
        G = G.contiguous()
        graph, nodes = self.graph, rows.numpy()
        slots = np.full(graph.num_nodes, -1, dtype=np.int32)
        slots[nodes] = np.arange(len(nodes), dtype=np.int32)
        Y = torch.empty((graph.num_nodes, G.shape[1]), dtype=G.dtype)
        use_threads_of_torch()
        bounds, scales = balanced_chunks(graph.degrees), graph.scales
        _hop_from(bounds, graph.indptr, graph.indices, slots, scales[nodes], scales, G.numpy(), Y.numpy())
        return Y

    def _backend(self, X: Tensor) -> str:
        return self.backend or ("numba" if X.device.type == "cpu" else "torch")

    def _matrix(self, X: Tensor) -> Tensor:
        key = (X.device, X.dtype)
        if key not in self._matrices:
            self._matrices[key] = self.graph.to_torch(*key)
        return self._matrices[key]


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
                total.index_add_(0, rows, G)
                total = total if layer == 0 else hop(total)
        return total, None, None, None, None


def use_threads_of_torch() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def balanced_chunks(degrees: np.ndarray, chunks: int = 64) -> np.ndarray:
    """Bounds of ``chunks`` runs of rows of about equal work: degrees follow a power law, so equal numbers of
    rows would not do. A row costs its edges and one more for writing it."""
    work = np.concatenate(([0], np.cumsum(degrees + 1)))
    return np.searchsorted(work, np.linspace(0, work[-1], chunks + 1))


@njit(inline="always")
def _sum_rows(nodes, scales, X, factor, y):
    """y = factor * sum over nodes of scales[node] X[node]: four rows a pass, so that y is touched less."""
    y[:] = 0
    whole = len(nodes) // 4 * 4
    for e in range(0, whole, 4):
        a, b, c, d = nodes[e], nodes[e + 1], nodes[e + 2], nodes[e + 3]
        xa, xb, xc, xd = X[a], X[b], X[c], X[d]
        sa, sb, sc, sd = scales[a], scales[b], scales[c], scales[d]
        for j in range(len(y)):
            y[j] += (sa * xa[j] + sb * xb[j]) + (sc * xc[j] + sd * xd[j])
    for e in range(whole, len(nodes)):
        a = nodes[e]
        xa, sa = X[a], scales[a]
        for j in range(len(y)):
            y[j] += sa * xa[j]
    for j in range(len(y)):
        y[j] *= factor


@njit(parallel=True, cache=True, fastmath={"contract"})
def _hop(bounds, rows, indptr, indices, scales, X, Y):
    """Y[t] = (A_hat X)[rows[t]]. A row is one thread's, in one order: the same bits for any thread count."""
    for chunk in prange(len(bounds) - 1):
        for t in range(bounds[chunk], bounds[chunk + 1]):
            v = rows[t]
            _sum_rows(indices[indptr[v] : indptr[v + 1]], scales, X, scales[v], Y[t])


@njit(parallel=True, cache=True, fastmath={"contract"})
def _hop_from(bounds, indptr, indices, slots, slot_scales, scales, G, Y):
    """Y = A_hat times G spread over the rows that have a slot: other neighbours are passed over."""
    for chunk in prange(len(bounds) - 1):
        kept = np.empty(len(indices) and (indptr[1:] - indptr[:-1]).max(), np.int32)
        for v in range(bounds[chunk], bounds[chunk + 1]):
            count = 0
            for e in range(indptr[v], indptr[v + 1]):
                slot = slots[indices[e]]
                kept[count] = slot
                count += slot >= 0
            _sum_rows(kept[:count], slot_scales, G, scales[v], Y[v])
