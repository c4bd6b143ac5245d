"""Float models as codes from Python: what comes out of arrays and of an index, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from l2q.errors import L2QError
from l2q.evaluation import evaluate
from l2q.interactions import Interactions, name_array
from l2q.quantization import measured_users, quantize
from l2q.representations import Representations, Rows
from l2q.retrieval.named import Index
from l2q.retrieval.storage import load_index

USERS, ITEMS, DIM = 120, 80, 6
NAMES = [f"user {row}" for row in range(USERS)]


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return rng.standard_normal((USERS, DIM)), rng.standard_normal((ITEMS, DIM))


@pytest.fixture
def train():
    """Every user has two items, one of them the user before has too."""
    users = np.arange(USERS)
    return Interactions.from_pairs(
        np.tile(users, 2), np.concatenate((users % ITEMS, (users + 1) % ITEMS)), USERS, ITEMS
    )


def naive_recall(scores: np.ndarray, train: Interactions, found: np.ndarray) -> float:
    """The share of the 20 best by ``scores`` without train items that are among ``found`` (users, 20)."""
    shares = []
    for user, row in enumerate(scores.copy()):
        row[train[user]] = -np.inf
        shares.append(len(set(np.argsort(-row, kind="stable")[:20]) & set(found[user])) / 20)
    return float(np.mean(shares))


def kept(index: Index, k: int = 20) -> float:
    return index.manifest["metrics"][f"float/recall_{k}"]


def test_arrays(rows, train, tmp_path):
    steps = []
    users, items = rows
    index = quantize(
        users, items, bits=64, train=train, progress=lambda done, total, label: steps.append((label, total))
    )
    assert (index.num_users, index.num_items, index.dims) == (USERS, ITEMS, (64,))
    assert index.representations.binary
    # the files answer as was measured, and the measure is the naive one
    opened = load_index(index.save(tmp_path / "index"))
    answers = opened.search(np.arange(USERS), 20, opened.exclude)[1]
    assert kept(opened) == pytest.approx(naive_recall(users @ items.T, train, answers), abs=1e-12)
    assert kept(index) == kept(opened) > 0.7  # by chance 20 / 80
    assert not any(set(train[user]) & set(answers[user]) for user in range(USERS))
    assert {label for label, _ in steps} == {"lists", "rounds"}


def test_more_bits_keep_more(rows):
    few, many = (kept(quantize(*rows, bits=bits)) for bits in (4, 64))
    assert few + 0.1 < many


def test_a_seed_says_the_codes(rows):
    one, again, other = (quantize(*rows, bits=16, seed=seed).representations for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.items.values, again.items.values)
    assert (one.items.values != other.items.values).any()


def test_a_catalogue_of_few_items(rows):
    index = quantize(rows[0], rows[1][:12], bits=8)  # a quarter of it
    assert list(index.manifest["metrics"]) == ["float/recall_3"]
    assert 3 / 12 < kept(index, 3) <= 1


def test_names_come_with_train_or_are_given(rows, train):
    named = replace(train, user_names=name_array(NAMES), item_names=name_array(["x"] * ITEMS))
    index = quantize(*rows, bits=4, train=named)
    assert (index.user_names[3], index.item_names[0]) == ("user 3", "x")
    index = quantize(*rows, bits=4, train=named, item_names=[f"item {row}" for row in range(ITEMS)])
    ranking = index.recommend("user 3", k=ITEMS)
    assert set(index.item_names) - set(ranking.items) == {"item 3", "item 4"}
    assert quantize(*rows, bits=4, user_names=range(USERS)).names == {
        "users": [str(row) for row in range(USERS)],
        "items": None,
    }


def test_tensors_and_lists_are_arrays_too(rows):
    expected = quantize(*rows, bits=8).representations.items.values
    for made in (torch.from_numpy, np.ndarray.tolist, np.asfortranarray):
        found = quantize(*map(made, rows), bits=8).representations.items.values
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_index_of_layers(train, tmp_path, on_disk):
    """Values, scales of both sides and weights of two layers, with train items and names."""
    rng = np.random.default_rng(2)
    sides = []
    for count in (USERS, ITEMS):
        values = np.where(rng.standard_normal((count, 24)) > 0, 1, -1).astype(np.int8)
        sides.append(Rows(values, rng.uniform(0.5, 2, (count, 2)).astype(np.float32)))
    weights = np.array([1, 3], np.float32)
    layers = Representations(*sides, (8, 16), weights)
    given = Index.of(layers, replace(train, user_names=name_array(NAMES)), dataset="toy")
    if on_disk:
        given = load_index(given.save(tmp_path / "layers"))
    index = quantize(given, bits=64)
    np.testing.assert_array_equal(index.exclude.items, train.items)
    assert (index.names, index.dims) == ({"users": NAMES, "items": None}, (64,))
    assert index.manifest["dataset"] == "toy"
    dense = [side.values * side.scales.repeat((8, 16), axis=1) for side in sides]
    scores = dense[0] * weights.repeat((8, 16)) @ dense[1].T
    answers = index.search(np.arange(USERS), 20, train)[1]
    assert kept(index) == pytest.approx(naive_recall(scores, train, answers), abs=1e-12)
    assert kept(index) > 0.7  # by chance 20 / 80


def test_a_share_of_many_users_is_measured(rows, monkeypatch):
    monkeypatch.setattr("l2q.quantization.MEASURED_USERS", 40)
    index = quantize(*rows, bits=8)
    users = measured_users(index.exclude)
    np.testing.assert_array_equal(users, np.unique(np.linspace(0, USERS - 1, 40).astype(int)))
    best = np.argsort(-(rows[0] @ rows[1].T)[users], axis=1)[:, :20]
    right = Interactions.from_pairs(users.repeat(20), best.ravel(), USERS, ITEMS)
    assert kept(index) == pytest.approx(evaluate(index, right, (20,)).metrics["recall_20"], abs=1e-12)


def test_users_who_have_everything_are_not_measured(rows):
    everything = np.tile(np.arange(ITEMS), USERS)
    full = Interactions.from_pairs(np.arange(USERS).repeat(ITEMS), everything, USERS, ITEMS)
    with pytest.raises(L2QError, match="every user has all 80 items: there is no ranking to keep"):
        quantize(*rows, bits=4, train=full)
    assert measured_users(quantize(*rows, bits=4, train=full.select(full.users > 0)).exclude).tolist() == [0]


def changed(values: np.ndarray, row: int, value: float) -> np.ndarray:
    values = values.copy()
    values[row, 1] = value
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": lambda rows: changed(rows, 7, np.nan)}, "users: row 7 holds NaN, infinity or values"),
        (
            {"items": lambda rows: changed(rows, 3, 1e300)},
            "items: row 3 holds NaN, infinity or values beyond",
        ),
        ({"items": lambda rows: rows[:, :5]}, "users has 6 columns, items 5; their products need the same"),
        ({"users": lambda rows: rows[0]}, r"users: expected an array .* got float64 \(6,\)"),
        ({"users": lambda rows: rows[:0]}, r"users: expected an array .* got float64 \(0, 6\)"),
        ({"users": lambda rows: rows.astype(str)}, "users: expected an array"),
        ({"users": lambda rows: [[1.0], [1.0, 2.0]]}, "users: expected an array"),
        ({"users": lambda rows: torch.ones(3, 6, requires_grad=True)}, "users: expected an array"),
        ({"items": lambda rows: None}, "items are missing: give arrays of users and of items, or an index"),
        ({"users": np.zeros_like}, "all products of user and item rows are zero"),
        ({"bits": lambda _: 0}, "bits=0; it must be at least 1"),
        ({"bits": lambda _: 8193}, "bits=8193; it must be at most 8,192"),
        ({"bits": lambda _: 7.5}, "bits=7.5; it must be a whole number"),
        ({"bits": lambda _: True}, "bits=True; it must be a whole number"),
        ({"seed": lambda _: -1}, "seed=-1; it must be at least 0"),
        (
            {"user_names": lambda _: ["a", "b"]},
            "user_names has 2 names, users 120 rows; a row needs one name",
        ),
        ({"item_names": lambda _: NAMES}, "item_names has 120 names, items 80 rows"),
        (
            {"train": lambda _: Interactions.from_pairs([0], [0], 3, ITEMS)},
            "train is 3 users x 80 items, users and items have 120 and 80 rows",
        ),
    ],
)
def test_what_is_refused(rows, change, message):
    arguments = {"users": rows[0], "items": rows[1], "bits": 8}
    for name, make in change.items():
        arguments[name] = make(arguments.get(name))
    with pytest.raises(L2QError, match=message):
        quantize(arguments.pop("users"), arguments.pop("items"), **arguments)


def test_an_index_brings_its_own(rows, train):
    index = Index.of(Representations.floats(*(side.astype(np.float32) for side in rows)), train)
    for more in ({"items": rows[1]}, {"train": train}, {"user_names": NAMES}, {"item_names": NAMES}):
        with pytest.raises(L2QError, match="an index brings rows, train items and names of its own"):
            quantize(index, **more)
