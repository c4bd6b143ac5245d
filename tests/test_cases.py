"""Every case of ``shared/cases/tables``: it runs, it runs with a warning, or one line names the option."""

from pathlib import Path

import pytest

from l2q.data.sources import load_dataset
from l2q.errors import L2QError
from l2q.events.read import read_events

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "tables"
USERS = [f"user{n:02}" for n in range(20)]
NUMBERS = sorted(map(str, range(20)))
ITEMS = [f"item{n:02}" for n in range(30)]


@pytest.fixture
def case():
    """The path of a case, which the repository itself does not hold."""

    def found(name):
        if not (CASES / name).exists():
            pytest.skip(f"no {CASES / name}")
        return CASES / name

    return found


# file: what is read, users, items, a note (None: there is none)
RUN = {
    "date_first.csv": ({"user": "customer", "item": "article", "time": "day"}, USERS, ITEMS, None),
    "mixed_float_ids.csv": ({"user": "user", "item": "item"}, NUMBERS, ITEMS, "40 user names become 20"),
    "trailing_space.csv": ({"user": "user", "item": "item"}, USERS, ITEMS, "item names become 30 without the spaces"),
    "no_header.tsv": ({"user": "column1", "item": "column2", "value": "column3"}, USERS, ITEMS, "have no names"),
    "pandas_index.parquet": ({"user": "user_id", "item": "item_id", "value": "rating"}, USERS, ITEMS, "min_value=4"),
    "stray_quote.tsv": ({"user": "user", "item": "item"}, USERS, ITEMS, "quote"),
    "latin1_header.csv": ({"user": "usuário", "item": "item"}, USERS, ITEMS, "encoding"),
    "utf16.csv": ({"user": "user", "item": "item"}, USERS, ITEMS, "UTF-16"),
    "tables/ratings.csv": ({"user": "user_id", "item": "item_id"}, USERS, ITEMS, None),
}  # fmt: skip


@pytest.mark.parametrize("name", RUN)
def test_runs_on_the_right_columns_and_says_what_was_mended(case, name):
    columns, users, items, note = RUN[name]
    read = read_events(case(name))
    assert dict(read.reading.columns) == columns
    assert read.user_names.tolist() == users
    assert read.item_names.tolist() == items
    assert (read.reading.rows, len(read), dict(read.reading.dropped)) == (234, 234, {})
    said = "\n".join(read.reading.notes)
    assert note in said if note else not said


def test_dates_are_times(case):
    read = read_events(case("date_first.csv"))
    assert read.times.min() >= 1577836800  # 2020-01-01
    assert (read.times % 86400 == 0).all()


# file: what the one line holds, and the options that settle it with the number of pairs that they leave
REFUSED = {
    "na_user.csv": (
        ["78 of 234 rows have no user in 'user' (78 NA)", "missing=drop", "missing=keep"],
        [({"missing": "drop"}, 156, 20), ({"missing": "keep"}, 184, 21)],
    ),
    "label_zero.csv": (
        ["117 of 234 events have 'label' 0", 'where="label = 1"', "min_value=1", "value=none"],
        [({"where": "label = 1"}, 117, 20), ({"min_value": 1}, 117, 20), ({"value": "none"}, 234, 20)],
    ),
    "invoice_first.csv": (
        ["59 of 234 rows have no user in 'CustomerID' (59 empty)", "10 of 234 events have 'Quantity' below 0",
         "10 rows have 'InvoiceNo' with a C before: returns", "missing=drop", "min_value=1", 'where="Quantity > 0"'],
        [({"missing": "drop", "min_value": 1}, None, None), ({"missing": "drop", "where": "Quantity > 0"}, None, None)],
    ),
    "tables/genome.csv": (["which column holds the users", "user=COLUMN"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_until_an_option_settles_it(case, name):
    said, ways = REFUSED[name]
    with pytest.raises(L2QError) as caught:
        read_events(case(name))
    assert "\n" not in str(caught.value)
    for text in said:
        assert text in str(caught.value)
    for options, pairs, users in ways:
        read = read_events(case(name), **options)
        if pairs is not None:
            assert (len(read), read.num_users) == (pairs, users)


def test_a_shop_of_invoices(case):
    read = read_events(case("invoice_first.csv"), missing="drop", min_value=1)
    assert dict(read.reading.columns) == {"user": "CustomerID", "item": "StockCode", "value": "Quantity"}
    assert read.user_names.tolist() == [str(17000 + n) for n in range(20)]
    assert read.item_names.tolist() == ITEMS
    assert sum(read.reading.dropped.values()) + len(read) + read.reading.merged == read.reading.rows == 234
    assert set(read.reading.dropped) == {"without user", "Quantity below 1"}
    assert (read.values >= 1).all()
    again = read_events(case("invoice_first.csv"), missing="drop", where="Quantity > 0")
    assert again.fingerprint == read.fingerprint


@pytest.mark.filterwarnings("ignore")  # the notes, as warnings
@pytest.mark.parametrize("name", RUN)
def test_a_run_reads_the_same_and_says_it_from_the_cache_too(case, name, tmp_path, monkeypatch):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path))
    columns, users, items, note = RUN[name]
    for _ in range(2):
        data = load_dataset("table", dir=case(name))
        assert data.user_names.tolist() == users
        assert data.item_names.tolist() == items
        assert len(data.train) + len(data.test) == 234
        reading = data.train.reading
        assert dict(reading.columns) == columns
        assert note is None or note in "\n".join(reading.notes)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "users", "items", "note"),
    [
        ("names", USERS, ITEMS, "users.txt names 20 ids"),
        (
            "rawids",
            [str(11 + 700 * n) for n in range(20)],
            [str(50 * n) for n in range(30)],
            "the 20 users are numbered anew",
        ),
    ],
)
def test_folders_of_lightgcn(case, tmp_path, monkeypatch, name, users, items, note):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path))
    data = load_dataset("table", dir=case(name))
    assert data.user_names.tolist() == users
    assert data.item_names.tolist() == items
    assert (len(data.train), len(data.test)) == (181, 53)
    assert note in "\n".join(data.train.reading.notes)


def test_a_folder_of_several_tables_lists_them_all(case, tmp_path, monkeypatch):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path))
    with pytest.raises(L2QError) as caught:
        load_dataset("table", dir=case("tables"))
    assert "\n" not in str(caught.value)
    for text in ("genome.csv (movie, tag, relevance)", "ratings.csv (user_id, item_id)"):
        assert text in str(caught.value)
