"""Progress: lines where the output is no terminal, bars where it is, on stdout or beside a command's results."""

import io
import re
import time

import pytest
from rich.console import Console

from l2q.progress import Bars, progress_bars, span


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 seconds"), (59.4, "59 seconds"), (60, "1.0 minutes"), (750, "12.5 minutes")]
)
def test_span(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize("stderr", [False, True])
def test_without_a_terminal_there_is_a_line_for_every_label_at_the_end(clock, capsys, stderr):
    with progress_bars(stderr=stderr) as report:
        for done in range(1, 4):
            clock[0] += 2
            report(done, 3, "lists")
        for done in (500, 1000):
            clock[0] += 7
            report(done, 1000, "rounds")
        assert "".join(capsys.readouterr()) == ""
    shown = capsys.readouterr()
    # what came before the first call of a label belongs to it
    assert (
        shown.err if stderr else shown.out
    ) == "lists: 3 of 3 in 6 seconds\nrounds: 1,000 of 1,000 in 14 seconds\n"
    assert (shown.out if stderr else shown.err) == ""


def test_without_a_terminal_there_is_a_line_every_half_minute(clock, capsys):
    said = []
    with progress_bars() as report:
        for done in range(1, 11):
            clock[0] += 10
            report(done, 10, "rounds")
            said.append(capsys.readouterr().out)
    lines = [re.sub(r", \d+ seconds left", "", line) for line in said if line]
    assert lines == ["rounds: 4 of 10\n", "rounds: 8 of 10\n"]  # more than 30 seconds after the last
    assert [bool(line) for line in said].index(True) == 3


def test_nothing_is_claimed_where_the_work_failed(capsys):
    def fails() -> None:
        with progress_bars() as report:
            report(1, 2, "rounds")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fails()
    assert capsys.readouterr().out == ""


def terminal(monkeypatch) -> io.StringIO:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("rich.get_console", lambda: console)
    return screen


def text(screen: io.StringIO) -> str:
    """What was drawn, without colors and moves of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())


def test_a_terminal_has_a_bar_with_the_time_left_and_no_lines(clock, monkeypatch):
    screen = terminal(monkeypatch)
    with progress_bars() as report:
        for done in range(1, 4):
            clock[0] += 100
            report(done, 4, "rounds")
        report(4, 4, "rounds")
    drawn = text(screen)
    assert re.search(r"rounds ━+ 4/4 0:00:0\d left", drawn)
    assert " of 4" not in drawn


def test_bars_count_units_show_values_and_leave_room_for_lines(monkeypatch):
    screen = terminal(monkeypatch)
    bars = Bars("epochs")
    assert bars.shown
    bars.start()
    bars.update("training", 0.5, 2)
    assert bars.left("training") is None  # nobody can tell yet
    bars.update("training", 2, 2, "loss 0.5000")
    bars.print("expects to take 3 seconds")
    assert bars.left("training") == 0
    bars.stop()
    bars.stop()
    drawn = text(screen)
    assert re.search(r"training ━+ 2/2 epochs 0:00:0\d left .*loss 0\.5000", drawn)
    assert "\rexpects to take 3 seconds\n" in drawn  # in the place of the bar, which is drawn again below
