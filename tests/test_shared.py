"""The items of an index shared by several processes: the same rankings, scores and ties as by one."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import environment

import l2q
from l2q import processes
from l2q.cli import main
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Representations, Rows
from l2q.retrieval import shared

USERS, ITEMS = 30, 70


def index_of(kind: str) -> l2q.Index:
    """Users and items that tie often. User 3 has no train items, user 4 nearly all, item 5 is like item 60."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(USERS, size=300), rng.integers(ITEMS, size=300)
    users = np.where(pairs[0] == 3, 2, pairs[0])
    many = np.arange(ITEMS - 2)
    train = Interactions.from_pairs(
        np.concatenate([users, np.full(len(many), 4)]), np.concatenate([pairs[1], many]), USERS, ITEMS,
        np.array([f"u{user}" for user in range(USERS)]), np.array([f"i{item}" for item in range(ITEMS)]),
    )  # fmt: skip
    sides = []
    for rows, side in ((USERS, "user"), (ITEMS, "item")):
        values = rng.standard_normal((rows, 12)).astype(np.float32)
        codes = np.where(values >= 0, 1, -1).astype(np.int8)
        scales = rng.choice(np.float32([0.5, 1.0, 2.0]), (rows, 2))
        codes[60 % rows] = codes[5]
        floats = {
            "floats": ("user", "item"),
            "codes": (),
            "layers": (),
            "items": ("user",),
            "users": ("item",),
        }
        scaled = kind == "layers"
        sides.append(Rows(values) if side in floats[kind] else Rows(codes, scales if scaled else None))
    dims = (5, 7) if kind == "layers" else (12,)
    weights = np.float32([1.0, 0.25][: len(dims)])
    return l2q.Index.of(Representations(*sides, dims, weights), train)


class Together:
    """Stands in for a group of processes: each is asked in turn, here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        self.monkeypatch, self.size = monkeypatch, size
        self.ranges: list[dict[str, shared.Range]] = [{} for _ in range(size)]
        monkeypatch.setattr(processes, "size", lambda: size)
        monkeypatch.setattr(shared, "_groups", [self])

    def ask(self, question: Any, own: Any) -> list[Any]:
        found = []
        for number in range(self.size):
            self.monkeypatch.setattr(processes, "rank", lambda number=number: number)
            found.append(shared._found(self.ranges[number], question) if number else own())
        self.monkeypatch.setattr(processes, "rank", lambda: 0)
        return found


def asked(index: l2q.Index) -> list[np.ndarray]:
    """Everything that an index is asked, and its answers."""
    everybody = np.arange(USERS)
    found = [*index.search(everybody, 9, index.exclude), *index.search(everybody[::-2], 200)]
    found += index.search(np.array([7]), 1, index.exclude)
    found += index.search(index.item_rows(np.array([3, 60])), 8)
    found += index.search(everybody[:0], 5)
    test = Interactions.from_pairs(everybody, (everybody * 7) % ITEMS, USERS, ITEMS)
    found += l2q.evaluate(index, test, ks=[5], exclude=index.exclude).per_user.values()
    rankings = [
        *index.similar(["i5", "i60", "i0"], k=6),
        *index.recommend(items=[["i3", "i9"], ["i60"]], k=7),
    ]
    with pytest.warns(UserWarning, match="no train items"):
        rankings += index.recommend(["u3", "u4", "u5"], k=6)
    for items, scores in rankings:
        found += [np.array(items), scores]
    return found


@pytest.mark.parametrize("size", [2, 3, 100])
@pytest.mark.parametrize("kind", ["codes", "layers", "floats", "items", "users"])
def test_ranges_of_items_rank_as_all_of_them(tmp_path, monkeypatch, kind, size):
    monkeypatch.setattr("l2q.retrieval.index.TILE", 16)
    index_of(kind).save(tmp_path / "index")
    expected = asked(l2q.load_index(tmp_path / "index"))
    group = Together(monkeypatch, size)
    index = l2q.load_index(tmp_path / "index")
    assert isinstance(index.index, shared.SharedItems)
    for ours, theirs in zip(asked(index), expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    held = [each[next(iter(each))].items for each in group.ranges[1:]]
    assert [each.start for each in held[1:]] == [each.stop for each in held[:-1]]
    assert held[-1].stop == ITEMS


def test_another_index_in_the_folder_of_a_process_is_refused(tmp_path, monkeypatch):
    index_of("codes").save(tmp_path / "index")
    Together(monkeypatch, 2)
    index = l2q.load_index(tmp_path / "index")
    index_of("layers").save(tmp_path / "index")
    with pytest.raises(L2QError, match="is not the one that the first process has opened"):
        index.search(np.array([0]), 1)


def test_a_process_keeps_the_indexes_that_were_opened_last(tmp_path, monkeypatch):
    group = Together(monkeypatch, 2)
    for number in range(5):
        folder = index_of(("codes", "layers")[number % 2]).save(tmp_path / f"{number}")
        index = l2q.load_index(folder)
        index.manifest["dataset"] = str(number)
        index.save(folder)
        l2q.load_index(folder).search(np.array([0]), 1)
    assert len(group.ranges[1]) == shared.KEPT


def test_without_torchrun_nothing_is_shared(tmp_path):
    index_of("codes").save(tmp_path / "index")
    with l2q.share_items():
        assert not isinstance(l2q.load_index(tmp_path / "index").index, shared.SharedItems)


def torchrun(size: int, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}", *words
    ]  # fmt: skip


SCRIPT = """
import json
import numpy as np, l2q
from l2q.cli import main

