"""``python -m l2q convert``: what is written is read back as it was, and nothing is lost on the way."""

import csv
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from runs import EVERY_EPOCH, SMALL, composed, run
from runs import table as write_table

import l2q
from l2q.cli import convert, main
from l2q.cli.arguments import spelled
from l2q.data.export import FORMATS, export
from l2q.data.parts import Parts, open_parts
from l2q.data.sources import Source
from l2q.interactions import Reading, name_array
from l2q.learning.run import Run

ODD = [
    '"quoted" at first',
    'a "quote" within',
    "a,comma",
    "semi;colon",
    "two  spaces",
    "tab\there",
    "it's",
    "::",
    "|",
]
ODD += [
    "Ünïcödé 漢字",
    "007",
    "7",
    "#hash",
    "17.5 cm",
    "back\\slash",
    "=1+1",
    "a: b",
    "user_id:token",
    "1,5",
    "org_id",
]


def pairs(interactions):
    """(user, item, time, value) by names, None where nothing is known."""
    users, items = (
        [str(n) for n in range(count)] if names is None else names
        for names, count in (
            (interactions.user_names, interactions.num_users),
            (interactions.item_names, interactions.num_items),
        )
    )
    beside = [
        [None] * len(interactions) if known is None else [None if np.isnan(x) else float(x) for x in known]
        for known in (interactions.times, interactions.values)
    ]
    columns = zip(interactions.users, interactions.items, *beside, strict=True)
    return {(users[u], items[i], t, v) for u, i, t, v in columns}


def bare(found):
    return {(user, item) for user, item, *_ in found}


@pytest.fixture
def events(tmp_path):
    """A table of odd names, times with fractions and ratings with halves; one event has neither."""
    rng = np.random.default_rng(0)
    rows = [["who", "what", "when", "stars"]]
    chosen = sorted({(int(u), int(i)) for u, i in rng.integers(len(ODD), size=(160, 2))})
    for row, (user, item) in enumerate(chosen):
        when = "" if row == 7 else repr(1_500_000_000.25 + 86400 * row)
        rows.append([f"who {ODD[user]}", ODD[item], when, "" if row == 7 else str(3 + row % 5 / 2)])
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


ASKED = {"user": "who", "item": "what", "time": "when", "value": "stars"}
WORDS = [word for option, column in ASKED.items() for word in (f"--{option}", column)]


def read_folder(folder):
    return Source("read", dir=str(folder), verify=False).load()


@pytest.mark.parametrize("to", ["csv", "parquet", "recbole"])
def test_a_table_comes_back_with_names_times_and_values(events, tmp_path, to):
    before = l2q.read_events(events, **ASKED)
    out = tmp_path / {"csv": "all.csv", "parquet": "all.parquet", "recbole": "odd"}[to]
    assert main(["convert", str(events), str(out), "--to", to, *WORDS]) == 0
    after = l2q.read_events(out / "odd.inter" if to == "recbole" else out)
    assert pairs(after) == pairs(before)
    assert len(after) == len(before) > 100
    assert set(after.item_names) >= set(ODD) - {"user_id:token"} or set(after.item_names) == set(
        before.item_names
    )


@pytest.mark.parametrize("to", list(FORMATS))
@pytest.mark.parametrize("split", ["time", "last", "random"])
def test_a_split_comes_back_as_a_split(events, tmp_path, to, split):
    before = l2q.read_events(events, **ASKED)
    if split != "random":  # an event without a time is in no split by time
        before = l2q.read_events(events, **ASKED, where='"when" is not null')
    train, test = l2q.split(before, split, fraction=0.3, seed=4)
    options = ["--split", split, "--test-fraction", "0.3", "--seed", "4"]
    more = [] if split == "random" else ["--where", '"when" is not null']
    assert main(["convert", str(events), str(tmp_path / "out"), "--to", to, *WORDS, *options, *more]) == 0
    after = read_folder(tmp_path / "out")
    known = bare if to == "lightgcn" else set
    for part, read in ((train, after.train), (test, after.test)):
        assert known(pairs(part)) == known(pairs(read))
        assert len(part) == len(read) > 10


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_file_says_which_part_a_row_is_in(events, tmp_path, ending):
    out = tmp_path / f"split.{ending}"
    assert main(["convert", str(events), str(out), *WORDS, "--split", "random", "--min-events", "2"]) == 0
    train, test = l2q.split(l2q.read_events(events, **ASKED), "random", min_events=2)
    for name, part in (("train", train), ("test", test)):
        assert pairs(l2q.read_events(out, where=f"part = '{name}'", time="time")) == pairs(part)


