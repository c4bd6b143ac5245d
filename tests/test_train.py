"""The entry point as its users call it: runs, sweeps, resuming, every option, bad input."""

import csv
import functools
import importlib.util
import json
import math
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from l2q.cli import main
from l2q.data.sources import load_dataset
from l2q.data.splits import split_validation
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.fitted.teacher import TeacherIndex
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Dataset, Interactions
from l2q.learning import results
from l2q.learning.options import check_added, check_against, check_options, settle
from l2q.learning.recommender import read_checkpoint
from l2q.learning.results import environment
from l2q.learning.run import Run
from l2q.learning.wandb_run import wandb_logger
from l2q.models.encoder import Encoder
from l2q.representations import Representations, Rows
from l2q.retrieval.fold_in import FoldIn, HalfRound
from l2q.retrieval.storage import load_index

ROOT = Path(__file__).parents[1]
SMALL = ["model.embedding_dim=16", "batch_size=32768", "hydra.verbose=false"]


def train(*overrides: str, check: bool = True, cwd: Path) -> subprocess.CompletedProcess:
    """``python train.py`` in a fresh process, its outputs below ``cwd``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    environment |= {"COLUMNS": "120", "HOME": str(cwd)}  # no account, no key
    command = [sys.executable, str(ROOT / "train.py"), *overrides, *SMALL]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def history_of(folder: Path) -> list[dict[str, str]]:
    """Every column of ``history.csv`` that another run gives too: all but the seconds."""
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_a_run_leaves_what_it_promises(tmp_path):
    done = train("trainer.max_epochs=2", "epochs=2", "protocol.every_n_epochs=1", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    metrics = metrics_of(folder)
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "history.csv",
        "checkpoints",
        "index",
        "per_user.npz",
        "training.png",
        "wandb",
    } <= names
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        "best.ckpt",
        "last.ckpt",
        "wandb_id.txt",
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
    assert "expects to take" in done.stdout
    assert "epoch 1 of 2, " in done.stdout  # no terminal: lines instead of the bar
    assert re.search(r"epoch [12] is kept, .*; trained 2 of 2 epochs\n", done.stdout)
    said = (folder / "train.log").read_text()
    assert all(words in said for words in ("16,600 users", "epoch 1 of 2", "is kept", "Recall@20 (test) 0."))
    assert metrics["total_seconds"] > metrics["fit_seconds"] > 0
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val/recall_20"]) > 0
    for part in ("sample", "propagate", "loss", "optimizer", "evaluate", "other"):
        assert metrics[f"time/{part}"] == sum(float(row[f"time/{part}"]) for row in rows) > 0
        assert f"{part} {metrics[f'time/{part}']:.1f}" in done.stdout
    assert float(rows[0]["anneal/strength"]) < float(rows[1]["anneal/strength"]) < 1


def test_a_test_that_is_not_read_is_not_reported(tmp_path):
    train("test=false", "trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    metrics = metrics_of(only(tmp_path, "outputs/debian/l2q_anl/*"))
    assert metrics["val/recall_20"] > 0
    assert not [key for key in metrics if key.startswith("test/")]


def test_a_final_run_monitors_nothing_and_uses_all_of_train(tmp_path):
    done = train("protocol=final", "trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    assert "protocol final" in done.stdout
    assert [path.name for path in (folder / "checkpoints").glob("*.ckpt")] == ["last.ckpt"]
    assert not [key for key in metrics_of(folder) if key.startswith("val/")]


def test_a_killed_run_resumes_to_the_same_end_and_one_history(tmp_path):
    options = ["epochs=6", "annealing=guidance", "protocol.every_n_epochs=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    train(*options, cwd=whole)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *options]
    process = subprocess.Popen(
        command, cwd=cut, env=environment | {"HOME": str(cut)}, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        histories = list(cut.glob("outputs/debian/l2q_anl/*/history.csv"))
        if histories and len(histories[0].read_text().splitlines()) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = only(cut, "outputs/debian/l2q_anl/*")
    assert not (folder / "metrics.json").exists()
    train(*options, f"ckpt_path={folder}/checkpoints/last.ckpt", cwd=cut)
    assert only(cut, "outputs/debian/l2q_anl/*") == folder  # it went on in its own folder
    expected, found = metrics_of(only(whole, "outputs/debian/l2q_anl/*")), metrics_of(folder)
    for key in expected:
        if key.startswith(("val/", "test/")):
            assert found[key] == expected[key], key
    assert [found[key] for key in ("command", "config_hash")] == [
        expected[key] for key in ("command", "config_hash")
    ]
    rows = history_of(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows == history_of(only(whole, "outputs/debian/l2q_anl/*"))
    assert "codes/flip_ratio" in rows[0]
    # W&B: one run id, and its last file holds every epoch
    run_id = (folder / "checkpoints" / "wandb_id.txt").read_text().strip()
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    assert [run.name.rsplit("-", 1)[1] for run in runs] == [run_id, run_id]
    epochs = [row["epoch"] for row in offline_history(runs[-1]) if "val/recall_20" in row]
    assert sorted(set(epochs)) == [0, 1, 2, 3, 4, 5]


def offline_history(run: Path) -> list[dict]:
    """The history records of an offline run file: a seven-byte head, then blocks of 32 KiB that hold chunks
    of records, each with a checksum, its length, and whether it is whole (1), first, middle or last (4)."""
    from wandb.proto import wandb_internal_pb2

    content = only(run, "*.wandb").read_bytes()
    assert content[:4] == b":W&B"
    position, record, rows = 7, b"", []
    while position + 7 <= len(content):
        if 32768 - position % 32768 < 7:  # no room for a head: filled up
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        record = (b"" if kind in (1, 2) else record) + content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            parsed = wandb_internal_pb2.Record.FromString(record)
            if parsed.WhichOneof("record_type") == "history":
                items = parsed.history.item
                rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return rows


def test_evaluating_a_checkpoint_repeats_its_figures(tmp_path):
    train("trainer.max_epochs=1", "protocol.every_n_epochs=1", "logger=none", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    expected = metrics_of(folder)
    # how codes were softened on their way does not matter to hard codes
    best = f"ckpt_path={folder}/checkpoints/best.ckpt"
    train("fit=false", "annealing=mixture", best, "logger=none", cwd=tmp_path)
    (again,) = set(tmp_path.glob("outputs/debian/l2q_anl/*")) - {folder}
    for key in ("val/recall_20", "test/recall_20", "test/packed/ndcg_20", "epochs"):
        assert metrics_of(again)[key] == expected[key]


def test_a_sweep_gives_every_job_its_own_run_and_survives_a_failure(tmp_path):
    done = train(
        "-m", "model=lightgcn,l2q,l2q_anl", "seed=0,1", "trainer.max_epochs=1", cwd=tmp_path
    )  # fmt: skip
    sweep = only(tmp_path, "outputs/sweeps/*")
    jobs = sorted(path.parent for path in sweep.glob("*/metrics.json"))
    assert len(jobs) == 6, done.stdout + done.stderr
    assert {(metrics_of(job)["model"], metrics_of(job)["seed"]) for job in jobs} == {
        (model, seed) for model in ("lightgcn", "l2q", "l2q_anl") for seed in (0, 1)
    }
    ids = {only(job, "wandb/offline-run-*").name.rsplit("-", 1)[1] for job in jobs}
    assert len(ids) == 6
    assert all("model=" in job.name and "seed=" in job.name for job in jobs)
    # a job with an impossible cut-off leaves the others whole
    impossible = ["-m", "model=popularity,spectral", "eval.ks=[20],[9999999]", "logger=none"]
    done = train(*impossible, cwd=tmp_path, check=False)
    newest = max(tmp_path.glob("outputs/sweeps/*"), key=lambda path: path.stat().st_mtime)
    assert len(list(newest.glob("*/metrics.json"))) == 2
    assert done.returncode == 2
    assert "2 jobs failed" in done.stderr
    assert "Traceback" not in done.stderr


def options(group: str) -> str:
    return ",".join(sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml")))


@pytest.mark.parametrize("group", ["model", "annealing", "objective", "protocol"])
def test_every_option_runs_through_the_entry_point(tmp_path, group):
    train(
        "-m", f"{group}={options(group)}", "trainer.max_epochs=1", "logger=none", "eval.ks=[20]", cwd=tmp_path
    )
    found = list(tmp_path.glob("outputs/sweeps/*/*/metrics.json"))
    assert len(found) == len(options(group).split(","))
    for path in found:
        values = json.loads(path.read_text())
        assert values["test/recall_20"] == values["test/packed/recall_20"] > 0


@pytest.mark.parametrize("model", ["l2q", "last_layer", "l2q_anl"])
def test_a_quantizer_gets_the_relaxation_of_the_annealing(model):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [f"model={model}", "annealing=guidance"])
    assert config.model.quantizer.relaxation == "guidance"


@pytest.fixture
def plus(tmp_path) -> list[str]:
    """The options of ``l2q_plus`` on a small table of events in ``tmp_path``."""
    rng = np.random.default_rng(0)
    pairs = {(user, 15 * (user % 3) + item) for user in range(60) for item in rng.integers(15, size=9)}
    (tmp_path / "events.csv").write_text("user,item\n" + "".join(f"u{u},i{i}\n" for u, i in sorted(pairs)))
    return ["model=l2q_plus", "dataset=table", "dataset.dir=events.csv", "logger=none", "eval.ks=[5,20]"]


@pytest.mark.parametrize("test", [True, False])
def test_the_teacher_behind_codes_is_measured_beside_them(tmp_path, plus, test):
    train(*plus, f"test={test}", cwd=tmp_path)
    (path,) = tmp_path.glob("outputs/*/*/*/metrics.json")
    values = json.loads(path.read_text())
    dataset = load_dataset("table", dir=tmp_path / "events.csv", verify=False)
    fit, val = split_validation(dataset.train, "random", 0.1, 0)
    # what a table's run without epochs is fitted to: all of train, unless it measures the held-out part
    name, part, fitted = ("test", dataset.test, dataset.train) if test else ("val", val, fit)
    assert (values["protocol"], "val/recall_20" in values) == (
        ("final", False) if test else ("holdout", True)
    )
    expected = evaluate(TeacherIndex(choose_teacher(fitted)(fitted, 0)), part, [5, 20], fitted).metrics
    assert {key: values[f"{name}/teacher/{key}"] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert len([key for key in values if "/teacher/" in key]) == len(expected)


@pytest.mark.parametrize(
    ("words", "settled"),
    [
        ("model=l2q_plus dataset=table", "final"),
        ("model=popularity dataset=table", "final"),
        ("model=l2q_plus dataset=table test=false", "holdout"),
        ("model=l2q_plus dataset=table protocol=holdout", "holdout"),
        ("model=lightgcn dataset=table", "holdout"),
        ("model=lightgcn dataset=table protocol=final", "final"),
        ("model=l2q_plus dataset=gowalla", "holdout"),
        ("experiment=gowalla_l2q_plus_784", "final"),
        ("model=l2q_plus dataset=table dataset.test_fraction=0", "final"),
        ("model=l2q_plus dataset=table dataset.test_fraction=0 test=false", "final"),
        ("model=lightgcn dataset=table dataset.test_fraction=0", "holdout"),
        ("model=lightgcn dataset=table dataset.test_fraction=0 protocol=final", "final"),
    ],
)
def test_the_protocol_that_a_run_settles_for(words, settled):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", [*words.split(), "dataset.dir=events.csv"])
    names = ("dataset", "protocol", "test", "epochs")
    settings = OmegaConf.to_container(OmegaConf.masked_copy(config, names), resolve=False)
    settings["epochs"] = config.epochs
    settle(settings)
    assert settings["protocol"]["name"] == settled
    assert ("fraction" in settings["protocol"]) == (settled == "holdout")
    assert settings["test"] == ("test_fraction=0" not in words and "test=false" not in words)


def test_a_model_of_every_event_is_fitted_and_exported_without_figures(tmp_path, plus):
    done = train(*plus, "model.embedding_dim=32", "dataset.test_fraction=0", cwd=tmp_path)
    (folder,) = tmp_path.glob("outputs/*/*/*/index")
    text = (tmp_path / "events.csv").read_text().split()[1:]
    assert len(load_index(folder).exclude) == len(set(text))
    metrics = json.loads((folder.parent / "metrics.json").read_text())
    assert not [key for key in metrics if key.startswith(("test/", "val/"))]
    assert "nothing was measured" in done.stdout
    assert "verified" not in done.stdout  # there is nothing that a table could be held to
    assert "metric" not in done.stdout


def test_an_index_of_fitted_codes_keeps_the_filter_for_new_users(tmp_path, plus):
    train("-m", *plus, "new_users=true,false", "model.quantizer.scales=row,none", cwd=tmp_path)
    train("-m", *plus, "model.num_layers=1", "model.combination=concat", cwd=tmp_path)
    folders = list(tmp_path.glob("outputs/sweeps/*/*/index"))
    assert len(folders) == 5
    for folder in folders:
        fold_in = load_index(folder).fold_in
        # only the fitted codes themselves are what a new user's codes can be fitted to
        fitted = "new_users=true" in str(folder).lower() and "scales=row" in str(folder)
        assert type(fold_in) is (HalfRound if fitted else FoldIn)
        assert len(fold_in([[0, 1]])) == 1


def test_naming_the_checkpoint_of_fitted_codes_keeps_their_teacher(tmp_path, plus):
    train(*plus, cwd=tmp_path)
    folder = only(tmp_path, "outputs/table_events/l2q_plus/*")
    expected = metrics_of(folder)
    again = f"ckpt_path={folder}/checkpoints/last.ckpt"
    for other in "model.initialization.filter={_target_:l2q.fitted.filter.SpectralFilter,rank:2}", "seed=3":
        done = train(*plus, other, again, cwd=tmp_path, check=False)
        assert done.returncode == 2
        assert "the checkpoint has " + ("seed=0" if other == "seed=3" else "model.init") in done.stderr
    train(*plus, again, cwd=tmp_path)
    found = metrics_of(folder)
    assert found["command"] == expected["command"]
    assert {key: found.get(key) for key in expected if key.startswith("test/")} == {
        key: value for key, value in expected.items() if key.startswith("test/")
    }
    assert isinstance(load_index(folder / "index").fold_in, HalfRound)
    train(*plus, again, "fit=false", cwd=tmp_path)  # measures and exports what was fitted, all of it
    (other,) = set(tmp_path.glob("outputs/table_events/l2q_plus/*")) - {folder}
    half_rounds = [load_index(place / "index").fold_in([[0, 1]]) for place in (folder, other)]
    assert np.array_equal(*(rows.values for rows in half_rounds))
    assert isinstance(load_index(other / "index").fold_in, HalfRound)
    assert metrics_of(other)["test/recall_20"] == expected["test/recall_20"]


def test_a_shortened_run_that_goes_on_ends_as_a_whole_one(tmp_path, plus):
    """It stops between two validations, where a whole one would not have measured."""
    words = ["model=lightgcn", *plus[1:], "protocol=holdout", "epochs=8", "protocol.every_n_epochs=4"]
    words += ["protocol.patience=1", "learning_rate=0.1"]
    ends = []
    for name, parts in (("whole", [[]]), ("cut", [["trainer.max_epochs=3"], []])):
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "events.csv", tmp_path / name)
        for more in parts:
            kept = list((tmp_path / name).glob("outputs/*/*/*/checkpoints/last.ckpt"))
            train(*words, *more, *(f"ckpt_path={path}" for path in kept), cwd=tmp_path / name)
        folder = only(tmp_path / name, "outputs/*/*/*")
        ends.append(
            {key: value for key, value in metrics_of(folder).items() if "/" in key and "time" not in key}
        )
        ends[-1]["epochs"] = metrics_of(folder)["epochs"]
        assert [row["epoch"] for row in history_of(folder) if row.get("val/recall_20")] == ["4", "8"]
    assert ends[0] == ends[1]


def test_no_patience_at_all_stops_at_the_first_validation_without_a_gain(tmp_path, plus):
    train("model=lightgcn", *plus[1:], "protocol=holdout", "epochs=2", "protocol.patience=0", cwd=tmp_path)
    assert metrics_of(only(tmp_path, "outputs/*/*/*"))["epochs"] == 2


def test_a_folder_instead_of_a_checkpoint_is_told_what_is_in_it(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(L2QError, match=r"is not a file; give a checkpoint such as .*checkpoints/last\.ckpt"):
        read_checkpoint(tmp_path, {})


def test_wandb_that_is_disabled_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(tmp_path, "name", None) is None
    assert not list(tmp_path.iterdir())


def test_a_machine_without_git_gets_its_metrics(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment()
    assert found["git_commit"] == "unknown"
    assert found["versions"].startswith("l2q==")


@pytest.mark.parametrize("binary", [False, True])
def test_an_index_that_ranks_otherwise_is_not_left_unsaid(monkeypatch, tmp_path, binary):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((rows, 6)).astype(np.float32) for rows in (30, 40)]
    sides = [Rows(np.where(x > 0, 1, -1).astype(np.int8) if binary else x) for x in values]
    rows = Representations(*sides, (6,), np.ones(1, np.float32))
    train = Interactions.from_pairs(range(30), range(30), 30, 40)
    results.export(tmp_path / "good", rows, Dataset("toy", train, train), "", {})
    other = Representations(sides[0], Rows(sides[1].values[::-1].copy()), (6,), np.ones(1, np.float32))
    save = results.save_index
    monkeypatch.setattr(
        results, "save_index", lambda folder, _, *rest, **more: save(folder, other, *rest, **more)
    )
    with pytest.raises(RuntimeError, match="of 30 rankings differ"):
        results.export(tmp_path / "bad", rows, Dataset("toy", train, train), "", {})


@pytest.mark.parametrize("name", ["événements 2024.csv", "events (1).csv", "a=b,c's.csv"])
def test_a_table_of_any_name_is_found_and_named(tmp_path, plus, name):
    (tmp_path / "events.csv").rename(tmp_path / name)
    words = [word for word in plus[1:] if not word.startswith("dataset.dir")]
    train("model=popularity", *words, f"dataset.dir={name}", cwd=tmp_path)
    values = metrics_of(only(tmp_path, "outputs/*/popularity/*"))
    assert shlex.split(values["command"])[-1] == f"dataset.dir={name}"


def test_a_catalogue_smaller_than_the_cut_offs(tmp_path, plus):
    """The default eval.ks asks for 50 of 45 items."""
    done = train(*[word for word in plus if not word.startswith("eval.ks")], cwd=tmp_path)
    assert "eval.ks=[10, 20, 50] becomes [10, 20]: table_events has 45 items" in done.stdout + done.stderr
    values = metrics_of(only(tmp_path, "outputs/table_events/l2q_plus/*"))
    assert values["test/recall_20"] > 0
    assert "test/recall_50" not in values
    assert values["teacher"]["filter"]["rank"] in (4, 8, 16, 32, 45)  # what the run chose is no secret


@pytest.mark.parametrize(("ks", "kept"), [([], [7]), (["eval.ks=[3,20]"], [3]), (["eval.ks=[20]"], None)])
def test_a_catalogue_of_fewer_than_ten_items_has_the_whole_as_its_cut_off(ks, kept):
    """Where the configuration's own cut-offs stand; what somebody asked for and cannot get is refused."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", ks).eval)
    train = Interactions.from_pairs([0, 1], [0, 6], 2, 7)
    settings = {"eval": config, "test": True}
    if kept is None:
        with pytest.raises(L2QError, match=r"eval.ks=\[20\]: .* from 1 to 7, .* such as eval.ks=\[7\]"):
            check_against(settings, Dataset("tiny", train, train))
        return
    with pytest.warns(UserWarning, match="tiny has 7 items"):
        check_against(settings, Dataset("tiny", train, train))
    assert settings["eval"]["ks"] == kept


