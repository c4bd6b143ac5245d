"""A reader of the index folder that knows only its files: plain NumPy, nothing else of this package.

    python -m l2q.retrieval.reference INDEX_DIR --k 20 --out FILE.npz [--users ROWS.npy]

ranks the catalogue for every user, or for the given rows, and leaves out train items. "-" in place of a file is the
standard stream. It works on the packed bytes as
they lie on disk, by xor and bit counts instead of products of signs, as any other program would have to.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np


def reference_search(folder, users=None, k: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, k) float32 and items (n, k) int32 of ``users`` (default: all), best first, lower id first
    among equals; padded with -inf and -1."""
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    dims, weights = manifest["dims"], np.array(manifest["weights"], np.float32)
    num_items = manifest["num_items"]
    users = np.arange(manifest["num_users"]) if users is None else np.asarray(users)
    indptr, train = _load(folder, "train.indptr"), _load(folder, "train.items")
    user_segments, item_segments = (_segments(folder, side, dims) for side in ("users", "items"))
    user_scales = _scales(folder, "users", manifest["num_users"], len(dims))
    item_scales = _scales(folder, "items", num_items, len(dims))

    scores = np.full((len(users), k), -np.inf, np.float32)
    items = np.full((len(users), k), -1, np.int32)
    for place, user in enumerate(users):
        total = np.zeros(num_items, np.float32)
        for s, dim in enumerate(dims):
            dot = _dot(user_segments[s][:, user], item_segments[s], dim)
            total += ((weights[s] * user_scales[user, s]) * dot) * item_scales[:, s]
        total[train[indptr[user] : indptr[user + 1]]] = -np.inf
        if k < num_items:
            threshold = np.partition(total, num_items - k)[num_items - k]
            candidates = np.flatnonzero((total >= threshold) & (total > -np.inf))
        else:
            candidates = np.flatnonzero(total > -np.inf)
        best = candidates[np.lexsort((candidates, -total[candidates]))][:k]
        scores[place, : len(best)], items[place, : len(best)] = total[best], best
    return scores, items


def _load(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", allow_pickle=False)


def _segments(folder: Path, side: str, dims: list[int]) -> list[np.ndarray]:
    """One array per segment, rows last: (words, rows) uint64 of bits, or (dim, rows) float32 where either
    side is float."""
    others = {"users": "items", "items": "users"}
    if not (folder / f"{side}.codes.npy").exists():
        return np.split(_load(folder, f"{side}.values").T, np.cumsum(dims)[:-1])
    widths = [-(-dim // 8) for dim in dims]
    parts = np.split(_load(folder, f"{side}.codes"), np.cumsum(widths)[:-1], axis=1)
    if (folder / f"{others[side]}.codes.npy").exists():
        return [
            np.ascontiguousarray(np.pad(part, ((0, 0), (0, -part.shape[1] % 8))).view(np.uint64).T)
            for part in parts
        ]
    return [
        np.unpackbits(part, axis=1, count=dim, bitorder="little").T * np.float32(2) - np.float32(1)
        for part, dim in zip(parts, dims, strict=True)
    ]


def _scales(folder: Path, side: str, rows: int, segments: int) -> np.ndarray:
    if not (folder / f"{side}.scales.npy").exists():
        return np.ones((rows, segments), np.float32)
    return _load(folder, f"{side}.scales").astype(np.float32)


def _dot(query: np.ndarray, items: np.ndarray, dim: int) -> np.ndarray:
    """<q, q_i> of one query with every item: dim - 2 popcount(q xor q_i) for bits."""
    if query.dtype != np.uint64:
        return query @ items
    differing = np.zeros(items.shape[1], np.int32)
    for word, bits in zip(items, query, strict=True):
        differing += np.bitwise_count(word ^ bits)
    return (dim - 2 * differing).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Rank every user from the files of an index, with NumPy.")
    parser.add_argument("folder")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--out", required=True, help="an .npz file: scores and items, (users, k)")
    parser.add_argument("--users", help="an .npy file of user rows (default: all users)")
    arguments = parser.parse_args()
    given = io.BytesIO(sys.stdin.buffer.read()) if arguments.users == "-" else arguments.users
    rows = np.load(given, allow_pickle=False) if given else None
    all_scores, all_items = reference_search(arguments.folder, rows, arguments.k)
    found = io.BytesIO()
    np.savez(found, scores=all_scores, items=all_items)
    if arguments.out == "-":
        sys.stdout.buffer.write(found.getvalue())
    else:
        Path(arguments.out).write_bytes(found.getvalue())