def test_the_files_are_those_that_other_libraries_read(tmp_path, capsys):
    (tmp_path / "few.csv").write_text(
        "user,item,rating,timestamp\nada,x,4,1500000000\nada,y,4.5,1500000001\n"
        "ben,y,5,1500000002\nben,z w,5,1500000003\n"
    )
    source, words = str(tmp_path / "few.csv"), ["--split", "time", "--test-fraction", "0.3"]
    assert main(["convert", source, str(tmp_path / "few"), "--to", "recbole", *words]) == 0
    folder = tmp_path / "few"
    assert sorted(path.name for path in folder.iterdir()) == ["few.test.inter", "few.train.inter"]
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    assert (folder / "few.train.inter").read_text() == (
        f"{head}ada\tx\t4\t1500000000\nada\ty\t4.5\t1500000001\nben\ty\t5\t1500000002\n"
    )
    assert (folder / "few.test.inter").read_text() == f"{head}ben\tz w\t5\t1500000003\n"
    assert "benchmark_filename: ['train', 'test']" in capsys.readouterr().out
    assert main(["convert", source, str(tmp_path / "light"), "--to", "lightgcn", *words]) == 0
    found = {path.name: path.read_text() for path in (tmp_path / "light").iterdir()}
    assert found == {
        "train.txt": "0 0 1\n1 1\n",
        "test.txt": "1 2\n",
        "user_list.txt": "org_id remap_id\nada 0\nben 1\n",
        "item_list.csv": "org_id,remap_id\nx,0\ny,1\nz w,2\n",
    }
    said = capsys.readouterr().out
    assert "'z w' have spaces" in said
    assert "times and values have no place" in said
    assert main(["convert", source, str(tmp_path / "few.parquet"), *words]) == 0
    stored = pyarrow.parquet.read_table(tmp_path / "few.parquet")
    assert {field.name: str(field.type) for field in stored.schema} == {
        "user": "string",
        "item": "string",
        "time": "double",
        "value": "float",
        "part": "string",
    }
    assert stored["part"].to_pylist() == ["train"] * 3 + ["test"]


def test_ids_that_are_names_stay_what_they_are(tmp_path):
    """A set of LightGCN without lists, ids with gaps and a user who is in test alone."""
    folder = tmp_path / "ids"
    folder.mkdir()
    (folder / "train.txt").write_text("0 0 1\n4 1 7\n")
    (folder / "test.txt").write_text("4 0\n9 7\n")
    before = read_folder(folder)
    for to in FORMATS:
        assert main(["convert", str(folder), str(tmp_path / to), "--to", to]) == 0
        after = read_folder(tmp_path / to)
        for part in ("train", "test"):
            assert bare(pairs(getattr(after, part))) == bare(pairs(getattr(before, part)))
    assert bare(pairs(after.test)) == {("4", "0"), ("9", "7")}


