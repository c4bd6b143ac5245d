"""W&B: what a run tells it, read back from its offline files by W&B's own reader, and by a server they are sent to."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import wandb
from presets import wandb_logger
from runs import ROOT, SMALL, composed, metrics_of, only, table
from wandb_server import wandb_server

from l2q.cli import main
from l2q.errors import L2QError
from l2q.learning.run import Run
from l2q.learning.signals import Interrupted
from l2q.tracking import wandb_run
from l2q.tracking.tracker import tracked
from l2q.tracking.wandb_files import await_end, records, told
from l2q.tracking.wandb_run import ID_FILE, readable

WORDS = ["model=l2q_anl", *SMALL, "eval.ks=[5,10,20]", "logger=wandb", "protocol.every_n_epochs=1"]
LAST = "checkpoints/last.ckpt"
CONFIG = {
    "model": {"name": "tiny"},
    "dataset": {"name": "set", "dir": "/home/someone/set"},
    "eval": {"ks": [20]},
    "ckpt_path": None,
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of its own, without an account; what W&B would put there can be seen."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()  # which remembers its settings
    yield tmp_path / "home"
    wandb.teardown()


def run(folder: Path, *words: str, **named: Any) -> dict[str, Any]:
    return Run(composed(*words), folder, **named)()


def words_of(folder: Path) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [*table(folder / "events.csv"), *WORDS]


class Read:
    """An offline file as ``wandb leet inspect`` shows it."""

    def __init__(self, place: Path) -> None:
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(place)]
        known = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        shown = subprocess.run(
            command, capture_output=True, text=True, check=True, env=known | {"HOME": "/tmp"}
        ).stdout
        self.records = [json.loads(line) for line in shown.splitlines()]
        self.run = {key: value for update in self._all("run") for key, value in update.items()}
        self.metrics = {metric.get("name") or metric["glob_name"]: metric for metric in self._all("metric")}
        self.history = [row["item"] for row in self._all("history")]
        self.artifacts = {one["type"]: one for one in self._all("artifact")}
        self.epochs = [row["epoch"] for row in self.history if "epoch" in row]
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        for update in self._all("summary"):
            self.summary |= update["update"]
        for update in self._all("config"):
            self.config |= update["update"]

    def _all(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def exit_code(self) -> int:
        return self._all("exit")[-1].get("exit_code", 0)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_a_run_tells_its_story(tmp_path, home):
    """One process, one file: whose run it is, curves over epochs, a short summary, lineage."""
    options = ["logger.entity=lab", "logger.tags=[first,small]", "logger.notes=why", "logger.job_type=train"]
    name = f"seed=0,ckpt_path={tmp_path}/x.ckpt,dataset.dir={tmp_path}/events.csv"
    metrics = run(tmp_path / "run", *words_of(tmp_path), *options, "test=true", name=name, group="sweep")
    read = Read(only(tmp_path / "run", "wandb/offline-run-*"))
    told_of = {
        key: read.run[key] for key in ("display_name", "run_group", "project", "entity", "notes", "job_type")
    }
    assert told_of == {
        "display_name": "seed=0,dataset.dir=events.csv",
        "run_group": "sweep",
        "project": "l2q",
        "entity": "lab",
        "notes": "why",
        "job_type": "train",
    }
    assert read.run["tags"] == ["first", "small"]
    assert read.config["model"]["name"] == "l2q_anl"
    assert read.config["run"]["config_hash"] == metrics["config_hash"]
    assert str(tmp_path) not in json.dumps(read.config)  # where the data lie

    # every row of history.csv whole, and the epoch as their x axis
    rows = rows_of(tmp_path / "run")
    found = [row for row in read.history if "epoch" in row]
    assert [{key: value for key, value in row.items() if key[0] != "_"} for row in found] == [
        {key: pytest.approx(float(value)) for key, value in row.items()} for row in rows
    ]
    decides = "val/recall_11"  # of 45 items
    over_epochs = {"train/*", "anneal/*", "codes/*", "time/*", "val/*", "learning_rate", decides}
    assert {name for name in over_epochs if read.metrics[name]["step_metric"] == "epoch"} == over_epochs
    assert read.metrics[decides]["summary"] == {"max": True, "last": True}

    # at most 40 keys, however one counts
    leaves = [key for key, value in read.summary.items() for _ in (value if isinstance(value, dict) else [0])]
    assert len(leaves) <= 40
    for k in (5, 10, 20):
        for metric in ("recall", "ndcg"):
            assert read.summary[f"test/{metric}_{k}"] == metrics[f"test/{metric}_{k}"]
            assert read.summary[f"test/packed/{metric}_{k}"] == metrics[f"test/packed/{metric}_{k}"]
    measured = [float(row[decides]) for row in rows if decides in row]
    assert read.summary[decides] == {"max": max(measured), "last": measured[-1]}
    for key in ("epochs", "item_bytes", "index_bytes", "compression", "fit_seconds", "total_seconds"):
        assert read.summary[key] == metrics[key]
    assert not [key for key in read.summary if key.startswith(("time/", "codes/", "training", "val/mrr"))]
    assert any("test/recall_20" in row for row in read.history)  # and so a panel

    # the index was made of the data set, which stays where it is
    assert set(read.artifacts) == {"dataset", "checkpoint", "index"}
    data = read.artifacts["dataset"]
    assert data["use_after_commit"] is True
    assert json.loads(data["metadata"])["fingerprint"] == metrics["train"]
    assert [entry["ref"] for entry in data["manifest"]["contents"]] == [f"l2q://dataset/{metrics['train']}"]
    index = read.artifacts["index"]
    assert "use_after_commit" not in index
    assert {Path(entry["local_path"]) for entry in index["manifest"]["contents"]} == set(
        (tmp_path / "run" / "index").iterdir()
    )
    assert all("local_path" not in entry for entry in read.artifacts["checkpoint"]["manifest"]["contents"])

    assert read.exit_code == 0
    assert not (home / ".local").exists()  # where W&B puts files of artifacts, else


def test_the_index_may_stay_here(tmp_path):
    run(tmp_path / "run", *words_of(tmp_path), "model.num_layers=1", "logger.log_index=false")
    read = Read(only(tmp_path / "run", "wandb/offline-run-*"))
    assert [entry["ref"][:12] for entry in read.artifacts["index"]["manifest"]["contents"]] == [
        "l2q://index/"
    ]
    assert read.summary["test/recall_20"] == metrics_of(tmp_path / "run")["test/recall_20"]


@pytest.fixture
def resumed(tmp_path) -> Path:
    """A run of two epochs that went on to four in a second process."""
    words = [*words_of(tmp_path), "epochs=4"]
    run(tmp_path / "run", *words, "trainer.max_epochs=2", name="seed=0", group="sweep")
    run(tmp_path / "run", *words, f"ckpt_path={tmp_path}/run/{LAST}", name=f"ckpt_path={tmp_path}/run/{LAST}")
    return tmp_path / "run"


def test_a_resumed_run_is_one_run_whose_files_hold_every_epoch_once(resumed):
    first, second = map(Read, files(resumed))
    assert first.run["run_id"] == second.run["run_id"]
    assert [read.run["display_name"] for read in (first, second)] == ["seed=0", "seed=0"]
    assert [read.run["run_group"] for read in (first, second)] == ["sweep", "sweep"]
    assert (first.epochs, second.epochs) == ([1, 2], [3, 4])
    steps = [row["_step"] for read in (first, second) for row in read.history]
    assert steps == list(range(len(steps)))
    measured = [float(row["val/recall_11"]) for row in rows_of(resumed)]
    assert second.summary["val/recall_11"] == {"max": max(measured), "last": measured[-1]}  # of both files
    assert second.artifacts["checkpoint"]["run_id"] == first.run["run_id"]
    used = [one for one in second._all("artifact") if one.get("use_after_commit")]
    assert [one["type"] for one in used] == ["dataset", "checkpoint"]


def test_a_run_whose_files_are_gone_gets_a_new_id_and_tells_everything(tmp_path):
    """Nobody knows whether they were sent: under the old id epochs could be there twice."""
    words = [*words_of(tmp_path), "epochs=4"]
    run(tmp_path / "run", *words, "trainer.max_epochs=2")
    before = Read(files(tmp_path / "run")[0]).run["run_id"]
    shutil.rmtree(tmp_path / "run" / "wandb")
    run(tmp_path / "run", *words, f"ckpt_path={tmp_path}/run/{LAST}")
    read = Read(only(tmp_path / "run", "wandb/offline-run-*"))
    assert read.run["run_id"] != before
    assert read.epochs == [1, 2, 3, 4]


@pytest.mark.parametrize("first_sent", [pytest.param(True, marks=pytest.mark.slow), False])
def test_sync_sends_a_resumed_run_as_one_history(resumed, first_sent):
    def sync(*folders: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", *map(str, folders)],
            env=os.environ | server.environment,
            cwd=resumed,  # where it leaves logs
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr

    with wandb_server() as server:
        if first_sent:
            sync(files(resumed)[0])
        sync(resumed / "wandb")
    (found,) = server.runs.values()
    assert (found.name, found.group, found.exit_code) == ("seed=0", "sweep", 0)
    rows = [found.history[line] for line in sorted(found.history)]
    assert [row["epoch"] for row in rows if "epoch" in row] == [1, 2, 3, 4]
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    assert found.summary["test/recall_20"] == metrics_of(resumed)["test/recall_20"]
    assert set(found.used) == {"dataset", "checkpoint"}
    assert {"index", "checkpoint"} <= set(found.made)


def test_online_the_server_says_how_far_a_resumed_run_came(tmp_path, monkeypatch):
    words = [*words_of(tmp_path), "epochs=4"]
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        run(tmp_path / "run", *words, "trainer.max_epochs=2", name="seed=0")
        run(tmp_path / "run", *words, f"ckpt_path={tmp_path}/run/{LAST}")
    assert not files(tmp_path / "run")
    (found,) = server.runs.values()
    rows = [found.history[line] for line in sorted(found.history)]
    assert [row["epoch"] for row in rows if "epoch" in row] == [1, 2, 3, 4]
    assert found.summary["test/recall_20"] == metrics_of(tmp_path / "run")["test/recall_20"]


KILLED = """
import os, signal, sys
from pathlib import Path
from l2q.tracking.tracker import tracked
from presets import wandb_logger
config = {"model": {"name": "m"}, "dataset": {"name": "d"}, "eval": {"ks": [20]}}
folder = Path(sys.argv[1])
with tracked(wandb_logger(folder, "killed", None, offline=True), config, 20) as tracker:
    for epoch in range(1, 12):
        tracker.log_epoch({"epoch": epoch, "step": epoch, "train/loss": 1 / epoch})
    import time; time.sleep(1)  # an eleventh of what W&B's own interval is
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_a_kill_the_rows_are_on_disk(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        timeout=300,
    )
    assert done.returncode == -9
    read = Read(only(tmp_path, "wandb/offline-run-*"))
    assert read.epochs == list(range(1, 12))
    # and what is torn at its end is read as far as it goes
    (path,) = only(tmp_path, "wandb/offline-run-*").glob("*.wandb")
    run_id = read.run["run_id"]
    assert told(tmp_path, run_id).epochs == set(range(1, 12))
    path.write_bytes(path.read_bytes()[:-5])
    assert told(tmp_path, run_id).epochs == set(range(1, 11))
    path.write_bytes(path.read_bytes()[:7])
    assert (told(tmp_path, run_id).epochs, told(tmp_path, run_id).files) == (set(), [path])


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (L2QError("the loss is not finite"), "the loss is not finite", 1),
        (Interrupted(15), "Interrupted: SIGTERM", 143),
        (ValueError("shape"), "ValueError: shape", 1),
    ],
)
def test_a_failed_run_says_why(tmp_path, error, reason, code):
    with pytest.raises(type(error)), tracked(wandb_logger(tmp_path, "a", None, notes="why"), CONFIG):
        raise error
    read = Read(only(tmp_path, "wandb/offline-run-*"))
    assert (read.exit_code, read.summary["error"]) == (code, reason)
    assert read.run["notes"] == f"why\n\nfailed: {reason}"
    # tried again, it goes well
    with tracked(wandb_logger(tmp_path, "a", None, notes="why"), CONFIG):
        pass
    read = Read(files(tmp_path)[-1])
    assert (read.exit_code, read.summary["error"], read.run["notes"]) == (0, "", "why")


