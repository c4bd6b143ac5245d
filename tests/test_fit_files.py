"""A fit that is broken off anywhere goes on from the part that it had, to the same end."""

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from presets import descent, embeddings, l2q_plus
from runs import composed, disk_of, figures, run, table

import l2q
from l2q.errors import L2QError
from l2q.fitted.parts import of_lists, of_state, state_of
from l2q.fitted.state import Side, State
from l2q.interactions import Interactions
from l2q.kernels.top_lists import top_lists
from l2q.learning.fit_files import NAMES, FitFiles, identity_of
from l2q.learning.run import Run

IDENTITY = {"version": 1, "seed": 0, "model.filter": None}
QUICK = ["model.bits=24", "model.length=10", "model.embeddings.steps=40", "model.embeddings.dim=8"]
QUICK += ["model.descent.intruder_rounds=4", "model.descent.intruders=5"]


class BrokenOff(BaseException):
    """As a signal is."""


class Breaking(FitFiles):
    """Breaks the fit off when ``after`` parts are written."""

    def __init__(self, *arguments, after=10**9):
        super().__init__(*arguments)
        self.after, self.written, self.found = after, [], []

    def put(self, name, make, needed=True):
        super().put(name, make)
        self.written.append(name)
        if len(self.written) == self.after:
            raise BrokenOff

    def get(self, name):
        part = super().get(name)
        if part is not None:
            self.found.append(name)
        return part


@pytest.fixture(scope="module")
def train() -> Interactions:
    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(90), 12)
    items = (users % 3) * 30 + np.minimum(rng.exponential(8, len(users)).astype(int), 29)
    return Interactions.from_pairs(users, items, 90, 90)


def model(**changes):
    few = descent(rounds=2, intruder_rounds=2, intruders=5)
    return l2q_plus(bits=20, descent=few, length=15, embeddings=embeddings(steps=20, dim=8), **changes)


def everything(found) -> list[np.ndarray]:
    codes, side = found.representations, found.filter_side
    ranking = found.teacher_index.lists
    return [
        codes.users.values,
        codes.items.values,
        codes.items.scales,
        side.V.rows(slice(None)),
        side.values,
        ranking.data,
        ranking.indices,
        ranking.indptr,
        found.teacher_index.scores.scores(slice(0, 30)),
    ]


@pytest.mark.parametrize("kind", ["fast", "best", "start"])
def test_a_fit_that_is_broken_off_after_any_part_ends_as_a_whole_one(train, tmp_path, kind, monkeypatch):
    made = model(effort="best" if kind == "best" else "fast")
    monkeypatch.setattr("l2q.fitted.trials.GAIN", 0.5)  # the embeddings are worth it
    start = None
    if kind == "start":
        start = l2q.Index.of(
            made.fit(train, 1).representations, train, filter_side=made.fit(train, 1).filter_side
        )
    whole = Breaking(tmp_path / "whole", IDENTITY)
    found = made.fit(train, 0, start, whole)
    assert found.teacher.embeddings.weight > 0
    expected = everything(found)
    for array, again in zip(expected, everything(made.fit(train, 0, start)), strict=True):
        np.testing.assert_array_equal(array, again)
    first = ["weights", "embeddings"]
    stages = {"fast": first, "best": [*first, "tries", "choice"], "start": []}[kind]
    assert list(dict.fromkeys(whole.written)) == [*stages, "teacher", "lists", "rounds"]
    rounds = whole.written.count("rounds")
    assert rounds == len(
        {"fast": made.descent.quick(), "start": made.descent.again()}.get(kind, made.descent).plan
    )
    ends = range(1, len(whole.written) + 1)
    last = len(ends) - rounds
    for after in {1, 3, last - 2, last - 1, last, last + 2, len(ends)} if kind == "best" else ends:
        folder = tmp_path / str(after)
        broken = Breaking(folder, IDENTITY, after=after)
        with pytest.raises(BrokenOff):
            made.fit(train, 0, start, broken)
        parts = Breaking(folder, IDENTITY)
        found = made.fit(train, 0, start, parts)
        assert broken.written[-1] in parts.found or broken.written[-1] == "embeddings"
        assert len(parts.written) == len(whole.written) - after
        for array, again in zip(expected, everything(found), strict=True):
            np.testing.assert_array_equal(array, again)
        parts.tidy()
        assert not folder.exists()


