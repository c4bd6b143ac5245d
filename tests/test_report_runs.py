"""What a report reads: runs that are done, jobs that are not, several folders, any metric, odd files."""

import csv
import json
import os
import platform
import subprocess
import sys

import pytest
from made_runs import make_run, make_sweep, make_unfinished, metrics

from l2q.cli import main
from l2q.errors import L2QError
from l2q.report import Measure, gather, read, unfinished
from l2q.report.runs import history
from l2q.report.tables import short_names


def test_jobs_that_are_not_done_are_listed_with_their_state(tmp_path, capsys):
    make_run(tmp_path / "done")
    make_unfinished(tmp_path / "a")
    make_unfinished(tmp_path / "b", "waiting")
    make_unfinished(tmp_path / "c", "failed", reason="train/loss is nan\n  at epoch 2")
    make_unfinished(tmp_path / "d", "interrupted", reason="SIGTERM")
    make_unfinished(tmp_path / "e", "running", process=os.getpid(), host=platform.node())
    make_unfinished(tmp_path / "f", "running", process=7, host="another")
    found = {job.folder.name: (job.state, job.reason or job.where) for job in unfinished(tmp_path)}
    assert found == {
        "a": ("unfinished", ""),
        "b": ("waiting", ""),
        "c": ("failed", "train/loss is nan at epoch 2"),
        "d": ("interrupted", "SIGTERM"),
        "e": ("running", f"process {os.getpid()} on {platform.node()}"),
        "f": ("running", "process 7 on another"),
    }
    assert [(job.epoch, job.epochs) for job in unfinished(tmp_path)] == [(3, 3)] * 6
    assert main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| `c` | failed | 3 of 3 | train/loss is nan at epoch 2 |" in out
    assert "| `l2q` | 256 | 0.4000 |" in out


