"""Folders of LightGCN and what people take for them, by value."""

import csv
import re

import numpy as np
import pytest

from l2q.data import layouts
from l2q.data.lightgcn import read_folder, read_lightgcn
from l2q.data.names import read_names
from l2q.data.sources import load_dataset
from l2q.errors import L2QError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path_factory.mktemp("cache")))


def pairs(part):
    return set(zip(part.users.tolist(), part.items.tolist(), strict=True))


def folder(path, train, test="", **names):
    (path / "train.txt").write_text(train)
    (path / "test.txt").write_text(test)
    for side, text in names.items():
        (path / f"{side}.txt").write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 5 3\n2 1\n", [(0, 5), (0, 3), (2, 1)]),
        ("0 5 3\r\n\r\n1\r\n2\t1", [(0, 5), (0, 3), (2, 1)]),  # a user without items, no last line break
        ("\n\n  7   0 \n0 2147483647\n", [(7, 0), (0, 2147483647)]),
        ("0\n1\n", []),
        ("", []),
        (" \n\n", []),
    ],
)
def test_read_lightgcn(tmp_path, text, expected):
    (tmp_path / "train.txt").write_bytes(text.encode())
    users, items = read_lightgcn(tmp_path / "train.txt")
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == expected


def test_read_lightgcn_equals_a_loop_over_lines(tmp_path):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 10**6, size=rng.integers(0, 6)).tolist() for _ in range(200)]
    lines = [f"{user} {' '.join(map(str, row))}".strip() for user, row in enumerate(rows)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    users, items = read_lightgcn(tmp_path / "a.txt")
    assert list(zip(users.tolist(), items.tolist(), strict=True)) == [
        (user, item) for user, row in enumerate(rows) for item in row
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 x 2\n", "a.txt:2: 'x' is not a whole number"),
        ("0 1\n\n1 -2 3\n", "a.txt:3: '-2' is negative id"),
        ("-1 2\n", "a.txt:1: '-1' is negative id"),
        ("0 1\n1 2,3\n", "a.txt:2: '2,3' is not a whole number"),
        ("0 1.5\n", "a.txt:1: '1.5' is not a whole number"),
        ("0 1\n1 2\r3 4\n", "a.txt:2: a carriage return within the line"),
        ("0 1 2\r1 3 4\r", "a.txt:1: a carriage return within the line"),
        ("0 1\n1 2147483648\n", "a.txt:2: '2147483648' is not a whole number below 2^31"),
        ("0 1\n2 99999999999999999999999 4", "a.txt:2: '99999999999999999999999' is not a whole number"),
        ("0 " + "1 " * 5000 + "é\n", "a.txt:1: 'Ã©' is not a whole number"),
        ("0 1\u00a02\n", "a.txt:1: "),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_bytes(text.encode())
    with pytest.raises(L2QError, match=re.escape(message)) as caught:
        read_lightgcn(tmp_path / "a.txt")
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(L2QError, match=r"cannot read .*train\.txt: No such file"):
        read_folder(tmp_path, "a")


def test_a_folder_takes_the_shape_of_both_files(tmp_path):
    data = read_folder(folder(tmp_path, "0 1 0\n1 2 3\n2 4\n", "1 4\n0 3\n"), "tiny")
    assert data.name == "tiny"
    assert pairs(data.train) == {(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)}
    assert pairs(data.test) == {(0, 3), (1, 4)}
    assert {(part.num_users, part.num_items) for part in (data.train, data.test)} == {(3, 5)}
    assert data.user_names is None
    assert data.item_names is None
    assert data.train.reading.lines() == [
        str(tmp_path),
        "7 pairs",
        "split of the folder's own; 5 train and 2 test pairs",
    ]


def test_names_give_names_and_the_shape(tmp_path):
    path = folder(tmp_path, "0 1\n1 0\n", "0 0\n", users="ann\nbob\ncy\n", items="tea\ncafé\nmaté")
    data = read_folder(path, "tiny")
    assert data.user_names.tolist() == ["ann", "bob", "cy"]
    assert data.item_names.tolist() == ["tea", "café", "maté"]
    assert (data.test.num_users, data.test.num_items) == (3, 3)
    assert data.train.reading.notes == ()
    (tmp_path / "items.txt").write_text("tea\n")
    with pytest.raises(L2QError, match=r"items\.txt has 1 names, but ids go up to 1: id 1 has none$"):
        read_folder(path, "tiny")
    (tmp_path / "items.txt").write_bytes(b"tea\r\nco\rcoa\r\nmilk\r\n")  # an index would read four lines
    with pytest.raises(L2QError, match=re.escape("items.txt:2: 'co\\rcoa' holds a line break")):
        read_folder(path, "tiny")


def test_what_is_merged_dropped_or_cold_is_counted(tmp_path):
    data = read_folder(folder(tmp_path, "0 1 1 2\n0 1\n", "0 2 3\n1 0 0\n2 1\n"), "tiny")
    assert data.train.reading.lines()[1:] == [
        "9 pairs, 1 dropped (test pairs that are in train too), 3 repeated pairs merged",
        "split of the folder's own; 2 train and 3 test pairs; new in test: 2 users, 2 items",
    ]
    assert pairs(data.train) == {(0, 1), (0, 2)}
    assert pairs(data.test) == {(0, 3), (1, 0), (2, 1)}


def test_unusable_sets_are_refused(tmp_path):
    with pytest.raises(L2QError, match=r"train\.txt has no interactions"):
        read_folder(folder(tmp_path, "0\n1\n", "0 1\n"), "empty")
    with pytest.raises(L2QError, match="item id 2000000000 leaves too many gaps"):
        read_folder(folder(tmp_path, "0 2000000000\n", "0 1\n"), "gaps", declared=True)


LISTS = {
    "users.txt": ("org_id remap_id\nann 1\nbob 0\n", ["bob", "ann"]),
    "user_list.txt": ("org_id remap_id freebase_id\nann lee 0 m.1\nbob 1\n", ["ann lee", "bob"]),
    "user_list.csv": ('customer,remap_id,city\n"lee, ann",1,Rome\nbob,0,Bonn\n', ["bob", "lee, ann"]),
    "user_list.tsv": ("remap_id\torg_id\n1\tann lee\n0\tbob\n", ["bob", "ann lee"]),
    "users.csv": ("user_id,name\n1,ann\n0,bob\n", ["bob", "ann"]),
    "users.tsv": ("ann lee\t1\nbob\t0\n", ["bob", "ann lee"]),
}


@pytest.mark.parametrize("file", LISTS)
def test_lists_of_names_go_by_their_ids(tmp_path, file):
    text, expected = LISTS[file]
    folder(tmp_path, "0 0 1\n1 1\n", "1 0\n")
    (tmp_path / file).write_text(text)
    data = load_dataset("mine", dir=tmp_path)
    assert data.user_names.tolist() == expected
    assert pairs(data.train) == {(0, 0), (0, 1), (1, 1)}
    assert data.train.reading.notes[0].startswith(f"{file} names 2 ids, by its ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann 1\nbob 0\n", ["bob", "ann"]),
        ("1 ann lee\n0 bob\n", ["bob", "ann lee"]),
        ("room 0\nroom 1\n", ["room 0", "room 1"]),  # numbers that are part of the names
        ("7 ann\n3 bob\n", ["7 ann", "3 bob"]),
        ("user_id\nann\nbob\n", ["ann", "bob"]),
        ("user_id\nann\n", ["user_id", "ann"]),  # both are needed
    ],
)
def test_a_name_is_a_line_unless_numbers_in_it_are_the_ids(tmp_path, text, expected):
    folder(tmp_path, "0 0 1\n1 1\n", "1 0\n", users=text)
    assert load_dataset("mine", dir=tmp_path).user_names.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("org_id remap_id\nann 0\n", "users.txt has 1 names, but ids go up to 1: id 1 has none"),
        ("org_id remap_id\nann 0\nbob 5\n", "users.txt has 2 names, but .*: id 1 has none|no user id 1"),
        ("org_id remap_id\nann 0\nbob x\n", "users.txt:3: no whole number for 'remap_id'"),
        ("org_id remap_id\nann 0\nbob 0\n", "users.txt:3: id 0 stands there a second time"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, message):
    folder(tmp_path, "0 0 1\n1 1\n", "1 0\n", users=text)
    with pytest.raises(L2QError, match=message):
        load_dataset("mine", dir=tmp_path)


