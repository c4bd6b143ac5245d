"""Names, missing ids, values, times and conditions: what is mended, counted, noted or refused."""

import random
import re

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.events.likes import is_no, of_kinds, of_numbers
from l2q.events.read import read_events


def table(path, header, rows):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (path / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / "events.csv"


def events(path, last=lambda n: (), header="user,item", count=60):
    """Events of 6 users and 10 items, each with what ``last`` makes of its number."""
    pairs = [(f"u{user}", f"i{item}") for user in range(6) for item in range(10)]
    random.Random(0).shuffle(pairs)
    return table(path, header, [(*pairs[n], *last(n)) for n in range(count)])


def names(path, users):
    read = read_events(table(path, "user,item", [(f'"{user}"', f"i{n}") for n, user in enumerate(users)]))
    return read.user_names.tolist(), list(read.reading.notes)


@pytest.mark.parametrize(
    ("users", "expected", "note"),
    [
        (["17", "17.0", "18"], ["17", "18"], "3 user names become 2 .*'17.0' is '17'"),
        (["17.0", "18.0"], ["17", "18"], "2 user names are whole numbers, written without the point"),
        (["1.7e4", "17000", "3.0"], ["17000", "3"], "3 user names become 2"),
        (["A17", "17.0", "17"], ["17", "A17"], "3 user names become 2"),
        (["v1.0", "1.0", "1.1", "1"], ["1", "1.0", "1.1", "v1.0"], None),  # versions
        (["1e5x", "1e5", "100000"], ["100000", "1e5", "1e5x"], None),
        (["007", "7", "07"], ["007", "07", "7"], "2 of 3 user names differ from another by leading zeros alone"),
        (["ann", "ann ", " ann", "ann\u00a0", "\u3000ann\ufeff"], ["ann"], "5 user names become 1 without the spaces"),
        (["ann ", "bob"], ["ann", "bob"], "1 user names lose the spaces around them"),
        (["ann lee", "ann  lee"], ["ann  lee", "ann lee"], "1 of 2 user names differ .* the spaces within"),
        (["Ann", "ann", "bob"], ["Ann", "ann", "bob"], "1 of 3 user names differ from another by letter case alone"),
        (["é", "e\u0301", "bob"], ["e\u0301", "bob", "é"], "1 of 3 user names differ from another by Unicode form"),
        (["1.23E+12", "1.24E+12", "1.24E+12x"], None, "cut short by a spreadsheet"),
        (["-1", "1"], ["-1", "1"], None),
    ],
)  # fmt: skip
def test_names_are_compared_as_people_mean_them(tmp_path, users, expected, note):
    found, notes = names(tmp_path, users)
    if expected is not None:
        assert found == sorted(expected)
    if note is None:
        assert not notes
    else:
        assert re.search(note, "\n".join(notes))


MISSING = [
    "",
    "NA",
    "N/A",
    "nan",
    "NaN",
    "null",
    "NULL",
    "None",
    "\\N",
    "-",
    "?",
    "unknown",
    "<NA>",
    " ",
    "#N/A",
]


@pytest.mark.parametrize("spelling", MISSING)
def test_missing_ids_are_counted_and_settled_by_an_option(tmp_path, spelling):
    rows = [(spelling if n % 4 == 0 else f"u{n % 5}", f"i{n % 7}") for n in range(40)]
    path = table(tmp_path, "user,item", rows)
    said = spelling.strip() or "empty"
    with pytest.raises(
        L2QError, match=rf"10 of 40 rows have no user in 'user' \(10 {re.escape(said)}\); missing=drop"
    ):
        read_events(path)
    dropped = read_events(path, missing="drop")
    assert dropped.num_users == 5
    assert dict(dropped.reading.dropped) == {"without user": 10}
    kept = read_events(path, missing="keep")
    assert kept.num_users == 6
    assert (spelling.strip() or "(missing)") in kept.user_names.tolist()
    assert any("10 rows without user are kept" in note for note in kept.reading.notes)


def test_what_merely_looks_missing_is_a_name(tmp_path):
    path = table(tmp_path, "user,item", [("nana", "NAN1"), ("Nathan", "no"), ("0", "unknown pleasures")])
    assert read_events(path).num_users == 3


def test_headers_within_and_both_sides_missing(tmp_path):
    rows = [
        ("u1", "i1"),
        ("user", "item"),
        ("", "NA"),
        ("u2", "i1"),
        ("user", "item"),
        ("u1", "i2"),
        ("user", "i1"),
    ]
    path = table(tmp_path, "user,item", [*rows, *((f"u{n}", f"i{n % 3}") for n in range(9))])
    with pytest.raises(L2QError, match=r"no user .* and 1 of .* rows have no item"):
        read_events(path)
    read = read_events(path, missing="drop")
    assert read.reading.dropped["repeated header"] == 2
    assert read.reading.dropped["without user"] == 1  # of which the item is missing too
    assert "user" in read.user_names.tolist()  # the one with an item


def test_line_breaks_within_names_become_spaces(tmp_path):
    import pandas

    read = read_events(pandas.DataFrame({"user": ["a\nb", "a b", "c"], "item": ["x\r\ny", "x", "x"]}))
    assert read.user_names.tolist() == ["a b", "c"]
    assert read.item_names.tolist() == ["x", "x y"]
    assert any("3 user names become 2 with spaces for line breaks" in note for note in read.reading.notes)
    assert any("1 item names hold line breaks" in note for note in read.reading.notes)


REFUSED = {
    "label 0": ("label", lambda n: n % 2, "30 of 60 events have 'label' 0", "label = 1", 1),
    "clicks": ("is_click", lambda n: int(n % 3 == 0), "40 of 60 events have 'is_click' 0", "is_click = 1", 1),
    "truth": ("liked", lambda n: n % 2 == 0, "30 of 60 events have 'liked' 0", "liked = true", 1),
    "yes and no": ("recommended", lambda n: "No" if n % 3 else "Yes", "40 of 60 events", "recommended = 'Yes'", 1),
    "minus one": ("rating", lambda n: (-1, 1)[n % 2], "30 of 60 events have 'rating' below 0", "rating > 0", 0),
    "unrated": ("rating", lambda n: (-1, 7, 8)[n % 3], "20 of 60 events", "rating between 5 and 10", 1),
    "returns": ("Quantity", lambda n: (-2, 3)[n % 2], r"below 0 \(down to -2\)", "Quantity > 0", 1),
    "no plays": ("plays", lambda n: n % 3, "20 of 60 events have 'plays' 0", "plays > 0", 1),
    "dislikes": ("event", lambda n: ("like", "dislike")[n % 2], "30 of 60 .* 'dislike'", "event = 'like'", None),
    "cart": ("action", lambda n: ("view", "removeFromCart", "buy")[n % 3], "remove", "action IN ('view', 'buy')", None),
    "thumbs": ("feedback", lambda n: ("thumbs up", "thumbs down")[n % 2], "down", "feedback = 'thumbs up'", None),
    "shown": ("event_type", lambda n: ("impression", "click")[n % 2], "'impression'", "event_type = 'click'", None),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_noes_are_not_taken_for_likes(tmp_path, case):
    column, value, message, where, least = REFUSED[case]
    path = events(tmp_path, lambda n: (value(n),), f"user,item,{column}")
    with pytest.raises(L2QError, match=message) as caught:
        read_events(path)
    assert all(option in str(caught.value) for option in ("where=", "value=none"))
    assert "\n" not in str(caught.value)
    kept = read_events(path, where=where)
    assert 0 < len(kept) < 60
    assert dict(kept.reading.dropped) == {"where= leaves out": 60 - len(kept)}
    every = read_events(path, value="none")
    assert len(every) == 60
    assert any(f"{column!r} is not read (value=none)" in note for note in every.reading.notes)
    if least is not None:
        assert len(read_events(path, min_value=least)) == len(kept)
    with pytest.raises(L2QError, match=message):  # a condition on something else settles nothing
        read_events(path, where="item <> 'tea'")


def test_advice_of_a_refusal_can_be_followed(tmp_path):
    for column, value, *_ in REFUSED.values():
        path = events(tmp_path, lambda n, value=value: (value(n),), f"user,item,{column}")
        with pytest.raises(L2QError) as caught:
            read_events(path)
        advice = re.search(r'where="([^"]+)"', str(caught.value))[1]
        assert 0 < len(read_events(path, where=advice)) < 60


def test_low_grades_run_with_a_note_and_its_advice(tmp_path):
    path = events(tmp_path, lambda n: (n % 5 + 1,), "user,item,stars")
    read = read_events(path)
    assert len(read) == 60
    note = "'stars' goes from 1 to 5: 36 of 60 events have less than 4 and count as likes all the same; min_value=4"
    assert any(note in text for text in read.reading.notes)
    good = read_events(path, min_value=4)
    assert len(good) == 24
    assert dict(good.reading.dropped) == {"stars below 4": 36}
    assert set(good.values.tolist()) == {4, 5}
    assert not any("goes from" in text for text in good.reading.notes)


def test_several_kinds_of_event_run_with_a_note(tmp_path):
    kinds = ["view", "view", "addtocart", "transaction"]
    path = events(tmp_path, lambda n: (kinds[n % 4],), "user,item,event")
    note = "events of every 'event' count alike (view 30, addtocart 15, transaction 15); where=\"event = "
    assert any(note in text for text in read_events(path).reading.notes)


@pytest.mark.parametrize(
    ("values", "doubt", "note"),
    [
        ([1, 1, 1], None, None),
        ([4, 5, 5], None, None),
        ([0, 5, 10], None, "2 of 3 events have less than 7"),  # Book-Crossing
        ([0.5, 5], None, "less than 4"),
        ([1, 50, 90], None, "less than 70"),
        ([1, 2000], None, "every event counts as a like"),
        ([0, 1], "would count as likes", None),
        ([-9.5, 3.2], "below 0", None),
        ([float("nan")], None, "no numbers"),
    ],
)
def test_numbers_of_events(values, doubt, note):
    found = of_numbers("rating", ["rating"], np.array(values, np.float32))
    for text, expected in zip(found, (doubt, note), strict=True):
        assert (text is None) == (expected is None)
        assert expected is None or expected in text


def test_kinds_that_say_no():
    noes = ["skip", "Skipped", "unlike", "order cancelled", "RETURN", "refund", "thumbs_down", "退货"]
    assert all(map(is_no, noes))
    assert not any(
        map(
            is_no, ["view", "buy", "download", "note", "noted", "north", "returning", "scroll down", "", "  "]
        )
    )
    assert of_kinds("event", {"buy": 3}) == (None, None)


def test_returns_are_counted_by_their_invoices(tmp_path):
    path = events(tmp_path, lambda n: (f"C{n}" if n % 6 == 0 else n,), "CustomerID,StockCode,InvoiceNo")
    with pytest.raises(L2QError, match="10 rows have 'InvoiceNo' with a C before: returns"):
        read_events(path)
    assert len(read_events(path, where="InvoiceNo NOT LIKE 'C%'")) == 50
    assert len(read_events(path, value="none")) == 60


ATTACKS = [
    "read_csv('/etc/passwd') IS NOT NULL",
    "item IN (SELECT content FROM read_text('/etc/passwd'))",
    "EXISTS (SELECT 1 FROM duckdb_settings())",
    "item = 'i1'; DROP TABLE events",
    "item = 'i1'); COPY events TO '/tmp/out.csv'; SELECT (1",
    "COPY events TO '/tmp/out.csv'",
    "ATTACH '/tmp/x.db'",
    "getenv('HOME') = item",
    "current_setting('home_directory') = item",
    "item = getvariable('x')",
    "glob('/etc/*') = item",
    "true) UNION ALL (SELECT * FROM events",
    "true) FROM read_text('/etc/passwd') --",
    "row_number() OVER () = 1",
    "item > $1",
    "sum(1) > 0",
    "COLUMNS(*) = 'i1'",
    "item = 'i1' LIMIT 1",
    "query('SELECT 1') = item",
    "",
]


@pytest.mark.parametrize("where", ATTACKS[:-1])
def test_a_condition_reads_the_table_alone(tmp_path, where):
    with pytest.raises(L2QError, match=r"^where=") as caught:
        read_events(events(tmp_path), where=where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("rating >= 4", 24),
        ("rating >= 4 AND event = 'buy'", 12),
        ("rating IN (1, 5)", 24),
        ("rating BETWEEN 2 AND 3.5", 24),
        ("rating * 2 > 9", 12),
        ("rating::INT > 4", 12),
        ("4 < rating", 12),
        ('"n sold" >= 1000', 30),  # written 1,000
        ("NOT rating < 4", 24),
        ("event ILIKE 'BU%'", 30),
        ("day >= '2020-01-31'", 30),
        ("day >= DATE '2020-01-31'", 30),
        ("year(day::DATE) = 2020 AND month(day::DATE) = 1", 30),
        ("gift", 20),
        ("gift = true", 20),
        ("NOT gift", 40),
        ("events.rating = 5 -- the best", 12),
        ("RATING = 5 OR (event = 'buy' AND rating = 4)", 18),
        ("  ", 60),
    ],
)
def test_conditions_compare_as_people_mean(tmp_path, where, count):
    path = events(
        tmp_path,
        lambda n: (
            n % 5 + 1,
            ("buy", "view")[n // 5 % 2],
            ("2020-01-01", "2020-02-01")[n % 2],
            '"1,000"' if n % 2 else 7,
            n % 3 == 0,
        ),
        "user,item,rating,event,day,n sold,gift",
    )
    assert len(read_events(path, where=where)) == count


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("stars > 3", "no column 'stars'; the table has user, item, rating"),
        ('item = "i1"', "a text stands in single quotes, as in event = 'i1'"),
        ("rating >", "is no condition in SQL: syntax error"),
        ("1 = 1", "names no column of the table"),
        ("rating > 99", "leaves no row of 60"),
        ("year(item) = 2020", "where="),
    ],
)
def test_conditions_that_cannot_be_are_named(tmp_path, where, message):
    with pytest.raises(L2QError, match=re.escape(message)) as caught:
        read_events(events(tmp_path, lambda n: (n % 5 + 1,), "user,item,rating"), where=where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (["1300000000", "1300000060"], [1300000000, 1300000060]),
        (["1300000000.5", "1300000060.25"], [1300000000.5, 1300000060.25]),
        (["1300000000000", "1300000060000"], [1300000000, 1300000060]),
        (["1300000000000000", "1300000060000000"], [1300000000, 1300000060]),
        (["1300000000000000000", "1300000060000000000"], [1300000000, 1300000060]),
        (["2011-03-13", "2011-03-14"], [1299974400, 1300060800]),
        (["2011-03-13 07:06:40", "2011-03-13 07:07"], [1300000000, 1300000020]),
        (["2011-03-13T07:06:40Z", "2011-03-13T09:06:40+02:00"], [1300000000, 1300000000]),
        (["2011-03-13T09:06:40.500+0200", "2011-03-13 07:06:40 UTC"], [1300000000.5, 1300000000]),
        (["13/03/2011 07:06", "1/3/2011 07:06"], [1299999960, 1298963160]),
        (["3/13/2011 07:06", "3/1/2011 07:06"], [1299999960, 1298963160]),
        (["13.03.2011", "1.3.2011"], [1299974400, 1298937600]),
        (["3/13/2011 7:06:40 AM", "3/13/2011 7:06:40 PM"], [1300000000, 1300043200]),
        (["Sun Mar 13 07:06:40 +0000 2011", "Sun Mar 13 07:06:40 +0200 2011"], [1300000000, 1299992800]),
        (["Sun, 13 Mar 2011 07:06:40 GMT", "Sun, 13 Mar 2011 09:06:40 +0200"], [1300000000, 1300000000]),
        (["03 13, 2011", "03 1, 2011"], [1299974400, 1298937600]),
        (["13 Mar 2011, 07:06", "1 Mar 2011, 07:06"], [1299999960, 1298963160]),
        (["March 13, 2011", "March 1, 2011"], [1299974400, 1298937600]),
        (["20110313", "20110301"], [1299974400, 1298937600]),
        (["2011", "2012"], [1293840000, 1325376000]),
        (["17", "12"], [17, 12]),
    ],
)  # fmt: skip
def test_times(tmp_path, written, seconds):
    path = table(tmp_path, "user,item,date", [(f"u{n}", "i", f'"{text}"') for n, text in enumerate(written)])
    read = read_events(path)
    assert read.times.tolist() == seconds
    assert not read.reading.notes or "month" in read.reading.notes[0]


