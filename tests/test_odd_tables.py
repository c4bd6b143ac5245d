"""Tables as they come out of shops, spreadsheets, databases and notebooks: read rightly, or refused in one line."""

import gzip
import io
import lzma
import re
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import made
from scipy import sparse

from l2q.errors import L2QError
from l2q.events.read import read_events

EVENTS = made()
USERS = [f"user{n:02}" for n in range(20)]
ITEMS = [f"item{n:02}" for n in range(30)]


def lines(form, *above, of=EVENTS):
    """A text with a line of ``form`` for every event."""
    return "\n".join([*above, *(form.format(u=u, i=i, v=v, t=t) for u, i, v, t in of), ""])


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def grouped(form):
    """A line a user, with its items as ``form`` writes them."""
    of = {user: [f"item{i:02}" for u, i, *_ in EVENTS if u == user] for user in range(20)}
    return "\n".join(["user,items", *(f'user{user:02},"{form(items)}"' for user, items in of.items()), ""])


def npz_of_arrays():
    """A sparse matrix as SciPy saves it."""
    out = io.BytesIO()
    sparse.save_npz(out, sparse.eye(3, format="csr"))
    return out.getvalue()


def zip_without_a_name():
    """An archive whose one file has a name of no bytes but a zero, where names end."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("e", "user,item\n1,2\n")
    return out.getvalue().replace(b"e", b"\0")


def zip_of_a_broken_name():
    """An archive that says of a name that it is UTF-8, which it is not."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("caf\u00e9", "user,item\n1,2\n")
    return out.getvalue().replace("é".encode(), b"\xd0\x7f")


PLAIN = lines("user{u:02},item{i:02},{v}", "user,item,rating")

