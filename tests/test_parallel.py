"""Several processes of one run: they share its batches, its columns or its edges, and one of them writes."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from parallel_runs import in_small_blocks, learn
from runs import ROOT, composed, environment, history_of, metrics_of, process, run, table

import l2q
from l2q import processes
from l2q.data.sampling import TripletSampler
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.learning import checkpoints
from l2q.learning.parallel.batches import Batches, Shares, share
from l2q.learning.parallel.columns import Columns, joined
from l2q.learning.run import Run
from l2q.learning.training import Training
from l2q.models.encoder import Encoder
from l2q.models.graph import Graph, Propagation
from l2q.models.initialization import Normal
from l2q.models.quantizers import Identity

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}
SMALL = ["trainer=cpu", "logger=none", "model.embedding_dim=16", "epochs=2", "protocol.every_n_epochs=1"]


def torchrun(*words: str, processes: int = 2, restarts: int = 0) -> list[str]:
    """The command that starts ``train.py *words`` in several processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*start, f"--max-restarts={restarts}", str(ROOT / "train.py"), *words]


def done(command: list[str], cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(
        command, cwd=cwd, env=environment(cwd) | ONE_THREAD, capture_output=True, text=True, timeout=400
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


DEBIAN = ["trainer=cpu", "dataset=debian", "epochs=2", "batch_size=16384", "protocol.every_n_epochs=1"]
WHOLE = {
    "batches": ["model=l2q_anl", "model.embedding_dim=8", "learning_rate=0.05", *DEBIAN],
    "columns": ["model=lightgcn", "model.embedding_dim=16", "learning_rate=0.05", *DEBIAN],
    "edges": [
        "model=l2q_anl",
        "model.embedding_dim=8",
        "model.rotation_blocks=2",
        "learning_rate=0.05",
        *DEBIAN,
    ],
    "rows": ["model=l2q_plus", "model.bits=40", "model.embeddings.steps=40"],
}


@pytest.mark.slow
@pytest.mark.parametrize("parallel", WHOLE)
def test_a_run_of_two_processes_ends_as_that_of_one_and_one_of_them_writes(tmp_path, parallel):
    """To the last figure of the exported files. What differs by the order of float32 sums may turn a code, or change
    places in a ranking: of 10,000 users' Recall and NDCG that is the fourth digit."""
    words = [*WHOLE[parallel], "logger=none"]
    if parallel == "rows":
        words += table(tmp_path / "events.csv")
    else:
        words.append(f"parallel={parallel}")
    ours = run(tmp_path / "one", *words)
    words.append(f"hydra.run.dir={tmp_path}/two")
    if parallel == "batches":
        process(*words, "trainer.devices=2", cwd=tmp_path, **ONE_THREAD)
    else:
        done(torchrun(*words), tmp_path)
    theirs = metrics_of(tmp_path / "two")
    assert (theirs["processes"], theirs["parallel"]) == (2, parallel)
    assert ours["config_hash"] == theirs["config_hash"]
    measured = [key for key in ours if key.startswith(("val/", "test/"))]
    assert {"test/recall_20", "test/packed/ndcg_20"} <= set(measured)
    within = 0 if parallel == "rows" else 1e-3
    for key in measured:
        assert theirs[key] == pytest.approx(ours[key], abs=within), key
    if parallel == "rows":
        for path in (tmp_path / "one" / "index").glob("*.npy"):
            assert (tmp_path / "two" / "index" / path.name).read_bytes() == path.read_bytes()
    else:
        assert_same_training(tmp_path / "one", tmp_path / "two", within=1e-3)
        assert (tmp_path / "two" / "train.log").read_text().count("epoch 2 of 2") == 1
    files = [sorted(path.name for path in (tmp_path / name / "index").iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    assert not (tmp_path / "outputs").exists()


SOFTMAX = ["objective=softmax", "objective.learn_temperature=true"]
WIDE = ["model.initialization.std=0.1"]
SHARED = {
    "batches": {
        "l2q_anl": ["model=l2q_anl"],
        "bpr": ["model=lightgcn", "objective.candidates=3", "objective.learn_temperature=true"],
    },
    "columns": {
        "lightgcn": ["model=lightgcn", "model.popularity=0.3"],
        "l2q": ["model=l2q", "objective.candidates=3"],
        "l2q_anl": ["model=l2q_anl", "model.rotation_blocks=4", "model.residual=0.4", "model.popularity=0.3"],
        "guidance": ["model=l2q_anl", "model.rotation_blocks=2", "annealing=guidance"],
        "weights": ["model=lightgcn", "model.layer_weights=learned", "objective.learn_temperature=true"],
        "softmax": [
            "model=l2q_anl",
            "model.transform=identity",
            *SOFTMAX,
            "objective.correct_popularity=true",
        ],
        "inner": ["model=l2q", *SOFTMAX, "objective.similarity=inner", "objective.num_negatives=9", *WIDE],
        "spectral": ["model=lightgcn", "initialization=spectral"],
    },
    "edges": {
        "lightgcn": ["model=lightgcn", "objective.candidates=3", "model.num_layers=1"],
        "l2q_anl": ["model=l2q_anl", "model.rotation_blocks=4", "model.residual=0.4", "model.popularity=0.3"],
        "softmax": ["model=l2q_anl", "model.transform=identity", *SOFTMAX, "batches=users"],
    },
}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(folder / "checkpoints" / "last.ckpt")["state_dict"]


def training(config: dict[str, Any], folder: Path) -> Training:
    folder.mkdir()
    found = Run(config, folder).training
    assert found is not None
    return found


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("parallel", SHARED)
def test_what_processes_share_is_the_training_of_one(tmp_path, parallel, monkeypatch):
    """Every loss and every validation of an epoch, the weights of its checkpoint and the hard codes; and one process
    goes on from what two have left, as two do from what one has."""
    monkeypatch.chdir(tmp_path)
    words = [*table(tmp_path / "events.csv"), *SMALL, "learning_rate=0.05", "batch_size=61"]
    words.append(f"parallel={parallel}")
    cases = {name: composed(*words, *more) for name, more in SHARED[parallel].items()}
    for name, config in cases.items():
        learn(name, config)
    cut = composed(*words, *SHARED[parallel]["l2q_anl"], "trainer.max_epochs=1")
    learn("begun", cut)
    last = "checkpoints/last.ckpt"
    cases["begun"] = cut
    cases["goes-on"] = cases["l2q_anl"] | {"ckpt_path": f"{tmp_path}/begun-1/{last}"}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    small = ["small"] if parallel == "edges" else []  # several pieces of the graph
    done([*torchrun()[:-1], str(ROOT / "tests" / "parallel_runs.py"), "cases.json", *small], tmp_path)
    learn("goes-on", cases["l2q_anl"] | {"ckpt_path": f"{tmp_path}/begun-2/{last}"})
    for name in cases:
        one, two = tmp_path / f"{name}-1", tmp_path / f"{name}-2"
        assert_same_training(one, two)
        ours, theirs = weights_of(one), weights_of(two)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-3, atol=2e-5, msg=f"{name}: {key}")
    for name in SHARED[parallel]:
        with np.load(tmp_path / f"{name}-1.npz") as ours, np.load(tmp_path / f"{name}-2.npz") as theirs:
            for side in ours:
                same = np.isclose(theirs[side], ours[side], rtol=1e-3, atol=1e-5)
                assert same.mean() > 0.999, name  # a value at zero may have either sign


QUICK = [
    "logger=none",
    "protocol=final",
    "model.bits=40",
    "model.embeddings.dim=8",
    "model.embeddings.steps=20",
    "model.descent.intruder_rounds=3",
    "model.descent.intruders=5",
    "model.length=6",
]
FITTED = {
    "fast": ["model=l2q_plus", *QUICK],
    "best": ["model=l2q_plus", *QUICK, "model.effort=best"],
    "float": ["model=spectral", "model.dim=12", "logger=none", "protocol=final"],
}


@pytest.mark.slow
def test_a_fit_by_several_processes_has_the_bits_of_one(tmp_path, monkeypatch):
    """Also one that goes on from what one process kept, or several: the same files."""
    monkeypatch.chdir(tmp_path)
    in_small_blocks(monkeypatch)
    events = table(tmp_path / "events.csv", users=110)
    cases = {name: composed(*events, *words) for name, words in FITTED.items()}
    cases["start"] = composed(*events, *FITTED["fast"], "seed=1") | {"start": f"{tmp_path}/index"}
    l2q.fit(l2q.read_events("events.csv"), "l2q_plus", bits=40, model={"length": 6}).save("index")
    for name, config in cases.items():
        learn(name, config)
    left_out = {"from-lists": ["rounds"], "from-teacher": ["rounds", "lists"], "from-end": []}
    for name, parts in left_out.items():
        shutil.copytree("fast-1", f"{name}-3")
        for part in parts:
            Path(f"{name}-3/checkpoints/{part}.ckpt").unlink()
        shutil.copy("fast-1.npz", f"{name}-1.npz")
    Path("cases.json").write_text(json.dumps(cases | dict.fromkeys(left_out, cases["fast"])))
    script = str(ROOT / "tests" / "parallel_runs.py")
    done([*torchrun(processes=3)[:-1], script, "cases.json", "small"], tmp_path)
    for part in ("teacher", "lists", "rounds"):
        one, three = (
            checkpoints.load(Path(f"fast-{size}/checkpoints/{part}.ckpt"))["part"] for size in (1, 3)
        )
        assert checkpoints.checksum({"part": one}) == checkpoints.checksum({"part": three}), part
    for name in [*cases, *left_out]:
        with np.load(f"{name}-1.npz") as ours, np.load(f"{name}-3.npz") as theirs:
            assert len(ours.files) == len(theirs.files) == (2 if name == "float" else 6)
            for side in ours:
                np.testing.assert_array_equal(ours[side], theirs[side], err_msg=name)
                assert len(ours[side])
                assert np.isfinite(ours[side]).all()


BY_ROWS = """
import numpy as np
from scipy import sparse
from l2q import exchange, processes
from l2q.kernels import rows
from l2q.kernels.svd import svd_in_parts, whole
processes.join()
rng = np.random.default_rng(0)
X, W, users = (rng.standard_normal(shape, dtype=np.float32) for shape in ((5000, 832), (832, 300), (1638, 832)))
small = rng.standard_normal((5000, 3), dtype=np.float32)
R = sparse.csr_array(np.where(rng.random((5000, 3000)) < 0.01, rng.random((5000, 3000)), 0).astype(np.float32))
R_T = R.T.tocsr()
with processes.together("again"):
    own = rows.own(5000)
    found = {
        "gram": rows.gram(X[own], 5000),
        "narrow": rows.gram(small[own], 5000),
        "product": exchange.joined(rows.product(X[own], W, 5000)),
        "short": exchange.joined(rows.product(small[own], W[:3], 5000)),
        "scores": exchange.joined(rows.scores(users, X[own], 5000)),
        "few": exchange.joined(rows.scores(users[:2], X[own], 5000)),
        "sums": rows.sums(X[own]),
        "column": rows.sums(X[own, :1]),
        "signs": rows.column_signs(X[own]),
    }
    sizes, left, right = (5000, 1638), X[own], users[rows.own(1638)]
    stack = rows.stacked([left, right], sizes)
    found["stack"] = exchange.joined(stack)
    for name, part in zip(("above", "below"), rows.unstacked(stack, sizes), strict=True):
        found[name] = exchange.joined(part)
    whole_X = rows.gathered(left)
    assert len(whole_X) == 5000 * processes.leads()
    ends = np.linspace(0, 5000, processes.size() + 1).astype(int).tolist()
    found["scattered"] = exchange.joined(rows.scattered(whole_X if processes.leads() else None, ends))
    for deepest in (2**17, 2048, 256):  # 256: whole blocks in every process
        rows.DEEPEST, rows.UNIT = deepest, 1024
        own = rows.own(5000)
        X_A, A_A = rows.products(X[own], lambda some: X[some, :300], 5000)
        found |= {f"X^T A {deepest}": X_A, f"A^T A {deepest}": A_A, f"gram {deepest}": rows.gram(X[own], 5000)}
    rows.DEEPEST = 2**17
    U, s, V = svd_in_parts(R, 300, 0, 2)
    shares = processes.everyone((len(U), len(V)))
    assert processes.size() == 1 or max(users for users, _ in shares) <= 2048, shares  # UNIT is 1024
    near = svd_in_parts(R_T, 200, 0, 1, (V, U))
    for name, svd in {"svd": (U, s, V), "near": near}.items():
        found |= {f"{name} {place}": part for place, part in enumerate(whole(svd))}
if processes.leads():
    np.savez(f"found-{processes.size()}.npz", **found)
"""


@pytest.mark.slow
def test_what_has_its_rows_in_three_processes_has_the_bits_of_one(tmp_path):
    """Large enough for tiles, and too small for them."""
    (tmp_path / "rows.py").write_text(BY_ROWS)
    done([*torchrun(processes=3)[:-1], "rows.py"], tmp_path)
    done([sys.executable, "rows.py"], tmp_path)
    three, one = (np.load(tmp_path / f"found-{size}.npz") for size in (3, 1))
    assert len(one.files) == len(three.files) == 28
    for name in one.files:
        np.testing.assert_array_equal(three[name], one[name], err_msg=name)
    np.testing.assert_array_equal(one["stack"], np.concatenate([one["above"], one["below"]]))
    np.testing.assert_array_equal(one["scattered"], one["above"])
    for deepest in (2048, 256):
        for name in ("X^T A", "A^T A", "gram"):
            np.testing.assert_allclose(one[f"{name} {deepest}"], one[f"{name} {2**17}"], rtol=1e-4, atol=1e-3)


TOGETHER = """
from l2q import processes
processes.join()
with processes.together("again"):
    assert processes.everyone(processes.rank()) == [0, 1, 2]
"""


@pytest.mark.slow
def test_a_program_need_not_leave(tmp_path):
    """Without that, three of four starts were aborted at their end: "terminate called without an active exception"."""
    (tmp_path / "program.py").write_text(TOGETHER)
    for _ in range(3):
        done([*torchrun(processes=3)[:-1], "program.py"], tmp_path)


WITHOUT_A_FOLDER = """
import l2q, numpy as np
from l2q import processes, settings
from l2q.learning.training import Training
processes.join()
if processes.size() > 1:
    processes.connect()
train, val = l2q.split(l2q.read_events("events.csv", value="none"), "random", fraction=0.2)
changes = {"epochs": 6, "batch_size": 64, "parallel": "columns"}
changes |= {"model": {"embedding_dim": 16, "rotation_blocks": 4}, "eval": {"ks": []}}
config = settings.compose(changes, model="l2q_anl", protocol="holdout")
training = Training(config, train, val, None)
found = training().representations
if processes.leads():
    np.savez(f"found-{processes.size()}.npz", *found.factors())
processes.leave()
"""


@pytest.mark.slow
def test_columns_without_a_folder_leave_no_file(tmp_path):
    table(tmp_path / "events.csv")
    (tmp_path / "fit.py").write_text(WITHOUT_A_FOLDER)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done([*start, "fit.py"], tmp_path)
    done([sys.executable, "fit.py"], tmp_path)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "home"}
    assert "found-2.npz" in files
    assert not [path for path in files if path.endswith((".part", ".ckpt"))]
    two, one = (np.load(tmp_path / f"found-{size}.npz") for size in (2, 1))
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], atol=1e-4)