def test_days_and_months_are_told_apart_by_all_rows(tmp_path):
    rows = [(f"u{n % 9}", f"i{n % 700}", f"{n % 12 + 1:02}/{n % 11 + 1:02}/2020") for n in range(12_000)]
    read = read_events(table(tmp_path, "user,item,date", rows))
    assert any("months are taken as first" in note for note in read.reading.notes)
    rows[11_999] = ("u0", "i699", "31/01/2020")  # beyond the rows that are looked at
    read = read_events(table(tmp_path, "user,item,date", rows))
    assert not any("month" in note for note in read.reading.notes)
    assert np.nanmax(read.times) < np.datetime64("2020-12-31").astype("datetime64[s]").astype(float)


def test_times_that_cannot_be_read_are_counted(tmp_path):
    path = events(
        tmp_path,
        lambda n: ("soon" if n == 7 else "" if n < 5 else f"2020-01-{n % 28 + 1:02}",),
        "user,item,date",
    )
    read = read_events(path)
    assert int(np.isnan(read.times).sum()) == 6
    assert any("6 of 60 rows have no time that can be read in 'date'" in note for note in read.reading.notes)


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ([("u0", f"i{n}") for n in range(40)], "there is one user in all, 'u0'"),
        (
            [(f"u{n % 4}", f"i{n}") for n in range(40)],
            "nearly every event has an item of its own: 40 in 40 events",
        ),
        ([(f"u{n % 20}", f"i{n % 3}") for n in range(40)], "there are 3 items in all, column 'item'"),
        ([(f"u{n // 8}", f"i{n % 8}") for n in range(40)], "users have 100% of all items on average"),
        (
            [(f"u{n % 9}", f"i{n % 7}") for n in range(70)],
            "7 of 70 events repeat a pair of user and item (10%)",
        ),
    ],
)
def test_what_is_odd_is_noted(tmp_path, rows, note):
    assert any(note in text for text in read_events(table(tmp_path, "user,item", rows)).reading.notes)


def test_users_of_one_event_each_are_refused_unless_they_are_named(tmp_path):
    path = table(tmp_path, "user,item", [(f"u{n}", f"i{n % 7}") for n in range(40)])
    with pytest.raises(L2QError, match=r"a user of its own: 40 in 40 events, column 'user'.*user=COLUMN"):
        read_events(path)
    assert any("a user of its own" in note for note in read_events(path, user="user").reading.notes)
