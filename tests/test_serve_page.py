"""The page of the service: what it says, that names are text, and how a browser shows it."""

import html
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import HTMLResponse
from served import over_a_socket, request
from test_named import codes, floats, interactions
from test_report_page import FLAGS, Parsed
from test_report_page import browser as browser

from l2q.interactions import name_array
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index
from l2q.serving.app import application
from l2q.serving.shelf import Shelf

ODD = '<script>alert("1")</script> & a name of an item that is long, with_no_place_to_break_it_for_a_phone_at_all'


def made(kind: str) -> Index:
    train = interactions()
    users = name_array([f"name {row}" for row in range(train.num_users)])
    items = name_array([ODD, *(f"name {row}" for row in range(1, train.num_items))])
    rows = codes() if kind == "bits" else floats()
    metrics = {
        "val/recall_20": 0.9,
        "test/recall_20": 0.25 if kind == "bits" else 0.5,
        "test/packed/recall_20": 0.3,
    }
    return Index.of(rows, replace(train, user_names=users, item_names=items), dataset="made", metrics=metrics)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    above = tmp_path_factory.mktemp("page")
    return {kind: made(kind).save(above / kind / "index") for kind in ("bits", "floats")}


@pytest.fixture(scope="module")
def app(folders) -> Any:
    return application(Shelf([str(folder) for folder in folders.values()]))


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a page's tables, as text."""
    cut = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL)
    ]
    return [[" ".join(html.unescape(re.sub(r"<[^>]*>", " ", cell)).split()) for cell in row] for row in cut]


def test_both_indexes_are_shown_with_what_differs(app, folders):
    answered = request(app, "GET", "/", params={"name": "name 7", "k": 10})
    assert answered.status_code == 200
    Parsed(answered.text)
    shown = [row for row in rows(answered.text) if len(row) == 4 and row[0].isdigit()]
    indexes = [load_index(folder) for folder in folders.values()]
    for at, method in ((0, "recommend"), (20, "similar")):  # a name of a user and of an item
        lists = [getattr(index, method)("name 7", 10).items for index in indexes]
        for place, (items, other) in enumerate([lists, lists[::-1]]):
            for row, item in enumerate(items):
                said = shown[at + 10 * place + row]
                there = other.index(item) + 1 if item in other else None
                mark = "only here" if there is None else "same" if there == row + 1 else f"#{there}"
                assert (said[0], said[1], said[3]) == (str(row + 1), item, mark)
        assert f"{len(set(lists[0]) & set(lists[1]))} of 10 items are in both lists" in answered.text
    assert ["Recall@20", "0.2500", "0.5000"] in rows(answered.text)
    assert "<b>0.5000</b>" in answered.text  # the better one
    assert "on test" in answered.text


def test_one_index_has_no_marks(folders):
    app = application(Shelf([str(folders["bits"])]))
    text = request(app, "GET", "/", params={"name": "name 7"}).text
    assert "Other list" not in text
    assert "in both lists" not in text
    assert "What the run measured" in text


def test_names_are_text(app):
    answered = request(app, "GET", "/", params={"name": ODD})
    assert answered.status_code == 200
    assert answered.text.count("<script>") == 1  # the page's own
    assert html.escape(ODD, quote=False) in answered.text.replace("&#34;", '"')
    policy = answered.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_a_beginning_leads_to_names(app):
    for asked, status in (("", 200), ("name 99", 404)):
        answered = request(app, "GET", "/", params={"name": asked})
        assert answered.status_code == status
        assert Parsed(answered.text).targets.count("?name=name%207&k=10") <= 2
        assert 'href="?name=name%20' in answered.text


def test_a_user_without_items_and_an_unknown_index_side(tmp_path, folders):
    train = interactions()
    newcomer = Index.of(codes(), train.select(train.users > 0)).save(tmp_path / "newcomer")
    app = application(Shelf([str(newcomer), str(folders["bits"])]))
    text = request(app, "GET", "/", params={"name": "0"}).text
    assert "no train items: the most popular items" in text
    assert "does not know this name" in text


# in a browser

# the page in a frame of a width, from the service itself; then what a reader does there
FRAME = """<!DOCTYPE html><meta charset="utf-8"><iframe id="f" style="width:%dpx;height:900px;border:0"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("f");
frame.addEventListener("load", async () => {
  const inside = frame.contentWindow, page = inside.document, root = page.documentElement, found = {};
  page.querySelectorAll("details").forEach(details => details.open = true);
  found.width = root.clientWidth; found.content = root.scrollWidth;
  found.over = [...page.body.querySelectorAll("*")].filter(node => !node.closest("svg, .scroll, datalist")
    && node.getBoundingClientRect().right > root.clientWidth + 1).map(node => node.tagName + "." + node.className);
  const tables = [...page.querySelectorAll(".columns table")];
  found.columns = new Set(tables.map(node => node.getBoundingClientRect().left)).size;
  found.paper = inside.getComputedStyle(page.body).backgroundColor;
  found.small = [...page.querySelectorAll("input, select, button")].map(node => node.getBoundingClientRect().height);
  const input = page.getElementById("name");
  input.focus();
  input.value = "name 1";
  input.dispatchEvent(new inside.Event("input"));
  for (let n = 0; n < 100 && !page.querySelector("#names option"); n++) await new Promise(go => setTimeout(go, 50));
  found.suggested = [...page.querySelectorAll("#names option")].map(node => node.value + ": " + node.label);
  found.order = [...page.querySelectorAll("a, input, select, button, summary")].every(node => node.tabIndex === 0);
  document.getElementById("found").textContent = JSON.stringify(found);
  document.title = "done";
});
frame.src = "/?name=" + encodeURIComponent("name 7");
</script>"""
HERE = [*FLAGS[:-1], "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


@pytest.mark.parametrize(("width", "columns"), [(1300, 2), (420, 1)])
def test_a_browser_shows_the_page_within_its_width(browser, app, tmp_path, width, columns):
    app.app.add_api_route(f"/frame{width}", lambda: HTMLResponse(FRAME % width))
    with over_a_socket(app) as address:
        command = [
            browser,
            *HERE,
            f"--user-data-dir={tmp_path}",
            "--dump-dom",
            f"--window-size={width + 100},1000",
        ]
        printed = subprocess.run(
            [*command, f"{address}/frame{width}"], check=True, capture_output=True, text=True
        ).stdout
    said = re.search(r'<pre id="found">(.+?)</pre>', printed, re.DOTALL)
    assert said, printed[-2000:]
    found = json.loads(html.unescape(said[1]))
    assert found["width"] == found["content"] == width
    assert found["over"] == []
    assert found["columns"] == columns
    assert found["paper"] == "rgb(255, 255, 255)"  # the policy lets the page's own style through
    assert min(found["small"]) >= 40  # pixels, for fingers
    assert found["suggested"][0] == "name 1: user and item"  # the script too
    assert found["order"]
