"""Inputs that nobody would think of, drawn by Hypothesis: an answer, or one line that refuses them.

A trial is ``BATCH`` inputs. Where one does harm, Hypothesis finds the smallest such input, which is shown.
"""

from __future__ import annotations

import ast
import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from runs import table

import l2q
from faults.frame import REFUSED, RIGHT, WRONG, Found, Setting, told
from l2q.cli import main
from l2q.data.lightgcn import read_lightgcn
from l2q.files import read_array
from l2q.interactions import Interactions
from l2q.report import runs as report
from l2q.retrieval import manifest as manifests

FULL, SHORT, BATCH = 50_000, 440, 40


@dataclass
class Made:
    folder: Path
    index: l2q.Index
    place: Path
    run: dict[str, Any]


def prepare(folder: Path) -> Made:
    os.environ["L2Q_CACHE"] = str(folder / "cache")
    events = table(folder / "events.csv")[1].partition("=")[2]
    index = l2q.fit(l2q.read_events(events), "spectral", seed=0)
    place = index.save(folder / "index")
    run = {"model": "l2q", "dataset": "d", "protocol": "final", "seed": 0, "epochs": 1, "item_bytes": 3.0}
    run |= {"fit_seconds": 1.0, "test/packed/recall_20": 0.25, "test/packed/ndcg_20": 0.125, "command": "x"}
    return Made(folder, l2q.load_index(place), place, run)


class Harm(Exception):
    """An input that did harm."""


