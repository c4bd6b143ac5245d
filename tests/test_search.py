"""Searches: trials that are drawn, kept, pruned, broken off and gone on with; the best command; what is refused."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from runs import command, composed, entry_point, environment, history_of, metrics_of, process, table

from l2q.learning.callbacks import History
from l2q.learning.jobs import LOCK as RUN_LOCK
from l2q.learning.jobs import Job, Outcome, read_status
from l2q.learning.run import Run
from l2q.learning.signals import Interrupted
from l2q.sweeps import search as searching
from l2q.sweeps.launchers import InTurn
from l2q.sweeps.search import LOCK
from l2q.sweeps.sweep import SWEEP, Refused

SEARCH = [
    "hparams_search=debian_l2q_anl",
    "sweep=s",
    "logger=none",
    "search.trials=4",
    "search.metric=val/recall_5",
]
SMALL = ["model.embedding_dim=16", "batch_size=128", "epochs=4", "protocol.every_n_epochs=1"]
PRUNING = ["search.pruning.startup_trials=1", "search.pruning.warmup_epochs=0"]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """``search("search.trials=4")`` is ``python train.py`` of a search on a table, in this process; its search.json.
    Of ``words`` those before are left out that begin likewise."""
    words = [*SEARCH, *table(tmp_path / "events.csv"), *SMALL, *PRUNING]
    monkeypatch.chdir(tmp_path)

    def started(*more: str) -> dict[str, Any]:
        given = {word.partition("=")[0] for word in more}
        kept = [word for word in words if word.partition("=")[0] not in given]
        path = f"--config-path={Path(entry_point().__file__).parent / 'conf'}"
        monkeypatch.setattr(sys, "argv", ["train.py", path, *kept, *more])
        SWEEP.__init__()  # as in a new process
        entry_point().main()
        name = next(word.partition("=")[2] for word in [*kept, *more] if word.startswith("sweep="))
        return json.loads((tmp_path / "outputs" / "sweeps" / name / "search.json").read_text())

    return started


def test_a_search_ends_with_a_command_that_gives_the_best_value_again(search, tmp_path):
    found = search()
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    states = Counter(trial["state"] for trial in found["trials"])
    assert states["done"] >= 2
    assert states["pruned"] >= 1
    assert states.keys() == {"done", "pruned"}
    values = [trial["value"] for trial in found["trials"] if trial["state"] == "done"]
    assert found["best"]["value"] == max(values)
    assert SWEEP.closing.splitlines()[-1] == found["best"]["command"]
    # trials are jobs of the sweep, by their values; nothing of test was read
    folders = {path.name for path in (tmp_path / "outputs/sweeps/s").iterdir() if path.is_dir()}
    assert folders == {trial["folder"] for trial in found["trials"]}
    for trial in found["trials"]:
        folder = tmp_path / "outputs/sweeps/s" / trial["folder"]
        status = read_status(folder)
        assert status["state"] == trial["state"]
        assert (folder / "metrics.json").exists() == (trial["state"] == "done")
        if trial["state"] == "done":
            metrics = metrics_of(folder)
            assert metrics["val/recall_5"] == trial["value"]
            assert not [key for key in metrics if key.startswith("test/")]
        else:
            assert "pruned after epoch" in status["reason"]
            assert len(trial["validations"]) < 4
    # the command alone, without the search, is the same job and gives the same value
    words = shlex.split(found["best"]["command"])
    assert words[:2] == ["python", "train.py"]
    assert not [
        word for word in words if word.startswith(("hparams_search", "search", "sweep", "hydra", "-m"))
    ]
    again = Job(composed(*words[2:]), tmp_path / "again")
    assert again.identity == read_status(tmp_path / "outputs/sweeps/s" / found["best"]["folder"])["identity"]
    assert again.attempt().metrics["val/recall_5"] == found["best"]["value"]
    assert (tmp_path / "outputs/sweeps/s/history.png").read_bytes().startswith(b"\x89PNG")


def stopped_in(monkeypatch, epoch: int, trial: int) -> None:
    """The process is told to end in this epoch of this trial, by a number that counts up."""
    write, started = History.write, []

    def stop(self) -> None:
        write(self)
        if len(self.rows) == 1:
            started.append(self)
        if len(started) == trial and len(self.rows) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(History, "write", stop)


def killed_after(monkeypatch, jobs: int) -> None:
    """The process ends behind this job, before its trial is told."""
    call, done = InTurn.__call__, []

    def die(self, batch) -> list[Outcome]:
        outcomes = call(self, batch)
        done.extend(batch)
        if len(done) == jobs:
            raise KeyboardInterrupt
        return outcomes

    monkeypatch.setattr(InTurn, "__call__", die)


def test_a_search_that_was_broken_off_ends_like_an_undisturbed_one(search, monkeypatch):
    whole = search("sweep=whole", "search.trials=4")
    with monkeypatch.context() as patched:
        stopped_in(patched, epoch=3, trial=1)
        with pytest.raises(Interrupted):
            search("search.trials=4")
    with monkeypatch.context() as patched:
        killed_after(patched, jobs=2)  # the trial that was running, and the next
        with pytest.raises(KeyboardInterrupt):
            search("search.trials=4")
    study = optuna.load_study(study_name="s", storage="sqlite:///outputs/sweeps/s/search.db")
    assert [trial.state.is_finished() for trial in study.trials] == [True, False]
    search("search.trials=3")
    cut = search("search.trials=4")  # more of them are wanted after all
    assert cut["trials"] == whole["trials"]
    assert cut["best"] == whole["best"]
    for trial in whole["trials"]:  # no epoch twice
        epochs = [row["epoch"] for row in history_of(Path("outputs/sweeps/s") / trial["folder"])]
        assert epochs == [str(n + 1) for n in range(len(epochs))]


def test_what_is_done_or_pruned_is_not_run_again(search, monkeypatch):
    before = search()
    monkeypatch.setattr(Run, "__init__", lambda *_, **__: pytest.fail("it runs again"))
    assert search() == before
    assert SWEEP.jobs == []
    # nor where the data base did not hear of it
    Path("outputs/sweeps/s/search.db").unlink()
    again = search()
    assert [trial["state"] for trial in again["trials"]] == [trial["state"] for trial in before["trials"]]
    assert again["best"] == before["best"] | {"validations": {}}


def test_a_pruned_job_that_no_search_asks_for_goes_on_to_its_end(search, tmp_path):
    found = search()
    pruned = next(trial for trial in found["trials"] if trial["state"] == "pruned")
    folder = tmp_path / "outputs/sweeps/s" / pruned["folder"]
    job = Job(composed(*shlex.split(pruned["command"])[2:]), folder)
    assert job.attempt().state == "done"
    assert read_status(folder)["state"] == "done"
    assert len(history_of(folder)) == 4


def test_a_failed_trial_stays_open_and_is_tried_again_with_its_number(search, monkeypatch):
    with monkeypatch.context() as patched:
        attempt = Job.attempt
        tried: list[Job] = []

        def fail(self, wait: bool = False) -> Outcome:
            tried.append(self)
            return Outcome("failed", reason="no luck", code=2) if len(tried) == 2 else attempt(self, wait)

        patched.setattr(Job, "attempt", fail)
        found = search()
        assert entry_point().ended() == 2
    assert [trial["state"] == "open" for trial in found["trials"]] == [False, True, False, False]
    again = search()
    assert [trial["values"] for trial in again["trials"]] == [trial["values"] for trial in found["trials"]]
    assert "open" not in [trial["state"] for trial in again["trials"]]
    assert len(SWEEP.jobs) == 1
    assert entry_point().ended() == 0


def test_trials_that_draw_the_same_are_one_job(search):
    left_out = ["~search.space.learning_rate", "~search.space.annealing.end"]
    choices = "search.space.model.transform=[identity,rotation]"
    found = search(*left_out, choices, "search.pruning=null", "search.trials=5", "search.at_once=5")
    assert len(found["trials"]) == 5
    assert 1 <= len(SWEEP.jobs) <= 2
    by_values = {json.dumps(trial["values"]): trial["value"] for trial in found["trials"]}
    assert all(by_values[json.dumps(trial["values"])] == trial["value"] for trial in found["trials"])


def test_words_with_paths_and_choices_of_groups_come_into_the_command(search, tmp_path):
    (tmp_path / "my events.csv").write_bytes((tmp_path / "events.csv").read_bytes())
    found = search(
        f"dataset.dir='{tmp_path}/my events.csv'",
        "search.trials=1",
        "+search.space.objective=[bpr,softmax]",
        "+search.space.model.layer_weights=[null,[1,1,0.5]]",
        "model=l2q_anl",
    )
    words = shlex.split(found["best"]["command"])
    assert f"dataset.dir='{tmp_path}/my events.csv'" in words
    assert "objective=" in " ".join(words)
    job = Job(composed(*words[2:]), tmp_path)
    assert job.identity == read_status(tmp_path / "outputs/sweeps/s" / found["best"]["folder"])["identity"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["test=true"], "test=true: a search leaves test unread; leave it out"),
        (["search.metric=test/recall_20"], "search.metric=test/recall_20 is not measured on validation"),
        (
            ["search.metric=val/recall_7"],
            "search.metric=val/recall_7 was not measured; there is val/recall_5",
        ),
        (["search.trials=0"], "search.trials=0 must be a whole number of at least 1"),
        (["search.direction=up"], "search.direction=up must be one of maximize, minimize"),
        (["search.at_once=0"], "search.at_once=0 must be a whole number of at least 1 or null"),
        (["search.sampler.seed=-1"], "search.sampler.seed=-1 must be a whole number of at least 0"),
        (["search.pruning.warmup_epochs=x"], "search.pruning.warmup_epochs=x must be a whole number"),
        (["+search.sampler.sed=1"], "search.sampler.sed: there is no such option; did you mean seed?"),
        (["+search.trails=9"], "search.trails: there is no such option; did you mean trials?"),
        (["search.storage=nowhere"], "search.storage=nowhere cannot be opened: "),
        (["hparams_search=tpe"], "search.space is empty; name an option in it"),
        (["+search.space.test=[true,false]"], "search.space.test: a search leaves test unread"),
        (
            ["+search.space.lerning_rate=[0.1,0.2]"],
            "lerning_rate: there is no such option; did you mean learn",
        ),
        (
            ["+search.space.model.num_layer=[1,2]"],
            "model.num_layer: there is no such option; did you mean model.num",
        ),
        (["+search.space.seed={low:1}"], "search.space.seed.high is not given"),
        (
            ["+search.space.seed={low:3,high:1}"],
            "search.space.seed: low=3, high=1 must be a range: low below high",
        ),
        (
            ["search.space.learning_rate.low=0"],
            "low=0, high=0.05 must be a range: low above 0 and below high",
        ),
        (["search.space.learning_rate.low=x"], "search.space.learning_rate.low=x must be"),
        (
            ["+search.space.seed={low:0,high:9,step:20}"],
            "search.space.seed.step=20 must be above 0, within the range",
        ),
        (
            ["search.space.model.transform=[rotation]"],
            "search.space.model.transform=['rotation'] must be {low: ..,",
        ),
        (["seed=0,1"], "seed=0,1: a search takes one value; put choices in search.space"),
        (["learning_rate=0.1"], "learning_rate=0.1 is given and searched; leave it out"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(search, words, said):
    with pytest.raises(Refused) as caught:
        search(*words)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path("outputs").rglob("metrics.json")) or "not measured;" in said


def test_another_search_in_the_folder_and_another_process_are_refused(search):
    search("search.trials=1")
    for word, differs in (
        ("seed=1", "seed=0 became seed=1"),  # another job
        ("search.metric=val/ndcg_5", "search.metric=val/recall_5 became search.metric=val/ndcg_5"),
    ):
        with pytest.raises(Refused) as caught:
            search(word)
        said = f"holds a search with other options: {differs}; give another sweep=NAME, or remove it"
        assert str(caught.value).endswith(said)
    with (
        FileLock(f"outputs/sweeps/s/{LOCK}"),
        pytest.raises(Refused, match="another process is at the search"),
    ):
        search()


def test_a_trial_whose_job_another_process_is_at_is_waited_for(search, monkeypatch):
    found = search("search.trials=1")
    (folder,) = [Path("outputs/sweeps/s") / trial["folder"] for trial in found["trials"]]
    Path("outputs/sweeps/s/search.db").unlink()  # it is drawn anew, the same
    hold = (
        "import filelock, sys; it = filelock.FileLock(sys.argv[1]); it.acquire(); print(); sys.stdin.read()"
    )
    words, said = [sys.executable, "-c", hold, str(folder / RUN_LOCK)], []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()

        def hear(line: str, **_: Any) -> None:
            said.append(line)
            if line.startswith("waiting"):
                other.kill()

        monkeypatch.setattr(searching, "print", hear, raising=False)
        assert search("search.trials=1")["best"]["value"] == found["best"]["value"]
    assert [line for line in said if line.startswith("waiting for another process with learning_rate=")]


def kill(words: list[str], folder: Path, jobs: int) -> int:
    """Kills ``python train.py *words`` once so many jobs have ended and the next one has trained an epoch; how many
    had ended."""
    running = subprocess.Popen(
        command(*words), cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL
    )
    sweep = folder / "outputs/sweeps/s"

    def ended() -> int:
        return sum(read_status(path)["state"] in ("done", "pruned") for path in started())

    def started() -> list[Path]:
        return [path.parent for path in sweep.glob("*/status.json") if read_status(path.parent)]

    def trains() -> bool:
        return any(read_status(p)["state"] == "running" and (p / "history.csv").exists() for p in started())

    while running.poll() is None and not (ended() >= jobs and trains()):
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "the search was over before it was killed"
    return ended()


@pytest.mark.slow
def test_twenty_trials_on_debian_survive_a_kill(tmp_path):
    words = ["hparams_search=debian_l2q_anl", "sweep=s", "logger=none", "model.embedding_dim=16", "epochs=6"]
    words += ["protocol.every_n_epochs=2", "search.pruning.warmup_epochs=2"]
    before = kill(words, tmp_path, jobs=10)
    assert 10 <= before < 20
    sweep = tmp_path / "outputs/sweeps/s"
    (broken,) = (
        path.parent for path in sweep.glob("*/status.json") if read_status(path.parent)["state"] == "running"
    )
    done = process(*words, cwd=tmp_path)
    found = json.loads((sweep / "search.json").read_text())
    assert [trial["number"] for trial in found["trials"]] == list(range(20))
    assert Counter(trial["state"] for trial in found["trials"])["open"] == 0
    assert f"{before} from before" in done.stdout
    assert broken.name in [trial["folder"] for trial in found["trials"]]
    assert len({trial["folder"] for trial in found["trials"]}) == len(list(sweep.glob("*/status.json")))
    for trial in found["trials"]:
        epochs = [row["epoch"] for row in history_of(sweep / trial["folder"])]
        assert epochs == [str(n + 1) for n in range(len(epochs))]
    last = done.stdout.strip().splitlines()[-1]
    assert last == found["best"]["command"]
    process(*shlex.split(last)[2:], "hydra.run.dir=again", cwd=tmp_path)
    assert metrics_of(tmp_path / "again")["val/recall_20"] == found["best"]["value"]


@pytest.mark.slow
def test_trials_side_by_side_are_pruned_and_survive_a_kill_too(tmp_path):
    words = [*SEARCH, *table(tmp_path / "events.csv", users=200), *SMALL, *PRUNING, "search.trials=8"]
    words += ["launcher=joblib", "launcher.threads=1"]
    kill(words, tmp_path, jobs=3)
    done = process(*words, cwd=tmp_path)
    found = json.loads((tmp_path / "outputs/sweeps/s/search.json").read_text())
    process(*[word.replace("sweep=s", "sweep=whole") for word in words], cwd=tmp_path)
    whole = json.loads((tmp_path / "outputs/sweeps/whole/search.json").read_text())
    assert found["trials"] == whole["trials"], done.stdout
    assert Counter(trial["state"] for trial in found["trials"])["pruned"] >= 1


@pytest.mark.slow
def test_trials_as_jobs_of_slurm_are_drawn_together_pruned_and_gone_on_with(tmp_path):
    """Through the executor of submitit that runs SLURM's way on this machine."""
    words = [*SEARCH, *table(tmp_path / "events.csv"), *SMALL, *PRUNING, "launcher=slurm", "search.at_once=3"]
    words += ["launcher.cluster=local", "launcher.cpus=1"]
    words.remove("search.trials=4")
    process(*words, "search.trials=3", cwd=tmp_path)
    done = process(*words, "search.trials=5", cwd=tmp_path)
    assert "search for 5 trials in outputs/sweeps/s; 3 from before" in done.stdout
    assert "jobs with local: 2; their output is in outputs/sweeps/s/.slurm" in done.stdout
    found = json.loads((tmp_path / "outputs/sweeps/s/search.json").read_text())
    states = Counter(trial["state"] for trial in found["trials"])
    assert states.keys() <= {"done", "pruned"}
    assert states["done"] >= 3  # the first three are drawn together, so that none is below the others
    assert found["best"]["value"] == max(trial["value"] for trial in found["trials"] if trial["value"])
    assert done.stdout.strip().splitlines()[-1] == found["best"]["command"]
