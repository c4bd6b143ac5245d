"""Tries: ``debug=fdr | overfit | profiler`` does little, leaves test unread, and is in no report."""

import json

import pytest
import yaml
from runs import SMALL, composed, history_of, metrics_of, only, process, run, table

from l2q.cli import main
from l2q.errors import L2QError
from l2q.learning.run import Run


@pytest.fixture
def words(tmp_path):
    return [*table(tmp_path / "events.csv"), "model=lightgcn", *SMALL]


def test_a_try_lies_below_outputs_debug_and_is_in_no_report(tmp_path, words, capsys):
    done = process("debug=fdr", "print_config=true", "tags=[first]", *words, cwd=tmp_path)
    folder = only(tmp_path, "outputs/debug/table_events/lightgcn/*")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["debug"]
    metrics = metrics_of(folder)
    assert (metrics["debug"], metrics["epochs"], metrics["tags"]) == ("fdr", 1, ["first"])
    assert "val/recall_20" in metrics
    assert not any(key.startswith("test/") for key in metrics)
    assert not (folder / "per_user.npz").exists()
    assert not (folder / "wandb").exists()
    assert [row["step"] for row in history_of(folder)] == ["2"]
    # what the command line came to, and what gives the figures again
    shown = yaml.safe_load(done.stdout[: done.stdout.index(f"\n{tmp_path}")])
    assert shown == composed("debug=fdr", "tags=[first]", *words)
    assert "print_config" not in metrics["command"]
    assert "tags" not in metrics["command"]
    assert "debug=fdr" in metrics["command"]
    # neither by its place nor by its mark
    assert main(["report", str(tmp_path / "outputs")]) == 2
    assert "holds no metrics.json" in capsys.readouterr().err
    moved = tmp_path / "results" / "metrics.json"
    moved.parent.mkdir()
    moved.write_text(json.dumps(metrics))
    with pytest.warns(UserWarning, match=r"is a try \(debug=fdr\); it is left out"):
        assert main(["report", str(tmp_path / "results")]) == 2


def test_a_sweep_of_tries_lies_there_too(tmp_path, words):
    process("-m", "debug=fdr", "seed=0,1", "sweep=both", *words, cwd=tmp_path)
    jobs = list((tmp_path / "outputs" / "debug" / "sweeps" / "both").glob("*/metrics.json"))
    assert len(jobs) == 2
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["debug"]


def test_one_batch_is_learned_by_heart(tmp_path, words):
    metrics = run(tmp_path, "debug=overfit", *words, "epochs=30", "learning_rate=0.1")
    losses = [float(row["train/loss"]) for row in history_of(tmp_path)]
    assert len(losses) == 30  # whatever validation says
    assert losses[-1] < losses[0] / 5
    assert not any(key.startswith("test/") for key in metrics)


def test_a_profile_of_one_epoch(tmp_path, words):
    metrics = run(tmp_path, "debug=profiler", *words)
    assert "run_training_epoch" in (tmp_path / "fit-profile.txt").read_text()
    assert metrics["epochs"] == len(history_of(tmp_path)) == 1


@pytest.mark.parametrize("name", ["fdr", "overfit", "profiler"])
def test_a_try_never_reads_test(tmp_path, words, name):
    assert not composed(f"debug={name}", *words)["test"]
    with pytest.raises(
        L2QError, match=f"^test=true: debug={name} leaves test unread; leave one of them out$"
    ):
        Run(composed(f"debug={name}", *words, "test=true"), tmp_path / "run")


def test_the_command_line_has_the_last_word(words):
    found = composed("debug=fdr", *words, "trainer.limit_train_batches=3", "logger=csv")
    assert found["trainer"]["limit_train_batches"] == 3
    assert found["logger"]["name"] == "csv"
