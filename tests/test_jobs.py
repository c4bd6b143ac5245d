"""A job: its folder, its state and its lock; what is done again and what is not; signals; names of folders."""

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from runs import SMALL, command, composed, environment, figures, history_of, metrics_of, process, table

from l2q.learning.jobs import LOCK, Job, Outcome, folder_name, read_status
from l2q.learning.run import Run
from l2q.learning.signals import Interrupted, interruptible, unhidden


@pytest.fixture
def made(tmp_path):
    """A small job on a table of events."""
    words = [*table(tmp_path / "events.csv"), "model=lightgcn", *SMALL, "logger=none"]

    def make(*more: str, folder: str = "job") -> Job:
        return Job(composed(*words, *more), tmp_path / folder, "python train.py", "first")

    return make


def test_a_job_that_is_done_is_taken_as_it_is(made, monkeypatch):
    job = made()
    first = job.attempt()
    assert (first.state, first.reused, first.code) == ("done", False, 0)
    assert read_status(job.folder) | {"process": 0, "host": "", "time": ""} == {
        "state": "done",
        "reason": "",
        "identity": job.identity,
        "options": job.options,
        "name": "first",
        "process": 0,
        "host": "",
        "time": "",
    }
    monkeypatch.setattr(Run, "__init__", lambda *_, **__: pytest.fail("it runs again"))
    again = made().attempt()
    assert (again.state, again.reused) == ("done", True)
    assert again.metrics == metrics_of(job.folder) == json.loads(json.dumps(first.metrics))


def test_where_files_lie_who_is_told_and_how_much_memory_is_used_make_no_other_job(made):
    job = made()
    assert made("eval.memory_mb=64").identity == job.identity
    assert made("seed=1").identity != job.identity
    assert made("trainer.max_epochs=1").identity != job.identity
    assert made("dataset.dir=other.csv").identity != job.identity


def test_a_folder_with_another_job_or_an_earlier_run_is_left_alone(made):
    job = made()
    assert job.attempt().state == "done"
    before = {
        path: path.read_bytes()
        for path in job.folder.rglob("*")
        if path.is_file() and path.name != "train.log"
    }
    other = made("seed=1").attempt()
    assert (other.state, other.code) == ("failed", 2)
    assert (
        "holds a run with other options: seed=0 became seed=1; give the options that it has" in other.reason
    )
    assert {path: path.read_bytes() for path in before} == before
    model = made("model=l2q_anl").attempt().reason  # names first, and not all of many
    assert "options: model.name=lightgcn became model.name=l2q_anl, " in model
    assert re.search(r", and \d+ more; give", model)
    earlier = made(folder="earlier")
    earlier.folder.mkdir()
    (earlier.folder / "metrics.json").write_text("{}")
    assert "holds an earlier run" in earlier.attempt().reason
    assert (earlier.folder / "metrics.json").read_text() == "{}"


def test_a_job_in_use_is_refused_and_goes_on_untouched(made):
    job = made()
    job.wait()
    with FileLock(job.folder / LOCK):
        refused = job.attempt()
    assert refused.state == "busy"
    assert f"is in use by process {os.getpid()}" in refused.reason
    assert read_status(job.folder)["state"] == "waiting"


def test_a_refused_job_says_why_in_its_status_and_is_tried_again(made):
    job = made("learning_rate=-1.0")
    outcome = job.attempt()
    assert (outcome.state, outcome.code) == ("failed", 2)
    assert outcome.reason == "learning_rate=-1.0 must be a number above 0"
    assert read_status(job.folder)["reason"] == outcome.reason
    assert outcome.reason in (job.folder / "train.log").read_text()
    assert job.attempt().reason == outcome.reason  # not "done", not another one


def test_a_loss_that_is_not_finite_is_the_reason(made):
    job = made("learning_rate=1e30", "batch_size=16")
    outcome = job.attempt()
    assert outcome.state == "failed"
    assert "the loss is not finite at step" in read_status(job.folder)["reason"]


