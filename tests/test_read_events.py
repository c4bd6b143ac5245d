"""``l2q.read_events``: the same interactions from every kind of source, and what is refused."""

import re

import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.parquet
import pytest
from scipy import sparse

import l2q
from l2q.errors import L2QError
from l2q.events.read import read_events

EVENTS = "who,what,when\nzoe,tea,1\nann,cocoa,2\nann,tea,3\nann,cocoa,4\nbob,tea,5\nann,milk,6\n"
PAIRS = [("ann", "cocoa"), ("ann", "milk"), ("ann", "tea"), ("bob", "tea"), ("zoe", "tea")]
KINDS = ["csv", "tsv", "parquet", "arrow", "dictionaries", "pandas", "categories", "polars"]


def pairs(events):
    return set(zip(events.users.tolist(), events.items.tolist(), strict=True))


def named_pairs(events):
    return sorted((events.user_names[user], events.item_names[item]) for user, item in pairs(events))


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
    if kind == "polars":
        return polars.from_arrow(table)
    frame = table.to_pandas()
    return frame.set_index("when") if kind == "pandas" else frame.astype("category")


def test_it_is_public():
    assert l2q.read_events is read_events


@pytest.mark.parametrize("kind", KINDS)
def test_events_of_every_kind_are_the_same(tmp_path, kind):
    source = shop(kind, tmp_path)
    events = read_events(source)
    assert named_pairs(events) == PAIRS
    assert events.user_names.tolist() == ["ann", "bob", "zoe"]
    assert events.item_names.tolist() == ["cocoa", "milk", "tea"]
    assert events.user_names.dtype == events.item_names.dtype == object
    assert events.indptr.dtype == np.int64
    assert events.items.dtype == events.counts.dtype == np.int32
    assert events.counts.tolist() == [2, 1, 1, 1, 1]
    assert events.times.tolist() == [2, 6, 3, 5, 1]
    reading = events.reading
    assert reading.source == (str(source) if kind in KINDS[:3] else "the table")
    assert dict(reading.columns) == {"user": "who", "item": "what", "time": "when"}
    assert (reading.rows, reading.merged, dict(reading.dropped)) == (6, 1, {})


@pytest.mark.parametrize("kind", KINDS)
def test_columns_are_chosen_by_name_or_number(tmp_path, kind):
    source = shop(kind, tmp_path)
    events = read_events(source, user="when", item="who", time="none")
    assert named_pairs(events) == [
        ("1", "zoe"),
        ("2", "ann"),
        ("3", "ann"),
        ("4", "ann"),
        ("5", "bob"),
        ("6", "ann"),
    ]
    assert events.times is None
    assert events.reading.unread == ("what",)
    assert named_pairs(read_events(source, item="WHAT", user="Who")) == PAIRS
    if kind != "pandas":  # whose index stands first
        assert named_pairs(read_events(source, item=2, user="1")) == PAIRS
    for options, message in (
        ({"user": "buyer", "item": "what"}, "has no column 'buyer' for user=; it has "),
        ({"user": "who", "item": "ware"}, "has no column 'ware' for item=; it has "),
        ({"item": 4}, "has no column '4' for item=; it has "),
        ({"user": "who", "item": "who"}, "users and items are in one column, 'who'; name two"),
        ({"item": "none"}, "has no column 'none' for item="),
    ):
        with pytest.raises(L2QError, match=re.escape(message)):
            read_events(source, **options)


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "dok", "lil"])
def test_a_matrix_has_rows_and_columns_for_names(form):
    """Its explicit zeros are no events, and a negative entry is one where it is said."""
    coo = sparse.coo_array(([1.0, 0.0, 2.0, -1.0], ([0, 0, 1, 1], [2, 1, 0, 3])), shape=(3, 5))
    with pytest.raises(
        L2QError, match="1 of 3 entries of the matrix are below 0: dislikes or returns; min_value=1"
    ):
        read_events(coo.asformat(form))
    events = read_events(coo.asformat(form), value="none")
    assert pairs(events) == {(0, 2), (1, 0), (1, 3)}
    assert (events.num_users, events.num_items) == (3, 5)
    assert (events.user_names, events.item_names) == (None, None)
    assert (events.indptr.dtype, events.items.dtype) == (np.int64, np.int32)


