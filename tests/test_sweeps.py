"""Sweeps: a run, a folder and a group for every job, whatever happens to the others."""

from runs import SMALL, metrics_of, offline_run, only, process, table

from l2q.cli import main
from l2q.learning.jobs import folder_name
from l2q.learning.naming import run_dir, sweep_dir


def test_a_sweep_gives_every_job_a_run_of_its_own(tmp_path):
    table(tmp_path / "events.csv")
    words = ["dataset=table", "dataset.dir=events.csv", *SMALL]
    done = process("-m", "model=lightgcn,l2q,l2q_anl", "seed=0,1", *words, cwd=tmp_path)
    sweep = only(tmp_path, "outputs/sweeps/*")
    jobs = sorted(path.parent for path in sweep.glob("*/metrics.json"))
    assert len(jobs) == 6, done.stdout + done.stderr
    assert {(metrics_of(job)["model"], metrics_of(job)["seed"]) for job in jobs} == {
        (model, seed) for model in ("lightgcn", "l2q", "l2q_anl") for seed in (0, 1)
    }
    assert all("model=" in job.name and "seed=" in job.name for job in jobs)
    # W&B: runs of their own in one group, which has the sweep's name; each is named by its overrides
    told = {job: offline_run(only(job, "wandb/offline-run-*")) for job in jobs}
    assert len({run.run_id for run in told.values()}) == 6
    assert {run.run_group for run in told.values()} == {sweep.name}
    for job, run in told.items():
        values = metrics_of(job)
        assert f"model={values['model']}" in run.display_name
        assert f"seed={values['seed']}" in run.display_name


def test_a_sweep_over_tables_keeps_them_apart_and_survives_failures(tmp_path, capsys):
    table(tmp_path / "events.csv")
    table(tmp_path / "more" / "others.csv", more="u60,i1\nu60,i2\n")
    words = ["model=popularity,spectral", "dataset=table", "dataset.dir=events.csv,more/others.csv"]
    # a job with an impossible cut-off leaves the others whole
    done = process("-m", *words, "eval.ks=[20],[9999999]", "logger=none", cwd=tmp_path, check=False)
    assert done.returncode == 2
    said = done.stdout + done.stderr
    assert "4 of 8 jobs are done" in said
    assert "4 failed:" in said
    assert (
        said.count(": eval.ks=[9999999]: give a list of cut-offs from 1 to 45") == 1
    )  # one reason, one line
    assert "; and 1 more: eval.ks=" in said
    assert "Traceback" not in done.stdout + done.stderr
    found = [metrics_of(path.parent) for path in tmp_path.glob("outputs/sweeps/*/*/metrics.json")]
    assert sorted((run["model"], run["dataset"]) for run in found) == [
        (model, name) for model in ("popularity", "spectral") for name in ("table_events", "table_others")
    ]
    assert main(["report", str(tmp_path / "outputs")]) == 0
    tables = capsys.readouterr().out.split("\n\n**")
    assert ["table_events" in tables[0], "table_others" in tables[1]] == [True, True]


def test_runs_that_start_in_the_same_second_have_folders_of_their_own():
    assert len({run_dir(True, None, "outputs") for _ in range(20)}) == 20
    assert len({sweep_dir(None) for _ in range(20)}) == 20


def test_a_sweep_with_long_overrides_has_folders_that_file_systems_take():
    assert folder_name({"model": "l2q", "seed": 0}, "5f3a1c2b99") == "model=l2q,seed=0-5f3a1c2b"
    many = {f"model.quantizer.option_{number}": "x" * 400 for number in range(9)} | {"model": "ü" * 200}
    names = {folder_name(many, identity) for identity in ("5f3a1c2b99", "6f3a1c2b99")}
    assert len(names) == 2
    assert all(len(name.encode()) <= 200 for name in names)


def test_a_path_among_the_overrides_makes_no_folders():
    assert "/" not in folder_name({"dataset.dir": "/a/b.csv", "seed": 0}, "5f3a1c2b99")
