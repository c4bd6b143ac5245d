"""The embedded set, rebuilt from a Debian package index: which package depends on which.

    python -m l2q.data.debian Packages.xz --out src/l2q/data/debian.npz

A user is a binary package, its items are the names in its Pre-Depends, Depends and Recommends, each
clause by its first alternative. The same index gives the same arrays, and with the same zlib the same
bytes. The index of NOTICE lies on every Debian mirror under dists/bookworm/main/binary-amd64/.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions

CORE = 5
TEST_SHARE = 0.2
SPLIT_SEED = 12
RELATIONS = frozenset(("pre-depends", "depends", "recommends"))
NAME = re.compile(r"\s*([a-z0-9][a-z0-9+.-]*)")  # stops before ":any", "(>= 1.2)", "[amd64]", "<!nocheck>"


def read_index(path: Path) -> str:
    """Text of a package index, plain, .gz or .xz.

    Raises L2QError for a file that is missing, damaged or no UTF-8 text.
    """
    try:
        packed = path.read_bytes()
        match path.suffix:
            case ".gz":
                packed = gzip.decompress(packed)
            case ".xz":
                packed = lzma.decompress(packed)
        return packed.decode()
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        raise L2QError(f"{path}: no readable package index ({error}); give a Packages, .gz or .xz") from None


def stanza_fields(stanza: str) -> Iterator[tuple[str, str]]:
    """Lower-case field names with their values; a line that begins with a blank continues the last."""
    for field in re.split(r"\n(?![ \t])", stanza):
        key, _, value = field.partition(":")
        yield key.lower(), value


def dependencies(text: str) -> Iterator[tuple[str, str]]:
    """(package, named package) for every clause of every stanza, in file order, repeats included."""
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = dict(stanza_fields(stanza.strip("\n")))
        if (package := fields.get("package", "").strip()) == "":
            continue
        for relation in RELATIONS & fields.keys():
            for clause in fields[relation].split(","):
                if first := NAME.match(clause):  # what follows "|" are the other alternatives
                    yield package, first[1]


def k_core(pairs: np.ndarray, k: int) -> np.ndarray:
    """The largest set of ``pairs`` (n, 2), distinct, in which every user and every item has k or more."""
    while True:
        keep = np.ones(len(pairs), dtype=bool)
        for side in pairs.T:
            keep &= np.bincount(side)[side] >= k
        if keep.all():
            return pairs
        pairs = pairs[keep]


def holdout_mask(users: np.ndarray, items: np.ndarray, share: float, seed: int) -> np.ndarray:
    """True for test pairs: round(share n) of the n pairs of each user, drawn without replacement.

    Ids run from 0 without gaps. An item that the draw left without any train pair gets its first pair
    back, so that every item can be learned; the user of that pair then has one test item less.
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(users)), users))
    degrees = np.bincount(users)
    starts = np.cumsum(degrees) - degrees
    rank = np.empty(len(users), dtype=np.int64)
    rank[order] = np.arange(len(users)) - np.repeat(starts, degrees)
    test = rank < np.rint(share * degrees)[users]
    _, first = np.unique(items, return_index=True)
    test[first[np.bincount(items[~test], minlength=len(first)) == 0]] = False
    return test


def build(dependencies: Iterable[tuple[str, str]], k: int = CORE) -> dict[str, np.ndarray]:
    """Arrays of the embedded file: both halves of the split in compressed rows, and the names.

    Ids follow the names in sorted order. Names are UTF-8 bytes joined by line feeds.
    Raises L2QError when the k-core is empty.
    """
    distinct = sorted(set(dependencies))
    names, ids = np.unique(np.array(distinct, dtype=str).reshape(-1, 2), return_inverse=True)
    pairs = k_core(ids.reshape(-1, 2), k)
    if len(pairs) == 0:
        raise L2QError(f"the package index has no {k}-core; give the whole Packages file of a release")
    user_names, users = np.unique(pairs[:, 0], return_inverse=True)
    item_names, items = np.unique(pairs[:, 1], return_inverse=True)
    test = holdout_mask(users, items, TEST_SHARE, SPLIT_SEED)
    arrays = {}
    for half, mask in (("train", ~test), ("test", test)):
        rows = Interactions.from_pairs(users[mask], items[mask], len(user_names), len(item_names))
        arrays[f"{half}_indptr"] = rows.indptr.astype(np.int32)
        arrays[f"{half}_items"] = rows.items.astype(np.min_scalar_type(len(item_names)))
    arrays["num_items"] = np.array(len(item_names), dtype=np.int32)
    for side, index in (("user", user_names), ("item", item_names)):
        arrays[f"{side}_names"] = np.frombuffer("\n".join(names[index]).encode(), dtype=np.uint8)
    return arrays


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m l2q.data.debian", description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path, help="Packages, Packages.gz or Packages.xz")
    parser.add_argument("--out", type=Path, required=True, help="the .npz file to write")
    options = parser.parse_args(argv)
    try:
        text = read_index(options.index)
        arrays = build(dependencies(text))
    except L2QError as error:
        print(error, file=sys.stderr)
        return 1
    # numpy dates the members 1980, so no clock gets in
    np.savez_compressed(options.out, **arrays)  # type: ignore[arg-type]
    print(f"Packages sha256 {hashlib.sha256(text.encode()).hexdigest()}")
    print(f"users {len(arrays['train_indptr']) - 1}, items {arrays['num_items']}", end=", ")
    print(f"train {len(arrays['train_items'])}, test {len(arrays['test_items'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
