"""The index folder: read back as written; damage is refused; a reader of the files alone agrees."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from l2q.errors import L2QError
from l2q.interactions import Interactions, name_array
from l2q.representations import Representations, Rows
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
    np.testing.assert_array_equal(stored.search(np.arange(4), 5, stored.exclude)[1], order)
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
    def apply(path):
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

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
        ("manifest.json", edit(version=2), "version 2"),
        ("manifest.json", edit(dims=[20, 17]), "users.codes.npy is uint8"),
        ("manifest.json", edit(num_items=49), "items.degrees.npy is int32"),
        ("manifest.json", edit(weights=[1]), "weights"),
        ("manifest.json", edit(files={}), "cannot be used"),
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
