"""Which columns are users, items, times and values: layouts that people have, generated small."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from layouts import DAY, LAYOUTS, ROW, iso, made, sha1

from l2q.errors import L2QError
from l2q.events.read import read_events
from l2q.events.vocabulary import meaning


def written(path, header, separator, row, seed=0):
    lines = (
        [header if "|" in header or separator in header else header.replace(",", separator)] if header else []
    )
    for event in made(seed):
        cells = [str(cell) for cell in row(*event)]
        lines.append(
            separator.join(f'"{cell}"' if separator == "," and "," in cell else cell for cell in cells)
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("seed", [0, 1], ids=["shuffled", "sorted"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout, seed):
    header, separator, row, expected = LAYOUTS[layout]
    events = read_events(written(tmp_path / "events.csv", header, separator, row, seed))
    names = expected.split("|" if "|" in expected else " ")
    names = [f"column{name}" if name.isdigit() else name for name in names]
    wanted = {
        role: name for role, name in zip(("user", "item", "time", "value"), names, strict=True) if name != "-"
    }
    assert dict(events.reading.columns) == wanted
    assert (events.num_users, events.num_items) == (20, 15 if "parent" in expected else 30)
    assert events.reading.rows == 230
    assert not events.reading.dropped
    assert (events.times is not None) == ("time" in wanted)


# name: header, row, options, what the one line says
DOUBTS = {
    "two users": (
        "user_id,customer_id,item",
        lambda u, i, v, t: (u, u + 1, i),
        {},
        "may each be the users; name the column with user=COLUMN",
    ),
    "two items": (
        "user,item,product",
        lambda u, i, v, t: (u, i, i % 7),
        {},
        "'item' .* 'product' .* may each be the items; .* item=COLUMN",
    ),
    "user and user": (
        "user1,user2",
        lambda u, i, v, t: (u, i),
        {},
        "'user1' .*'user2' .* may each be the users",
    ),
    "names that say nothing": (
        "a,b,c",
        lambda u, i, v, t: (u, i, v),
        {},
        "'a' .*'b' .*'c' .*name them with user=COLUMN and item=COLUMN",
    ),
    "an item first": ("package,needs", lambda u, i, v, t: (f"p{u}", f"q{i}"), {}, "or the other way round"),
    "two unknown beside a user": (
        "user,p,q",
        lambda u, i, v, t: (u, i, i % 8 + 900),
        {},
        "which column holds the items.*'p'.*'q'.*item=COLUMN",
    ),
    "no item": ("user,rating", lambda u, i, v, t: (u, v), {}, "cannot tell which column holds the items"),
    "orders alone": (
        "order_id,product_id,price",
        lambda u, i, v, t: (f"o{t % 40}", i, v + 0.5),
        {},
        "which column holds the users",
    ),
    "attributes alone": (
        "movie,tag,relevance",
        lambda u, i, v, t: (i, u, v / 7),
        {},
        "which column holds the users",
    ),
    "users are times": (
        "user,item",
        lambda u, i, v, t: (t, i),
        {},
        "by its name the column 'user' .* dates or times",
    ),
    "users are dates": (
        "user,item",
        lambda u, i, v, t: (iso(t), i),
        {},
        "by its name the column 'user' .* dates or times",
    ),
    "items are grades": (
        "user,item",
        lambda u, i, v, t: (u, v / 2 + i),
        {},
        "by its name the column 'item' .*numbers with fractions",
    ),
    "items say user": (
        "user,item",
        lambda u, i, v, t: (f"item{i}", f"user{u}"),
        {},
        "'user' holds the users, but it has values that say item",
    ),
    "users are row numbers": (
        "user,item",
        lambda u, i, v, t: (next(ROW), i),
        {},
        "a number of its own in every row",
    ),
    "users are invoices": (
        "user,item",
        lambda u, i, v, t: (sha1(t), i),
        {},
        "a user of its own: .*user=COLUMN",
    ),
    "moments for items": (
        "user,item,ts",
        lambda u, i, v, t: (u, i, t),
        {"item": "ts"},
        "item= names the column 'ts', which has dates or times",
    ),
    "milliseconds for items": (
        "user,item,ts",
        lambda u, i, v, t: (u, i, t * 1000),
        {"item": "ts"},
        "item= names the column 'ts'",
    ),
    "midnights for items": (
        "user,item,ts",
        lambda u, i, v, t: (u, i, t // DAY % 5 * DAY + 1_300_060_800),
        {"item": "ts"},
        "item= names .* times",
    ),
    "days for users": (
        "user,item,day",
        lambda u, i, v, t: (u, i, iso(t)[:10]),
        {"user": "day"},
        "user= names the column 'day', which has dates",
    ),
    "days as numbers": (
        "user,item,day",
        lambda u, i, v, t: (u, i, iso(t)[:10].replace("-", "")),
        {"user": "day"},
        "user= names .* dates",
    ),
    "latitudes for items": (
        "user,item,lat",
        lambda u, i, v, t: (u, i, i / 7),
        {"item": "lat"},
        "item= names .*numbers with fractions",
    ),
    "texts for values": (
        "user,item,review",
        lambda u, i, v, t: (u, i, f"it was {t}"),
        {"value": "review"},
        "value= names .* neither numbers nor kinds",
    ),
    "nothing but numbers": (
        None,
        lambda u, i, v, t: (u + 1, i + 500, (u * 7 + i * 5) % 211 + 4000, t % 997 + 7000),
        {},
        "several may be users and items",
    ),
    "no items without names": (
        None,
        lambda u, i, v, t: (u, t, v / 7),
        {},
        "has no names .* leave none for the items.* user=1 and item=2",
    ),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_doubts_are_refused_in_one_line(tmp_path, doubt):
    header, row, options, message = DOUBTS[doubt]
    with pytest.raises(L2QError, match=message) as caught:
        read_events(written(tmp_path / "events.csv", header, ",", row), **options)
    assert "\n" not in str(caught.value)


def test_what_is_named_settles_a_doubt(tmp_path):
    for doubt, options in {
        "two users": {"user": "customer_id"},
        "two items": {"item": "product"},
        "names that say nothing": {"user": "a", "item": "b"},
        "an item first": {"user": "package", "item": "needs"},
        "two unknown beside a user": {"item": 2},
        "orders alone": {"user": "order_id"},
        "nothing but numbers": {"user": 1, "item": 2},
    }.items():
        header, row, *_ = DOUBTS[doubt]
        assert len(read_events(written(tmp_path / "events.csv", header, ",", row), **options)) > 100


@pytest.mark.parametrize("names", ["0 1 2", "_c0 _c1 _c2", "column_1 column_2 column_3", "V1 V2 V3"])
def test_names_that_only_count_are_no_names(tmp_path, names):
    path = tmp_path / "events.parquet"
    users, items, grades, _ = zip(*made(), strict=True)
    columns = dict(zip(names.split(), map(list, (users, items, grades)), strict=True))
    pa.parquet.write_table(pa.table(columns), path)
    assert list(read_events(path).reading.columns.items()) == [
        *zip(("user", "item", "value"), columns, strict=True)
    ]


def test_ids_of_ten_digits_are_no_times(tmp_path):
    """Such as those of a network of people, from 300 million to 4 billion."""
    rows = [f"{3 * 10**8 + u * 2654435761 % 37 * 10**8 + t % 10**8},{i}" for u, i, _, t in made()]
    path = tmp_path / "events.csv"
    path.write_text("\n".join(["user_id,item_id", *rows, *rows]))
    assert dict(read_events(path).reading.columns) == {"user": "user_id", "item": "item_id"}
    rows = [f"{10**9 + t % 10**8},{i}" for _, i, _, t in made()]
    path.write_text("\n".join(["user_id,item_id", *rows, *(row[:-1] + "7" for row in rows)]))
    with pytest.raises(L2QError, match=r"by its name the column 'user_id' .* dates or times"):
        read_events(path)
    notes = read_events(path, user="user_id").reading.notes
    assert any(
        "'user_id' is taken for the users, though its numbers look like times" in note for note in notes
    )


def test_roles_that_the_source_declares(tmp_path):
    path = tmp_path / "events.inter"
    rows = [(f"s{user}", f"t{item}", v, t) for user, item, v, t in made()]
    lines = ["name:token\tother:token\tlabel_x:float\tage:float"]
    path.write_text("\n".join(lines + ["\t".join(map(str, row)) for row in rows]))
    read = read_events(path, user="name", item="other")
    assert (read.num_users, read.num_items) == (20, 30)


def test_a_table_that_is_sorted_by_user_is_looked_at_further_down(tmp_path):
    """The first 10,000 rows have one user and items in a row, and a grade might pass for the items."""
    rows = [
        f"{user},{item},{item % 5 + 1}" for user in range(3) for item in range(12_000 - 4_000 * (user > 0))
    ]
    (tmp_path / "events.csv").write_text("\n".join(rows))
    read = read_events(tmp_path / "events.csv")
    assert dict(read.reading.columns) == {"user": "column1", "item": "column2", "value": "column3"}


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        ("user user_id userId UserID USER_ID uid usr User-ID", {"user"}),
        (
            "customer CustomerID client visitorid reviewerID member buyer household_key msno playerid Cust_Id",
            {"user"},
        ),
        (
            "item item_id movieId ProductID asin SKU StockCode ISBN bookId track_id business_id listing_id",
            {"item"},
        ),
        (
            "timestamp event_time created_at InvoiceDate unixReviewTime ts eventdate datetime fecha Datum",
            {"time"},
        ),
        (
            "rating stars score overall label quantity play_count event_type user_rating book_rating 评分",
            {"value"},
        ),
        (
            "InvoiceNo order_id transactionid review_id price UnitPrice description country item_price user_age",
            set(),
        ),
        (
            "category_id venueCategory product_type latitude timezoneOffset helpful_votes event_id index",
            set(),
        ),
    ],
)
def test_names_of_columns(names, roles):
    for name in names.split():
        assert meaning(name).roles.keys() == roles, name
