"""Public tables in their published layouts: from the file to a recommendation, by the commands of the page."""

import gzip
import json
import re
import shlex
from pathlib import Path

import pytest
from layouts import amazon_user, asin, iso, made, mbid, sha1
from runs import run

from l2q.cli import main
from l2q.learning import naming

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "public-layouts.md"
COMMANDS = re.findall(r"^python train\.py (.+)$", PAGE.read_text(), re.MULTILINE)
EVENTS = made(users=30, items=40, events=500)


def lines(form, *above):
    return "\n".join([*above, *(form(*event) for event in EVENTS), ""])


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def utc(t):
    return iso(t).replace(" ", "T") + "Z"


def netflix(folder):
    for part in range(4):
        text = ""
        for item in range(10 * part, 10 * part + 10):
            rated = [f"{u + 1000},{v},{iso(t)[:10]}\n" for u, i, v, t in EVENTS if i == item]
            text += f"{item + 1}:\n" + "".join(rated)
        written(folder / f"combined_data_{part + 1}.txt", text)


def lightgcn(folder):
    of = {user: sorted({i for u, i, *_ in EVENTS if u == user}) for user in range(30)}
    written(
        folder / "train.txt", "".join(f"{u} {' '.join(map(str, items[1:]))}\n" for u, items in of.items())
    )
    written(folder / "test.txt", "".join(f"{u} {items[0]}\n" for u, items in of.items()))
    for side, name, count in (("user", amazon_user, 30), ("item", asin, 40)):
        rows = "".join(f"{name(n)} {n}\n" for n in range(count))
        written(folder / f"{side}_list.txt", f"org_id remap_id\n{rows}")


def review(**named):
    return json.dumps(named)


# what dataset.dir names: its content or what writes it, a user, and the pattern of an item
PUBLISHED = {
    "ml-1m/ratings.dat": (lines(lambda u, i, v, t: f"{u + 1}::{i + 1}::{v}::{t}"), "7", r"\d+"),
    "ml-25m/ratings.csv": (
        lines(lambda u, i, v, t: f"{u + 1},{i + 1},{v:.1f},{t}", "userId,movieId,rating,timestamp"), "7", r"\d+"
    ),
    "ml-100k/u.data": (lines(lambda u, i, v, t: f"{u + 1}\t{i + 1}\t{v}\t{t}"), "7", r"\d+"),
    "Video_Games_5.json.gz": (
        lines(
            lambda u, i, v, t: review(
                overall=float(v), verified=True, reviewTime="09 13, 2009", reviewerID=amazon_user(u), asin=asin(i),
                style={"Platform:": " PC"}, reviewerName="Ann", reviewText="So\nso", summary="x", unixReviewTime=t,
            )
        ),
        amazon_user(7),
        "[0B].{9}",
    ),
    "Video_Games.csv.gz": (
        lines(
            lambda u, i, v, t: f"{amazon_user(u)},{asin(i)},{v:.1f},{t}000", "user_id,parent_asin,rating,timestamp"
        ),
        amazon_user(7),
        "[0B].{9}",
    ),
    "retailrocket/events.csv": (
        lines(
            lambda u, i, v, t: f"{t}000,{u},{'view' if v < 3 else 'transaction'},{i},{t if v >= 3 else ''}",
            "timestamp,visitorid,event,itemid,transactionid",
        ),
        "7",
        r"\d+",
    ),
    "usersha1-artmbid-artname-plays.tsv": (
        lines(lambda u, i, v, t: f"{sha1(u)}\t{mbid(i) if i % 9 else ''}\tthe band {i}\t{v * 31}"), sha1(7), "the band"
    ),
    "userid-timestamp-artid-artname-traid-traname.tsv": (
        lines(
            lambda u, i, v, t: (
                f"user_{u:06}\t{utc(t)}\t{mbid(i // 3)}\tband {i // 3}\t{mbid(99 + i) if i % 9 else ''}\tsong {i}"
            )
        ),
        "user_000007",
        r"\w{8}-\w{4}",
    ),
    "loc-gowalla_totalCheckins.txt.gz": (
        lines(lambda u, i, v, t: f"{u}\t{utc(t)}\t{30.2359091167 + i / 7}\t{-97.7951395833 - i / 9}\t{22847 + i}"),
        "7",
        r"22\d{3}",
    ),
    "netflix/combined_data_*.txt": (netflix, "1007", r"\d+"),
    "yelp_academic_dataset_review.json": (
        lines(
            lambda u, i, v, t: review(
                review_id=sha1(t)[:22], user_id=sha1(u)[:22], business_id=sha1(500 + i)[:22], stars=float(v), useful=1,
                funny=0, cool=0, text="Good", date=iso(t),
            )
        ),
        sha1(7)[:22],
        r"\w{22}",
    ),
    "ml-100k/ml-100k.inter": (
        lines(
            lambda u, i, v, t: f"{u + 1}\t{i + 1}\t{v}\t{t}",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        ),
        "7",
        r"\d+",
    ),
    "amazon-book": (lightgcn, amazon_user(7), "[0B].{9}"),
}  # fmt: skip


def test_every_layout_has_its_command():
    of = [re.search(r'dataset\.dir=([^\s"]+)', command)[1] for command in COMMANDS]
    assert of == list(PUBLISHED)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model", ["popularity", pytest.param("l2q_plus", marks=pytest.mark.slow, id="as the page has it")]
)
@pytest.mark.parametrize("command", COMMANDS, ids=list(PUBLISHED))
def test_from_the_file_to_a_recommendation(command, model, tmp_path, monkeypatch, capsys):
    source = re.search(r'dataset\.dir=([^\s"]+)', command)[1]
    content, user, item = PUBLISHED[source]
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    if callable(content):
        content(Path(source).parent if "*" in source else Path(source))
    else:
        written(Path(source), content)
    words = [naming.quoted(word) for word in shlex.split(command)]
    assert words[0] == "model=l2q_plus"
    metrics = run(tmp_path / "run", f"model={model}", *words[1:])
    assert 0 <= metrics["test/packed/recall_20"] <= 1
    capsys.readouterr()
    assert main(["recommend", "--index", "run/index", "--user", user, "-k", "3", "--json"]) in (None, 0)
    answered = capsys.readouterr().out
    assert len(re.findall(item, answered)) >= 1, answered
