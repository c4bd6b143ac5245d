"""Tables of DuckDB, SQLite and a real PostgreSQL: read, never written, and no password in any message."""

from __future__ import annotations

import datetime
import sqlite3
import uuid
from urllib.parse import quote

import duckdb
import pytest
from clusters import postgres_cluster

from l2q.errors import L2QError
from l2q.events.containers import open_table
from l2q.events.databases import database_of

EVENTS = [("u1", "i1", 5), ("u2", None, 4), ("u1", "i,\n2", 3)]
PASSWORD = "s3cret/:@ %x"


def opened(source, **options):
    with open_table(source, **options) as table:
        types = {column.name: column.type for column in table.columns}
        return types, table.connection.execute("SELECT * FROM events").fetchall()


def refused(source, **options) -> str:
    with pytest.raises(L2QError) as error:
        open_table(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def duck(tmp_path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute('CREATE TABLE events ("user" VARCHAR, item VARCHAR, rating INTEGER)')
        database.executemany("INSERT INTO events VALUES (?, ?, ?)", EVENTS)
    return path


@pytest.fixture
def lite(tmp_path):
    path = tmp_path / "shop #1.db"
    database = sqlite3.connect(path)
    database.execute('CREATE TABLE events ("user" TEXT, item TEXT, rating INTEGER)')
    database.executemany("INSERT INTO events VALUES (?, ?, ?)", EVENTS)
    database.commit()
    database.close()
    return path


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_file_of_a_database(kind, duck, lite, tmp_path):
    path = duck if kind == "duckdb" else lite
    before = path.read_bytes()
    address = f"{kind}:{path}"
    for source in (address, f"{address}::events", f"{address}::EVENTS", path, str(path)):
        types, rows = opened(source)
        assert rows == EVENTS
        assert list(types) == ["user", "item", "rating"]
    assert opened(address, query='SELECT "user", count(*) AS n FROM events GROUP BY 1 ORDER BY 1;')[1] == [
        ("u1", 2), ("u2", 1)
    ]  # fmt: skip
    assert opened(path, query="SELECT item FROM events WHERE rating = 5 -- the best")[1] == [("i1",)]
    for query in (
        "DELETE FROM events", "SELECT 1; DROP TABLE events", "SELEC", "SELECT * FROM nothing", " ",
        "PRAGMA user_version = 3", f"ATTACH '{tmp_path}/new.db' AS new", "1) AS x; DROP TABLE events --",
    ):  # fmt: skip
        assert str(path) in refused(address, query=query) or "query=" in refused(address, query=query)
    assert "there is no table 'orders'; it has events" in refused(f"{address}::orders")
    assert "not both" in refused(f"{address}::events", query="SELECT 1")
    assert refused(f"{kind}:{tmp_path}/no.db") == (
        f"cannot read {kind}:{tmp_path}/no.db: there is no file {tmp_path}/no.db"
    )
    assert path.read_bytes() == before
    assert not (tmp_path / "new.db").exists()
    assert not (tmp_path / "no.db").exists()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_several_tables_are_listed(kind, duck, lite):
    path = duck if kind == "duckdb" else lite
    connect = duckdb.connect if kind == "duckdb" else sqlite3.connect
    database = connect(str(path))
    database.execute('CREATE TABLE "my items" (item TEXT, title TEXT)')
    database.execute("CREATE VIEW good AS SELECT * FROM events WHERE rating > 3")
    database.commit()
    database.close()
    assert refused(f"{kind}:{path}") == (
        f"{kind}:{path} holds several tables, name one with ::NAME or give a query: events (user, item, rating); "
        "good (user, item, rating); my items (item, title)"
    )
    assert opened(f"{kind}:{path}::good")[1] == EVENTS[:2]
    assert opened(f"{kind}:{path}::my items")[1] == []


def test_an_empty_query_is_none(lite):
    for query in ("", " ; "):
        assert refused(f"sqlite:{lite}", query=query) == "query= is empty; give a SELECT"


def test_what_no_database_holds(tmp_path):
    path = tmp_path / "text.db"
    path.write_text("user,item\n1,2\n3,4\n")
    for kind in ("sqlite", "duckdb"):
        assert refused(f"{kind}:{path}").startswith(f"cannot read {kind}:{path}: ")
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (a)").connection.close()
    database = sqlite3.connect(tmp_path / "none.db")
    database.execute("CREATE TABLE t (a)")
    database.execute("DROP TABLE t")
    database.commit()
    database.close()
    assert refused(f"sqlite:{tmp_path / 'none.db'}") == f"sqlite:{tmp_path / 'none.db'} holds no table"


def test_types_of_sqlite_are_those_of_the_values(tmp_path):
    path = tmp_path / "t.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE t (mixed, whole INTEGER, number REAL, bytes BLOB, text TEXT, none)")
    database.execute("INSERT INTO t VALUES (17, 1, 1.5, X'00ff', 'x', NULL)")
    database.execute("INSERT INTO t VALUES ('a', NULL, 2, X'616263', 'y', NULL)")
    database.commit()
    database.close()
    types, rows = opened(path)
    assert types == {
        "mixed": "VARCHAR", "whole": "BIGINT", "number": "DOUBLE", "bytes": "VARCHAR", "text": "VARCHAR",
        "none": "VARCHAR",
    }  # fmt: skip
    assert rows == [("17", 1, 1.5, "00ff", "x", None), ("a", None, 2.0, "abc", "y", None)]


def test_types_and_schemas_of_duckdb(tmp_path):
    path = tmp_path / "t.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE SCHEMA log")
        database.execute(
            "CREATE TABLE log.events AS SELECT uuid() AS id, 'a'::ENUM('a', 'b') AS kind, [1] AS list"
        )
    types, rows = opened(f"duckdb:{path}::log.events")
    assert types == {"id": "VARCHAR", "kind": "VARCHAR", "list": "INTEGER[]"}
    assert rows[0][1:] == ("a", [1])
    assert opened(f"duckdb:{path}::events")[1] == rows
    assert opened(f"duckdb:{path}", query="SELECT kind FROM log.events")[1] == [("a",)]


