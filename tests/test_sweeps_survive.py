"""Sweeps that are killed, shared and parallel end like one that nobody disturbed."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from runs import SMALL, command, environment, figures, history_of, metrics_of, process, table

from l2q.learning.jobs import read_status

SIX = ["model=lightgcn,l2q,l2q_anl", "seed=0,1", "epochs=12", *SMALL[:2], "logger=none"]


def words_of(folder: Path) -> list[str]:
    """A sweep of six jobs on a table that is longer than the others of the tests."""
    return [
        "-m",
        *table(folder / "events.csv", users=400),
        *SIX,
        "protocol.every_n_epochs=1",
        "protocol.patience=20",
    ]


def jobs_of(sweep: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(sweep.iterdir()) if path.is_dir() and path.name[0] != "."}


def assert_equal(found: Path, expected: Path) -> None:
    jobs, others = jobs_of(found), jobs_of(expected)
    assert jobs.keys() == others.keys()
    for name in jobs:
        assert read_status(jobs[name])["state"] == "done"
        assert figures(metrics_of(jobs[name])) == figures(metrics_of(others[name])), name
        assert history_of(jobs[name]) == history_of(others[name]), name


@pytest.mark.slow
def test_a_sweep_that_is_killed_twice_ends_with_the_same_table(tmp_path):
    words = words_of(tmp_path)
    process(*words, "sweep=whole", cwd=tmp_path)
    draws, moments = random.Random(5), []
    for _ in range(2):
        running = subprocess.Popen(
            command(*words, "sweep=cut"), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL
        )
        sweep = tmp_path / "outputs" / "sweeps" / "cut"
        # somewhere after the first epoch that this process wrote
        before = {path: path.read_bytes() for path in sweep.glob("*/history.csv")}
        while running.poll() is None and before == {p: p.read_bytes() for p in sweep.glob("*/history.csv")}:
            time.sleep(0.02)
        time.sleep(draws.uniform(0, 3))
        running.send_signal(signal.SIGKILL)
        running.wait()
        moments.append(sum(read_status(path).get("state") == "done" for path in jobs_of(sweep).values()))
    assert moments[1] < 6, "the sweep was over before it was killed"
    done = process(*words, "sweep=cut", cwd=tmp_path)
    assert f"6 of 6 jobs are done, {moments[1]} from before" in done.stdout
    assert_equal(sweep, tmp_path / "outputs" / "sweeps" / "whole")
    for path in jobs_of(sweep).values():  # no whole epoch was run twice
        assert len(re.findall(r"epoch 12 of 12", (path / "train.log").read_text())) <= 1
    # and once more: nothing is left to do
    assert "6 of 6 jobs are done, 6 from before" in process(*words, "sweep=cut", cwd=tmp_path).stdout


@pytest.mark.slow
def test_jobs_side_by_side_give_the_figures_of_jobs_in_turn(tmp_path):
    words = [*words_of(tmp_path), "model=lightgcn,l2q,l2q_anl,last_layer"]
    words.remove("model=lightgcn,l2q,l2q_anl")
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    process(*words, "sweep=turn", cwd=tmp_path, **threads)
    done = process(*words, "sweep=side", "launcher=joblib", "launcher.threads=1", cwd=tmp_path)
    assert "8 of 8 jobs are done" in done.stdout
    assert_equal(tmp_path / "outputs/sweeps/side", tmp_path / "outputs/sweeps/turn")


@pytest.mark.slow
def test_two_processes_share_a_sweep_without_doing_a_job_twice(tmp_path):
    words = [*words_of(tmp_path), "sweep=shared"]
    pair = [
        subprocess.Popen(
            command(*words), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [running.communicate()[0] for running in pair]
    assert [running.returncode for running in pair] == [0, 0]
    assert all("6 of 6 jobs are done" in text for text in said)
    for path in jobs_of(tmp_path / "outputs/sweeps/shared").values():
        assert (path / "train.log").read_text().count("trained 12 of 12 epochs") == 1, path.name


@pytest.mark.parametrize("launcher", ["joblib", "slurm"])
def test_other_launchers_count_what_fails_and_go_on(tmp_path, launcher):
    words = ["-m", *table(tmp_path / "events.csv"), "model=popularity,spectral", "epochs=0,3", "logger=none"]
    words += [f"launcher={launcher}", "sweep=mixed"]
    words += ["launcher.cluster=local", "launcher.cpus=1"] if launcher == "slurm" else ["launcher.threads=1"]
    done = process(*words, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "2 of 4 jobs are done\n2 failed:" in done.stdout
    assert done.stdout.count("is fitted at once, without epochs; leave epochs out") >= 2
    states = [read_status(path)["state"] for path in jobs_of(tmp_path / "outputs/sweeps/mixed").values()]
    assert sorted(states) == ["done", "done", "failed", "failed"]


@pytest.mark.slow
def test_a_signal_to_a_sweep_side_by_side_reaches_its_jobs(tmp_path):
    words = [*words_of(tmp_path), "epochs=50000", "launcher=joblib", "launcher.threads=1", "sweep=long"]
    words.remove("epochs=12")
    words[words.index("protocol.patience=20")] = (
        "protocol.patience=50000"  # no job ends before both are at it
    )
    running = subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    sweep = tmp_path / "outputs/sweeps/long"
    while running.poll() is None and len(list(sweep.glob("*/history.csv"))) < 2:
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    said = running.communicate()[1]
    assert running.returncode == 143, said
    assert said.splitlines()[-1].startswith("to go on: python train.py ")
    states = [read_status(path)["state"] for path in jobs_of(sweep).values()]
    assert sorted(states) == ["interrupted"] * 2 + ["waiting"] * 4
