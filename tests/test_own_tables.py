"""Runs on tables of one's own: what is said of the reading, on every run, and the splits that a run can have."""

import csv
import json
import sqlite3

import numpy as np
import pytest
from runs import SMALL, composed, metrics_of, only, process, run

import l2q
from l2q.cli import main
from l2q.data.sources import load_dataset
from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.learning import naming
from l2q.learning.jobs import Job
from l2q.retrieval.storage import load_index


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("L2Q_CACHE", str(tmp_path / "cache"))


def shop(path, users=60):
    """Orders of three kinds of customer, with dates, quantities and a column that is not read."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        for day in sorted(rng.integers(300, size=9)):
            item = 10 * (user % 3) + int(rng.integers(25))
            rows.append(
                (day, f"2024-{1 + day // 28:02}-{1 + day % 28:02}", f"u{user:02}", f"i{item}", 1 + day % 4)
            )
    rows.sort()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("date", "customer", "article", "quantity", "note"), *((*r[1:], "x") for r in rows)]
        )
    return ["dataset=table", f"dataset.dir={path}", "eval.ks=[5,20]"]


def test_the_same_lines_come_on_every_run_and_stay_in_its_files(tmp_path):
    words = [*shop(tmp_path / "shop.csv"), "model=popularity"]
    lines = run(tmp_path / "first", *words)["reading"]
    done = process(*words, "logger=none", cwd=tmp_path, L2Q_CACHE=str(tmp_path / "cache"), COLUMNS="80")
    folder = only(tmp_path, "outputs/table_shop/popularity/*")
    assert metrics_of(folder)["reading"] == lines
    log = (folder / "train.log").read_text()
    lines[0] = f"{tmp_path}/{lines[0]}"  # in metrics, which go anywhere, the table is named alone
    assert all(f"- {line}\n" in log for line in lines)
    shown = done.stdout.splitlines()
    start = next(place for place, line in enumerate(shown) if str(tmp_path) in line)
    end = next(place for place, line in enumerate(shown) if line.startswith("popularity on"))
    # a long path is broken within
    assert "".join("".join(shown[start:end]).split()) == "".join("".join(lines).split())
    assert all(len(line) <= 80 or str(tmp_path) in line for line in shown[start:end])
    assert (
        lines[0] == f"{tmp_path}/shop.csv: users 'customer', items 'article', times 'date', values 'quantity'"
    )
    assert lines[1] == "not read: 'note'"
    assert lines[2].startswith("540 rows")
    assert lines[3].startswith("split by time: test begins at 2024-")


@pytest.mark.parametrize(
    "model", ["popularity", "spectral", pytest.param("l2q_plus", marks=pytest.mark.slow), "lightgcn"]
)
def test_users_left_out_are_measured_by_their_fold_in(tmp_path, model):
    more = {
        "lightgcn": [*SMALL, "protocol.every_n_epochs=1"],
        "l2q_plus": ["model.bits=32"],
        "popularity": [],
    }.get(model, ["model.dim=8"])
    words = [*shop(tmp_path / "shop.csv"), "dataset.split=users", f"model={model}", *more]
    metrics = run(tmp_path / "run", *words)
    assert any(line.startswith("split by users: 12 are in test alone") for line in metrics["reading"])
    data = load_dataset("shop", dir=tmp_path / "shop.csv", split="users")
    index = load_index(tmp_path / "run" / "index")
    expected = evaluate(index, data.test, [5, 20]).metrics
    for key, value in expected.items():
        assert metrics[f"test/packed/{key}"] == pytest.approx(value, abs=1e-12)
        if model != "lightgcn":  # floats of a trained model round in another order
            assert metrics[f"test/{key}"] == pytest.approx(value, abs=1e-6)
    # by hand, through what the command line shows
    user = int(np.flatnonzero(data.test.user_degrees)[0])
    names = [data.item_names[item] for item in data.test.given[user]]
    shown = index.recommend(items=names, k=5).items
    hits = len(set(shown) & {data.item_names[item] for item in data.test[user]})
    with np.load(tmp_path / "run" / "per_user.npz") as per_user:
        place = per_user["users"].tolist().index(user)
        assert per_user["recall_5"][place] == pytest.approx(hits / len(data.test[user]))
    assert not any("/teacher/" in key for key in metrics)


def test_a_validation_part_may_be_the_latest_of_train(tmp_path, caplog):
    words = [*shop(tmp_path / "shop.csv"), "model=lightgcn", *SMALL, "protocol.every_n_epochs=1"]
    caplog.set_level("INFO")
    for how in ("time", "last"):
        metrics = run(tmp_path / how, *words, f"protocol.split={how}")
        assert metrics["split"] == how
        assert f"holdout ({how} " in caplog.text
    with pytest.raises(L2QError, match=r"^protocol\.split=users: only a test is of users left out"):
        run(tmp_path / "users", *words, "protocol.split=users")
    with pytest.raises(L2QError, match=r"^split=time needs the time of every event.*dataset\.time=COLUMN"):
        run(tmp_path / "none", *words, "protocol.split=time", "dataset.time=none", "dataset.split=random")


def test_a_user_without_train_items_is_told_so(tmp_path, capsys):
    words = [*shop(tmp_path / "shop.csv"), "dataset.split=users", "model=spectral", "model.dim=8"]
    run(tmp_path / "run", *words)
    data = load_dataset("shop", dir=tmp_path / "shop.csv", split="users")
    user = data.user_names[np.flatnonzero(data.test.user_degrees)[0]]
    best = [data.item_names[item] for item in np.argsort(-data.train.item_degrees, kind="stable")[:3]]
    asked = ["recommend", "--index", str(tmp_path / "run" / "index"), "--user", user, "-k", "3"]
    capsys.readouterr()
    with pytest.warns(
        UserWarning, match=f"the user '{user}' has no train items: the most popular items come"
    ):
        assert main(asked) == 0
    assert f"popular items, since {user} has no train items" in " ".join(capsys.readouterr().out.split())
    with pytest.warns(UserWarning, match="has no train items"):
        main([*asked, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["user"], answer["popular"]) == (user, True)
    assert [row["item"] for row in answer["ranking"]] == best
    with pytest.warns(
        UserWarning, match="^12 users have no train items: the most popular items come instead"
    ):
        main(["batch", "--index", asked[2], "--out", str(tmp_path / "all.parquet"), "-k", "3"])
    import pyarrow.parquet as parquet

    table = parquet.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["items"] for row in table if row["user"] == user] == [best]


def test_epochs_of_what_is_fitted_at_once_are_refused(tmp_path):
    for model in ("l2q_plus", "popularity", "spectral"):
        with pytest.raises(
            L2QError, match=rf"^epochs=3: model={model} is fitted at once, .*leave epochs out"
        ):
            run(tmp_path / "run", *shop(tmp_path / "shop.csv"), f"model={model}", "epochs=3")


def test_no_password_is_kept(tmp_path, monkeypatch):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (user TEXT, item TEXT)")
        connection.executemany(
            "INSERT INTO orders VALUES (?, ?)", [(f"u{n % 19}", f"i{n % 20}") for n in range(300)]
        )
    from l2q.events import databases

    real = databases.read_database
    monkeypatch.setattr(
        "l2q.events.containers.read_database",
        lambda table, address, query: real(
            table, databases.database_of(f"sqlite:{tmp_path}/shop.db::orders"), query
        ),
    )
    words = ["model=popularity", "dataset=table", "eval.ks=[5]"]
    words.append(naming.quoted("dataset.dir=postgres://ann:secret@host/shop?sslmode=require"))
    job = Job(composed("logger=none", *words), tmp_path / "run", "python train.py", "first")
    assert job.attempt().state == "done"
    kept = [
        path.read_text("utf-8")
        for path in (tmp_path / "run").rglob("*.*")
        if path.suffix in (".json", ".log")
    ]
    assert any("//ann@host/shop" in text for text in kept)
    assert not any("secret" in text for text in kept)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/events.csv", "events"),
        ("data/events.csv.gz", "events"),
        ("events (1).csv", "events (1)"),
        ("a/b.v2.csv", "b.v2"),
        ("data/parts/", "parts"),
        ("data/parts/part-*.parquet", "parts"),
        ("data/year=*/part-[0-9].csv", "data"),
        ("duckdb:a/shop.duckdb::orders", "orders"),
        ("sqlite:a/shop.db", "shop"),
        ("postgres://ann:secret@host:5432/shop?sslmode=require", "shop"),
        ("postgres://ann@host/shop::public.orders", "orders"),
    ],
)
def test_a_set_has_the_name_of_what_it_is_read_from(path, name):
    assert naming.stem(path) == name


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("where", "rating >= 4 and event = 'buy'"),
        ("where", "\"a b\" IN ('x', 'y')"),
        ("where", r"regexp_matches(x, '\d+\'')"),
        ("where", "'x' = y"),
        ("query", "SELECT a, b FROM events WHERE c > 0"),
        ("delimiter", ","),
        ("delimiter", "\t"),
        ("delimiter", "::"),
        ("user", "Customer ID (x)"),
        ("dir", "postgres://ann:p@host/shop?sslmode=require"),
        ("dir", "parts/part-[0-9]*.csv"),
    ],
)
def test_the_command_line_takes_texts_as_they_are(option, value):
    given = naming.quoted(f"dataset.{option}={value}")
    assert composed("dataset=table", "dataset.dir=x.csv", given)["dataset"][option] == value
    assert naming.quoted(given) == given or option == "dir"


def test_numbers_of_columns_and_words_stay_what_they_are():
    words = [naming.quoted(word) for word in ("dataset.user=2", "dataset.time=none", "dataset.where='a > 1'")]
    dataset = composed("dataset=table", "dataset.dir=x.csv", *words)["dataset"]
    assert (dataset["user"], dataset["time"], dataset["where"]) == (2, "none", "a > 1")


def test_a_teacher_is_measured_on_new_users_as_its_codes_are(tmp_path):
    """All users of test are new: its arbitrary rows would be a teacher's figures, and popular items those of codes."""
    path = tmp_path / "shop.csv"
    shop(path)
    rows = path.read_text().splitlines()
    path.write_text(
        "\n".join([rows[0], *(row.replace("2024-", "2025-") if ",u0" in row else row for row in rows[1:])])
    )
    share = float((l2q.read_events(path).times >= 1735689600).mean())  # of 2025
    few = ["model.bits=32", "model.descent.intruder_rounds=2", "model.embeddings.steps=30"]
    words = ["dataset=table", f"dataset.dir={path}", "eval.ks=[5]", f"dataset.test_fraction={share}"]
    metrics = run(tmp_path / "run", "model=l2q_plus", *few, *words, "dataset.split=time")
    assert metrics["reading"][3].endswith("new in test: 10 users")
    assert metrics["test/teacher/recall_5"] == metrics["test/recall_5"]