def test_a_refused_job_of_a_sweep_has_a_run_that_says_why(tmp_path):
    with pytest.raises(L2QError, match=r"eval\.ks"):
        run(tmp_path / "run", *words_of(tmp_path), "eval.ks=[9999]", name="eval.ks=[9999]", group="sweep")
    read = Read(only(tmp_path / "run", "wandb/offline-run-*"))
    assert (read.run["display_name"], read.run["run_group"]) == ("eval.ks=[9999]", "sweep")
    assert read.summary["error"].startswith("eval.ks=[9999]: give a list of cut-offs")
    assert read.exit_code == 1


def whole(folder: Path) -> bool:
    names = {
        "config.json",
        "metrics.json",
        "index",
        "history.csv",
        "checkpoints",
        "per_user.npz",
        "training.png",
    }
    return names <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": "/dev/null/home"},
        {"HOME": "/dev/null/home", "WANDB_MODE": "offline", "TMPDIR": "/dev/shm"},
        {"WANDB_MODE": "ofline"},
        {"WANDB_BASE_URL": "no address"},
        {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "short"},
        pytest.param(
            {"WANDB_BASE_URL": "http://127.0.0.1:1", "WANDB_API_KEY": "0123456789" * 4},
            marks=pytest.mark.slow,
        ),  # nobody listens there, and W&B asks for a while
    ],
    ids=lambda variables: " ".join(f"{key}={value}" for key, value in variables.items()),
)
def test_no_environment_of_wandb_fails_a_run(tmp_path, monkeypatch, variables):
    words = words_of(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(tmp_path / "run", *words)
    said = [str(one.message) for one in caught if "W&B" in str(one.message)]
    assert len(said) <= 1
    assert all("\n" not in line for line in said)
    if "HOME" not in variables:  # without one, nothing is missing
        assert len(said) == 1
    assert whole(tmp_path / "run")
    assert Read(only(tmp_path / "run", "wandb/offline-run-*")).epochs == [1, 2]


def test_a_service_that_does_not_end_is_left_behind(tmp_path, monkeypatch):
    asked = threading.Event()

    def stuck() -> None:
        asked.set()
        threading.Event().wait()

    with monkeypatch.context() as broken:
        broken.setattr(wandb, "login", broken_login)
        broken.setattr(wandb, "teardown", stuck)
        broken.setattr(wandb_run, "TEARDOWN_SECONDS", 0.01)
        with pytest.warns(UserWarning, match=r"\(TimeoutError: no answer\); this run is logged offline"):
            logger = wandb_logger(tmp_path, "a", None)
    assert asked.is_set()
    with tracked(logger, CONFIG):
        pass
    only(tmp_path, "wandb/offline-run-*")


def broken_login(**_: Any) -> bool:
    raise TimeoutError("no answer")


@pytest.mark.parametrize("content", [b"", b"\n", b"../../elsewhere", b"\xff\xfe", b"a b\n"])
def test_a_damaged_id_is_replaced(tmp_path, content):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ID_FILE).write_bytes(content)
    with tracked(wandb_logger(tmp_path, "a", None), CONFIG):
        pass
    run_id = (tmp_path / "checkpoints" / ID_FILE).read_text().strip()
    assert only(tmp_path, "wandb/offline-run-*").name.endswith(f"-{run_id}")
    assert len(run_id) == 8


