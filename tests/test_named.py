"""An index by name: what it answers, against its own search by row numbers, in memory and from its files."""

from dataclasses import replace

import numpy as np
import pytest
from presets import descent, embeddings, l2q_plus

from l2q.errors import L2QError
from l2q.interactions import Interactions, name_array
from l2q.names import RowNumbers
from l2q.representations import Representations, Rows
from l2q.retrieval.fold_in import FoldIn, HalfRound
from l2q.retrieval.named import FEW_NAMES, Index, Ranking
from l2q.retrieval.storage import load_index

NUM_USERS, NUM_ITEMS = 20, 30


def interactions(seed=1) -> Interactions:
    rng = np.random.default_rng(seed)
    users, items = np.repeat(np.arange(NUM_USERS), 6), rng.integers(NUM_ITEMS, size=6 * NUM_USERS)
    return Interactions.from_pairs(users, items, NUM_USERS, NUM_ITEMS)


def named(train: Interactions, mark="") -> Interactions:
    return replace(
        train,
        user_names=name_array([f"user {row}{mark}" for row in range(NUM_USERS)]),
        item_names=name_array([f"ítem {row}{mark}" for row in range(NUM_ITEMS)]),
    )


def codes(seed=0) -> Representations:
    """Two segments with scales on both sides."""
    rng = np.random.default_rng(seed)
    sides = (
        Rows(
            rng.choice(np.array([-1, 1], np.int8), (rows, 29)),
            rng.random((rows, 2)).astype(np.float16).astype(np.float32),
        )
        for rows in (NUM_USERS, NUM_ITEMS)
    )
    return Representations(*sides, (20, 9), np.float32([0.5, 1]), "float16")


def floats(seed=0) -> Representations:
    rng = np.random.default_rng(seed)
    return Representations.floats(
        *(rng.standard_normal((rows, 5)).astype(np.float32) for rows in (NUM_USERS, NUM_ITEMS))
    )


def fitted() -> Index:
    """Codes of the best recipe, which fits those of new users."""
    model = l2q_plus(
        bits=16,
        filter={"rank": 8},
        embeddings=embeddings(weight=0.0),
        descent=descent(rounds=1, intruder_rounds=1, intruders=3),
        length=5,
    )
    found = model.fit(interactions(), 0)
    return Index.of(found.representations, named(interactions()), filter_side=found.filter_side)


MAKE = {
    "codes": lambda: Index.of(codes(), named(interactions())),
    "floats": lambda: Index.of(floats(), named(interactions())),
    "fitted": fitted,
}


@pytest.fixture(params=["codes", "floats", "fitted"])
def index(request) -> Index:
    return MAKE[request.param]()


def same(one: Ranking, other: Ranking, rtol: float = 0) -> None:
    assert one.items == other.items
    np.testing.assert_allclose(one.scores, other.scores, rtol=rtol)


def test_a_user_gets_what_a_search_by_row_gives(index):
    scores, items = index.search(np.array([7]), 5, index.exclude)
    ranking = index.recommend("user 7", k=5)
    assert ranking.items == [f"ítem {item}" for item in items[0]]
    np.testing.assert_array_equal(ranking.scores, scores[0])
    assert ranking.scores.dtype == np.float32
    assert len(index.recommend("user 7").items) == 10  # by default
    names, values = ranking  # it comes apart as a pair
    assert (names, values.shape) == (ranking.items, (5,))
    owned = {f"ítem {item}" for item in interactions()[7]}
    assert not owned & set(index.recommend("user 7", k=NUM_ITEMS).items)


@pytest.mark.parametrize("make", [list, tuple, np.array])
def test_many_users_get_each_their_own(index, make):
    rankings = index.recommend(make(["user 3", "user 19", "user 3"]), k=4)
    assert isinstance(rankings, list)
    # a product of float rows is rounded as the number of rows asks for
    rtol = 0 if index.representations.binary else 1e-6
    for ranking, user in zip(rankings, ("user 3", "user 19", "user 3"), strict=True):
        same(ranking, index.recommend(user, k=4), rtol)
    (alone,) = index.recommend(["user 3"], k=4)
    same(alone, rankings[0], rtol)
    assert index.recommend([]) == []


def test_a_new_user_gets_what_a_search_by_their_row_gives(index):
    owned = [2, 5, 11]
    rows = index.fold_in([owned])
    exclude = Interactions.from_pairs([0, 0, 0], owned, 1, NUM_ITEMS)
    scores, items = index.search(rows, 6, exclude)
    ranking = index.recommend(items=["ítem 5", "ítem 2", "ítem 11"], k=6)
    assert ranking.items == [f"ítem {item}" for item in items[0]]
    np.testing.assert_array_equal(ranking.scores, scores[0])
    everything = index.recommend(items=["ítem 5", "ítem 2", "ítem 11"], k=99).items
    assert sorted(everything) == sorted(f"ítem {row}" for row in range(NUM_ITEMS) if row not in owned)
    same(
        index.recommend(items=["ítem 5", "ítem 2", "ítem 11", "ítem 5"], k=6), ranking
    )  # said twice, had once


