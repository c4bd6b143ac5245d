"""``logger=many``: one run, told to W&B, to a table and to TensorBoard at once."""

import csv
import struct
import sys
from pathlib import Path

import pytest
from runs import EVERY_EPOCH, SMALL, composed, offline_history, run, table

from l2q.errors import L2QError
from l2q.learning.run import Run
from l2q.tracking import tracker as tracking
from l2q.tracking.tracker import Several, Tracker, connect


def told_to_tensorboard(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of all its files, in the order in which they were written. A record is its length (8 bytes), a
    checksum (4), itself, and a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            event = Event.FromString(content[position + 12 : position + 12 + length])
            position += 16 + length
            found += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return found


def told_to_csv(folder: Path, key: str) -> list[tuple[int, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [(int(row["step"]), float(row[key])) for row in csv.DictReader(file) if row.get(key)]


def test_several_loggers_are_told_everything_also_of_a_run_that_goes_on(tmp_path):
    words = [*table(tmp_path / "events.csv"), *SMALL, "model=lightgcn", "epochs=4", EVERY_EPOCH]
    words += ["logger=many", "tags=[wide]", "logger.wandb.project=mine"]
    run(tmp_path / "run", *words, "trainer.max_epochs=2")
    last = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    metrics = run(tmp_path / "run", *words, last)
    with (tmp_path / "run" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for key in ("train/loss", "val/recall_20"):
        steps, values = [int(row["step"]) - 1 for row in rows], [float(row[key]) for row in rows]
        for found in (
            told_to_csv(tmp_path / "run" / "csv", key),
            told_to_tensorboard(tmp_path / "run" / "tensorboard", key),
        ):
            # the last one is the value of the kept epoch, at the end
            assert [step for step, _ in found[:4]] == steps
            assert [value for _, value in found[:4]] == pytest.approx(values, rel=1e-6)
            assert len(found) == (4 if key == "train/loss" else 5)
    ((_, test),) = told_to_tensorboard(tmp_path / "run" / "tensorboard", "test/recall_20")
    assert test == pytest.approx(metrics["test/recall_20"], rel=1e-6)
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    epochs = [row["epoch"] for file in files for row in offline_history(file) if "train/loss" in row]
    assert epochs == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb", "none", "many"])
def test_every_logger_changes_no_figure(tmp_path, name):
    words = [*table(tmp_path / "events.csv"), *SMALL, "model=lightgcn"]
    assert (
        run(tmp_path / "other", *words, f"logger={name}")["test/recall_20"]
        == run(tmp_path / "none", *words)["test/recall_20"]
    )
    there = {path.name for path in (tmp_path / "other").iterdir()} & {"csv", "tensorboard", "wandb"}
    assert there == ({"csv", "tensorboard", "wandb"} if name == "many" else {name} - {"none"})


def test_a_logger_without_its_package_is_one_line(tmp_path, monkeypatch):
    values = composed("logger=tensorboard")["logger"]
    monkeypatch.setattr("pytorch_lightning.loggers.tensorboard._TENSORBOARD_AVAILABLE", False, raising=False)
    for module in ("tensorboardX", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    for flag in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{flag}", False)
    with pytest.raises(L2QError, match=r"^logger: .*[Tt]ensor[Bb]oard.*; install it, or give logger=none$"):
        connect(values, tmp_path, "first")


def test_an_option_of_one_of_several_is_checked(tmp_path):
    words = [*table(tmp_path / "events.csv"), *SMALL, "model=lightgcn", "logger=many"]
    with pytest.raises(L2QError, match=r"logger.foo: there is no such option"):
        Run(composed(*words, "+logger.csv.foo=3"), tmp_path / "run")()


def test_each_of_several_trackers_is_finished_whatever_another_raises():
    ended = []

    class One(Tracker):
        def __init__(self, name: str) -> None:
            self.name = name

        def finish(self, error: BaseException | None = None) -> None:
            ended.append((self.name, error))
            if self.name == "first":
                raise OSError("the disk is full")

    error = ValueError("bad")
    with pytest.raises(OSError, match="full"):
        Several([One("first"), One("second")]).finish(error)
    assert ended == [("first", error), ("second", error)]


def test_several_forward_every_method_of_a_tracker():
    """So that a method which trackers get later is not lost where there are several."""
    own = {name for name, value in vars(Tracker).items() if callable(value)}
    assert own == {name for name, value in vars(Several).items() if callable(value)}
    assert isinstance(tracking.tracker([]), Several)
