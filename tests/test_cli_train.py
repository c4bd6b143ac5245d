"""``python train.py`` as its users call it: what only a process can show."""

import csv
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from runs import EVERY_EPOCH, ROOT, composed, environment, metrics_of, only, process, run, table

from l2q.learning import naming


def test_a_run_says_and_leaves_what_it_promises(tmp_path):
    done = process(
        "trainer.max_epochs=2", "epochs=2", EVERY_EPOCH, "model.embedding_dim=16", cwd=tmp_path
    )  # fmt: skip
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    metrics = metrics_of(folder)
    assert {path.name for path in folder.iterdir()} >= {
        *("config.json", "metrics.json", "per_user.npz", "index", "train.log"),
        *("history.csv", "checkpoints", "training.png", "wandb"),
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "wandb_id.txt")
    }
    assert metrics["model"] == "l2q_anl"
    assert (metrics["protocol"], metrics["split"]) == ("holdout", "random")
    # what is measured is what ships
    for key in ("recall_20", "ndcg_20"):
        assert 0 < metrics[f"test/{key}"] == metrics[f"test/packed/{key}"]
    with np.load(folder / "per_user.npz") as per_user:
        assert np.isclose(per_user["recall_20"].mean(), metrics["test/recall_20"])
    # bytes of the files: 3 segments of 16 bits + 3 float32 scales = 18 bytes, and two .npy headers a side
    assert 18 < metrics["item_bytes"] < 18.1
    assert (folder / "training.png").read_bytes()[:4] == b"\x89PNG"
    assert "Recall@20" in done.stdout
    assert "holdout" in done.stdout
    assert re.search(r"training is expected to take \d+ seconds in all", done.stdout)
    assert "epoch 1 of 2, " in done.stdout  # no terminal: lines instead of the bar
    assert re.search(r"epoch [12] is kept, .*; trained 2 of 2 epochs\n", done.stdout)
    said = (folder / "train.log").read_text()
    assert all(words in said for words in ("16,600 users", "epoch 1 of 2", "is kept", "Recall@20 (test) 0."))
    assert metrics["total_seconds"] > metrics["fit_seconds"] > 0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for part in ("sample", "propagate", "loss", "optimizer", "evaluate", "other"):
        assert metrics[f"time/{part}"] == sum(float(row[f"time/{part}"]) for row in rows) > 0
        assert f"{part} {metrics[f'time/{part}']:.1f}" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model=lightgnc"],
            "error: model=lightgnc: there is no such choice; did you mean lightgcn? "
            "`python train.py --help` lists them all",
        ),
        (["model.embeding_dim=3"], "embeding_dim"),
        (["dataset=table"], "error: dataset.dir has no default: give dataset.dir=VALUE"),
        (["-m", "dataset=table", "seed=0,1"], "error: dataset.dir has no default: give dataset.dir=VALUE"),
        (["learning_rate=-1"], "error: learning_rate=-1 must be a number above 0"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, words, said):
    done = process(*words, "logger=none", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("outputs/**/metrics.json"))
    if said.startswith("error: "):
        assert done.returncode == 2
        assert said in done.stderr.splitlines()


NAMES = ["événements 2024.csv", "events (1).csv", "a=b,c's.csv"]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_any_name_is_found_and_named(tmp_path, name):
    words = [*table(tmp_path / name)[:1], "eval.ks=[5]"]
    given = naming.quoted(f"dataset.dir={tmp_path / name}")
    config = composed("model=popularity", *words, given)
    assert config["dataset"]["dir"] == str(tmp_path / name)
    command = naming.command(config, ["model=popularity", *words, f"dataset.dir={tmp_path / name}"])
    assert shlex.split(command)[-1] == f"dataset.dir={name}"
    assert run(tmp_path / "run", "model=popularity", *words, given)["dataset"] == f"table_{name[:-4]}"


def test_the_shell_hands_over_such_a_name(tmp_path):
    table(tmp_path / NAMES[-1])
    words = ["model=popularity", "dataset=table", "eval.ks=[5]", "logger=none"]
    process(*words, f"dataset.dir={NAMES[-1]}", cwd=tmp_path)
    values = metrics_of(only(tmp_path, "outputs/*/popularity/*"))
    assert shlex.split(values["command"])[-1] == f"dataset.dir={NAMES[-1]}"


def test_a_warning_is_a_line_for_people_and_in_the_log(tmp_path):
    words = [*table(tmp_path / "events.csv")[:2], "model=popularity", "trainer.max_epochs=3", "logger=none"]
    done = process(*words, cwd=tmp_path)
    said = [
        "trainer.max_epochs has no effect on model=popularity, which is fitted at once",
        "eval.ks=[10, 20, 50] becomes [10, 20]: table_events has 45 items",
    ]
    assert [line for line in done.stderr.splitlines() if line.startswith("warning: ")] == [
        f"warning: {line}" for line in said
    ]
    log = only(tmp_path, "outputs/*/*/*/train.log").read_text()
    assert all(line in log for line in said)


def test_a_key_without_a_network_is_logged_offline(tmp_path):
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    words = ["model=popularity", *table(tmp_path / "events.csv")]
    done = process(*words, cwd=tmp_path, **key)
    assert "logged offline" in done.stderr
    assert list(tmp_path.glob("outputs/*/popularity/*/wandb/offline-run-*"))


def test_help_and_composition_do_not_import_torch(tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--cfg', 'job'];\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment(tmp_path)
    )
    assert done.stdout.strip().endswith("[]"), done.stdout[-500:] + done.stderr[-500:]
    assert "embedding_dim: 256" in done.stdout
