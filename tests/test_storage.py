"""The index folder: read back as written; damage is refused; a reader of the files alone agrees."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.files import aside, read_array
from l2q.interactions import Interactions, name_array
from l2q.names import FiledNames
from l2q.representations import Representations, Rows
from l2q.retrieval import manifest as manifests
from l2q.retrieval import storage
from l2q.retrieval.index import DenseIndex
from l2q.retrieval.named import Index
from l2q.retrieval.reference import reference_search
from l2q.retrieval.storage import check_replaceable, compression, load_index

DIMS = (20, 9)


def representations(num_users=30, num_items=50, scaled=True, scale_dtype="float16") -> Representations:
    rng = np.random.default_rng(0)

    def side(rows):
        values = rng.choice(np.array([-1, 1], np.int8), (rows, sum(DIMS)))
        scales = rng.random((rows, len(DIMS))).astype(scale_dtype).astype(np.float32)
        return Rows(values, scales if scaled else None)

    return Representations(
        side(num_users), side(num_items), DIMS, np.array([0.1, 0.9], np.float32), scale_dtype
    )


def interactions(num_users=30, num_items=50) -> Interactions:
    rng = np.random.default_rng(1)
    return Interactions.from_pairs(
        rng.integers(num_users, size=150), rng.integers(num_items, size=150), num_users, num_items
    )


def save(folder, representations, train):
    return Index.of(representations, train).save(folder)


@pytest.fixture
def folder(tmp_path):
    named = replace(
        interactions(),
        user_names=name_array([f"user {u}" for u in range(30)]),
        item_names=name_array([f"ítem {i}" for i in range(50)]),
    )
    index = Index.of(
        representations(), named, dataset="debian", config_hash="abc", metrics={"test/recall_20": 0.25}
    )
    return index.save(tmp_path / "index")


def test_round_trip(folder):
    original, stored = representations(), load_index(folder)
    for side in ("users", "items"):
        ours, theirs = getattr(original, side), getattr(stored.representations, side)
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.scales, theirs.scales)
        assert (theirs.values.dtype, theirs.scales.dtype) == (np.int8, np.float32)
    assert stored.representations.dims == DIMS
    np.testing.assert_array_equal(stored.representations.weights, original.weights)
    assert stored.representations.scale_dtype == "float16"
    assert stored.exclude.fingerprint == interactions().fingerprint
    assert (stored.user_names[29], stored.item_names[3]) == ("user 29", "ítem 3")
    assert (len(stored.user_names), len(stored.item_names)) == (30, 50)
    np.testing.assert_array_equal(stored.arrays["items.degrees"], interactions().item_degrees)
    assert (stored.manifest["dataset"], stored.manifest["config_hash"]) == ("debian", "abc")
    assert stored.manifest["metrics"] == {"test/recall_20": 0.25}


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("k", [7, 60])
def test_files_rank_as_float_sign_products(tmp_path, scaled, k):
    original, train = representations(scaled=scaled), interactions()
    folder = save(tmp_path / "index", original, train)
    dense = DenseIndex(original).search(np.arange(30), k, train)
    stored = load_index(folder)
    for found in (stored.search(np.arange(30), k, stored.exclude), reference_search(folder, k=k)):
        np.testing.assert_array_equal(found[0], dense[0])
        np.testing.assert_array_equal(found[1], dense[1])


def test_float_values(tmp_path):
    rng = np.random.default_rng(2)
    users, items = (Rows(rng.standard_normal((rows, 6)).astype(np.float32)) for rows in (4, 9))
    original = Representations(users, items, (6,), np.ones(1, np.float32))
    train = Interactions.from_pairs([0, 1], [2, 3], 4, 9)
    stored = load_index(save(tmp_path / "index", original, train))
    np.testing.assert_array_equal(stored.representations.users.values, users.values)
    expected = users.values.astype(float) @ items.values.T.astype(float)
    expected[[0, 1], [2, 3]] = -np.inf
    order = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(stored.index.search(np.arange(4), 5, stored.exclude)[1], order)
    np.testing.assert_array_equal(reference_search(stored.folder, k=5)[1], order)


def test_float_users_with_item_codes(tmp_path):
    """The asymmetric mode, end to end: items cost bits, users stay float; sums in quarters are exact."""
    rng = np.random.default_rng(4)
    coded = representations(num_users=6)
    users = Rows(rng.integers(-8, 9, (6, sum(DIMS))).astype(np.float32) / 4)
    scales = rng.choice(np.float32([0.5, 1, 2]), (50, 2))
    original = Representations(users, Rows(coded.items.values, scales), DIMS, np.float32([0.5, 1]), "float16")
    train = interactions(num_users=6)
    stored = load_index(save(tmp_path / "index", original, train))
    assert {"users.values", "items.codes"} <= stored.arrays.keys()
    exact = 0.5 * users.values[:, :20].astype(float) @ (coded.items.values[:, :20] * scales[:, :1]).T
    exact += users.values[:, 20:].astype(float) @ (coded.items.values[:, 20:] * scales[:, 1:]).T
    exact[train.users, train.items] = -np.inf
    order = np.argsort(-exact, axis=1, kind="stable")[:, :9]
    for scores, items in (stored.search(np.arange(6), 9, train), reference_search(stored.folder, k=9)):
        np.testing.assert_array_equal(items, order)
        np.testing.assert_array_equal(scores, np.take_along_axis(exact, order, axis=1))


def test_reference_runs_from_the_files_alone(folder, tmp_path):
    out = tmp_path / "ranking.npz"
    command = [sys.executable, "-m", "l2q.retrieval.reference", str(folder), "--k", "4", "--out", str(out)]
    subprocess.run(command, check=True)
    with np.load(out) as ranking:
        expected = DenseIndex(representations()).search(np.arange(30), 4, interactions())
        np.testing.assert_array_equal(ranking["scores"], expected[0])
        np.testing.assert_array_equal(ranking["items"], expected[1])


def test_names_default_to_row_numbers(tmp_path):
    stored = load_index(save(tmp_path / "index", representations(), interactions()))
    assert stored.user_names[29] == "29"
    assert not (stored.folder / "users.txt").exists()


def test_compression_counts_the_files(folder):
    # 20 and 9 bits are 3 + 2 bytes, two float16 scales 4 bytes, and 128 bytes of header per file
    assert compression(folder) == {
        "user_bytes": (30 * 9 + 256) / 30,
        "item_bytes": (50 * 9 + 256) / 50,
        "compression": 80 * 80 / (80 * 9 + 512),
        "compression_d64": 80 * 256 / (80 * 9 + 512),
        "item_compression": 50 * 80 / (50 * 9 + 256),
    }
    assert sum((folder / f"users.{part}.npy").stat().st_size for part in ("codes", "scales")) == 30 * 9 + 256


def test_reading_between_two_renames_waits_for_the_second(folder, monkeypatch):
    folder.rename(aside(folder))
    monkeypatch.setattr(storage.time, "sleep", lambda _: aside(folder).rename(folder))
    assert load_index(folder).num_users == 30


def test_bytes_of_a_row_where_there_is_one(tmp_path):
    index = Index.of(representations(1, 1), Interactions.from_pairs([0], [0], 1, 1), dataset="one")
    found = compression(index.save(tmp_path / "index"))
    assert found["user_bytes"] == found["item_bytes"] == 9 + 256


def test_replaces_an_index_only_when_complete(folder, monkeypatch):
    monkeypatch.setattr(
        storage, "_write_manifest", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    with pytest.raises(L2QError, match="disk full"):
        save(folder, representations(5, 6), interactions(5, 6))
    assert load_index(folder).num_users == 30
    monkeypatch.undo()
    save(folder, representations(5, 6), interactions(5, 6))
    assert load_index(folder).num_users == 5
    assert os.listdir(folder.parent) == ["index"]


def test_a_save_killed_between_its_renames_loses_nothing(folder, monkeypatch):
    kept, fresh = folder.with_name(".index.old"), folder.with_name(".index.new")
    os.replace(folder, kept)
    fresh.mkdir()
    for read in (load_index, compression):
        with pytest.raises(L2QError, match=r"rename .*/\.index\.old to .*/index, or save"):
            read(folder)
    monkeypatch.setattr(
        storage, "_write_manifest", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full"))
    )
    with pytest.raises(L2QError, match="disk full"):
        save(folder, representations(5, 6), interactions(5, 6))
    assert load_index(folder).num_users == 30  # what was there is back, and stays until the new one is whole
    monkeypatch.undo()
    os.replace(folder, kept)
    save(folder, representations(5, 6), interactions(5, 6))
    assert load_index(folder).num_users == 5
    assert os.listdir(folder.parent) == ["index"]


def test_never_replaces_a_folder_of_something_else(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    with pytest.raises(L2QError, match="something else"):
        save(tmp_path / "letters", representations(), interactions())
    assert (tmp_path / "letters" / "dear.txt").read_text() == "dear"


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit(**changes):
    """An index of before there were checksums of manifests, with other values."""

    def apply(path):
        manifest = {**json.loads(path.read_text()), **changes}
        del manifest["sha256"]
        path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}))

    return apply


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("items.codes.npy", cut, "items.codes.npy has .* bytes instead of"),
        ("items.codes.npy", flip, "checksum of items.codes.npy"),
        ("users.txt", flip, "checksum of users.txt"),
        ("users.scales.npy", os.remove, "users.scales.npy is missing"),
        ("manifest.json", os.remove, "is no index"),
        ("manifest.json", cut, None),
        ("manifest.json", lambda path: path.write_text("{"), "damaged"),
        ("manifest.json", lambda path: path.write_text("[]"), "damaged"),
        ("manifest.json", edit(format="other"), "format 'other'"),
        ("manifest.json", edit(version=2), r"manifest\.json says format version 2"),
        ("manifest.json", edit(dims=[20, 17]), "users.codes.npy is uint8"),
        ("manifest.json", edit(num_items=49), "items.degrees.npy is int32"),
        ("manifest.json", edit(weights=[1]), "weights"),
        ("manifest.json", edit(files={}), "train.indptr.npy is missing"),
        ("manifest.json", edit(dataset=...), "dataset is missing"),
        ("manifest.json", edit(metrics={"test/recall_20": "0.25"}), "metrics is not numbers by name"),
        ("manifest.json", edit(num_users=-1), "num_users is not a count"),
        ("manifest.json", edit(num_users=True), "num_users is not a count"),
        ("manifest.json", edit(num_users=10**30), "num_users is not a count"),
        ("manifest.json", edit(dims=[]), "dims is not a list of widths"),
        ("manifest.json", edit(dims=[0, 29]), "dims is not a list of widths"),
        ("manifest.json", edit(weights=[0.1, float("nan")]), "weights is not a list of numbers"),
        ("manifest.json", edit(scale_dtype="float8"), "scale_dtype is not float16 or float32"),
        ("manifest.json", edit(files=[]), "files is not bytes and SHA-256 by name"),
        ("manifest.json", edit(files={"users.txt": {"bytes": 3}}), "files is not bytes and SHA-256"),
        ("manifest.json", edit(version=[1]), "version \\[1\\]"),
        ("manifest.json", lambda path: path.write_text("[" * 100_000), "nested too deeply"),
        ("manifest.json", lambda path: path.write_text('{"a":' * 100_000), "nested too deeply"),
        ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe"), "cannot be used"),
        ("manifest.json", edit(filter={}), "cannot be used"),
        ("manifest.json", edit(dims=None), "cannot be used"),
        ("manifest.json", edit(files={"../secret": {"bytes": 1, "sha256": ""}}), "is missing"),
    ],
)
def test_damage_is_refused_with_the_reason(folder, file, damage, message):
    damage(folder / file)
    if message is None:  # the last line break of the manifest is no loss
        assert load_index(folder).num_users == 30
        return
    with pytest.raises(L2QError, match=message) as caught:
        load_index(folder)
    assert "\n" not in str(caught.value)


def test_objects_are_never_unpickled(folder):
    path = folder / "items.degrees.npy"
    np.save(path, np.array([{}] * 50, dtype=object), allow_pickle=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": storage._sha256(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(L2QError, match="damaged"):
        load_index(folder)


def test_without_verification_sizes_still_count(folder):
    flip(folder / "items.codes.npy")
    assert load_index(folder, verify=False).num_items == 50
    cut(folder / "items.codes.npy")
    with pytest.raises(L2QError, match="bytes instead of"):
        load_index(folder, verify=False)


@pytest.mark.parametrize(
    ("names", "message"), [(["a"], "1 names for 30 rows"), (["a\nb"] * 30, "line break")]
)
def test_bad_names(tmp_path, names, message):
    with pytest.raises(L2QError, match=message):
        save(tmp_path / "index", representations(), replace(interactions(), user_names=name_array(names)))
    assert not list(tmp_path.iterdir())


def test_sizes_must_agree(tmp_path):
    with pytest.raises(L2QError, match="30 users x 49 items"):
        save(tmp_path / "index", representations(), interactions(30, 49))


def test_nothing_to_exclude(tmp_path):
    train = Interactions.from_pairs([], [], 30, 50)
    stored = load_index(save(tmp_path / "index", representations(), train))
    assert len(stored.exclude) == 0
    np.testing.assert_array_equal(
        stored.search(np.arange(30), 5, stored.exclude)[1],
        DenseIndex(representations()).search(np.arange(30), 5)[1],
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", "file is a file; give a folder"),
        ("file/a/index", "lies below .*file, which is a file; give another folder"),
        ("/", "/ holds something else than an index"),
    ],
)
def test_places_that_cannot_take_an_index(tmp_path, place, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(L2QError, match=message):
        check_replaceable(tmp_path / place)
    check_replaceable(tmp_path / "a" / "b")
    check_replaceable("a/b")


@pytest.mark.parametrize("bits", [[], pytest.param(list(range(8)), marks=pytest.mark.slow)])
def test_a_flipped_bit_of_the_manifest_is_refused_or_changes_nothing(folder, bits):
    path, expected = folder / "manifest.json", load_index(folder).manifest
    whole = path.read_bytes()
    outcomes = {"refused": 0, "same": 0}
    for place in range(len(whole)):
        for bit in bits or [place % 8]:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            said, found = "", {}
            try:
                found = manifests.read(folder)
            except L2QError as error:
                said = str(error)
            assert "\n" not in said
            assert said or found == expected, f"byte {place}, bit {bit}"
            outcomes["refused" if said else "same"] += 1
    assert outcomes["refused"] > 10 * outcomes["same"]


@pytest.mark.parametrize(
    "change", [{"num_items": 49}, {"metrics": {"test/recall_20": 0.9}}, {"dims": [9, 20]}]
)
def test_a_changed_manifest_is_refused_for_its_checksum(folder, change):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for read in (load_index, compression):
        with pytest.raises(L2QError, match=r"the checksum of manifest\.json does not match; it is damaged"):
            read(folder)


def test_layout_of_a_manifest_is_no_change_and_a_saved_copy_has_a_checksum_of_its_own(folder, tmp_path):
    path = folder / "manifest.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert load_index(folder).num_users == 30
    edit(dataset="other")(path)  # of before there were checksums
    load_index(folder).save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["sha256"]
    assert load_index(tmp_path / "copy").manifest["dataset"] == "other"


def with_file(folder, name, content: bytes) -> None:
    """Another content of a file of an index, at which its manifest finds no fault."""
    path = folder / name
    path.write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": storage._sha256(path)}
    storage._write_manifest(folder, manifest)


def header(text: str, version: int = 1) -> bytes:
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text.encode()


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


SHAPE = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}}}\n"
BROKEN = [
    b"",
    b"\x93NUMPY",
    b"PK\x03\x04 an archive",
    header(SHAPE.format("(3, 2)"), version=9) + bytes(24),
    header(SHAPE.format("(3, 2)"))[:-9],
    header(SHAPE.format("(3, 2)")) + bytes(23),
    header(SHAPE.format("(3, 2)")) + bytes(25),
    header(SHAPE.format("(-3, -2)")) + bytes(24),
    header(SHAPE.format("(True, 2)")) + bytes(8),
    header(SHAPE.format("(10**15, 10**15)")) + bytes(24),
    header(SHAPE.format("(1000000000000000, 1000000000000000)")) + bytes(24),
    header(SHAPE.format("(0, 1000000000000000000000)")),
    header(SHAPE.format("(3, 2")) + bytes(24),
    header("(" * 5000) + bytes(24),
    header("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n") + bytes(24),
    header("{'descr': [('a', '<f4')], 'fortran_order': 3, 'shape': (3,)}\n") + bytes(12),
    header("__import__('os').remove('x')\n"),
    header("\n\n{'a': \x00\n"),
    header("{'descr': '<f4', 'fortran_order': False, 'shape': 3}\n") + bytes(12),
    header("lambda: 0 é\n") + bytes(3),
]


@pytest.mark.parametrize("content", BROKEN)
@pytest.mark.parametrize("name", ["items.scales.npy", "train.indptr.npy", "users.codes.npy"])
def test_broken_arrays_are_refused_in_one_line(folder, name, content):
    with_file(folder, name, content)
    for verify in (True, False):
        with pytest.raises(L2QError, match=r"index .*; it is damaged") as caught:
            load_index(folder, verify)
        assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, OSError)):
        read_array(folder / name)


def test_arrays_are_read_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 3, 2)).astype(np.float32)
    for array in (values, np.asfortranarray(values), values[:0], np.arange(4), np.float16(2), values > 0):
        np.save(tmp_path / "a.npy", array)
        for mapped in (False, True):
            found = read_array(tmp_path / "a.npy", mapped=mapped)
            np.testing.assert_array_equal(found, array)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            found[...] = 0  # and the file stays
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values > 0)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train.indptr.npy", np.zeros(0, np.int64), "train.indptr.npy is missing or has another length"),
        ("train.indptr.npy", np.zeros((31, 1), np.int64), r"train.indptr.npy is int64 \(31, 1\)"),
        ("train.indptr.npy", np.full(31, -5), "train"),
        ("train.items.npy", np.zeros(0, np.int32), r"train.items.npy is int32 \(0,\)"),
        (
            "train.items.npy",
            np.zeros(146, np.int32),
            "train lists do not fit",
        ),  # the same item again and again
        ("items.scales.npy", np.full((50, 2), np.nan, np.float16), "row 0 of items.scales holds NaN"),
        (
            "users.scales.npy",
            np.float16([[1, 1]] * 29 + [[1, np.inf]]),
            "row 29 of users.scales holds NaN, inf",
        ),
        ("items.degrees.npy", np.zeros(50, ">i4"), "items.degrees.npy is >i4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(folder, name, array, message):
    assert np.load(folder / "train.items.npy").shape == (146,)
    with_file(folder, name, npy(array))
    with pytest.raises(L2QError, match=message) as caught:
        load_index(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", ["", "a\n", "a\n" * 31, "a\n" * 29 + "b"])
def test_a_name_for_every_row(folder, names):
    with_file(folder, "users.txt", names.encode())
    with pytest.raises(L2QError, match=r"users\.txt has \d+ names for 30 rows; it is damaged"):
        load_index(folder)
    with_file(folder, "users.txt", b"\xff\n" * 30)
    with pytest.raises(L2QError, match=r"users\.txt cannot be used \(.*utf-8.*\); it is damaged"):
        load_index(folder)


def test_an_index_that_could_not_be_read_is_not_written(tmp_path):
    wild = representations()
    wild.items.scales[7, 1] = np.inf
    with pytest.raises(
        L2QError, match=r"row 7 of items\.scales holds NaN, infinity or a value beyond float16"
    ):
        save(tmp_path / "index", wild, interactions())
    assert not list(tmp_path.iterdir())


def test_a_new_user_of_an_index_of_wild_scales_is_refused_in_one_line(folder):
    """An index that was opened without reading its scales, and one in memory."""
    for scale in (np.nan, np.inf, 6e4):
        scales = np.full((50, 2), scale, np.float16)
        with_file(folder, "items.scales.npy", npy(scales))
        opened = load_index(folder, verify=False)
        opened.arrays["users.scales"][:] = scale
        if np.isfinite(scale):
            assert len(opened.recommend(items=["ítem 3"], k=5).items) == 5
            continue
        with pytest.raises(
            L2QError, match="rows of the index hold NaN, infinity or values too large"
        ) as caught:
            opened.recommend(items=["ítem 3"], k=5)
        assert "\n" not in str(caught.value)


def test_a_save_leaves_files_of_others_in_the_folder(folder):
    (folder / "top20.parquet").write_text("rankings")
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("a")
    save(folder, representations(5, 6), interactions(5, 6))
    assert load_index(folder).num_users == 5
    assert (folder / "top20.parquet").read_text() == "rankings"
    assert (folder / "notes" / "a.txt").read_text() == "a"
    assert not (folder / "users.txt").exists()  # its own, which the new one lacks
    assert os.listdir(folder.parent) == ["index"]


def test_files_of_others_survive_a_save_that_is_killed(folder):
    """Before the new folder is there, and when the files are to be moved."""
    (folder / "top20.parquet").write_text("rankings")
    old = folder.with_name(".index.old")
    os.replace(folder, old)  # between the renames
    save(folder, representations(5, 6), interactions(5, 6))
    assert (folder / "top20.parquet").read_text() == "rankings"
    os.replace(folder, old)
    save(folder.with_name("other"), representations(5, 6), interactions(5, 6))
    os.replace(folder.with_name("other"), folder)  # behind the second
    save(folder, representations(5, 6), interactions(5, 6))
    assert (folder / "top20.parquet").read_text() == "rankings"
    assert os.listdir(folder.parent) == ["index"]


def test_an_index_behind_a_link_is_replaced_there(folder, tmp_path):
    link, dangling = tmp_path / "current", tmp_path / "next"
    link.symlink_to(folder)
    dangling.symlink_to(tmp_path / "later")
    for users in (5, 6, 7):
        save(link, representations(users, 9), interactions(users, 9))
        assert link.is_symlink()
        assert load_index(link).num_users == load_index(folder).num_users == users
        save(dangling, representations(users, 9), interactions(users, 9))
        assert dangling.is_symlink()
        assert load_index(tmp_path / "later").num_users == users
    assert sorted(os.listdir(tmp_path)) == ["current", "index", "later", "next"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(L2QError):
        save(tmp_path / "loop", representations(), interactions())


REPLACE = """
import sys
from dataclasses import replace
from test_storage import interactions, representations
from l2q.interactions import name_array
from l2q.retrieval.named import Index