@pytest.mark.parametrize("bits", [8, 13])
def test_a_state_comes_back_as_it_was(train, tmp_path, bits):
    rng = np.random.default_rng(0)
    users, items = (
        Side(rng.choice(np.int8([-1, 1]), (90, bits)), rng.random(90, dtype=np.float32)) for _ in range(2)
    )
    scores = rng.standard_normal((90, 90), dtype=np.float32)
    state = State(7, users, items, top_lists(lambda block: scores[block].copy(), 90, 90, 9, train))
    parts = FitFiles(tmp_path, IDENTITY)
    parts.put("rounds", lambda: of_state(state))
    found = state_of(FitFiles(tmp_path, IDENTITY).get("rounds"))
    assert found.step == 7
    for ours, theirs in ((found.users, users), (found.items, items)):
        for name in ("codes", "scales"):
            assert getattr(ours, name).dtype == getattr(theirs, name).dtype
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert ours.codes.flags.c_contiguous
    for ours, theirs in zip(of_lists(found.lists), of_lists(state.lists), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_arrays_keep_their_order_in_memory(tmp_path):
    arrays = np.asfortranarray(np.arange(12.0).reshape(3, 4)), np.arange(6, dtype=np.int32)[::2], None, 3, "x"
    parts = FitFiles(tmp_path, IDENTITY)
    parts.put("teacher", lambda: {"made": (arrays, [1.5])})
    (found, rest) = parts.get("teacher")["made"]
    assert found[0].strides == arrays[0].strides
    np.testing.assert_array_equal(found[0], arrays[0])
    np.testing.assert_array_equal(found[1], [0, 2, 4])
    assert (found[2:], rest) == ((None, 3, "x"), [1.5])


def test_a_part_that_is_damaged_or_of_another_fit_is_made_anew_and_said(tmp_path, caplog):
    FitFiles(tmp_path, IDENTITY).put("lists", lambda: np.arange(1000))
    path = tmp_path / "lists.ckpt"
    whole = path.read_bytes()
    assert FitFiles(tmp_path, IDENTITY).get("lists").sum() == 499500
    flipped = bytearray(whole)
    flipped[whole.index(np.arange(500, 510).tobytes()) + 1] ^= 4
    damage = [bytes(flipped), whole[: len(whole) // 2], b"", b"\x80\x04.", np.arange(9).tobytes()]
    for content in damage:
        path.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "l2q"):
            assert FitFiles(tmp_path, IDENTITY).get("lists") is None
        assert [one.message for one in caplog.records] == [f"{path} is damaged: it is made anew"]
        assert not path.exists()
    torch.save({"l2q": IDENTITY, "part": 3}, path)  # without a checksum
    assert FitFiles(tmp_path, IDENTITY).get("lists") is None
    for other in ({"seed": 1}, {"version": 0}, {"fingerprint": "x"}):
        path.write_bytes(whole)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "l2q"):
            assert FitFiles(tmp_path, IDENTITY | other).get("lists") is None
        assert [one.message for one in caplog.records] == [f"{path} is of another fit: it is made anew"]
    path.mkdir()
    assert FitFiles(tmp_path, IDENTITY).get("lists") is None


def test_what_a_part_belongs_to_is_all_that_makes_the_codes(train, tmp_path):
    config = composed("dataset=table", "dataset.dir=x.csv", "model=l2q_plus")
    model = config["model"]
    one = identity_of(config, "a", train, None)
    assert identity_of(config | {"test": False, "logger": {}, "keep": "best"}, "a", train, None) == one
    for changed in (
        config | {"seed": 1},
        config | {"model": model | {"bits": 64}},
        config | {"model": model | {"filter": {"rank": 8}}},
        config | {"model": model | {"embeddings": model["embeddings"] | {"temperature": 0.2}}},
    ):
        assert identity_of(changed, "a", train, None) != one
    other = Interactions.from_pairs(train.users[1:], train.items[1:], 90, 90)
    assert identity_of(config, "a", other, None) != one
    assert (
        identity_of(config, "a", replace(train, holdout="cluster"), None) != one
    )  # which chooses the teacher
    FitFiles(tmp_path, one).put("tries", lambda: [0.5])
    assert FitFiles(tmp_path, one).get("tries") == [0.5]


def test_a_part_that_need_not_be_is_left_out_where_writing_takes_too_long(tmp_path, monkeypatch):
    from l2q.learning import fit_files

    now = [0.0]
    monkeypatch.setattr(fit_files.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(fit_files.checkpoints, "save", lambda *_: now.__setitem__(0, now[0] + 1))
    parts, made = FitFiles(tmp_path, IDENTITY), []
    for step in range(300):
        now[0] += 2
        parts.put("rounds", lambda step=step: made.append(step), needed=step == 299)
    assert made[0] == 0
    assert made[-1] == 299
    assert parts.spent == len(made)
    assert len(made) == 13  # in 613 seconds


def test_a_disk_that_is_full_costs_the_parts_and_not_the_fit(train, tmp_path, caplog):
    parts = FitFiles(tmp_path / "checkpoints", IDENTITY)
    with disk_of(3_000), caplog.at_level(logging.WARNING, "l2q"):
        found = model(effort="fast").fit(train, 0, None, parts)
    (said,) = (one.message for one in caplog.records)
    assert "cannot be written: File too large" in said
    assert said.endswith("the fit goes on, and begins again where it is broken off")
    for array, again in zip(everything(found), everything(model(effort="fast").fit(train, 0)), strict=True):
        np.testing.assert_array_equal(array, again)
    parts.tidy()
    assert os.listdir(tmp_path) == []


def test_a_run_that_is_broken_off_goes_on_and_leaves_nothing(tmp_path, monkeypatch, caplog):
    words = [*table(tmp_path / "events.csv"), "model=l2q_plus", *QUICK, "logger=none"]
    expected = run(tmp_path / "whole", *words)
    assert not (tmp_path / "whole" / "checkpoints").exists()
    put = FitFiles.put

    def breaking(self, name, make, needed=True):
        put(self, name, make)
        if name == "rounds" and make()["step"] == 3:
            self.began -= 1000  # seconds that it took
            put(self, name, make)
            raise BrokenOff

    with monkeypatch.context() as patched:
        patched.setattr(FitFiles, "wants", lambda self, name, needed=True: True)
        patched.setattr(FitFiles, "put", breaking)
        with pytest.raises(BrokenOff):
            run(tmp_path / "cut", *words)
    there = {path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()}
    assert there == {"weights.ckpt", "embeddings.ckpt", "teacher.ckpt", "lists.ckpt", "rounds.ckpt"}
    with caplog.at_level(logging.INFO, "l2q"):
        found = run(tmp_path / "cut", *words)
    folder = tmp_path / "cut" / "checkpoints"
    assert (
        f"the fit goes on with what it had, weights, embeddings, teacher, lists, rounds, in {folder}"
        in caplog.text
    )
    assert not folder.exists()
    assert figures(found) == figures(expected)
    assert 1000 < found["fit_seconds"] < 1600  # all of it
    for path in (tmp_path / "whole" / "index").glob("*.npy"):
        assert (tmp_path / "cut" / "index" / path.name).read_bytes() == path.read_bytes()


def test_a_fit_without_a_folder_keeps_nothing(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = {"descent": {"rounds": 1, "intruder_rounds": 0}, "embeddings": {"steps": 4}}
    assert l2q.fit(train, "l2q_plus", bits=8, model=few).dims == (8,)
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_is_no_way_to_go_on_with_a_fit(tmp_path):
    words = [*table(tmp_path / "events.csv"), "model=l2q_plus", "logger=none"]
    (tmp_path / "checkpoints").mkdir()
    path = tmp_path / "checkpoints" / f"{NAMES[-1]}.ckpt"
    path.touch()
    with pytest.raises(
        L2QError, match=r"goes on by its folder: leave ckpt_path out, and give hydra.run.dir="
    ) as said:
        Run(composed(*words, f"ckpt_path={path}"), tmp_path)
    assert "\n" not in str(said.value)
