"""Arguments that several commands have."""

from __future__ import annotations

import argparse


def add_index(parser: argparse.ArgumentParser) -> None:
    """``index``: the folder of the index that is asked."""
    parser.add_argument("--index", required=True, metavar="DIR", help="folder of the index")


def add_length(parser: argparse.ArgumentParser) -> None:
    """``k``: how many items a ranking has."""
    parser.add_argument("-k", type=int, default=20, help="length of the ranking (20)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """``as_json``: for programs, one JSON object instead of the table."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="JSON instead of a table")
