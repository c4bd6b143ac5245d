"""Codes fitted to scores by discrete coordinate descent, without gradients: post-training quantization of any
model whose scores are inner products.

With A = diag(a) Q, Q in {-1, +1}^(rows x bits) on each side, minimize

    f = sum over all (u, i) of (<x_u, y_i> - <A_u, A_i>)^2  +  w sum over lists (u, j) of (t_uj - <A_u, A_j>)^2

The base X (M, r), Y (N, r) is a low-rank part of the scores, so that the first sum costs only Gram matrices; the
lists are the top of every user's ranking with target scores t, where the ranking is decided. Users and items take
turns. For one row with the other side fixed,

    f = const - 2 a b.q + a^2 (q.G q + w sum_j (q.A_j)^2)
    G = A_other^T A_other        b = A_other^T Y x + w sum_j t_j A_j

is minimized bit by bit: flipping q_k changes it by 4 a (b_k q_k + a (kappa - q_k gamma_k)) with
gamma = G q + w sum_j (q.A_j) A_j and kappa = G_kk + w sum_j a_j^2; the scale is a = b.q / (q.G q + w sum_j (q.A_j)^2).
f never rises within a round.

The family of discrete collaborative filtering (Zhang et al., SIGIR 2016) and supervised discrete hashing
(Shen et al., CVPR 2015).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numba
import numpy as np
import torch
from scipy import sparse

from l2q import exchange, processes
from l2q.errors import L2QError
from l2q.fitted.state import Packed, Side, State, to_representations
from l2q.interactions import Interactions
from l2q.kernels import dense, rows
from l2q.kernels.descent import descend_rows, unlisted
from l2q.kernels.packed import PackedItems, top_k
from l2q.kernels.packing import pack
from l2q.kernels.pairs import pair_scores
from l2q.kernels.rotations import itq, itq_rows
from l2q.kernels.sparse import even_runs
from l2q.kernels.top_lists import top_lists
from l2q.options import Count, NotNegative, Whole, options
from l2q.progress import Progress
from l2q.representations import Representations

SEEN, QUICKLY_SEEN = 20_000, 4096  # rows that ITQ is fitted to


@options("model.descent")
class CoordinateDescent:
    """Options of the fit. ``rounds`` of both sides first; then ``intruder_rounds`` times: the ``intruders``
    best items by the codes themselves join each user's list where they are not on it, and a round follows. Short
    lists and many such rounds keep more than long lists and few (docs/results/l2q-plus.md): a list's items are held in
    place from both sides, all others only once they rise too high.

    ``weight`` None is N / (4 L) for lists of L: one then weighs a quarter of what the whole catalogue of N items
    does. A fixed weight costs codes of small catalogues up to a fifth of Recall@20 (docs/results/l2q-plus.md)."""

    weight: NotNegative | None
    rounds: Count
    intruder_rounds: Whole
    intruders: Count
    sweeps: Count
    itq_iterations: Whole

    def list_weight(self, lists: sparse.csr_array) -> float:
        """w in f; the longest list counts as L."""
        longest = max(processes.everyone(int(np.diff(lists.indptr).max(initial=1))))
        return lists.shape[1] / (4 * longest) if self.weight is None else self.weight

    def quick(self) -> CoordinateDescent:
        """With a fifth of the intruder rounds, whose later ones win a few thousandths, and two rounds before them."""
        return replace(self, rounds=min(self.rounds, 2), intruder_rounds=math.ceil(self.intruder_rounds / 5))

    def again(self) -> CoordinateDescent:
        """A few rounds, for codes that are nearly right and have their intruders on the lists already."""
        return replace(self, rounds=1, intruder_rounds=min(self.intruder_rounds, 3))

    @property
    def plan(self) -> list[str]:
        return ["round"] * self.rounds + ["intruders", "round"] * self.intruder_rounds


def fit(
    base: tuple[np.ndarray, np.ndarray],
    lists: sparse.csr_array | None,
    bits: int,
    descent: CoordinateDescent,
    seed: int = 0,
    exclude: Interactions | None = None,
    progress: Progress | None = None,
    state: State | None = None,
) -> Representations:
    """Codes of ``bits`` and item scales after all steps; see ``descend``. By one process."""
    reached = state
    for reached in descend(base, lists, bits, descent, seed, exclude, state):
        if progress is not None:
            progress(reached.step, len(descent.plan), "rounds")
    assert reached is not None
    return to_representations(reached)


@dense.one_thread()
def fit_codes(
    users: np.ndarray,
    items: np.ndarray,
    bits: int,
    descent: CoordinateDescent,
    length: int,
    seed: int = 0,
    exclude: Interactions | None = None,
    progress: Progress | None = None,
) -> Representations:
    """Codes of ``bits`` for float embeddings (M, d) and (N, d) of any model whose scores are inner products.

    The base is the embeddings, user rows divided by the norm of their scores (no ranking changes), the lists
    are the ``length`` best items of every user outside ``exclude`` (none with ``length`` 0). A user whose scores
    are all zero has no ranking to keep. Raises L2QError where no user has one.
    """
    X, Y = (np.ascontiguousarray(side, np.float32) for side in (users, items))
    # squares of large values overflow; neither a user's nor a common factor changes a ranking
    X, Y = X / _positive(np.abs(X).max(axis=1, keepdims=True)), Y / _positive(np.abs(Y).max(keepdims=True))
    R = np.asarray(np.linalg.qr(Y, mode="r"))  # Y = Q R, so |Y x| = |R x|
    norms = np.linalg.norm(dense.product(X, R.T), axis=1, keepdims=True)
    scored = norms > 1e-6 * np.linalg.norm(X, axis=1, keepdims=True) * np.linalg.norm(Y)
    if not scored.any():
        raise L2QError("all products of user and item rows are zero: there is no ranking to keep")
    X = np.where(scored, X / _positive(norms), 0)
    lists = None
    if length:
        lists = top_lists(
            lambda block: dense.product(X[block], Y.T), len(X), len(Y), length, exclude, progress
        )
    return fit((X, Y), lists, bits, descent, seed, exclude, progress)


def _positive(factors: np.ndarray) -> np.ndarray:
    return np.where(factors > 0, factors, 1)


def descend(
    base: tuple[np.ndarray, np.ndarray],
    lists: sparse.csr_array | None,
    bits: int,
    descent: CoordinateDescent,
    seed: int = 0,
    exclude: Interactions | None = None,
    state: State | None = None,
) -> Iterator[State]:
    """The fit step by step, from ``start`` or from a ``state`` that an earlier run has reached; a state has
    the same bits either way, whatever the number of threads.

    ``base``: X (M, r) and Y (N, r), float32 or float64, which all arithmetic then uses. ``lists``: targets of
    (M, N) in compressed rows. ``exclude``: pairs that are never intruders. Of several processes each has the own rows
    of base and lists (``l2q.kernels.rows``).
    """
    X, Y = base
    if lists is None:
        lists = sparse.csr_array((len(X), processes.total(len(Y))), dtype=X.dtype)
    floors, weight = row_minima(lists), descent.list_weight(lists)
    if state is None:
        state = initial_state(base, lists, bits, descent.itq_iterations, seed)
    for step in range(state.step, len(descent.plan)):
        if descent.plan[step] == "intruders":
            state = with_intruders(state, base, floors, descent.intruders, exclude)
        else:
            users = half_round(state.users, X, Y, state.lists, state.items, weight, descent.sweeps)
            items = half_round(state.items, Y, X, transposed(state.lists), users, weight, descent.sweeps)
            state = replace(state, users=users, items=items)
        state = replace(state, step=step + 1)
        yield state


@dense.one_thread()
def initial_state(
    base: tuple[np.ndarray, np.ndarray],
    lists: sparse.csr_array,
    bits: int,
    itq_iterations: int,
    seed: int,
    quick: bool = False,
) -> State:
    """Signs of the balanced factors after ITQ, with their least-squares scales.

    X Y^T = P S Z^T gives P sqrt(S) and Z sqrt(S), cut to ``bits`` columns or filled up with zeros. From Gram
    matrices alone: with X^T X = K K^T and the eigenvectors K^T Y^T Y K = E S^2 E^T, P = X K^-T E, Z = Y K E / S.
    ``quick``: ITQ sees fewer rows, and no zeros.
    """
    X, Y = base
    num_users, num_items = map(processes.total, (len(X), len(Y)))
    values, vectors = np.linalg.eigh(rows.gram(X, num_users).astype(np.float64))
    kept = values > 1e-12 * values[-1]
    K, K_inverse = vectors[:, kept] * np.sqrt(values[kept]), vectors[:, kept] / np.sqrt(values[kept])
    values, E = np.linalg.eigh(K.T @ rows.gram(Y, num_items).astype(np.float64) @ K)
    E, root = E[:, ::-1][:, :bits], np.maximum(values[::-1][:bits], 0) ** 0.25
    found = [
        rows.product(X, (K_inverse @ E * root).astype(X.dtype), num_users),
        rows.product(Y, (K @ E / np.maximum(root, 1e-6 * root[0])).astype(X.dtype), num_items),
    ]
    signs = rows.column_signs(found[1])
    if not quick:  # zeros fill up
        signs = np.pad(signs, (0, bits - len(root)), constant_values=1)
        found = [np.pad(side, ((0, 0), (0, bits - len(root)))) for side in found]
    for side in found:
        side *= signs
    rng = np.random.default_rng(seed)
    sizes = num_users, num_items
    factors = rows.stacked(found, sizes)
    turn, most = (partial(itq_rows, width=bits), QUICKLY_SEEN) if quick else (itq, SEEN)
    R = turn(_some(factors, sum(sizes), most, rng), iterations=itq_iterations, rng=rng)
    factors = rows.product(factors, R, sum(sizes))
    codes, scales = np.where(factors >= 0, 1, -1).astype(np.int8), np.abs(factors).mean(axis=1)
    users, items = map(Side, rows.unstacked(codes, sizes), rows.unstacked(scales, sizes))
    return State(0, users, items, lists)


def _some(X: np.ndarray, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` rows, or all, of the own rows of (size, d): the same in all processes."""
    if size <= count:
        return exchange.joined(X)
    own, drawn = rows.own(size), np.sort(rng.choice(size, count, replace=False))
    return exchange.joined(X[drawn[(drawn >= own.start) & (drawn < own.stop)] - own.start])


