"""A checkpoint's file: damage is refused by name, and it is there whole whatever happens while it is written."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import EVERY_EPOCH, SMALL, composed, disk_of, figures, run, table

import l2q
from l2q.errors import L2QError
from l2q.learning import checkpoints
from l2q.learning.checkpoints import CheckpointFiles, checksum, load, save
from l2q.learning.run import Run

LAST = "checkpoints/last.ckpt"


def content(size: int = 300) -> dict:
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(size, 4, generator=rng)
    return {
        "l2q": {"model": "l2q"},
        "epoch": 3,
        "state_dict": {"w": weights, "n": torch.arange(3)},
        "rows": [{"a": 0.5}],
    }


def test_what_is_read_is_what_was_written(tmp_path):
    save(content(), tmp_path / "a.ckpt")
    found = load(tmp_path / "a.ckpt")
    assert torch.equal(found["state_dict"]["w"], content()["state_dict"]["w"])
    assert (found["epoch"], found["rows"], found["l2q"]) == (3, [{"a": 0.5}], {"model": "l2q"})
    assert os.listdir(tmp_path) == ["a.ckpt"]


def test_the_checksum_is_of_every_value_and_its_place():
    one = {"a": [1, 2.0, "x", None, True], "t": torch.zeros(2, 3), "m": {"b": (1,), "c": b"y"}}
    others = [
        one | {"a": [1, 2.0, "x", None, 1]},
        one | {"a": [1, 2, "x", None, True]},
        one | {"a": [1, 2.0, "x", None]},
        one | {"t": torch.zeros(3, 2)},
        one | {"t": torch.zeros(2, 3, dtype=torch.int32)},
        one | {"t": -torch.zeros(2, 3)},
        one | {"m": {"b": (1, b"y"), "c": ()}},
        one | {"m": {"c": (1,), "b": b"y"}},
        {"a": one["a"], "t": one["t"]},
    ]
    sums = [checksum(each) for each in (one, *others)]
    assert len(set(sums)) == len(sums)
    assert checksum(dict(one) | {"t": torch.zeros(3, 2).T}) == sums[0]  # not how its memory is laid out


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path):
    """Every 50th byte, each with one bit and with all bits flipped."""
    path, mutated = tmp_path / "whole.ckpt", tmp_path / "mutated.ckpt"
    save(content(), path)
    whole, expected = path.read_bytes(), checksum(load(path))
    outcomes = {"refused": 0, "same": 0}
    for place, flip in itertools.product(range(0, len(whole), 50), (1 << 3, 0xFF)):
        mutated.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        said = ""
        try:
            found = load(mutated)
        except L2QError as error:
            said = str(error)
        assert (str(mutated) in said and "\n" not in said) or checksum(found) == expected, f"byte {place}"
        outcomes["refused" if said else "same"] += 1
    assert outcomes["refused"] > 100
    for end in range(0, len(whole), 97):
        mutated.write_bytes(whole[:end])
        with pytest.raises(L2QError, match=r"mutated\.ckpt"):
            load(mutated)


def test_a_flipped_weight_is_not_measured(tmp_path):
    words = [*table(tmp_path / "events.csv"), *SMALL, EVERY_EPOCH, "logger=none"]
    run(tmp_path / "run", *words)
    path = tmp_path / "run" / LAST
    whole = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["state_dict"]["encoder.embeddings"]
    place = whole.index(weights[3:5].numpy().tobytes())
    whole[place + 3] ^= 0x80  # a sign
    path.write_bytes(whole)
    for more in (["fit=false"], ["trainer.max_epochs=2"]):
        with pytest.raises(L2QError, match=r"last\.ckpt: its checksum does not match; it is damaged"):
            Run(composed(*words, f"ckpt_path={path}", *more), tmp_path / "new")


def test_checkpoints_without_a_checksum_are_read_with_a_note_every_time(tmp_path):
    path = tmp_path / "old.ckpt"
    for old in (content(), content() | {"l2q_version": 1}):
        torch.save(old, path)
        for _ in range(2):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("default")
                assert load(path)["epoch"] == 3
            assert ["before checkpoints had checksums" in str(one.message) for one in told] == [True]
    torch.save(content() | {"l2q_version": 2}, path)
    with pytest.raises(L2QError, match="checksum does not match"):
        load(path)
    torch.save(content() | {"l2q_version": 3}, path)
    with pytest.raises(L2QError, match=r"has format version 3, this l2q reads version 2; .*old\.ckpt"):
        load(path)


def test_other_files_are_no_checkpoints(tmp_path):
    path = tmp_path / "other.ckpt"
    for other in ({"epoch": 1}, [1], 3):
        torch.save(other, path)
        with pytest.raises(L2QError, match=r"no checkpoint of this project: .*other\.ckpt"):
            load(path)
    path.write_bytes(b"")
    with pytest.raises(L2QError, match=r"other\.ckpt cannot be read as a checkpoint: "):
        load(path)


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_before(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFiles().save_checkpoint(content(), path)
    with (
        disk_of(200_000),
        pytest.raises(
            L2QError,
            match=r"last\.ckpt cannot be written: File too large \(.*last\.ckpt takes 1\.5 MiB, .* left there\)",
        ),
    ):
        CheckpointFiles().save_checkpoint(content(100_000), path)
    assert checksum(load(path)["state_dict"]) == checksum(content()["state_dict"])
    assert os.listdir(path.parent) == ["last.ckpt"]


KILLS = """
import itertools, os, signal, sys, time
from pathlib import Path
import torch
from l2q.learning.checkpoints import CheckpointFiles, load

