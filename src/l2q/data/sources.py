"""Named sets: where they live, how they are recognised, fetched once and kept in a binary form."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Lt

from l2q import settings
from l2q.data.readers import TABLES, read_dataset
from l2q.errors import L2QError
from l2q.files import replaced_file
from l2q.interactions import Dataset, Interactions, name_array
from l2q.options import Whole, options

FILES = ("train.txt", "test.txt")


def load_dataset(name: str, **values: Any) -> Dataset:
    """A set with its ``train`` and ``test``: one that ``conf/dataset`` describes, by name, such as ``debian``, which
    comes with the package; or the one that ``values``, the arguments of ``Source``, describe. It is fetched, verified
    and cached as far as that is needed.

    Raises L2QError, which says what to put where, when the set is absent, unreachable or another one.

        data = l2q.load_dataset("gowalla", dir="data/gowalla")
        index = l2q.fit(data.train, "l2q_plus")
    """
    if name in settings.choices("dataset") and name != "table":
        values = settings.preset(f"dataset/{name}") | values
        values.pop("name")
    return Source(name, **values).load()


def load_embedded(path: str | Path, name: str) -> Dataset:
    """The set in an ``.npz`` of ``train_indptr, train_items, test_indptr, test_items, num_items`` and, where
    there are names, ``user_names, item_names``: UTF-8 bytes, one name per line; likewise ``columns``."""
    with np.load(path, allow_pickle=False) as arrays:
        num_items = int(arrays["num_items"])
        user_names, item_names, columns = (
            name_array(arrays[what].tobytes().decode().split("\n")) if what in arrays else None
            for what in ("user_names", "item_names", "columns")
        )
        train, test = (
            Interactions(
                arrays[f"{part}_indptr"].astype(np.int64),
                arrays[f"{part}_items"].astype(np.int32),
                num_items,
                user_names,
                item_names,
            )
            for part in ("train", "test")
        )
    return Dataset(name, train, test, () if columns is None else tuple(columns))


@options("dataset")
class Source:
    """Where a set is found, in this order, and how it is recognised; plain values of ``conf/dataset``.

    ``dir``: a folder or a table of events (see ``read_dataset``; ``split_seed`` and ``test_fraction`` are its).
    Else, without ``url``, a file of that name in this package. Else ``train.txt`` and ``test.txt`` in
    ``cache_dir/name``, fetched from the folder ``url`` when they are not there. ``cache_dir``: else $L2Q_CACHE,
    else the user's.

    ``verify`` compares the ``counts`` (users, items, train, test) and the ``fingerprints`` of train and test
    (``Interactions.fingerprint``), or without them the ``md5`` of both files. A download must have its md5.
    """

    name: str
    url: str | None = None
    counts: Mapping[str, int] | None = None
    fingerprints: Mapping[str, str] | None = None
    md5: Mapping[str, str] | None = None
    dir: str | Path | None = None
    verify: bool = True
    cache_dir: str | Path | None = None
    split_seed: Whole = 0
    test_fraction: Annotated[float, Ge(0), Lt(1)] = 0.2

    def load(self) -> Dataset:
        embedded = Path(__file__).with_name(f"{self.name}.npz")
        if not self.dir and not self.url and embedded.is_file():
            dataset = load_embedded(embedded, self.name)
            self._check(dataset, embedded)
            return dataset

        place = Path(self.dir).expanduser() if self.dir else self._cache / self.name
        fetched = self._fetch(place)
        try:
            return self._read(place)
        except L2QError as error:
            if not fetched:
                raise
            _remove(fetched)
            raise L2QError(f"{error} (fetched from {self.url} and removed again)") from error

    @property
    def _cache(self) -> Path:
        chosen = self.cache_dir or os.environ.get("L2Q_CACHE")
        if chosen:
            return Path(chosen).expanduser()
        import pooch

        return Path(pooch.os_cache("l2q"))

    def _fetch(self, place: Path) -> list[Path]:
        """The files that had to be fetched."""
        is_table = place.suffix.lower() in TABLES
        if is_table != place.is_file():
            what = "is no table of events" if place.is_file() else "does not exist or is no file"
            if place.is_file() and place.suffix.lower() in (".gz", ".zip", ".bz2", ".xz"):
                what = "is packed; unpack it"
            raise L2QError(
                f"{self.name}: {place} {what}; dataset.dir takes one of {', '.join(TABLES)} or a folder with "
                f"{' and '.join(FILES)}"
            )
        missing = [file for file in FILES if not (place / file).is_file()]
        if not missing or place.is_file():
            return []
        advice = f"put train.txt and test.txt into {place}, or name a folder that has them: dataset.dir=PATH"
        if self.dir and (tables := sorted(file for file in place.glob("*") if file.suffix.lower() in TABLES)):
            advice += f", or a table in it: dataset.dir={tables[0]}"
        if self.dir or not self.url:
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

    def _read(self, place: Path) -> Dataset:
        """From the cache, as long as the files are those that it was made from; else from the files."""
        files = [place] if place.is_file() else [place / file for file in (*FILES, "users.txt", "items.txt")]
        stats = [file.stat() if file.exists() else None for file in files]
        stamp = np.array([(stat.st_size, stat.st_mtime_ns) if stat else (-1, -1) for stat in stats])
        key = hashlib.sha256(
            f"{place.resolve()} {self.split_seed} {self.test_fraction} format 3".encode()
        ).hexdigest()[:12]
        cached = self._cache / f"{self.name}-{key}.npz"
        dataset = _read_cached(cached, self.name, stamp)
        if dataset is not None:
            self._check(dataset, place)
            return dataset
        dataset = read_dataset(place, self.name, self.split_seed, self.test_fraction)
        self._check(dataset, place)
        _write(cached, dataset, stamp)
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


def _read_cached(path: Path, name: str, stamp: np.ndarray) -> Dataset | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if np.array_equal(arrays["stamp"], stamp):
                return load_embedded(path, name)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        pass  # none yet, or a damaged one: it is made again
    return None


def _write(path: Path, dataset: Dataset, stamp: np.ndarray) -> None:
    """In the form of ``load_embedded``."""
    arrays: dict[str, Any] = {"stamp": stamp, "num_items": np.array(dataset.train.num_items)}
    for part, pairs in (("train", dataset.train), ("test", dataset.test)):
        arrays |= {f"{part}_indptr": pairs.indptr, f"{part}_items": pairs.items}
    lines = {"user_names": dataset.user_names, "item_names": dataset.item_names}
    for what, names in (lines | {"columns": dataset.columns or None}).items():
        if names is not None:
            arrays[what] = np.frombuffer("\n".join(names).encode(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(path, many_writers=True) as fresh, fresh.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise L2QError(
            f"cannot write {path} ({error.strerror}); set L2Q_CACHE to a folder that takes it"
        ) from error


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink()