def test_a_connection_holds_the_table_alone(duck):
    with duckdb.connect(str(duck)) as database:
        database.execute("CREATE TABLE secrets AS SELECT 1 AS one")
    with open_table(f"duckdb:{duck}::events") as table:
        for sql in ("SELECT * FROM secrets", "SELECT * FROM given.secrets", f"ATTACH '{duck}'"):
            with pytest.raises(duckdb.Error):
                table.connection.execute(sql)


@pytest.mark.parametrize(
    ("address", "kind", "table", "shown"),
    [
        ("sqlite:a.db", "sqlite", None, "sqlite:a.db"),
        ("sqlite:///tmp/a.db::t", "sqlite", "t", "sqlite:///tmp/a.db::t"),
        ("postgres://h/d", "postgres", None, "postgres://h/d"),
        ("postgresql://u:pw@h:5432/d::s.t", "postgres", "s.t", "postgres://u@h:5432/d::s.t"),
        ("postgres://u@[::1]/d", "postgres", None, "postgres://u@[::1]/d"),
        ("postgres://u:p%40w@h/d?sslmode=require&password=x::t", "postgres", "t",
         "postgres://u@h/d?sslmode=require&password=...::t"),
    ],
)  # fmt: skip
def test_addresses(address, kind, table, shown):
    found = database_of(address)
    assert found is not None
    assert (found.kind, found.table, found.shown) == (kind, table, shown)


@pytest.mark.parametrize("source", ["ratings.csv", "C:/data/x.csv", "s3://bucket/x.csv", 3, None, "sqlite"])
def test_what_is_no_address(source):
    assert database_of(source) is None


@pytest.fixture(scope="module")
def postgres():
    """The address, without user and password, of a cluster of its own that asks for the password."""
    psycopg = pytest.importorskip("psycopg")
    with postgres_cluster(PASSWORD) as folder:
        with psycopg.connect(host=str(folder), user="me", password=PASSWORD, dbname="postgres") as connection:
            connection.execute('CREATE TABLE events ("user" TEXT, item TEXT, rating INTEGER)')
            connection.cursor().executemany("INSERT INTO events VALUES (%s, %s, %s)", EVENTS)
            connection.execute("CREATE SCHEMA log")
            connection.execute(
                "CREATE TABLE log.typed AS SELECT '00000000-0000-0000-0000-000000000001'::uuid AS id, "
                "2::smallint AS n, "
                "1.25::numeric AS price, true AS yes, '2020-01-02'::date AS day, "
                "'2020-01-02 03:04:05+00'::timestamptz AS moment, '2020-01-02 03:04:05'::timestamp AS time, "
                "''::text AS empty, NULL::text AS nothing, 'é'::text AS letter, '{\"a\": 1}'::jsonb AS json"
            )
            connection.execute('CREATE TABLE log."Odd name" (a INTEGER)')
        yield folder


