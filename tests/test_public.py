"""What ``l2q`` offers is described where it stands, and every example of a docstring runs as it stands there."""

import inspect
import textwrap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

import l2q


def public() -> Iterator[tuple[str, Any]]:
    """Every public name, and the methods and properties of the classes among them."""
    for name in l2q.__all__:
        found = getattr(l2q, name)
        yield name, found
        if inspect.isclass(found) and not issubclass(found, Exception):
            for member, value in vars(found).items():
                value = getattr(value, "__func__", value)  # of a class method
                of_a_class = isinstance(value, property | cached_property) or inspect.isfunction(value)
                if of_a_class and not member.startswith("_"):
                    yield f"{name}.{member}", value


PUBLIC = dict(public())


def examples(text: str) -> str:
    """The indented blocks of a docstring, one after the other.

    Indentation is measured by the lines behind the first, here as on the site. So an example is none where the words
    before it fill one line alone.
    """
    blocks, before = [], ""
    for line in inspect.cleandoc(text).splitlines():
        if line.startswith("    ") and (not before.strip() or before.startswith("    ")):
            blocks.append(line)
        before = line
    return textwrap.dedent("\n".join(blocks))


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_described(name):
    """In words of its own: a dataclass without a docstring has its signature for one."""
    said = PUBLIC[name].__doc__ or ""
    assert said.strip()
    assert not said.startswith(f"{name}(")


def with_examples() -> list[str]:
    return [name for name, value in PUBLIC.items() if examples(value.__doc__ or "")]


def test_functions_and_methods_have_an_example():
    called = {name for name, value in PUBLIC.items() if inspect.isfunction(value)}
    assert {"fit", "split", "Index.recommend", "Interactions.select"} < called
    assert called - set(with_examples()) == set()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> tuple[Path, dict[str, Any]]:
    """A folder with the files that examples name, and what they take for granted: a few packages of Debian."""
    folder = tmp_path_factory.mktemp("scene")
    debian = l2q.load_dataset("debian").train
    rows = np.flatnonzero(debian.user_degrees >= 12)[::6]
    named = [debian.user_names.tolist().index(name) for name in ("ffmpeg", "blender")]
    few = debian.select(np.isin(debian.users, np.union1d(rows, named)))
    users, items = few.user_names[few.users].tolist(), few.item_names[few.items].tolist()
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "user": users,
            "item": items,
            "rating": rng.integers(3, 6, len(few)),
            "timestamp": 1_700_000_000 + rng.integers(10**6, size=len(few)),
        }
    )
    csv.write_csv(table, folder / "ratings.csv")
    (folder / "data" / "gowalla").mkdir(parents=True)
    for part in ("train", "test"):
        (folder / "data" / "gowalla" / f"{part}.txt").write_text("0 0 1\n1 1 2\n")
    events = l2q.read_events(folder / "ratings.csv")
    train, test = l2q.split(events, fraction=0.2, seed=0)
    model = SimpleNamespace(
        user_factors=rng.standard_normal((train.num_users, 8)),
        item_factors=rng.standard_normal((train.num_items, 8)),
    )
    index = l2q.fit(train, "spectral", model={"dim": 8})
    index.save(folder / "index")
    return folder, {
        "l2q": l2q,
        "np": np,
        "train": train,
        "test": test,
        "events": events,
        "model": model,
        "index": index,
    }


FEWER = {  # so that an example takes seconds; the set of another size is not the one that is known
    'l2q.fit(train, "l2q_plus", bits=256)': 'l2q.fit(train, "popularity")',
    'l2q.fit(train, "l2q_plus", bits=768)': 'l2q.fit(train, "popularity")',
    "epochs=20": "epochs=1, trainer={'accelerator': 'cpu'}",
    'dir="data/gowalla")': 'dir="data/gowalla", verify=False)',
    'l2q.fit(data.train, "l2q_plus")': 'l2q.fit(data.train, "popularity")',
    "bits=256, train": "bits=16, train",
}


@pytest.mark.parametrize("name", with_examples())
def test_an_example_runs(name, scene, tmp_path, monkeypatch):
    folder, there = scene
    text = examples(PUBLIC[name].__doc__)
    for usual, fewer in FEWER.items():
        text = text.replace(usual, fewer)
    monkeypatch.chdir(folder)
    exec(compile(text, name, "exec"), dict(there))
