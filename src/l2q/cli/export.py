"""``python -m l2q export``: the codes for a search engine."""

from __future__ import annotations

import argparse

from l2q.cli.arguments import add_index
from l2q.errors import L2QError

PLACE = 4
HELP = "item codes as a FAISS IndexBinaryFlat"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    parser.add_argument("--out", required=True, metavar="FILE")


def run(index: str, out: str) -> None:
    """The item codes as a FAISS IndexBinaryFlat; a user's packed row in ``users.codes.npy`` is its query."""
    import numpy as np

    from l2q.files import replaced_file, writing
    from l2q.retrieval.storage import load_index

    try:
        import faiss
    except ImportError as error:
        raise L2QError("export writes a FAISS index; install it: pip install faiss-cpu") from error
    opened = load_index(index)
    codes = opened.arrays.get("items.codes")
    if codes is None or "users.codes" not in opened.arrays:
        raise L2QError(
            f"index {index} holds float values; give users.values.npy and items.values.npy to FAISS"
        )
    binary = faiss.IndexBinaryFlat(8 * codes.shape[1])
    binary.add(np.ascontiguousarray(codes))
    with writing(out, codes.nbytes, "--out"), replaced_file(out) as fresh:
        fresh.write_bytes(faiss.serialize_index_binary(binary).tobytes())
    print(f"{opened.num_items:,} items x {8 * codes.shape[1]} bits in {out}")
    scaled = "items.scales" in opened.arrays or "users.scales" in opened.arrays
    if scaled or len(set(opened.manifest["weights"])) > 1:
        print("note: FAISS ranks by Hamming distance alone, which cannot express the scales and weights here")
