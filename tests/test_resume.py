"""Runs that go on: killed, interrupted, shortened, stopped, moved; and checkpoints that are not theirs."""

import csv
import functools
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from runs import (
    EVERY_EPOCH,
    SMALL,
    Trained,
    command,
    composed,
    environment,
    figures,
    history_of,
    metrics_of,
    offline_history,
    only,
    process,
    run,
    table,
)

from l2q.errors import L2QError
from l2q.learning.naming import run_dir
from l2q.learning.recommender import read_checkpoint
from l2q.learning.run import Run
from l2q.models.encoder import Encoder
from l2q.models.initialization import Normal

LAST = "checkpoints/last.ckpt"


@pytest.fixture
def events(tmp_path) -> list[str]:
    return table(tmp_path / "events.csv")


def stopped(words: list[str], cwd: Path, how: signal.Signals) -> tuple[Path, int]:
    """A run in a process of its own that gets a signal after two epochs: its folder and exit code."""
    with (cwd / "said").open("w") as said:
        started = subprocess.Popen(
            command(*words), cwd=cwd, env=environment(cwd), stdout=said, stderr=subprocess.STDOUT
        )
        while started.poll() is None:
            histories = list(cwd.glob("outputs/*/*/*/history.csv"))
            if histories and len(histories[0].read_text().splitlines()) >= 3:
                started.send_signal(how)
                break
            time.sleep(0.02)
        code = started.wait(timeout=600)
    assert code, (cwd / "said").read_text()  # it had not ended before
    return only(cwd, "outputs/*/*/*"), code


