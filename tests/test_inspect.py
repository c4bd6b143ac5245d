"""``python -m l2q inspect``: figures of a table that hold against plain counting, on a terminal and as a page."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from runs import composed

import l2q
from l2q.cli import main
from l2q.data.inspection import inspect
from l2q.data.sources import Source
from l2q.report.inspection import _percent

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


def test_the_command_is_one_that_hydra_takes(tmp_path, capsys):
    path = tmp_path / "a table.csv"
    lines = (f"{user},{item},{value - 1}\n" for user, item, value, _ in ROWS)
    path.write_text('user,item,"our ""grade"", in all"\n' + "".join(lines))
    words = [
        "--value",
        "none",
        "--where",
        """"our ""grade"", in all" > 0 and item <> 'it''s'""",
        "--min-events",
        "2",
    ]
    assert main(["inspect", str(path), *words]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("python train.py"))
    settings = composed("logger=none", *shlex.split(line)[2:])
    found = Source(**settings["dataset"]).load()
    expected = l2q.read_events(path, value="none", where=words[3])
    assert len(found.train) + len(found.test) <= len(expected) < len(ROWS)
    assert settings["dataset"]["where"] == words[3]
    assert settings["dataset"]["min_events"] == 2


def test_options_of_a_refusal_settle_it(tmp_path, capsys):
    path = tmp_path / "shop.csv"
    lines = (f"{user if value > 1 else ''},{item},{value - 3}\n" for user, item, value, _ in ROWS)
    path.write_text("customer,article,quantity\n" + "".join(lines))
    assert main(["inspect", str(path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("Try: python train.py")
    settings = composed("logger=none", *shlex.split(last.removeprefix("Try: "))[2:])
    found = Source(**settings["dataset"]).load()
    assert len(found.train) + len(found.test) == sum(value > 3 for *_, value, _ in ROWS)
    refused = inspect(str(path), {})
    assert {each.option: each.value for each in refused.suggestions} == {
        "missing": "drop",
        "where": "quantity > 0",
    }
    assert refused.taken
    assert refused.pairs == sum(value > 1 for *_, value, _ in ROWS)
    assert {column.name: column.missing for column in refused.columns}["customer"] == len(
        ROWS
    ) - refused.pairs
    assert refused.values is not None
    assert dict(zip(refused.values.labels, refused.values.counts, strict=True)) == {
        str(value - 3): count for value, count in Counter(row[2] for row in ROWS).items()
    }


def test_columns_that_cannot_be_told_are_shown_all_the_same(tmp_path, capsys):
    path = tmp_path / "unclear.csv"
    path.write_text("buyer,reader,book\n" + "".join(f"{u},{u}x,{i}\n" for u, i, *_ in ROWS))
    found = inspect(str(path), {})
    assert "user=COLUMN" in found.refusal
    assert [(each.name, each.role, each.distinct) for each in found.columns] == [
        ("buyer", None, 40),
        ("reader", None, 40),
        ("book", None, 17),
    ]
    assert main(["inspect", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--user=COLUMN" in shown
    assert "python train.py" not in shown


def test_drift_and_cold_users_are_counted(tmp_path):
    """Of the last two of twenty pairs one is of a new user and a new item."""
    path = tmp_path / "days.csv"
    rows = [(f"u{n % 3}", f"i{n}" if n < 18 else "i1", f"2020-01-{n + 1:02}") for n in range(20)]
    rows[19] = ("someone", "new", "2020-01-20")
    path.write_text("user,item,day\n" + "".join(",".join(row) + "\n" for row in rows))
    found = inspect(str(path), {"test_fraction": 0.1})
    times = found.times
    assert times is not None
    assert (times.first, times.last, times.step) == ("2020-01-01", "2020-01-20", "day")
    assert (times.late, times.counts) == ("2020-01-19", (1,) * 20)
    assert (times.new_items, times.new_users, times.new_item_pairs) == (0.5, 0.5, 0.5)
    time = next(each for each in found.splits if each.name == "time")
    assert (time.test, time.cold_users, time.cold_items, time.cold_pairs) == (2, 1, 1, 1)


def test_a_split_folder_a_set_and_a_reader_that_leaves(tmp_path):
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "train.txt").write_text("0 0 1\n1 1 2\n")
    (folder / "test.txt").write_text("1 0\n2 3\n")
    found = inspect(str(folder), {})
    (own,) = found.splits
    assert (found.pairs, own.train, own.test, own.cold_users, own.cold_items) == (6, 4, 2, 1, 1)
    assert inspect("debian").pairs == 128_776 + 31_409
    with pytest.raises(l2q.L2QError, match="missing=drop has no effect on debian"):
        inspect("debian", {"missing": "drop"})
    shell = f"{sys.executable} -m l2q inspect debian | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("debian\n141\n", "")


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.1234, "12.3 %"),
        (0.9999, "99.9 %"),
        (0.0053, "0.53 %"),
        (0.00002, "0.002 %"),
    ],
)
def test_shares_are_said_in_few_digits(share, said):
    assert _percent(share) == said


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


def histogram_of(path, form, **options):
    """The histogram of a third column that ``form`` makes of the number of a row, and its values."""
    values = [form(number) for number in range(len(ROWS))]
    rows = (f"{user},{item},{value}\n" for (user, item, *_), value in zip(ROWS, values, strict=True))
    path.write_text("user,item,amount\n" + "".join(rows))
    found = inspect(str(path), {"value": "amount", **options}).values
    assert found is not None
    assert found.name == "amount"
    return dict(zip(found.labels, found.counts, strict=True)), values


@pytest.mark.parametrize(
    ("form", "labels"),
    [
        (
            lambda n: 1 + n % 101,  # steps of ten, whose last has both of its ends
            {f"{low} to {low + 10}": (low, low + 10 + low // 91) for low in range(1, 101, 10)},
        ),
        (
            lambda n: 2 ** (n % 12) + n % 5,
            {"1": (1, 2)} | {f"{2**p:,} to {2 ** (p + 1) - 1:,}": (2**p, 2 ** (p + 1)) for p in range(1, 12)},
        ),
        (
            lambda n: 0.75 * 2 ** (n % 12) + n % 5 / 16,
            {"0 to 1": (0, 1)} | {f"{2**p:,} to {2 ** (p + 1):,}": (2**p, 2 ** (p + 1)) for p in range(11)},
        ),
        (
            lambda n: 100 * (n % 40 - 5),
            {"below 0": (-1000, 0), "0": (0, 1), "1": (1, 2)}
            | {f"{2**p:,} to {2 ** (p + 1) - 1:,}": (2**p, 2 ** (p + 1)) for p in range(1, 12)},
        ),
    ],
    ids=["equal steps", "powers of two", "fractions", "some below 0"],
)  # fmt: skip
def test_a_histogram_counts_every_number_once(tmp_path, form, labels):
    found, values = histogram_of(tmp_path / "amounts.csv", form)
    expected = {label: sum(low <= value < high for value in values) for label, (low, high) in labels.items()}
    assert sum(expected.values()) == len(ROWS)
    assert found == expected


def test_a_histogram_of_many_kinds_has_the_rest_together(tmp_path):
    kinds = [
        "view",
        "cart",
        "buy",
        "wish",
        "share",
        "rate",
        "read",
        "open",
        "save",
        "zoom",
        "scroll",
        "click",
        "play",
        "skip",
    ]
    found, values = histogram_of(tmp_path / "kinds.csv", lambda n: kinds[n % 17 % 14])
    counts = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    assert found == dict(counts[:12]) | {"others": sum(count for _, count in counts[12:])}


def test_what_columns_hold_is_said_in_words(tmp_path):
    path = tmp_path / "shop.jsonl"
    with path.open("w") as file:
        for n, (user, item, value, seconds) in enumerate(ROWS):
            row = {
                "user": user,
                "item": item,
                "rating": value,
                "empty": None,
                "day": f"2020-01-{1 + n % 28:02}",
            }
            row |= {"at": seconds, "price": n / 7, "tags": [n % 3, n % 5, n % 7]}
            row |= {"comment": f"{'a rather long remark of somebody who liked it. ' * 3}{n}"}
            file.write(json.dumps(row) + "\n")
    found = {each.name: each.holds for each in inspect(str(path), {}).columns}
    assert found == {
        "user": "texts",
        "item": "texts",
        "rating": "whole numbers",
        "empty": "nothing",
        "day": "dates",
        "at": "times, as numbers",
        "price": "numbers with fractions",
        "tags": "lists or records",
        "comment": "texts, long",
    }


def test_times_that_are_no_dates_are_counted_in_equal_steps(tmp_path):
    path = tmp_path / "steps.csv"
    rows = (f"{user},{item},{n % 50}\n" for n, (user, item, *_) in enumerate(ROWS))
    path.write_text("user,item,tick\n" + "".join(rows))
    times = inspect(str(path), {"time": "tick"}).times
    assert times is not None
    assert (times.first, times.last, times.step) == ("0", "49", "step")
    assert times.counts == tuple(np.histogram([n % 50 for n in range(len(ROWS))], bins=len(times.counts))[0])
    assert main(["inspect", str(path), "--time", "tick"]) == 0


def test_parts_that_are_split_already_keep_their_times(tmp_path, capsys):
    for part, rows in (("train", ROWS[:200]), ("test", ROWS[200:])):
        lines = (f"{user},{item},{seconds}\n" for user, item, _, seconds in rows)
        (tmp_path / f"{part}.csv").write_text("user,item,timestamp\n" + "".join(lines))
    found = inspect(str(tmp_path), {})
    assert [each.name for each in found.splits] == ["its own"]
    assert found.pairs == len({row[:2] for row in ROWS})
    assert found.times is not None
    assert found.times.first == "2001-09-09 01:46"
    assert main(["inspect", str(tmp_path)]) == 0
    assert "its own" in capsys.readouterr().out
