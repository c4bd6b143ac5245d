"""One table of Parquet that several processes read, each a run of its row groups."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from runs import ROOT, environment, metrics_of

import l2q
from l2q import processes
from l2q.errors import L2QError
from l2q.events import shares
from l2q.events.containers import open_table
from l2q.events.table import Table
from l2q.names import FiledNames

ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")}


def events(seed: int, rows: int, users: int = 60, items: int = 40) -> pa.Table:
    """Names of several alphabets, pairs that come again, values and times; every tenth value is missing."""
    rng = np.random.default_rng(seed)
    user = [f"ü{x}é" if x % 3 else f"用户{x}" for x in rng.integers(users, size=rows)]
    value = [None if x % 10 == 0 else 1.0 + x % 5 for x in rng.integers(1000, size=rows)]
    return pa.table(
        {
            "user": user,
            "item": [f"i{x}" for x in rng.integers(items, size=rows)],
            "time": rng.integers(1_500_000_000, 1_500_002_000, size=rows),
            "rating": pa.array(value, pa.float64()),
        }
    )


def untidy(part: int) -> pa.Table:
    """Spaces around names, a header within, missing names in two spellings, dates without an order until the last part,
    letter case that tells names apart, a line break."""
    rng = np.random.default_rng(part)
    users = [f"  u{x}" if part and x % 5 == 0 else f"u{x}" for x in rng.integers(60, size=200)]
    items: list[str | None] = [f"I{x}" if x % 2 else f"i{x // 3}" for x in rng.integers(60, size=200)]
    day = [1 + x % (28 if part == 2 else 12) for x in rng.integers(1000, size=200)]
    if part == 1:
        users[7:10] = [None, " ", "NA"]  # type: ignore[list-item]
        items[11:13] = [None, "a\nb"]
    if part == 2:
        users[3], items[3] = "user", "item"
    return pa.table({"user": users, "item": items, "when": [f"{x:02d}/03/2020" for x in day]})


def written(folder: Path, *tables: pa.Table, **options) -> None:
    folder.mkdir(parents=True)
    for number, table in enumerate(tables):
        parquet.write_table(table, folder / f"part-{number}.parquet", **options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    written(folder / "parts", *(events(part, rows) for part, rows in enumerate([300, 0, 500, 7, 200])))
    written(folder / "groups", events(9, 3000, 100, 50), row_group_size=100)
    written(folder / "small", events(9, 50, 20, 10))
    rng = np.random.default_rng(0)
    numbers = {
        "user": rng.integers(10**12, 10**12 + 70, size=1000),
        "item": rng.integers(30, size=1000).astype(np.int16),
    }
    written(folder / "numbers", pa.table(numbers), row_group_size=70)
    written(folder / "untidy", *map(untidy, range(3)), row_group_size=50)
    quoted = [f'"{x}"' for x in rng.integers(40, size=600)]
    users = rng.integers(60, size=600)
    kinds = (pa.int64(), pa.float64(), pa.float32())
    written(
        folder / "kinds",
        *(
            pa.table({"user": pa.array(users[part::3], kind), "item": quoted[part::3]})
            for part, kind in enumerate(kinds)
        ),
    )
    lists = [[f"i{y}" for y in rng.integers(30, size=5)] for _ in range(120)]
    names = [f"u{x}" for x in range(120)]
    written(
        folder / "lists",
        *(pa.table({"user": names[part::3], "items": lists[part::3]}) for part in range(3)),
    )
    for day in (1, 2):
        written(folder / "days" / f"day={day}", events(day, 200, 30, 20).drop(["rating"]))
    written(folder / "none", events(1, 0), events(2, 0))
    written(
        folder / "others", events(1, 100), events(1, 100).rename_columns(["user", "item", "zeit", "rating"])
    )
    written(folder / "later", events(3, 12_000), events(4, 12_000), compression="none", use_dictionary=False)
    path = folder / "later" / "part-1.parquet"
    content = bytearray(path.read_bytes())
    content[200:9000] = b"\xff" * 8800  # a page's head and the lengths of names
    path.write_bytes(content)
    return folder


CASES: dict[str, tuple[str, dict]] = {
    "parts": ("parts", {}),
    "last": ("parts", {"dedupe": "last"}),
    "groups": ("groups", {"min_value": 3}),
    "small": ("small", {"time": "none"}),
    "numbers": ("numbers", {}),
    "missing": ("untidy", {}),
    "drop": ("untidy", {"missing": "drop"}),
    "keep": ("untidy", {"missing": "keep", "where": "user <> 'u7'"}),
    "kinds": ("kinds", {}),
    "lists": ("lists", {}),
    "days": ("days", {"where": "day = 1"}),
    "none": ("none", {}),
    "others": ("others", {}),
    "nothing left": ("parts", {"where": "rating > 9"}),
    "no column": ("parts", {"user": "zeit"}),
    "absent": ("absent", {}),
}

READ = """
import json, sys
import numpy as np
import l2q
from l2q import processes
processes.join()
said = {}
for name, (source, options) in json.loads(sys.argv[1]).items():
    try:
        with processes.together("start them again"):
            found = l2q.read_events(source, **options)
    except l2q.L2QError as error:
        said[name] = str(error)
        continue
    beside = {key: of for key in ("times", "values", "counts") if (of := getattr(found, key)) is not None}
    np.savez(f"{sys.argv[2]}/{name}-{processes.rank()}.npz", indptr=found.indptr, items=found.items, **beside)
    if processes.leads():
        said[name] = [found.reading.to_json(), list(found.user_names), list(found.item_names)]
    else:
        assert found.user_names.text is None
        said[name] = len(found.user_names), len(found.item_names)
