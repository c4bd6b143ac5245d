"""``python -m l2q recommend``: what a user would like."""

from __future__ import annotations

import argparse

from l2q.cli import names
from l2q.cli.arguments import add_exact, add_index, add_json, add_length
from l2q.cli.printing import print_ranking
from l2q.errors import L2QError

PLACE = 0
HELP = "items for a known user, or for a new one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_length(parser)
    add_exact(parser)
    add_json(parser)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="a user of the index")
    who.add_argument("--items", metavar="A,B,C", help="what a new user has")
    who.add_argument(
        "--item", metavar="NAME", action="append", help="the same, one name each time, which may hold commas"
    )


def run(
    index: str,
    user: str | None,
    items: str | None,
    item: list[str] | None,
    k: int,
    exact: float,
    as_json: bool,
) -> None:
    """The k best items for a known user, or for a new one that has ``items``, names between commas, or each
    ``item``, a name as it is; what they have is left out."""
    import numpy as np

    from l2q.retrieval.lists import share_of
    from l2q.retrieval.storage import load_index

    opened, owned = load_index(index), item or names.split(items)
    share = share_of(opened.arrays, exact)
    how = "" if share == 1 else f"; approximate, {share:.1%} of the exact Top-20 where it was measured"
    said = {} if share == 1 else {"exact": share}
    if user is not None:
        names.check_user(opened, user)
        popular = bool(opened.without_items(np.array([opened.row("users", user)]))[0])
        title = f"popular items, since {user} has no train items" if popular else f"for {user}{how}"
        asked = {"user": user, **({"popular": True} if popular else {}), **said}
        print_ranking(opened.recommend(user, k, exact=exact), title, asked, as_json)
        return
    if not owned:
        raise L2QError("--items names none; a new user needs at least one item")
    hint = "; for names with commas: --item NAME --item NAME" if items and "," in items else ""
    for name in owned:
        names.check_item(opened, name, hint)
    title = f"for a user with {', '.join(owned)}{how}"
    print_ranking(opened.recommend(items=owned, k=k, exact=exact), title, {"items": owned, **said}, as_json)