@pytest.mark.parametrize("behind", [False, True])
def test_a_signal_in_an_epoch_ends_it_at_once_or_once_it_is_on_disk(made, monkeypatch, behind):
    """Where the epoch before is not on disk, the one in the middle is finished and written first."""
    from l2q.learning.callbacks import LastCheckpoint
    from l2q.learning.recommender import Recommender

    step, written = Recommender.training_step, []
    save = LastCheckpoint._save_last_checkpoint

    def recorded(self, trainer, *more) -> None:
        written.append(trainer.current_epoch)
        save(self, trainer, *more)

    def stop(self, *inputs):
        if self.current_epoch == 3 and not written.count("sent"):
            written.append("sent")
            (last,) = (found for found in self.trainer.callbacks if isinstance(found, LastCheckpoint))
            last.behind = behind  # as it is where writing takes long
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
        return step(self, *inputs)

    job = made("epochs=9", "protocol.every_n_epochs=9")
    with monkeypatch.context() as patched:
        patched.setattr(Recommender, "training_step", stop)
        patched.setattr(LastCheckpoint, "_save_last_checkpoint", recorded)
        outcome = job.attempt()
    assert (outcome.state, outcome.code) == ("interrupted", 143)
    assert written[-1] == (3 if behind else "sent")
    assert len(history_of(job.folder)) == (4 if behind else 3)