open(f"{sys.argv[2]}/said-{processes.rank()}.json", "w").write(json.dumps(said))
processes.leave()
"""


def torchrun(*words: str, number: int, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    return subprocess.run(
        [*start, *words],
        cwd=cwd,
        env=environment(cwd) | ONE_THREAD | more,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3])
def test_what_several_processes_read_is_what_one_reads(tables, tmp_path, number, monkeypatch):
    """The same ids, pairs, times, values and counts, in every process; the same names in the first one; the same
    sentences, and the same lines of refusal in all."""
    monkeypatch.chdir(tables)
    (tmp_path / "read.py").write_text(READ)
    done = torchrun(f"{tmp_path}/read.py", json.dumps(CASES), str(tmp_path), number=number, cwd=tables)
    assert done.returncode == 0, done.stderr
    said = [json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(number)]
    refused = {}
    for name, (source, options) in CASES.items():
        try:
            one = l2q.read_events(source, **options)
        except L2QError as error:
            refused[name] = str(error)
            continue
        assert one.reading is not None
        assert one.user_names is not None
        assert one.item_names is not None
        ours = json.loads(json.dumps(one.reading.to_json()))
        assert said[0][name] == [ours, one.user_names.tolist(), one.item_names.tolist()], name
        for rank in range(number):
            if rank:
                assert said[rank][name] == [one.num_users, one.num_items]
            with np.load(tmp_path / f"{name}-{rank}.npz") as theirs:
                for key in ("indptr", "items", "times", "values", "counts"):
                    expected = getattr(one, key)
                    assert (expected is None) == (key not in theirs), (name, key)
                    if expected is not None:
                        np.testing.assert_array_equal(theirs[key], expected, err_msg=f"{name}: {key}")
                        assert theirs[key].dtype == expected.dtype
    for each in said:
        assert {name: of for name, of in each.items() if isinstance(of, str)} == refused
    assert list(refused) == ["missing", "none", "others", "nothing left", "no column", "absent"]


QUICK = ["model=l2q_plus", "model.bits=40", "model.embeddings.steps=20", "model.descent.intruder_rounds=3"]
RUN = [*QUICK, "logger=none", "dataset=table", "dataset.min_events=3", "dataset.split=random", "eval.ks=[5]"]


@pytest.mark.slow
def test_a_run_by_two_processes_over_parts_leaves_the_index_of_one(tables, tmp_path):
    """From the parts, and again from what the first process has kept; users and items of few events are left out."""
    words = [*RUN, f"dataset.dir={tables}/parts"]
    train = str(ROOT / "train.py")
    alone = {"L2Q_CACHE": str(tmp_path / "alone")}
    one = subprocess.run(
        [sys.executable, train, *words, f"hydra.run.dir={tmp_path}/one"],
        cwd=tmp_path,
        env=environment(tmp_path) | ONE_THREAD | alone,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert one.returncode == 0, one.stderr
    for name in ("read", "kept"):
        done = torchrun(train, *words, f"hydra.run.dir={tmp_path}/{name}", number=2, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for path in (tmp_path / "one" / "index").iterdir():
            assert (tmp_path / name / "index" / path.name).read_bytes() == path.read_bytes(), path.name
        ours, theirs = (metrics_of(tmp_path / folder) for folder in ("one", name))
        assert theirs["reading"] == ours["reading"]
        assert theirs["test/packed/recall_5"] == ours["test/packed/recall_5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("others", r"others holds several tables"),
        ("later", r"process 1 of 2: cannot read \S*later: "),
        ("small", r"small: min_events=40 leaves no train pair"),
    ],
)
def test_what_is_wrong_with_parts_ends_all_processes_with_one_line(tables, tmp_path, source, said):
    """Whoever finds it: here a page that only the second process reads, and a split that all make."""
    words = [*RUN, f"dataset.dir={tables}/{source}"]
    if source == "small":
        words = [*words, "dataset.min_events=40"]
    done = torchrun(str(ROOT / "train.py"), *words, number=2, cwd=tmp_path)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith(("error:", "process"))]
    assert len(lines) == 1, done.stderr
    traces = done.stderr.count("Traceback (most recent call last)")
    assert traces == done.stderr.count("ChildFailedError:") == 1, done.stderr  # torchrun's own
    assert re.search(rf"^error: .*{said}", lines[0])


KILLED = """
import os, runpy, signal, sys
from l2q.events import shares
rank, name, *sys.argv = sys.argv[1:]
if os.environ["RANK"] == rank:
    setattr(shares, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "where"), [("1", "_pieces"), ("1", "numbered"), ("1", "by_user"), ("0", "numbered")]
)
def test_a_process_that_is_killed_while_it_reads_ends_the_others_with_one_line(tables, tmp_path, rank, where):
    """As soon as rows are parted, before names are numbered, and before pairs are sent to whoever has their users."""
    (tmp_path / "killed.py").write_text(KILLED)
    words = [*RUN, f"dataset.dir={tables}/parts", "hydra.run.dir=run"]
    ours = {"L2Q_CACHE": str(tmp_path / "cache")}
    done = torchrun("killed.py", rank, where, str(ROOT / "train.py"), *words, number=2, cwd=tmp_path, **ours)
    assert done.returncode != 0
    assert re.search(r"Signal 9 \(SIGKILL\)", done.stderr)
    lines = [
        line for line in done.stderr.splitlines() if "another of the 2 processes of this run has" in line
    ]
    # torchrun's signal may be first: the first process says so, the second one says nothing
    assert len(lines) + done.stderr.count("broken off by") == 1 or (rank == "0" and not lines), done.stderr
    assert all(line.endswith("has ended; the same command begins anew with reading") for line in lines)
    traces = done.stderr.count("Traceback (most recent call last)")
    assert traces == done.stderr.count("ChildFailedError:") == 1, done.stderr  # torchrun's own
    assert not list((tmp_path / "cache").rglob("*.npz"))
    assert not (tmp_path / "run" / "index").exists()