def half_round(
    side: Side,
    X: np.ndarray,
    Y: np.ndarray,
    lists: sparse.csr_array,
    others: Side,
    weight: float,
    sweeps: int = 4,
) -> Side:
    """One side's rows fitted to the ``others``: X (n, r) is this side's base, Y (m, r) the others', ``lists``
    (n, m) the targets in compressed rows. A row without base and lists gets scale 0."""
    packed = Packed.of(others)
    C, G = rows.products(Y, packed.rows, len(packed.scales))
    return fit_rows(side, X, C, G, lists, packed, weight, sweeps)


def fit_rows(
    side: Side,
    X: np.ndarray,
    C: np.ndarray,
    G: np.ndarray,
    lists: sparse.csr_array,
    others: Packed,
    weight: float,
    sweeps: int = 4,
) -> Side:
    """As ``half_round``, with C = Y^T A_other (r, bits) and G = A_other^T A_other (bits, bits) at hand: for
    rows that come one by one, such as new users."""
    words, squares = others.words(), (weight * others.scales**2).astype(X.dtype)
    targets, other_scales = lists.data.astype(X.dtype), others.scales.astype(X.dtype)
    indptr, indices, weight = (
        lists.indptr.astype(np.int64),
        lists.indices.astype(np.int32),
        X.dtype.type(weight),
    )
    codes, scales = side.codes.copy(), np.empty(len(X), X.dtype)

    def fitted() -> Side:
        for some in dense.parts(len(X), rows.UNIT):
            starts = indptr[some.start : some.stop + 1]
            # 50: what a row costs beside its list, in entries
            bounds = even_runs(np.diff(starts), row_cost=50)
            B, GQ = dense.product(X[some], C), dense.product(codes[some].astype(X.dtype), G)
            with numba.parallel_chunksize(1):
                descend_rows(
                    bounds, starts, indices, targets, words, other_scales, squares, weight,
                    G, B, GQ, codes[some], scales[some], sweeps,
                )  # fmt: skip
        return Side(codes, scales)

    return processes.agreed(fitted)