def test_a_field_of_names_without_an_end_is_refused(tmp_path):
    folder(tmp_path, "0 0 1\n1 1\n", "1 0\n")
    (tmp_path / "users.csv").write_text("ann\n" + "b" * 200_000 + "\n")
    with pytest.raises(L2QError, match=r"users\.csv is no table of names: field larger than"):
        load_dataset("mine", dir=tmp_path)


def test_ids_with_gaps_or_from_1_are_numbered_anew_and_said(tmp_path):
    folder(tmp_path, "1 5\n2 70000000 9\n3\n", "2 5\n")
    data = load_dataset("mine", dir=tmp_path)
    assert data.user_names.tolist() == ["1", "2", "3"]  # a user whom a line names without items is one
    assert data.item_names.tolist() == ["5", "9", "70000000"]
    assert pairs(data.train) == {(0, 0), (1, 1), (1, 2)}
    assert data.train.reading.notes == (
        "user ids, 1 to 3, count from 1: the 3 users are numbered anew and named by them",
        "item ids, 5 to 70000000, have gaps: the 3 items are numbered anew and named by them",
    )
    declared = {"counts": {"users": 4, "items": 10, "train": 3, "test": 1}}
    folder(tmp_path, "1 5\n2 7 9\n3\n", "2 5\n")
    kept = load_dataset("mine", dir=tmp_path, **declared)
    assert (kept.train.num_users, kept.train.num_items, kept.user_names) == (4, 10, None)
    assert kept.train.reading.notes == ()