def test_what_is_wrong_in_one_process_is_an_error_in_all(monkeypatch):
    """Two processes, the second of which finds what it finds; each hears what the other says."""
    for name, value in {"size": lambda: 2, "connect": lambda: None}.items():
        monkeypatch.setattr(processes, name, value)

    def heard(rank: int, other: object):
        def gathered(found, own):
            found[rank], found[1 - rank] = own, other

        monkeypatch.setattr(processes, "rank", lambda: rank)
        monkeypatch.setattr("torch.distributed.all_gather_object", gathered)

    def fails(error: Exception):
        raise error

    with processes.together("start again"):
        heard(0, None)
        assert processes.agreed(lambda: 7) == 7
        assert processes.everyone(3) == [3, None]
        heard(0, "no such file")
        with pytest.raises(L2QError, match=r"^process 1 of 2: no such file$"):
            processes.agreed(lambda: 7)
        with pytest.raises(L2QError, match=r"^no such column$"):
            processes.agreed(lambda: fails(L2QError("no such column")))
        heard(1, None)
        with pytest.raises(L2QError, match=r"^process 1 of 2: memory ran out"):
            processes.agreed(lambda: fails(MemoryError()))
        with pytest.raises(KeyError):  # a bug stays one where it is
            processes.agreed(lambda: fails(KeyError("user")))
        heard(0, "KeyError: 'user'")
        with pytest.raises(L2QError, match=r"^process 1 of 2: KeyError: 'user'$"):
            processes.agreed(lambda: 7)
        assert processes.are_together()


