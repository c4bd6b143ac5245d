"""The embedded set: a hand-written index gives the pairs, core and split that one can count by hand."""

import gzip
import lzma
from importlib import resources

import numpy as np
import pytest

from l2q.data.debian import build, dependencies, holdout_mask, k_core, main
from l2q.errors import L2QError
from l2q.interactions import Interactions

PACKAGES = """\
Package: editor
Version: 1:2.0-1
Pre-Depends: init-helpers (>= 1.54~)
Depends: libc6 (>= 2.34), python3:any, libgtk-3-0 | libgtk2.0-0,
 g++ [amd64] <!nocheck>,
\tfonts
Suggests: games
Description: the line "Depends: nothing" stands in no field of its own
 Depends: nothing

Package: viewer
Recommends: libc6 | musl (>> 1), editor
depends: libc6 (<= 9)

Package: lonely
Architecture: all
"""

PAIRS = [
    ("editor", "fonts"),
    ("editor", "g++"),
    ("editor", "init-helpers"),
    ("editor", "libc6"),
    ("editor", "libgtk-3-0"),
    ("editor", "python3"),
    ("viewer", "editor"),
    ("viewer", "libc6"),
]


def index_of(rows: dict[str, str]) -> str:
    return "\n\n".join(f"Package: {name}\nDepends: {', '.join(items)}" for name, items in rows.items())


def halves(arrays: dict[str, np.ndarray]) -> list[Interactions]:
    return [
        Interactions(
            arrays[f"{half}_indptr"].astype(np.int64),
            arrays[f"{half}_items"].astype(np.int32),
            int(arrays["num_items"]),
        )
        for half in ("train", "test")
    ]


def names(joined: np.ndarray) -> list[str]:
    return joined.tobytes().decode().split("\n")


def test_dependencies_of_a_hand_written_index():
    found = list(dependencies(PACKAGES))
    assert sorted(set(found)) == PAIRS
    assert len(found) == len(PAIRS) + 1  # viewer names libc6 twice


def test_k_core_takes_away_until_nothing_changes():
    square = [(0, 0), (0, 1), (1, 0), (1, 1)]
    chain = [(2, 1), (2, 2), (3, 2), (3, 3)]  # item 3 goes, then user 3, then item 2, then user 2
    pairs = np.array(square + chain)
    assert k_core(pairs, 2).tolist() == [list(pair) for pair in square]
    assert k_core(pairs, 1).tolist() == pairs.tolist()
    assert k_core(pairs, 3).shape == (0, 2)


def test_build_orders_ids_by_name_and_keeps_the_core():
    text = index_of({"b": "yx", "a": "xyz", "c": "wxz", "d": "v"})
    arrays = build(dependencies(text), k=2)
    assert names(arrays["user_names"]) == ["a", "b", "c"]
    assert names(arrays["item_names"]) == ["x", "y", "z"]
    train, test = halves(arrays)
    assert test.user_degrees.tolist() == [1, 0, 0]  # round(.2 * 3), round(.2 * 2), round(.2 * 2)
    both = Interactions.from_pairs(
        np.concatenate([train.users, test.users]), np.concatenate([train.items, test.items]), 3, 3
    )
    assert [both[user].tolist() for user in range(3)] == [[0, 1, 2], [0, 1], [0, 2]]
    assert len(train) + len(test) == len(both) == 7


def test_build_without_a_core_says_so():
    with pytest.raises(L2QError, match="no 5-core"):
        build(dependencies(PACKAGES))
    with pytest.raises(L2QError, match="no 5-core"):
        build([])


def test_holdout_draws_a_fifth_of_every_user():
    degrees = np.tile([5, 7, 8], 20)
    users = np.repeat(np.arange(60), degrees)
    items = np.concatenate([np.arange(n) for n in degrees])
    drawn = np.array([holdout_mask(users, items, 0.2, seed) for seed in range(400)])
    assert np.bincount(users, weights=drawn[0]).tolist() == [1, 1, 2] * 20  # round of 1.0, 1.4, 1.6
    assert np.array_equal(drawn[0], holdout_mask(users, items, 0.2, 0))
    assert not np.array_equal(drawn[0], drawn[1])
    # the five pairs of user 0 are drawn alike: each 80 times of 400, standard deviation 8
    assert np.abs(drawn[:, :5].sum(axis=0) - 80).max() < 40


def test_holdout_gives_every_item_its_first_pair_back():
    users = np.array([0, 0, 1, 1, 2])
    items = np.array([0, 1, 1, 2, 0])
    assert holdout_mask(users, items, 1.0, 0).tolist() == [False, False, True, False, True]


def test_rebuilding_gives_the_same_bytes(tmp_path, capsys):
    rows = {f"user{n}": [f"item{(n + step) % 7}" for step in range(5 + n % 3)] for n in range(12)}
    plain, out = tmp_path / "Packages", [tmp_path / f"{n}.npz" for n in range(3)]
    plain.write_text(index_of(rows))
    plain.with_suffix(".gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.with_suffix(".xz").write_bytes(lzma.compress(plain.read_bytes()))
    for suffix, path in zip(("", ".gz", ".xz"), out, strict=True):
        assert main([str(plain) + suffix, "--out", str(path)]) == 0
    assert out[0].read_bytes() == out[1].read_bytes() == out[2].read_bytes()
    assert "users 12, items 7, train 60, test 12" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_an_unreadable_index_is_one_line(tmp_path, capsys, suffix):
    broken = tmp_path / f"Packages{suffix}"
    broken.write_bytes(b"\xff\xfe no index")
    for path in (broken, tmp_path / f"absent{suffix}"):
        assert main([str(path), "--out", str(tmp_path / "out.npz")]) == 1
        message = capsys.readouterr().err
        assert message.startswith(f"{path}: no readable package index")
        assert message.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_the_committed_file():
    file = resources.files("l2q.data") / "debian.npz"
    assert len(file.read_bytes()) < 600_000
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        arrays = dict(archive)
    train, test = halves(arrays)
    users, items = names(arrays["user_names"]), names(arrays["item_names"])
    assert (len(users), len(items), len(train), len(test)) == (16_600, 5_219, 128_776, 31_409)
    assert train.num_users == test.num_users == len(users)
    assert train.num_items == len(items)
    assert users == sorted(set(users))
    assert items == sorted(set(items))
    assert not set(zip(train.users, train.items, strict=True)) & set(zip(test.users, test.items, strict=True))
    degrees = train.user_degrees + test.user_degrees
    assert degrees.min() == (train.item_degrees + test.item_degrees).min() == 5
    assert test.user_degrees.tolist() == np.rint(degrees / 5).astype(int).tolist()
    assert train.item_degrees.min() >= 1
    scipy = users.index("python3-scipy")
    assert items.index("python3-numpy") in test[scipy]
    assert items.index("libc6") in train[scipy]
    assert train.fingerprint == "a9f267819ed8eef79220b038443db13bde2ae0e0a016eca6c26382ea5dc73181"
    assert test.fingerprint == "36110b8339c0b4b2c539693b4f980e6622e1152a9fe8421956992479030a9321"
