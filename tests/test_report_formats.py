"""A report as Markdown, LaTeX, CSV, pandas, and on a terminal; swept options; the difference of two runs."""

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from made_runs import make_run, make_sweep, make_unfinished
from rich.console import Console

from l2q.cli import main
from l2q.report import formats, gather
from l2q.report.formats import latex, latex_text, plain
from l2q.report.tables import Column, Table

REASON = [f"word{number}" for number in range(40)]


def shown(table: Table, width: int) -> str:
    file = io.StringIO()
    formats.show(table, Console(file=file, width=width, markup=False))
    return file.getvalue()


def test_a_terminal_of_80_columns_has_every_line_whole(tmp_path):
    make_sweep(tmp_path / "runs")
    make_unfinished(
        tmp_path / "runs" / "a" / "long" / "folder_name_of_a_job-5f3a1c2b", "failed", reason=" ".join(REASON)
    )
    for rate in ("0.1", "0.2"):
        make_run(
            tmp_path / "runs" / rate,
            "l2q_plus",
            0,
            f"learning_rate={rate}",
            "model.embeddings.temperature=0.15",
        )
    report = gather([tmp_path / "runs"])
    for table in report.all:
        lines = shown(table, 80).splitlines()
        assert max(map(len, lines)) <= 80
        assert "…" not in "".join(lines)
    said = "".join(shown(report.waiting[0], 80).split())
    assert all(word in said for word in REASON)  # nothing is cut
    text = shown(report.findings[0].results, 80)
    assert "lightgcn" in text
    assert "0.5100 ± 0.0100" in text
    assert "Not shown for want of width: " in text
    wide = shown(report.findings[0].results, 200)
    assert "100.0% / 100.0%" in wide
    assert "100.0%" not in text
    assert "Not shown" not in wide


@pytest.mark.parametrize("width", range(60, 100, 3))
def test_no_word_of_a_long_cell_is_lost(width):
    rows = [
        ["`model=l2q_anl,seed=5-5f3a1c2b`" * 2, "interrupted", "6 of 6", f"a time limit of {n} s"]
        for n in range(30)
    ]
    columns = [
        Column("job", right=False),
        Column("state", right=False),
        Column("epoch"),
        Column("why", right=False),
    ]
    text = "".join(shown(Table("", columns, rows), width).split())
    for row in rows:
        for word in row[3].split():
            assert word in text
    assert text.count("time") == text.count("limit") == 30


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_has_fewer_columns_and_names_in_lines(width, tmp_path):
    for rate in ("0.001", "0.01"):
        make_run(tmp_path / rate, "l2q_plus", 0, f"learning_rate={rate}", "model.embeddings.temperature=0.15")
        make_run(
            tmp_path / f"{rate}1", "l2q_plus", 1, f"learning_rate={rate}", "model.embeddings.temperature=0.15"
        )
    text = shown(gather([tmp_path]).findings[0].results, width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("0.3000 ± 0.0000") == 2
    assert "learning_rate" in "".join(text.split())


def test_labels_are_broken_where_values_are_short():
    table = Table("", [Column("model", right=False), Column("bits per item")], [["a", "32"], ["b", "8,192"]])
    assert [line.split() for line in shown(table, 80).splitlines()[:2]] == [
        ["bits", "per"],
        ["model", "item"],
    ]


def test_names_are_no_markup_of_the_terminal():
    assert "[/i] :smile: x|y" in shown(Table("", [Column("a", right=False)], [["`[/i]` :smile: x|y"]]), 80)


def test_the_command_prints_tables_on_a_terminal(tmp_path):
    make_sweep(tmp_path / "runs")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm"}
    command = [sys.executable, "-m", "l2q", "report", str(tmp_path / "runs")]
    done = subprocess.Popen(command, stdout=theirs, env=environment)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert done.wait() == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", b"".join(parts).decode()).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "| model |" not in text
    assert "Recall@20 against lightgcn" in text
    assert "python train.py model=l2q_anl seed=2" in text


def test_markdown_has_all_tables_and_a_pipe_those_of_results(tmp_path, capsys):
    make_sweep(tmp_path / "runs")
    assert main(["report", str(tmp_path / "runs"), "--markdown", str(tmp_path / "all.md")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "all.md").read_text()
    assert printed.strip() in page
    assert "against `lightgcn`" not in printed
    assert re.search(r"^\| `l2q` \| 256 \| -0\.0\d{3} \| -0\.1\d{3} to -0\.\d{4} \|", page, re.MULTILINE)
    assert "| command | `python train.py model=l2q_anl seed=2` |" in page


SIGNS = r"50% of a_b & c#1 $x ~ ^ {y} \z <q> |"


def test_latex_takes_every_sign_as_it_is():
    assert latex_text("a_b & 50% ± `x_y` **z**") == r"a\_b \& 50\% $\pm$ \texttt{x\_y} \textbf{z}"
    assert latex_text(SIGNS) == (
        r"50\% of a\_b \& c\#1 \$x \textasciitilde{} \textasciicircum{} \{y\} \textbackslash{}z "
        r"\textless{}q\textgreater{} \textbar{}"
    )


def test_latex_is_balanced_and_every_row_has_every_column(tmp_path):
    make_sweep(tmp_path / "runs")
    make_run(tmp_path / "runs" / "odd", "l2q_plus", 0, "name=[50%_&#]")
    make_unfinished(tmp_path / "runs" / "x_y", "failed", reason=SIGNS)
    text = latex(gather([tmp_path / "runs"]).all)
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)  # what is escaped
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert "#" not in bare
    assert not re.search(r"[_~^]", bare)
    begun = re.findall(r"\\begin\{(\w+)\}", text)
    assert sorted(begun) == sorted(re.findall(r"\\end\{(\w+)\}", text))
    assert begun[:2] == ["table", "tabular"]
    assert len(begun) == 2 * len(gather([tmp_path / "runs"]).all)
    for kinds, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(kinds)}
    assert r"\textbf{0.5200 $\pm$ 0.0100}" in text  # the best