def test_work_is_shared_in_runs_and_each_process_has_all_results(monkeypatch):
    """Three processes in turn, each of which tells the others what it found."""
    done: list[list[int]] = []

    def work(parts):
        assert not processes.are_together()  # what is done here, one process does
        done.append(list(parts))
        return [part**2 for part in parts]

    def gathered(everyone, found):
        everyone[processes.rank()] = found

    monkeypatch.setattr(processes, "size", lambda: 3)
    monkeypatch.setattr(processes, "connect", lambda: None)
    monkeypatch.setattr("torch.distributed.all_gather_object", gathered)
    for number in range(3):
        monkeypatch.setattr(processes, "rank", lambda number=number: number)
        with processes.together("start again"):
            own = processes.shared(work, range(8))
            assert processes.are_together()
        assert own == [part**2 for part in done[-1]]
    assert done == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert processes.shared(work, range(3)) == [0, 1, 4]


KILLED = """
import os, runpy, signal, sys, time
from pathlib import Path
from l2q.learning.recommender import Recommender
killed, program = sys.argv.pop(1), sys.argv.pop(1)
step = Recommender.training_step

def training_step(self, *inputs):
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if os.environ["RANK"] == killed and self.current_epoch == 2 and first:
        while not list(Path().glob("outputs/*/*/*/checkpoints/last.ckpt")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *inputs)

Recommender.training_step = training_step
runpy.run_path(program, run_name="__main__")
"""


