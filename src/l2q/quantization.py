"""Float models as codes: post-training quantization, and what of a model's rankings it keeps.

Any model whose scores are inner products <x_u, y_i> of float rows can be quantized, whoever trained it: a matrix
factorization, a two-tower, a graph network; also an index of this project, whose layers, scales and weights become one
segment. The codes are fitted to the rankings by coordinate descent (``l2q.fitted.descent``), with the settings of
``conf/model/l2q_plus.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from l2q import settings
from l2q.errors import L2QError
from l2q.evaluation import deciding_cutoff, evaluate
from l2q.fitted.descent import CoordinateDescent, fit_codes
from l2q.fitted.l2q_plus import MOST_BITS
from l2q.interactions import Interactions, name_array
from l2q.progress import Progress
from l2q.representations import Representations
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index

MEASURED_USERS = 10_000  # at most: of more, every so many


def quantize(
    users: np.ndarray | Index,
    items: np.ndarray | None = None,
    *,
    bits: int | None = None,
    train: Interactions | None = None,
    user_names: Sequence[str] | None = None,
    item_names: Sequence[str] | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Index:
    """Codes of ``bits`` (None: as many as ``l2q_plus`` has) and one scale an item for float rows ``users`` (M, d) and
    ``items`` (N, d), or for an index given in place of ``users``, which brings train items and names of its own.
    ``seed`` None: that of ``conf/config.yaml``.

    ``train``: what users have, M x N, which no recommendation holds; its names are the rows' names unless
    ``user_names`` (M,) and ``item_names`` (N,) say others. ``progress(done, total, label)`` is called during the fit,
    whose time grows with M N d for the lists of best items, and with (M + N) bits^2 for the codes.

    What the codes keep is measured, too: ``manifest["metrics"]["float/recall_20"]`` of the result is the share of the
    20 best items by the float scores that are among the 20 best by the codes, the mean over ``measured_users``. Of
    fewer than 80 items a quarter takes the place of 20, in the key too.

    Raises L2QError for rows that are no finite float32 numbers or differ in width, sizes that disagree, bits outside
    1 .. 8,192, and where no user has a ranking to keep: all products are zero, or all items are train items.

        index = l2q.quantize(model.user_factors, model.item_factors, bits=256, train=train)
        index.recommend("ffmpeg", k=10)
    """
    preset = settings.preset("model/l2q_plus")
    bits = preset["bits"] if bits is None else bits
    seed = settings.defaults()["seed"] if seed is None else seed
    check_options(bits, seed)
    if isinstance(users, Index):
        if not (items is None and train is None and user_names is None and item_names is None):
            raise L2QError("an index brings rows, train items and names of its own; give bits and seed alone")
        X, Y = users.representations.factors()
        exclude, dataset = users.exclude, users.manifest["dataset"]
    else:
        if items is None:
            raise L2QError("items are missing: give arrays of users and of items, or an index alone")
        X, Y = float_rows(users, "users"), float_rows(items, "items")
        check_widths(X, Y, "users", "items")
        exclude, dataset = _named(train, len(X), len(Y), user_names, item_names), ""
    measured = measured_users(exclude)
    if not len(measured):
        raise L2QError(f"every user has all {len(Y):,} items: there is no ranking to keep")
    descent, length = CoordinateDescent(**preset["descent"]), preset["length"]
    codes = fit_codes(X, Y, int(bits), descent, length, int(seed), exclude, progress)
    index, k = Index.of(codes, exclude, dataset=dataset), deciding_cutoff(len(Y))
    index.manifest["metrics"][f"float/recall_{k}"] = _kept(X, Y, index, measured, k)
    return index


def measured_users(exclude: Interactions) -> np.ndarray:
    """Whose rankings say what codes keep: all who lack items, of more than 10,000 every so many; ids, ascending."""
    lacking = np.flatnonzero(exclude.user_degrees < exclude.num_items)
    places = np.linspace(0, len(lacking) - 1, min(len(lacking), MEASURED_USERS)).astype(np.int64)
    return lacking[np.unique(places)]


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


def _kept(X: np.ndarray, Y: np.ndarray, index: Index, users: np.ndarray, k: int) -> float:
    """Recall@k of an index where the k best items by float scores are held to be the right ones."""
    best = DenseIndex(Representations.floats(X, Y)).search(users, k, index.exclude)[1]
    right = Interactions.from_pairs(np.repeat(users, k)[best.ravel() >= 0], best[best >= 0], len(X), len(Y))
    return evaluate(index.index, right, (k,), index.exclude).metrics[f"recall_{k}"]