def test_entries_of_one_pair_that_sum_to_something_are_one_event():
    twice = sparse.coo_array(([1, 1, 2], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert pairs(read_events(twice)) == pairs(read_events(twice.tocsr())) == {(0, 1), (1, 0)}


def table_of(names):
    return pa.Table.from_arrays([pa.array(["a"])] * len(names), names=names)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: sparse.csr_array((3, 4)), {}, "the matrix has no interactions"),
        (lambda: sparse.csr_array(([0.0], ([1], [1])), shape=(3, 4)), {}, "the matrix has no interactions"),
        (lambda: sparse.coo_array([0, 1, 1]), {}, "a matrix of users x items has two dimensions, not 1"),
        (lambda: sparse.eye_array(3), {"user": "u", "item": "i"}, "a sparse matrix has users for rows"),
        (lambda: sparse.eye_array(3), {"min_value": 2}, "the matrix has no interactions"),
        (lambda: pa.table({"u": pa.array([], pa.string()), "i": []}), {}, "the table has no interactions"),
        (lambda: pa.table({"user": ["a"]}), {}, "the table has one column, 'user'"),
        (lambda: pa.table({"u": ["a", None], "i": [1, 2]}), {}, r"1 of 2 rows have no user in 'u' \(1 empty\)"),
        (lambda: pa.table({"u": ["a", ""], "i": [1, 2]}), {}, r"1 of 2 rows have no user in 'u' \(1 empty\)"),
        (lambda: pa.table({"u": [1], "i": [[2, 3]]}), {}, "'i' holds lists or records; a row is one event"),
        (lambda: pandas.DataFrame({"u": [7, 8], "i": [1, None]}), {}, r"1 of 2 rows have no item in 'i' \(1 null\)"),
        (lambda: [("ann", "tea")], {}, "list"),
        (lambda: np.eye(3), {}, "ndarray"),
        (lambda: "nowhere.csv", {}, "nowhere.csv"),
        (lambda: "nowhere.parquet", {}, "nowhere.parquet"),
        (lambda: table_of(["user", "item"]), {"missing": "ignore"}, "missing='ignore' is none of error, drop, keep"),
        (lambda: table_of(["user", "item"]), {"dedupe": "all"}, "dedupe='all' is none of first, last"),
        (lambda: table_of(["user", "item"]), {"min_value": 3}, "min_value=3 needs .* no column of values"),
        (lambda: table_of(["user", "item", "text"]), {"value": "text", "min_value": 3}, "'text' holds texts"),
        (lambda: table_of(["user", "item", "when"]), {"time": "when"}, "time= names .* 'when', which has no times"),
        (lambda: table_of(["user", "item"]), {"where": "item = 'b'"}, "leaves no row of 1"),
    ],
)  # fmt: skip
def test_what_are_no_events_is_refused_in_one_line(make, options, message):
    with pytest.raises(L2QError, match=message) as caught:
        read_events(make(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item\n", "has no interactions"),
        ("user,item\nann,tea\n,tea\n", r"1 of 2 rows have no user in 'user' \(1 empty\); missing=drop .* missing=keep"),
        ("user\nann\nbob\n", "events.csv"),
        ("", "events.csv"),
    ],
)  # fmt: skip
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "events.csv").write_text(text, newline="")
    with pytest.raises(L2QError, match=message) as caught:
        read_events(tmp_path / "events.csv")
    assert "\n" not in str(caught.value)


def test_numbers_of_a_data_frame_are_whole_where_they_can_be():
    """pandas turns whole numbers to floats beside a gap; the names stay those of the numbers."""
    frame = pandas.DataFrame({"user": [10, 9, 10, None], "item": ["1.5x", "2", "2", "3"]}).dropna()
    events = read_events(frame)
    assert named_pairs(events) == [("10", "1.5x"), ("10", "2"), ("9", "2")]
    assert not events.reading.notes


