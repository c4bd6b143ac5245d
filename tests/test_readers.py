"""Readers of text files and of tables of events, by value."""

import csv
import re

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import sparse

from l2q.data.readers import read_dataset, read_events, read_lightgcn, read_names
from l2q.errors import L2QError


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
        read_dataset(tmp_path, "a")


def test_read_dataset_takes_the_shape_of_both_files(tmp_path):
    data = read_dataset(folder(tmp_path, "0 1 0\n1 2 3\n2 4\n", "1 4\n0 3\n"), "tiny")
    assert data.name == "tiny"
    assert pairs(data.train) == {(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)}
    assert pairs(data.test) == {(0, 3), (1, 4)}
    assert {(part.num_users, part.num_items) for part in (data.train, data.test)} == {(3, 5)}
    assert data.user_names is None
    assert data.item_names is None


@pytest.mark.filterwarnings("error")
def test_names_give_names_and_the_shape(tmp_path):
    path = folder(tmp_path, "0 1\n1 0\n", "0 0\n", users="ann\nbob\n", items="tea\ncafé\nmaté")
    data = read_dataset(path, "tiny")
    assert data.user_names.tolist() == ["ann", "bob"]
    assert data.item_names.tolist() == ["tea", "café", "maté"]
    assert (data.test.num_users, data.test.num_items) == (2, 3)
    (tmp_path / "items.txt").write_text("tea\n")
    with pytest.raises(L2QError, match=r"items\.txt has 1 names, but ids go up to 1"):
        read_dataset(path, "tiny")
    (tmp_path / "items.txt").write_bytes(b"tea\r\nco\rcoa\r\nmilk\r\n")  # an index would read four lines
    with pytest.raises(L2QError, match=re.escape("items.txt:2: 'co\\rcoa' holds a line break")):
        read_dataset(path, "tiny")


def test_what_is_merged_dropped_or_cold_is_counted(tmp_path):
    path = folder(tmp_path, "0 1 1 2\n0 1\n", "0 2 3\n1 0 0\n2 1\n")
    with pytest.warns(UserWarning, match="repeated") as caught:
        data = read_dataset(path, "tiny")
    assert [str(w.message).split(": ")[1] for w in caught] == [
        "3 repeated pairs are counted once",
        "1 test pairs are in train too and leave test",
        "2 users have test items but no train items",
        "2 items have test users but no train users",
    ]
    assert pairs(data.train) == {(0, 1), (0, 2)}
    assert pairs(data.test) == {(0, 3), (1, 0), (2, 1)}


def test_unusable_sets_are_refused(tmp_path):
    with pytest.raises(L2QError, match=r"train\.txt has no interactions"):
        read_dataset(folder(tmp_path, "0\n1\n", "0 1\n"), "empty")
    with pytest.raises(L2QError, match="item id 2000000000 leaves too many gaps"):
        read_dataset(folder(tmp_path, "0 2000000000\n", "0 1\n"), "gaps")


EVENTS = "who,what,when\nzoe,tea,1\nann,cocoa,2\nann,tea,3\nann,cocoa,4\nbob,tea,5\nann,milk,6\n"


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_events_table(tmp_path, kind):
    path = tmp_path / f"events.{kind}"
    if kind == "parquet":
        rows = [line.split(",") for line in EVENTS.split()]
        pa.parquet.write_table(pa.table(dict(zip(rows[0], zip(*rows[1:], strict=True), strict=True))), path)
    else:
        path.write_text(EVENTS.replace(",", "\t" if kind == "tsv" else ","))
    with pytest.warns(UserWarning, match="1 repeated pairs"):
        data = read_dataset(path, "shop")
    assert data.user_names.tolist() == ["ann", "bob", "zoe"]
    assert data.item_names.tolist() == ["cocoa", "milk", "tea"]
    assert pairs(data.train) | pairs(data.test) == {(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)}
    assert data.train.user_degrees.tolist() == [2, 1, 1]  # a fifth of 3 items is 1; 1 item stays in train
    assert data.test.user_degrees.tolist() == [1, 0, 0]


