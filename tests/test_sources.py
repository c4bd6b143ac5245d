"""Fetching, verifying and caching, against a server on this machine."""

import hashlib
import threading
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml

from l2q.data.readers import read_dataset
from l2q.data.sources import Source, load_dataset, load_embedded
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

    def counted(path, *rest):
        calls.append(path)
        return read_dataset(path, *rest)

    monkeypatch.setattr("l2q.data.sources.read_dataset", counted)
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
    with pytest.raises(L2QError, match=r"tiny: no test\.txt in .*half"):
        load_dataset("tiny", url="http://127.0.0.1:9/never-asked", dir=str(tmp_path / "half"))
    (tmp_path / "half" / "events.csv").touch()
    with pytest.raises(L2QError, match=r"no test\.txt .* or a table in it: dataset\.dir=.*half/events\.csv"):
        load_dataset("tiny", dir=str(tmp_path / "half"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.csv", "does not exist"),
        ("a.json", "is no table of events"),
        ("b.csv.gz", "is packed; unpack it"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, name, words):
    if not name.startswith("none"):
        (tmp_path / name).write_text("user,item")
    with pytest.raises(L2QError, match=words) as caught:
        load_dataset("table", dir=tmp_path / name, verify=False)
    assert f"{tmp_path / name} " in one_line(caught)
    assert one_line(caught).endswith(
        "takes one of .csv, .tsv, .parquet or a folder with train.txt and test.txt"
    )


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
    folder = write(tmp_path / "mine")
    load_dataset("tiny", dir=str(folder))
    (stored,) = cache.glob("*.npz")
    whole = stored.read_bytes()
    for damaged in (b"", whole[:200], whole[:-30], whole.replace(b"train_items", b"train_itemz")):
        stored.write_bytes(damaged)
        assert_tiny(load_dataset("tiny", dir=str(folder)))
    assert len(reads) == 5


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "file"))
    with pytest.raises(L2QError, match=r"cannot write .*file.*set L2Q_CACHE"):
        load_dataset("tiny", dir=str(write(tmp_path / "mine")))


def test_events_and_their_names_pass_through_the_cache(tmp_path, reads):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "".join(f"zoë,{item:02}\nbob,{item:02}\n" for item in range(20)))
    for _ in range(2):
        data = load_dataset("shop", dir=str(path))
        assert data.user_names.tolist() == ["bob", "zoë"]
        assert data.item_names.tolist() == [f"{item:02}" for item in range(20)]
        assert data.test.user_degrees.tolist() == [4, 4]
    other = load_dataset("shop", dir=str(path), split_seed=1)
    assert other.test.keys.tolist() != data.test.keys.tolist()
    assert len(reads) == 2


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
        L2QError, match=r"^dataset\.test_fraction=1\.0 must be a number of at least 0 and below 1$"
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
