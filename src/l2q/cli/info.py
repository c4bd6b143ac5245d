"""``python -m l2q info``: what an index is and what it costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from l2q.cli.arguments import add_index, add_json
from l2q.cli.printing import print_json, print_table
from l2q.errors import printable

PLACE = 3
HELP = "sizes, bytes and metrics"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_json(parser)


def run(index: str, as_json: bool) -> None:
    """Sizes, bytes and metrics of an index; checks its files on the way."""
    from rich.table import Table

    from l2q.retrieval.storage import compression, load_index

    opened = load_index(index)
    manifest, sizes = opened.manifest, compression(opened.manifest)
    folder_bytes = sum(path.stat().st_size for path in Path(index).iterdir())
    filter_bytes = sum(
        entry["bytes"] for name, entry in manifest["files"].items() if "filter" in name.split(".")
    )
    if as_json:
        print_json({**manifest, **sizes, "new_users_bytes": filter_bytes, "folder_bytes": folder_bytes}, 2)
        return
    kind = "bits" if opened.arrays.get("items.codes") is not None else "float32 values"
    scaled = [side for side in ("users", "items") if f"{side}.scales" in opened.arrays]
    table = Table("", "", title=printable(f"index {Path(index)}"), show_header=False)
    for name, value in {
        "dataset": manifest["dataset"] or "-",
        "users x items": f"{opened.num_users:,} x {opened.num_items:,}",
        "row": f"{' + '.join(map(str, opened.dims))} {kind}",
        "scales": f"{manifest['scale_dtype']}, {' and '.join(scaled)}" if scaled else "none",
        "train interactions": f"{len(opened.exclude):,}",
        "bytes per user": f"{sizes['user_bytes']:.1f}",
        "bytes per item": f"{sizes['item_bytes']:.1f}",
        f"smaller than float32, d = {opened.dims[0]}": f"{sizes['compression']:.2f} x",
        "smaller than float32, d = 64": f"{sizes['compression_d64']:.2f} x",
        "for new users": f"{filter_bytes:,} bytes" if filter_bytes else "-",
        "lists": f"{len(opened.lists.codes):,}, for approximate rankings" if opened.lists else "-",
        "whole folder": f"{folder_bytes:,} bytes",
        "config": manifest["config_hash"] or "-",
        **{name: f"{value:.4f}" for name, value in manifest["metrics"].items()},
    }.items():
        table.add_row(printable(name), printable(value))
    print_table(table)