# name of the file: its content, and what is said of it
READ = {
    "named_gz.csv.gz": (PLAIN, ""),
    "named_zst.csv.zst": (PLAIN, ""),
    "named_json.json.gz": (lines('{{"user": "user{u:02}", "item": "item{i:02}"}}'), ""),
    "lzma.csv": (lzma.compress(PLAIN.encode(), format=lzma.FORMAT_ALONE), ""),
    "single_quotes.csv": (lines("'user{u:02}','item{i:02}',{v}", "'user','item','rating'"), "lose the quotes around"),
    "excel_texts.csv": (lines('="user{u:02}",="item{i:02}",{v}', "user,item,rating"), "lose the quotes around"),
    "python_bytes.csv": (lines("b'user{u:02}',b'item{i:02}'", "user,item"), "lose the quotes around"),
    "typographic.csv": (lines("“user{u:02}”,“item{i:02}”", "“user”,“item”"), "lose the quotes around"),
    "spaces_behind_quotes.csv": (lines('"user{u:02}" , "item{i:02}"', '"user" , "item"'), ""),
    "mysql.txt": (
        lines("| user{u:02} | item{i:02} |", "+--------+--------+", "| user   | item   |", "+--------+--------+"), ""
    ),
    "titles.csv": ("Report of a shop\n\n" + PLAIN, "above the table 2 lines are left out: 'Report of a shop'"),
    "no_times.csv": (
        lines("user{u:02},item{i:02},soon", "user,item,timestamp"), "'timestamp' has no times that can be read"
    ),
    "empty_comment.csv": (lines("user{u:02},item{i:02},{v}", "# made by a shop", "#", "user,item,rating"), ""),
    "comment_of_excel.csv": (lines("user{u:02},item{i:02},{v}", "# of a shop,,", "user,item,rating"), "from 2 to 5"),
    "comment_of_marks.csv": (lines("user{u:02},item{i:02},{v}", "#,,", "user,item,rating"), "from 2 to 5"),
    "names_twice.csv": (lines("user{u:02},item{i:02},{v}", "# user,item,rating", "user,item,rating"), "from 2 to 5"),
    "comment_of_names.csv": (lines("user{u:02},item{i:02},{v}", "# who,what,rating"), "from 2 to 5"),
    "empty_percent.tsv": (lines("user{u:02}\titem{i:02}\t{v}", "% \t", "user\titem\trating"), ""),
    "comma_and_tab.csv": (lines("user{u:02},\titem{i:02},\t{v}", "user,\titem,\trating"), ""),
    "sets.csv": (grouped(lambda items: repr(set(items))), "list 230 events"),
    "tuples.csv": (grouped(lambda items: repr(tuple(items))), "list 230 events"),
    "pandas_two_headers.csv": (
        lines("user{u:02},item{i:02},{v},1", ",,rating,rating", ",,mean,count", "user,item,,"),
        "the second line, , , mean, count, says more",
    ),
    "sqlcmd.txt": (
        lines("user{u:02}      item{i:02}", "user        item", "----------- -----------") + "\n(230 rows affected)\n",
        "",
    ),
    "sqlplus.txt": (
        lines("user{u:02}   item{i:02}", "USER_ID  ITEM_ID", "-------- --------") + "\n230 rows selected.\n", ""
    ),
    "psql.txt": (
        lines(" user{u:02}  | item{i:02}", " user_id | item_id", "---------+---------") + "(230 rows)\n\n", ""
    ),
    "oid.json": (
        lines('{{"user": "user{u:02}", "item": "item{i:02}", "at": {{"$date": "2020-01-01T00:00:00Z"}}}}'), ""
    ),
    "some_times_bad.csv": (
        lines("user{u:02},item{i:02},{t}", "user,item,ts").replace(",13", ",soon13", 12), "12 of 230 rows have no time"
    ),
    "thousands.csv": (lines('user{u:02},item{i:02},"{v},000"', "user,item,plays"), "goes from 2000 to 5000"),
    "thousands_semicolon.csv": (
        lines("user{u:02};item{i:02};{v},000", "user;item;Menge"), "commas in 'Menge' stand between thousands"
    ),
    "separators.csv": (lines("user{u:02}\x1fitem{i:02}", "user\x1fitem"), ""),
    "mixed_line_ends.csv": (PLAIN.replace("\n", "\r", 100), "carriage returns within lines end them"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_is_read_as_it_is_meant(tmp_path, name):
    content, said = READ[name]
    options = {"delimiter": "\x1f"} if name.startswith("separators") else {}
    read = read_events(put(tmp_path / name, content), **options)
    assert read.user_names.tolist() == USERS
    assert read.item_names.tolist() == ITEMS
    assert (len(read), read.reading.rows) == (230, 230)
    assert said in "\n".join(read.reading.notes)


GRADES = np.zeros((20, 30), int)
for user, item, value, _ in EVENTS:
    GRADES[user, item] = value

# name of the file: its content, and what the line holds
REFUSED = {
    "matrix.csv": ("\n".join(",".join(map(str, row)) for row in GRADES), ["as in a matrix of users x items"]),
    "named_matrix.csv": (
        "\n".join(
            [",".join(["user", *ITEMS])]
            + [",".join([f"user{u:02}", *(str(v or "") for v in row)]) for u, row in enumerate(GRADES)]
        ),
        ["as in a matrix of users x items"],
    ),
    "transposed.csv": (
        "\n".join(",".join(row) for row in zip(*(line.split(",") for line in PLAIN.split()), strict=True)),
        ["231 columns and 3 rows"],
    ),
    "libsvm.txt": (lines("1 {u}:1 {i}:1"), ["LIBSVM"]),
    "pairs_of_names_and_values.log": (lines("user=user{u:02} item=item{i:02} rating={v}"), ["names and values"]),
    "quotes_around_lines.csv": (lines('"user{u:02},item{i:02}"', '"user,item"'), ["quotes around whole lines"]),
    "not_set.csv": (
        lines("user{u:02},item{i:02}", "user,item").replace("user03", "(not set)"), ["(not set)", "missing=drop"]
    ),
    "census.csv": (
        "\n".join(f"{20 + n % 50}, Private, {n * 997}, Bachelors, 13, {n % 9 * 1000}" for n in range(150)),
        ["an item of its own", "user=1 and item=2"],
    ),
    "wine.csv": (
        "\n".join(f"{n % 3 + 1},{14.2 - n % 9 / 10},{1.7 + n % 7 / 10},{100 + n % 30}" for n in range(150)),
        ["3 users and 30 items in all", "user=1 and item=2"],
    ),
    "ragged_baskets.csv": (
        "\n".join(",".join([f"user{u:02}", *(f"item{i:02}" for i in range(u % 7 + 1))]) for u in range(60)),
        ["lists of items", "a line for each item"],
    ),
    "ja_nein.csv": (
        lines("user{u:02},item{i:02},{v}", "user,item,liked").replace(",2\n", ",nein\n").replace(",3\n", ",nein\n")
        .replace(",4\n", ",ja\n").replace(",5\n", ",ja\n"),
        ["'liked' 0", "liked = 'ja'"],
    ),
    "shop.arff": ("@relation shop\n@attribute user string\n@data\nu1,i1\nu2,i3\n", ["Weka"]),
    "server.log": (lines("2020-01-02 10:11:12 INFO user{u} bought item{i}, twice"), ["a log for people"]),
    "tuples.txt": (lines("('user{u:02}', 'item{i:02}'),"), ["a list of tuples", "without the brackets"]),
    "thumbs.csv": (
        lines("user{u:02},item{i:02},{v}", "user,item,reaction").replace(",2\n", ",👎\n").replace(",3\n", ",👎\n")
        .replace(",4\n", ",👍\n").replace(",5\n", ",👍\n"),
        ["79 of 230 events have 'reaction' '👎'", "reaction = '👍'"],
    ),
    "broken_name.zip": (zip_of_a_broken_name(), ["cannot unpack", "a zip file: 'utf-8' codec can't decode"]),
    "nameless.zip": (zip_without_a_name(), ["holds no table"]),
    "snappy": (b"\xff\x06\x00\x00sNaPpY" + bytes(300), ["Snappy"]),
    "compress.Z": (b"\x1f\x9d\x90" + bytes(300), ["compress"]),
    "encrypted.parquet": (b"PARE" + bytes(300) + b"PARE", ["encrypted"]),
    "matrix_market.csv": ("%%MatrixMarket matrix coordinate integer general\n3 3 1\n1 2 5\n", ["scipy.io.mmread"]),
    "scipy_sparse": (npz_of_arrays(), ["scipy.sparse.load_npz"]),
    "comments_alone.csv": ("# made by a shop\n# with no event\n", ["no events: no line holds one"]),
    "one_field.csv": ("\n".join(f"user{u:02}" for u in range(20)), ["a line is one field; delimiter= names"]),
    "empty.json": ("[]", ["no events"]),
    "no_record.json": ("{}", ["no events"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_in_one_line(tmp_path, name):
    content, said = REFUSED[name]
    with pytest.raises(L2QError) as caught:
        read_events(put(tmp_path / name, content))
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoding": "idna"}, "encoding='idna' is none"),
        ({"encoding": "base64"}, "encoding='base64' is none"),
        ({"min_value": "4"}, "min_value='4' is no number"),
        ({"min_value": 9}, "no row of 230 remains (230 rating below 9)"),
        ({"user": "item", "item": "item"}, "users and items are in one column, 'item'; name two"),
        ({"where": 3}, "where=3 is no text"),
        ({"query": 3}, "query=3 is no text"),
        ({"delimiter": 3}, "delimiter=3 is no text"),
        ({"header": "yes"}, "header='yes' is neither True nor False"),
    ],
)
def test_options_of_another_kind_are_named(tmp_path, options, said):
    with pytest.raises(L2QError, match=re.escape(said)):
        read_events(put(tmp_path / "events.csv", PLAIN), **options)


def test_an_empty_path_is_no_folder():
    with pytest.raises(L2QError, match="the path of the table is empty"):
        read_events("")


@pytest.mark.parametrize("form", ["{u}e{v}", "{u:03}E{v}"])
def test_codes_with_an_e_are_no_numbers(tmp_path, form):
    names = sorted({form.format(u=u, v=v) for u, _, v, _ in EVENTS})
    read = read_events(put(tmp_path / "events.csv", lines(form + ",{i}", "user,item")), user=1, item=2)
    assert read.user_names.tolist() == names


def test_long_numbers_of_json_keep_their_digits(tmp_path):
    text = lines(
        '{{"user": {u}, "item": {i}}}', of=[(2**63 + u * 2, 2**64 + i, v, t) for u, i, v, t in EVENTS]
    )
    read = read_events(put(tmp_path / "events.json", text))
    assert read.user_names.tolist() == sorted(str(2**63 + 2 * u) for u in range(20))
    assert read.item_names.tolist() == sorted(str(2**64 + i) for i in range(30))


@pytest.mark.parametrize(("kind", "first"), [("float64", 2**60), ("float32", 2**24)])
def test_floats_that_leave_out_numbers_are_told(kind, first):
    frame = pd.DataFrame(
        {"user": np.array([first + u for u, *_ in EVENTS], kind), "item": [i for _, i, *_ in EVENTS]}
    )
    read = read_events(frame)
    assert any("are floats, which leave out numbers" in note for note in read.reading.notes)
    assert read.user_names[0] == str(first)
    assert not any(
        "floats" in note for note in read_events(frame.assign(user=frame.user % 2**20)).reading.notes
    )


FRAME = pd.DataFrame(
    [(f"user{u:02}", f"item{i:02}", v) for u, i, v, _ in EVENTS], columns=["user", "item", "rating"]
)
MONTHS = ["2020-01", "2021-05"] * 115
SECONDS = {"2020-01": 1577836800.0, "2021-05": 1619827200.0}  # their firsts, by date --utc


@pytest.mark.parametrize(
    "frame",
    [
        FRAME.set_index(["user", "item"]).rating,
        FRAME.set_index(["user", "item"]).rating.rename(None),
        FRAME.set_index("user", drop=False),
        FRAME.assign(rating=pd.arrays.SparseArray(FRAME.rating)),
    ],
    ids=["a series", "one without a name", "an index that is a column", "sparse values"],
)
def test_frames_of_other_shapes_hold_the_same(frame):
    read = read_events(frame)
    assert read.user_names.tolist() == USERS
    assert np.array_equal(read.to_csr().toarray() > 0, GRADES > 0)


@pytest.mark.parametrize("times", [pd.PeriodIndex(MONTHS, freq="M"), pd.to_datetime(MONTHS)])
def test_periods_and_moments_of_frames_are_times(times):
    read = read_events(FRAME.assign(at=times))
    expected = {(u, i): SECONDS[month] for (u, i, *_), month in zip(EVENTS, MONTHS, strict=True)}
    pairs = zip(read.users.tolist(), read.items.tolist(), read.times.tolist(), strict=True)
    assert {(user, item): time for user, item, time in pairs} == expected


def test_numbers_of_fourteen_digits_are_times(tmp_path):
    text = lines("user{u:02},item{i:02},202001021530{u:02}", "user,item,ts")
    read = read_events(put(tmp_path / "events.csv", text))
    # 2020-01-02 15:30:00, by date --utc, and the seconds are the user's
    assert (read.times - read.users).tolist() == [1577979000.0] * 230


def test_a_list_of_entries_is_no_matrix():
    with pytest.raises(L2QError, match="has two dimensions, not 1"):
        read_events(sparse.coo_array([1, 0, 1]))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ('"[{u}, {i}]",item{i:02}', "lists or records ('[13, 4]')"),
        ("{u}.12345,item{i:02}", "numbers with fractions ('13.12345')"),
    ],
)
def test_a_column_that_can_be_no_user_is_refused_where_it_is_named(tmp_path, form, said):
    path = put(tmp_path / "events.csv", lines(form, "user,item"))
    with pytest.raises(L2QError, match=re.escape(f"user= names the column 'user', which has {said}")):
        read_events(path, user="user")


def test_times_that_are_named_as_users_are_taken_and_told(tmp_path):
    read = read_events(put(tmp_path / "events.csv", lines("{t},item{i:02}", "user,item")), user="user")
    assert len(read.user_names) == 230
    assert "'user' is taken for the users, though its numbers look like times" in read.reading.notes


def test_names_of_two_numbers_and_a_point_are_users(tmp_path):
    text = lines("1000{u:05}.16100000{u:02},sku{i}", "user_pseudo_id,item_id")
    read = read_events(put(tmp_path / "events.csv", text))
    assert read.user_names[0] == "100000000.1610000000"
    assert len(read) == 230


def test_parts_may_have_their_columns_in_another_order(tmp_path):
    put(
        tmp_path / "shop" / "part-0.csv",
        lines("user{u:02},item{i:02},{v}", "user,item,rating", of=EVENTS[:100]),
    )
    put(
        tmp_path / "shop" / "part-1.csv",
        lines("item{i:02},{v},user{u:02}", "item,rating,user", of=EVENTS[100:]),
    )
    read = read_events(tmp_path / "shop")
    assert read.user_names.tolist() == USERS
    assert read.item_names.tolist() == ITEMS
    assert np.array_equal(read.to_csr().toarray() > 0, GRADES > 0)


def test_a_delimiter_that_stands_nowhere_is_told(tmp_path):
    path = put(tmp_path / "events.csv", PLAIN)
    with pytest.raises(L2QError, match="no line has two fields with ';' between them; delimiter= names"):
        read_events(path, delimiter=";")


def test_a_copy_among_parts_is_told(tmp_path):
    put(tmp_path / "shop" / "ratings.csv", PLAIN)
    put(tmp_path / "shop" / "ratings (1).csv.gz", gzip.compress(PLAIN.encode()))
    assert any("holds the same as" in note for note in read_events(tmp_path / "shop").reading.notes)


# names of one side as they are written, and the note
ALIKE = {
    "leading zeros": ("{u:03}", "{u}"),
    "the spaces within": ("user  {u}", "user {u}"),
    "letter case": ("User{u}", "user{u}"),
}


@pytest.mark.parametrize("what", ALIKE)
def test_names_that_hardly_differ_are_kept_and_told(tmp_path, what):
    one, other = ALIKE[what]
    text = lines(one + ",item{i}", "user,item", of=EVENTS[::2]) + lines(other + ",item{i}", of=EVENTS[1::2])
    read = read_events(put(tmp_path / "events.csv", text))
    assert any(f"differ from another by {what} alone" in note for note in read.reading.notes)


def test_letters_that_were_lost_before_are_told(tmp_path):
    read = read_events(put(tmp_path / "events.csv", PLAIN.replace("item0", "caf\ufffd0")))
    assert any("letters were lost" in note for note in read.reading.notes)


@pytest.mark.parametrize("name", ["-1", "guest"])
def test_a_user_that_stands_for_many_is_told_with_a_condition_that_leaves_it_out(tmp_path, name):
    text = "user,item\n" + "".join(f"{name if t % 3 else f'u{u}'},{i}\n" for u, i, _, t in EVENTS)
    read = read_events(put(tmp_path / "events.csv", text))
    (note,) = (note for note in read.reading.notes if note.startswith("one user"))
    where = note.split('where="')[1].split('"')[0]
    assert name not in read_events(tmp_path / "events.csv", where=where).user_names


@pytest.mark.parametrize(
    ("plain", "odd", "said"),
    [
        ("{t}000", "{t}", "before 1980"),
        ("{t}", "0.5", "before 1980"),
        ("2020-01-02", "9999-12-31", "after 2100"),
    ],
)
def test_times_far_off_are_told(tmp_path, plain, odd, said):
    rows = lines("{u},{i}," + plain, "user,item,ts", of=EVENTS[:200]) + lines(
        "{u},{i}," + odd, of=EVENTS[200:]
    )
    notes = read_events(put(tmp_path / "events.csv", rows)).reading.notes
    assert any(f"30 of 230 rows have a time {said} in 'ts'" in note for note in notes)


def test_a_matrix_tells_what_its_entries_are():
    matrix = sparse.csr_array(GRADES.astype(float))
    read = read_events(matrix)
    assert read.values.tolist() == matrix.data.tolist()
    assert "min_value=4" in "\n".join(read.reading.notes)
    assert len(read_events(matrix, min_value=4)) == (GRADES >= 4).sum()
    for value, said in (
        (-1, "50 of 230 entries of the matrix are below 0"),
        (np.nan, "50 of 230 .* are NaN"),
    ):
        odd = matrix.copy()
        odd.data[:50] = value
        with pytest.raises(L2QError, match=said):
            read_events(odd)
        assert len(read_events(odd, min_value=1)) == 180
        assert len(read_events(odd, value="none")) == 230
    with pytest.raises(L2QError, match="complex"):
        read_events(matrix.astype(complex))
    twice = sparse.coo_array(([1, -1, 1], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    assert len(read_events(twice)) == 1  # SciPy's entries of one place are a sum


def test_bytes_that_are_no_text_are_refused():
    wrong = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 2, 4], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb\xfe")]
    )
    with pytest.raises(L2QError, match="cannot read the table"):
        read_events(pa.table({"user": wrong, "item": ["i1", "i2"]}))


def test_no_password_of_any_address_is_shown():
    with pytest.raises(L2QError) as caught:
        read_events("mysql://me:secret@host/shop::orders")
    assert "secret" not in str(caught.value)
    assert "CSV or Parquet" in str(caught.value)


def test_the_order_of_day_and_month_is_asked_for_where_no_row_tells(tmp_path):
    path = put(
        tmp_path / "events.csv",
        "user,item,when\n"
        + "".join(f"{u},{i},{t % 12 + 1:02}/{t // 100 % 12 + 1:02}/2010\n" for u, i, _, t in EVENTS),
    )
    said = "'when' may have the day or the month first, and no row tells: months are taken as first; day_first=true"
    assert any(note.startswith(said) for note in read_events(path).reading.notes)
    first = EVENTS[0]
    for day_first in (True, False):
        read = read_events(path, day_first=day_first)
        assert not any("no row tells" in note for note in read.reading.notes)
        one, other = first[3] % 12 + 1, first[3] // 100 % 12 + 1
        day, month = (one, other) if day_first else (other, one)
        place = [
            read.user_names[u] + " " + read.item_names[i] for u, i in zip(read.users, read.items, strict=True)
        ]
        when = read.times[place.index(f"{first[0]} {first[1]}")]
        assert when == np.datetime64(f"2010-{month:02}-{day:02}", "s").astype(int)
    with pytest.raises(
        L2QError, match="day_first=true is of dates such as 01/12/2010; times are in no column"
    ):
        read_events(put(tmp_path / "plain.csv", PLAIN), day_first=True)


@pytest.mark.parametrize("name", ["Total", "Grand Total:", "SUM", "Gesamt", "Sub-total", "合计"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_row_of_sums_is_said(tmp_path, name, side):
    rows = [f"u{n % 12},i{n % 7}" for n in range(60)]
    last = f"{name},i3" if side == "user" else f"u3,{name}"
    (tmp_path / "events.csv").write_text("user,item\n" + "\n".join([*rows, last]) + "\n", "utf-8")
    said = [
        note for note in read_events(tmp_path / "events.csv").reading.notes if "sum of other rows" in note
    ]
    assert len(said) == 1
    assert f"{name!r} is taken for a" in said[0]
    assert f"{side} <> '{name}'" in said[0]


def test_a_name_that_only_begins_like_a_sum_is_a_name(tmp_path):
    rows = [f"u{n % 12},{('Total Recall', 'Sum 41', 'i1')[n % 3]}" for n in range(60)]
    (tmp_path / "events.csv").write_text("user,item\n" + "\n".join(rows) + "\n")
    assert "sum of other rows" not in " ".join(read_events(tmp_path / "events.csv").reading.notes)


def is_all(read):
    """Whether the events are those that were written."""
    return (
        read.user_names.tolist() == USERS
        and read.item_names.tolist() == ITEMS
        and np.array_equal(read.to_csr().toarray() > 0, GRADES > 0)
    )


def test_an_empty_part_among_others_is_left_out_and_empty_ones_alone_are_refused(tmp_path):
    put(tmp_path / "shop" / "part-0.csv", PLAIN)
    put(tmp_path / "shop" / "part-1.csv", "")
    assert is_all(read_events(tmp_path / "shop"))
    put(tmp_path / "shop" / "part-0.csv", "")
    with pytest.raises(L2QError, match=r"part-\d\.csv is empty"):
        read_events(tmp_path / "shop")


def test_parts_may_have_their_names_in_a_comment_each(tmp_path):
    for number, of in enumerate((EVENTS[:100], EVENTS[100:])):
        text = lines("user{u:02},item{i:02},{v}", "# user,item,rating", of=of)
        put(tmp_path / "shop" / f"part-{number}.csv", text)
    assert is_all(read_events(tmp_path / "shop"))


def test_parts_of_two_kinds_of_json_are_refused(tmp_path):
    put(tmp_path / "shop" / "part-0.json", lines('{{"user": "user{u:02}", "item": "item{i:02}"}}'))
    put(tmp_path / "shop" / "part-1.json", '[{"user": "u1", "item": "i1"}]')
    with pytest.raises(L2QError, match="shop mixes JSON lines and arrays of objects"):
        read_events(tmp_path / "shop")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": {"b": 1}, "c": [2]}', "is one object, with 'a', 'c'"),
        ("{'user': 'u1', 'item': 'i1'}\n{'user': 'u2', 'item': 'i1'}\n", "is written in Python, not JSON"),
    ],
)
def test_json_that_is_no_table_is_refused(tmp_path, text, said):
    with pytest.raises(L2QError, match=re.escape(said)):
        read_events(put(tmp_path / "events.json", text))


@pytest.mark.parametrize("form", [lambda item: item, lambda item: {"item": item, "amount": 2}])
def test_lists_of_typed_files_and_frames_are_unfolded(tmp_path, form):
    items = [[form(f"item{i:02}") for u, i, *_ in EVENTS if u == user] for user in range(20)]
    frame = pa.table({"user": USERS, "items": items})
    pq.write_table(frame, tmp_path / "baskets.parquet")
    for source in (tmp_path / "baskets.parquet", frame, frame.to_pandas()):
        read = read_events(source)
        assert is_all(read)
        assert "20 rows list 230 events in 'items': each element is one" in read.reading.notes