def test_texts_of_several_lines_are_no_events_and_a_stray_quote_is_told(tmp_path):
    """Also where a text lies across two of the reader's blocks of a megabyte."""
    rows = [(f"u{row % 50}", f"i{row % 4000}", 'line, "and\nline ' + "x" * 300) for row in range(8000)]
    with (tmp_path / "events.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("user", "item", "review"), *rows])
    with pytest.warns(UserWarning, match="8,000 lines lie inside quotes"):
        data = read_dataset(tmp_path / "events.csv", "shop")
    assert pairs(data.train) | pairs(data.test) == {
        (data.user_names.tolist().index(user), data.item_names.tolist().index(item)) for user, item, _ in rows
    }
    lines = ["who\twhat\ttitle", 'ann\ttea\t"Heroes', "bob\ttea\tx", 'cy\ttea\t"Untitled', "", "dan\ttea\tx"]
    (tmp_path / "events.tsv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="events.tsv: 2 lines lie inside quotes: .* or a stray quote"):
        assert read_dataset(tmp_path / "events.tsv", "shop", test_fraction=0).train.num_users == 2


def test_events_keep_numbers_as_strings_and_split_by_seed(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item:03}\n" for user in (7, 10) for item in range(50)))
    data = read_dataset(path, "numbers", split_seed=1)
    assert data.user_names.tolist() == ["10", "7"]
    assert data.item_names[:2].tolist() == ["000", "001"]
    assert data.test.user_degrees.tolist() == [10, 10]
    assert data.test.keys.tolist() == read_dataset(path, "numbers", split_seed=1).test.keys.tolist()
    assert data.test.keys.tolist() != read_dataset(path, "numbers", split_seed=2).test.keys.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read .*Empty CSV"),
        ("user\nann\n", "has one column, 'user'; .* commas between them in a .csv"),
        ("user,item\n", "has no interactions"),
        ("id,id\nann,tea\n", "the first two columns are both named 'id'; name them apart"),
        ("ann,12\nann,13\n", "the first line, ann, 12, has a number where"),
        ("7,10.5\n7,12\n", "the first line, 7, 10.5, has a number where .* put a header above it"),
        ("user,item\nann,tea\n,tea\n", "row 2 below the header has no user"),
        ('user,item\nann,tea\nann,"te\ra"\n', "row 2 below the header has a line break in item"),
        ("user,item\nann,tea\nbob,tea,5\n", "cannot read .*Expected 2 columns, got 3"),
        (
            ",user,item\n0,ann,tea\n1,ann,milk\n",
            "no user, column '', has two items, column 'user'.* these the col",
        ),
    ],
)
def test_bad_events_are_named(tmp_path, text, message):
    (tmp_path / "events.csv").write_text(text, newline="")
    with pytest.raises(L2QError, match=message) as caught:
        read_dataset(tmp_path / "events.csv", "shop")
    assert "\n" not in str(caught.value)


def test_columns_that_hardly_anyone_has_twice_are_asked_about(tmp_path):
    lines = [f"{second},u{second % 40},i{second % 30}" for second in (*range(300), 0)]
    lines[-1] = "0,u7,i7"  # one moment has two events
    (tmp_path / "events.csv").write_text("\n".join(["time,user,item", *lines]))
    with pytest.warns(
        UserWarning, match=r"1 of 301 events are test.* column 'time', .* 'user'; are these the"
    ):
        data = read_dataset(tmp_path / "events.csv", "shop")
    assert data.columns == ("time", "user")


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "events.csv").write_bytes("user,item\nann,thé\nann,café\n".encode("latin-1"))
    with pytest.raises(L2QError, match="column 'item' is not UTF-8 text; save the file as UTF-8"):
        read_dataset(tmp_path / "events.csv", "shop")


def test_of_a_table_nothing_may_be_left_out(tmp_path):
    (tmp_path / "events.csv").write_text("user,item\nann,tea\nann,milk\nbob,tea\n")
    data = read_dataset(tmp_path / "events.csv", "shop", test_fraction=0)
    assert pairs(data.train) == {(0, 0), (0, 1), (1, 1)}
    assert (len(data.test), data.test.num_users, data.test.num_items) == (0, 2, 2)
    with pytest.raises(
        L2QError, match=r"test_fraction is of a table; of a folder, test\.txt is the test part"
    ):
        read_dataset(folder(tmp_path, "0 1\n", "0 2\n"), "tiny", test_fraction=0)


def test_a_long_name_makes_no_other_longer(tmp_path):
    names = ["x" * 8000, *(f"{item:04}" for item in range(2000))]
    (tmp_path / "events.csv").write_text("user,item\n" + "".join(f"ann,{name}\n" for name in names))
    data = read_dataset(tmp_path / "events.csv", "shop")
    assert data.item_names.tolist() == sorted(names)
    (tmp_path / "items.txt").write_text("\n".join(names))
    read = read_names(tmp_path / "items.txt")
    assert read.tolist() == names
    assert data.item_names.nbytes == read.nbytes == 8 * 2001  # a pointer each; 64 MB as a unicode array