def triples(rng, users=20, items=30, value=lambda: "4", more=""):
    return [
        f"{user} {item} {value()}{more}"
        for user in range(users)
        for item in rng.choice(items, 6, replace=False)
    ]


@pytest.mark.parametrize(
    "form", ["ratings", "halves", "rating and time", "commas", "text ids", "header", "times"]
)
def test_lines_of_events_are_never_lists_of_items(tmp_path, form):
    rng = np.random.default_rng(0)
    value = {"halves": lambda: rng.integers(1, 10) / 2, "times": lambda: rng.integers(10**9, 2 * 10**9)}.get(
        form, lambda: rng.integers(1, 6)
    )
    more = " 978300760" if form == "rating and time" else ""
    lines = triples(rng, value=value, more=more)
    if form == "commas":
        lines = [line.replace(" ", ",") for line in lines]
    if form == "text ids":
        lines = ["u{} i{} {}".format(*line.split()) for line in lines]
    head = ["user item rating"] if form == "header" else []
    test = [
        line for place, line in enumerate(lines) if place % 6 == 0
    ]  # one line a user, as in leave-one-out
    train = [line for place, line in enumerate(lines) if place % 6]
    folder(tmp_path, "\n".join(head + train), "\n".join(head + test))
    data = load_dataset("mine", dir=tmp_path)
    assert (len(data.train), len(data.test)) == (100, 20)
    assert data.train.num_users == 20
    asked = {tuple(re.split("[ ,]", line)[:2]) for line in train}
    assert {(data.user_names[u], data.item_names[i]) for u, i in pairs(data.train)} == asked
    assert data.train.reading.split.startswith("split of the folder's own; 100 train and 20 test pairs")
    if form in ("ratings", "halves", "header"):
        assert data.train.values is not None
        least = load_dataset("mine", dir=tmp_path, min_value=4)
        assert len(least.train) == sum(float(line.split()[2]) >= 4 for line in train)
    if form == "times":
        assert data.train.times is not None


def test_lists_of_one_length_stay_lists(tmp_path):
    """Two items of every user, a line a user; and lines of a user's next items."""
    folder(tmp_path, "".join(f"{user} {user} {user + 1}\n" for user in range(9)), "0 5\n1 6\n")
    assert len(load_dataset("mine", dir=tmp_path).train) == 18
    folder(tmp_path, "0 1 2\n1 0 1 2\n0 3\n", "1 3\n")
    assert pairs(load_dataset("mine", dir=tmp_path).train) == {(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)}


def test_what_may_be_either_is_asked_about(tmp_path):
    rng = np.random.default_rng(0)
    lines = triples(rng, items=500, value=lambda: rng.integers(500))
    folder(tmp_path, "\n".join(lines), "0 499\n")
    with pytest.raises(
        L2QError, match=r"120 lines of 3 numbers .* of 20 users: .*dataset\.user=1 dataset\.item=2"
    ):
        load_dataset("mine", dir=tmp_path)
    folder(tmp_path, "\n".join(lines), "\n".join(f"{user} 501 3" for user in range(20)))
    data = load_dataset("mine", dir=tmp_path, user=1, item=2, value="none")
    assert (len(data.train), len(data.test)) == (120, 20)
    assert "501" in data.item_names
    folder(tmp_path, "0 1 2 3\n1 2\n", "0 5 3\n0 6 4\n1 5 5\n")
    with pytest.raises(L2QError, match=r"test\.txt has several lines of the same user.*dataset\.user=1"):
        load_dataset("mine", dir=tmp_path)


