"""What a run leaves, what it evaluates and exports, and what it measures itself by."""

import csv
import hashlib
import json
import math
import re

import numpy as np
import pytest
import torch
from runs import EVERY_EPOCH, SMALL, composed, figures, metrics_of, run, table

from l2q import settings
from l2q.data.sources import load_dataset
from l2q.data.splits import split
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.fitted.teacher import TeacherIndex
from l2q.fitted.tuning import choose_teacher
from l2q.interactions import Dataset, Interactions
from l2q.learning import results
from l2q.learning.run import Run
from l2q.representations import Representations, Rows
from l2q.retrieval.fold_in import FoldIn, HalfRound
from l2q.retrieval.storage import load_index

FEW = ["model.bits=48", "model.descent.intruder_rounds=2", "model.embeddings.steps=30"]
"""Codes of ``l2q_plus`` that are fitted soon."""


@pytest.fixture
def events(tmp_path) -> list[str]:
    return table(tmp_path / "events.csv")


def test_a_trained_run_leaves_what_it_promises(tmp_path, events, caplog, capsys):
    caplog.set_level("INFO", "l2q")
    folder = tmp_path / "run"
    words = [*events, *SMALL, EVERY_EPOCH]
    metrics = run(folder, *words, command="the command")
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "metrics.json", "per_user.npz", "index"),
        *("history.csv", "checkpoints", "training.png"),
    }
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert metrics == metrics_of(folder)
    assert (metrics["model"], metrics["dataset"]) == ("l2q_anl", "table_events")
    assert (metrics["protocol"], metrics["split"]) == ("holdout", "random")
    assert metrics["command"] == "the command"
    # what is measured is what ships
    for key in ("recall_20", "ndcg_20"):
        assert 0 < metrics[f"test/{key}"] == metrics[f"test/packed/{key}"] < 1
    with np.load(folder / "per_user.npz") as per_user:
        assert np.isclose(per_user["recall_20"].mean(), metrics["test/recall_20"])
    assert (folder / "training.png").read_bytes()[:4] == b"\x89PNG"
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val/recall_20"]) > 0
    assert float(rows[0]["anneal/strength"]) < float(rows[1]["anneal/strength"]) < 1
    assert metrics["total_seconds"] > metrics["fit_seconds"] > 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("sample", "propagate", "loss", "optimizer", "evaluate", "other"):
        assert metrics[f"time/{part}"] == sum(float(row[f"time/{part}"]) for row in rows) > 0
        assert f"{part} {metrics[f'time/{part}']:.1f}" in shown
    assert "Recall@20" in shown
    assert "60 users (column 'user') x 45 items (column 'item')" in caplog.text
    assert "protocol holdout (random 10% of train chooses the epoch)" in caplog.text
    assert re.search(r"epoch [12] is kept, .*; trained 2 of 2 epochs\n", caplog.text)
    # the settings it ran with, and the hash of those that make its figures
    written = json.loads((folder / "config.json").read_text())
    assert written.pop("config_hash") == metrics["config_hash"]
    assert written == composed("logger=none", *words) | {"protocol": written["protocol"]}
    other = composed("logger=none", "seed=1", *words), composed("logger=none", *words, "eval.memory_mb=1")
    assert [Run(config, folder).config_hash == metrics["config_hash"] for config in other] == [False, True]


def test_a_fitted_run_leaves_no_trace_of_training(tmp_path, events):
    metrics = run(tmp_path / "run", "model=spectral", "model.dim=8", *events)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "metrics.json", "per_user.npz", "index"}
    assert metrics["epochs"] == 0
    assert 0 < metrics["test/recall_20"] == metrics["test/packed/recall_20"]


def test_fitting_again_gives_the_same_files(tmp_path, events):
    def fitted(name: str) -> tuple[dict, dict]:
        metrics = run(tmp_path / name, "model=l2q_plus", *FEW, *events)
        files = (tmp_path / name / "index").iterdir()
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return hashes, figures(metrics)

    assert fitted("one") == fitted("two")