def test_numbers_are_missing_as_strings_are(tmp_path):
    """In a table with missing values pandas turns numbers to floats, and their gaps to NaN."""
    path = tmp_path / "events.parquet"
    pa.parquet.write_table(pa.table({"0": [7.0, 8.0, float("nan")], "1": [1, 2, 3]}), path)
    with pytest.raises(L2QError, match="row 3 below the header has no 0"):
        read_dataset(path, "shop")
    pa.parquet.write_table(pa.table({"0": [7.0, 8.0, 8.0], "1": [1, 2, 3]}), path)
    assert read_dataset(path, "shop").user_names.tolist() == ["7", "8"]
    same = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])
    pa.parquet.write_table(same, path)
    with pytest.raises(L2QError, match="both named 'id'"):
        read_dataset(path, "shop")


@pytest.mark.parametrize(
    ("name", "users", "items", "train", "test"),
    [
        ("gowalla", 29858, 40981, 810128, 217242),
        ("amazon_book_partial", 52643, 91599, 1871361, 603378),
        ("online_retail", 3691, 2779, 207418, 51876),
    ],
)
def test_public_sets(shared_data, name, users, items, train, test):
    data = read_dataset(shared_data(name), name)
    assert (data.train.num_users, data.train.num_items, len(data.train), len(data.test)) == (
        *(users, items, train, test),
    )


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "names.txt").write_bytes("\ufeffada\nben\n".encode())
    assert read_names(tmp_path / "names.txt").tolist() == ["ada", "ben"]


def named_pairs(events):
    """The pairs by name, and both sides' names."""
    return (
        {(events.user_names[user], events.item_names[item]) for user, item in pairs(events)},
        events.user_names.tolist(),
        events.item_names.tolist(),
    )


SHOP = ([("ann", "cocoa"), ("ann", "milk"), ("ann", "tea"), ("bob", "tea"), ("zoe", "tea")], ["ann", "bob", "zoe"],
        ["cocoa", "milk", "tea"])  # fmt: skip


def shop(kind, path):
    """``EVENTS`` as ``read_events`` takes them."""
    rows = [line.split(",") for line in EVENTS.split()]
    table = pa.table(dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True)))
    if kind in ("csv", "tsv"):
        (path / f"events.{kind}").write_text(EVENTS.replace(",", "\t" if kind == "tsv" else ","))
        return path / f"events.{kind}"
    if kind == "parquet":
        pa.parquet.write_table(table, path / "events.parquet")
        return str(path / "events.parquet")
    if kind == "arrow":  # in pieces
        return pa.concat_tables([table.slice(0, 2), table.slice(2)])
    if kind == "dictionaries":
        return table.set_column(0, "who", table["who"].dictionary_encode())
    frame = table.to_pandas()
    if kind == "pandas":
        return frame.set_index("when")  # an index is no column
    return frame.astype("category")


KINDS = ["csv", "tsv", "parquet", "arrow", "dictionaries", "pandas", "categories"]


@pytest.mark.parametrize("kind", KINDS)
def test_events_of_every_kind_are_the_same(tmp_path, kind):
    source = shop(kind, tmp_path)
    where = re.escape(str(source)) if kind in KINDS[:3] else "the table"
    with pytest.warns(UserWarning, match=f"^{where}: 1 repeated pairs are counted once$"):
        events = read_events(source)
    found, users, items = named_pairs(events)
    assert (sorted(found), users, items) == SHOP
    assert events.user_names.dtype == events.item_names.dtype == object


