"""Many filters tried on the same users at once: their scores differ by a factor here and there, and are never kept."""

from __future__ import annotations

import numpy as np
from numba import prange

from l2q.kernels import compiling
from l2q.kernels.selection import offer, sort_heap


@compiling.njit(parallel=True, cache=True, fastmath={"contract", "reassoc", "nsz"})
def recall_and_ndcg(A, B, shares, degrees, E, weights, indptr, items, held_indptr, held, k):
    """Recall@k + NDCG@k of every user by every candidate c, (users, candidates) float64. The scores of user u are

        S = (A[u] + shares[c] B[u]) degrees[c]
        S / |S| + weights[c] E[u]

    without the items ``items[indptr[u] : indptr[u + 1]]``, held to ``held[held_indptr[u] : held_indptr[u + 1]]``,
    ascending. ``A``, ``B`` and ``E`` are (users, N) float32, ``degrees`` (candidates, N); ``B`` and ``E`` may be empty,
    (users, 0).
    """
    found = np.zeros((len(A), len(shares)))
    num_items = A.shape[1]
    for user in prange(len(A)):
        row = np.empty(num_items, np.float32)
        best, top = np.empty(k, np.float32), np.empty(k, np.int32)
        first, last = held_indptr[user], held_indptr[user + 1]
        ideal = 0.0
        for place in range(min(k, last - first)):
            ideal += 1 / np.log2(place + 2.0)
        for c in range(len(shares)):
            a, share = A[user], shares[c]
            if B.shape[1]:
                b = B[user]
                for j in range(num_items):
                    row[j] = (a[j] + share * b[j]) * degrees[c, j]
            else:
                for j in range(num_items):
                    row[j] = a[j] * degrees[c, j]
            if E.shape[1] and weights[c] > 0:
                square = np.float32(0)
                for j in range(num_items):
                    square += row[j] * row[j]
                factor, e = weights[c] * max(np.sqrt(square), np.float32(1e-12)), E[user]
                for j in range(num_items):
                    row[j] += factor * e[j]
            for place in range(indptr[user], indptr[user + 1]):
                row[items[place]] = -np.inf
            best[:], top[:] = -np.inf, -1
            offer(row, 0, best, top)
            sort_heap(best, top)  # without threads of its own: not every threading layer of Numba bears that
            hits, gain = 0, 0.0
            for place in range(k):
                at = first + np.searchsorted(held[first:last], top[place])
                if at < last and held[at] == top[place]:
                    hits += 1
                    gain += 1 / np.log2(place + 2.0)
            if last > first:
                found[user, c] = hits / (last - first) + gain / ideal
    return found