def test_a_run_is_over_when_its_file_is_whole(tmp_path, monkeypatch):
    finish = wandb.Run.finish

    def late(self: wandb.Run, exit_code: int | None = None) -> None:
        """As on a busy machine, where the service writes after ``finish`` returned."""
        threading.Timer(1, finish, (self, exit_code)).start()

    monkeypatch.setattr(wandb.Run, "finish", late)
    with tracked(wandb_logger(tmp_path, "a", None), CONFIG):
        pass
    file = only(tmp_path, "wandb/offline-run-*/*.wandb")
    assert [record.WhichOneof("record_type") for record in records(file)][-1] == "exit"


def test_a_file_without_an_end_is_waited_for_no_longer_than_that(tmp_path):
    await_end(tmp_path / "none.wandb", 1e9)
    (tmp_path / "cut.wandb").write_bytes(b":W&B\xe1\xbe\x00" + bytes(5))
    await_end(tmp_path / "cut.wandb", 0.05)


def test_wandb_that_breaks_in_the_middle_is_one_warning(tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("Connection lost")

    words = words_of(tmp_path)
    for name in ("log", "_log_artifact", "finish"):
        monkeypatch.setattr(wandb.Run, name, broken)
    with pytest.warns(
        UserWarning, match=r"W&B failed \(ConnectionResetError: Connection lost\); the run goes on"
    ) as said:
        run(tmp_path / "run", *words)
    assert len([one for one in said if "W&B" in str(one.message)]) == 1
    assert whole(tmp_path / "run")


def test_wandb_that_cannot_write_is_no_logger(tmp_path, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "init", broken)
    with pytest.warns(UserWarning, match="no space left") as said:
        assert wandb_logger(tmp_path, "a", None) is None
    assert len(said) == 1


def test_wandb_that_is_disabled_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(tmp_path, "a", None) is None
    assert not list(tmp_path.iterdir())


def test_options_are_checked(tmp_path):
    with pytest.raises(L2QError, match=r"logger\.tags=try must be a list, each a word or null"):
        wandb_logger(tmp_path, "a", None, tags="try")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("model=l2q,seed=0", "model=l2q,seed=0"),
        ("ckpt_path=/runs/a,b/last.ckpt", ""),
        ("seed=0,ckpt_path=/runs/1/last.ckpt,model=l2q", "seed=0,model=l2q"),
        ("dataset.dir=/data/a/events.csv,eval.ks=[5,20]", "dataset.dir=events.csv,eval.ks=[5,20]"),
        ("+trainer.x=1", "+trainer.x=1"),
        ("l2q_anl debian", "l2q_anl debian"),
    ],
)
def test_names_have_no_paths(name, shown):
    assert readable(name) == shown


