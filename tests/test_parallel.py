"""Several processes of one run: they share its batches or its columns, and one of them writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import ROOT, composed, environment, history_of, metrics_of, process, table

import l2q
from l2q.data.sampling import TripletSampler
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.learning.parallel import ranks
from l2q.learning.parallel.batches import Batches, Shares, share
from l2q.learning.run import Run

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
SMALL = ["trainer=cpu", "logger=none", "model.embedding_dim=16", "epochs=3", "protocol.every_n_epochs=1"]


def torchrun(*words: str, processes: int = 2, restarts: int = 0) -> list[str]:
    """The command that starts ``train.py *words`` in several processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, f"--max-restarts={restarts}", str(ROOT / "train.py"), *words]


def done(command: list[str], cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        command, cwd=cwd, env=environment(cwd) | ONE_THREAD, capture_output=True, text=True, timeout=600
    )
    assert found.returncode == 0 or not check, found.stdout + found.stderr
    return found


def values_of(folder: Path) -> list[dict[str, float]]:
    return [{key: float(value or "nan") for key, value in row.items()} for row in history_of(folder)]


def assert_same_training(folder: Path, other: Path, within: float = 1e-5) -> None:
    ours, theirs = values_of(folder), values_of(other)
    assert len(ours) == len(theirs)
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, rel=within, abs=within, nan_ok=True)


@pytest.mark.parametrize(("pairs", "size"), [(7, 2), (8, 2), (5, 4), (3, 4), (1, 3)])
@pytest.mark.parametrize("candidates", [0, 1, 3])
def test_the_shares_of_a_batch_are_its_pairs_and_their_means_its_mean(pairs, size, candidates):
    users, items = torch.arange(pairs), torch.arange(100, 100 + pairs)
    negatives = torch.arange(candidates * pairs)
    parts = [share((users, items, negatives), rank, size) for rank in range(size)]
    counted = [part for part in parts if part[3] > 0]
    assert torch.cat([part[0] for part in counted]).tolist() == users.tolist()
    assert torch.cat([part[1] for part in counted]).tolist() == items.tolist()
    for own_users, own_items, own_negatives, _ in parts:
        assert len(own_users) == len(own_items) > 0
        # a pair's negatives stay with it: candidate c of pair b is c * pairs + b
        expected = [c * pairs + int(b) for c in range(candidates) for b in own_users]
        assert own_negatives.tolist() == expected
    means = [float(part[0].double().mean()) * part[3] for part in parts]
    assert np.mean(means) == pytest.approx(float(users.double().mean()))


def test_the_processes_see_every_pair_of_an_epoch_once():
    rng = np.random.default_rng(0)
    train = Interactions.from_pairs(rng.integers(20, size=200), rng.integers(30, size=200), 20, 30)
    seen = []
    for rank in range(3):
        loader = Shares(TripletSampler(train, 16, seed=5), rank, 3)
        loader.epoch = 2
        seen += [
            (int(u), int(i))
            for users, items, _, weight in loader
            if weight
            for u, i in zip(users, items, strict=True)
        ]
    assert sorted(seen) == sorted(zip(train.users.tolist(), train.items.tolist(), strict=True))


@pytest.mark.slow  # half a minute
def test_two_processes_train_as_one_and_one_of_them_writes(tmp_path):
    words = [*table(tmp_path / "events.csv"), *SMALL, "batch_size=61", "model=l2q_anl", "learning_rate=0.05"]
    process(*words, f"hydra.run.dir={tmp_path}/one", cwd=tmp_path, **ONE_THREAD)
    process(*words, f"hydra.run.dir={tmp_path}/two", "trainer.devices=2", cwd=tmp_path, **ONE_THREAD)
    assert_same_training(tmp_path / "one", tmp_path / "two")
    ours, theirs = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert (theirs["processes"], theirs["parallel"]) == (2, "batches")
    assert ours["config_hash"] == theirs["config_hash"]
    for key in ours:
        if key.startswith(("val/", "test/")):
            assert theirs[key] == pytest.approx(ours[key], abs=0.02), key
    files = [sorted(path.name for path in (tmp_path / name).rglob("*")) for name in ("one", "two")]
    assert files[0] == files[1]
    assert (tmp_path / "two" / "train.log").read_text().count("epoch 3 of 3") == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_what_one_process_does_is_refused_once_and_all_of_them_end(tmp_path):
    ended = done(
        torchrun(*table(tmp_path / "events.csv"), "logger=none", "model=l2q_plus"), tmp_path, check=False
    )
    assert ended.returncode
    said = "error: model=l2q_plus is fitted by one process, not 2; start it without torchrun"
    assert ended.stderr.count("error: ") == ended.stderr.count(said) == 1
    assert not (tmp_path / "outputs").exists()


def test_processes_share_one_run_at_a_time(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_joined", [])
    ranks.one_run("a sweep")
    assert ranks.join()
    with pytest.raises(L2QError, match=r"^a sweep: 2 processes share one run"):
        ranks.one_run("a sweep")


def test_softmax_goes_by_columns(tmp_path):
    config = composed(*table(tmp_path / "events.csv"), "model=lightgcn", "objective=softmax")
    with pytest.raises(L2QError, match=r"^parallel=batches: objective=softmax .* give parallel=columns"):
        Batches().check(config)


@pytest.mark.parametrize("word", ["rows", "null", "[batches]"])
def test_an_unknown_way_to_share_is_refused(tmp_path, word):
    words = [*table(tmp_path / "events.csv"), "logger=none", f"parallel={word}"]
    with pytest.raises(L2QError, match=r"^parallel=.* must be one of batches, columns"):
        Run(composed(*words), tmp_path / "run")


def test_processes_that_have_not_joined_a_run_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(L2QError, match=r"^WORLD_SIZE=2: each of these processes would train the same"):
        Run(composed(*table(tmp_path / "events.csv"), "logger=none"), tmp_path / "run")
    train = Interactions.from_pairs([0, 1], [0, 1], 2, 3)
    with pytest.raises(L2QError, match=r"^WORLD_SIZE=2"):
        l2q.fit(train, "lightgcn")