def test_a_killed_run_resumes_to_the_same_end_and_one_history(tmp_path):
    words = ["epochs=5", "annealing=guidance", EVERY_EPOCH, "model.embedding_dim=16"]
    folder, code = stopped(words, tmp_path, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (folder / "metrics.json").exists()
    process(*words, f"ckpt_path={folder}/{LAST}", cwd=tmp_path)
    assert only(tmp_path, "outputs/debian/l2q_anl/*") == folder  # it went on in its own folder
    found = metrics_of(folder)
    assert found["command"] == f"python train.py {' '.join(words)}"
    whole = run(tmp_path / "whole", *words)
    assert figures(found) == figures(whole)
    assert found["config_hash"] == whole["config_hash"]
    rows = history_of(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows == history_of(tmp_path / "whole")
    assert "codes/flip_ratio" in rows[0]
    # W&B: one run id, and its files together hold every epoch once
    run_id = (folder / "checkpoints" / "wandb_id.txt").read_text().strip()
    files = sorted((folder / "wandb").glob("offline-run-*"))
    assert [file.name.rsplit("-", 1)[1] for file in files] == [run_id, run_id]
    epochs = [row["epoch"] for file in files for row in offline_history(file) if "val/recall_20" in row]
    assert epochs == [1, 2, 3, 4, 5]


def test_an_interrupted_run_ends_at_once_and_goes_on(tmp_path):
    words = ["model=lightgcn", "epochs=60", EVERY_EPOCH, "model.embedding_dim=8", "logger=none"]
    words += ["protocol.patience=60"]
    folder, code = stopped(words, tmp_path, signal.SIGINT)
    assert code != 0
    assert not (folder / "metrics.json").exists()
    done = len(history_of(folder))
    assert done < 60
    metrics = run(folder, *words, "trainer.max_epochs=4", f"ckpt_path={folder}/{LAST}")
    assert metrics["epochs"] > 0
    epochs = [int(row["epoch"]) for row in history_of(folder)]
    assert epochs == list(range(1, len(epochs) + 1))


def test_evaluating_a_checkpoint_repeats_its_figures(tmp_path, events):
    words = [*events, *SMALL, EVERY_EPOCH]
    expected = run(tmp_path / "one", *words)
    # how codes were softened on their way does not matter to hard codes
    best = f"ckpt_path={tmp_path}/one/checkpoints/best.ckpt"
    found = run(tmp_path / "other", *words, "fit=false", "annealing=mixture", best)
    assert figures(found) == figures(expected)
    assert not (tmp_path / "other" / "history.csv").exists()


def test_a_shortened_run_that_goes_on_ends_as_a_whole_one(tmp_path, events):
    """It stops between two validations, where a whole one would not have measured."""
    words = ["model=lightgcn", *events, *SMALL, "epochs=8", "protocol.every_n_epochs=4"]
    words += ["protocol=holdout", "protocol.patience=1", "learning_rate=0.1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = run(whole, *words)
    run(cut, *words, "trainer.max_epochs=3")
    found = run(cut, *words, f"ckpt_path={cut}/{LAST}")
    assert figures(found) == figures(expected)
    for folder in (whole, cut):
        assert [row["epoch"] for row in history_of(folder) if row.get("val/recall_20")] == ["4", "8"]


def test_a_folder_instead_of_a_checkpoint_is_told_what_is_in_it(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(L2QError, match=r"is not a file; give a checkpoint such as .*checkpoints/last\.ckpt"):
        read_checkpoint(tmp_path, {})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=l2q", "the checkpoint has model=lightgcn, this run has model=l2q;"),
        ("model.num_layers=1", "the checkpoint has model.num_layers=2, this run has model.num_layers=1;"),
        ("dataset.name=other", "the checkpoint has dataset=table_events, this run has dataset=other;"),
        ("protocol.split_seed=1", "the checkpoint has fingerprint="),
        # how a model was trained does not matter where it is only measured, but what it has learned does
        ("objective.learn_temperature=true", "the checkpoint has no objective."),
    ],
)
def test_a_checkpoint_of_something_else_is_not_measured(trained, tmp_path, override, said):
    words = [*trained.words, f"ckpt_path={trained.folder}/{LAST}", "fit=false", override]
    with pytest.raises(L2QError, match=re.escape(said)) as caught:
        run(tmp_path / "new", *words)
    assert "give the options that it was trained with" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new" / "metrics.json").exists()


def test_a_resume_with_other_options_is_one_clear_line_and_nothing_is_written(tmp_path, events):
    folder = tmp_path / "outputs" / "one"
    words = [*events, *SMALL, "logger=none"]
    run(folder, *words)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = process(*words, "seed=7", f"ckpt_path={folder}/{LAST}", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "error: ckpt_path: the checkpoint has seed=0, this run has seed=7; give the options" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "train.log"}
    assert {path: after[path] for path in before if path.is_file()} == {
        path: changed for path, changed in before.items() if path.is_file()
    }


@pytest.mark.parametrize("model", ["popularity", "spectral", "l2q_plus"])
def test_a_model_that_is_fitted_at_once_has_no_checkpoint(trained, tmp_path, model):
    words = [f"model={model}", *table(tmp_path / "events.csv"), "logger=none"]
    said = f"model={model} is fitted at once, and goes on by its folder: leave ckpt_path out, and give hydra.run.dir="
    for other in ([], ["fit=false"]):
        with pytest.raises(L2QError, match=rf"ckpt_path=\S*/last.ckpt: {said}"):
            Run(composed(*words, f"ckpt_path={trained.folder}/{LAST}", *other), tmp_path)
    with pytest.raises(
        L2QError, match=f"epochs=3: model={model} is fitted at once, without epochs; leave epochs out"
    ):
        Run(composed(*words, "epochs=3"), tmp_path)
    with pytest.raises(L2QError, match="fit=false evaluates a checkpoint"):
        Run(composed(*words, "fit=false"), tmp_path)
    with pytest.warns(UserWarning, match=f"trainer.max_epochs has no effect on model={model}"):
        Run(composed(*words, "trainer.max_epochs=3"), tmp_path)


@pytest.mark.parametrize("more", [["trainer.max_epochs=0"], ["trainer.max_epochs=9"], ["fit=false"]])
def test_what_takes_its_weights_from_a_checkpoint_fits_no_others_first(trained, monkeypatch, more):
    started, begin = [], Normal.__call__

    def recorded(self, *arguments):
        started.append(self.std)
        return begin(self, *arguments)

    monkeypatch.setattr(Normal, "__call__", recorded)
    rebuilt(trained, *more)
    assert started == [0.0]


def test_a_checkpoint_from_elsewhere_does_not_lend_its_folder(tmp_path):
    missing = tmp_path / "elsewhere" / "checkpoints" / "last.ckpt"
    assert run_dir(True, str(missing), "outputs").startswith("outputs/")
    with pytest.raises(L2QError, match="is not a file"):
        Run(composed(f"ckpt_path={missing}", "logger=none"), tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    missing.parent.mkdir(parents=True)
    missing.touch()
    assert run_dir(True, str(missing), "outputs") == str(tmp_path / "elsewhere")
    assert run_dir(False, str(missing), "outputs").startswith("outputs/")  # only measured: in a new one


def test_a_run_that_stopped_early_ends_where_it_had(trained, tmp_path):
    words = [*trained.words, "epochs=40", "protocol.patience=1", "learning_rate=0.2"]
    before = run(tmp_path, *words)
    after = run(tmp_path, *words, f"ckpt_path={tmp_path}/{LAST}")
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert 2 < len(rows) < 40
    same = [key for key in before if key.startswith(("val/", "test/", "time/"))] + ["epochs"]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["fit_seconds"] >= sum(after[key] for key in same if key.startswith("time/"))


def rebuilt(trained: Trained, *overrides: str) -> Run:
    """What ``train.py`` builds where the run's checkpoint is named with ``overrides``."""
    return Run(composed(*trained.words, f"ckpt_path={trained.folder}/{LAST}", *overrides), trained.folder)


@pytest.mark.parametrize(
    ("override", "found", "wanted"),
    [
        ("seed=7", "seed=0", "seed=7"),
        ("epochs=9", "epochs=8", "epochs=9"),
        ("batch_size=64", "batch_size=128", "batch_size=64"),
        ("learning_rate=0.2", "learning_rate=0.1", "learning_rate=0.2"),
        ("schedule=constant", "schedule=cosine", "schedule=constant"),
        ("protocol.patience=5", "protocol.patience=9", "protocol.patience=5"),
        ("annealing=guidance", "annealing.name=none", "annealing.name=guidance"),
        ("+annealing.hold=0.5", "annealing.hold=None", "annealing.hold=0.5"),
        ("objective=softmax", "objective._target_=l2q.models.losses.BPR", "Softmax"),
        ("objective.l2=0.5", "objective.l2=0.001", "objective.l2=0.5"),
        ("model=l2q", "model=lightgcn", "model=l2q"),
        ("model.popularity=0.2", "popularity=None", "popularity=0.2"),
        ("model.initialization.std=0.1", "model.initialization.std=0.01", "model.initialization.std=0.1"),
    ],
)
def test_a_resume_with_other_options_is_refused_before_anything_is_built(
    trained, monkeypatch, override, found, wanted
):
    @functools.wraps(Encoder.__init__)
    def never(*_, **__):
        pytest.fail("an encoder is built")

    monkeypatch.setattr(Encoder, "__init__", never)
    with pytest.raises(L2QError, match=f"the checkpoint has {found}, this run has .*{wanted};"):
        rebuilt(trained, override)


def test_what_does_not_train_may_differ_where_a_checkpoint_is_named(trained):
    rebuilt(trained, "trainer.max_epochs=9", "test=false", "new_users=false", "eval.ks=[3]")
    # what is only evaluated has the model's options alone
    rebuilt(trained, "fit=false", "epochs=9", "batch_size=64", "annealing=guidance", "model.popularity=0.2")
    with pytest.raises(L2QError, match="the checkpoint has seed=0, this run has seed=7"):
        rebuilt(trained, "fit=false", "seed=7")
    with pytest.raises(L2QError, match=r"model\.combination=mean, this run has model\.combination=concat"):
        rebuilt(trained, "fit=false", "model.combination=concat")


def test_a_run_whose_folder_was_moved_keeps_its_best_epoch(trained, tmp_path):
    def check_resumed(folder: Path, source: Path) -> None:
        found = run(folder, *trained.words, f"ckpt_path={source}/{LAST}")
        assert figures(found) == figures(trained.metrics)
        assert history_of(folder) == history_of(trained.folder)

    old, new, own = tmp_path / "old", tmp_path / "new", tmp_path / "own"
    # the best epoch is over; those that follow are worse
    assert run(old, *trained.words, "trainer.max_epochs=6")["epochs"] == trained.metrics["epochs"]
    check_resumed(own, old)  # into a folder of its own
    old.rename(new)
    check_resumed(new, new)
    (new / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(L2QError, match=r"the best epoch so far, .*best\.ckpt, is gone"):
        check_resumed(new, new)


def test_a_checkpoint_says_what_it_was_made_with(trained):
    """Plain values alone, so that it is read without running code."""
    found = read_checkpoint(trained.folder / LAST, {})["l2q"]
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["dataset"], found["seed"]) == ("lightgcn", "table_events", 0)
    assert found["fingerprint"] == trained.run.rest.fingerprint
    assert np.isclose(found["learning_rate"], 0.1)