def test_numbers_in_text_stay_texts(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("user,item\n" + "".join(f"{user},{item:03}\n" for user in (7, 10) for item in range(50)))
    events = read_events(path)
    assert events.user_names.tolist() == ["10", "7"]
    assert events.item_names[:2].tolist() == ["000", "001"]


def test_a_long_name_makes_no_other_longer(tmp_path):
    names = ["x" * 8000, *(f"{item:04}" for item in range(2000))]
    (tmp_path / "events.csv").write_text(
        "user,item\n" + "".join(f"u{n % 9},{name}\n" for n, name in enumerate(names))
    )
    events = read_events(tmp_path / "events.csv")
    assert events.item_names.tolist() == sorted(names)
    assert events.item_names.nbytes == 8 * 2001  # a pointer each; 64 MB as a unicode array


@pytest.mark.parametrize("dedupe", ["first", "last"])
@pytest.mark.parametrize("seed", range(3))
def test_repeated_pairs_keep_one_event_as_a_loop_does(dedupe, seed):
    """By time, then by row; without a time behind all others."""
    rng = np.random.default_rng(seed)
    count = 400
    users, items = rng.integers(0, 5, count), rng.integers(0, 9, count)
    times = rng.integers(0, 30, count).astype(float) + 1e9
    times[rng.random(count) < 0.2] = np.nan
    ratings = rng.permutation(count) + 1.0
    frame = pandas.DataFrame({"user": users, "item": items, "timestamp": times, "rating": ratings})
    kept = {}
    for row, pair in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        kept.setdefault(pair, []).append(row)
    events = read_events(frame, dedupe=dedupe)
    assert len(events) == len(kept)
    assert events.reading.merged == count - len(kept)
    for place, (user, item) in enumerate(zip(events.users.tolist(), events.items.tolist(), strict=True)):
        rows = kept[int(events.user_names[user]), int(events.item_names[item])]
        timed = [row for row in rows if not np.isnan(times[row])] or rows
        # Of equal times the first row counts for "first", the last for "last".
        choose = min if dedupe == "first" else max
        best = choose(timed, key=lambda row: (times[row], row))
        if np.isnan(times[timed[0]]):
            best = rows[0] if dedupe == "first" else rows[-1]
        assert events.counts[place] == len(rows)
        assert events.values[place] == ratings[best]
        assert np.array_equal(events.times[place], times[best], equal_nan=True)


def test_without_a_time_the_row_decides():
    frame = pandas.DataFrame({"user": [1, 2, 1, 1], "item": [5, 5, 5, 5], "rating": [3.0, 4.0, 5.0, 4.0]})
    assert read_events(frame).values.tolist() == [3, 4]
    assert read_events(frame, dedupe="last").values.tolist() == [4, 4]


def test_advice_on_a_table_without_names_can_be_followed(tmp_path):
    path = tmp_path / "log.csv"
    rows = [
        (f"u{u}", f"i{(u + step) % 11}", "buy" if step in (2, 3) else "view")
        for u in range(30)
        for step in range(6)
    ]
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    (note,) = [note for note in l2q.read_events(path).reading.notes if "count alike" in note]
    found = re.search(r'where="(.*)" takes one kind', note)
    assert found
    assert found[1] == "column3 = 'buy'"
    assert len(l2q.read_events(path, where=found[1])) == 60
    with pytest.raises(l2q.L2QError, match="no column 'column4'; the table has column1, column2, column3;"):
        l2q.read_events(path, where="column4 = 'buy'")


def test_codes_of_kinds_are_listed_and_get_no_advice_of_a_cut(tmp_path):
    path = tmp_path / "log.csv"
    rows = [(u, f"i{(u + step) % 11}", step % 4) for u in range(30) for step in range(8)]
    path.write_text("user_id,item_id,action_type\n" + "".join("{},{},{}\n".format(*row) for row in rows))
    (note,) = [note for note in l2q.read_events(path).reading.notes if "action_type" in note]
    assert note == (
        "events of every 'action_type' count alike (0 60, 1 60, 2 60, 3 60); where=\"action_type = 3\" takes one kind"
    )


def test_lines_of_prose_that_are_all_the_same_are_no_table(tmp_path):
    path = tmp_path / "read.txt"
    path.write_text("hello this is text\n" * 5)
    with pytest.raises(l2q.L2QError, match="there is one user in all, column 'column1', and one item"):
        l2q.read_events(path)
