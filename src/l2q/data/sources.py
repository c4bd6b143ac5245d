"""Named sets: where they live, how they are recognised, fetched once and kept in a binary form."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from l2q import processes, settings
from l2q.data import cache, layouts, tables
from l2q.data.cache import load_embedded
from l2q.data.lightgcn import FILES, read_folder
from l2q.data.splits import SPLITS
from l2q.errors import L2QError
from l2q.events.containers import is_parquet
from l2q.events.databases import database_of
from l2q.interactions import Dataset
from l2q.options import Count, OneOf, Whole, options

OPTIONS = (*tables.READING, "split", "test_fraction", "split_seed", "min_events")
"""Those of a table of events."""
FORMAT = 5
"""Of the cache. Another reader of the same version makes files of its own."""


class _How(Collection[str]):
    """The names of splits, which may become more, and "auto"."""

    def __contains__(self, word: object) -> bool:
        return word == "auto" or word in SPLITS

    def __iter__(self) -> Iterator[str]:
        return iter(("auto", *SPLITS))

    def __len__(self) -> int:
        return len(SPLITS) + 1


HOW = _How()


def load_dataset(name: str, **values: Any) -> Dataset:
    """A set with its ``train`` and ``test``: one that ``conf/dataset`` describes, by name, such as ``debian``, which
    comes with the package; or the one that ``values``, the arguments of ``Source``, describe. It is fetched, verified
    and cached as far as that is needed.

    ``train.reading`` says what reading came to, with counts; what looks odd in it is warned of, every time. Raises
    L2QError, which says what to put where, when the set is absent, unreachable or another one.

        data = l2q.load_dataset("gowalla", dir="data/gowalla")
        index = l2q.fit(data.train, "l2q_plus")
    """
    if name in settings.choices("dataset") and name != "table":
        values = settings.preset(f"dataset/{name}") | values
        values.pop("name")
    dataset = Source(name, **values).load()
    reading = dataset.train.reading
    if reading is not None:
        for note in reading.notes:
            warnings.warn(f"{reading.source}: {note}", stacklevel=2)
    return dataset


@options("dataset")
class Source:
    """Where a set is found, in this order, and how it is recognised; plain values of ``conf/dataset``.

    ``dir``: a folder of ids, ``train.txt`` and ``test.txt`` (``l2q.data.lightgcn``); one with a train and a test table
    (``l2q.data.layouts``); or any table of events that ``l2q.read_events`` takes by an address: a file, a folder of
    parts, a pattern, a database. Else, without ``url``, a file of that name in this package. Else ``train.txt`` and
    ``test.txt`` in ``cache_dir/name``, fetched from the folder ``url`` when they are not there. ``cache_dir``: else
    $L2Q_CACHE, else the user's.

    ``verify`` compares the ``counts`` (users, items, train, test) and the ``fingerprints`` of train and test
    (``Interactions.fingerprint``), or without them the ``md5`` of both files. A download must have its md5.
    ``holdout``: how a part of train is held out that asks as test does, which chooses a teacher; None: by time where
    test comes later, else at random.

    The others are of a table: how it is read (``l2q.read_events``) and split (``l2q.split``). None: as
    ``conf/dataset/table.yaml`` has it.
    """

    name: str
    url: str | None = None
    counts: Mapping[str, int] | None = None
    fingerprints: Mapping[str, str] | None = None
    md5: Mapping[str, str] | None = None
    dir: str | Path | None = None
    verify: bool = True
    holdout: Annotated[str, OneOf(("random", "time", "cluster"))] | None = None
    cache_dir: str | Path | None = None
    user: str | int | None = None
    item: str | int | None = None
    time: str | int | None = None
    value: str | int | None = None
    where: str | None = None
    min_value: float | None = None
    header: bool | None = None
    delimiter: str | None = None
    encoding: str | None = None
    missing: Literal["error", "drop", "keep"] | None = None
    dedupe: Literal["first", "last"] | None = None
    query: str | None = None
    day_first: bool | None = None
    split: Annotated[str, OneOf(HOW)] | None = None
    test_fraction: Annotated[float, Ge(0), Lt(1)] | None = None
    split_seed: Whole | None = None
    min_events: Count | None = None

    def load(self) -> Dataset:
        dataset = self._loaded()
        return (
            replace(dataset, train=replace(dataset.train, holdout=self.holdout)) if self.holdout else dataset
        )

    def _loaded(self) -> Dataset:
        embedded = Path(__file__).with_name(f"{self.name}.npz")
        if not self.dir and not self.url and embedded.is_file():
            self._refuse(OPTIONS, f"{self.name}, which is split already")
            dataset = load_embedded(embedded, self.name)
            self._check(dataset, embedded)
            return dataset
        if self.dir:
            return self._given(str(self.dir))
        place = self._cache / self.name
        fetched = self._fetch(place)
        try:
            return self._kept(place, lambda: self._folder(place))
        except L2QError as error:
            if not fetched:
                raise
            _remove(fetched)
            raise L2QError(f"{error} (fetched from {self.url} and removed again)") from error

    @property
    def in_parts(self) -> bool:
        """Whether several processes may read it together, each some of its rows: one table of Parquet."""
        source = str(self.dir or "")
        if not source or self.query or database_of(source) is not None or not is_parquet(source):
            return False
        place = Path(source).expanduser()
        return not place.is_dir() or layouts.pair(place) is None

    def _given(self, source: str) -> Dataset:
        """From ``dir``."""
        if database_of(source) is not None:  # whose content may be another one at any time
            return self._table(source)
        place = Path(source).expanduser()
        if place.is_dir():
            return self._kept(place, lambda: self._folder(place))
        if not place.exists() and self.counts is not None:
            raise L2QError(f"{self.name}: no {' and no '.join(FILES)} in {place}; {_advice(place)}")
        if not place.exists() and not any(mark in source for mark in "*?["):
            raise L2QError(
                f"{self.name}: {place} does not exist; dataset.dir takes a table of events, a file or a folder of "
                f"parts, or a folder with {' and '.join(FILES)}"
            )
        return self._kept(place, lambda: self._table(source))

    def _folder(self, place: Path) -> Dataset:
        there = [file for file in FILES if (place / file).is_file()]
        if len(there) == 1:
            missing = next(file for file in FILES if file not in there)
            raise L2QError(f"{self.name}: no {missing} in {place}, which has {there[0]}; {_advice(place)}")
        declared = self.counts is not None and len(there) == 2
        forced = isinstance(self.user, int) and isinstance(self.item, int)
        pair = None if declared else layouts.pair(place, forced)
        if pair is not None:
            self._refuse(
                ("split", "test_fraction", "split_seed", "query"), f"{place}, which is split already"
            )
            return tables.read_pair(place, pair, self.name, self._options)
        if there:
            self._refuse(OPTIONS, f"{place}, a folder of ids that is split already")
            return read_folder(place, self.name, declared)
        if self.counts is not None and not any(place.iterdir()):
            raise L2QError(f"{self.name}: no {' and no '.join(FILES)} in {place}; {_advice(place)}")
        return self._table(str(place))

    def _table(self, source: str) -> Dataset:
        options = self._options
        if options["split"] == "last" and options["test_fraction"]:
            self._refuse(("test_fraction",), "split=last, which leaves out one item of each user")
        if not options["test_fraction"]:
            self._refuse(("split", "split_seed"), "test_fraction=0, which leaves nothing to split")
        return tables.read_table(source, self.name, options)

    @property
    def _options(self) -> dict[str, Any]:
        """Those of a table, all of them."""
        usual = settings.preset("dataset/table")
        return {
            option: usual[option] if getattr(self, option) is None else getattr(self, option)
            for option in OPTIONS
        }

    def _refuse(self, options: Sequence[str], where: str) -> None:
        """Raises L2QError where one of them is given that has no effect there."""
        usual = settings.preset("dataset/table")
        for option in options:
            given = getattr(self, option)
            if given not in (None, usual[option]):
                said = f"{given:g}" if isinstance(given, float) else given
                raise L2QError(f"dataset.{option}={said} has no effect on {where}; leave it out")

    @property
    def _cache(self) -> Path:
        chosen = self.cache_dir or os.environ.get("L2Q_CACHE")
        if chosen:
            return Path(chosen).expanduser()
        import pooch

        return Path(pooch.os_cache("l2q"))

    def _fetch(self, place: Path) -> list[Path]:
        """The files that had to be fetched."""
        missing = [file for file in FILES if not (place / file).is_file()]
        if not missing:
            return []
        advice = _advice(place)
        if not self.url:
            raise L2QError(f"{self.name}: no {' and no '.join(missing)} in {place}; {advice}")

        import pooch

        md5 = self.md5 if self.verify and self.md5 else {}
        hashes = {file: f"md5:{md5[part]}" if (part := file[:-4]) in md5 else None for file in missing}
        store = pooch.create(path=place, base_url=self.url.rstrip("/") + "/", registry=hashes)
        fetched: list[Path] = []
        for file in missing:
            try:
                fetched.append(Path(store.fetch(file, downloader=pooch.HTTPDownloader(progressbar=True))))
            except (OSError, ValueError) as error:  # requests raises OSErrors, a wrong hash is a ValueError
                _remove(fetched)
                raise L2QError(
                    f"{self.name}: cannot fetch {store.get_url(file)} ({error}); {advice}"
                ) from error
        return fetched

    def _kept(self, place: Path, make: Callable[[], Dataset]) -> Dataset:
        """From the cache, as long as the files are those that it was made from; else from the files."""
        stamp = _stamp(place)
        asked = {"place": os.path.realpath(place), "declared": self.counts is not None, **self._options}
        key = hashlib.sha256(
            json.dumps([FORMAT, version("l2q"), asked], sort_keys=True).encode()
        ).hexdigest()[:12]
        cached = self._cache / f"{self.name}-{key}.npz"
        dataset = processes.agreed(lambda: cache.read(cached, self.name, stamp))
        if dataset is None or not processes.everywhere(dataset is not None):
            dataset = fresh = make()
            self._check(dataset, place)
            processes.told(lambda: cache.write(cached, fresh, stamp))  # who has the names
        else:
            self._check(dataset, place)
        return dataset

    def _check(self, dataset: Dataset, place: Path) -> None:
        if not self.verify:
            return
        parts = {"train": dataset.train, "test": dataset.test}
        found = {"users": dataset.train.num_users, "items": dataset.train.num_items}
        found |= {part: len(pairs) for part, pairs in parts.items()}
        wrong = [
            f"{found[what]:,} {what if what in ('users', 'items') else f'{what} pairs'} instead of {count:,}"
            for what, count in (self.counts or {}).items()
            if found[what] != count
        ]
        if not wrong and self.fingerprints:
            wrong = [
                f"other {part} pairs (fingerprint {pairs.fingerprint[:12]} instead of {expected[:12]})"
                for part, pairs in parts.items()
                if pairs.fingerprint != (expected := self.fingerprints[part])
            ]
        elif not wrong and self.md5 and place.is_dir():
            for part, expected in self.md5.items():
                md5 = hashlib.md5((place / f"{part}.txt").read_bytes()).hexdigest()
                if md5 != expected:
                    wrong.append(f"another {part}.txt (md5 {md5} instead of {expected})")
        if wrong:
            raise L2QError(
                f"{self.name}: {place} is not the published set: {', '.join(wrong)}; "
                "replace the files, or use them as they are with dataset.verify=false"
            )


def _stamp(place: Path) -> bytes:
    """32 bytes that change with the files of a folder or a pattern: their names, sizes and times."""
    if place.is_dir():
        files = [path for path in place.rglob("*") if path.is_file()]
    elif place.is_file():
        files = [place]
    else:
        files = [Path(name) for name in glob.glob(str(place), recursive=True)]
        files += [path for folder in files if folder.is_dir() for path in folder.rglob("*") if path.is_file()]
    stats = sorted((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return hashlib.sha256(json.dumps(stats).encode()).digest()


def _advice(place: Path) -> str:
    return f"put train.txt and test.txt into {place}, or name a folder that has them: dataset.dir=PATH"


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink()