def test_a_test_that_is_not_read_is_not_reported(tmp_path, events):
    metrics = run(tmp_path, *events, *SMALL, "test=false")
    assert metrics["val/recall_20"] > 0
    assert not [key for key in metrics if key.startswith("test/")]
    assert not (tmp_path / "per_user.npz").exists()


def test_a_final_run_monitors_nothing_and_uses_all_of_train(tmp_path, events, caplog):
    caplog.set_level("INFO", "l2q")
    config = composed(*events, *SMALL, "protocol=final", "logger=none")
    final = Run(config, tmp_path)
    assert "protocol final" in caplog.text
    assert final.val is None
    assert final.rest is final.dataset.train is final.training.train
    metrics = final()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not [key for key in metrics if key.startswith("val/")]
    assert metrics["epochs"] == 2


GROUPS = ("initialization", "annealing", "objective", "protocol")
CHOICES = [(group, name) for group in GROUPS for name in settings.choices(group)]


@pytest.mark.parametrize(("group", "name"), CHOICES, ids=[f"{group}={name}" for group, name in CHOICES])
def test_every_choice_runs(tmp_path, events, group, name):
    start = "model.initialization.model"
    more = {
        "l2q_plus": [f"{start}.embeddings.steps=30", f"{start}.descent.intruder_rounds=2"],
        "teacher": ["objective=distillation", "objective.teacher.embeddings.steps=30"],
    }.get(name, [])
    values = run(tmp_path, *events, *SMALL, f"{group}={name}", *more)
    for key in ("recall_20", "ndcg_20"):
        assert 0 < values[f"test/{key}"] == values[f"test/packed/{key}"] < 1
    assert values["epochs"] > 0


@pytest.mark.parametrize("model", settings.choices("model"))
def test_every_model_runs(tmp_path, events, model):
    """On its own settings, but for how long it takes."""
    short = {"popularity": [], "spectral": [], "l2q_plus": FEW[1:]}
    own = short.get(model, ["trainer.max_epochs=1", "batch_size=128"])
    values = run(tmp_path, *events, f"model={model}", *own)
    assert values["model"] == model
    for key in ("recall_20", "ndcg_20"):
        assert 0 < values[f"test/{key}"] == values[f"test/packed/{key}"] < 1


@pytest.mark.parametrize("test", [True, False])
def test_the_teacher_behind_codes_is_measured_beside_them(tmp_path, events, test):
    best = "model.effort=best"  # whose choice can be made again by the grid alone
    values = run(tmp_path / "run", "model=l2q_plus", best, *FEW, *events, f"test={test}")
    dataset = load_dataset("table", dir=tmp_path / "events.csv", verify=False)
    fit, val = split(dataset.train, "random", fraction=0.1, seed=0)
    # what a table's run without epochs is fitted to: all of train, unless it measures the held-out part
    name, part, fitted = ("test", dataset.test, dataset.train) if test else ("val", val, fit)
    assert (values["protocol"], "val/recall_20" in values) == (
        ("final", False) if test else ("holdout", True)
    )
    own = settings.build(composed("model=l2q_plus", *FEW)["model"], "model")
    teacher = choose_teacher(fitted, filter=own.filter, embeddings=own.embeddings, how=own.split, seed=0)
    expected = evaluate(TeacherIndex(teacher(fitted, 0)), part, [5, 20], fitted).metrics
    assert {key: values[f"{name}/teacher/{key}"] for key in expected} == pytest.approx(expected, abs=1e-9)
    beside = {f"{name}/teacher/{key}" for key in expected}
    of_teacher = {key for key in values if "/teacher/" in key}
    assert {key for key in of_teacher if not key.endswith("_11")} == beside