def _case(
    strategy: st.SearchStrategy[Any], work: Callable[[Made, Path, Any], Found]
) -> Callable[..., list[Found]]:
    def trial(setting: Setting) -> list[Found]:
        found: list[Found] = []

        @seed(int(setting.rng.integers(2**60)))
        @settings(
            max_examples=BATCH,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        @given(strategy)
        def each(value: Any) -> None:
            result = work(setting.made, setting.folder, value)
            if result.outcome in (RIGHT, REFUSED):
                found.append(result)
                return
            raise Harm(f"{result.outcome}: {result.said}: {value!r}"[:600])

        try:
            each()
        except Harm as harm:
            outcome, _, said = str(harm).partition(": ")
            found.append(Found(outcome, said))
        return found

    return trial


def _any(_: Any) -> bool:
    return True


CELL = st.one_of(
    st.text(max_size=12),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(str),
    st.sampled_from(
        ["", "NULL", "nan", '"', "'", "2020-01-01", "user", "item", "u1", "1e400", "\x00", "\ufeff"]
    ),
    st.sampled_from(["a,b", "a;b", "::", "\t", "[1,2]", "{'a': 1}", "-", "#", "\\N", "1970-01-01T00:00:00Z"]),
)
TABLE = st.tuples(
    st.lists(st.lists(CELL, max_size=6), max_size=12),
    st.sampled_from([",", ";", "\t", " ", "|", "::", ", "]),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1", "utf-8-sig", "cp1252"]),
    st.sampled_from([".csv", ".tsv", ".txt", ".json", ".jsonl", ".dat", ""]),
)


def _text(made: Made, folder: Path, drawn: Any) -> Found:
    rows, delimiter, end, encoding, ending = drawn
    path = folder / f"events{ending}"
    path.write_bytes(end.join(delimiter.join(row) for row in rows).encode(encoding, "replace"))
    return told(lambda: l2q.read_events(path), _any, ("events",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def _jsonl(made: Made, folder: Path, drawn: Any) -> Found:
    path = folder / "events.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in drawn), "utf-8")
    return told(lambda: l2q.read_events(path), _any, ("events",))


WORDS = [
    "user",
    "item",
    "=",
    "<",
    ">",
    "and",
    "or",
    "not",
    "(",
    ")",
    "'i1'",
    "1",
    "in",
    "like",
    "null",
    "is",
    "--",
]
WORDS += [
    "select",
    "from",
    "events",
    ";",
    "read_csv('/etc/passwd')",
    "cast",
    "as",
    "int",
    "/",
    "0",
    "*",
    "case",
]
WORDS += [
    "when",
    "then",
    "end",
    '"item"',
    "between",
    "::",
    "date",
    "'2020-01-01'",
    "sum(1)",
    "random()",
    "getenv('HOME')",
]
CONDITION = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join))


def _where(made: Made, folder: Path, drawn: str) -> Found:
    whole = made.folder / "events.csv"
    return told(lambda: l2q.read_events(whole, where=drawn), _any, ("where", "events"))


def _manifest(made: Made, folder: Path, drawn: Any) -> Found:
    """A manifest of which values are others, whose checksum is right."""
    key, value = drawn
    said = {**made.index.manifest, **({key: value} if key else {"files": value})}
    (folder / "manifest.json").write_text(json.dumps({**said, "sha256": manifests.checksum(said)}))
    for path in made.place.iterdir():
        if path.name != "manifest.json":
            os.symlink(path, folder / path.name) if not (folder / path.name).exists() else None

    def read() -> Any:
        found = l2q.load_index(folder)
        return found.search(np.arange(found.num_users), 3, found.exclude)

    return told(read, _any, (folder.name, "index", "manifest"))


KEYS = [
    "num_users",
    "num_items",
    "dims",
    "weights",
    "scale_dtype",
    "metrics",
    "files",
    "dataset",
    "config_hash",
]
MANIFEST = st.tuples(
    st.sampled_from([*KEYS, "format", "version", "filter", "score", ""]),
    JSON
    | st.integers(-3, 70)
    | st.lists(st.integers(-2, 70), max_size=3)
    | st.lists(st.floats(), max_size=3),
)
HEADER = st.tuples(
    st.sampled_from([1, 2, 3, 0]),
    st.sampled_from(["<f4", "<i8", "|u1", "|O", ">f2", "<U3", "<M8[s]", "[('a','<f4')]", "V3", "f", "%", ""]),
    st.sampled_from(["True", "False", "None", "1"]),
    st.one_of(
        st.lists(st.integers(-1, 5), max_size=3).map(lambda shape: str(tuple(shape))),
        st.sampled_from(["(10**9,)", "(99999999999999999999,)", "3", "None", "(1.5,)", "(", "((),)"]),
    ),
    st.integers(-9, 9),
)


def _npy(made: Made, folder: Path, drawn: Any) -> Found:
    version, kind, order, shape, more = drawn
    try:  # as many bytes as the header says, mostly
        width = np.dtype(ast.literal_eval(kind) if "(" in kind else kind).itemsize
        size = int(math.prod(ast.literal_eval(shape))) * width
    except (ValueError, TypeError, SyntaxError):
        size = 24
    body = bytes(range(200))[: max(min(size, 200) + (more if abs(more) < 4 else 0), 0)]
    said = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}\n".encode("latin-1")
    length = len(said).to_bytes(2 if version == 1 else 4, "little")
    path = folder / "a.npy"
    path.write_bytes(b"\x93NUMPY" + bytes([version, 0]) + length + said + body)
    try:
        ours = read_array(path)
    except ValueError as error:
        return Found(REFUSED if "\n" not in str(error) else WRONG, str(error))
    theirs = np.load(path, allow_pickle=False)  # what we take NumPy takes, as the same
    same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
    return Found(RIGHT if same else WRONG, "another array than NumPy's")


ODD = st.text(max_size=10) | st.sampled_from(["", "0", "-1", "u1 ", "U1"])
USER, ITEM = (st.integers(0, 50).map(f"{side}{{}}".format) | ODD for side in "ui")
LENGTH = st.integers(1, 60) | st.integers(-5, 2**40)
QUESTION = st.tuples(
    st.sampled_from(["user", "item", "items"]), USER, ITEM, st.lists(ITEM, max_size=5), LENGTH
)


def _names(made: Made, folder: Path, drawn: Any) -> Found:
    asked, user, item, items, k = drawn

    def ask() -> Any:
        if asked == "user":
            found = made.index.recommend(user, k=k)
        else:
            found = (
                made.index.similar(item, k=k) if asked == "item" else made.index.recommend(items=items, k=k)
            )
        assert len(found.items) <= made.index.num_items
        assert all(map(math.isfinite, found.scores))

    return told(ask, _any)


def _ids(made: Made, folder: Path, drawn: Any) -> Found:
    path = folder / "train.txt"
    path.write_bytes(drawn if isinstance(drawn, bytes) else "\n".join(drawn).encode("utf-8", "replace"))
    return told(lambda: read_lightgcn(path), _any, ("train.txt",))


