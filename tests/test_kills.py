"""Processes that are killed or get in each other's way, for real."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import SMALL, command, environment, figures, history_of, metrics_of, process, table

from l2q.learning.jobs import read_status
from l2q.retrieval.storage import load_index


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_second_run_is_refused_and_a_signal_says_how_to_go_on(tmp_path, how, code):
    words = [*table(tmp_path / "events.csv"), "model=l2q", *SMALL[:2], "epochs=20000", "logger=none"]
    words += ["protocol.every_n_epochs=10000", "hydra.run.dir=run"]
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(
            command(*words), cwd=tmp_path, env=environment(tmp_path), stdout=said, stderr=subprocess.STDOUT
        )
    try:
        while not (tmp_path / "run" / "history.csv").exists():
            assert first.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.02)
        second = process(*words, cwd=tmp_path, check=False)
        assert second.returncode == 2
        assert f"is in use by process {first.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert first.poll() is None
    finally:
        first.send_signal(how)
        found = first.wait(timeout=600)
    assert found == code
    lines = (tmp_path / "said").read_text().splitlines()
    assert f"broken off by {how.name}" in lines
    assert lines[-1].startswith("to go on: python train.py ")
    assert read_status(tmp_path / "run")["state"] == "interrupted"
    epochs = [int(row["epoch"]) for row in history_of(tmp_path / "run")]
    assert epochs == list(range(1, len(epochs) + 1))


def started(words: list[str], cwd: Path) -> subprocess.Popen:
    with (cwd / "said").open("a") as said:
        return subprocess.Popen(
            command(*words), cwd=cwd, env=environment(cwd), stdout=said, stderr=subprocess.STDOUT
        )


@pytest.mark.slow
def test_a_fit_that_is_ended_and_killed_goes_on_to_the_same_codes(tmp_path):
    """By every signal, and by SIGKILL wherever it is, until it has ended."""
    words = [*table(tmp_path / "events.csv", users=2000), "model=l2q_plus", "logger=none", "model.bits=256"]
    words += ["model.embeddings.weight=1"]
    process(*words, "hydra.run.dir=whole", cwd=tmp_path)
    words.append(f"hydra.run.dir={tmp_path}/run")
    run, parts = tmp_path / "run", tmp_path / "run" / "checkpoints"
    rng = np.random.default_rng(0)
    signals = [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1] + 4 * [signal.SIGKILL]
    waits = [
        "config.json",
        "checkpoints/embeddings.ckpt",
        "checkpoints/teacher.ckpt",
        "checkpoints/lists.ckpt",
    ]
    waits += 4 * ["checkpoints/rounds.ckpt"]
    kept = set()
    for how, name in zip(signals, waits, strict=True):
        before = time_of(run / name)
        running = started(words, tmp_path)
        while running.poll() is None and time_of(run / name) == before:
            time.sleep(0.002)
            if before and time_of(run / "config.json") > before:  # it goes on behind that part
                break
        time.sleep(rng.uniform(0, 0.2))
        running.send_signal(how)
        code = running.wait(timeout=600)
        if code == 0:
            break
        lines = (tmp_path / "said").read_text().splitlines()
        assert code == (-how if how == signal.SIGKILL else 128 + how)
        if how != signal.SIGKILL:
            assert f"broken off by {how.name}" in lines
            assert lines[-1] == "to go on: python train.py " + shlex.join(words)
            assert read_status(run)["state"] == "interrupted"
        kept |= {path.name for path in parts.glob("*.ckpt")}
    assert kept <= {"weights.ckpt", "embeddings.ckpt", "teacher.ckpt", "lists.ckpt", "rounds.ckpt"}
    assert not kept or "the fit goes on with what it had, " in (tmp_path / "said").read_text()
    process(*words, cwd=tmp_path)
    assert not parts.exists()
    assert figures(metrics_of(run)) == figures(metrics_of(tmp_path / "whole"))
    for path in (tmp_path / "whole" / "index").glob("*.npy"):
        assert (run / "index" / path.name).read_bytes() == path.read_bytes()


def time_of(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


SAVES = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_storage import interactions, representations
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index

folder = Path(sys.argv[2])
indexes = [Index.of(representations(), interactions(), dataset=str(number)) for number in range(2)]
indexes[0].save(folder)
(folder / "of-others.txt").write_text("kept")
for attempt in range(40):
    told, tell = os.pipe()
    writer = os.fork()
    if not writer:
        while True:
            for index in indexes:
                index.save(folder)
                os.write(tell, b".")
    os.close(tell)
    os.read(told, 1)
    time.sleep(0.0005 * attempt)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    os.close(told)
    if folder.exists():
        assert load_index(folder).manifest["dataset"] in "01"
    else:  # between its renames
        assert load_index(folder.with_name(".index.old")).num_users == 30
    indexes[0].save(folder)
    assert load_index(folder).manifest["dataset"] == "0"
    assert (folder / "of-others.txt").read_text() == "kept"
    assert os.listdir(folder.parent) == ["index"]
"""


def test_an_index_whose_saves_are_killed_is_whole(tmp_path):
    place = tmp_path / "place" / "index"
    place.parent.mkdir()
    code = [sys.executable, "-c", SAVES, str(Path(__file__).parent), str(place)]
    subprocess.run(code, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=600)
    assert load_index(place).num_users == 30
