"""An index that is asked by name: what ``l2q.fit`` gives and ``l2q.load_index`` opens."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from l2q.errors import L2QError
from l2q.interactions import Interactions, name_array
from l2q.kernels import packing
from l2q.names import RowNumbers
from l2q.progress import Progress
from l2q.representations import Representations, Rows
from l2q.retrieval import lists, shared
from l2q.retrieval.fold_in import FoldIn, HalfRound
from l2q.retrieval.index import Backend, backend, similar_items, stored, unpacked
from l2q.retrieval.lists import ListedIndex, Lists
from l2q.retrieval.popular import Served

if TYPE_CHECKING:
    from l2q.fitted.new_users import FilterSide

MOST_NAMES_COMPARED = 200_000  # comparing more for a suggestion takes longer than a reader waits
FEW_NAMES = 16  # are searched for one by one; of more, all names are numbered once

Name = str | int | np.integer


def _is_name(given: Any) -> bool:
    return isinstance(given, Name)


def _listed(given: Any) -> Sequence[Any]:
    """Raises L2QError for what is neither a name nor a list of names, such as a number with a fraction."""
    try:
        return given if isinstance(given, Sequence) else list(given)
    except TypeError:
        raise L2QError(
            f"{given!r} is no name, and no list of names; a name is a text or a whole number"
        ) from None


class Ranking(NamedTuple):
    """``items`` are names, best first; ``scores`` (k,) float32 are theirs. A ranking is shorter than asked for where no
    more items are left.

        items, scores = index.recommend("ffmpeg", k=10)
    """

    items: list[str]
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Index:
    """Users and items as packed codes, or as float rows, with names and train items. It ranks the whole catalogue; a
    part that is likely to have the best items is looked at where that is asked for (``with_lists``).

        index = l2q.fit(train, "l2q_plus", bits=768)
        items, scores = index.recommend("ffmpeg", k=10)
        index.save("index")

    ``arrays`` and ``manifest`` are those of the files (``l2q.retrieval.storage``), memory-mapped where the index was
    opened from ``folder``. ``names`` of "users" and "items" are read when it is opened; None: the ids are the names.
    """

    manifest: dict[str, Any] = field(repr=False)
    arrays: dict[str, np.ndarray] = field(repr=False)
    names: dict[str, Any] = field(repr=False)
    folder: Path | None = None

    @classmethod
    def of(
        cls,
        representations: Representations,
        train: Interactions,
        *,
        dataset: str = "",
        config_hash: str = "",
        metrics: Mapping[str, float] | None = None,
        filter_side: FilterSide | None = None,
    ) -> Index:
        """An index in memory of rows that somebody else made: it has the names of ``train``, whose items no
        recommendation holds. ``filter_side`` is what codes of new users are fitted to (``l2q.fitted.new_users``).
        Raises L2QError where sizes disagree.

            from l2q.representations import Representations
            rows = Representations.floats(model.user_factors, model.item_factors)  # (num_users, d), (num_items, d)
            index = l2q.Index.of(rows, train)
        """
        from l2q.retrieval.storage import FORMAT, RULES, VERSION

        if (train.num_users, train.num_items) != (representations.num_users, representations.num_items):
            raise L2QError(
                f"train is {train.num_users} users x {train.num_items} items, "
                f"the representations {representations.num_users} x {representations.num_items}"
            )
        arrays: dict[str, np.ndarray] = {
            "items.degrees": train.item_degrees.astype(np.int32),
            "train.indptr": train.indptr,
            "train.items": train.items,
        }
        for side, rows in (("users", representations.users), ("items", representations.items)):
            if rows.binary:
                arrays[f"{side}.codes"] = packing.pack(rows.values, representations.dims)
            else:
                arrays[f"{side}.values"] = np.asarray(rows.values, np.float32)
            if rows.scales is not None:
                arrays[f"{side}.scales"] = rows.scales.astype(representations.scale_dtype)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "dataset": dataset,
            "num_users": representations.num_users,
            "num_items": representations.num_items,
            "dims": [int(dim) for dim in representations.dims],
            "weights": [float(weight) for weight in representations.weights],
            "scale_dtype": representations.scale_dtype,
            **RULES,
            "config_hash": config_hash,
            "metrics": dict(metrics or {}),
        }
        if filter_side is not None:
            arrays["items.filter"], arrays["filter.values"] = filter_side.codes, filter_side.values
            manifest["filter"] = filter_side.options
            if filter_side.roots is not None:
                arrays["filter.roots"] = filter_side.roots
            if filter_side.steps is not None:
                arrays["filter.weights"] = filter_side.steps
        names = {"users": train.user_names, "items": train.item_names}
        return cls(
            manifest,
            arrays,
            {side: of.tolist() if isinstance(of, np.ndarray) else of for side, of in names.items()},
        )

    @overload
    def recommend(self, users: Name, k: int = 10, *, exact: float = 1.0) -> Ranking: ...  # type: ignore[overload-overlap]
    @overload
    def recommend(self, users: Sequence[Name], k: int = 10, *, exact: float = 1.0) -> list[Ranking]: ...
    @overload
    def recommend(  # type: ignore[overload-overlap]
        self, users: None = None, k: int = 10, *, items: Name | Sequence[Name], exact: float = 1.0
    ) -> Ranking: ...
    @overload
    def recommend(
        self, users: None = None, k: int = 10, *, items: Sequence[Sequence[Name]], exact: float = 1.0
    ) -> list[Ranking]: ...
    def recommend(
        self, users: Any = None, k: int = 10, *, items: Any = None, exact: float = 1.0
    ) -> Ranking | list[Ranking]:
        """The ``k`` best items for a user, by name, without the user's train items. With ``items`` in place of a user:
        the best items for a new user who has these, without them. A list of users gives a list of rankings; so does a
        list of lists of items.

        Scores are those of ``l2q.retrieval.index``: comparable within a ranking, not between users. A user without
        train items gets the items with the most users, with a warning; the scores are their users. Raises L2QError for
        an unknown name, which says what is near it. ``exact`` below 1: approximately, as ``search`` has it.

            index.recommend("ffmpeg", k=10)
            index.recommend(["ffmpeg", "blender"], k=10)
            index.recommend(items=["libavcodec59", "libx264-164"], k=10)
        """
        if (users is None) == (items is None):
            raise L2QError("recommend takes users of the index, or the items of a new user: give one of them")
        if users is not None:
            one = _is_name(users)
            rows = np.array(self._row_numbers("users", [users] if one else users), np.int64)
            self._warn_of_unknown(rows)
            found = self.search(rows, self._most(k), self.exclude, exact)
        else:
            items = [items] if _is_name(items) else _listed(items)  # a single name is no list of its letters
            one = all(map(_is_name, items))
            owned_by_each = [[names] if _is_name(names) else names for names in ([items] if one else items)]
            lists = [self._row_numbers("items", names) for names in owned_by_each]
            lengths = [len(owned) for owned in lists]
            queries = self.fold_in(lists)
            exclude = Interactions.from_pairs(
                np.repeat(np.arange(len(lists)), lengths), np.concatenate(lists), len(lists), self.num_items
            )
            found = self.search(queries, self._most(k), exclude, exact)
        rankings = [self._ranking(*pair) for pair in zip(*found, strict=True)]
        return rankings[0] if one else rankings

    @overload
    def similar(self, items: Name, k: int = 10) -> Ranking: ...  # type: ignore[overload-overlap]
    @overload
    def similar(self, items: Sequence[Name], k: int = 10) -> list[Ranking]: ...
    def similar(self, items: Any, k: int = 10) -> Ranking | list[Ranking]:
        """The ``k`` items nearest to an item, by name, itself left out. A list of items gives a list of rankings.
        Codes are scored with the roots of both items' scales, so that lists do not fill up with what is popular; float
        rows by their cosine. Raises L2QError for an unknown name.

            index.similar("libavcodec59", k=5)
        """
        one = _is_name(items)
        rows = np.array(self._row_numbers("items", [items] if one else items), np.int64)
        found = similar_items(self.index, rows, self._most(k))
        rankings = [self._ranking(*pair) for pair in zip(*found, strict=True)]
        return rankings[0] if one else rankings

    def save(self, folder: str | Path) -> Path:
        """Writes the files of the index (``l2q.retrieval.storage``); one that is there is replaced when the new one is
        complete. Returns the folder. Raises L2QError where it holds something else or cannot be written.

            index.save("index")
        """
        from l2q.retrieval.storage import write

        return write(self, folder)

    @property
    def num_users(self) -> int:
        """How many users have a row."""
        return self.manifest["num_users"]

    @property
    def num_items(self) -> int:
        """How many items have a row: the catalogue that every search ranks."""
        return self.manifest["num_items"]

    @property
    def dims(self) -> tuple[int, ...]:
        """The width of every segment of a row."""
        return tuple(self.manifest["dims"])

    @property
    def weights(self) -> np.ndarray:
        """Every segment's factor in the score, (segments,) float32."""
        return np.array(self.manifest["weights"], np.float32)

    @cached_property
    def exclude(self) -> Interactions:
        """The train items of every user, which no recommendation holds."""
        users, items = (
            name_array(found) if isinstance(found, list) else found for found in self.names.values()
        )
        return Interactions(
            self.arrays["train.indptr"], self.arrays["train.items"], self.num_items, users, items
        )

    @cached_property
    def user_names(self) -> Sequence[str]:
        """The name of every user, by row; the row numbers as words where no names were given."""
        return self.names["users"] or RowNumbers(self.num_users)

    @cached_property
    def item_names(self) -> Sequence[str]:
        """The name of every item, likewise."""
        return self.names["items"] or RowNumbers(self.num_items)

    @cached_property
    def representations(self) -> Representations:
        """The rows of both sides, unpacked: eight times the memory of the codes' files."""
        users, items = (unpacked(stored(self.arrays, side), self.dims) for side in ("users", "items"))
        return Representations(users, items, self.dims, self.weights, self.manifest["scale_dtype"])

    @cached_property
    def index(self) -> Backend:
        """What searches by row number (``l2q.retrieval.index``): packed for item codes, dense for float rows. Within
        ``l2q.share_items`` all processes search an index that was opened from a folder."""
        if self.folder is not None and (group := shared.group()) is not None:
            return shared.SharedItems(group, self)
        users, items = (stored(self.arrays, side) for side in ("users", "items"))
        return backend(users, items, self.dims, self.weights)

    @property
    def filter_side(self) -> FilterSide | None:
        """What the codes of new users are fitted to, where the index keeps it."""
        if "filter" not in self.manifest:
            return None
        from l2q.fitted.new_users import FilterSide

        arrays = self.arrays
        return FilterSide(
            arrays["items.filter"],
            arrays.get("filter.roots"),
            arrays["filter.values"],
            self.manifest["filter"],
            arrays.get("filter.weights"),
        )

    @cached_property
    def fold_in(self) -> FoldIn | HalfRound:
        """Makes query rows of new users from lists of item ids."""
        if (side := self.filter_side) is not None:
            return HalfRound(side, self.representations.items, self.exclude)
        return FoldIn(self.representations, self.exclude, self.arrays["items.degrees"])

    def with_lists(
        self, directions: int | None = None, seed: int = 0, progress: Progress | None = None
    ) -> Index:
        """The same index with its items in lists, so that ``exact=0.99`` looks at some of them alone: for millions of
        items (``l2q.retrieval.lists``). They are saved with it. More ``directions`` (twice the root of the items) make
        shorter lists, and take longer. Raises L2QError for float rows of items and for more directions than items.

            listed = l2q.quantize(index, bits=64).with_lists()
            listed.recommend("ffmpeg", k=10, exact=0.99)
        """
        found = lists.made(self.arrays, self.dims, self.weights, self.exclude, directions, seed, progress)
        return replace(self, arrays={**self.arrays, **found.arrays}, folder=None)

    def search(
        self, users: np.ndarray | Rows, k: int, exclude: Interactions | None = None, exact: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """By row numbers of users, or with rows of queries: scores float32 and items int32, both (queries, k), best
        first. Items of ``exclude`` stay out. Where fewer than ``k`` are left, the score is -inf and the item -1. Users
        without items in ``exclude`` get the most popular ones (``l2q.retrieval.popular``).

            scores, items = index.search(np.array([0, 5]), k=10, exclude=index.exclude)

        ``exact`` below 1: the best of those lists alone in which users had this share of their exact Top-20 when lists
        were made. Raises L2QError where the index has none (``with_lists``).
        """
        backend = self.index if exact == 1 else self._by_lists.looking_at(exact)
        return Served(backend, self.arrays["items.degrees"]).search(users, k, exclude)

    @property
    def lists(self) -> Lists | None:
        """What approximate rankings go by, where the index has it; ``lists.share(0.99)`` was measured for 0.99."""
        return Lists.of(self.arrays)

    @cached_property
    def _by_lists(self) -> ListedIndex:
        if self.folder is not None and shared.group() is not None:
            raise L2QError("items that processes share are ranked exactly; leave exact out")
        return ListedIndex.of(self.arrays, self.dims, self.weights)

    def item_rows(self, items: np.ndarray) -> Rows:
        """The rows of items by number, as queries for ``search``.

        An item that takes the place of a user finds items like itself.

            scores, items = index.search(index.item_rows(np.array([3])), k=10)
        """
        return self.index.item_rows(items)

    def row(self, side: str, name: Name) -> int:
        """The row number of a name; ``side`` is "users" or "items".

        Where several have the name it is the first of them. Raises L2QError where none has it.

            index.row("items", "libavcodec59")
        """
        return self._row_numbers(side, [name])[0]

    def _row_numbers(self, side: str, wanted: Sequence[Name]) -> list[int]:
        names = self.user_names if side == "users" else self.item_names
        wanted = _listed(wanted)
        try:
            many = len(wanted) > FEW_NAMES and not isinstance(names, RowNumbers)
            if many or side in self._numbers:
                if side not in self._numbers:  # from the end, so that of equal names the first row stays
                    last = len(names) - 1
                    self._numbers[side] = {name: last - row for row, name in enumerate(reversed(list(names)))}
                return [self._numbers[side][str(name)] for name in wanted]
            return [names.index(str(name)) for name in wanted]
        except (KeyError, ValueError):
            name = next(str(name) for name in wanted if str(name) not in names)
        near = difflib.get_close_matches(name, names[:MOST_NAMES_COMPARED], n=3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise L2QError(f"no {side[:-1]} is named {name!r} among {len(names):,}{hint}")

    @cached_property
    def _numbers(self) -> dict[str, dict[str, int]]:
        """Rows by name. A side is numbered when many of its names are asked for at once, since that takes as long as
        searching for twenty names one by one."""
        return {}

    def without_items(self, rows: np.ndarray) -> np.ndarray:
        """Which of the users in ``rows`` have no train items, (rows,) of true and false.

        They are shown what is popular.

            index.without_items(np.arange(index.num_users)).sum()
        """
        return (self.exclude.user_degrees[rows] == 0) & bool(self.arrays["items.degrees"].any())

    def _warn_of_unknown(self, rows: np.ndarray) -> None:
        unknown = rows[self.without_items(rows)]
        if len(unknown):
            who = "the user" if len(rows) == 1 else f"{len(unknown):,} of {len(rows):,} users, such as"
            warnings.warn(
                f"{who} {self.user_names[unknown[0]]!r} has no train items: the most popular items come instead; "
                "recommend(items=[...]) goes by what a new user has",
                stacklevel=3,
            )

    def _most(self, k: int) -> int:
        if isinstance(k, bool) or not isinstance(k, int | np.integer):
            raise L2QError(f"k={k!r} is no whole number; give how many items are asked for")
        return min(k, self.num_items)

    def _ranking(self, scores: np.ndarray, items: np.ndarray) -> Ranking:
        found = items >= 0
        return Ranking([self.item_names[item] for item in items[found]], scores[found])