def test_csv_gives_every_figure_back(tmp_path):
    import pandas as pd

    make_sweep(tmp_path / "runs", seeds=2)
    make_run(
        tmp_path / "runs" / "rate", "l2q", 7, "learning_rate=0.003", "'model.filter={rank:8}'", recall=1 / 3
    )
    make_unfinished(tmp_path / "runs" / "x", "failed", reason='it said "no", then ended')
    assert main(["report", str(tmp_path / "runs"), "--csv", str(tmp_path / "jobs.csv")]) == 0
    found = pd.read_csv(tmp_path / "jobs.csv").set_index("folder")
    assert len(found) == 10
    for path in (tmp_path / "runs").rglob("metrics.json"):
        row, values = found.loc[str(path.parent)], json.loads(path.read_text())
        assert row["state"] == "done"
        for key in ("model", "seed", "test/packed/recall_20", "val/ndcg_20", "item_bytes", "command"):
            assert row[key] == values[key]
    assert found.loc[
        str(tmp_path / "runs" / "rate"), ["option/learning_rate", "option/model.filter.rank"]
    ].tolist() == [
        0.003,
        8,
    ]
    failed = found.loc[str(tmp_path / "runs" / "x")]
    assert (failed["state"], failed["reason"]) == ("failed", 'it said "no", then ended')


def test_without_pandas_the_csv_alone_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pandas", None)
    make_run(tmp_path / "runs" / "a")
    assert main(["report", str(tmp_path / "runs"), "--html", str(tmp_path / "page.html")]) == 0
    assert main(["report", str(tmp_path / "runs"), "--csv", str(tmp_path / "jobs.csv")]) == 2
    assert "needs pandas: pip install -e '.[report]'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_named(tmp_path, capsys):
    make_run(tmp_path / "runs" / "a")
    for kind in ("csv", "latex", "markdown", "html"):
        assert main(["report", str(tmp_path / "runs"), f"--{kind}", str(tmp_path / "no" / "file")]) == 2
        assert (
            f"--{kind} {tmp_path / 'no' / 'file'} cannot be written: No such file" in capsys.readouterr().err
        )


def test_a_measure_against_a_swept_option(tmp_path):
    """Seeds are averaged, other options keep lines apart, and one value in two writings is one."""
    for model, rate, recall in (
        ("l2q", "1e-2", 0.2),
        ("l2q", "0.1", 0.3),
        ("l2q_anl", "0.01", 0.4),
        ("l2q_anl", "0.1", 0.5),
    ):
        for seed in range(2):
            words = [f"learning_rate={rate}", "epochs=3"]
            make_run(tmp_path / f"{model}{rate}{seed}", model, seed, *words, recall=recall + seed / 50)
    (found,) = gather([tmp_path]).findings
    (each,) = found.swept
    assert (each.option, each.values, each.numeric) == ("learning_rate", ["0.01", "0.1"], True)
    (table,) = found.sweeps
    assert [column.label for column in table.columns] == ["`learning_rate`", "`l2q`", "`l2q_anl`"]
    assert table.rows == [
        ["`0.01`", "0.2100 ± 0.0141", "0.4100 ± 0.0141"],
        ["`0.1`", "0.3100 ± 0.0141", "0.5100 ± 0.0141"],
    ]


def test_what_a_command_leaves_out_is_taken_from_the_configuration(tmp_path):
    for number, words in enumerate(([], ["annealing=cosine"], ["annealing=none"])):
        make_run(tmp_path / f"{number}", "l2q_anl", 0, *words, config={"annealing": "linear"})
    (each,) = gather([tmp_path]).findings[0].swept
    assert each.values == ["cosine", "linear", "none"]
    (tmp_path / "0" / "config.json").unlink()
    (each,) = gather([tmp_path]).findings[0].swept
    assert each.values == ["(default)", "cosine", "none"]


def test_an_option_of_a_single_change_is_not_swept(tmp_path):
    for number, words in enumerate(([], ["epochs=3"], ["learning_rate=0.1"])):
        make_run(tmp_path / f"{number}", "l2q", 0, *words)
    assert gather([tmp_path]).findings[0].swept == []