@pytest.mark.parametrize("kind", KINDS[:5])
def test_columns_are_chosen_by_name(tmp_path, kind):
    source = shop(kind, tmp_path)
    found, users, items = named_pairs(read_events(source, user="when", item="who"))
    assert found == {("1", "zoe"), ("2", "ann"), ("3", "ann"), ("4", "ann"), ("5", "bob"), ("6", "ann")}
    assert (users, items) == ([*"123456"], ["ann", "bob", "zoe"])
    for options, message in (
        ({"user": "buyer", "item": "what"}, "has no column 'buyer' for user; it has 'who', 'what', 'when'"),
        ({"user": "who", "item": "ware"}, "has no column 'ware' for item; it has 'who', 'what', 'when'"),
        ({"user": "who"}, "name both columns, user and item, or neither"),
        ({"item": "who"}, "name both columns, user and item, or neither"),
        ({"user": "who", "item": "who"}, "users and items are in one column, 'who'; name two"),
    ):
        with pytest.raises(L2QError, match=re.escape(message)):
            read_events(source, **options)


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "dok", "lil"])
def test_a_matrix_has_rows_and_columns_for_names(form):
    """Its explicit zeros are no events, and a negative entry is one."""
    coo = sparse.coo_array(([1.0, 0.0, 2.0, -1.0], ([0, 0, 1, 1], [2, 1, 0, 3])), shape=(3, 5))
    events = read_events(coo.asformat(form))
    assert pairs(events) == {(0, 2), (1, 0), (1, 3)}
    assert (events.num_users, events.num_items) == (3, 5)
    assert (events.user_names, events.item_names) == (None, None)
    assert (events.indptr.dtype, events.items.dtype) == (np.int64, np.int32)


def test_entries_of_one_pair_that_sum_to_something_are_one_event():
    twice = sparse.coo_array(([1, 1, 2], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert pairs(read_events(twice)) == pairs(read_events(twice.tocsr())) == {(0, 1), (1, 0)}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: sparse.csr_array((3, 4)), {}, "the matrix has no interactions"),
        (lambda: sparse.csr_array(([0.0], ([1], [1])), shape=(3, 4)), {}, "the matrix has no interactions"),
        (lambda: sparse.coo_array([0, 1, 1]), {}, "a sparse matrix has users for rows"),
        (lambda: sparse.eye_array(3), {"user": "u", "item": "i"}, "a sparse matrix has users for rows"),
        (lambda: pa.table({"u": pa.array([], pa.string()), "i": []}), {}, "the table has no interactions"),
        (
            lambda: pa.table({"u": ["a"]}),
            {},
            "the table has one column, 'u'; the first two are user and item$",
        ),
        (lambda: pa.table({"u": ["a", None], "i": [1, 2]}), {}, "row 2 below the header has no u$"),
        (lambda: pa.table({"u": ["a", ""], "i": [1, 2]}), {}, "row 2 below the header has no u$"),
        (
            lambda: pa.table({"u": [1, 2], "i": ["x\ny", "z"]}),
            {},
            "row 1 below the header has a line break in i",
        ),
        (
            lambda: pa.table({"u": [1], "i": [[2, 3]]}),
            {},
            "cannot read the table: Unsupported cast from list",
        ),
        (lambda: table_of(["u", "i", "u"]), {}, "the table has 2 columns named 'u'; name them apart"),
        (lambda: table_of(["u", "i", "i"]), {"user": "u", "item": "i"}, "the table has 2 columns named 'i'"),
        (lambda: pandas.DataFrame({"u": [7, 8], "i": [1, None]}), {}, "row 2 below the header has no i$"),
        (
            lambda: pandas.DataFrame({"u": ["a", 1], "i": [1, 2]}),
            {},
            "the table: Conversion failed for column u",
        ),
        (
            lambda: [("ann", "tea")],
            {},
            "events of type list cannot be read: give a path, a pandas, polars or Arrow",
        ),
        (lambda: np.eye(3), {}, "events of type ndarray cannot be read"),
        (lambda: "events.json", {}, "events.json is no table of events; give one of .csv, .tsv, .parquet"),
        (lambda: "nowhere.csv", {}, "cannot read nowhere.csv: .*No such file"),
        (lambda: "nowhere.parquet", {}, "cannot read nowhere.parquet: .*nowhere"),
    ],
)
def test_what_are_no_events_is_refused_in_one_line(make, options, message):
    with pytest.raises(L2QError, match=message) as caught:
        read_events(make(), **options)
    assert "\n" not in str(caught.value)


def table_of(names):
    return pa.Table.from_arrays([pa.array(["a"])] * len(names), names=names)


def test_numbers_of_a_data_frame_are_whole_where_they_can_be():
    """pandas turns whole numbers to floats beside a gap; the names stay those of the numbers."""
    frame = pandas.DataFrame({"u": [10, 9, 10, None], "i": [1.5, 2, 2, 3]}).dropna()
    events = read_events(frame)
    assert named_pairs(events) == ({("10", "1.5"), ("10", "2"), ("9", "2")}, ["10", "9"], ["1.5", "2"])