def test_a_model_of_every_event_is_fitted_and_exported_without_figures(tmp_path, events, caplog, capsys):
    caplog.set_level("INFO", "l2q")
    metrics = run(tmp_path / "run", "model=l2q_plus", *FEW, *events, "dataset.test_fraction=0")
    pairs = (tmp_path / "events.csv").read_text().split()[1:]
    assert len(load_index(tmp_path / "run" / "index").exclude) == len(set(pairs))
    assert not [key for key in metrics if key.startswith(("test/", "val/"))]
    shown = capsys.readouterr().out
    assert "nothing was measured" in shown
    assert "verified" not in caplog.text + shown  # there is nothing that a table could be held to
    assert "metric" not in shown


def test_an_index_of_fitted_codes_keeps_the_filter_for_new_users(tmp_path, events):
    cases = {
        "kept": (HalfRound, ["model=l2q_plus", *FEW]),
        "left out": (FoldIn, ["model=l2q_plus", *FEW, "new_users=false"]),
        "trained": (FoldIn, ["model=l2q", *SMALL]),  # only fitted codes can have a new user's fitted likewise
        "floats": (FoldIn, ["model=spectral", "model.dim=8"]),
    }
    for name, (kind, words) in cases.items():
        run(tmp_path / name, *events, *words)
        fold_in = load_index(tmp_path / name / "index").fold_in
        assert type(fold_in) is kind
        assert len(fold_in([[0, 1]])) == 1


def test_no_patience_at_all_stops_at_the_first_validation_without_a_gain(tmp_path, events):
    words = ["model=lightgcn", *events, *SMALL, EVERY_EPOCH, "protocol.patience=0"]
    run(tmp_path, *words, "epochs=30", "learning_rate=1e-12")
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]


