"""``python -m l2q inspect``: figures of a table that hold against plain counting, on a terminal and as a page."""

import html
import json
import re
import shutil
import subprocess
from collections import Counter

import numpy as np
import pytest

import l2q
from l2q.cli import main
from l2q.data.inspection import inspect

ROWS = [(f"u{u}", f"i{(3 * u + step) % 17}", 1 + (u + step) % 5, 10**9 + 86_400 * (7 * u + step)) for u in range(40)
        for step in range(2 + u % 9)]  # fmt: skip


FRAME = """<meta charset="utf-8"><iframe id="f" style="width:WIDTHpx;height:9000px;border:0" srcdoc="PAGE"></iframe>
<pre id="found"></pre><script>document.getElementById("f").addEventListener("load", event => {
  const inside = event.target.contentWindow, root = inside.document.documentElement;
  const found = [root.clientWidth, root.scrollWidth, inside.performance.getEntriesByType("resource").length];
  document.getElementById("found").textContent = JSON.stringify(found);
});</script>"""


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in ROWS))
    return path


def test_figures_are_those_of_plain_counting(ratings):
    found = inspect(str(ratings), {})
    assert found.reading is not None
    assert (found.rows, found.refusal) == (len(ROWS), "")
    for side, degrees in ((0, found.users), (1, found.items)):
        counts = np.sort(list(Counter(row[side] for row in ROWS).values()))[::-1]
        assert degrees.count == len(counts)
        assert degrees.mean == pytest.approx(counts.mean(), abs=1e-12)
        assert (degrees.quantiles[0], degrees.quantiles[-1]) == (counts[-1], counts[0])
        assert degrees.ones == sum(count == 1 for count in counts)
        assert degrees.few == sum(count < 5 for count in counts)
        half = next(n for n in range(len(counts) + 1) if counts[:n].sum() >= counts.sum() / 2)
        assert degrees.half == half
    events = l2q.read_events(ratings)
    for each in found.splits:
        train, test = l2q.split(events, each.name, fraction=0.2, seed=0)
        assert (each.train, each.test) == (len(train), len(test))
    assert {each.name for each in found.splits} == {"time", "last", "random"}


def test_a_terminal_shows_all_of_it_within_its_width(ratings, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["inspect", str(ratings)]) == 0
    shown = capsys.readouterr().out
    for title in (
        "Columns",
        "Pairs",
        "Users and items",
        "Time",
        "What a split leaves",
        "Values",
        "Options to think of",
    ):
        assert f"\n{title}\n" in shown
    assert all(len(line) <= 80 or str(ratings) in line for line in shown.splitlines())
    assert f"python train.py model=l2q_plus dataset=table dataset.dir={ratings}" in "".join(shown.split("\n"))


def test_a_refused_table_is_shown_with_what_it_was_refused_for(tmp_path, capsys):
    path = tmp_path / "clicks.csv"
    path.write_text(
        "user,item,label\n" + "".join(f"{user},{item},{int(value > 3)}\n" for user, item, value, _ in ROWS)
    )
    assert main(["inspect", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "label" in shown
    assert "Refused as it is:" in shown
    assert "--value=none" in shown  # as this command has the option
    assert main(["inspect", str(path), "--where", "label = 1"]) == 0
    assert "Refused as it is:" not in capsys.readouterr().out


def test_what_is_no_table_is_one_line(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "absent.csv")]) == 2
    assert capsys.readouterr().err.startswith(f"error: cannot read {tmp_path / 'absent.csv'}")


def test_json_has_the_same_figures(ratings, capsys):
    assert main(["inspect", str(ratings), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == len(ROWS)
    assert found["users"]["count"] == 40


def test_a_page_fits_a_browser_and_fetches_nothing(ratings, tmp_path, capsys):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium absent; apt-get install chromium")
    page = tmp_path / "inspection.html"
    assert main(["inspect", str(ratings), "--html", str(page)]) == 0
    assert f"{page}: the inspection as a page" in capsys.readouterr().err
    text = page.read_text("utf-8")
    assert text.count("<svg") >= 4
    for width in (1280, 390):
        look = FRAME.replace("WIDTH", str(width)).replace("PAGE", html.escape(text))
        (tmp_path / "frame.html").write_text(look, "utf-8")
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=4000",
            "--dump-dom",
        ]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={max(width, 500)},1000"]
        command = [browser, *flags, (tmp_path / "frame.html").as_uri()]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r'<pre id="found">(.*?)</pre>', printed)
        assert found
        assert json.loads(found[1]) == [
            width,
            width,
            0,
        ]  # as wide as the window, wholly within it, nothing fetched