def killed_in_the_third_epoch(
    rank: int, words: list[str], cwd: Path, **how: int
) -> subprocess.CompletedProcess[str]:
    """``train.py *words`` in several processes, of which that one kills itself, on the first start."""
    (cwd / "killed.py").write_text(KILLED)
    *start, program = torchrun(**how)
    return done([*start, "killed.py", str(rank), program, *words], cwd, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("parallel", ["columns", "edges"])
def test_a_killed_process_ends_the_others_with_one_line_and_torchrun_goes_on_from_the_last_epoch(
    tmp_path, parallel
):
    more = [*SHARED["columns"]["l2q_anl"], "learning_rate=0.05", "epochs=4", "protocol.patience=9"]
    words = [*table(tmp_path / "events.csv"), *SMALL, *more, f"parallel={parallel}"]
    training(composed(*words), tmp_path / "one")()
    ended = killed_in_the_third_epoch(1, words, tmp_path, restarts=1)
    text = ended.stdout + ended.stderr
    assert ended.returncode == 0, text
    # whichever is first: the broken connection, or torchrun's signal
    ends = "another of the 2 processes of this run has ended", "broken off by"
    assert sum(map(text.count, ends)) == 1, text
    assert text.count("goes on from the last whole epoch in") == 1, text
    (folder,) = tmp_path.glob("outputs/*/*/*")
    assert_same_training(folder, tmp_path / "one")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("killed", [0, 2])
def test_of_three_processes_one_says_that_another_was_killed(tmp_path, killed):
    words = [*table(tmp_path / "events.csv"), *SMALL, "model=lightgcn", "epochs=4", "protocol=final"]
    ended = killed_in_the_third_epoch(killed, words, tmp_path, processes=3)
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0, text
    # whichever is first: the broken connection, or torchrun's signal
    ends = "another of the 3 processes of this run has ended", "broken off by"
    assert sum(map(text.count, ends)) == 1, text


WAITING = """
import os, signal, sys, torch
import torch.distributed as dist
from l2q import processes
from l2q.learning.parallel import ranks
processes.join()
processes.connect()
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, when the third has ended
dist.barrier()
rank = processes.rank()
if rank == 2:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    with processes.lost():
        dist.recv(torch.zeros(1), rank + 1)
except processes.Lost as error:
    if rank == 0:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(ranks._lost(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals")
def test_the_first_process_says_what_it_could_not_see_itself(tmp_path):
    """It waits for the second, which waits for the killed third: the second has to close its connections before it
    looks whether the first one speaks."""
    (tmp_path / "program.py").write_text(WAITING)
    ended = done([*torchrun(processes=3)[:-1], "program.py"], tmp_path, check=False)
    assert ended.stderr.count("another of the 3 processes of this run has ended") == 1, ended.stderr
    assert "error: another of the 3" in ended.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the script is bash's")
def test_the_script_for_slurm_runs_one_training_on_two_machines(tmp_path):
    """With a stand-in for srun, which starts a process for each machine, both here."""
    (tmp_path / "bin").mkdir()
    starts = 'set -e\nfor _ in $(seq "$SLURM_NNODES"); do "$@" & started+=($!); done\n'
    waits = 'for one in "${started[@]}"; do wait "$one"; done'
    for name, does in {"srun": starts + waits, "scontrol": "echo localhost"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("train.py", "conf"):
        (tmp_path / name).symlink_to(ROOT / name)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = ROOT / "docs" / "clusters" / "slurm.sh"
    given = {
        "SLURM_JOB_NODELIST": "a,b",
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_ID": "7",
    }
    path = f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = [*table(tmp_path / "events.csv"), *SMALL, "model=lightgcn", "parallel=columns", "epochs=1"]
    ended = subprocess.run(
        ["bash", str(script), *words],
        cwd=tmp_path,
        env=environment(tmp_path) | ONE_THREAD | given | {"PATH": path, "PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    metrics = metrics_of(tmp_path / "outputs" / "slurm" / "7")
    assert (metrics["processes"], metrics["parallel"], metrics["epochs"]) == (2, "columns", 1)


def test_the_manifest_for_kubernetes_starts_as_many_as_torchrun_waits_for():
    service, job = yaml.safe_load_all((ROOT / "docs" / "clusters" / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = dict(
        word.removeprefix("--").split("=", 1) for word in container["args"] if word.startswith("--")
    )
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(options["nnodes"])
    # the name of the first pod
    port = container["ports"][0]["containerPort"]
    assert options["rdzv-endpoint"] == f"{job['metadata']['name']}-0.{service['metadata']['name']}:{port}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()
    words = [word for word in container["args"] if "=" in word and not word.startswith(("--", "hydra."))]
    assert composed(*words)["parallel"] == "columns"
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }


def test_processes_share_one_run_at_a_time(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_joined", [])
    processes.one_run("a sweep")
    assert processes.join()
    with pytest.raises(L2QError, match=r"^a sweep: 2 processes share one run"):
        processes.one_run("a sweep")


def test_softmax_goes_by_columns(tmp_path):
    config = composed(*table(tmp_path / "events.csv"), "model=lightgcn", "objective=softmax")
    with pytest.raises(L2QError, match=r"^parallel=batches: objective=softmax .* give parallel=columns"):
        Batches().check(config)


@pytest.mark.parametrize("word", ["rows", "null", "[batches]"])
def test_an_unknown_way_to_share_is_refused(tmp_path, word):
    words = [*table(tmp_path / "events.csv"), "logger=none", f"parallel={word}"]
    with pytest.raises(L2QError, match=r"^parallel=.* must be one of batches, columns, edges"):
        Run(composed(*words), tmp_path / "run")


def test_processes_that_have_not_joined_a_run_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(L2QError, match=r"^WORLD_SIZE=2: each of these processes would train the same"):
        Run(composed(*table(tmp_path / "events.csv"), "logger=none"), tmp_path / "run")
    train = Interactions.from_pairs([0, 1], [0, 1], 2, 3)
    with pytest.raises(L2QError, match=r"^WORLD_SIZE=2"):
        l2q.fit(train, "lightgcn")


def test_a_process_starts_with_its_columns_of_what_one_process_starts_with(monkeypatch):
    rng = np.random.default_rng(0)
    train = Interactions.from_pairs(rng.integers(20, size=200), rng.integers(30, size=200), 20, 30)
    normal = Normal(std=0.5)
    whole = normal(train, 12, 7)
    monkeypatch.setattr(
        "l2q.models.initialization.DRAWN", 40
    )  # numbers at once: three rows, and two at the end
    for columns in (slice(0, 6), slice(6, 12), slice(4, 8)):
        part = normal.part(train, 12, 7, columns)
        for side, expected in zip(part, whole, strict=True):
            np.testing.assert_array_equal(side, expected[:, columns])


@pytest.mark.parametrize("codes", [True, False])
def test_columns_of_all_processes_are_joined_by_segments(monkeypatch, codes):
    whole = (
        np.random.default_rng(0).standard_normal((7, 2, 3, 5)).astype(np.float32)
    )  # of 3 processes, 5 each
    if codes:
        whole = np.where(whole >= 0, 1, -1).astype(np.int8)
    parts = [np.ascontiguousarray(whole[:, :, number]) for number in range(3)]
    sent = []

    def broadcast(part, number):
        own = np.packbits(parts[number] > 0, axis=2) if codes else parts[number]
        sent.append(part.numel() * part.element_size())
        part.copy_(torch.from_numpy(own))

    monkeypatch.setattr("torch.distributed.broadcast", broadcast)
    monkeypatch.setattr(processes, "size", lambda: 3)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    found = joined(parts[1].reshape(7, -1), 2)
    assert found.dtype == whole.dtype
    np.testing.assert_array_equal(found, whole.reshape(7, -1))
    assert sent == [7 * 2 * (1 if codes else 20)] * 3


def rotations(dim: int, blocks: int | None, first: int = 0) -> list[np.ndarray]:
    train = Interactions.from_pairs([0, 1], [0, 1], 2, 3)

    class Part(Encoder):
        first_block = first

    encoder = Part(
        train,
        Propagation(Graph.from_interactions(train)),
        Identity(),
        Normal(std=1.0),
        embedding_dim=dim,
        num_layers=1,
        combination="concat",
        layer_weights=None,
        transform="rotation",
        rotation_blocks=blocks,
        seed=3,
    )
    with torch.no_grad():
        return [rotation(torch.eye(dim)).numpy() for rotation in encoder.transforms]


def test_a_rotation_in_blocks_is_the_same_however_many_processes_have_them():
    whole = rotations(12, 4)
    for segment, rotation in enumerate(whole):
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(12), atol=1e-6)
        for first in (0, 2):  # of two processes
            columns = slice(3 * first, 3 * first + 6)
            np.testing.assert_array_equal(rotations(6, 2, first)[segment], rotation[columns, columns])
        assert np.count_nonzero(rotation) == 4 * 3 * 3
        blocks = [rotation[3 * b : 3 * b + 3, 3 * b : 3 * b + 3] for b in range(4)]
        assert not any(np.allclose(blocks[b], blocks[0]) for b in range(1, 4))
    for one, none in zip(rotations(12, 1), rotations(12, None), strict=True):
        np.testing.assert_array_equal(one, none)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model.embedding_dim=5"],
            "model.embedding_dim=5: 2 processes share the columns evenly; give a multiple of 2",
        ),
        (
            ["model=l2q_anl"],
            "model.rotation_blocks=null: a rotation mixes the columns of its block, and 2 processes",
        ),
        (
            ["model=l2q_anl", "model.rotation_blocks=3"],
            "model.rotation_blocks=3: a rotation mixes the columns",
        ),
        (["model=l2q_anl", "model.transform=learned"], "model.transform=learned mixes all columns"),
        (["model=l2q", "model.transform=itq"], "model.transform=itq mixes all columns"),
        (
            ["+trainer.gradient_clip_val=1"],
            "trainer.gradient_clip_algorithm=norm takes the gradient of all columns",
        ),
    ],
)
def test_what_mixes_all_columns_is_refused_in_one_line(tmp_path, monkeypatch, words, said):
    monkeypatch.setattr(processes, "_joined", [2])
    config = composed(*table(tmp_path / "events.csv"), "model=lightgcn", *words, "parallel=columns")
    with pytest.raises(L2QError, match="^" + re.escape(said)) as caught:
        Columns().check(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["model.transform=identity"], ["model.rotation_blocks=5"]])
def test_blocks_without_a_rotation_or_of_uneven_width_are_refused(tmp_path, words):
    small = ["model=l2q_anl", "model.embedding_dim=16", "model.rotation_blocks=2", "logger=none"]
    with pytest.raises(
        L2QError, match=r"^model.rotation_blocks=\d needs model.transform=rotation, not \w+, and a"
    ):
        Run(composed(*table(tmp_path / "events.csv"), *small, *words), tmp_path / "run")