number = 0
while True:
    named = replace(interactions(), item_names=name_array([f"{number % 10}-{i}" for i in range(50)]))
    index = Index.of(representations(), named, dataset=str(number % 10))
    index.arrays["items.degrees"][:] = number % 10
    index.save(sys.argv[1])
    number += 1
"""


def test_an_index_that_is_replaced_again_and_again_is_read_whole(folder, tmp_path):
    """Also where nothing is verified: files of two of the same size are never mixed."""
    writer = subprocess.Popen(
        [sys.executable, "-c", REPLACE, str(tmp_path / "live")], cwd=Path(__file__).parent
    )
    try:
        while not (tmp_path / "live").exists():
            assert writer.poll() is None
            time.sleep(0.01)
        seen = set()
        for attempt in range(60):
            found = load_index(tmp_path / "live", verify=attempt % 2 == 0)
            number = found.manifest["dataset"]
            assert found.item_names[3] == f"{number}-3"
            assert set(found.arrays["items.degrees"]) == {int(number)}
            seen.add(number)
        assert len(seen) > 1
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


def test_many_names_stay_in_their_file(folder, tmp_path, monkeypatch):
    in_memory = load_index(folder)
    monkeypatch.setattr("l2q.retrieval.storage._NAMES", 0)
    index = load_index(folder)
    assert isinstance(index.item_names, FiledNames)
    some = [f"user {user}" for user in range(20)]
    for users in (some, some[3]):
        found, expected = (each.recommend(users, k=7) for each in (index, in_memory))
        for one, other in zip(
            *([each] if users == some[3] else each for each in (found, expected)), strict=True
        ):
            assert one.items == other.items
    assert index.similar("ítem 3", k=5).items == in_memory.similar("ítem 3", k=5).items
    assert index.recommend(items=["ítem 3"], k=5).items == in_memory.recommend(items=["ítem 3"], k=5).items
    assert (index.row("items", "ítem 49"), list(index.exclude.item_names)) == (49, list(in_memory.item_names))
    with pytest.raises(L2QError, match=r"no user is named 'user x' among 30; near it: user 9"):
        index.recommend("user x")
    copied = index.save(tmp_path / "copied")
    for name in ("users.txt", "items.txt"):
        assert (copied / name).read_bytes() == (folder / name).read_bytes()
    shutil.rmtree(folder)  # the names of an index that is replaced stay those that were opened
    assert index.item_names[49] == "ítem 49"
