"""What a spectral filter leaves for users who come after the fit: scores from a list of items alone.

    r_hat = n^-gamma_user R_new D_i^-gamma_item        U_new = r_hat V diag(1 / s)        (fold-in of the SVD)

take the place of R_hat and U in the filter's scores; the tail goes over the known users, R_hat_new R_hat^T R_hat.

An index keeps V as bytes c of signed roots, in steps of the item's own,

    V_ij = sign(c_ij) (c_ij root_i)^2        root_i = max_j sqrt |V_ij| / 127

which costs nothing that can be measured; columns of V left out do (docs/results/new-users.md).

Source of the fold-in: Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

import numpy as np
from scipy import sparse

from l2q import exchange
from l2q.fitted.filter import FilterScores, SpectralFilter
from l2q.fitted.weights import EQUAL, PairWeights, of_steps, to_steps
from l2q.interactions import Interactions, normalize
from l2q.kernels import dense, rows
from l2q.kernels.byte_rows import ByteRows
from l2q.kernels.sparse import multiply

MOST = 127  # of a byte's two signs
_ROWS, _COLUMNS = 4096, 64  # of V that are at hand at once


@dataclass(frozen=True, eq=False)
class FilterSide:
    """The item side of a filter: ``codes`` (N, rank) int8 and ``roots`` (N,) float32 of V, the right singular vectors,
    and ``values`` (3, rank) float32: s, h and inner as in ``FilterScores``. ``options``: gamma_user, gamma_item and
    popularity of the filter, the tail's factor, weight and length of the lists; and what a later fit goes on with, rank
    and tail of the filter, the weight of embeddings beside it, and what pairs weigh by. Plain numbers, for a manifest.
    ``steps`` (train pairs,) uint8 are those weights (``l2q.fitted.weights``); None: all weigh the same. Without
    ``roots`` the codes are V itself, float16: so were indexes before."""

    codes: np.ndarray
    roots: np.ndarray | None
    values: np.ndarray
    options: dict[str, float]
    steps: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        options: SpectralFilter,
        scores: FilterScores,
        weight: float,
        length: int,
        embeddings: float = 0.0,
        by: PairWeights = EQUAL,
        weights: np.ndarray | None = None,
    ) -> FilterSide:
        """Of what all processes have of ``scores``; the first one has all rows of it, the others none."""
        (num_users, num_items), rank = scores.shape, scores.Y.shape[1]
        users, items = rows.own(num_users), rows.own(num_items)
        degrees = np.where(scores.degrees > 0, scores.degrees, np.inf)[items, None]
        R_hat, s = scores.R_hat, []  # the diagonal of U^T R_hat V
        starts, ends = R_hat.indptr[:-1][users], R_hat.indptr[1:][users]
        for some in dense.parts(rank, _COLUMNS):
            V = exchange.joined(scores.Y[:, some] / degrees)
            hop = multiply(starts, ends, R_hat.indices, R_hat.data, V)
            s.append(rows.sums(np.multiply(hop, scores.U[:, some], dtype=np.float64)))
        blocks = dense.parts(len(degrees), _ROWS) or [slice(0, 0)]
        found = (to_bytes(scores.Y[some] / degrees[some]) for some in blocks)
        codes, roots = (rows.gathered(np.concatenate(parts)) for parts in zip(*found, strict=True))
        return cls(
            codes,
            roots,
            np.stack([np.concatenate(s), scores.h, scores.inner]).astype(np.float32),
            {
                "gamma_user": float(options.gamma_user),
                "gamma_item": float(options.gamma_item),
                "popularity": float(options.popularity),
                "factor": float(scores.factor),
                "weight": float(weight),
                "length": int(length),
                "rank": int(options.rank),
                "tail": float(options.tail),
                "embeddings": float(embeddings),
                **asdict(by),
            },
            None if weights is None else to_steps(weights),
        )

    @property
    def V(self) -> ByteRows:
        """The right singular vectors, (N, rank)."""
        return of_bytes(self.codes, self.roots)

    def weighed(self, train: Interactions) -> Interactions:
        """``train`` with the weights of its pairs, as the other functions take it."""
        return replace(train, weights=None if self.steps is None else of_steps(self.steps))

    def graph(self, train: Interactions) -> tuple[sparse.csr_array, sparse.csr_array]:
        """R_hat of the known users and its transpose, which every call of ``scores`` needs."""
        known = normalize(train, self.options["gamma_user"], self.options["gamma_item"])
        return known, known.T.tocsr()

    def scores(
        self,
        new: Interactions,
        train: Interactions,
        graph: tuple[sparse.csr_array, sparse.csr_array] | None = None,
    ) -> NewScores:
        """The filter's scores for the rows of ``new``, which know the users of ``train``. O(edges)."""
        gamma_user, gamma_item, power = (
            self.options[key] for key in ("gamma_user", "gamma_item", "popularity")
        )
        known, known_T = graph or self.graph(train)
        # an item that train lacks has no direction in V and no known user: its factor does not matter
        item_degrees = np.where(train.item_degrees > 0, train.item_weights, 1).astype(np.float32)
        popularity = item_degrees**power
        R_new = new.to_csr()
        users = (new.user_degrees**-gamma_user).astype(np.float32)
        R_new.data = np.repeat(users, new.user_degrees) * (item_degrees**-gamma_item)[new.items]
        V, (s, h, inner) = self.V, self.values
        owned, places = np.unique(new.items, return_inverse=True)
        of_owned = sparse.csr_array((R_new.data, places, R_new.indptr), shape=(new.num_users, len(owned)))
        U = (of_owned @ V.rows(owned)) / np.maximum(s, 1e-6 * s[0])
        nothing = np.empty((0, len(h)), np.float32)
        return NewScores(
            *(U, h, inner, nothing, known, known_T, popularity, self.options["factor"]),
            asking=R_new,
            bytes=ByteRows(V.codes, V.factors * popularity),
        )


@dataclass(frozen=True, eq=False)
class NewScores(FilterScores):
    """The scores of users whom the filter does not know: ``bytes`` in place of Y."""

    bytes: ByteRows = field(kw_only=True)

    def products(self, X: np.ndarray, of: int = 0) -> np.ndarray:
        return self.bytes.products(X)

    def of_pairs(self, X: np.ndarray, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return self.bytes.of_pairs(X, users, items)


def to_bytes(V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes (N, rank) int8 and the roots (N,) float32 of V."""
    signed = np.sqrt(np.abs(V))
    roots = signed.max(axis=1, initial=0) / np.float32(MOST)
    np.copysign(signed, V, out=signed)
    return np.rint(signed / np.where(roots > 0, roots, 1)[:, None]).astype(np.int8), roots


def of_bytes(codes: np.ndarray, roots: np.ndarray | None) -> ByteRows:
    """V (N, rank) of its codes and roots; without roots the codes themselves."""
    return ByteRows(codes, np.ones(len(codes), np.float32) if roots is None else roots * roots)
