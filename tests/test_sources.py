"""Fetching, verifying and caching, against a server on this machine."""

import hashlib
import os
import threading
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from l2q.data import cache as caches
from l2q.data import tables
from l2q.data.cache import load_embedded
from l2q.data.lightgcn import read_folder
from l2q.data.sources import Source, load_dataset
from l2q.errors import L2QError
from l2q.interactions import Interactions

TRAIN, TEST = "0 1 0\n1 2\n2 0 3\n", "0 2\n1 0\n"
COUNTS = {"users": 3, "items": 4, "train": 5, "test": 2}
FINGERPRINTS = {
    "train": Interactions.from_pairs([0, 0, 1, 2, 2], [0, 1, 2, 0, 3], 3, 4).fingerprint,
    "test": Interactions.from_pairs([0, 1], [2, 0], 3, 4).fingerprint,
}
MD5 = {part: hashlib.md5(text.encode()).hexdigest() for part, text in (("train", TRAIN), ("test", TEST))}
CONF = Path(__file__).parents[1] / "conf" / "dataset"
NAMED = ("gowalla", "yelp2018", "amazon_book", "lastfm_music", "movielens_1m", "online_retail")


def write(folder, train=TRAIN, test=TEST):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.txt").write_text(train)
    (folder / "test.txt").write_text(test)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """A folder ``public`` served by HTTP: its address, the folder, and the paths asked for."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    asked: list[str] = []
    folder = write(tmp_path / "public" / "tiny").parent
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/tiny", folder / "tiny", asked
        httpd.shutdown()
        thread.join()


@pytest.fixture
def reads(monkeypatch):
    """Counts how often text files are parsed."""
    calls = []

    def counted(read):
        def reading(path, *rest):
            calls.append(path)
            return read(path, *rest)

        return reading

    monkeypatch.setattr("l2q.data.sources.read_folder", counted(read_folder))
    monkeypatch.setattr(tables, "read_table", counted(tables.read_table))
    return calls


def assert_tiny(data):
    assert data.name == "tiny"
    assert (data.train.fingerprint, data.test.fingerprint) == (FINGERPRINTS["train"], FINGERPRINTS["test"])
    assert (data.train.indptr.dtype, data.train.items.dtype) == (np.int64, np.int32)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetched_once_then_read_from_the_cache(server, cache, reads):
    url, _, asked = server
    values = {"url": url, "counts": COUNTS, "fingerprints": FINGERPRINTS, "md5": MD5}
    assert_tiny(load_dataset("tiny", **values))
    assert sorted(path.name for path in (cache / "tiny").iterdir()) == ["test.txt", "train.txt"]
    assert asked == ["/tiny/train.txt", "/tiny/test.txt"]
    assert_tiny(load_dataset("tiny", **values))
    assert len(asked) == 2
    assert len(reads) == 1


def test_order_inside_lines_does_not_matter(tmp_path):
    folder = write(tmp_path / "mine", train="2 3 0\n1 2\n0 0 1\n")
    assert_tiny(load_dataset("tiny", dir=str(folder), counts=COUNTS, fingerprints=FINGERPRINTS, md5=MD5))


def test_a_download_with_another_md5_leaves_nothing(server, cache):
    url, folder, _ = server
    write(folder, test=TEST.replace("2", "3"))
    with pytest.raises(L2QError, match="MD5 hash of downloaded file") as caught:
        load_dataset("tiny", url=url, md5=MD5)
    assert "dataset.dir=PATH" in one_line(caught)
    assert str(cache / "tiny") in str(caught.value)
    assert list((cache / "tiny").iterdir()) == []
    assert len(load_dataset("tiny", url=url, md5=MD5, verify=False).test) == 2


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("0 2\n1 3\n", r"other test pairs \(fingerprint"),
        ("0 2\n", "1 test pairs instead of 2"),
        ("<html>sign in</html>", r"test\.txt:1: '<html>sign' is not a whole number"),
    ],
)
def test_a_download_of_something_else_leaves_nothing(server, cache, test, message):
    url, folder, _ = server
    write(folder, test=test)
    with pytest.raises(L2QError, match=message) as caught:
        load_dataset("tiny", url=url, counts=COUNTS, fingerprints=FINGERPRINTS)
    assert one_line(caught).endswith(f"(fetched from {url} and removed again)")
    assert list(cache.rglob("*.*")) == []
    write(folder)  # once the publisher is right again, so are we
    assert_tiny(load_dataset("tiny", url=url, counts=COUNTS, fingerprints=FINGERPRINTS))


def test_offline_names_files_and_folder(cache):
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as closed:
        port = closed.server_port
    with pytest.raises(L2QError, match=f"cannot fetch http://127.0.0.1:{port}/tiny/train.txt") as caught:
        load_dataset("tiny", url=f"http://127.0.0.1:{port}/tiny")
    advice = (
        f"put train.txt and test.txt into {cache / 'tiny'}, or name a folder that has them: dataset.dir=PATH"
    )
    assert one_line(caught).endswith(advice)
    write(cache / "tiny")  # files put there by hand need no network
    assert_tiny(load_dataset("tiny", url=f"http://127.0.0.1:{port}/tiny", fingerprints=FINGERPRINTS))


def test_absent_at_the_publisher(server):
    url, folder, _ = server
    (folder / "test.txt").unlink()
    with pytest.raises(L2QError, match=r"404 .*put train\.txt and test\.txt into"):
        load_dataset("tiny", url=url)


def test_without_address_the_files_are_asked_for(cache, tmp_path):
    with pytest.raises(L2QError, match=r"no train\.txt and no test\.txt in .*put train\.txt") as caught:
        load_dataset("tiny", counts=COUNTS)
    assert str(cache / "tiny") in one_line(caught)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "train.txt").write_text(TRAIN)
    with pytest.raises(
        L2QError, match=r"tiny: no test\.txt in .*half, which has train\.txt; put train\.txt and"
    ):
        load_dataset("tiny", url="http://127.0.0.1:9/never-asked", dir=str(tmp_path / "half"))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(
        L2QError, match=r"table: .*/none\.csv does not exist; dataset\.dir takes a table of events"
    ):
        load_dataset("table", dir=tmp_path / "none.csv", verify=False)
    with pytest.raises(
        L2QError, match=r"gowalla: no train\.txt and no test\.txt in .*nowhere; put train\.txt"
    ):
        load_dataset("gowalla", dir=tmp_path / "nowhere")
    with pytest.raises(L2QError, match=r"no file fits the pattern .*part-\*\.csv"):
        load_dataset("table", dir=str(tmp_path / "part-*.csv"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(L2QError, match="empty is a folder without a table of events"):
        load_dataset("table", dir=tmp_path / "empty")


def test_of_a_folder_of_tables_all_are_listed(tmp_path):
    (tmp_path / "genome.csv").write_text("movie,tag,relevance\n1,2,3\n")
    (tmp_path / "ratings.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(L2QError) as caught:
        load_dataset("table", dir=tmp_path)
    said = one_line(caught)
    assert "genome.csv (movie, tag, relevance)" in said
    assert "ratings.csv (user_id, item_id)" in said


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"counts": COUNTS | {"users": 1000, "test": 9}},
            "3 users instead of 1,000, 2 test pairs instead of 9",
        ),
        (
            {"fingerprints": FINGERPRINTS | {"train": "0" * 64}},
            r"other train pairs \(fingerprint .* instead of 000",
        ),
        ({"md5": MD5 | {"test": "0" * 32}}, f"another test.txt .md5 {MD5['test']} instead of 000"),
    ],
)
def test_another_set_is_refused_unless_told(tmp_path, values, message):
    folder = str(write(tmp_path / "mine"))
    for _ in range(2):  # the second time from where a cache would be
        with pytest.raises(L2QError, match=message) as caught:
            load_dataset("tiny", dir=folder, **values)
        assert "dataset.verify=false" in one_line(caught)
        assert_tiny(load_dataset("tiny", dir=folder, verify=False, **values))


def test_the_cache_follows_its_files(tmp_path, cache, reads):
    folder = write(tmp_path / "mine")
    for _ in range(2):
        assert_tiny(load_dataset("tiny", dir=str(folder)))
    assert len(reads) == 1
    write(folder, test="0 3\n1 0\n")
    assert load_dataset("tiny", dir=str(folder)).test.items.tolist() == [3, 0]
    (folder / "users.txt").write_text("ann\nbob\ncy\n")
    for _ in range(2):
        assert load_dataset("tiny", dir=str(folder)).user_names.tolist() == ["ann", "bob", "cy"]
    assert len(reads) == 3
    other = write(tmp_path / "other", test="2 1\n")
    assert load_dataset("tiny", dir=str(other)).test.users.tolist() == [2]  # one cache per place
    assert load_dataset("tiny", dir=str(folder)).test.items.tolist() == [3, 0]
    assert len(reads) == 4
    assert not list(cache.glob("*tmp*"))


def test_a_damaged_cache_is_made_again(tmp_path, cache, reads):
    """Any byte that is missing, added or another one, also in the header of an array."""
    folder = write(tmp_path / "mine")
    load_dataset("tiny", dir=str(folder))
    (stored,) = cache.glob("*.npz")
    whole = stored.read_bytes()
    shape = whole.index(b"(5,)")
    damages = [b"", whole[:20], whole[:200], whole[:-30], whole[1:], whole + b"x", b"PK" + whole]
    damages += [whole.replace(b"train_items", b"train_itemz"), whole[:shape] + b"(9,)" + whole[shape + 4 :]]
    rng = np.random.default_rng(0)
    for place in rng.integers(len(whole), size=30):
        damages.append(whole[:place] + bytes([whole[place] ^ 1 << rng.integers(8)]) + whole[place + 1 :])
    for damaged in damages:
        stored.write_bytes(damaged)
        assert_tiny(load_dataset("tiny", dir=str(folder)))
        assert stored.read_bytes() == whole
    assert len(reads) == 1 + len(damages)
    load_dataset("tiny", dir=str(folder))
    assert len(reads) == 1 + len(damages)


def test_no_code_comes_out_of_a_cache(tmp_path, cache):
    """An array of objects would be unpickled, whoever wrote it."""
    folder = write(tmp_path / "mine")
    load_dataset("tiny", dir=str(folder))
    (stored,) = cache.glob("*.npz")
    head = stored.read_bytes()[caches.DIGEST : 2 * caches.DIGEST]

    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    with stored.open("wb") as file:
        file.write(bytes(caches.DIGEST) + head)
        np.savez(file, num_items=np.array(Touch(), dtype=object))
    body = stored.read_bytes()[caches.DIGEST :]
    stored.write_bytes(hashlib.sha256(body).digest() + body)
    assert_tiny(load_dataset("tiny", dir=str(folder)))
    assert not (tmp_path / "owned").exists()


def test_what_killed_runs_left_in_the_cache_goes(tmp_path, cache):
    cache.mkdir()
    old, fresh, other = cache / ".tiny-1.npz.0a.new", cache / ".tiny-2.npz.0b.new", cache / "notes.new"
    for path in (old, fresh, other):
        path.write_text("")
    for path in (old, other):
        os.utime(path, (1, 1))
    load_dataset("tiny", dir=str(write(tmp_path / "mine")))
    assert (old.exists(), fresh.exists(), other.exists()) == (False, True, True)


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "file"))
    with pytest.raises(L2QError, match=r"cannot write .*file.*set L2Q_CACHE"):
        load_dataset("tiny", dir=str(write(tmp_path / "mine")))


def write_events(path, extra=""):
    """Two users of twenty items, with times and quantities, an event twice."""
    rows = [
        f"{user},{item:02},{1_600_000_000 + 1000 * item},{item + 1}"
        for user in ("zoë", "bob")
        for item in range(20)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["user,item,time,quantity", *rows, rows[0], extra]))
    return path


def same(one, other):
    assert one.columns == other.columns
    assert one.train.reading == other.train.reading
    for ours, theirs in (
        (one.train, other.train),
        (one.test, other.test),
        (one.test.given, other.test.given),
    ):
        assert (ours is None) == (theirs is None)
        for name in ("indptr", "items", "times", "values", "counts", "user_names", "item_names"):
            mine, its = getattr(ours, name, None), getattr(theirs, name, None)
            assert (mine is None) == (its is None)
            assert mine is None or (mine.tolist() == its.tolist() and mine.dtype == its.dtype)


@pytest.mark.parametrize("split", ["auto", "random", "last", "users", "time"])
def test_a_table_comes_out_of_the_cache_as_it_went_in(tmp_path, reads, split):
    path = write_events(tmp_path / "events.csv")
    first, second = (load_dataset("shop", dir=str(path), split=split) for _ in range(2))
    same(first, second)
    assert len(reads) == 1
    assert first.user_names.tolist() == ["bob", "zoë"]
    assert first.item_names.tolist() == [f"{item:02}" for item in range(20)]
    assert first.train.times is not None
    assert first.train.values is not None
    counted = [part.counts for part in (first.train, first.test, first.test.given) if part is not None]
    assert np.concatenate(counted).max() == 2
    assert any("1 repeated pair merged" in line for line in second.train.reading.lines())
    assert second.train.reading.split.startswith("split by users" if split == "users" else "split ")


def test_a_cache_is_one_of_its_options(tmp_path, reads):
    path = str(write_events(tmp_path / "events.csv"))
    seen = []
    for more in (
        {"split": "random"},
        {"split": "random", "split_seed": 1},
        {"split": "random", "test_fraction": 0.4},
        {"split": "time"},
        {"where": "item <> '03'"},
        {"min_value": 3},
        {"user": "item", "item": "user"},
        {"value": "none"},
        {"dedupe": "last"},
        {"test_fraction": 0},
        {"test_fraction": 0, "min_events": 2},
    ):
        for _ in range(2):
            data = load_dataset("shop", dir=path, **more)
        seen.append(data)
        assert len(reads) == len(seen), more


@pytest.mark.parametrize("form", ["folder", "pattern"])
def test_the_cache_follows_every_part(tmp_path, reads, form):
    folder = tmp_path / "parts"
    for part in range(3):
        write_events(folder / f"part-{part}.csv", f"u{part},x,1600000000,1")
    source = str(folder if form == "folder" else folder / "part-*.csv")
    for _ in range(2):
        assert load_dataset("shop", dir=source).train.num_users == 5
    assert len(reads) == 1
    write_events(folder / "part-2.csv", "new,x,1600000000,1")
    assert "new" in load_dataset("shop", dir=source).user_names
    write_events(folder / "part-3.csv", "newer,x,1600000000,1")
    assert "newer" in load_dataset("shop", dir=source).user_names
    (folder / "part-0.csv").unlink()
    assert "u0" not in load_dataset("shop", dir=source).user_names
    assert len(reads) == 4


def test_a_database_is_read_every_time(tmp_path, reads, cache):
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (user TEXT, item TEXT)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?)", [(f"u{n % 9}", f"i{n % 10}") for n in range(90)]
        )
    for count in (1, 2):
        data = load_dataset("shop", dir=f"sqlite:{tmp_path}/shop.db::orders")
        assert (data.train.num_users, data.train.num_items, len(reads)) == (9, 10, count)
    assert not cache.exists()


def test_a_split_by_time_is_that_of_the_dates(tmp_path):
    data = load_dataset("shop", dir=write_events(tmp_path / "events.csv"))
    assert data.train.times.max() < data.test.times.min() == 1_600_000_000 + 16_000
    assert data.test.items.tolist() == [16, 17, 18, 19] * 2
    assert data.train.reading.split == (
        "split by time: test begins at 2020-09-13 16:53; 32 train and 8 test pairs; new in test: 4 items"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"user": "buyer"},
            r"^dataset\.user=buyer has no effect on .*mine, a folder of ids .*; leave it out$",
        ),
        (
            {"split": "time"},
            r"^dataset\.split=time has no effect on .*mine, a folder of ids that is split already",
        ),
        ({"test_fraction": 0}, r"^dataset\.test_fraction=0 has no effect on .*mine"),
        ({"min_value": 3}, r"^dataset\.min_value=3 has no effect on .*mine"),
        ({"missing": "drop"}, r"^dataset\.missing=drop has no effect on .*mine"),
    ],
)
def test_options_of_a_table_are_refused_on_a_folder_of_ids(tmp_path, values, message):
    write(tmp_path / "mine")
    with pytest.raises(L2QError, match=message):
        load_dataset("tiny", dir=tmp_path / "mine", **values)


def test_options_without_effect_are_refused(tmp_path):
    with pytest.raises(
        L2QError, match=r"^dataset\.min_events=5 has no effect on debian, which is split already"
    ):
        load_dataset("debian", min_events=5)
    events = write_events(tmp_path / "events.csv")
    with pytest.raises(
        L2QError, match=r"^dataset\.test_fraction=0\.5 has no effect on split=last, which leaves out"
    ):
        load_dataset("shop", dir=events, split="last", test_fraction=0.5)
    with pytest.raises(
        L2QError, match=r"^dataset\.split=time has no effect on test_fraction=0, which leaves nothing"
    ):
        load_dataset("shop", dir=events, split="time", test_fraction=0)
    for part in ("train", "test"):
        write_events(tmp_path / "pair" / f"{part}.csv")
    with pytest.raises(
        L2QError, match=r"^dataset\.split=time has no effect on .*pair, which is split already"
    ):
        load_dataset("shop", dir=tmp_path / "pair", split="time")


def test_where_nothing_is_left_to_test_with_the_columns_come_first(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "".join(f"u{n},i{n % 3}\n" for n in range(9)))
    with pytest.raises(
        L2QError, match=r"no user, column 'user', has two items, .*: dataset\.user=COLUMN"
    ) as caught:
        load_dataset("shop", dir=path)
    assert "test_fraction" not in one_line(caught)
    with pytest.raises(
        L2QError, match=r"no user, column 'user', .*; dataset\.test_fraction=0 takes all for train$"
    ):
        load_dataset("shop", dir=path, user="user", item="item")
    data = load_dataset("shop", dir=path, test_fraction=0)
    assert (len(data.train), len(data.test)) == (9, 0)
    assert data.train.reading.split == "test_fraction=0: all pairs are train, none is test"


def test_a_core_that_takes_all_of_test_is_named(tmp_path):
    with pytest.raises(
        L2QError, match=r"dataset\.min_events=2 leaves nothing to test with; give a lower number, or"
    ):
        load_dataset("shop", dir=write_events(tmp_path / "events.csv"), min_events=2)


def test_a_small_test_part_is_said_every_time(tmp_path):
    rows = (
        [f"u{n},i{n % 30}" for n in range(300)] + [f"u{n},j{n}" for n in range(5)] + ["v,i1", "v,i2", "v,i3"]
    )
    (tmp_path / "events.csv").write_text("\n".join(["user,item", *rows]))
    for _ in range(2):
        data = load_dataset("shop", dir=tmp_path / "events.csv", user="user", item="item")
        assert "only 6 of 308 pairs are test, since few users, column 'user'" in data.train.reading.notes[-1]


def test_embedded_form(tmp_path):
    np.savez_compressed(
        tmp_path / "a.npz",
        train_indptr=np.array([0, 2, 3], np.int32),
        train_items=np.array([0, 2, 1], np.uint16),
        test_indptr=np.array([0, 0, 1], np.int32),
        test_items=np.array([0], np.uint16),
        num_items=np.int32(3),
        user_names=np.frombuffer(b"ann\nbob", np.uint8),
        item_names=np.frombuffer("tea\ncafé\nmilk".encode(), np.uint8),
    )
    data = load_embedded(tmp_path / "a.npz", "a")
    assert data.train.fingerprint == Interactions.from_pairs([0, 0, 1], [0, 2, 1], 2, 3).fingerprint
    assert data.test.fingerprint == Interactions.from_pairs([1], [0], 2, 3).fingerprint
    assert (data.train.indptr.dtype, data.train.items.dtype) == (np.int64, np.int32)
    assert data.user_names.tolist() == ["ann", "bob"]
    assert data.item_names.tolist() == ["tea", "café", "milk"]
    assert data.item_names.dtype == object  # not as wide as the longest


def test_options_of_a_source_are_checked():
    with pytest.raises(L2QError, match=r"^dataset\.dirr: there is no such option; did you mean dir\?$"):
        load_dataset("tiny", dirr="here")
    with pytest.raises(L2QError, match=r"^dataset\.verify=maybe must be true or false$"):
        load_dataset("debian", verify="maybe")
    with pytest.raises(
        L2QError, match=r"^dataset\.test_fraction=1\.0 must be a number of at least 0 and below 1 or null$"
    ):
        load_dataset("table", dir="events.csv", test_fraction=1.0)


def test_debian_comes_with_the_package(cache):
    data = load_dataset("debian")
    assert (data.train.num_users, data.train.num_items) == (len(data.user_names), len(data.item_names))
    assert len(data.train) + len(data.test) > 150_000
    assert "python3-numpy" in data.item_names
    assert not cache.exists()


@pytest.mark.parametrize("name", NAMED)
def test_named_sets_are_recognised(shared_data, name):
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert conf.keys() <= {field.name for field in fields(Source)}
    if name == "amazon_book":
        folder = shared_data("amazon_book_partial")
        with pytest.raises(
            L2QError, match=r"1,871,361 train pairs instead of 2,380,730; .*dataset\.verify=false"
        ):
            load_dataset(name, dir=folder)
        assert len(load_dataset(name, dir=folder, verify=False).test) == 603_378
    else:
        data = load_dataset(name, dir=str(shared_data(name)))
        assert data.name == name
        assert {"train": len(data.train), "test": len(data.test)}.items() <= conf["counts"].items()
        assert conf["fingerprints"]["test"] == data.test.fingerprint