def write_until_killed(seconds):
    told, tell = os.pipe()
    writer = os.fork()
    if not writer:
        for number in itertools.count():
            weights = torch.full((500_000, 4), float(number))
            content = {"l2q": {}, "epoch": number, "state_dict": {"w": weights}}
            CheckpointFiles().save_checkpoint(content, path)
            os.write(tell, b".")
    os.close(tell)
    assert os.read(told, 1) and os.read(told, 1)
    time.sleep(seconds)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(told)

path = Path(sys.argv[1])
for attempt in range(12):
    write_until_killed(0.003 * attempt)
    found = load(path)
    weights = found["state_dict"]["w"]
    assert weights.shape == (500_000, 4) and (weights == found["epoch"]).all(), attempt
    assert set(os.listdir(path.parent)) <= {"last.ckpt", ".last.ckpt.new"}, os.listdir(path.parent)
"""


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_leaves_a_whole_one(tmp_path):
    """Also where TMPDIR is another file system, and in it nothing is left."""
    path, scratch = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "tmp"
    other = Path("/dev/shm")
    if other.is_dir() and os.access(other, os.W_OK) and other.stat().st_dev != tmp_path.stat().st_dev:
        scratch = other / f"l2q-test-{os.getpid()}"
    scratch.mkdir()
    # threads do not survive a fork
    environment = os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
    try:
        subprocess.run([sys.executable, "-c", KILLS, str(path)], env=environment, check=True, timeout=600)
        assert os.listdir(scratch) == []
        CheckpointFiles().save_checkpoint(content(), path)
        assert os.listdir(path.parent) == ["last.ckpt"]  # what a kill left is gone with the next
    finally:
        shutil.rmtree(scratch)


def test_a_run_writes_its_checkpoints_in_its_folder_alone(tmp_path, monkeypatch):
    """Nothing of a run goes through TMPDIR, which may be small, or another file system."""
    words = [*table(tmp_path / "events.csv"), *SMALL, EVERY_EPOCH, "logger=none"]
    expected = run(tmp_path / "one", *words)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    assert figures(run(tmp_path / "two", *words)) == figures(expected)
    assert checkpoints.load(tmp_path / "two" / LAST)["epoch"] == 1


def test_a_fit_from_python_writes_nothing_at_all(tmp_path, monkeypatch):
    """It takes the best epoch as a run with a folder does, whose files a kill could leave in TMPDIR."""
    events = l2q.read_events(table(tmp_path / "events.csv")[1].partition("=")[2])
    settings = {"protocol": "holdout", "epochs": 30, "batch_size": 128, "learning_rate": 0.1}
    settings["model"] = {"embedding_dim": 16}
    from l2q.learning import fit as fitting
    from l2q.learning.training import Training

    epochs = []

    def recorded(config, rest, val, folder, **named):
        made = Training(config, rest, val, folder, **named)
        call = made.__call__
        return lambda: epochs.append((found := call()).epochs) or found

    monkeypatch.setattr(fitting, "Training", recorded)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    ours = l2q.fit(events, "lightgcn", **settings)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "files").mkdir()
    monkeypatch.setattr(
        fitting, "Training", lambda config, rest, val, _: recorded(config, rest, val, tmp_path / "files")
    )
    theirs = l2q.fit(events, "lightgcn", **settings)
    assert (tmp_path / "files" / "checkpoints" / "best.ckpt").is_file()
    assert epochs[0] == epochs[1] < 30  # not the last one
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array)


def in_parts(path: Path, size: int, step: int = 3) -> dict[str, Any]:
    """Writes what ``size`` processes have of a table and of a rotation in blocks; what one would have written."""
    table, blocks = torch.arange(5 * 12.0).reshape(5, 12), torch.arange(12 * 4.0).reshape(12, 2, 2)
    whole = {
        "l2q": {"seed": 1},
        "state_dict": {"table": table, "scale": torch.ones(3), "blocks": blocks},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "exp_avg": table * 2}}, "lr": [0.1]}],
    }
    dims = {"table": 1, "exp_avg": 1, "blocks": 0}

    def columns(content: Any, change: Any, name: str = "") -> Any:
        if isinstance(content, torch.Tensor):
            return change(content, dims[name]) if name in dims else content
        if isinstance(content, dict):
            return {key: columns(value, change, key) for key, value in content.items()}
        return [columns(value, change) for value in content] if isinstance(content, list) else content

    files = []
    for number in range(size):

        def own(tensor: torch.Tensor, dim: int, number: int = number) -> torch.Tensor:
            width = tensor.shape[dim] // size
            return tensor.narrow(dim, number * width, width)

        rest, taken = checkpoints.split(columns(whole, own), columns)
        name = f"{path.stem}.{step}-{number}of{size}.part"
        part = {"l2q": whole["l2q"], "tensors": {key: tensor for key, (tensor, _) in taken.items()}}
        files.append([name, checkpoints.save(part, path.parent / name)])
    said = {"files": files, "dims": {key: dim for key, (_, dim) in taken.items()}}
    checkpoints.save(rest | {checkpoints.PARTS: said}, path)
    return whole


@pytest.mark.parametrize("readers", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_parts_are_read_by_any_number_of_processes(tmp_path, size, readers):
    whole = in_parts(tmp_path / "last.ckpt", size)
    for number in range(readers):
        found = checkpoints.load(tmp_path / "last.ckpt", share=(number, readers))
        table, blocks = (
            slice(12 // readers * number, 12 // readers * (number + 1)),
            whole["state_dict"]["blocks"],
        )
        assert torch.equal(found["state_dict"]["table"], whole["state_dict"]["table"][:, table])
        assert torch.equal(found["state_dict"]["blocks"], blocks[table])
        assert torch.equal(found["state_dict"]["scale"], torch.ones(3))
        moments = found["optimizer_states"][0]["state"][0]
        assert torch.equal(moments["exp_avg"], 2 * whole["state_dict"]["table"][:, table])
        assert found["optimizer_states"][0]["lr"] == [0.1]
        assert checkpoints.PARTS not in found


def test_only_the_parts_of_a_share_are_read(tmp_path):
    in_parts(tmp_path / "last.ckpt", 4)
    for number in (0, 1, 3):
        (tmp_path / f"last.3-{number}of4.part").unlink()
    assert checkpoints.load(tmp_path / "last.ckpt", share=(2, 4))["state_dict"]["table"].shape == (5, 3)
    assert checkpoints.load(tmp_path / "last.ckpt", share=None)["l2q"] == {"seed": 1}
    with pytest.raises(
        L2QError, match=r"last\.ckpt: its part last\.3-3of4\.part is missing; put it beside it"
    ):
        checkpoints.load(tmp_path / "last.ckpt", share=(1, 2))


def test_a_part_that_is_damaged_or_of_another_checkpoint_is_refused(tmp_path):
    in_parts(tmp_path / "last.ckpt", 2)
    part = tmp_path / "last.3-1of2.part"
    (tmp_path / "last.3-0of2.part").replace(part)
    in_parts(tmp_path / "best.ckpt", 2)
    (tmp_path / "best.3-0of2.part").replace(tmp_path / "last.3-0of2.part")
    with pytest.raises(L2QError, match=r"its part last\.3-1of2\.part is of another checkpoint"):
        checkpoints.load(tmp_path / "last.ckpt")
    content = bytearray(part.read_bytes())
    content[content.index(torch.tensor([1.0, 2.0]).numpy().tobytes())] ^= 1
    part.write_bytes(content)
    with pytest.raises(L2QError, match=r"last\.3-1of2\.part"):
        checkpoints.load(tmp_path / "last.ckpt")


def test_a_checkpoint_goes_with_its_parts_and_no_others(tmp_path):
    in_parts(tmp_path / "last.ckpt", 2, step=3)
    in_parts(tmp_path / "last.ckpt", 3, step=6)
    in_parts(tmp_path / "best.ckpt", 2, step=3)
    now = [f"last.6-{number}of3.part" for number in range(3)]
    checkpoints.remove_parts(tmp_path / "last.ckpt", but=now)
    assert sorted(path.name for path in tmp_path.glob("last.*.part")) == now
    checkpoints.remove(tmp_path / "last.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.3-0of2.part",
        "best.3-1of2.part",
        "best.ckpt",
    ]
