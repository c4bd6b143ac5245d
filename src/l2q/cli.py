"""``python -m l2q``: ask an index by name, from the command line. Thin; heavy imports inside the commands."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2q.errors import L2QError

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from l2q.retrieval.storage import StoredIndex

BATCH_USERS = 4096
BATCH_RANKED = 2**25  # items and scores of a batch: 256 MiB, however long the rankings
MOST_BITS = 8192  # the rotation before a fit takes time with their cube
MOST_NAMES_COMPARED = 200_000  # comparing more for a suggestion takes longer than a reader waits


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0, or 2 after one line on stderr about input that cannot be used."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("run")
    try:
        command(**arguments)
    except L2QError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def recommend(
    index: str, user: str | None, items: str | None, item: list[str] | None, k: int, as_json: bool
) -> None:
    """The k best items for a known user, or for a new one that has ``items``, names between commas, or each
    ``item``, a name as it is; what they have is left out."""
    import numpy as np

    from l2q.interactions import Interactions
    from l2q.retrieval.storage import load_index

    stored, names = load_index(index), item or _split(items)
    k = min(k, stored.num_items)
    if user is not None:
        row = _row(user, stored.user_names, "user")
        scores, found = stored.search(np.array([row]), k, stored.exclude)
        title = f"for {user}"
    else:
        if not names:
            raise L2QError("--items names none; a new user needs at least one item")
        hint = "; for names with commas: --item NAME --item NAME" if items and "," in items else ""
        owned = [_item(stored, name, hint) for name in names]
        exclude = Interactions.from_pairs([0] * len(owned), owned, 1, stored.num_items)
        scores, found = stored.search(stored.fold_in([owned]), k, exclude)
        title = f"for a user with {', '.join(names)}"
    asked = {"user": user} if user is not None else {"items": names}
    _show(stored, title, asked, scores[0], found[0], as_json)


def similar(index: str, item: str, k: int, as_json: bool) -> None:
    """The k items most like one."""
    from l2q.retrieval.index import similar_items
    from l2q.retrieval.storage import load_index

    stored = load_index(index)
    row = _item(stored, item)
    scores, found = similar_items(stored.index, row, min(k, stored.num_items))
    _show(stored, f"like {item}", {"item": item}, scores, found, as_json)


def batch(index: str, out: str, k: int) -> None:
    """The k best items for every user, as Parquet: one row a user, ``user``, ``items``, ``scores``.

    Memory holds a few thousand users at a time; the file appears under its name when it is complete.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from l2q.files import replaced_file
    from l2q.progress import steps
    from l2q.retrieval.storage import load_index

    target = Path(out)
    if target.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".txt"):
        raise L2QError(
            f"--out {out}: the lists are written as Parquet; give {target.with_suffix('.parquet')}"
        )
    if target.exists() and not target.is_file():  # "" is this folder; a device would be replaced
        raise L2QError(f"--out {out!r} is no regular file; give FILE.parquet")
    if not target.parent.is_dir():
        raise L2QError(f"--out {out} cannot be written: {target.parent} is no folder")
    stored = load_index(index)
    k = min(k, stored.num_items)
    names = pa.array(stored.item_names, pa.string())
    listed = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    schema = pa.schema([("user", pa.string()), ("items", listed), ("scores", pa.list_(pa.float32()))])
    try:
        with (
            replaced_file(target) as fresh,
            pq.ParquetWriter(fresh, schema) as writer,
            steps(stderr=True) as progress,
        ):
            step = min(BATCH_USERS, max(BATCH_RANKED // max(k, 1), 1))
            for start in range(0, stored.num_users, step):
                stop = min(start + step, stored.num_users)
                scores, items = stored.search(np.arange(start, stop), k, stored.exclude)
                found = items >= 0
                offsets = pa.array(np.concatenate(([0], np.cumsum(found.sum(axis=1)))), pa.int32())
                chosen = pa.DictionaryArray.from_arrays(pa.array(items[found]), names)
                columns = [
                    pa.array(stored.user_names[start:stop], pa.string()),
                    pa.ListArray.from_arrays(offsets, chosen),
                    pa.ListArray.from_arrays(offsets, pa.array(scores[found])),
                ]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                progress(stop, stored.num_users, "users")
    except OSError as error:
        raise L2QError(f"--out {out} cannot be written: {error.strerror or error}") from error
    print(f"{stored.num_users:,} users x {k} items in {target}")


def info(index: str, as_json: bool) -> None:
    """Sizes, bytes and metrics of an index; checks its files on the way."""
    from rich.table import Table

    from l2q.retrieval.storage import compression, load_index

    stored = load_index(index)
    manifest, sizes = stored.manifest, compression(stored.manifest)
    folder_bytes = sum(path.stat().st_size for path in stored.folder.iterdir())
    filter_bytes = sum(
        entry["bytes"] for name, entry in manifest["files"].items() if "filter" in name.split(".")
    )
    if as_json:
        more = {**sizes, "new_users_bytes": filter_bytes, "folder_bytes": folder_bytes}
        print(json.dumps({**manifest, **more}, indent=2, ensure_ascii=False))
        return
    kind = "bits" if stored.arrays.get("items.codes") is not None else "float32 values"
    scaled = [side for side in ("users", "items") if f"{side}.scales" in stored.arrays]
    table = Table("", "", title=f"index {stored.folder}", show_header=False)
    for name, value in {
        "dataset": manifest["dataset"] or "-",
        "users x items": f"{stored.num_users:,} x {stored.num_items:,}",
        "row": f"{' + '.join(map(str, stored.dims))} {kind}",
        "scales": f"{manifest['scale_dtype']}, {' and '.join(scaled)}" if scaled else "none",
        "train interactions": f"{len(stored.exclude):,}",
        "bytes per user": f"{sizes['user_bytes']:.1f}",
        "bytes per item": f"{sizes['item_bytes']:.1f}",
        f"smaller than float32, d = {stored.dims[0]}": f"{sizes['compression']:.2f} x",
        "smaller than float32, d = 64": f"{sizes['compression_d64']:.2f} x",
        "for new users": f"{filter_bytes:,} bytes" if filter_bytes else "-",
        "whole folder": f"{folder_bytes:,} bytes",
        "config": manifest["config_hash"] or "-",
        **{name: f"{value:.4f}" for name, value in manifest["metrics"].items()},
    }.items():
        table.add_row(name, value)
    _console().print(table)


def export(index: str, out: str) -> None:
    """The item codes as a FAISS IndexBinaryFlat; a user's packed row in ``users.codes.npy`` is its query."""
    import numpy as np

    from l2q.retrieval.storage import load_index

    try:
        import faiss
    except ImportError as error:
        raise L2QError("export writes a FAISS index; install it: pip install faiss-cpu") from error
    stored = load_index(index)
    codes = stored.arrays.get("items.codes")
    if codes is None or "users.codes" not in stored.arrays:
        raise L2QError(
            f"index {index} holds float values; give users.values.npy and items.values.npy to FAISS"
        )
    binary = faiss.IndexBinaryFlat(8 * codes.shape[1])
    binary.add(np.ascontiguousarray(codes))
    try:
        faiss.write_index_binary(binary, out)
    except RuntimeError as error:
        raise L2QError(f"--out {out} cannot be written") from error
    print(f"{stored.num_items:,} items x {8 * codes.shape[1]} bits in {out}")
    scaled = "items.scales" in stored.arrays or "users.scales" in stored.arrays
    if scaled or len(set(stored.manifest["weights"])) > 1:
        print("note: FAISS ranks by Hamming distance alone, which cannot express the scales and weights here")


def quantize(
    index: str | None,
    users: str | None,
    items: str | None,
    train: str | None,
    user_names: str | None,
    item_names: str | None,
    bits: int,
    out: str,
    seed: int,
) -> None:
    """Packed codes of any model whose scores are inner products, by coordinate descent, and what they cost:
    Recall@20 of the codes' ranking against the model's own. The model is the ``index`` of a run, or arrays."""
    import numpy as np

    from l2q.data.readers import read_lightgcn
    from l2q.evaluation import deciding_cutoff, evaluate
    from l2q.fitted.descent import CoordinateDescent, fit_codes
    from l2q.interactions import Interactions
    from l2q.progress import steps
    from l2q.representations import Representations, Rows
    from l2q.retrieval.index import DenseIndex
    from l2q.retrieval.storage import check_replaceable, compression, load_index, save_index, update_metrics

    for option, value, least in (("--bits", bits, 1), ("--seed", seed, 0)):
        if value < least:
            raise L2QError(f"{option} {value}; it must be at least {least}")
    if bits > MOST_BITS:
        raise L2QError(f"--bits {bits}; it must be at most {MOST_BITS:,}")
    check_replaceable(out)
    if index is not None:
        if users or items or train or user_names or item_names:
            raise L2QError(
                "--index brings rows, train items and names of its own; give it without their options"
            )
        stored = load_index(index)
        X, Y = stored.representations.factors()
        dataset = stored.manifest["dataset"]
        names, exclude = [stored.names("users"), stored.names("items")], stored.exclude
        before = compression(stored.manifest)["item_bytes"]
        if Path(out).resolve() == stored.folder.resolve():
            raise L2QError(f"--out {out} is the index that is quantized; give another folder")
    elif users is None or items is None:
        raise L2QError("give --index DIR of a run, or --users U.npy and --items V.npy of another program")
    else:
        X, Y = _embeddings(users, "--users"), _embeddings(items, "--items")
        if X.shape[1] != Y.shape[1]:
            raise L2QError(
                f"--users has {X.shape[1]} columns, --items {Y.shape[1]}; their products need the same"
            )
        names = [
            _names(user_names, len(X), "--user-names", "--users"),
            _names(item_names, len(Y), "--item-names", "--items"),
        ]
        owners, owned = read_lightgcn(train) if train else ((), ())
        try:
            exclude = Interactions.from_pairs(owners, owned, len(X), len(Y))
        except L2QError as error:
            raise L2QError(f"--train {train}: {error}, the rows of --users and --items") from error
        before, dataset = 4 * X.shape[1], ""
    (num_users, width), num_items = X.shape, len(Y)
    open_users = np.flatnonzero(exclude.user_degrees < num_items)
    if not len(open_users):
        raise L2QError(f"every user has all {num_items:,} items: there is no ranking to keep")
    with steps(stderr=True) as progress:
        codes = fit_codes(X, Y, CoordinateDescent(bits=bits), seed, exclude, progress=progress)

    k = deciding_cutoff(num_items)
    places = np.linspace(0, len(open_users) - 1, min(len(open_users), 10_000)).astype(np.int64)
    sample = open_users[np.unique(places)]
    floats = Representations(Rows(X), Rows(Y), (width,), np.ones(1, np.float32))
    best = DenseIndex(floats).search(sample, k, exclude)[1]
    truth = Interactions.from_pairs(
        np.repeat(sample, k)[best.ravel() >= 0], best[best >= 0], num_users, num_items
    )
    folder = save_index(out, codes, exclude, user_names=names[0], item_names=names[1], dataset=dataset)
    recall = evaluate(load_index(folder).index, truth, (k,), exclude).metrics[f"recall_{k}"]
    update_metrics(folder, {f"float/recall_{k}": recall})
    item_bytes = compression(folder)["item_bytes"]
    print(f"{num_users:,} users and {num_items:,} items x {bits} bits in {folder}")
    print(f"{item_bytes:.1f} bytes an item instead of {before:.1f} ({before / item_bytes:.1f} x smaller)")
    print(
        f"Recall@{k} against the ranking of the {'index' if index else 'arrays'}: {recall:.4f} ({len(sample):,} users)"
    )


def _embeddings(path: str, option: str) -> np.ndarray:
    """(rows, d) float32 from an .npy file."""
    import zipfile

    import numpy as np

    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or "no .npy file of numbers"
        raise L2QError(f"{option} {path} cannot be read: {reason}") from error
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != 2
        or values.dtype.kind not in "fiu"
        or 0 in values.shape
    ):
        advice = "; save one array, by numpy.save" if not hasattr(values, "shape") else ""
        raise L2QError(
            f"{option} {path}: expected an array (rows, d) of numbers, got {_shape(values)}{advice}"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise L2QError(f"{option} {path}: row {row} holds NaN, infinity or values beyond float32")
    return values


def _names(path: str | None, size: int, option: str, rows: str) -> list[str] | None:
    from l2q.data.readers import read_names

    if path is None:
        return None
    names = read_names(path).tolist()
    if len(names) != size:
        raise L2QError(
            f"{option} {path} has {len(names):,} lines, {rows} {size:,} rows; a row needs one name"
        )
    return names


def _shape(values: Any) -> str:
    return f"{values.dtype} {values.shape}" if hasattr(values, "shape") else type(values).__name__


def _show(
    stored: StoredIndex,
    title: str,
    asked: dict[str, Any],
    scores: np.ndarray,
    found: np.ndarray,
    as_json: bool,
) -> None:
    from rich.table import Table

    ranked = [
        (stored.item_names[int(item)], float(score))
        for item, score in zip(found, scores, strict=True)
        if item >= 0
    ]
    if as_json:
        ranking = [{"item": name, "score": score} for name, score in ranked]
        print(json.dumps({**asked, "ranking": ranking}, ensure_ascii=False))
        return
    table = Table("rank", "item", "score", title=title)
    for rank, (name, score) in enumerate(ranked, 1):
        table.add_row(str(rank), name, f"{score:,.0f}" if abs(score) >= 1000 else f"{score:.4g}")
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, emoji=False)  # names are no markup: "Alien [uncut]", ":smile:"


def _split(names: str | None) -> list[str]:
    return [name.strip() for name in (names or "").split(",") if name.strip()]


def _row(name: str, names: Sequence[str], what: str, advice: str = "") -> int:
    try:
        row = names.index(name)
    except ValueError:
        near = difflib.get_close_matches(name, names[:MOST_NAMES_COMPARED], n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise L2QError(f"no {what} is named {name!r} among {len(names):,}{hint}{advice}") from None
    if (count := names.count(name)) > 1:
        warnings.warn(f"{count} {what}s are named {name!r}; the first, row {row}, is taken", stacklevel=2)
    return row


def _item(stored: StoredIndex, name: str, advice: str = "") -> int:
    row, degrees = _row(name, stored.item_names, "item", advice), stored.arrays["items.degrees"]
    if degrees.any() and not degrees[row]:
        warnings.warn(f"no user of train has {name!r}: a ranking by it means nothing", stacklevel=2)
    return row


def report(folder: str, figure: str | None) -> None:
    """Markdown tables of all runs whose metrics.json lie below ``folder``; quality against bits as a picture."""
    import l2q.report

    runs = l2q.report.read(folder)
    print("\n\n".join(filter(None, (l2q.report.overview(runs), l2q.report.markdown(runs)))))
    if figure:
        l2q.report.figure(runs, figure)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m l2q", description="Ask a 1-bit index by name.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        run, text: str, index: bool = True, ranks: bool = False, as_json: bool = False
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__, help=text, description=text)
        added.set_defaults(run=run)
        if index:
            added.add_argument("--index", required=True, metavar="DIR", help="folder of the index")
        if ranks:
            added.add_argument("-k", type=int, default=20, help="length of the ranking (20)")
        if as_json:
            added.add_argument("--json", action="store_true", dest="as_json", help="JSON instead of a table")
        return added

    asked = command(recommend, "items for a known user, or for a new one", ranks=True, as_json=True)
    who = asked.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="a user of the index")
    who.add_argument("--items", metavar="A,B,C", help="what a new user has")
    who.add_argument(
        "--item", metavar="NAME", action="append", help="the same, one name each time, which may hold commas"
    )
    liked = command(similar, "items like another", ranks=True, as_json=True)
    liked.add_argument("--item", required=True, metavar="NAME")
    every = command(batch, "items for every user, as Parquet", ranks=True)
    every.add_argument("--out", required=True, metavar="FILE.parquet")
    command(info, "sizes, bytes and metrics", as_json=True)
    binary = command(export, "item codes as a FAISS IndexBinaryFlat")
    binary.add_argument("--out", required=True, metavar="FILE")
    fitted = command(quantize, "float embeddings of any model to a packed index", index=False)
    fitted.add_argument("--index", metavar="DIR", help="index of a run, float or layer-wise; or of arrays:")
    fitted.add_argument("--users", metavar="U.npy", help="(users, d) float")
    fitted.add_argument("--items", metavar="V.npy", help="(items, d) float")
    fitted.add_argument("--train", metavar="FILE", help="what users have, a line 'user item item ...' each")
    fitted.add_argument("--user-names", metavar="FILE", help="a name a line, in row order")
    fitted.add_argument("--item-names", metavar="FILE", help="the same for items")
    fitted.add_argument("--bits", type=int, default=768, help="of a row (768)")
    fitted.add_argument("--out", required=True, metavar="DIR", help="folder of the new index")
    fitted.add_argument("--seed", type=int, default=0)
    tables = command(report, "results tables from stored metrics.json files", index=False)
    tables.add_argument("folder", metavar="DIR")
    tables.add_argument("--figure", metavar="FILE.png", help="draw quality against bits")
    return parser
