"""Values that no caller should give to the Python API are a line, not an error from within."""

import numpy as np
import pytest

import l2q
from l2q.errors import L2QError
from l2q.interactions import Interactions
from l2q.representations import Representations

TRAIN = Interactions.from_pairs([0, 0, 1, 2], [0, 1, 2, 3], 3, 5)
ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)
INDEX = l2q.Index.of(Representations.floats(ROWS[:3], ROWS), TRAIN)


@pytest.mark.parametrize("k", [2.5, float("nan"), "3", None, True])
def test_how_many_is_a_whole_number(k):
    for ask in (
        lambda: INDEX.recommend(0, k),
        lambda: INDEX.similar(0, k),
        lambda: INDEX.recommend(items=1, k=k),
    ):
        with pytest.raises(L2QError, match=r"k=.* is no whole number"):
            ask()


@pytest.mark.parametrize("name", [1.0, float("nan"), [2.0], [None]])
def test_a_name_is_a_text_or_a_whole_number(name):
    for ask in (INDEX.recommend, INDEX.similar, lambda given: INDEX.recommend(items=given)):
        with pytest.raises(L2QError, match=r"is no name|is named"):
            ask(name)


def test_names_may_come_one_by_one():
    assert [one.items for one in INDEX.recommend(name for name in "02")] == [
        one.items for one in INDEX.recommend(["0", "2"])
    ]


@pytest.mark.parametrize("ks", [None, 5, [2.5], ["2"], [True], [float("nan")]])
def test_cut_offs_are_whole_numbers(ks):
    with pytest.raises(L2QError, match=r"eval\.ks=.*give"):
        l2q.evaluate(INDEX, TRAIN, ks)


def test_a_split_has_a_fraction_and_a_seed():
    for seed in (-1, 1.5, None, "a", float("nan")):
        with pytest.raises(L2QError, match=r"seed=.* must be a whole number of at least 0"):
            l2q.split(TRAIN, seed=seed)
    for fraction in ("x", None):
        with pytest.raises(L2QError, match=r"fraction=.* is no number"):
            l2q.split(TRAIN, fraction=fraction)


def test_a_fit_takes_interactions_and_some_of_them():
    with pytest.raises(L2QError, match="train is dict; read_events makes"):
        l2q.fit({"user": [1], "item": [2]})
    with pytest.raises(L2QError, match="train has no interactions"):
        l2q.fit(Interactions.from_pairs([], [], 3, 3), "l2q_plus", bits=8)