def test_a_set_is_called_by_its_name(tmp_path):
    assert main(["convert", "debian", str(tmp_path / "debian"), "--to", "lightgcn"]) == 0
    before, after = l2q.load_dataset("debian"), read_folder(tmp_path / "debian")
    assert after.train.fingerprint == before.train.fingerprint
    assert after.test.fingerprint == before.test.fingerprint
    assert list(after.item_names) == list(before.item_names)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a validation part, and what its parts were."""
    folder = tmp_path_factory.mktemp("convert")
    words = [*write_table(folder / "events.csv"), "model=lightgcn", *SMALL, EVERY_EPOCH, "protocol=holdout"]
    words += ["protocol.split_seed=3", "dataset.split=random", "dataset.split_seed=5"]
    run(folder / "run", *words)
    made = Run(composed("logger=none", *words), folder / "again")
    return folder, {"train": made.rest, "valid": made.val, "test": made.dataset.test}


def test_the_split_of_a_run_is_the_very_one(trained, tmp_path):
    folder, parts = trained
    found = open_parts(str(folder / "run"))
    assert {name: pairs(part) for name, part in found.of.items()} == {n: pairs(p) for n, p in parts.items()}
    assert main(["convert", str(folder / "run"), str(tmp_path / "run.csv")]) == 0
    for name, part in parts.items():
        assert pairs(
            l2q.read_events(tmp_path / "run.csv", user="user", item="item", where=f"part = '{name}'")
        ) == pairs(part)
    assert main(["convert", str(folder / "run"), str(tmp_path / "light"), "--to", "lightgcn"]) == 0
    lines = [len(line.split()) - 1 for line in (tmp_path / "light" / "valid.txt").read_text().splitlines()]
    assert sum(lines) == len(parts["valid"]) > 10


def test_a_run_whose_table_is_another_one_now_has_no_split(tmp_path, capsys):
    words = write_table(tmp_path / "events.csv")
    run(tmp_path / "run", "model=popularity", *words)
    write_table(tmp_path / "events.csv", users=50)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "out.csv")]) == 2
    assert "has other pairs now than when the run read it" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_users_left_out_have_a_part_of_their_own(tmp_path, capsys):
    words = ["--split", "users", "--test-fraction", "0.3"]
    write_table(tmp_path / "events.csv")
    source = str(tmp_path / "events.csv")
    assert main(["convert", source, str(tmp_path / "out.csv"), *words]) == 0
    _, test = l2q.split(l2q.read_events(source), "users", fraction=0.3)
    given = l2q.read_events(tmp_path / "out.csv", where="part = 'given'")
    assert pairs(given) == pairs(test.given)
    assert main(["convert", source, str(tmp_path / "out"), "--to", "recbole", *words]) == 2
    assert "split=users has a part that is given" in capsys.readouterr().err


def test_nothing_is_replaced_unasked(tmp_path, capsys):
    write_table(tmp_path / "events.csv")
    source = str(tmp_path / "events.csv")
    for out, to in (
        ("out.csv", "csv"),
        ("out.parquet", "parquet"),
        ("light", "lightgcn"),
        ("rec", "recbole"),
    ):
        words = ["convert", source, str(tmp_path / out), "--to", to]
        assert main(words) == 0
        assert main(words) == 2
        assert "is there already; --force replaces it" in capsys.readouterr().err
        assert main([*words, "--force"]) == 0
    (tmp_path / "light" / "notes.md").write_text("mine")
    assert main(["convert", source, str(tmp_path / "light"), "--to", "lightgcn", "--force"]) == 2
    assert "holds other files (notes.md)" in capsys.readouterr().err
    assert (tmp_path / "light" / "train.txt").is_file()
    # one format's files go when another one's come
    assert main(["convert", source, str(tmp_path / "rec"), "--to", "csv", "--force"]) == 0
    assert [path.name for path in (tmp_path / "rec").iterdir()] == ["all.csv"]
    assert main(["convert", source, source, "--to", "csv", "--force"]) == 2
    assert "is what is read" in capsys.readouterr().err


REFUSED = {
    "in which format": ["SOURCE", "out"],
    "ends as csv does, but parquet is asked for": ["SOURCE", "out.csv", "--to", "parquet"],
    "--split=last needs the time of every event": ["SOURCE", "out.csv", "--split", "last"],
    "--split=sideways is unknown": ["SOURCE", "out.csv", "--split", "sideways"],
    "--test-fraction=0.3 has no effect without a split; name one: --split=time": [
        *("SOURCE", "out.csv", "--test-fraction", "0.3")
    ],
    "--split=time has no effect on debian": ["debian", "out.csv", "--split", "time"],
    "--user=": ["SOURCE", "out.csv", "--user", "nobody"],
    "there is no such file": ["nothing.csv", "out.csv"],
    "cannot be written": ["SOURCE", "events.csv/out/out.csv"],
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_is_one_line(said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "events.csv")
    words = ["events.csv" if word == "SOURCE" else word for word in REFUSED[said]]
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.csv"]


def test_a_format_that_is_none_is_named(tmp_path):
    write_table(tmp_path / "events.csv")
    with pytest.raises(
        l2q.L2QError, match="'excel' is no format that is written; use lightgcn, recbole, parquet, csv"
    ):
        export(open_parts(str(tmp_path / "events.csv"), {}), "excel", tmp_path / "out")


def test_a_name_of_several_lines_is_refused_where_lines_are_names(tmp_path):
    """Tables' names have none; those of a caller may."""
    made = l2q.Interactions.from_pairs(
        [0, 1], [0, 1], 2, 2, name_array(["a", "b\nc"]), name_array(["x", "y"])
    )
    parts = Parts("made", {"all": replace(made, reading=None)}, Reading("made", {}))
    with pytest.raises(l2q.L2QError, match=r"the user 'b\\nc' has a line break"):
        export(parts, "lightgcn", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(parts, "parquet", tmp_path / "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["user"].to_pylist() == ["a", "b\nc"]


def test_options_are_spelled_as_the_command_has_them():
    said = "missing=drop leaves them out; dataset.user=COLUMN dataset.item=COLUMN, where=\"a = 'b'\", min_value=4"
    assert spelled(said) == (
        "--missing=drop leaves them out; --user=COLUMN --item=COLUMN, --where=\"a = 'b'\", --min-value=4"
    )
    assert spelled("data/user=3/part.csv, model=x, split_seed=1") == "data/user=3/part.csv, model=x, --seed=1"
    assert tuple(FORMATS) == convert.FORMATS
