"""What a terminal of 80 columns shows of a run: whole times, whole lines, an estimate that was measured."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numba
import pytest
from rich.console import Console
from runs import ROOT, SMALL, environment, table

from l2q.kernels import compiling
from l2q.learning import results
from l2q.learning.callbacks import EpochProgress


def screen(*command: str, cwd: Path, columns: int = 80) -> list[str]:
    """The lines that a command draws in a terminal, each state of a bar as one."""
    variables = environment(cwd) | {"TERM": "xterm-256color"}
    del variables["COLUMNS"]
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.chdir(cwd)
        os.execve(command[0], list(command), variables)
    drawn = b""
    try:
        while part := os.read(terminal, 65536):
            drawn += part
    except OSError:  # how a terminal ends on Linux
        pass
    os.close(terminal)
    assert os.waitpid(process, 0)[1] == 0, drawn.decode()
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode()))


BARS = """
import time
from l2q.progress import Bars
with Bars("epochs") as bars:
    bars.update("training", 1, {total}, "loss 0.6931  recall@20 0.1234")
    for done in range(2, 7):
        time.sleep(0.1)
        bars.update("training", done, {total})
"""


@pytest.mark.parametrize("total", [60, 1000])
def test_a_bar_shows_whole_times_and_values_in_80_columns(tmp_path, total):
    lines = screen(sys.executable, "-c", BARS.format(total=total), cwd=tmp_path)
    bars = [line for line in lines if line.startswith("training ")]
    assert bars
    assert all(len(line) <= 80 and "…" not in line for line in bars)
    assert re.fullmatch(
        rf"training \S+ +6/{total} epochs \d+:\d\d:\d\d left loss 0\.6931  recall@20 0\.1234",
        bars[-1].strip(),
    )


def test_a_wide_terminal_has_the_time_so_far_too(tmp_path):
    lines = screen(sys.executable, "-c", BARS.format(total=60), cwd=tmp_path, columns=120)
    assert re.search(r" 6/60 epochs \d+:\d\d:\d\d left \d+:\d\d:\d\d loss 0\.6931", lines[-2] + lines[-1])


def test_a_run_in_80_columns(tmp_path):
    words = [*table(tmp_path / "events.csv"), "model=lightgcn", *SMALL, "logger=none"]
    lines = screen(sys.executable, str(ROOT / "train.py"), *words, cwd=tmp_path)
    title = "lightgcn on table_events, protocol holdout (random split)"
    assert title in [line.strip() for line in lines]
    bars = [line for line in lines if line.startswith("training ━")]
    assert re.search(r" 2/2 epochs 0:00:0\d left loss \d\.\d{4}  recall@20 \d\.\d{4}$", bars[-1].strip())
    assert not [line for line in bars if "…" in line]


def test_the_title_of_results_is_not_wrapped_to_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "Console", lambda **named: Console(width=80, **named))
    metrics = {"model": "l2q_anl", "dataset": "a" * 40, "protocol": "holdout", "split": "random"}
    metrics |= {"test/recall_20": 0.5, "test/ndcg_20": 0.25, "embedding_dim": 8}
    metrics |= dict.fromkeys(("item_bytes", "user_bytes", "index_bytes", "compression"), 1.0)
    results.show(metrics, [20], tmp_path)
    assert f"l2q_anl on {'a' * 40}, protocol holdout (random split)\n" in capsys.readouterr().out


class Clock:
    """A training whose steps and validations take as long as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, epochs: int, every: int) -> None:
        self.now = self.compiled = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(compiling, "seconds", lambda: self.compiled)
        self.trainer: Any = SimpleNamespace(
            current_epoch=0, max_epochs=epochs, num_training_batches=4, callback_metrics={}
        )
        self.progress = EpochProgress(SimpleNamespace(every_n_epochs=every))  # type: ignore[arg-type]
        self.said: list[str] = []
        self.progress.bars = SimpleNamespace(  # type: ignore[assignment]
            shown=True, print=self.said.append, start=lambda: None, update=lambda *_: None
        )
        self.progress.on_train_start(self.trainer, None)

    def epoch(self, step: float, validation: float, compiles: float = 0.0) -> list[str]:
        """``compiles``: seconds that compiling takes within a step, and within the validation."""
        self.progress.on_train_epoch_start(self.trainer, None)
        for number in range(4):
            self._takes(step, compiles if number == 1 else 0.0)
            self.progress.on_train_batch_end(self.trainer, None, None, None, number)
        self._takes(validation, compiles)
        self.progress.on_train_epoch_end(self.trainer, None)
        self.trainer.current_epoch += 1
        said, self.said[:] = list(self.said), []
        return said

    def _takes(self, seconds: float, compiling: float) -> None:
        self.now += seconds + compiling
        self.compiled += compiling


def test_how_long_it_takes_is_said_after_a_validation_without_what_compiling_took(monkeypatch):
    clock = Clock(monkeypatch, epochs=20, every=2)
    assert clock.epoch(step=0.5, validation=0.0, compiles=9.0) == []
    # 20 epochs of 4 steps of .5 seconds, 10 validations of 3 seconds
    said = ["training is expected to take 1.2 minutes in all, and less if it ends early"]
    assert clock.epoch(step=0.5, validation=3.0, compiles=8.0) == said
    assert [clock.epoch(0.5, 3.0) for _ in range(18)] == [[]] * 18


def test_where_the_first_validation_is_far_away_the_least_is_said_at_once(monkeypatch):
    clock = Clock(monkeypatch, epochs=10, every=5)
    assert clock.epoch(step=60, validation=0.0) == []  # three steps count: the first is slow
    said = ["training is expected to take at least 40.0 minutes, and what validation takes"]
    assert clock.epoch(step=60, validation=0.0) == said
    assert clock.epoch(60, 0.0) == clock.epoch(60, 0.0) == []
    said = ["training is expected to take 60.0 minutes in all, and less if it ends early"]
    assert clock.epoch(60, 600) == said


def test_steps_that_compile_or_start_do_not_count(monkeypatch):
    clock = Clock(monkeypatch, epochs=30, every=1)
    assert clock.epoch(step=1, validation=1) == []  # three steps but for the first
    assert clock.epoch(step=1, validation=1, compiles=50) == [
        "training is expected to take 2.5 minutes in all, and less if it ends early"
    ]


def test_compiling_is_told_once_and_timed():
    told = []
    before = compiling.seconds()
    compiling.tell(lambda: told.append("now"))

    @numba.njit
    def double(x: float) -> float:
        return 2 * x

    assert (double(2.0), double(3)) == (4.0, 6)  # two kinds of numbers: compiled twice
    assert told == ["now"]
    took = compiling.seconds() - before
    assert took > 0
    assert double(4.0) == 8.0
    assert compiling.seconds() - before == took