def test_new_users_by_half_a_round_where_the_index_keeps_what_it_needs():
    assert isinstance(fitted().fold_in, HalfRound)
    assert isinstance(Index.of(codes(), interactions()).fold_in, FoldIn)


def test_many_new_users_get_each_their_own(index):
    lists = [["ítem 1", "ítem 2"], ["ítem 29"], ("ítem 4", "ítem 5", "ítem 6")]
    rankings = index.recommend(items=lists, k=4)
    assert isinstance(rankings, list)
    for ranking, names in zip(rankings, lists, strict=True):
        same(ranking, index.recommend(items=names, k=4), rtol=1e-6)
    (only,) = index.recommend(items=[["ítem 29"]], k=4)
    assert only.items == rankings[1].items


def test_one_item_alone_is_no_list_of_letters():
    index = Index.of(codes(), interactions())  # rows are names: "12" must not become items 1 and 2
    expected = index.recommend(items=["12"], k=5)
    assert "12" not in index.recommend(items="12", k=NUM_ITEMS).items
    for items in ("12", 12, [12]):
        same(index.recommend(items=items, k=5), expected)
    for ranking in index.recommend(items=[["12"], "12"], k=5):
        same(ranking, expected)


def test_similar_items(index):
    rows = index.representations
    near = rows.items.values.astype(np.float64)
    if rows.items.binary:
        near *= np.sqrt(rows.weights * rows.items.scales).repeat(rows.dims, axis=1)
    else:
        near /= np.linalg.norm(near, axis=1, keepdims=True)
    for name in ("ítem 0", "ítem 17"):
        row = int(name.split()[1])
        ranking = index.similar(name, k=5)
        assert name not in index.similar(name, k=NUM_ITEMS).items
        expected = near @ near[row]
        np.testing.assert_allclose(ranking.scores, np.sort(np.delete(expected, row))[::-1][:5], rtol=1e-5)
        shown = [expected[index.row("items", item)] for item in ranking.items]
        np.testing.assert_allclose(ranking.scores, shown, rtol=1e-5)
    several = index.similar(["ítem 17", "ítem 0"], k=5)
    assert isinstance(several, list)
    # a product of float rows is rounded as the number of rows asks for
    same(several[0], index.similar("ítem 17", k=5), rtol=1e-6)
    same(several[1], index.similar("ítem 0", k=5), rtol=1e-6)
    assert len(index.similar("ítem 0").items) == 10
    assert index.similar([]) == []


def test_rankings_end_where_no_item_is_left(index):
    left = NUM_ITEMS - len(interactions()[7])
    for k in (left, left + 1, NUM_ITEMS, NUM_ITEMS + 1, 10**9):
        ranking = index.recommend("user 7", k=k)
        assert (len(set(ranking.items)), ranking.scores.shape) == (left, (left,))
        assert np.isfinite(ranking.scores).all()
    assert len(index.similar("ítem 0", k=10**9).items) == NUM_ITEMS - 1


@pytest.mark.parametrize("k", [0, -1])
def test_at_least_one_item_is_asked_for(index, k):
    for ask in (
        lambda: index.recommend("user 7", k=k),
        lambda: index.recommend(items=["ítem 7"], k=k),
        lambda: index.similar("ítem 7", k=k),
    ):
        with pytest.raises(L2QError, match=f"k is {k}; it must be at least 1"):
            ask()


def test_without_names_the_rows_are_the_names():
    index, other = Index.of(codes(), interactions()), Index.of(codes(), named(interactions()))
    assert index.names == {"users": None, "items": None}
    for user in (7, "7", np.int64(7), np.str_("7")):
        ranking = index.recommend(user, k=5)
        assert [f"ítem {name}" for name in ranking.items] == other.recommend("user 7", k=5).items
    assert [len(ranking.items) for ranking in index.recommend([7, "8"], k=3)] == [3, 3]
    assert all(isinstance(name, str) for name in index.recommend(7).items)
    same(index.similar(3), index.similar("3"))
    same(index.recommend(items=[3, 4]), index.recommend(items=["3", "4"]))