def transposed(lists: sparse.csr_array) -> sparse.csr_array:
    """The lists of items, users by number: of several processes the own rows, from the lists of its own users."""
    if processes.place()[1] == 1:
        return lists.T.tocsr()
    num_users, num_items = processes.total(lists.shape[0]), lists.shape[1]
    users = np.repeat(
        np.arange(lists.shape[0], dtype=np.int32) + np.int32(rows.own(num_users).start), np.diff(lists.indptr)
    )
    order = np.argsort(lists.indices, kind="stable")
    items = lists.indices[order]
    runs, own = rows.runs(num_items), rows.own(num_items)
    ends = np.searchsorted(items, [run.stop for run in runs[:-1]])
    coming = (
        np.concatenate(exchange.exchanged(np.split(part[order], ends)))
        for part in (lists.data, lists.indices, users)
    )
    data, items, users = coming
    order = np.argsort(items, kind="stable")  # users come by number
    counts = np.bincount(items - own.start, minlength=own.stop - own.start)
    indptr = np.concatenate(([0], np.cumsum(counts)))
    return sparse.csr_array((data[order], users[order], indptr), shape=(len(counts), num_users))


def with_intruders(
    state: State,
    base: tuple[np.ndarray, np.ndarray],
    floors: np.ndarray,
    count: int,
    exclude: Interactions | None,
) -> State:
    """On the lists also the codes' own ``count`` best items with target min(<x_u, y_j>, floor), where the ``floors``
    are the smallest targets of the lists: as far down as the base says, but below all that the list wants above
    them."""
    users, lists = state.users, state.lists
    items = Packed.of(state.items)
    dims, one = (items.bits,), np.ones(1, np.float32)
    packed = PackedItems.longest_first(items.packed, dims, items.scales.astype(np.float32)[:, None])
    count = min(count, packed.num_items)
    first = rows.own(processes.total(len(users.codes))).start
    top = np.empty((len(users.codes), count), np.int32)
    for some in dense.parts(len(top), rows.UNIT):
        numbers = np.arange(first + some.start, first + some.stop)
        top[some] = top_k(pack(users.codes[some], dims), one, packed, count, exclude, numbers)[1]
    new = unlisted(top, lists.indptr, lists.indices)
    at, columns = np.nonzero(new)[0], top[new]
    targets = np.minimum(_pair_scores(*base, at, columns, packed.num_items), floors[at])
    # inserted by hand: a sum of sparse matrices would drop targets that are zero
    ends = lists.indptr[1:][at]
    data, indices = np.insert(lists.data, ends, targets), np.insert(lists.indices, ends, columns)
    indptr = lists.indptr + np.concatenate(([0], np.cumsum(new.sum(axis=1)))).astype(np.int32)
    return replace(state, lists=sparse.csr_array((data, indices, indptr), shape=lists.shape))


def row_minima(lists: sparse.csr_array) -> np.ndarray:
    """The smallest target of every row, infinity where it has none."""
    minima = np.full(lists.shape[0], np.inf, lists.dtype)
    filled = np.diff(lists.indptr) > 0
    if filled.any():
        minima[filled] = np.minimum.reduceat(lists.data, lists.indptr[:-1][filled])
    return minima


def _pair_scores(
    X: np.ndarray, Y: np.ndarray, users: np.ndarray, items: np.ndarray, num_items: int
) -> np.ndarray:
    """<x_u, y_i> of pairs of own users; the items' rows come by, those of one process after those of another."""
    found, runs = np.empty(len(users), X.dtype), rows.runs(num_items)

    def room(source: int) -> np.ndarray:
        return (
            Y
            if source == processes.place()[0]
            else np.empty((runs[source].stop - runs[source].start, Y.shape[1]), Y.dtype)
        )

    for source, coming in exchange.passed(lambda to: Y, room):
        here = (items >= runs[source].start) & (items < runs[source].stop)
        pairs = users[here], items[here] - runs[source].start
        found[here] = pair_scores(*map(torch.from_numpy, (X, coming, *pairs))).numpy()
    return found