def test_recall_20_chooses_the_epoch_even_where_nobody_asks_for_it(tmp_path, events):
    metrics = run(tmp_path, *events, *SMALL, EVERY_EPOCH, "eval.ks=[5]")
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "val/recall_20" not in metrics
    assert metrics["val/recall_5"] > 0


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path, events):
    words = ["model=lightgcn", *events, *SMALL, EVERY_EPOCH, "schedule=constant"]
    with pytest.raises(L2QError, match=r"not finite at step .*; lower learning_rate; no epoch was whole"):
        run(tmp_path / "soon", *words, "learning_rate=1e30")
    assert not (tmp_path / "soon" / "metrics.json").exists()
    assert not list(tmp_path.glob("soon/**/*.ckpt"))
    good = Run(composed(*words, "learning_rate=0.01", "logger=none"), tmp_path / "later")
    step = good.training.recommender.training_step

    def breaks(*inputs):
        loss = step(*inputs)
        return loss * math.nan if good.training.recommender.current_epoch else loss

    good.training.recommender.training_step = breaks
    with pytest.raises(
        L2QError, match=r"not finite at step .* checkpoints/last\.ckpt holds a whole epoch before"
    ):
        good()
    kept = torch.load(tmp_path / "later" / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["epoch"] == 0
    assert kept["state_dict"]["encoder.embeddings"].isfinite().all()


@pytest.mark.parametrize("binary", [False, True])
def test_an_index_that_ranks_otherwise_is_not_left_unsaid(monkeypatch, tmp_path, binary):
    rng = np.random.default_rng(0)
    values = [rng.standard_normal((rows, 6)).astype(np.float32) for rows in (30, 40)]
    sides = [Rows(np.where(x > 0, 1, -1).astype(np.int8) if binary else x) for x in values]
    rows = Representations(*sides, (6,), np.ones(1, np.float32))
    train = Interactions.from_pairs(range(30), range(30), 30, 40)
    results.export(tmp_path / "good", rows, Dataset("toy", train, train), "", {})
    other = Representations(sides[0], Rows(sides[1].values[::-1].copy()), (6,), np.ones(1, np.float32))
    of = results.Index.of
    monkeypatch.setattr(results.Index, "of", lambda _, *rest, **more: of(other, *rest, **more))
    with pytest.raises(RuntimeError, match="of 30 rankings differ"):
        results.export(tmp_path / "bad", rows, Dataset("toy", train, train), "", {})


def test_a_catalogue_smaller_than_the_cut_offs(tmp_path, events):
    """The default eval.ks asks for 50 of 45 items."""
    words = [word for word in events if not word.startswith("eval.ks")]
    said = re.escape("eval.ks=[10, 20, 50] becomes [10, 20]: table_events has 45 items")
    with pytest.warns(UserWarning, match=said):
        values = run(tmp_path / "run", "model=l2q_plus", *FEW, *words)
    assert values["test/recall_20"] > 0
    assert "test/recall_50" not in values
    assert values["teacher"]["filter"]["rank"] in (4, 8, 16, 32, 45)  # what the run chose is no secret


def test_a_set_without_test_items_is_refused_before_it_is_fitted(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.txt").write_text("".join(f"{u} {u % 5} {5 + u % 3} 8 9\n" for u in range(30)))
    (tmp_path / "set" / "test.txt").write_text("")
    words = ["model=l2q_plus", *FEW, "dataset=table", f"dataset.dir={tmp_path}/set", "eval.ks=[5]"]
    with pytest.raises(L2QError, match="table_set has no test interactions: give it some, or test=false"):
        Run(composed(*words), tmp_path / "run")
    run(tmp_path / "run", *words, "test=false")


def test_a_machine_without_git_gets_its_metrics(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = results.environment()
    assert found["git_commit"] == "unknown"
    assert found["versions"].startswith("l2q==")


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
    run(tmp_path, *trained.words, "+trainer.accumulate_grad_batches=2", "epochs=2")
    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.05, 0], abs=1e-12)


def test_every_epoch_of_a_run_draws_triplets_of_its_own(trained):
    fit = trained.run.rest
    assert sorted(trained.epochs) == list(range(8))
    for triplets in trained.epochs.values():  # every pair once
        assert sorted(zip(*triplets[:2], strict=True)) == list(zip(fit.users, fit.items, strict=True))
    assert len({triplets.tobytes() for triplets in trained.epochs.values()}) == 8
    negatives = {triplets[:, np.lexsort(triplets)].tobytes() for triplets in trained.epochs.values()}
    assert len(negatives) == 8  # not the same triplets in another order


def test_validation_items_are_not_recommended_where_test_is_measured(trained):
    """Recall of the exported files by hand: all of train is left out of a ranking, not the fitted part alone."""
    dataset, index = trained.run.dataset, trained.folder / "index"
    scores = np.load(index / "users.values.npy") @ np.load(index / "items.values.npy").T

    def recall(seen) -> float:
        ranked = np.argsort(-np.where(seen.to_csr().toarray() > 0, -np.inf, scores), axis=1)[:, :17]
        test = dataset.test
        users = [user for user in range(test.num_users) if len(test[user])]
        return float(np.mean([len(np.intersect1d(ranked[u], test[u])) / len(test[u]) for u in users]))

    expected = recall(dataset.train)
    assert trained.metrics["test/recall_17"] == pytest.approx(expected, abs=1e-9)
    assert trained.metrics["test/packed/recall_17"] == pytest.approx(expected, abs=1e-9)
    assert recall(trained.run.rest) < expected - 0.01


@pytest.mark.parametrize(
    "name", ["gowalla", "yelp2018", "amazon_book", "lastfm_music", "movielens_1m", "online_retail"]
)
def test_every_public_set_runs(tmp_path, shared_data, monkeypatch, caplog, name):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "cache"))
    caplog.set_level("INFO", "l2q")
    folder = shared_data("amazon_book_partial" if name == "amazon_book" else name)
    verify = f"dataset.verify={str(name != 'amazon_book').lower()}"  # the partial set has other counts
    words = "model=popularity", "protocol=final", "test=false", verify
    metrics = run(tmp_path / "run", f"dataset={name}", f"dataset.dir={folder}", *words)
    assert metrics["dataset"] == name
    assert (", not verified;" if name == "amazon_book" else ", verified;") in caplog.text