@pytest.fixture
def address(postgres):
    return f"postgres://me:{quote(PASSWORD, safe='')}@/postgres?host={postgres}"


def test_a_password_beside_the_address(postgres, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert opened(f"postgres://me@/postgres?host={postgres}::events")[1] == EVENTS


def test_a_table_of_postgresql(address, postgres):
    types, rows = opened(f"{address}::events")
    assert types == {"user": "VARCHAR", "item": "VARCHAR", "rating": "BIGINT"}
    assert rows == EVENTS
    assert opened(f"{address.replace('postgres:', 'postgresql:')}::public.events")[1] == EVENTS
    assert opened(address, query='SELECT "user", count(*) AS n FROM events GROUP BY 1 ORDER BY 1;')[1] == [
        ("u1", 2), ("u2", 1)
    ]  # fmt: skip
    assert opened(address, query="SELECT item FROM events WHERE item LIKE '%,%'")[1] == [("i,\n2",)]
    message = refused(address)
    assert message.startswith(f"postgres://me@/postgres?host={postgres} holds several tables")
    assert "events (user, item, rating); log.Odd name (a); log.typed (id, n" in message
    with open_table(f"{address}::events") as table:
        assert table.where == f"postgres://me@/postgres?host={postgres}::events"


def test_types_of_postgresql(address):
    types, rows = opened(f"{address}::log.typed")
    assert types == {
        "id": "VARCHAR", "n": "BIGINT", "price": "VARCHAR", "yes": "BOOLEAN", "day": "DATE",
        "moment": "TIMESTAMP WITH TIME ZONE", "time": "TIMESTAMP", "empty": "VARCHAR", "nothing": "VARCHAR",
        "letter": "VARCHAR", "json": "VARCHAR",
    }  # fmt: skip
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5)
    assert rows[0][:5] == (str(uuid.UUID(int=1)), 2, "1.25", True, datetime.date(2020, 1, 2))
    assert rows[0][5].astimezone(datetime.timezone.utc).replace(tzinfo=None) == moment  # noqa: UP017
    assert rows[0][6:] == (moment, "", None, "é", '{"a": 1}')
    assert opened(f"{address}::Odd name")[1] == []


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM events RETURNING *",
        "SELECT 1; DELETE FROM events",
        "SELECT 1) TO STDOUT; COMMIT; DELETE FROM events; --",
        "SELECT 1) AS x; COMMIT; DELETE FROM events; SELECT 1 FROM (SELECT 2",
        "WITH gone AS (DELETE FROM events RETURNING *) SELECT * FROM gone",
        "SELECT set_config('transaction_read_only', 'off', false), nextval('nothing')",
        "SELECT pg_sleep('soon')",
        "",
        "SELEC",
    ],
)
def test_a_query_of_postgresql_reads_only(address, query):
    assert "query=" in refused(address, query=query) or "cannot read postgres://me@" in refused(
        address, query=query
    )
    assert opened(f"{address}::events")[1] == EVENTS


def test_no_message_holds_the_password(address, postgres):
    wrong = "wr0ng/:@ %y"
    for source in (
        address.replace(quote(PASSWORD, safe=""), quote(wrong, safe="")),
        f"postgres://me@/postgres?host={postgres}&password={quote(wrong, safe='')}",
        f"postgres://me:{wrong}@/postgres?host={postgres}",
        f"postgres://me:wr0ng%zz@/postgres?host={postgres}",
        f"postgres://me:wr0ng@/postgres?host={postgres}&nothing=1",
        f"postgres://me:wr0ng@/nowhere?host={postgres}",
        "postgres://me:wr0ng@localhost:1/postgres",
        "postgres://me:wr0ng@[/postgres",
        "postgres:me:wr0ng",
        f"{address}::nothing",
    ):
        message = refused(source)
        assert "wr0ng" not in message
        assert "s3cret" not in message
        assert quote(PASSWORD, safe="") not in message
        assert message.startswith(
            ("cannot read postgres://me@", "postgres://me@", "postgres: an address reads")
        )