def test_a_process_that_is_gone_does_not_run(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    make_unfinished(tmp_path / "a", "running", process=ended.pid, host=platform.node())
    (job,) = unfinished(tmp_path)
    assert (job.state, job.reason) == ("interrupted", f"process {ended.pid} on {platform.node()} is gone")


def test_results_of_a_job_that_goes_on_do_not_count_yet(tmp_path):
    """Its metrics.json is of an earlier attempt, or half of this one."""
    make_run(tmp_path / "done")
    again = make_run(tmp_path / "again", "l2q_anl")
    (again / "status.json").write_text(json.dumps({"state": "running", "process": 1, "host": "another"}))
    assert [run["model"] for run in read(tmp_path)] == ["l2q"]
    assert [job.state for job in unfinished(tmp_path)] == ["running"]
    (again / "status.json").write_text(json.dumps({"state": "done"}))
    assert [run["model"] for run in read(tmp_path)] == ["l2q_anl", "l2q"]
    assert unfinished(tmp_path) == []
    (again / "metrics.json").unlink()
    assert [(job.state, job.reason[:20]) for job in unfinished(tmp_path)] == [
        ("unfinished", "status.json says don")
    ]


def test_a_folder_of_nothing_but_unfinished_jobs_is_a_report(tmp_path, capsys):
    make_unfinished(tmp_path / "a", "waiting")
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == ["| `a` | waiting | 3 of 3 |  |"]
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert "waiting" in (tmp_path / "page.html").read_text()


def test_several_folders_are_one_report_and_a_run_counts_once(tmp_path):
    make_run(tmp_path / "a" / "0", "l2q", 0)
    make_run(tmp_path / "b" / "0", "l2q_anl", 0)
    stored = tmp_path / "stored"
    stored.mkdir()
    (stored / "x.json").write_text(json.dumps(metrics("spectral", 0.2, 0)))
    runs = read(tmp_path / "a", tmp_path / "b", stored, tmp_path / "b" / "0")
    assert [run["model"] for run in runs] == ["l2q", "l2q_anl", "spectral"]
    with pytest.raises(L2QError, match="nowhere is no folder"):
        gather([tmp_path / "a", tmp_path / "nowhere"])


def test_what_changes_no_figure_makes_no_row(tmp_path):
    for seed, words in enumerate((["sweep=a"], ["sweep=b", "launcher.jobs=2", "logger=csv", "+tags=[x]"])):
        make_run(tmp_path / f"{seed}", "l2q", seed, *words)
    (row,) = gather([tmp_path]).findings[0].block.rows
    assert (row.name, len(row.runs)) == ("`l2q`", 2)
    assert gather([tmp_path]).findings[0].swept == []


def test_runs_of_debug_are_no_results(tmp_path):
    make_run(tmp_path / "outputs" / "toy" / "l2q" / "0")
    make_run(tmp_path / "outputs" / "debug" / "0", "l2q_anl")
    make_unfinished(tmp_path / "outputs" / "debug" / "1")
    assert [run["model"] for run in read(tmp_path / "outputs")] == ["l2q"]
    assert unfinished(tmp_path / "outputs") == []
    with pytest.raises(L2QError, match="holds no metrics"):
        read(tmp_path / "outputs" / "debug")


def test_odd_files_of_a_job_are_said_once_each_and_left_out(tmp_path):
    make_run(tmp_path / "a", "lightgcn")
    odd = make_run(tmp_path / "b", "l2q")
    (odd / "history.csv").write_text("epoch,train/loss\n1,not a number\n")
    (odd / "config.json").write_text("{")
    (odd / "status.json").write_text("[]")
    with pytest.warns(UserWarning, match="left out") as caught:
        assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    said = sorted(str(warning.message).split(" cannot be read")[0] for warning in caught)
    assert said == [str(odd / name) for name in ("history.csv", "status.json")]
    make_unfinished(tmp_path / "c")
    (tmp_path / "c" / "config.json").write_text("{")
    with pytest.warns(UserWarning, match=r"c/config\.json cannot be read") as caught:
        assert [job.epochs for job in unfinished(tmp_path, tmp_path)] == [None]
    assert len(caught) == 1


def test_a_history_has_what_was_measured_in_each_epoch(tmp_path):
    with (tmp_path / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "train/loss", "val/recall_20"], [1, 0.5, ""], [2, 0.25, 0.125]])
    assert history(tmp_path / "history.csv") == [
        {"epoch": 1, "train/loss": 0.5},
        {"epoch": 2, "train/loss": 0.25, "val/recall_20": 0.125},
    ]
    assert history(tmp_path / "nowhere.csv") == []


@pytest.mark.parametrize(
    ("name", "key", "label"),
    [
        ("recall@20", "recall_20", "Recall@20"),
        ("NDCG@5", "ndcg_5", "NDCG@5"),
        ("hit_rate_10", "hit_rate_10", "Hit rate@10"),
        ("tail_recall@20", "tail_recall_20", "tail recall@20"),
        ("test/teacher/recall_20", "test/teacher/recall_20", "test teacher Recall@20"),
        ("item_bytes", "item_bytes", "item_bytes"),
    ],
)
def test_a_measure_is_named_as_people_and_as_files_do(name, key, label):
    assert Measure.of(name) == Measure(key)
    assert Measure.of(name).label == label