def test_a_run_is_told_afterwards(tmp_path, capsys):
    """``python -m l2q wandb``: the same run as one that W&B was told of while it ran."""
    words = words_of(tmp_path)
    run(tmp_path / "sweeps" / "first" / "live", *words, name="seed=0", group="first")
    run(tmp_path / "sweeps" / "first" / "later", *words, "logger=none")
    later = tmp_path / "sweeps" / "first" / "later"
    capsys.readouterr()
    assert main(["wandb", str(later), "--project", "second", "--entity", "lab"]) == 0
    assert capsys.readouterr().out == f"wandb sync {later / 'wandb'}\n"
    found, live = Read(only(later, "wandb/offline-run-*")), Read(files(later.with_name("live"))[0])
    assert [found.run[key] for key in ("project", "entity", "run_group")] == ["second", "lab", "first"]
    assert found.run["display_name"] == "l2q_anl table_events"
    assert found.metrics == live.metrics
    assert found.summary.keys() == live.summary.keys()
    assert found.artifacts.keys() == live.artifacts.keys()
    assert found.artifacts["dataset"]["digest"] == live.artifacts["dataset"]["digest"]
    assert len(found.history) == len(live.history)
    assert [set(row) for row in found.history] == [set(row) for row in live.history]
    assert found.exit_code == 0


