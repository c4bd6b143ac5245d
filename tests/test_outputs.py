"""Where commands write, and what they say goes: nothing that is read is written over, no device gives way to a file,
and a stream that is closed is no error."""

import os
import subprocess
import sys

import pytest
from made_runs import make_run
from runs import table

from l2q.cli import main
from l2q.errors import L2QError
from l2q.files import check_output, replaced_file


@pytest.fixture
def events(tmp_path):
    table(tmp_path / "events.csv")
    return tmp_path / "events.csv"


@pytest.mark.parametrize("link", [False, True])
def test_a_page_never_replaces_the_table_that_it_is_of(events, link, capsys):
    before, name = events.read_bytes(), events
    if link:
        name = events.with_name("page.csv")
        name.symlink_to(events)
    assert main(["inspect", str(events), "--html", str(name)]) == 2
    said = capsys.readouterr().err
    assert f"--html {name} is there already, and is no earlier output; give another name, with .html" in said
    assert events.read_bytes() == before


@pytest.mark.parametrize("kind", ["csv", "latex", "markdown", "html", "figure"])
@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "train.log"])
def test_a_report_replaces_no_file_of_a_run(tmp_path, kind, name, capsys):
    make_run(tmp_path / "runs" / "a")
    path = tmp_path / "runs" / "a" / name
    if not path.exists():
        path.write_text("of a run")
    before = path.read_bytes()
    assert main(["report", str(tmp_path / "runs"), f"--{kind}", str(path)]) == 2
    assert f"--{kind} {path} is there already, and is no earlier output" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_two_outputs_have_two_files_and_each_may_be_made_again(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a")
    page = str(tmp_path / "report.html")
    for _ in range(2):
        assert main(["report", str(tmp_path / "runs"), "--html", page]) == 0
    assert main(["report", str(tmp_path / "runs"), "--html", page, "--markdown", page]) == 2
    assert f"--markdown {page} is there already" in capsys.readouterr().err


def test_a_figure_has_an_ending(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a")
    assert main(["report", str(tmp_path / "runs"), "--figure", str(tmp_path / "bits")]) == 2
    assert f"give a name with an ending, such as {tmp_path / 'bits'}.png" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_pipe_stays_a_pipe(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe.html")
    with pytest.raises(OSError, match="it is no regular file"), replaced_file(pipe):
        raise AssertionError("nothing may be written")
    assert pipe.is_fifo()
    with pytest.raises(L2QError, match=r"give another name, with \.parquet"):
        check_output(tmp_path, ".parquet")


def test_links_in_a_circle_are_a_line(tmp_path, capsys):
    (circle := tmp_path / "circle").symlink_to(circle)
    (tmp_path / "metrics.json").symlink_to(tmp_path / "metrics.json")
    for words in (
        ["quantize", "--index", str(circle), "--out", str(circle)],
        ["quantize", "--index", str(tmp_path), "--out", str(circle)],
        ["report", str(tmp_path)],
        ["report", "--diff", str(circle), str(circle)],
        ["info", "--index", str(circle)],
        ["convert", str(circle), str(circle), "--to", "recbole"],
        ["inspect", str(circle)],
    ):
        assert main(words) == 2, words
        assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_a_stream_that_is_closed_is_no_error(tmp_path, closed):
    """As ``command >&-`` and a service that is started without them have it."""
    words = [sys.executable, "-m", "l2q", "report", str(tmp_path)]
    make_run(tmp_path / "runs" / "a")
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" ' + " ".join(f"{number}>&-" for number in closed), "sh", *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