with l2q.share_items():
    main(["batch", "--index", "index", "-k", "9", "--out", "several.parquet"])
    index = l2q.load_index("index")
    rankings = [*index.similar(["i5", "i60"], k=6), *index.recommend(items=[["i3", "i9"]], k=7)]
    print(json.dumps([(items, scores.tolist()) for items, scores in rankings]))
    test = index.exclude  # what is measured asks all processes, and is the first one's alone
    print(l2q.evaluate(index, test, ks=[5], exclude=test.select(test.users < 9)).metrics["ndcg_5"])
    try:
        index.search(np.array([99]), 5)
    except l2q.L2QError as error:
        print(error)
    index.manifest["dataset"] = "another"
    index.save("index")  # what is open is of one save
    print(index.recommend("u5", k=3).items)
print("the first one goes on alone")
"""


def started(size: int, *words: str, cwd: Path) -> subprocess.Popen[str]:
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command = [sys.executable, "-m", *torchrun, *words]
    variables = environment(cwd) | {
        f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
def test_processes_of_torchrun_rank_as_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = l2q.load_index(index_of("layers").save("index"))
    rankings = [*index.similar(["i5", "i60"], k=6), *index.recommend(items=[["i3", "i9"]], k=7)]
    expected = json.dumps([(items, scores.tolist()) for items, scores in rankings])
    test = index.exclude
    with pytest.warns(UserWarning, match="1 users have no train items"):
        main(["batch", "--index", "index", "-k", "9", "--out", "one.parquet"])
    Path("script.py").write_text(SCRIPT)
    process = started(3, "script.py", cwd=tmp_path)
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert said.splitlines()[1:] == [
        expected,
        str(l2q.evaluate(index, test, ks=[5], exclude=test.select(test.users < 9)).metrics["ndcg_5"]),
        "user ids 99 .. 99 are not all in 0 .. 29",
        str(index.recommend("u5", k=3).items),
        "the first one goes on alone",
    ]
    assert Path("several.parquet").read_bytes() == Path("one.parquet").read_bytes()


@pytest.mark.slow
def test_a_service_of_several_processes_answers_as_one_and_ends_with_all_of_them(tmp_path):
    index = l2q.load_index(index_of("codes").save(tmp_path / "index"))
    process = started(2, "-m", "l2q", "serve", "--index", "index", "--port", "0", cwd=tmp_path)
    try:
        assert process.stdout is not None
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address

        def names(question: str) -> list[str]:
            with urllib.request.urlopen(f"{address[0]}/{question}") as answer:
                return [place["item"] for place in json.load(answer)["ranking"]]

        assert names("recommend?user=u5&k=7") == index.recommend("u5", k=7).items
        assert names("similar?item=i60") == index.similar("i60", k=20).items
        assert names("recommend?item=i3&item=i9") == index.recommend(items=["i3", "i9"], k=20).items
        assert names("recommend?user=u5&only=i1&only=i2&only=i60")  # some items are ranked by the first one
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)
