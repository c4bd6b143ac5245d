"""The report as a page: whole, on its own, and as a browser shows it."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from made_runs import make_run, make_sweep, make_unfinished
from runs import EVERY_EPOCH, SMALL, run, table

from l2q.cli import main
from l2q.report import Measure, gather
from l2q.report.measures import USUAL
from l2q.report.page import page
from l2q.report.rows import MODELS

ROOT = Path(__file__).parents[1]
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
DEMO = "a name of a job that is <b>long</b> & odd, with_no_place_to_break_it_for_a_phone_of_390_pixels=1"


class Parsed(HTMLParser):
    """Holds that every element is closed where it must be, and collects what the page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.counts: dict[str, int] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, attrs)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "srcset", "action", "data", "poster"):
                self.targets.append(value or "")
            self.targets += re.findall(r"url\(([^)]*)\)", value or "") if name != "content" else []


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four models with two seeds, two options of which are swept, and jobs that are not done."""
    folder = make_sweep(tmp_path_factory.mktemp("page") / "runs", seeds=2)
    for seed in range(2):
        for rate in ("0.003", "0.01", "0.1"):
            make_run(
                folder / f"{rate}{seed}", "l2q_plus", seed, f"learning_rate={rate}", recall=0.3 + seed / 50
            )
        for curve in ("linear", "cosine"):
            make_run(folder / f"{curve}{seed}", "l2q_anl", seed, f"annealing={curve}", recall=0.4 + seed / 50)
    make_unfinished(folder / DEMO, "failed", reason="nan < 0 & <script>alert(1)</script> " * 4)
    make_unfinished(folder / "other", "running", process=1, host="another")
    return folder


@pytest.fixture(scope="module")
def written(sweep: Path) -> Path:
    report = gather([sweep], diff=(str(sweep / "linear0"), str(sweep / "0.010")))
    return Path(*report.write(html=str(sweep.parent / "report.html")))


def test_the_page_is_whole_and_needs_nothing_else(written):
    text = written.read_text("utf-8")
    parsed = Parsed(text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert parsed.targets
    assert [target for target in parsed.targets if not target.startswith("#")] == []
    assert {target[1:] for target in parsed.targets} <= set(parsed.ids)
    assert not re.search(r"https?:|//\w+\.\w+|@import|<link|<iframe|\bfetch\(|XMLHttpRequest", text)
    assert written.stat().st_size < 3_000_000


def test_the_page_has_every_part(written):
    text = written.read_text("utf-8")
    parsed = Parsed(text)
    # quality against bits is none (all have 256); validation, loss, annealing; two forests; two swept options
    assert parsed.counts["svg"] == parsed.counts["figure"] == 7
    assert parsed.counts["script"] == parsed.counts["style"] == 1
    for said in (
        "Best run",
        "user by user",
        "Swept options",
        "Not done",
        "Difference of two runs",
        "Every run",
    ):
        assert said in text
    words = html.unescape(re.sub(r"<(?!!)[^>]*>", "", text))
    assert "python train.py model=l2q_anl seed=1" in words
    assert "nan < 0 & <script>alert(1)</script>" in words  # as text: there is one script
    assert "<b>12</b>" not in text
    assert re.search(r'class="done"><b>18</b> done', text)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0[adf]0[bef][0-9a-f]{2}", text)  # the drawings have the page's colors


def test_two_pages_of_the_same_runs_are_the_same(sweep):
    assert page(gather([sweep])) == page(gather([sweep]))


def test_a_large_sweep_gives_a_small_page(tmp_path):
    """700 runs of 2,000 epochs each."""
    first = make_run(tmp_path / "runs" / "0", "l2q_anl", 0)
    values = json.loads((first / "metrics.json").read_text())
    rows = "".join(f"{epoch},{1 / epoch},{1 - 1 / epoch},{epoch / 2000}\n" for epoch in range(1, 2001))
    for number in range(1, 700):
        folder = tmp_path / "runs" / f"{number}"
        folder.mkdir()
        words = f"python train.py model=l2q_anl seed={number % 3} learning_rate={number // 3}"
        (folder / "metrics.json").write_text(json.dumps(values | {"seed": number % 3, "command": words}))
        if number < 30:
            (folder / "history.csv").write_text("epoch,train/loss,val/recall_20,anneal/strength\n" + rows)
    text = page(gather([tmp_path / "runs"]))
    Parsed(text)
    assert len(text) < 3_000_000
    assert "200 more: --csv has every one." in text


@pytest.mark.parametrize("folder", ["outputs/results", "outputs/ablations/debian_l2q_anl"])
def test_stored_runs_have_a_page(folder, tmp_path):
    assert main(["report", str(ROOT / folder), "--html", str(tmp_path / "page.html")]) == 0
    text = (tmp_path / "page.html").read_text("utf-8")
    Parsed(text)
    assert "http" not in text
    assert len(text) < 3_000_000


@pytest.mark.slow
def test_fresh_runs_of_all_models_have_a_report(tmp_path):
    """What runs really leave is what the report reads: every measure, user, epoch and option."""
    words = [*table(tmp_path / "events.csv"), "protocol=holdout"]
    small = {model: [*SMALL, EVERY_EPOCH] for model in ("lightgcn", "last_layer", "l2q", "l2q_anl")}
    small |= {"popularity": [], "spectral": ["model.dim=8"]}
    small |= {"l2q_plus": ["model.bits=16", "model.filter={rank:8}", "model.embeddings.weight=0"]}
    for model, options in small.items():
        for seed in range(3):
            said = [f"model={model}", f"seed={seed}", *options]
            run(
                tmp_path / "runs" / f"{model}{seed}",
                *words,
                *said,
                command=f"python train.py {' '.join(said)}",
            )
    measures = [Measure.of("ndcg@5"), Measure.of("coverage@11")]
    for report in (gather([tmp_path / "runs"]), gather([tmp_path / "runs"], measures, "l2q")):
        (found,) = report.findings
        assert [row.model for row in found.block.rows if row.model != "teacher"] == sorted(
            small, key=MODELS.index
        )
        assert {len(row.runs) for row in found.block.rows} == {3}
        assert len(report.runs) == 21
        text = page(report)
        Parsed(text)
        assert "validation" in text
        assert len(text) < 3_000_000
    compared = gather([tmp_path / "runs"]).findings[0].comparisons
    assert len(compared) == 12
    assert {each.seeds for each in compared} == {(3, 3)}
    for each in compared:  # the users' means are those of the exported files
        base = gather([tmp_path / "runs"]).findings[0].base
        assert base is not None
        means = [row.means[USUAL.index(each.measure)] for row in (each.row, base)]
        assert each.paired.difference == pytest.approx(means[0] - means[1], abs=1e-6)


# a page in a browser

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
FLAGS += ["--virtual-time-budget=4000", "--host-resolver-rules=MAP * ~NOTFOUND"]  # nobody is reached
# the page in a frame of a width, then what a reader's clicks and a look at its measures find
FRAME = """<!DOCTYPE html><meta charset="utf-8"><iframe id="f" style="width:%dpx;height:900px;border:0" srcdoc="%s">
</iframe><pre id="found"></pre><script>
document.getElementById("f").addEventListener("load", event => {
  const inside = event.target.contentWindow, page = inside.document, root = page.documentElement;
  page.querySelectorAll("details").forEach(details => details.open = true);
  const over = [...page.body.querySelectorAll("*")].filter(node => !node.closest(".table, svg")
    && (node.getBoundingClientRect().right > root.clientWidth + 1 || node.scrollWidth > node.clientWidth + 1
    && getComputedStyle(node).display !== "inline")).map(node => node.tagName + "." + node.className);
  const table = page.querySelector("table.sortable"), found = {};
  const column = number => [...table.tBodies[0].rows].map(row => row.cells[number].textContent);
  found.before = column(0);
  for (const number of [2, 0]) for (const click of [1, 2]) {
    table.tHead.rows[0].cells[number].querySelector("button").click();
    found[`${number} ${click}`] = column(number);
  }
  found.sorted = table.tHead.rows[0].cells[0].getAttribute("aria-sort");
  found.width = root.clientWidth; found.content = root.scrollWidth; found.over = over;
  found.text = Math.min(...[...page.querySelectorAll("svg text")].map(node => node.getBoundingClientRect().height));
  found.ink = getComputedStyle(page.body).color; found.paper = getComputedStyle(page.body).backgroundColor;
  found.line = getComputedStyle(page.querySelector("svg path[style*=stroke]")).stroke;
  found.fetched = inside.performance.getEntriesByType("resource").map(entry => entry.name);
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """A path of Chromium; ``.ci/run`` installs it."""
    for name in ("chromium", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("chromium absent; apt-get install chromium")


def opened(browser: str, page: Path, profile: Path, *more: str) -> str:
    """What Chromium prints of a file."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", *more, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def seen(browser: str, text: str, folder: Path, width: int, *more: str) -> dict[str, Any]:
    """What ``FRAME`` finds in a page of ``width`` pixels."""
    (folder / "frame.html").write_text(FRAME % (width, html.escape(text)), "utf-8")
    words = ["--dump-dom", f"--window-size={max(width, 500)},1000", *more]
    printed = opened(browser, folder / "frame.html", folder / f"profile{width}", *words)
    found = re.search(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
    assert found, printed[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_within_its_width(browser, written, tmp_path, width):
    found = seen(browser, written.read_text("utf-8"), tmp_path, width)
    assert found["width"] == found["content"] == width
    assert found["over"] == []
    assert found["text"] >= 8  # pixels of the smallest text in a drawing
    assert found["fetched"] == []


def test_a_click_on_a_head_sorts_by_value(browser, written, tmp_path):
    found = seen(browser, written.read_text("utf-8"), tmp_path, 1280)
    values = [float(text.split(" ")[0]) for text in found["2 1"]]
    assert values == sorted(values, reverse=True)  # of numbers the largest first
    assert found["2 2"] == found["2 1"][::-1] or sorted(values) == [
        float(t.split(" ")[0]) for t in found["2 2"]
    ]
    assert found["0 1"] == sorted(found["before"])
    assert found["0 2"] == found["0 1"][::-1]
    assert found["sorted"] == "descending"


def test_dark_and_light_are_told_apart(browser, written, tmp_path):
    looks = [
        seen(
            browser,
            written.read_text("utf-8"),
            tmp_path,
            width,
            f"--blink-settings=preferredColorScheme={scheme}",
        )
        for width, scheme in ((800, 0), (810, 1))
    ]

    def brightness(color: str) -> float:
        return sum(map(int, re.findall(r"\d+", color)[:3])) / 3

    dark, light = looks
    assert brightness(dark["paper"]) < 60 < 180 < brightness(dark["ink"])
    assert brightness(light["ink"]) < 60 < 180 < brightness(light["paper"])
    assert dark["line"] != light["line"]  # drawings too


def test_what_a_page_would_fetch_or_let_run_over_is_found(browser, written, tmp_path):
    """The two checks above can fail."""
    more = '<img src="https://example.org/x.png" alt=""><div style="width:3000px">wide</div></body>'
    found = seen(browser, written.read_text("utf-8").replace("</body>", more), tmp_path, 390)
    assert found["fetched"] == ["https://example.org/x.png"]
    assert found["content"] == 3000 + 16  # and the padding of the page
    assert "DIV." in found["over"]


@pytest.mark.parametrize("size", [(1280, 1600), (500, 1600)])
def test_a_picture_of_the_page_shows_something(browser, written, tmp_path, size):
    picture = tmp_path / "page.png"
    opened(
        browser,
        written,
        tmp_path / "profile",
        f"--screenshot={picture}",
        f"--window-size={size[0]},{size[1]}",
    )
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (size[1], size[0])
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    blank = (pixels == pixels[0, 0]).all(axis=(1, 2))  # lines of the picture with nothing on them
    assert 0.1 < blank.mean() < 0.9