def test_a_sweep_over_tables_keeps_them_apart(tmp_path, plus, capsys):
    (tmp_path / "more").mkdir()
    text = (tmp_path / "events.csv").read_text()
    (tmp_path / "more" / "others.csv").write_text(text + "u60,i1\nu60,i2\n")
    words = ["model=popularity,spectral", *plus[1:2], "dataset.dir=events.csv,more/others.csv", *plus[3:]]
    train("-m", *words, cwd=tmp_path)
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/metrics.json"))) == 4
    assert main(["report", str(tmp_path / "outputs")]) == 0
    tables = capsys.readouterr().out.split("\n\n**")
    assert ["table_events" in tables[0], "table_others" in tables[1]] == [True, True]


def test_a_set_without_test_items_is_refused_before_it_is_fitted(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.txt").write_text("".join(f"{u} {u % 5} {5 + u % 3} 8 9\n" for u in range(30)))
    (tmp_path / "set" / "test.txt").write_text("")
    words = ["model=l2q_plus", "dataset=table", "dataset.dir=set", "logger=none", "eval.ks=[5]"]
    done = train(*words, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "no test interactions" in done.stderr
    assert "choosing the teacher" not in done.stdout + done.stderr
    train(*words, "test=false", "model.embedding_dim=32", cwd=tmp_path)


def test_every_named_set_is_configured():
    for path in (ROOT / "conf" / "dataset").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        assert config["name"].partition("_${")[0] == path.stem  # a table's has its file's behind it


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=lightgnc"], "l2q_anl"),  # Hydra's message names the candidates
        (["model.embeding_dim=3"], "embeding_dim"),
        (["+epoch=3"], "there is no option epoch; did you mean epochs?"),
        (["dataset=gowalla", "dataset.dir=/nowhere"], "/nowhere"),
        (["eval.ks=[9999999]"], "eval.ks"),
        (
            ["ckpt_path=/nowhere/checkpoints/last.ckpt", "fit=false"],
            "ckpt_path=/nowhere/checkpoints/last.ckpt",
        ),
        (["model.quantizer.estimator=magic"], "estimator=magic"),
        (["learning_rate=-1"], "learning_rate=-1"),
        (["eval.ks=[]"], "eval.ks=[]"),
        (["eval.ks=20"], "eval.ks=20"),
        (["model=l2q_plus", "model.transform=magic"], "model.transform=magic is unknown"),
        (["model=l2q_plus", "model.initialization.split=banana"], "split=banana is unknown"),
        (["model=l2q_plus", "model.initialization.descent.rounds=0"], "descent.rounds=0 must be"),
        (
            ["dataset=table", "dataset.dir=x.csv", "dataset.test_fraction=1"],
            "dataset.test_fraction=1 must be at least 0 and below 1",
        ),
        (["test=no"], "test=no must be true or false"),
        (["+dataset.foo=1"], "dataset.foo: a dataset has no such option"),
        (["+model.foo=1"], "model.foo: a model has no such option"),
        (["fit=false"], "ckpt_path=FILE"),
        (["dataset=table"], "give dataset.dir=VALUE"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, overrides, words):
    done = train(*overrides, "logger=none", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("outputs/**/metrics.json"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("test=off", "must be true or false"),  # a word to Hydra, and true to Python
        ("fit=maybe", "must be true or false"),
        ("new_users=0", "must be true or false"),
        ("dataset.verify=yes", "must be true or false"),
        ("seed=-1", "must be a whole number of at least 0"),
        ("seed=1.5", "must be a whole number of at least 0"),
        ("seed=4294967296", "must be below 2^32"),
        ("batch_size=10.5", "must be a whole number of at least 1"),
        ("epochs=abc", "must be a whole number of at least 0"),
        ("eval.memory_mb=-5", "must be a whole number of at least 1"),
        ("model.embedding_dim=8.5", "must be a whole number of at least 1"),
        ("model.num_layers=-1", "must be a whole number of at least 0"),
        ("protocol.every_n_epochs=0", "must be a whole number of at least 1"),
        ("protocol.patience=abc", "must be a whole number of at least 0"),
        ("protocol.fraction=abc", "must be a number"),
        ("learning_rate=abc", "must be a number"),
        ("objective.l2=abc", "must be a number"),
        ("annealing.end=abc", "must be a number"),
        ("model.residual=abc", "must be a number"),
        ("ckpt_path=5", "must be the name of a file"),
        ("trainer.max_epochs=2.5", "must be a whole number of at least 0"),
        ("model.quantizer.clip=abc", "must be a number"),
        ("model.initialization.std=abc", "must be a number"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_anything_runs(override, words):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        plain = OmegaConf.to_container(compose("config", [override]), resolve=True)
    with pytest.raises(L2QError, match=re.escape(f"{override} {words}")):
        check_options(plain)


def test_an_option_that_nothing_reads_is_refused():
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for override, words in (
            ("+epoch=3", "there is no option epoch; did you mean epochs?"),
            (
                "+protocol.patiense=8",
                "there is no option protocol.patiense; did you mean protocol.patience?",
            ),
            ("+colour=red", "there is no option colour; python train.py --help lists them"),
        ):
            plain = OmegaConf.to_container(compose("config", [override]), resolve=True)
            with pytest.raises(L2QError, match=re.escape(f"{override}: {words}")):
                check_added(["seed=1", override], plain)
    check_added(
        ["epochs=1", "+trainer.limit_train_batches=2", "+dataset.cache_dir=cache", "++epochs=3", "~experiment"], {}
    )


def test_a_checkpoint_of_another_model_or_shape_is_refused(tmp_path):
    train("model=lightgcn", "trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    checkpoint = only(tmp_path, "outputs/debian/lightgcn/*/checkpoints/last.ckpt")
    for override, words in (("model=l2q", "model=lightgcn"), ("model.num_layers=1", "num_layers=2")):
        done = train(
            "model=lightgcn", override, f"ckpt_path={checkpoint}", "fit=false", cwd=tmp_path, check=False
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_checkpoint_of_other_options_is_one_clear_line_and_nothing_is_written(tmp_path):
    train("trainer.max_epochs=1", "logger=none", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    before = (folder / "config.json").read_text()
    for overrides, words in (
        (["seed=7"], "the checkpoint has seed=0, this run has seed=7"),
        # how a model was trained does not matter where it is only measured, but what it has learned does
        (["fit=false", "objective.learn_temperature=true"], "the checkpoint has no objective."),
    ):
        checkpoint = f"ckpt_path={folder}/checkpoints/last.ckpt"
        done = train(*overrides, checkpoint, "logger=none", cwd=tmp_path, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "config.json").read_text() == before


def test_a_closed_form_model_keeps_its_figures_when_its_checkpoint_is_named(tmp_path):
    train("model=popularity", "logger=none", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/popularity/*")
    expected = metrics_of(folder)
    train("model=popularity", f"ckpt_path={folder}/checkpoints/last.ckpt", "logger=none", cwd=tmp_path)
    assert only(tmp_path, "outputs/debian/popularity/*") == folder
    for key in ("val/recall_20", "test/recall_20", "epochs"):
        assert metrics_of(folder)[key] == expected[key]


def test_a_checkpoint_from_elsewhere_does_not_lend_its_folder(tmp_path):
    missing = tmp_path / "elsewhere" / "checkpoints" / "last.ckpt"
    done = train("model=popularity", f"ckpt_path={missing}", "logger=none", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "is not a file" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_recall_20_chooses_the_epoch_even_where_nobody_asks_for_it(tmp_path):
    train("trainer.max_epochs=1", "protocol.every_n_epochs=1", "eval.ks=[5]", "logger=none", cwd=tmp_path)
    folder = only(tmp_path, "outputs/debian/l2q_anl/*")
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert "val/recall_20" not in metrics_of(folder)
    assert metrics_of(folder)["val/recall_5"] > 0


def test_a_key_without_a_network_is_logged_offline(tmp_path):
    environment = os.environ | {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    environment |= {"HOME": str(tmp_path)}
    environment.pop("WANDB_MODE", None)
    command = [sys.executable, str(ROOT / "train.py"), "model=popularity"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "logged offline" in done.stderr
    assert list(tmp_path.glob("outputs/debian/popularity/*/wandb/offline-run-*"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    done = train(
        "model=lightgcn", "learning_rate=1e30", "schedule=constant", "logger=none", cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert "not finite at step" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_composition_do_not_import_torch(tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['train.py', '--cfg', 'job'];\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"try: runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'pytorch_lightning', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("[]"), done.stdout[-500:] + done.stderr[-500:]


@functools.cache  # resolvers are registered once
def entry_point():
    spec = importlib.util.spec_from_file_location("entry", ROOT / "train.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    return entry


class Trained(NamedTuple):
    """A run in this process, what it was built of, and every epoch's triplets as the training step got them."""

    words: list[str]
    folder: Path
    run: Run
    metrics: dict
    rows: list[dict]
    epochs: dict[int, np.ndarray]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """A float model on a small table of events, at a rate so high that its validation goes up and down."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(1)
    pairs = {(user, 20 * (user % 3) + item) for user in range(90) for item in rng.integers(30, size=12)}
    lines = (f"u{user},i{item}\n" for user, item in sorted(pairs))
    (folder / "events.csv").write_text("user,item\n" + "".join(lines))
    words = ["model=lightgcn", "dataset=table", f"dataset.dir={folder}/events.csv", "model.embedding_dim=8"]
    words += ["epochs=8", "batch_size=128", "learning_rate=0.1", "logger=none", "eval.ks=[5,17]"]
    words += ["protocol.every_n_epochs=1", "protocol.patience=9", "trainer.accelerator=cpu"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        run = entry_point().build(compose("config", words), folder, "trained", None, "")
    epochs: dict[int, list] = {}
    step = run.recommender.training_step

    def recorded(*inputs):
        triplets = np.stack([part.numpy() for part in inputs[0]])
        epochs.setdefault(run.recommender.current_epoch, []).append(triplets)
        return step(*inputs)

    run.recommender.training_step = recorded
    metrics = run()
    rows = list(csv.DictReader((folder / "history.csv").open()))
    return Trained(
        words, folder, run, metrics, rows, {k: np.concatenate(v, axis=1) for k, v in epochs.items()}
    )


def test_the_epoch_that_is_reported_is_the_best_of_validation(trained):
    curve = [float(row["val/recall_17"]) for row in trained.rows]  # 17: a quarter of the catalogue
    best = int(np.argmax(curve))
    assert 0 < best < len(curve) - 1  # neither the last epoch nor the first is a right guess
    assert np.argmin(curve) != best
    assert trained.metrics["epochs"] == best + 1
    for key in ("recall_5", "ndcg_5", "recall_17", "ndcg_17"):
        assert trained.metrics[f"val/{key}"] == pytest.approx(
            float(trained.rows[best][f"val/{key}"]), abs=1e-9
        )


def test_the_learning_rate_follows_its_curve(trained):
    last = float(trained.rows[-1]["step"])
    for row in trained.rows:
        expected = 0.1 * (1 + math.cos(math.pi * float(row["step"]) / last)) / 2
        assert float(row["learning_rate"]) == pytest.approx(expected, abs=1e-12)


def test_curves_count_steps_where_gradients_of_batches_are_added(trained, tmp_path):
    words = [*trained.words, "+trainer.accumulate_grad_batches=2", "epochs=2"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        entry_point().build(compose("config", words), tmp_path, "added", None, "")()
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.05, 0], abs=1e-12)


def test_a_run_that_stopped_early_ends_where_it_had(trained, tmp_path):
    words = [*trained.words, "epochs=40", "protocol.patience=1", "learning_rate=0.2"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        before = entry_point().build(compose("config", words), tmp_path, "early", None, "")()
        words += [f"ckpt_path={tmp_path}/checkpoints/last.ckpt"]
        after = entry_point().build(compose("config", words), tmp_path, "early", None, "")()
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert 2 < len(rows) < 40
    same = [key for key in before if key.startswith(("val/", "test/", "time/"))] + ["epochs"]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["fit_seconds"] >= sum(after[key] for key in same if key.startswith("time/"))


def test_every_epoch_of_a_run_draws_triplets_of_its_own(trained):
    fit = trained.run.data.fit
    assert sorted(trained.epochs) == list(range(8))
    for triplets in trained.epochs.values():  # every pair once
        assert sorted(zip(*triplets[:2], strict=True)) == list(zip(fit.users, fit.items, strict=True))
    assert len({triplets.tobytes() for triplets in trained.epochs.values()}) == 8
    negatives = {triplets[:, np.lexsort(triplets)].tobytes() for triplets in trained.epochs.values()}
    assert len(negatives) == 8  # not the same triplets in another order


def test_validation_items_are_not_recommended_where_test_is_measured(trained):
    """Recall of the exported files by hand: all of train is left out of a ranking, not the fitted part alone."""
    data, index = trained.run.data, trained.folder / "index"
    scores = np.load(index / "users.values.npy") @ np.load(index / "items.values.npy").T

    def recall(seen) -> float:
        ranked = np.argsort(-np.where(seen.to_csr().toarray() > 0, -np.inf, scores), axis=1)[:, :17]
        test = data.dataset.test
        users = [user for user in range(test.num_users) if len(test[user])]
        return float(np.mean([len(np.intersect1d(ranked[u], test[u])) / len(test[u]) for u in users]))

    expected = recall(data.dataset.train)
    assert trained.metrics["test/recall_17"] == pytest.approx(expected, abs=1e-9)
    assert trained.metrics["test/packed/recall_17"] == pytest.approx(expected, abs=1e-9)
    assert recall(data.fit) < expected - 0.01


def rebuilt(trained: Trained, *overrides: str) -> Run:
    """What ``train.py`` builds where the run's checkpoint is named with ``overrides``."""
    words = [*trained.words, f"ckpt_path={trained.folder}/checkpoints/last.ckpt", *overrides]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return entry_point().build(compose("config", words), trained.folder, "again", None, "")


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
        ("~protocol.patience", "protocol.patience=9", "protocol.patience=None"),
        ("objective=sampled_softmax", "objective._target_=l2q.models.losses.BPR", "SampledSoftmax"),
        ("objective.l2=0.5", "objective.l2=0.001", "objective.l2=0.5"),
        ("model=l2q", "model=lightgcn", "model=l2q"),
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
    rebuilt(trained, "fit=false", "epochs=9", "batch_size=64", "annealing=guidance")
    with pytest.raises(L2QError, match="the checkpoint has seed=0, this run has seed=7"):
        rebuilt(trained, "fit=false", "seed=7")
    with pytest.raises(L2QError, match=r"model\.combination=mean, this run has model\.combination=concat"):
        rebuilt(trained, "fit=false", "model.combination=concat")


def test_a_run_whose_folder_was_moved_keeps_its_best_epoch(trained, tmp_path):
    def run_in(folder: Path, *overrides: str) -> dict:
        folder.mkdir(exist_ok=True)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("config", [*trained.words, *overrides])
        return entry_point().build(config, folder, "moved", None, "")()

    def check_resumed(folder: Path, source: Path) -> None:
        found = run_in(folder, f"ckpt_path={source}/checkpoints/last.ckpt")
        for key, value in trained.metrics.items():
            if key == "epochs" or key.startswith(("val/", "test/")):
                assert found[key] == value, key
        assert history_of(folder) == history_of(trained.folder)

    old, new, own = tmp_path / "old", tmp_path / "new", tmp_path / "own"
    # the best epoch is over; those that follow are worse
    assert run_in(old, "trainer.max_epochs=6")["epochs"] == trained.metrics["epochs"]
    check_resumed(own, old)  # into a folder of its own
    old.rename(new)
    check_resumed(new, new)
    (new / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(L2QError, match=r"the best epoch so far, .*best\.ckpt, is gone"):
        check_resumed(new, new)


def test_runs_that_start_in_the_same_second_have_folders_of_their_own():
    entry = entry_point()
    assert len({entry.run_dir(True, None, "outputs") for _ in range(20)}) == 20


def test_a_sweep_with_long_overrides_has_folders_that_file_systems_take():
    entry = entry_point()
    assert entry.folder_name("model=l2q,seed=0") == "model=l2q,seed=0"
    names = {entry.folder_name(f"model={{{'x' * 400}}},seed={seed}") for seed in (0, 1)}
    assert len(names) == 2
    assert all(len(name) < 100 and name.startswith("model={xxx") for name in names)


@pytest.mark.parametrize(
    "name", ["gowalla", "yelp2018", "amazon_book", "lastfm_music", "movielens_1m", "online_retail"]
)
def test_every_public_set_runs_through_the_entry_point(tmp_path, shared_data, name):
    folder = shared_data("amazon_book_partial" if name == "amazon_book" else name)
    verify = f"dataset.verify={str(name != 'amazon_book').lower()}"  # the partial set has other counts
    options = "model=popularity", "protocol=final", "test=false", "logger=none", verify
    done = train(f"dataset={name}", f"dataset.dir={folder}", *options, cwd=tmp_path)
    assert metrics_of(only(tmp_path, f"outputs/{name}/popularity/*"))["dataset"] == name
    assert (", not verified;" if name == "amazon_book" else ", verified;") in done.stdout
