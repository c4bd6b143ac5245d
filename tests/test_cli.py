"""The command line: names in, names out; one line for what cannot be used."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import l2q.cli
from l2q.cli import main
from l2q.interactions import Interactions, name_array
from l2q.representations import Representations, Rows
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index

USERS = ["ada", "ben", "cleo"]
ITEMS = ["apple", "apricot", "banana", "cherry", "damson"]
COMMANDS = ["recommend", "similar", "batch", "info", "export", "quantize", "report"]
POPULAR = '''"""``python -m l2q popular``: what most users have."""

from __future__ import annotations

import argparse

from l2q.cli.arguments import add_index, add_length

HELP = "items that most users have"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_index(parser)
    add_length(parser)


def run(index: str, k: int) -> None:
    """The k items with the most users in train."""
    import numpy as np

    from l2q.retrieval.storage import load_index

    opened = load_index(index)
    degrees = opened.exclude.item_degrees
    for item in np.argsort(-degrees, kind="stable")[:k]:
        print(f"{opened.item_names[item]}: {degrees[item]:,} users")
'''


def save_index(folder, representations, train, *, user_names=None, item_names=None, **more):
    names = [None if names is None else name_array(list(names)) for names in (user_names, item_names)]
    named = replace(train, user_names=names[0], item_names=names[1])
    return Index.of(representations, named, **more).save(folder)


def signs(*rows: str) -> np.ndarray:
    return np.array([[1 if sign == "+" else -1 for sign in row] for row in rows], np.int8)


@pytest.fixture
def folder(tmp_path):
    """Scores of ada: apple 4, apricot 2, banana 0, cherry -2, damson 4 x 3; of ben the opposite. Ada has
    damson, ben has damson and cherry, cleo has everything."""
    representations = Representations(
        Rows(signs("++++", "----", "++--")),
        Rows(
            signs("++++", "+++-", "++--", "+---", "++++"),
            np.array([[1], [1], [1], [1], [3]], np.float32),
        ),
        (4,),
        np.ones(1, np.float32),
    )
    train = Interactions.from_pairs([0, 1, 1, 2, 2, 2, 2, 2], [4, 4, 3, 0, 1, 2, 3, 4], 3, 5)
    return str(
        save_index(
            tmp_path / "index",
            representations,
            train,
            user_names=USERS,
            item_names=ITEMS,
            dataset="fruit",
            metrics={"test/recall_20": 0.125},
        )
    )


def ranking(capsys, *arguments: str) -> list[tuple[str, float]]:
    assert main([*arguments, "--json"]) == 0
    return [(entry["item"], entry["score"]) for entry in json.loads(capsys.readouterr().out)["ranking"]]


def test_recommend_leaves_out_what_the_user_has(folder, capsys):
    found = ranking(capsys, "recommend", "--index", folder, "--user", "ada", "-k", "3")
    assert found == [("apple", 4), ("apricot", 2), ("banana", 0)]
    found = ranking(capsys, "recommend", "--index", folder, "--user", "ben", "-k", "20")
    assert found == [("banana", 0), ("apricot", -2), ("apple", -4)]
    assert ranking(capsys, "recommend", "--index", folder, "--user", "cleo") == []


def test_recommend_shows_a_table(folder, capsys):
    assert main(["recommend", "--index", folder, "--user", "ada", "-k", "2"]) == 0
    out = capsys.readouterr().out
    assert out.index("apple") < out.index("apricot")
    assert "for ada" in out
    assert "damson" not in out


def test_tables_show_names_as_they_are(folder, tmp_path, capsys):
    """Square brackets and colons are markup to the printer of tables."""
    names = ["Alien [uncut]", "d [/i]", "[bold]", ":smile:", "x\\"]
    stored = load_index(folder)
    named = str(tmp_path / "[/i] :smile:")
    users = ["ada [/b]", "ben", "cleo"]
    save_index(
        named, stored.representations, stored.exclude, user_names=users, item_names=names, dataset="s [/i]"
    )
    assert main(["recommend", "--index", named, "--user", "ada [/b]"]) == 0
    out = capsys.readouterr().out
    assert "for ada [/b]" in out
    assert all(f" {name} " in out for name in names[:4])
    assert main(["similar", "--index", named, "--item", "d [/i]"]) == 0
    assert "like d [/i]" in capsys.readouterr().out
    assert main(["info", "--index", named]) == 0
    assert " s [/i] " in capsys.readouterr().out


def test_recommend_to_a_new_user(folder, capsys):
    found = ranking(capsys, "recommend", "--index", folder, "--items", "apple, damson", "-k", "9")
    assert sorted(name for name, _ in found) == ["apricot", "banana", "cherry"]
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_names_with_commas_and_names_of_two(folder, tmp_path, capsys):
    stored, named = load_index(folder), str(tmp_path / "named")
    names = ["x", "a, b", "banana", "cherry", "x"]
    save_index(named, stored.representations, stored.exclude, item_names=names)
    asked = ["recommend", "--index", named, "--item", "a, b", "--item", "cherry", "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["items"] == ["a, b", "cherry"]
    assert sorted(entry["item"] for entry in found["ranking"]) == ["banana", "x", "x"]
    assert main(["recommend", "--index", named, "--item", "a"]) == 2
    assert "no item is named 'a' among 5" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="2 items are named 'x'; the first, row 0, is taken"):
        assert main(["similar", "--index", named, "--item", "x"]) == 0
    # as a program it is one line
    command = [sys.executable, "-m", "l2q", "similar", "--index", named, "--item", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == "warning: 2 items are named 'x'; the first, row 0, is taken\n"


def test_similar_items(folder, capsys):
    found = ranking(capsys, "similar", "--index", folder, "--item", "apple", "-k", "2")
    assert found == [("damson", pytest.approx(4 * 3**0.5)), ("apricot", 2)]


@pytest.mark.parametrize("pairs", [([0, 1], [1, 2]), ([], [])])
def test_an_item_that_no_user_of_train_has_is_told(folder, tmp_path, recwarn, pairs):
    stored, cold = load_index(folder), str(tmp_path / "cold")
    save_index(cold, stored.representations, Interactions.from_pairs(*pairs, 3, 5), item_names=ITEMS)
    for words in (["similar", "--item", "apple"], ["recommend", "--items", "apricot,apple"]):
        assert main([*words, "--index", cold]) == 0
    told = [str(warning.message) for warning in recwarn]
    # without train items nothing is known of who has what
    assert told == 2 * ["no user of train has 'apple': a ranking by it means nothing"] * bool(pairs[0])


def test_batch_writes_every_user(folder, tmp_path, capsys, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("l2q.cli.batch.USERS", 2)
    out = tmp_path / "top.parquet"
    assert main(["batch", "--index", folder, "--out", str(out), "-k", "2"]) == 0
    assert pq.read_table(out).to_pylist() == [
        {"user": "ada", "items": ["apple", "apricot"], "scores": [4, 2]},
        {"user": "ben", "items": ["banana", "apricot"], "scores": [0, -2]},
        {"user": "cleo", "items": [], "scores": []},
    ]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["top.parquet"]
    assert main(["batch", "--index", folder, "--out", str(tmp_path / "top.csv")]) == 2
    assert "written as Parquet; give" in capsys.readouterr().err
    assert not (tmp_path / "top.csv").exists()


def test_a_ranking_is_at_most_as_long_as_the_catalogue(folder, tmp_path, capsys, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    for question in (["recommend", "--user", "ada"], ["recommend", "--items", "banana"]):
        assert len(ranking(capsys, question[0], "--index", folder, *question[1:], "-k", str(10**12))) == 4
    assert len(ranking(capsys, "similar", "--index", folder, "--item", "apple", "-k", str(10**12))) == 4
    monkeypatch.setattr("l2q.cli.batch.RANKED", 7)  # one user at a time
    out = tmp_path / "top.parquet"
    assert main(["batch", "--index", folder, "--out", str(out), "-k", str(10**12)]) == 0
    assert "3 users x 5 items" in capsys.readouterr().out
    assert [len(row["items"]) for row in pq.read_table(out).to_pylist()] == [4, 3, 0]


def test_info(folder, capsys):
    assert main(["info", "--index", folder]) == 0
    out = capsys.readouterr().out
    for shown in ("fruit", "3 x 5", "4 bits", "float32, items", "0.1250"):
        assert shown in out
    assert main(["info", "--index", folder, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["metrics"] == {"test/recall_20": 0.125}
    assert facts["user_bytes"] == (128 + 3) / 3
    assert facts["new_users_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--user", "bem"], "no user is named 'bem' among 3; near it: ben"),
        (
            ["recommend", "--items", "apple,aprico"],
            "no item is named 'aprico' among 5; near it: apricot; for names with commas: --item",
        ),
        (["recommend", "--items", ","], "needs at least one item"),
        (["similar", "--item", "xyz"], "no item is named 'xyz' among 5"),
        (["recommend", "--user", "ada", "-k", "0"], "k is 0"),
        (["batch", "--out", "/nowhere/top.parquet"], "--out /nowhere/top.parquet cannot be written"),
        (["batch", "--out", __file__ + "/top.parquet"], "test_cli.py is no folder"),
        (["batch", "--out", ""], "--out '' is no regular file; give FILE.parquet"),
        (["batch", "--out", "/"], "--out '/' is no regular file; give FILE.parquet"),
        (["batch", "--out", "/dev/null"], "--out '/dev/null' is no regular file"),
    ],
)
def test_one_line_for_what_cannot_be_used(folder, capsys, arguments, message):
    assert main([arguments[0], "--index", folder, *arguments[1:]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in captured.err


def test_a_folder_that_is_no_index(tmp_path, capsys):
    assert main(["info", "--index", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_folder_of_a_run_is_told_its_index(folder, tmp_path, capsys):
    assert main(["info", "--index", str(tmp_path)]) == 2
    assert f"(No such file or directory); {folder} is one" in capsys.readouterr().err


def test_an_option_that_a_command_does_not_have_shows_those_that_it_has(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["recommend", "--index", "x", "--user", "3", "--bogus", "\x1b[2J"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m l2q recommend [-h] --index DIR")
    assert said.endswith("error: unrecognized arguments: --bogus \\x1b[2J\n")


def test_as_a_program(folder):
    command = [sys.executable, "-m", "l2q", "recommend", "--index", folder, "--user", "Ada"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no user is named 'Ada' among 3; near it: ada\n"


def test_a_command_is_one_file(folder, tmp_path, capsys, monkeypatch):
    """That of the how-to page: nothing else names it. A module without ``run`` is no command."""
    (tmp_path / "popular.py").write_text(POPULAR)
    (tmp_path / "shared.py").write_text("HELP = 'no command'")
    monkeypatch.setattr(l2q.cli, "__path__", [*l2q.cli.__path__, str(tmp_path)])
    assert main(["popular", "--index", folder, "-k", "2"]) == 0
    assert capsys.readouterr().out == "damson: 3 users\ncherry: 2 users\n"
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    listed = re.findall(r"^    (\w+)", out, re.M)
    assert listed[: len(COMMANDS)] == COMMANDS  # these keep their places
    assert "popular" in listed
    assert "items that most users have" in out
    assert main(["popular", "--index", str(tmp_path / "nowhere")]) == 2


@pytest.fixture
def embeddings(tmp_path):
    rng = np.random.default_rng(0)
    for name, rows in (("users", 150), ("items", 90)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((rows, 6)))
    (tmp_path / "train.txt").write_text(
        "".join(f"{user} {user % 90} {(user + 1) % 90}\n" for user in range(150))
    )
    return tmp_path


def test_quantize(embeddings, capsys):
    paths = {name: str(embeddings / name) for name in ("users.npy", "items.npy", "train.txt", "index")}
    command = ["quantize", "--users", paths["users.npy"], "--items", paths["items.npy"]]
    command += ["--train", paths["train.txt"], "--bits", "64", "--out", paths["index"]]
    assert main(command) == 0
    out = capsys.readouterr().out
    stored = load_index(paths["index"])
    assert stored.dims == (64,)
    assert stored.representations.binary
    # Recall@20 by hand: the share of the float ranking's best 20 among the codes' best 20
    users, items = np.load(paths["users.npy"]), np.load(paths["items.npy"])
    found = stored.search(np.arange(150), 20, stored.exclude)[1]
    shares = []
    for user in range(150):
        scores = users[user] @ items.T
        scores[[user % 90, (user + 1) % 90]] = -np.inf
        shares.append(len(set(np.argsort(-scores)[:20]) & set(found[user])) / 20)
    assert stored.manifest["metrics"]["float/recall_20"] == pytest.approx(np.mean(shares), abs=1e-12)
    assert f"against the ranking of the arrays: {np.mean(shares):.4f} (150 users)" in out
    assert np.mean(shares) > 0.7  # by chance 20 / 90


def test_quantize_an_index_of_layers(tmp_path, capsys):
    """Values, scales of both sides and weights of two layers, and what users have and are named."""
    rng = np.random.default_rng(2)
    sides = []
    for rows in (120, 80):
        values = np.where(rng.standard_normal((rows, 24)) > 0, 1, -1).astype(np.int8)
        sides.append(Rows(values, rng.uniform(0.5, 2, (rows, 2)).astype(np.float32)))
    weights = np.array([1, 3], np.float32)
    train = Interactions.from_pairs(np.arange(120), np.arange(120) % 80, 120, 80)
    names = [f"user {n}" for n in range(120)]
    layers = Representations(sides[0], sides[1], (8, 16), weights)
    save_index(tmp_path / "layers", layers, train, user_names=names, dataset="toy")
    out = tmp_path / "codes"
    assert main(["quantize", "--index", str(tmp_path / "layers"), "--bits", "64", "--out", str(out)]) == 0
    stored = load_index(out)
    assert stored.manifest["dataset"] == "toy"
    assert (stored.dims, stored.user_names, stored.names["items"]) == ((64,), names, None)
    np.testing.assert_array_equal(stored.exclude.items, train.items)
    # the layers' own ranking by hand
    dense = [side.values * side.scales.repeat((8, 16), axis=1) for side in sides]
    scores = dense[0] * weights.repeat((8, 16)) @ dense[1].T
    scores[np.arange(120), np.arange(120) % 80] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    found = stored.search(np.arange(120), 20, stored.exclude)[1]
    share = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(best, found, strict=True)])
    assert stored.manifest["metrics"]["float/recall_20"] == pytest.approx(share, abs=1e-12)
    assert share > 0.7  # by chance 20 / 80
    # 3 bytes of codes and 8 of scales a row and the files' headers, against what was quantized
    layers_bytes, codes_bytes = 11 + 2 * 128 / 80, 8 + 2 + 2 * 128 / 80
    printed = capsys.readouterr().out
    assert f"{codes_bytes:.1f} bytes an item instead of {layers_bytes:.1f}" in printed
    assert f"against the ranking of the index: {share:.4f}" in printed
    assert main(["quantize", "--index", str(out), "--bits", "8", "--out", f"{out}/."]) == 2
    assert "is the index that is quantized; give another folder" in capsys.readouterr().err
    assert load_index(out).dims == (64,)


def test_quantize_measures_users_who_lack_items(embeddings, capsys):
    everything = " ".join(map(str, range(90)))
    command = ["quantize", "--users", str(embeddings / "users.npy"), "--items", str(embeddings / "items.npy")]
    command += ["--train", str(embeddings / "train.txt"), "--bits", "8", "--out", str(embeddings / "index")]
    (embeddings / "train.txt").write_text("".join(f"{user} {everything}\n" for user in range(150)))
    assert main(command) == 2
    assert "every user has all 90 items: there is no ranking to keep" in capsys.readouterr().err
    assert not (embeddings / "index").exists()
    (embeddings / "train.txt").write_text("".join(f"{user} {everything}\n" for user in range(149)))
    assert main(command) == 0
    assert "(1 users)" in capsys.readouterr().out


def test_quantize_refuses_a_folder_below_a_file_before_the_fit(embeddings, capsys):
    command = ["quantize", "--users", str(embeddings / "users.npy"), "--items", str(embeddings / "items.npy")]
    assert main([*command, "--out", str(embeddings / "users.npy" / "a" / "index")]) == 2
    error = capsys.readouterr().err
    assert error.endswith("users.npy, which is a file; give another folder for the index\n")
    assert "rounds" not in error


def archive() -> bytes:
    """An .npz, whatever it is called."""
    file = io.BytesIO()
    np.savez(file, users=np.ones((3, 6)))
    return file.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--users", "U.npy"], "give --index DIR of a run, or --users"),
        (["--index", "run", "--train", "train.txt"], "--index brings rows, train items and names"),
    ],
)
def test_quantize_wants_an_index_or_arrays(tmp_path, capsys, arguments, message):
    assert main(["quantize", *arguments, "--out", str(tmp_path / "index")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": np.ones((3, 5))}, "--users has 6 columns, --items 5"),
        ({"users": np.ones(6)}, "expected an array (rows, d) of numbers, got float64 (6,)"),
        ({"users": archive()}, "got NpzFile; save one array, by numpy.save"),
        ({"users": np.array([["a", "b"]])}, "expected an array (rows, d) of numbers"),
        ({"users": np.full((3, 6), np.nan)}, "row 0 holds NaN"),
        ({"users": np.full((3, 6), 1e300)}, "row 0 holds NaN, infinity or values beyond float32"),
        (
            {"option": ("--train", "0 3 99\n")},
            "names.txt: item id 99 is outside 0 .. 89, the rows of --users",
        ),
        ({"users": None}, "cannot be read: No such file"),
        ({"users": b"no array"}, "cannot be read: no .npy file of numbers"),
        ({"users": b"PK\x03\x04 no archive"}, "cannot be read: no .npy file of numbers"),
        ({"bits": "0"}, "--bits 0"),
        ({"bits": "1000000"}, "--bits 1000000; it must be at most 8,192"),
        ({"option": ("--seed", "-1")}, "--seed -1"),
        ({"option": ("--out", None)}, "holds something else than an index"),
        (
            {"option": ("--user-names", "a\nb\n")},
            "names.txt has 2 lines, --users 150 rows; a row needs one name",
        ),
        ({"option": ("--item-names", None)}, "cannot read"),
    ],
)
def test_quantize_refuses_what_it_cannot_use(embeddings, capsys, change, message):
    bits, (option, text) = change.pop("bits", "8"), change.pop("option", (None, None))
    for name, value in change.items():
        path = embeddings / f"{name}.npy"
        path.unlink()
        if isinstance(value, bytes):
            path.write_bytes(value)
        elif value is not None:
            np.save(path, value)
    command = ["quantize", "--users", str(embeddings / "users.npy"), "--items", str(embeddings / "items.npy")]
    if option == "--seed":
        command += [option, text]
    elif option == "--out":  # the folder of the arrays; before the fit
        command += ["--bits", bits, "--out", str(embeddings)]
        assert main(command) == 2
        captured = capsys.readouterr().err
        assert message in captured
        assert "rounds" not in captured
        return
    elif option:
        command += [option, str(embeddings / "names.txt")]
        if text is not None:
            (embeddings / "names.txt").write_text(text)
    assert main([*command, "--bits", bits, "--out", str(embeddings / "index")]) == 2
    assert message in capsys.readouterr().err
    assert not (embeddings / "index").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_command_by_its_code_and_without_a_word(name, monkeypatch, capfd):
    number = getattr(signal, name)

    def disturbed(**_: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException:
            raise RuntimeError("Query interrupted") from None  # as DuckDB does

    monkeypatch.setattr("l2q.cli.info.run", disturbed)
    assert main(["info", "--index", "anything"]) == 128 + number
    assert capfd.readouterr().err == ""