def test_an_interrupted_job_goes_on_to_the_end_of_an_undisturbed_one(made, monkeypatch):
    words = "epochs=6", "protocol.every_n_epochs=1", "annealing=guidance", "model=l2q_anl"
    whole = made(*words, folder="whole")
    assert whole.attempt().state == "done"
    from l2q.learning.callbacks import History

    write = History.write

    def stop(self) -> None:
        write(self)
        if len(self.rows) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = made(*words, folder="cut")
    with monkeypatch.context() as patched:
        patched.setattr(History, "write", stop)
        outcome = cut.attempt()
    assert (outcome.state, outcome.code, outcome.reason) == ("interrupted", 143, "SIGTERM")
    assert read_status(cut.folder)["state"] == "interrupted"
    assert not (cut.folder / "metrics.json").exists()
    assert cut.attempt().state == "done"
    assert figures(metrics_of(cut.folder)) == figures(metrics_of(whole.folder))
    assert history_of(cut.folder) == history_of(whole.folder)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_is_raised_once_and_the_handlers_come_back(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def disturbed() -> None:
        with interruptible():
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # while it is left

    with pytest.raises(Interrupted, match=name) as raised:
        disturbed()
    assert raised.value.code == 128 + number
    assert signal.getsignal(number) == before


def ended_by(name: str, words: list[str], folder: Path, rows: int) -> tuple[int, str]:
    """A process of these words that gets a signal once the history of ``folder / "run"`` has so many rows; its exit
    code and what it said to people."""
    running = subprocess.Popen(
        command(*words),
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    history = folder / "run" / "history.csv"
    while running.poll() is None and not (history.is_file() and history.read_text().count("\n") > rows):
        time.sleep(0.02)
    running.send_signal(getattr(signal, name))
    _, said = running.communicate()
    return running.returncode, said


@pytest.mark.slow
def test_a_run_that_is_ended_and_killed_ends_like_one_that_was_not(tmp_path):
    words = [*table(tmp_path / "events.csv"), "model=l2q", *SMALL[:2], "epochs=500", "logger=none"]
    words += ["protocol.every_n_epochs=100", "protocol.patience=9"]
    code, said = ended_by("SIGTERM", [*words, "hydra.run.dir=run"], tmp_path, 20)
    assert code == 143
    assert read_status(tmp_path / "run")["state"] == "interrupted"
    assert "broken off by SIGTERM" in said
    last = said.splitlines()[-1]
    assert last.startswith("to go on: python train.py ")
    again = shlex.split(last.removeprefix("to go on: python train.py "))
    whole_epochs = len(history_of(tmp_path / "run"))
    assert ended_by("SIGKILL", again, tmp_path, whole_epochs + 20)[0] == -signal.SIGKILL
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert "goes on from the last whole epoch" in process(*again, cwd=tmp_path).stdout
    assert "goes on" not in process(*words, "hydra.run.dir=whole", cwd=tmp_path).stdout
    assert figures(metrics_of(tmp_path / "run")) == figures(metrics_of(tmp_path / "whole"))
    assert history_of(tmp_path / "run") == history_of(tmp_path / "whole")


@pytest.mark.slow
def test_slurm_s_signal_leaves_no_checkpoint_of_half_an_epoch(tmp_path):
    """Lightning would write one, and ask SLURM for the job itself."""
    words = [*table(tmp_path / "events.csv"), "model=l2q", *SMALL[:2], "epochs=500", "logger=none"]
    words += ["protocol.every_n_epochs=100", "protocol.patience=9", "hydra.run.dir=run"]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "study", "SLURM_NTASKS": "1"}.items():
            patched.setenv(name, value)
        code, said = ended_by("SIGUSR1", words, tmp_path, 20)
    assert code == 138, said
    assert "to go on: python train.py" in said
    assert {path.name for path in tmp_path.rglob("*.ckpt")} <= {"best.ckpt", "last.ckpt"}
    assert read_status(tmp_path / "run")["reason"] == "SIGUSR1"


def test_folders_say_what_is_swept_and_are_told_apart_by_their_identity():
    assert folder_name({"model": "l2q", "seed": "0"}, "5f3a1c2bffff") == "model=l2q,seed=0-5f3a1c2b"
    assert folder_name({}, "5f3a1c2bffff") == "5f3a1c2b"
    assert folder_name({"dataset.dir": "a/b.csv"}, "5f3a1c2bffff") == "dataset.dir=a_b.csv-5f3a1c2b"
    long = folder_name({f"model.quantizer.option{n}": "v" * 99 for n in range(5)}, "5f3a1c2bffff")
    assert len(long.encode()) <= 159
    assert all(f"option{n}=" in long for n in range(5))
    assert len(folder_name({"x" * 300: "y"}, "5f3a1c2bffff").encode()) <= 159


def test_a_damaged_status_counts_as_none(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "do')
    assert read_status(tmp_path) == {}
    (tmp_path / "status.json").write_text("[]")
    assert read_status(tmp_path) == {}
    assert Outcome("done").metrics == {}


class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@ctypes.CFUNCTYPE(None)  # as llvmlite calls it
def from_native_code():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


@pytest.mark.parametrize("lose", [Dying, from_native_code])
def test_a_signal_where_nothing_can_be_raised_is_not_lost(lose, capfd):
    def go_on():
        with interruptible():
            lose()
            time.sleep(10)

    hook = sys.unraisablehook
    with pytest.raises(Interrupted, match="SIGTERM"):
        go_on()
    assert sys.unraisablehook is hook
    assert capfd.readouterr().err == ""


def test_a_second_signal_while_the_first_is_raised_again_prints_nothing(monkeypatch, capfd):
    def start(timer):  # a moment within the hook
        os.kill(os.getpid(), signal.SIGINT)
        begin(timer)

    begin = threading.Timer.start
    monkeypatch.setattr(threading.Timer, "start", start)

    def go_on():
        with interruptible():
            Dying()
            time.sleep(10)

    with pytest.raises(Interrupted, match="SIGTERM"):
        go_on()
    assert capfd.readouterr().err == ""


def test_a_signal_that_a_query_makes_an_error_of_is_one_again(made, monkeypatch):
    job = made()

    def long_query(*_):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except Interrupted:  # DuckDB does so, in native code, where a signal comes within a statement
            raise RuntimeError("Query interrupted") from None

    monkeypatch.setattr(Run, "__call__", long_query)
    outcome = job.attempt()
    assert (outcome.state, outcome.reason, outcome.code) == ("interrupted", "SIGTERM", 143)
    assert job.status()["state"] == "interrupted"


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), interruptible(), unhidden():
        1 / 0  # noqa: B018