def test_names_of_one_side_alone():
    items = replace(named(interactions()), user_names=None)
    index = Index.of(codes(), items)
    assert index.recommend(7, k=1).items[0].startswith("ítem ")
    assert index.user_names[19] == "19"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda index: index.recommend("user 77"),
            "no user is named 'user 77' among 20; near it: user 7, user 17, user 9",
        ),
        (lambda index: index.recommend(["user 7", "xyz"]), "no user is named 'xyz' among 20"),
        (lambda index: index.recommend(7), "no user is named '7' among 20"),
        (lambda index: index.similar("ítem 30"), "no item is named 'ítem 30' among 30; near it: ítem 3, "),
        (lambda index: index.similar(["ítem 3", "xyz"]), "no item is named 'xyz' among 30"),
        (lambda index: index.recommend(items=["ítem 3", "xyz"]), "no item is named 'xyz' among 30"),
        (lambda index: index.recommend(items=[["ítem 3"], ["xyz"]]), "no item is named 'xyz' among 30"),
        (lambda index: index.recommend(items="xyz"), "no item is named 'xyz' among 30"),
        (lambda index: index.recommend(items=[]), "item list 0 is empty; a new user needs at least one item"),
        (lambda index: index.recommend(items=[["ítem 3"], []]), "item list 1 is empty"),
        (lambda index: index.recommend(), "recommend takes users of the index, or the items of a new user"),
        (lambda index: index.recommend("user 7", items=["ítem 3"]), "of a new user: give one of them"),
    ],
)
def test_what_is_unknown_is_one_line(ask, message):
    with pytest.raises(L2QError) as caught:
        ask(Index.of(codes(), named(interactions())))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", [1, FEW_NAMES, FEW_NAMES + 1])
def test_of_equal_names_the_first_row_stands_however_many_are_asked_for(asked):
    twice = name_array(["a", "b", "a", *(f"u{row}" for row in range(3, NUM_USERS))])
    index = Index.of(codes(), replace(interactions(), user_names=twice))
    scores, _ = index.search(np.array([0]), 10, index.exclude)
    rankings = index.recommend(["a"] * asked)
    assert len(rankings) == asked
    for ranking in (*rankings, index.recommend("a")):
        np.testing.assert_array_equal(ranking.scores, scores[0])
    with pytest.raises(L2QError, match=r"^no user is named 'c' among 20$"):
        index.recommend(["a"] * asked + ["c"])


def answers(index: Index) -> list[Ranking]:
    return [
        *index.recommend(list(index.user_names), k=12),
        *index.recommend(items=[[index.item_names[3]], [index.item_names[4], index.item_names[9]]], k=12),
        *index.similar(list(index.item_names), k=12),
    ]


def all_same(first: list[Ranking], second: list[Ranking]) -> None:
    for one, other in zip(first, second, strict=True):
        same(one, other)


def test_the_files_answer_as_the_memory_does(index, tmp_path):
    opened = load_index(index.save(tmp_path / "index"))
    assert opened.folder == tmp_path / "index"
    assert (opened.names, opened.dims) == (index.names, index.dims)
    all_same(answers(index), answers(opened))
    # and once more, over the very files that it is reading
    before = (tmp_path / "index" / "manifest.json").read_bytes()
    opened.save(tmp_path / "index")
    assert (tmp_path / "index" / "manifest.json").read_bytes() == before
    all_same(answers(opened), answers(load_index(tmp_path / "index")))


def test_an_open_index_outlives_its_folder(index, tmp_path):
    """Rows, names and train items are its own, even those it had not looked at when another one took its place."""
    folder = index.save(tmp_path / "index")
    opened = load_index(folder)
    expected = answers(index)
    Index.of(codes(seed=5), named(interactions(seed=6), mark="'")).save(folder)
    all_same(answers(opened), expected)
    new = load_index(folder)
    assert new.user_names[0] == "user 0'"
    assert [ranking.items for ranking in answers(new)] != [ranking.items for ranking in expected]
    assert opened.user_names[0] == "user 0"


def test_an_index_in_memory_is_not_its_representations():
    """Rows that a caller changes later stay as they were, since codes are packed and names are listed."""
    representations, train = codes(), named(interactions())
    index = Index.of(representations, train)
    expected = answers(index)
    representations.users.values[:] = 1
    train.user_names[:] = "?"
    all_same(answers(index), expected)


def test_rows_and_train_must_agree():
    with pytest.raises(L2QError, match="train is 3 users x 30 items, the representations 20 x 30"):
        Index.of(codes(), Interactions.from_pairs([0], [0], 3, NUM_ITEMS))


def test_rows_without_names_are_called_by_their_numbers():
    names, words = RowNumbers(120), [str(row) for row in range(120)]
    assert list(names) == words
    assert list(reversed(names)) == words[::-1]
    assert [names[7], names[np.int64(-1)]] == ["7", "119"]
    assert names[118:300] == ["118", "119"]
    assert [names.index(word) for word in words] == list(range(120))
    assert all(word in names for word in words)
    for word in ("120", "-1", "007", " 7", "7.0", "", "\u0667", "1_0", "9" * 5000):
        assert names.count(word) == 0
        assert word not in names
        with pytest.raises(ValueError, match="is no name"):
            names.index(word)
    assert 7 not in names
    with pytest.raises(IndexError):
        names[120]


def test_an_index_without_names_holds_none():
    index = Index.of(codes(), interactions())
    assert isinstance(index.user_names, RowNumbers)
    assert isinstance(index.item_names, RowNumbers)
    many = [*map(str, range(FEW_NAMES)), NUM_USERS - 1]
    for found, row in zip(index.recommend(many, k=3), map(int, many), strict=True):
        scores, items = index.search(np.array([row]), 3, index.exclude)
        assert found.items == list(map(str, items[0]))
        assert found.scores.tolist() == scores[0].tolist()
