"""The command line of ``train.py``: what is wrong with it in one line, the help, and what a refusal leaves on disk."""

import subprocess
from pathlib import Path

import pytest
from runs import ROOT, command, entry_point, environment, process, table

from hydra_plugins.l2q_command_line import SEE, nearest, one_line
from hydra_plugins.l2q_help import text
from l2q import settings
from l2q.sweeps.sweep import SWEEP, Refused


def refusal(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> str:
    """What ``python train.py *words`` refuses, in this process."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["train.py", f"--config-path={ROOT / 'conf'}", *words])
    SWEEP.__init__()  # type: ignore[misc]  # as in a new process
    with pytest.raises(Refused) as caught, one_line(words):
        entry_point().main()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("epoch=2", "epoch=2: there is no such option; did you mean epochs? " + SEE),
        ("num_layers=3", "num_layers=3: there is no such option; did you mean model.num_layers? "),
        ("modell=l2q", "modell=l2q: there is no such option; did you mean model? "),
        ("trainer.max_epoch=3", "there is no such option; did you mean trainer.max_epochs? "),
        ("model.quantizer.clipp=3", "no such option; did you mean model.quantizer.clip? "),
        ("model=lightgcn model.quantizer.clip=3", "model.quantizer.clip=3: there is no such option; "),
        ("hydra.run.dirr=x", "no such option; did you mean hydra.run.dir? "),
        ("xyzzy=1", "xyzzy=1: there is no such option; " + SEE),
        ("~foo", "~foo: there is no such option; "),
        ("-m seed=0,1 epoch=2", "epoch=2: there is no such option; did you mean epochs? "),
        ("-m epoch=1,2", "epoch=1,2: there is no such option; did you mean epochs? "),
        ("model=l2qq", "model=l2qq: there is no such choice; did you mean l2q? " + SEE),
        ("-m model=l2q,l2qq", "model=l2qq: there is no such choice; did you mean l2q? "),
        ("experiment=gowalla", "no such choice; did you mean gowalla_l2q_256 or gowalla_l2q_anl_384 or "),
        ("launcher=ray", "launcher=ray: there is no such choice; did you mean in_turn or joblib or slurm? "),
        ("trainer.limit_train_batches=2", "add it with a +: +trainer.limit_train_batches=2"),
        ("trainer.precision=16", "trainer.precision=16: training computes in float32"),
        ("model=l2q_plus initialization=normal", "model=l2q_plus goes without a choice of initialization"),
        ("+seed=1", "+seed: it has a value already; leave the + out"),
        ("model=l2q,lightgcn", "-m runs every value: python train.py -m model=l2q,lightgcn"),
        ("seed=[1", "seed=[1 cannot be read (no viable alternative at input '[1')"),
        ("+tags2=${nowhere}", "tags2: Interpolation key 'nowhere' not found"),
        ("dataset=table", "dataset.dir has no default: give dataset.dir=VALUE"),
        ("--cfg job --info all", "Only one of --run, --multirun, --cfg"),
    ],
)
def test_what_hydra_refuses_is_said_in_one_line_with_the_names_nearby(monkeypatch, tmp_path, words, said):
    assert said in refusal(monkeypatch, tmp_path, *words.split())


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match="of ours"), one_line([]):
        raise ValueError("a bug of ours")


def test_names_in_the_same_place_come_first():
    known = ["epochs", "trainer.max_epochs", "trainer.min_epochs", "model.num_layers", "model"]
    assert nearest("trainer.max_epoch", known) == ["trainer.max_epochs", "trainer.min_epochs"]
    assert nearest("num_layers", known) == ["model.num_layers"]
    assert nearest("something", known) == []


@pytest.mark.parametrize(
    "words",
    ["dataset=table", "learning_rate=-1", "+epoch=3", "hydra.run.dir=new/run seed=-1", "-m epoch=2,3"],
)
def test_refusals_leave_nothing(monkeypatch, tmp_path, words):
    given = table(tmp_path / "events.csv") if words != "dataset=table" else []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", f"--config-path={ROOT / 'conf'}", *words.split(),
                                     "logger=none", *given])  # fmt: skip
    SWEEP.__init__()  # type: ignore[misc]
    try:
        with one_line(words.split()):
            entry_point().main()
        assert [outcome.code for _, outcome in SWEEP.failed] == [2]
    except Refused:  # what ``train.py`` does with it
        entry_point().forget()
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"] * bool(given)


def test_what_stands_in_a_folder_outlives_a_refusal(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    words = [*table(tmp_path / "events.csv"), "logger=none", "hydra.run.dir=mine", "model=popularity"]
    refused = process(*words, "eval.ks=[999]", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: eval.ks=[999]: give a list of cut-offs")
    assert refused.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    process(*words, cwd=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")}
    done = process(*words, "seed=1", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "mine holds a run with other options: seed=0 became seed=1; give the options" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "mine").rglob("*")} == before


def test_a_sweep_of_nothing_swept_is_named_by_its_model_and_keeps_refusals(tmp_path, monkeypatch):
    words = [*table(tmp_path / "events.csv"), "model=popularity", "logger=none", "epochs=3", "sweep=s", "-m"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py", f"--config-path={ROOT / 'conf'}", *words])
    SWEEP.__init__()  # type: ignore[misc]
    entry_point().main()
    (job,) = (tmp_path / "outputs/sweeps/s").glob("*/status.json")
    assert job.parent.name.rpartition("-")[0] == "model=popularity"
    assert "leave epochs out" in job.read_text()


@pytest.mark.parametrize(
    "words", [[], ["model=l2q_plus", "dataset=table"], ["hparams_search=debian_l2q_anl", "launcher=slurm"]]
)
def test_the_help_explains_options_in_80_columns(words, monkeypatch):
    entry_point()
    monkeypatch.setenv("COLUMNS", "80")
    shown = text([*words, "--help"])
    assert max(map(len, shown.splitlines())) <= 80
    said = " ".join(shown.split())
    for group in ("model", "dataset", "annealing", "objective", "protocol", "logger", "launcher", "debug"):
        for choice in settings.choices(group):
            assert choice in said, (group, choice)
    for line in ("keep=all checkpoints that stay when the training is over: best | last | all",
                 "protocol.every_n_epochs=5 epochs between two evaluations", "--cfg job"):  # fmt: skip
        assert line in said
    assert ("model.bits=768 of a row" in said) == ("model=l2q_plus" in words)
    assert ("dataset.dir= must be given" in said) == ("dataset=table" in words)
    assert ("search.trials=20 more of them later" in said) == ("launcher=slurm" in words)
    assert ("launcher.minutes=60 time limit of a job" in said) == ("launcher=slurm" in words)
    with pytest.raises(Refused, match="did you mean model"):
        text(["modell=l2q"])


def test_help_and_configuration_are_printed_whole_and_to_a_reader_that_leaves(tmp_path):
    assert "Groups, GROUP=CHOICE" in process("--help", cwd=tmp_path).stdout
    words = ["seed=1", "-m", "model=popularity,l2q"]  # the flag may stand anywhere
    assert "dataset.dir" in process("dataset=table", *words, cwd=tmp_path, check=False).stderr
    assert "learning_rate: 0.5" in process("--cfg", "job", "learning_rate=0.5", cwd=tmp_path).stdout
    words = [*table(tmp_path / "events.csv"), "model=popularity", "logger=none"]
    for more in (["--help"], ["--cfg", "job"], [*words, "hydra.run.dir=run"]):
        running = subprocess.Popen(command(*more), cwd=tmp_path, env=environment(tmp_path),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
        assert running.wait() == 141, said  # 128 + SIGPIPE
        assert "Traceback" not in said
        assert "Exception" not in said
    assert said.splitlines()[-1].startswith("to go on: python train.py")
    assert process(*words, "hydra.run.dir=run", cwd=tmp_path).returncode == 0