NUMBER = st.integers(-1, 40) | st.integers(-(2**66), 2**66)
IDS = st.binary(max_size=60) | st.lists(st.lists(NUMBER.map(str), max_size=5).map(" ".join), max_size=6)
FLOATS = st.tuples(
    st.integers(1, 6) | st.integers(0, 6),
    st.integers(2, 6) | st.integers(0, 6),
    st.integers(1, 9) | st.integers(0, 9),
    st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=9)
    | st.lists(
        st.floats(width=32) | st.sampled_from([0.0, math.nan, math.inf, 1e38, 1e-45]), min_size=1, max_size=9
    ),
    st.integers(1, 40) | st.integers(-2, 70),
    st.sampled_from(["float32"] * 5 + ["float64", "float16", "int32", "bool", "complex64", "U3", "O"]),
)


def _quantize(made: Made, folder: Path, drawn: Any) -> Found:
    users, items, dim, values, bits, kind = drawn

    def side(rows: int) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.resize(np.array(values), (rows, dim)).astype(kind)

    def make() -> Any:
        index = l2q.quantize(side(users), side(items), bits=bits, seed=0)
        scores, _ = index.search(np.arange(index.num_users), 2)
        assert not np.isnan(scores).any()
        index.save(folder / "index")
        return l2q.load_index(folder / "index")

    return told(make, _any)


def _metrics(made: Made, folder: Path, drawn: Any) -> Found:
    """Another value, or another content altogether, in what reports read."""
    key, value, whole = drawn
    folder.joinpath("metrics.json").write_text(json.dumps(value if whole else {**made.run, key: value}))
    folder.joinpath("config.json").write_text(json.dumps(value))
    folder.joinpath("status.json").write_text(json.dumps(value if whole else {"state": value}))

    def read() -> Any:
        from l2q.report import page, tables

        rows = report.read(folder, allow_none=True)
        left = report.unfinished(folder)
        tables.overview(rows, left) if hasattr(tables, "overview") else page
        return rows

    found = told(read, _any)
    return found


METRICS = st.tuples(
    st.sampled_from(
        ["model", "dataset", "seed", "epochs", "test/packed/recall_20", "item_bytes", "command", "x"]
    ),
    JSON,
    st.booleans(),
)
ARGUMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            ["recommend", "similar", "info", "batch", "inspect", "convert", "report", "quantize", "names"]
        ),
        st.sampled_from(
            ["--index", "INDEX", "--user", "u1", "--item", "i3", "-k", "--json", "--out", "OUT", "EVENTS"]
        ),
        st.sampled_from(
            ["--where", "--split", "--help", "--metric", "recall@20", "--", "--users", "--bits", "--force"]
        ),
        st.integers(-3, 10**12).map(str),
        st.text(max_size=6),
    ),
    max_size=8,
)


def _arguments(made: Made, folder: Path, drawn: list[str]) -> Found:
    places = {"INDEX": made.place, "OUT": folder / "out", "EVENTS": made.folder / "events.csv"}
    words = [str(places.get(word, word)).replace("\0", "") for word in drawn]
    here = Path.cwd()
    os.chdir(folder)

    def run() -> int:
        try:
            return main(words)
        except SystemExit as end:  # argparse: usage and a line
            return end.code if isinstance(end.code, int) else 1

    try:
        return told(run, lambda code: code in (0, 2))
    finally:
        os.chdir(here)


PAIRS = st.tuples(
    st.lists(NUMBER, max_size=6), st.lists(NUMBER, max_size=6), st.integers(-1, 50), st.integers(-1, 50)
)


def _pairs(made: Made, folder: Path, drawn: Any) -> Found:
    return told(lambda: Interactions.from_pairs(*drawn), _any)


CASES = {
    "text": _case(TABLE, _text),
    "json_lines": _case(st.lists(JSON, max_size=8), _jsonl),
    "where": _case(CONDITION, _where),
    "manifest": _case(MANIFEST, _manifest),
    "npy": _case(HEADER, _npy),
    "names": _case(QUESTION, _names),
    "ids": _case(IDS, _ids),
    "quantize": _case(FLOATS, _quantize),
    "metrics": _case(METRICS, _metrics),
    "arguments": _case(ARGUMENTS, _arguments),
    "pairs": _case(PAIRS, _pairs),
}