def test_what_wandb_lacks_of_a_run_is_told_afterwards(resumed):
    """The first file is whole, the second is lost but for its head: the third has its epochs, and a fourth would have
    none."""
    second = files(resumed)[1]
    (path,) = second.glob("*.wandb")
    path.write_bytes(path.read_bytes()[:7])
    (resumed / "metrics.json").rename(resumed / "metrics.old")
    assert main(["wandb", str(resumed)]) == 0
    third = Read(next(place for place in files(resumed) if place.stat().st_mtime > second.stat().st_mtime))
    assert (third.epochs, third.run["display_name"]) == ([3, 4], "seed=0")
    assert third.run["run_id"] == Read(files(resumed)[0]).run["run_id"]
    assert (third.exit_code, third.summary["error"]) == (1, "the run left no metrics.json")
    known = set(files(resumed))
    (resumed / "metrics.old").rename(resumed / "metrics.json")
    assert main(["wandb", str(resumed)]) == 0
    (new,) = set(files(resumed)) - known
    assert (Read(new).epochs, Read(new).summary["error"], Read(new).exit_code) == ([], "", 0)


def test_folders_that_are_no_runs_are_refused_and_the_others_told(tmp_path, capsys):
    words = words_of(tmp_path)
    run(tmp_path / "run", *words, "logger=none")
    (tmp_path / "other").mkdir()
    capsys.readouterr()
    assert main(["wandb", str(tmp_path / "other"), str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert said.out == f"wandb sync {tmp_path / 'run' / 'wandb'}\n"
    assert "is not the folder of a run: it has no config.json" in said.err
    assert "1 of 2 runs were not written" in said.err
    for name in ("config.json", "metrics.json", "history.csv"):
        damaged = tmp_path / name.replace(".", "_")
        shutil.copytree(tmp_path / "run", damaged)
        (damaged / name).write_text("nonsense")
        if name == "history.csv":
            (damaged / name).write_text("epoch,step\nfirst,4\n")
        assert main(["wandb", str(damaged)]) == 2
        assert f"{damaged / name} is damaged" in capsys.readouterr().err
