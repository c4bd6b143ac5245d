"""Float models as codes: post-training quantization, and what of a model's rankings it keeps.

Any model whose scores are inner products <x_u, y_i> of float rows can be quantized, whoever trained it: a matrix
factorization, a two-tower, a graph network; also an index of this project, whose layers, scales and weights become one
segment. The codes are fitted to the rankings by coordinate descent (``l2q.fitted.descent``), with the settings of
``conf/model/l2q_plus.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from l2q import settings
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.fitted.descent import CoordinateDescent, fit_codes
from l2q.fitted.l2q_plus import MOST_BITS
from l2q.interactions import Interactions, name_array
from l2q.progress import Progress
from l2q.representations import Representations
from l2q.retrieval.index import DenseIndex, PackedIndex

MEASURED_USERS = 10_000  # at most: of more, every so many


@runtime_checkable
class Scored(Protocol):
    """What is asked of an index that is quantized: its rows, and the train items of every user with the names of
    both sides. An ``l2q.retrieval.named.Index``, in memory or on disk, has it."""

    @property
    def representations(self) -> Representations: ...

    @property
    def exclude(self) -> Interactions: ...


@dataclass(frozen=True, eq=False)
class Quantized:
    """Codes of ``representations``; ``exclude``, what every user has and what rows are called; ``recall``, the share of
    the ``k`` best items by the float scores that are among the k best by the codes, each without what the user has,
    the mean over ``num_measured`` users."""

    representations: Representations
    exclude: Interactions
    recall: float
    k: int
    num_measured: int


def quantize(
    users: np.ndarray | Scored,
    items: np.ndarray | None = None,
    *,
    bits: int = 768,
    train: Interactions | None = None,
    user_names: Sequence[str] | None = None,
    item_names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Quantized:
    """Codes of ``bits`` and one scale an item for float rows ``users`` (M, d) and ``items`` (N, d), or for an index
    given in place of ``users``, which brings train items and names of its own.

    ``train``: what users have, M x N, which neither ranking holds; its names are the rows' names unless ``user_names``
    (M,) and ``item_names`` (N,) say others. ``progress(done, total, label)`` is called during the fit. The time grows
    with M N d for the lists of best items, and with (M + N) bits^2 for the codes.

    Raises L2QError for rows that are no finite float32 numbers or differ in width, sizes that disagree, bits outside
    1 .. 8,192, and where no user has a ranking to keep: all products are zero, or all items are train items.

        U, V = model.user_factors, model.item_factors
        codes = quantize(U, V, bits=256, train=train)
        print(f"{codes.recall:.1%} of the {codes.k} best items are kept")
    """
    check_options(bits, seed)
    if isinstance(users, Scored):
        if not (items is None and train is None and user_names is None and item_names is None):
            raise L2QError("an index brings rows, train items and names of its own; give bits and seed alone")
        X, Y = users.representations.factors()
        exclude = users.exclude
    else:
        if items is None:
            raise L2QError("items are missing: give arrays of users and of items, or an index alone")
        X, Y = float_rows(users, "users"), float_rows(items, "items")
        check_widths(X, Y, "users", "items")
        exclude = _named(train, len(X), len(Y), user_names, item_names)
    open_users = np.flatnonzero(exclude.user_degrees < len(Y))
    if not len(open_users):
        raise L2QError(f"every user has all {len(Y):,} items: there is no ranking to keep")
    preset = settings.preset("model/l2q_plus")
    descent, length = CoordinateDescent(**preset["descent"]), preset["length"]
    codes = fit_codes(X, Y, int(bits), descent, length, int(seed), exclude, progress)
    places = np.linspace(0, len(open_users) - 1, min(len(open_users), MEASURED_USERS)).astype(np.int64)
    measured = open_users[np.unique(places)]
    recall, k = _kept(Representations.floats(X, Y), codes, exclude, measured)
    return Quantized(codes, exclude, recall, k, len(measured))


def check_options(bits: int, seed: int, spelled: str = "{}={}") -> None:
    """Raises L2QError for bits outside 1 .. 8,192 and for a seed that is no whole number of at least 0. ``spelled``:
    how the message writes a name and its value."""
    for name, value, least in (("bits", bits, 1), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            raise L2QError(f"{spelled.format(name, repr(value))}; it must be a whole number")
        if value < least:
            raise L2QError(f"{spelled.format(name, value)}; it must be at least {least}")
    if bits > MOST_BITS:
        raise L2QError(f"{spelled.format('bits', bits)}; it must be at most {MOST_BITS:,}")


def float_rows(values: object, called: str) -> np.ndarray:
    """``values`` as float32 (rows, d), one row or more of finite numbers. Raises L2QError for others; ``called``:
    their name in the message."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal lengths; tensors of a GPU
        raise L2QError(f"{called}: expected an array (rows, d) of numbers ({error})") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise L2QError(f"{called}: expected an array (rows, d) of numbers, got {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise L2QError(f"{called}: row {row} holds NaN, infinity or values beyond float32")
    return array


def check_widths(users: np.ndarray, items: np.ndarray, users_called: str, items_called: str) -> None:
    """Raises L2QError where the rows of both sides differ in width."""
    if users.shape[1] != items.shape[1]:
        raise L2QError(
            f"{users_called} has {users.shape[1]} columns, {items_called} {items.shape[1]}; "
            "their products need the same"
        )


def _named(
    train: Interactions | None,
    num_users: int,
    num_items: int,
    user_names: Sequence[str] | None,
    item_names: Sequence[str] | None,
) -> Interactions:
    """Train of the rows' sizes, with the names that are given."""
    if train is None:
        train = Interactions.from_pairs((), (), num_users, num_items)
    if (train.num_users, train.num_items) != (num_users, num_items):
        raise L2QError(
            f"train is {train.num_users:,} users x {train.num_items:,} items, users and items have "
            f"{num_users:,} and {num_items:,} rows; give the train part that they were made from"
        )
    sides = {"user": (user_names, num_users), "item": (item_names, num_items)}
    for side, (names, size) in sides.items():
        if names is not None and len(names) != size:
            raise L2QError(
                f"{side}_names has {len(names):,} names, {side}s {size:,} rows; a row needs one name"
            )
    return replace(
        train,
        user_names=train.user_names if user_names is None else name_array([str(name) for name in user_names]),
        item_names=train.item_names if item_names is None else name_array([str(name) for name in item_names]),
    )


def _kept(
    floats: Representations, codes: Representations, exclude: Interactions, users: np.ndarray
) -> tuple[float, int]:
    """Recall@k of the codes' ranking where the k best items by float scores are held to be the right ones, and k."""
    k = deciding_cutoff(floats.num_items)
    best = DenseIndex(floats).search(users, k, exclude)[1]
    right = Interactions.from_pairs(
        np.repeat(users, k)[best.ravel() >= 0], best[best >= 0], floats.num_users, floats.num_items
    )
    recall = evaluate(PackedIndex.from_representations(codes), right, (k,), exclude).metrics[f"recall_{k}"]
    return recall, k
