"""``python -m l2q quantize``: packed codes of a float model."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from l2q.errors import L2QError

if TYPE_CHECKING:
    import numpy as np

PLACE = 5
HELP = "float embeddings of any model to a packed index"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--index", metavar="DIR", help="index of a run, float or layer-wise; or of arrays:")
    parser.add_argument("--users", metavar="U.npy", help="(users, d) float")
    parser.add_argument("--items", metavar="V.npy", help="(items, d) float")
    parser.add_argument("--train", metavar="FILE", help="what users have, a line 'user item item ...' each")
    parser.add_argument("--user-names", metavar="FILE", help="a name a line, in row order")
    parser.add_argument("--item-names", metavar="FILE", help="the same for items")
    parser.add_argument("--bits", type=int, help="of a row (as conf/model/l2q_plus.yaml)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new index")
    parser.add_argument("--seed", type=int, help="of the fit (as conf/config.yaml)")


def run(index: str | None, out: str, bits: int | None, seed: int | None, **arrays: str | None) -> None:
    """Packed codes of any model whose scores are inner products, and what they cost: Recall@20 of the codes' ranking
    against the model's own. The model is the ``index`` of a run, or ``arrays`` in files."""
    from l2q.evaluation import deciding_cutoff
    from l2q.progress import progress_bars
    from l2q.quantization import check_options, measured_users, quantize
    from l2q.retrieval.storage import check_replaceable, compression, load_index

    check_options(1 if bits is None else bits, 0 if seed is None else seed, spelled="--{} {}")
    check_replaceable(out)
    if index is not None:
        if any(arrays.values()):
            raise L2QError(
                "--index brings rows, train items and names of its own; give it without their options"
            )
        opened = load_index(index)
        if os.path.realpath(out) == os.path.realpath(index):  # which may be links in a circle
            raise L2QError(f"--out {out} is the index that is quantized; give another folder")
        source: dict[str, Any] = {"users": opened}
        before = compression(opened.manifest)["item_bytes"]
    else:
        source = _read(**arrays)
        before = 4 * source["users"].shape[1]
    with progress_bars(stderr=True) as progress:
        codes = quantize(**source, bits=bits, seed=seed, progress=progress)
    folder = codes.save(out)
    item_bytes, k = compression(folder)["item_bytes"], deciding_cutoff(codes.num_items)
    print(f"{codes.num_users:,} users and {codes.num_items:,} items x {codes.dims[0]} bits in {folder}")
    print(f"{item_bytes:.1f} bytes an item instead of {before:.1f} ({before / item_bytes:.1f} x smaller)")
    print(
        f"Recall@{k} against the ranking of the {'index' if index else 'arrays'}: "
        f"{codes.manifest['metrics'][f'float/recall_{k}']:.4f} ({len(measured_users(codes.exclude)):,} users)"
    )


def _read(
    users: str | None, items: str | None, train: str | None, user_names: str | None, item_names: str | None
) -> dict[str, Any]:
    """The arguments of ``quantize`` from files; what cannot be used is told by option and file."""
    from l2q.data.lightgcn import read_lightgcn
    from l2q.interactions import Interactions
    from l2q.quantization import check_widths

    if users is None or items is None:
        raise L2QError("give --index DIR of a run, or --users U.npy and --items V.npy of another program")
    X, Y = _read_rows(users, "--users"), _read_rows(items, "--items")
    check_widths(X, Y, "--users", "--items")
    names = {
        "user_names": _read_names(user_names, len(X), "--user-names", "--users"),
        "item_names": _read_names(item_names, len(Y), "--item-names", "--items"),
    }
    owners, owned = read_lightgcn(train) if train else ((), ())
    try:
        has = Interactions.from_pairs(owners, owned, len(X), len(Y))
    except L2QError as error:
        raise L2QError(f"--train {train}: {error}, the rows of --users and --items") from error
    return {"users": X, "items": Y, "train": has, **names}


def _read_rows(path: str, option: str) -> np.ndarray:
    """(rows, d) float32 from an .npy file."""
    import zipfile

    import numpy as np

    from l2q.files import read_array
    from l2q.quantization import float_rows

    try:
        archive = zipfile.is_zipfile(path)
        values = np.load(path, allow_pickle=False) if archive else read_array(path, mapped=True)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "no .npy file of numbers"
        raise L2QError(f"{option} {path} cannot be read: {reason}") from error
    if not isinstance(values, np.ndarray):  # an archive of several
        raise L2QError(
            f"{option} {path}: expected an array (rows, d) of numbers, got {type(values).__name__}; "
            "save one array, by numpy.save"
        )
    return float_rows(values, f"{option} {path}")


def _read_names(path: str | None, size: int, option: str, rows: str) -> list[str] | None:
    from l2q.data.names import read_names

    if path is None:
        return None
    names = read_names(path).tolist()
    if len(names) != size:
        raise L2QError(
            f"{option} {path} has {len(names):,} lines, {rows} {size:,} rows; a row needs one name"
        )
    return names