def test_a_validation_file_is_left_alone_and_said(tmp_path):
    folder(tmp_path, "0 1 0\n1 0\n", "1 1\n", valid="0 0\n")
    data = load_dataset("mine", dir=tmp_path)
    assert data.train.reading.notes == (
        "valid.txt is left out: train and test are read, and a run holds out a validation part of its own",
    )
    assert len(data.train) == 3


def write_events(path, rows, header="user,item,rating"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


ROWS = [
    (f"u{user}", f"i{item:02}", 1 + (user + item) % 5)
    for user in range(12)
    for item in range(user % 3, 20, 2)
]


@pytest.mark.parametrize(
    ("train", "test", "more"),
    [
        ("train.csv", "test.csv", "validation.csv"),
        ("shop_train.csv", "shop_test.csv", "shop_val.csv"),
        ("ml-100k.train.inter", "ml-100k.test.inter", "ml-100k.valid.inter"),
        ("u1.base", "u1.test", None),
        ("train/part-0.csv", "test/part-0.csv", None),
        ("train-00000-of-00001.csv", "test-00000-of-00001.csv", None),
    ],
)
def test_a_train_and_a_test_table_are_a_split(tmp_path, train, test, more):
    header = "user_id:token,item_id:token,rating:float" if train.endswith("inter") else "user,item,rating"
    for name, rows in ((train, ROWS[::2]), (test, [*ROWS[1::2], ("new", "i99", 3), ROWS[0]])):
        write_events(tmp_path / name, rows, header)
    if more:
        write_events(tmp_path / more, ROWS[:3], header)
    for _ in range(2):
        data = load_dataset("mine", dir=tmp_path)
        assert data.train.item_names is data.test.item_names
        named = [
            {(part.user_names[u], part.item_names[i]) for u, i in pairs(part)}
            for part in (data.train, data.test)
        ]
        assert named[0] == {row[:2] for row in ROWS[::2]}
        assert named[1] == {row[:2] for row in ROWS[1::2]} | {("new", "i99")}
        said = "\n".join(data.train.reading.lines())
        assert "1 dropped (test pairs that are in train too)" in said
        assert "new in test: 1 user, 1 item" in said
        assert (f"{more} is left out" in said) == bool(more)
        assert data.columns == tuple(
            cell for cell in ("user_id", "item_id") if "inter" in train
        ) or data.columns == (
            "user",
            "item",
        )


def test_several_splits_in_a_folder_are_listed(tmp_path):
    for fold in (1, 2):
        write_events(tmp_path / f"u{fold}.base", ROWS[::2])
        write_events(tmp_path / f"u{fold}.test", ROWS[1::2])
    with pytest.raises(
        L2QError, match=r"several train and test tables: u1\.base with u1\.test, u2\.base with u2\.test"
    ):
        load_dataset("mine", dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "test"),
    [
        ("gowalla", 29858, 40981, 810128, 217242),
        ("amazon_book_partial", 52643, 91599, 1871361, 603378),
        ("online_retail", 3691, 2779, 207418, 51876),
    ],
)
def test_public_sets(shared_data, name, users, items, train, test):
    data = read_folder(shared_data(name), name)
    assert (data.train.num_users, data.train.num_items, len(data.train), len(data.test)) == (
        *(users, items, train, test),
    )
    assert layouts.pair(shared_data(name)) is None


def test_the_lists_of_a_public_set(shared_data):
    data = read_folder(shared_data("online_retail"), "online_retail")
    assert (data.user_names[0], data.item_names[0], data.item_names[1]) == ("12347", "10002", "10080")
    assert data.train.reading.notes == (
        "user_list.csv names 3,691 ids, by its remap_id",
        "item_list.csv names 2,779 ids, by its remap_id",
    )


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffada\nben\n".encode())
    assert read_names(tmp_path / "names.txt").tolist() == ["ada", "ben"]


def test_a_long_name_makes_no_other_longer(tmp_path):
    names = ["x" * 8000, *(f"{item:04}" for item in range(2000))]
    (tmp_path / "items.txt").write_text("\n".join(names))
    read = read_names(tmp_path / "items.txt")
    assert read.tolist() == names
    assert read.nbytes == 8 * 2001  # a pointer each; 64 MB as a unicode array