def test_the_difference_of_two_runs(tmp_path, capsys):
    first = make_run(
        tmp_path / "first", "l2q", 0, config={"model": {"name": "l2q", "scale": True}, "lr": 0.1}
    )
    second = make_run(tmp_path / "second", "l2q_anl", 0, config={"model": {"name": "l2q_anl"}, "lr": 0.1})
    assert main(["report", "--diff", str(first), str(second)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Difference of two runs",
        "",
        "| option | `first` | `second` |",
        "|---|---|---|",
        "| `model.name` | l2q | l2q_anl |",
        "| `model.scale` | true | (absent) |",
        "| Recall@20, validation | 0.3900 | 0.5000 |",
        "| NDCG@20, validation | 0.1333 | 0.1700 |",
        "| Recall@20, test | 0.4000 | 0.5100 |",
        "| NDCG@20, test | 0.2000 | 0.2550 |",
        "",
        "2 options differ.",
    ]
    assert main(["report", "--diff", str(first), str(tmp_path)]) == 2
    assert f"--diff {tmp_path}: it holds no config.json" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--diff", str(first), str(first)]) == 0
    assert "The configurations are the same." in capsys.readouterr().out


def test_an_unfinished_run_has_a_difference_too(tmp_path, capsys):
    first, second = make_run(tmp_path / "a"), make_unfinished(tmp_path / "b")
    (second / "config.json").write_text(json.dumps({"seed": 4}))
    assert main(["report", "--diff", str(first), str(second)]) == 0
    assert "| `seed` | 0 | 4 |" in capsys.readouterr().out
    long = make_run(tmp_path / "a_folder_with_every_swept_option=1", "l2q", 3)
    assert main(["report", "--diff", str(first), str(long)]) == 0
    out = capsys.readouterr().out
    assert "| option | `first` | `second` |" in out
    assert out.endswith(f"1 option differs. first: `{first}`, second: `{long}`\n")


def test_what_the_page_on_reports_says_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "report.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    first = make_sweep(tmp_path / "outputs" / "sweeps" / "first")
    make_run(first / "rate", "l2q_anl", 0, "learning_rate=0.01")
    for name in ("RUN", "OTHER"):
        make_run(tmp_path / name, "l2q", 0)
    lines = [line for line in page.splitlines() if line.startswith("python -m l2q report")]
    assert len(lines) == 10
    for line in lines:
        assert main(shlex.split(line)[3:]) == 0, line
    for name in ("report.html", "jobs.csv", "tables.tex", "tables.md", "bits.png"):
        assert (tmp_path / name).stat().st_size
    capsys.readouterr()
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    assert re.search(r"^lightgcn +0\.51\d* +0\.01\d*$", capsys.readouterr().out, re.MULTILINE)


def test_marks_are_no_text():
    assert plain("**toy**, protocol `final`: `a*b`") == "toy, protocol final: a*b"


def test_the_stored_results_are_printed_as_their_page_has_them(capsys):
    root = Path(__file__).parents[1]
    assert main(["report", str(root / "outputs" / "results")]) == 0
    page = (root / "docs" / "results" / "tables.md").read_text("utf-8")
    held = page.partition("<!-- results -->\n")[2].partition("<!-- end of results -->")[0]
    assert capsys.readouterr().out.strip() == held.strip()


def test_files_are_said_beside_the_tables_with_their_place(tmp_path, capsys):
    make_sweep(tmp_path / "runs", seeds=1)
    words = [word for kind in ("html", "csv", "latex", "markdown", "figure")
             for word in (f"--{kind}", str(tmp_path / f"x.{'png' if kind == 'figure' else kind}"))]  # fmt: skip
    assert main(["report", str(tmp_path / "runs"), *words]) == 0
    printed = capsys.readouterr()
    assert str(tmp_path / "x.html") not in printed.out
    lines = printed.err.splitlines()
    for kind, said in (
        ("html", "the report as a page"),
        ("csv", "a line for each job"),
        ("png", "quality against"),
    ):
        (line,) = [line for line in lines if line.startswith(f"{tmp_path}/x.{kind}: {said}")]
        assert re.search(r", [\d.]+ [kM]B$", line)
    assert len(lines) == 5


def test_a_reader_that_leaves_is_no_error(tmp_path):
    make_sweep(tmp_path / "runs", seeds=1)
    command = [sys.executable, "-m", "l2q", "report", str(tmp_path / "runs")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait() == 141  # 128 + SIGPIPE


def test_a_long_name_is_broken_behind_commas_and_slashes():
    name = "outputs/sweeps/tune/learning_rate=0.04912,model.transform=rotation,annealing.end=0.9749-238b6629"
    columns = [Column("", right=False), Column("", right=False)]
    lines = shown(
        Table("", columns, [["Recall@20, validation", "0.5"], ["folder", f"`{name}`"]]), 80
    ).splitlines()
    assert [line[23:].strip() for line in lines if "=" in line] == [
        "outputs/sweeps/tune/learning_rate=0.04912,",
        "model.transform=rotation,annealing.end=0.9749-238b6629",
    ]