def test_any_metric_and_figure_that_runs_have(tmp_path, capsys):
    make_sweep(tmp_path, seeds=2)
    assert main(["report", str(tmp_path), "--metric", "recall@5", "item_bytes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| model | bits per item | Recall@5 | item_bytes | of LightGCN |")
    assert lines[6].startswith("| `l2q` | 256 | 0.1013 ± 0.0018 | 32.0000 ± 0.0000 |")
    with pytest.warns(UserWarning, match="has no Recall@7"):
        assert main(["report", str(tmp_path), "--metric", "recall@7"]) == 2
    assert (
        "of a run with Recall@7; they have recall@20, ndcg@20, recall@5, ndcg@10, " in capsys.readouterr().err
    )
    assert main(["report", str(tmp_path), "--metric", "recall 20%"]) == 2
    assert "--metric recall 20%: give a metric such as recall@20" in capsys.readouterr().err


def test_of_a_figure_that_should_be_small_the_smallest_is_the_best(tmp_path):
    make_sweep(tmp_path, seeds=1)
    (found,) = gather([tmp_path], [Measure.of("item_bytes")]).findings
    assert [found.results.rows[row][0] for row, _ in sorted(found.results.best)] == [
        "`popularity`",
        "`l2q`",
        "`l2q_anl`",
    ]
    assert "Chosen by item_bytes among 4 of 4 runs" in found.best[0].note


def test_nothing_to_report_on_is_said(capsys):
    assert main(["report"]) == 2
    assert capsys.readouterr().err == "error: name a folder of runs, such as outputs/results\n"


def test_what_a_search_pruned_is_an_outcome_of_its_own(tmp_path, capsys):
    make_run(tmp_path / "model.clip=1,seed=0-5f3a1c2b")
    for rate in ("0.1", "0.2"):
        folder = tmp_path / f"learning_rate={rate},transform=rotation-5f3a1c2{rate[-1]}"
        make_unfinished(folder, "pruned", reason="pruned after epoch 3")
    (tmp_path / "learning_rate=0.2,transform=rotation-5f3a1c22" / "history.csv").write_text(
        "epoch,val/recall_20\n1,0.3\n2,0.9\n"
    )
    report = gather([tmp_path])
    assert report.waiting == []
    (pruned,) = report.pruned
    assert pruned.rows == [
        ["`learning_rate=0.2`", "2 of 3", "0.9000"],
        ["`learning_rate=0.1`", "3 of 3", "0.4000"],
    ]
    assert "no failure. All: `transform=rotation`." in pruned.note
    assert main(["report", str(tmp_path), "--html", str(tmp_path / "page.html")]) == 0
    assert "| pruned job | epoch | best Recall@20, validation |" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Pruned by the search</h2>" in page
    assert "<h2>Not done</h2>" not in page


@pytest.mark.parametrize(
    ("folders", "names", "note"),
    [
        (
            ["model=l2q,seed=0-5f3a1c2b", "model=l2q,seed=1-6f3a1c2b"],
            ["seed=0", "seed=1"],
            "All: `model=l2q`.",
        ),
        (
            ["model=l2q,model.clip=2-5f3a1c2b", "model=l2q_anl-6f3a1c2b"],
            ["model=l2q,clip=2", "model=l2q_anl"],
            "",
        ),
        (["a.x=1,b.x=2-5f3a1c2b", "a.x=2,b.x=2-6f3a1c2b"], ["a.x=1", "a.x=2"], "All: `b.x=2`."),
        (["model=l2q,seed=0-5f3a1c2b"], ["model=l2q,seed=0"], ""),
        (["model=l2q-5f3a1c2b", "model=l2q-6f3a1c2b"], ["model=l2q-5f3a1c2b", "model=l2q-6f3a1c2b"], ""),
        (
            ["a/model=l2q-5f3a1c2b", "b/model=l2q-5f3a1c2b"],
            ["a/model=l2q-5f3a1c2b", "b/model=l2q-5f3a1c2b"],
            "",
        ),
        (["one", "seed=1-6f3a1c2b"], ["one", "seed=1-6f3a1c2b"], ""),
    ],
)
def test_folders_of_jobs_are_called_by_what_differs(tmp_path, folders, names, note):
    assert short_names([tmp_path / folder for folder in folders], tmp_path) == (names, note)


def test_a_checkpoint_that_was_measured_again_is_called_so_and_is_not_the_best(tmp_path):
    make_run(tmp_path / "a", "l2q_anl", 0)
    again = "ckpt_path=outputs/toy/l2q_anl/2026-11-29/checkpoints/last.ckpt"
    make_run(tmp_path / "b", "l2q_anl", 0, "fit=false", again, recall=0.9)
    (found,) = gather([tmp_path]).findings
    assert [row.name for row in found.block.rows] == [
        "`l2q_anl`",
        "`l2q_anl` (checkpoint `2026-11-29/last.ckpt`, measured again)",
    ]
    assert not found.best or "fit=false" not in str(found.best[0].rows)