def test_a_process_that_reads_for_itself_beside_others_reads_all_of_a_table(tmp_path, monkeypatch):
    """As with a table that is not read in parts."""
    (tmp_path / "events.csv").write_text("user,item\n" + "".join(f"u{n % 5},i{n}\n" for n in range(20)))
    expected = l2q.read_events(tmp_path / "events.csv")
    monkeypatch.setattr(processes, "rank", lambda: 1)
    monkeypatch.setattr(processes, "size", lambda: 2)
    assert processes.told(lambda: 3) == 3
    found = l2q.read_events(tmp_path / "events.csv")
    np.testing.assert_array_equal(found.items, expected.items)
    assert found.user_names.tolist() == expected.user_names.tolist()


def share(table: Table, number: int, size: int, monkeypatch: pytest.MonkeyPatch) -> list:
    """The rows that a process of several would read, in their order."""
    monkeypatch.setattr(processes, "rank", lambda: number)
    monkeypatch.setattr(processes, "size", lambda: size)
    found = []
    for piece in shares._pieces(table):
        table.connection.execute(piece)
        found += table.connection.execute("SELECT * FROM events").fetchall()
    return found


@pytest.mark.parametrize("source", ["parts", "groups", "kinds", "none", "days"])
def test_the_shares_of_all_processes_are_the_rows_of_the_table_in_their_order(tables, source, monkeypatch):
    with open_table(tables / source) as table:
        rows = table.connection.execute("SELECT * FROM events").fetchall()
        for size in (1, 2, 3, 7, 50):
            found = [share(table, number, size, monkeypatch) for number in range(size)]
            assert [row for part in found for row in part] == rows
            if source == "groups":  # of 30 groups
                assert max(map(len, found)) <= (3000 // size // 100 + 1) * 100


def test_a_column_that_is_called_as_duckdb_calls_row_numbers_parts_by_files(tmp_path, monkeypatch):
    table = pa.table({"user": ["a", "b", "c"], "item": ["x", "y", "z"], "file_row_number": [7, 8, 9]})
    written(tmp_path / "t", table, table, row_group_size=1)
    with open_table(tmp_path / "t") as opened:
        found = [share(opened, number, 2, monkeypatch) for number in range(2)]
    assert found == [[("a", "x", 7), ("b", "y", 8), ("c", "z", 9)]] * 2


def test_names_in_a_file_are_those_of_a_list():
    words = ["a", "ü", "", "long " * 40, "用户"] * 30
    names = FiledNames.of_bytes([f"{word}\n".encode() for word in words])
    assert (len(names), list(names), names[3], names[-1]) == (150, words, words[3], "用户")
    some = np.arange(150) % 7 == 0
    assert list(names[some]) == [word for word, chosen in zip(words, some, strict=True) if chosen]
    assert list(names[np.array([4, 9])]) == ["用户", "用户"]
    cut = FiledNames.of_bytes(["\n".join(words).encode()[:50], "\n".join(words).encode()[50:]])
    assert list(cut) == words
    elsewhere = FiledNames(150)
    assert (len(elsewhere), len(elsewhere[some])) == (150, int(some.sum()))
    with pytest.raises(LookupError, match="the first process has the names"):
        elsewhere[0]
    assert list(FiledNames.of_bytes([])) == []


def test_names_of_a_file_are_found_as_in_a_list(tmp_path, monkeypatch):
    monkeypatch.setattr("l2q.names.CHUNK", 10)
    words = ["a", "ü", "", "long " * 40, "用户", "aa", "a b", "long"] * 3
    path = tmp_path / "names.txt"
    path.write_text("".join(f"{word}\n" for word in words), "utf-8")
    names = FiledNames.of_file(path)
    assert list(names) == words
    assert (names[2:5], names[-1:]) == (words[2:5], ["long"])
    for word in (*words[:8], "lon", "ong", "a\nü", "b", "\ud800"):
        assert (word in names, names.count(word)) == (word in words, words.count(word))
        if word in words:
            assert names.index(word) == words.index(word)
        else:
            with pytest.raises(ValueError, match="is no name"):
                names.index(word)
    for damaged in (b"a\nb", b"\xff\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"no end|decode"):
            FiledNames.of_file(path)
    path.write_bytes(b"")
    assert (len(FiledNames.of_file(path)), "a" in FiledNames.of_file(path)) == (0, False)


def test_names_in_a_file_are_read_in_chunks_of_whole_lines(monkeypatch):
    monkeypatch.setattr("l2q.names.CHUNK", 10)
    words = ["a" * length for length in (3, 25, 0, 1, 9, 12, 2)]
    names = FiledNames.of_bytes([f"{word}\n".encode() for word in words])
    assert list(names) == words
    assert all(chunk.endswith(b"\n") for chunk in names.lines())
